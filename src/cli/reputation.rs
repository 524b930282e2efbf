//! The commands about rates of bounces and complaints, and about pauses.

use clap::{Args, Subcommand};
use postrider_mail::AccountId;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ReputationArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ReputationCommand>,
    #[command(flatten)]
    pub(crate) whose: Whose,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReputationCommand {
    /// Have only the outcomes of messages count that are accepted from now on
    FreshStart {
        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Whose {
    /// Of this account [default: all; for a fresh start and a set, the default account]
    #[arg(long)]
    pub(crate) account: Option<AccountId>,
    /// Of this configuration set of it
    #[arg(long, value_name = "NAME")]
    pub(crate) configuration_set: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SenderPauseArgs {
    /// What is in the queue waits too; without it that is still sent
    #[arg(long)]
    pub(crate) hold: bool,
    /// What for, for people: at most 256 characters
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}
