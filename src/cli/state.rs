//! The commands for state as a file declares it.

use std::path::PathBuf;

use clap::Args;

pub(crate) const APPLY_HELP: &str =
    "Each table of the file is one thing and says all of it; what a table does not say is as by \
default. Things that the file does not have are left alone, unless --prune is given. Nothing is changed before the \
difference was shown and agreed to. What is interrupted is finished by the same command again.

Exit codes: 0 nothing to do, or done; 2 with --dry-run: there are differences; 78 the file is wrong.";

#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    /// The file; - is stdin, and needs --yes or --dry-run
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
    /// Show the difference alone
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove what the file does not have
    #[arg(long)]
    pub(crate) prune: bool,
}
