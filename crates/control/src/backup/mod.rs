//! A copy of a node's state, made while it works, and a state directory made from it.
//!
//! The daemon sends the files and the command writes them, so that the copy belongs to who
//! asked for it and lies where the daemon itself may not write. In it are the account tables
//! as they were at one moment, the keys, the audit log, and if wanted the events as text. The
//! queue is not: what is in a copy of it may have been sent when the copy is used.

mod archive;
mod manifest;
mod restore;
mod rows;
mod send;
mod tar;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use archive::{Archive, ArchiveWriter};
pub use manifest::{FileSum, Manifest};
pub use restore::{Restored, restore};
pub(crate) use send::execute;

/// The layout of copies that is written and read here.
const FORMAT: u32 = 1;
/// Bytes that are sent together.
const CHUNK: usize = 192 << 10;

/// The account tables in a copy.
const STORE: &str = "store.rows";
/// The events in a copy, one JSON object a line: to be read, not restored.
const JOURNAL: &str = "journal.jsonl";

/// What a copy is to have.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct BackupRequest {
    /// The events of the journal too.
    pub journal: bool,
}

/// A part of a copy on its way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupItem {
    /// A file begins.
    File {
        /// Its name in the copy.
        name: String,
    },
    /// More of its bytes, in base64.
    Data(String),
    /// The file ends.
    End(FileSum),
    /// All files were sent. This says whose they are; it lists none.
    Whole(Manifest),
}
