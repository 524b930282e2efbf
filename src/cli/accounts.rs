//! The commands about accounts.

use clap::{Args, Subcommand};
use postrider_mail::{AccountId, EmailAddress};

use super::{OnOff, SenderPauseArgs, SuppressionChoice};

pub(super) const ACCOUNTS_HELP: &str = "One company needs none of this: it has the account 000000000001.

Examples:
  postrider accounts create 100000000002 --name Acme --daily-quota 50000 --max-rate 14
  postrider accounts set 100000000002 --sandbox on
  postrider identities create acme.example --account 100000000002
  postrider credentials create --account 100000000002
  postrider accounts pause 100000000002 --hold --reason 'unpaid'";

#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// Make an account
    Create {
        /// Its number, up to twelve digits
        id: AccountId,
        #[command(flatten)]
        options: AccountOptions,
    },
    /// List the accounts that were made
    List,
    /// Show an account
    Show {
        /// Its number
        id: AccountId,
    },
    /// Change an account; it holds for the next message
    Set {
        /// Its number
        id: AccountId,
        #[command(flatten)]
        options: AccountOptions,
    },
    /// Forget an account that owns nothing any more
    Delete {
        /// Its number
        id: AccountId,
    },
    /// Take no mail of an account
    Pause {
        /// Its number
        id: AccountId,
        #[command(flatten)]
        pause: SenderPauseArgs,
    },
    /// Take its mail again
    Resume {
        /// Its number
        id: AccountId,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AccountOptions {
    /// A name for people, at most 64 characters
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Who is written to about it, beside the operator
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) contact: Option<EmailAddress>,
    /// Write to nobody but the operator
    #[arg(long, conflicts_with = "contact")]
    pub(crate) no_contact: bool,
    /// Whether it may write only to its own verified identities and the simulator
    #[arg(long, value_enum)]
    pub(crate) sandbox: Option<OnOff>,
    /// Most recipients in any 24 hours
    #[arg(long, value_name = "N")]
    pub(crate) daily_quota: Option<u64>,
    /// As many as it likes in 24 hours (in the sandbox: 200)
    #[arg(long, conflicts_with = "daily_quota")]
    pub(crate) no_daily_quota: bool,
    /// Most recipients a second, over a while
    #[arg(long, value_name = "N")]
    pub(crate) max_rate: Option<u32>,
    /// As fast as it likes (in the sandbox: 1 a second)
    #[arg(long, conflicts_with = "max_rate")]
    pub(crate) no_max_rate: bool,
    /// Which outcomes put an address on its suppression list; again for the other
    #[arg(long = "suppress", value_name = "REASON", value_enum)]
    pub(crate) suppress: Vec<SuppressionChoice>,
    /// Whether the rules about its reputation may pause it
    #[arg(long, value_enum)]
    pub(crate) auto_pause: Option<OnOff>,
    /// A tag, or another value for it; an account has at most 50
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    pub(crate) tags: Vec<String>,
    /// Take a tag off
    #[arg(long = "untag", value_name = "KEY")]
    pub(crate) untags: Vec<String>,
}
