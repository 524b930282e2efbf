//! The commands about how mail is sent.

use clap::{Args, Subcommand, ValueEnum};
use postrider_account::TlsPolicy;
use postrider_base::Period;

use super::AccountArg;

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
    /// Forget a set: messages that name it are sent without its rules
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
