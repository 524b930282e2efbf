//! The command line.

mod accounts;
mod audit;
mod auth;
mod backup;
mod credentials;
mod dkim;
mod dns;
mod feedback;
mod identities;
mod policy;
mod reputation;
mod sending;
mod shaping;
mod state;
mod suppression;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use postrider_base::{Network, Period};
use postrider_mail::{AccountId, Domain, MessageId};

pub(crate) use accounts::{AccountOptions, AccountsCommand};
pub(crate) use audit::AuditArgs;
pub(crate) use auth::{AuthCheckArgs, AuthCommand, DmarcCommand, DmarcReportArgs};
pub(crate) use backup::{BackupArgs, RestoreArgs};
pub(crate) use credentials::{CredentialOptions, CredentialWishes, CredentialsCommand};
pub(crate) use dkim::DkimCommand;
pub(crate) use dns::{DnsCommand, DnsPlanArgs, DoctorArgs, ExplainArgs};
pub(crate) use feedback::{FeedbackCommand, FeedbackReadArgs};
pub(crate) use identities::{IdentitiesCommand, Switch};
pub(crate) use policy::{OwnerArgs, PolicyCommand, PolicyTestArgs};
pub(crate) use reputation::{ReputationArgs, ReputationCommand, SenderPauseArgs};
pub(crate) use sending::{
    ConfigurationSetsCommand, EventDestinationsCommand, OnOff, PoolsCommand, SetOptions, SourcesCommand,
    SuppressionChoice, TargetArgs, WarmUpArgs,
};
pub(crate) use shaping::{PauseArgs, ResumeArgs, ShapingCommand};
pub(crate) use state::ApplyArgs;
pub(crate) use suppression::{ExportFormat, ListArg, SuppressionCommand};

/// An SMTP relay with Amazon SES's semantics that a company runs itself.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, about, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The configuration file [default: /etc/postrider/postrider.toml, else ./postrider-data/postrider.toml]
    #[arg(long, global = true, value_name = "FILE", env = "POSTRIDER_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Print JSON, one document or one line an item, instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0   done
  1   it failed; one line on stderr says why
  2   the command line is wrong; of the doctor: mail suffers; of apply --dry-run: there are differences
  3   the message, credential or address named does not exist
  4   no daemon runs, or its control socket is closed to this user
  78  the configuration is wrong";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the relay
    Serve {
        /// Write the keys of all TLS sessions to this file, for looking into a packet dump: who
        /// has the file can read all mail and all passwords. For debugging alone
        #[arg(long, value_name = "FILE")]
        debug_tls_key_log: Option<PathBuf>,
    },
    /// Try it: a relay on 127.0.0.1 with a built-in inbox, without any configuration
    Quickstart(QuickstartArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Accounts: whose credentials, identities, sets and lists are, for who has many customers
    #[command(subcommand, after_help = accounts::ACCOUNTS_HELP)]
    Accounts(AccountsCommand),
    /// SMTP credentials
    #[command(subcommand, after_help = credentials::CREDENTIALS_HELP)]
    Credentials(CredentialsCommand),
    /// Identities: the domains and addresses that mail is sent from
    #[command(subcommand)]
    Identities(IdentitiesCommand),
    /// DKIM keys: what mail is signed with
    #[command(subcommand)]
    Dkim(DkimCommand),
    /// Look at messages as receivers do
    #[command(subcommand)]
    Auth(AuthCommand),
    /// What receivers report about mail in the name of a domain
    #[command(subcommand)]
    Dmarc(DmarcCommand),
    /// What a domain should publish in the DNS
    #[command(subcommand)]
    Dns(DnsCommand),
    /// Say what is right, what is doubtful and what is wrong, and what to do about it
    #[command(after_help = dns::DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Say what would be used for mail of a sender, and why: identity, keys, addresses, return path
    #[command(after_help = dns::EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Bounces and complaints that come back as mail
    #[command(subcommand)]
    Feedback(FeedbackCommand),
    /// Suppression lists: addresses that get nothing
    #[command(subcommand, after_help = suppression::SUPPRESSION_EXAMPLES)]
    Suppression(SuppressionCommand),
    /// Named rules for the messages that choose them (X-SES-CONFIGURATION-SET)
    #[command(subcommand)]
    ConfigurationSets(ConfigurationSetsCommand),
    /// Policies: who may send what, in the language of IAM
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Dedicated pools: addresses for the configuration sets that name the pool
    #[command(subcommand)]
    Pools(PoolsCommand),
    /// The addresses that mail leaves from, their warm-up, what became of their mail
    #[command(subcommand)]
    Sources(SourcesCommand),
    /// Give a node what a file declares: accounts, sets, identities, pools, policies
    #[command(after_help = state::APPLY_HELP)]
    Apply(ApplyArgs),
    /// Print what a node has, as `postrider apply` reads it
    Export,
    /// Who changed what, when and from where
    #[command(after_help = audit::AUDIT_EXAMPLES)]
    Audit(AuditArgs),
    /// Copy the state of a node while it works: tables, keys, audit log
    #[command(after_help = backup::BACKUP_HELP)]
    Backup(BackupArgs),
    /// Make a state directory from a backup; no daemon may run
    #[command(after_help = backup::RESTORE_HELP)]
    Restore(RestoreArgs),
    /// Addresses that are banned for guessing passwords
    #[command(subcommand)]
    Bans(BansCommand),
    /// Messages that are waiting
    #[command(subcommand)]
    Queue(QueueCommand),
    /// How much accounts may send in 24 hours and in a second, and have sent in the last 24 hours
    Quota {
        /// Only this account [default: all that exist or have sent]
        #[arg(long)]
        account: Option<AccountId>,
    },
    /// How many recipients bounce and complain, of accounts and of the configuration sets that ask for it
    Reputation(ReputationArgs),
    /// The whole life of one message: accepted, each attempt with its reply, outcome
    Message {
        /// The id that the final `250 Ok` named
        id: MessageId,
    },
    /// Delivery events, one JSON object a line
    #[command(subcommand)]
    Events(EventsCommand),
    /// Show what is said in the sessions of a client while it is said, without passwords and
    /// content, until interrupted
    Trace(TraceArgs),
    /// What this node is and how it fares
    Status,
    /// Make the daemon read its configuration and certificates again
    Reload,
    /// The destinations that delivery knows at the moment
    Sites,
    /// How much mail goes where: rules, how they stand, what pauses
    #[command(subcommand)]
    Shaping(ShapingCommand),
    /// Let no mail out to a domain, a site or a provider; it waits in the queue
    Pause(PauseArgs),
    /// Let mail out again, whoever or whatever paused it
    Resume(ResumeArgs),
    /// Policies of recipient domains (MTA-STS)
    #[command(subcommand)]
    Sts(StsCommand),
    /// The durable queue on disk: its figures, whether it is whole, moving its mail
    Spool {
        /// What to do [default: stat]
        #[command(subcommand)]
        command: Option<SpoolCommand>,
    },
    /// Print the reference of all metrics as Markdown
    Metrics,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Args, Debug)]
