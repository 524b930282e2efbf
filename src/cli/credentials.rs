//! The commands about SMTP credentials.

use clap::{Args, Subcommand, ValueEnum};
use postrider_account::RecipientOverflow;

use super::{AccountArg, OnOff};

pub(super) const CREDENTIALS_HELP: &str = "Examples:
  postrider credentials create --label 'web shop' --daily-quota 10000 --max-rate 5
  postrider credentials set AKIAIOSFODNN7EXAMPLE --max-rate 10 --no-daily-quota
  postrider credentials show AKIAIOSFODNN7EXAMPLE";

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsCommand {
    /// Compute the SMTP password of a secret access key, which is read from stdin or
    /// POSTRIDER_SECRET_ACCESS_KEY, and print it alone
    Derive {
        /// The region that the password is for
        #[arg(long)]
        region: String,
    },
    /// Make a credential and show its secret, once
    Create {
        #[command(flatten)]
        wishes: CredentialWishes,
    },
    /// List the credentials
    List,
    /// Show a credential, its quotas and what it has sent of them
    Show {
        /// Its user name
        user: String,
    },
    /// Change a credential; it holds for the next message
    Set {
        /// Its user name
        user: String,
        #[command(flatten)]
        options: CredentialOptions,
    },
    /// Refuse a credential until it is enabled again
    Disable {
        /// Its user name
        user: String,
    },
    /// Accept a disabled credential again
    Enable {
        /// Its user name
        user: String,
    },
    /// Put a credential into the sandbox, or take it out: it holds for the next message
    Sandbox {
        /// Its user name
        user: String,
        /// In, or out
        #[arg(value_enum)]
        sandbox: OnOff,
    },
    /// Remove a credential for good
    Delete {
        /// Its user name
        user: String,
    },
    /// Take over an existing credential: its SMTP password or secret access key is read from stdin
    Import {
        /// The access key id that clients use as user name
        #[arg(long, value_name = "AKIA...")]
        user: String,
        #[command(flatten)]
        wishes: CredentialWishes,
    },
}

/// What a new credential is to be.
#[derive(Args, Debug)]
pub(crate) struct CredentialWishes {
    /// A name for people
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// What a message with more than 50 recipients meets
    #[arg(long, value_enum, default_value_t)]
    pub(crate) overflow: Overflow,
    /// It is for trying things out: its messages go only to verified identities of the account
    /// and to the simulator, to 200 recipients a day and one a second
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// Most recipients in any 24 hours, of what the account may send
    #[arg(long, value_name = "N")]
    pub(crate) daily_quota: Option<u64>,
    /// Most recipients a second, over a while, of what the account may send
    #[arg(long, value_name = "N")]
    pub(crate) max_rate: Option<u32>,
    #[command(flatten)]
    pub(crate) account: AccountArg,
}

/// What of a credential is to be otherwise.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct CredentialOptions {
    /// A name for people
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// What a message with more than 50 recipients meets
    #[arg(long, value_enum)]
    pub(crate) overflow: Option<Overflow>,
    /// Whether its messages go only to verified identities of the account and to the simulator
    #[arg(long, value_enum)]
    pub(crate) sandbox: Option<OnOff>,
    /// Most recipients in any 24 hours, of what the account may send
    #[arg(long, value_name = "N")]
    pub(crate) daily_quota: Option<u64>,
    /// As many in 24 hours as the account may (in the sandbox: 200)
    #[arg(long, conflicts_with = "daily_quota")]
    pub(crate) no_daily_quota: bool,
    /// Most recipients a second, over a while, of what the account may send
    #[arg(long, value_name = "N")]
    pub(crate) max_rate: Option<u32>,
    /// As fast as the account may (in the sandbox: 1 a second)
    #[arg(long, conflicts_with = "max_rate")]
    pub(crate) no_max_rate: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Overflow {
    /// The whole message is refused, as SES does
    #[default]
    Reject,
    /// The recipients beyond the bound get a 4xx; smarthosts send them next
    Defer,
}

impl From<Overflow> for RecipientOverflow {
    fn from(overflow: Overflow) -> RecipientOverflow {
        match overflow {
            Overflow::Reject => RecipientOverflow::Reject,
            Overflow::Defer => RecipientOverflow::Defer,
        }
    }
}
