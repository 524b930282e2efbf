//! The commands about how mail is sent.

use clap::{Args, Subcommand, ValueEnum};
use postrider_account::{EventType, TlsPolicy};
use postrider_base::Period;
use postrider_mail::{Domain, SuppressionReason};

use super::{AccountArg, SenderPauseArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigurationSetsCommand {
    /// Make a set
    Create {
        /// Its name: 1 to 64 letters, digits, - and _
        name: String,
        #[command(flatten)]
        options: SetOptions,
        #[command(flatten)]
        account: AccountArg,
    },
    /// List the sets
    List {
        #[command(flatten)]
        account: AccountArg,
    },
    /// Show a set
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Change rules of a set; those not named stay
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        options: SetOptions,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Refuse messages of a set until it is resumed
    Pause {
        /// Its name
        name: String,
        #[command(flatten)]
        pause: SenderPauseArgs,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Take messages of a set again, with a fresh start for its rates
    Resume {
        /// Its name
        name: String,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Who is told what becomes of a set's messages (kept; nothing is published yet)
    #[command(subcommand)]
    EventDestinations(EventDestinationsCommand),
    /// Forget a set: messages that name it are refused from now on
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        account: AccountArg,
    },
}

#[derive(Args, Debug)]
pub(crate) struct SetOptions {
    /// Whether its messages may leave in clear; like all but the lifetime, from the next attempt on
    #[arg(long, value_enum)]
    pub(crate) tls: Option<TlsChoice>,
    /// The pool that its messages leave from
    #[arg(long)]
    pub(crate) pool: Option<String>,
    /// Its messages leave from the shared pool
    #[arg(long, conflicts_with = "pool")]
    pub(crate) no_pool: bool,
    /// How long delivery of what is accepted from now on is tried, as 14h; at most submission.expiry
    #[arg(long, value_name = "TIME")]
    pub(crate) max_lifetime: Option<Period>,
    /// Delivery is tried as long as for other messages
    #[arg(long, conflicts_with = "max_lifetime")]
    pub(crate) no_max_lifetime: bool,
    /// The waits between attempts, as 2m,10m,1h; the last one repeats
    #[arg(long, value_name = "TIME,...", value_delimiter = ',')]
    pub(crate) retry: Vec<Period>,
    /// Attempts are made at the same intervals as for other messages
    #[arg(long, conflicts_with = "retry")]
    pub(crate) no_retry: bool,
    /// Each recipient gets a copy of its own, under the same message id
    #[arg(long)]
    pub(crate) per_recipient: bool,
    /// Recipients of one domain share a copy
    #[arg(long, conflicts_with = "per_recipient")]
    pub(crate) no_per_recipient: bool,
    /// Whether messages may be sent with it; while not, they are refused (`pause` says why, too)
    #[arg(long, value_enum)]
    pub(crate) sending: Option<OnOff>,
    /// Which outcomes put an address on the suppression list, and which entries of it hold, for its messages
    #[arg(long, value_enum, value_name = "REASON,...", value_delimiter = ',')]
    pub(crate) suppression: Vec<SuppressionChoice>,
    /// Links and images for tracking lead to this domain, which is or lies in a verified identity
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) tracking_domain: Option<Domain>,
    /// They lead to the relay's own domain
    #[arg(long, conflicts_with = "tracking_domain")]
    pub(crate) no_tracking_domain: bool,
    /// Whether outcomes of its messages are counted by themselves too
    #[arg(long, value_enum, value_name = "ON-OFF")]
    pub(crate) reputation_metrics: Option<OnOff>,
    /// Outcomes from before now do not count in its rates any more
    #[arg(long)]
    pub(crate) fresh_start: bool,
    /// A tag, or another value for it; a set has at most 50
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    pub(crate) tags: Vec<String>,
    /// Take a tag off
    #[arg(long = "untag", value_name = "KEY")]
    pub(crate) untags: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// Yes
    On,
    /// No
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuppressionChoice {
    /// Hard bounces
    Bounce,
    /// Complaints
    Complaint,
    /// None of them: no address is added, and none is held back
    None,
    /// As the account has it
    Inherit,
}

impl SuppressionChoice {
    pub(crate) fn reason(self) -> Option<SuppressionReason> {
        match self {
            SuppressionChoice::Bounce => Some(SuppressionReason::Bounce),
            SuppressionChoice::Complaint => Some(SuppressionReason::Complaint),
            SuppressionChoice::None | SuppressionChoice::Inherit => None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventDestinationsCommand {
    /// Add a destination; a set has at most 10
    Create {
        /// The set
        set: String,
        /// Its name: 1 to 64 letters, digits, - and _
        name: String,
        /// What it is told: send, reject, bounce, complaint, delivery, open, click, rendering-failure,
        /// delivery-delay, subscription
        #[arg(long, value_name = "TYPE,...", value_delimiter = ',', required = true)]
        types: Vec<EventType>,
        #[command(flatten)]
        target: TargetArgs,
        /// It is told nothing for now
        #[arg(long)]
        disabled: bool,
        #[command(flatten)]
        account: AccountArg,
    },
    /// List the destinations of a set
    List {
        /// The set
        set: String,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Change a destination; what is not named stays
    Set {
        /// The set
        set: String,
        /// The destination
        name: String,
        /// What it is told, instead of what it was
        #[arg(long, value_name = "TYPE,...", value_delimiter = ',')]
        types: Vec<EventType>,
        #[command(flatten)]
        target: TargetArgs,
        /// Whether it is told anything
        #[arg(long, value_enum)]
        enabled: Option<OnOff>,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Forget a destination
    Delete {
        /// The set
        set: String,
        /// The destination
        name: String,
        #[command(flatten)]
        account: AccountArg,
    },
}

#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct TargetArgs {
    /// Events are posted to this https: or http: URL, as JSON
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,
    /// Events are appended to this file, one line of JSON each
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// Events are written to a TCP connection, one line of JSON each
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) stream: Option<String>,
    /// Events are counted by the values of message tags, header fields or link tags; with the
    /// value of messages without, as tag:campaign=none,header:X-Kind=none,link:button=none
    #[arg(long, value_name = "SOURCE:NAME=DEFAULT,...", value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TlsChoice {
    /// Encrypted where the receiving host offers it
    Optional,
    /// Encrypted, or not at all
    Require,
}

impl From<TlsChoice> for TlsPolicy {
    fn from(choice: TlsChoice) -> TlsPolicy {
        match choice {
            TlsChoice::Optional => TlsPolicy::Optional,
            TlsChoice::Require => TlsPolicy::Require,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolsCommand {
    /// Make a pool
    Create {
        /// Its name: 1 to 64 lower-case letters, digits, dots, - and _
        name: String,
        #[command(flatten)]
        account: AccountArg,
    },
    /// List the pools
    List {
        #[command(flatten)]
        account: AccountArg,
    },
    /// Put a source into a pool; it leaves the pool that it was in
    Assign {
        /// The pool
        name: String,
        /// The source, as the configuration names it
        source: String,
        /// Its share against the pool's other sources
        #[arg(long, default_value_t = 1)]
        weight: u32,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Take a source out of a pool, into the shared one
    Remove {
        /// The pool
        name: String,
        /// The source
        source: String,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Forget a pool; its sources are in the shared one then
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        account: AccountArg,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SourcesCommand {
    /// List the sources with the sums of their last 30 days
    List,
    /// Show a source: reverse DNS, warm-up, its mail by day
    Show {
        /// What the configuration calls it
        name: String,
    },
    /// Set how far a source is warmed up, from now on
    WarmUp {
        /// What the configuration calls it
        name: String,
        #[command(flatten)]
        to: WarmUpArgs,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct WarmUpArgs {
    /// Go on from this percentage
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) percent: Option<u8>,
    /// Begin anew
    #[arg(long)]
    pub(crate) restart: bool,
    /// It needs no (further) warm-up
    #[arg(long)]
    pub(crate) complete: bool,
}
