//! The commands about the suppression lists.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use postrider_mail::{AccountId, EmailAddress, SuppressionReason};

pub(crate) const SUPPRESSION_EXAMPLES: &str = "Examples:
  postrider suppression put gone@example.com --reason BOUNCE
  postrider suppression import list.csv --refused refused.csv
  postrider suppression list --match @example.com --since 7d
  postrider suppression delete gone@example.com --global";

#[derive(Debug, Subcommand)]
pub(crate) enum SuppressionCommand {
    /// Put an address on the list
    Put {
        /// The address
        address: EmailAddress,
        /// Why: BOUNCE or COMPLAINT [default: BOUNCE]
        #[arg(long, conflicts_with = "global")]
        reason: Option<SuppressionReason>,
        #[command(flatten)]
        list: ListArg,
    },
    /// Show an address's entry
    Get {
        /// The address
        address: EmailAddress,
        #[command(flatten)]
        list: ListArg,
    },
    /// List the addresses
    List {
        /// Only entries with this reason
        #[arg(long, conflicts_with = "global")]
        reason: Option<SuppressionReason>,
        /// Only addresses that contain this text
        #[arg(long = "match", value_name = "TEXT")]
        matching: Option<String>,
        /// Only entries changed at or after a time: 2026-01-31T12:00:00Z, UNIX seconds, or an age as 2h, 3d
        #[arg(long, value_name = "TIME", conflicts_with = "global")]
        since: Option<String>,
        /// Only entries changed before a time
        #[arg(long, value_name = "TIME", conflicts_with = "global")]
        until: Option<String>,
        #[command(flatten)]
        list: ListArg,
    },
    /// Take an address off the list
    Delete {
        /// The address
        address: EmailAddress,
        #[command(flatten)]
        list: ListArg,
    },
    /// Add the addresses of a file: CSV (address, reason), JSON lines, or what SES's
    /// ListSuppressedDestinations prints; or take them off the list
    Import {
        /// The file; - is stdin
        file: PathBuf,
        /// Take the addresses off the list; reasons may be missing
        #[arg(long)]
        delete: bool,
        /// Write the lines that were refused, as LINE,WHY, to this file
        #[arg(long, value_name = "FILE")]
        refused: Option<PathBuf>,
        /// The account [default: the configuration's]
        #[arg(long)]
        account: Option<AccountId>,
    },
    /// Give up the entries that a damaged file has lost, of all lists; import them first, of an
    /// export or a backup
    Repair,
    /// Print the list in a form that import reads
    Export {
        /// The form
        #[arg(long, value_enum, default_value_t)]
        format: ExportFormat,
        /// The account [default: the configuration's]
        #[arg(long)]
        account: Option<AccountId>,
    },
}

/// Which list is meant.
#[derive(Args, Debug)]
pub(crate) struct ListArg {
    /// The account [default: the configuration's]
    #[arg(long)]
    pub(crate) account: Option<AccountId>,
    /// The list that all accounts share
    #[arg(long, conflicts_with = "account")]
    pub(crate) global: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ExportFormat {
    /// ADDRESS,REASON, one a line
    #[default]
    Csv,
    /// One JSON object a line
    #[value(alias = "ndjson")]
    Json,
    /// One document, as SES's ListSuppressedDestinations prints it
    Ses,
}