pub(crate) struct QuickstartArgs {
    /// Where to keep everything
    #[arg(long, value_name = "DIR", default_value = "./postrider-data")]
    pub(crate) dir: PathBuf,
    /// The STARTTLS port on 127.0.0.1
    #[arg(long, default_value_t = 2587)]
    pub(crate) starttls_port: u16,
    /// The TLS wrapper port on 127.0.0.1
    #[arg(long, default_value_t = 2465)]
    pub(crate) wrapper_port: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the configuration is right
    Check,
    /// Print the configuration in effect, defaults included
    Show,
    /// Print the reference of all keys as Markdown
    Reference,
}

#[derive(Args, Debug)]
pub(crate) struct AccountArg {
    /// The account [default: the configuration's]
    #[arg(long)]
    pub(crate) account: Option<AccountId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StsCommand {
    /// Show the policy of a domain as it is kept
    Show {
        /// The part of the recipients' addresses behind the @
        domain: Domain,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BansCommand {
    /// List the bans in effect
    List,
    /// Lift bans before their time
    Clear(BansClearArgs),
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct BansClearArgs {
    /// Those of addresses in this network, as 192.0.2.7 or 192.0.2.0/24
    pub(crate) network: Option<Network>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct TraceArgs {
    /// Clients at these addresses, as 192.0.2.7 or 192.0.2.0/24
    #[arg(long, value_name = "NETWORK")]
    pub(crate) peer: Option<Network>,
    /// Clients that authenticate as this user
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// How long, as 30s, 10m
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) time: Option<Period>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// One row for each account and recipient domain
    Summary,
    /// Waiting messages, oldest first
    List {
        /// Only those with an open recipient in this domain
        #[arg(long)]
        domain: Option<Domain>,
        /// Most rows
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One message with its recipients and their last replies
    Show {
        /// The message
        id: MessageId,
    },
    /// Make messages due now
    Retry(SelectorArgs),
    /// Give up messages without a bounce
    Delete(SelectorArgs),
    /// Keep messages from being delivered until they are released
    Hold(SelectorArgs),
    /// Let held messages go on
    Release(SelectorArgs),
    /// The destinations in use, those in trouble first: connections, limits, what waits, pauses,
    /// last refusals
    Sites {
        /// Only this one, in detail: a site or one of its hosts
        #[arg(long, value_name = "NAME")]
        site: Option<String>,
    },
    /// Why a message has not left, for each recipient, and what to do
    Why {
        /// The message
        id: MessageId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolCommand {
    /// Figures of the durable queue
    Stat,
    /// Read all of it and verify every checksum, and the index against the log; no daemon may run.
    /// Exits with 1 where something is damaged
    Check {
        /// Then mend what can be mended: save what is good of damaged segments, put the rest into
        /// quarantine, make the index anew
        #[arg(long)]
        repair: bool,
    },
    /// Give back all space on the disk that can be given back now
    Compact,
    /// Write waiting messages to a file and take them out of the queue, for another machine to
    /// import; no daemon may run
    Export {
        /// The file to make
        file: PathBuf,
        /// Only messages with an open recipient in this domain
        #[arg(long, conflicts_with = "id")]
        domain: Option<Domain>,
        /// Only this message
        #[arg(long)]
        id: Option<MessageId>,
        /// Leave the messages in the queue too: whoever imports the copy delivers them a second
        /// time, so that an import holds them
        #[arg(long)]
        keep: bool,
        /// Go on with an export of this file that was interrupted when the file was whole
        #[arg(long, conflicts_with_all = ["domain", "id", "keep"])]
        finish: bool,
    },
    /// Take in the messages of a file that another machine exported; no daemon may run
    Import {
        /// The file
        file: PathBuf,
        /// Take again what was taken from this file before and does not wait any more: what was
        /// delivered meanwhile is delivered twice
        #[arg(long)]
        again: bool,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct SelectorArgs {
    /// The message
    pub(crate) id: Option<MessageId>,
    /// All messages with an open recipient in this domain
    #[arg(long)]
    pub(crate) domain: Option<Domain>,
    /// All messages
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Events as they happen, until interrupted
    Tail,
    /// Events from a time on
    Since {
        /// A time as 2026-01-31T12:00:00Z, or an age as 90s, 15m, 2h, 3d
        time: String,
    },
}
