//! The commands that copy a node's state, and make one from a copy.

use std::path::PathBuf;

use clap::Args;

pub(crate) const BACKUP_HELP: &str = "In it are the account tables as they are at one moment, the keys and the audit \
log; not the queue: what is in a copy of it may have been sent when the copy is used. The configuration is a file of \
its own. Who has the copy can sign mail: keep it as the keys.";

pub(crate) const RESTORE_HELP: &str = "The state directory of the configuration must be empty, and the configuration's \
server.node that of the backup. Nothing of the queue comes back; the node gets a new instance id, so that a queue that \
is put beside it starts held.";

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// A directory to make, or a file whose name ends in .tar
    #[arg(value_name = "DIR|FILE.tar")]
    pub(crate) to: PathBuf,
    /// The events of the journal too, one JSON object a line: to be read, not to be restored
    #[arg(long)]
    pub(crate) journal: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// What `postrider backup` made
    #[arg(value_name = "DIR|FILE.tar")]
    pub(crate) from: PathBuf,
    /// Verify it, and restore nothing
    #[arg(long)]
    pub(crate) verify: bool,
}
