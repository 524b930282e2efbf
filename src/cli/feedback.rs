//! The commands about what comes back.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use postrider_mail::EmailAddress;

#[derive(Debug, Subcommand)]
pub(crate) enum FeedbackCommand {
    /// Read a message as the feedback listener does: what kind of report it is, which message and
    /// recipient it is about, and what would follow. Changes nothing
    Read(FeedbackReadArgs),
}

#[derive(Args, Debug)]
pub(crate) struct FeedbackReadArgs {
    /// The message, as it was received; - is stdin
    pub(crate) file: PathBuf,
    /// The address that it came to [default: what its header says]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: Option<EmailAddress>,
}
