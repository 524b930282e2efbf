//! What can go wrong.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the log did not do what it was asked to. Cheap to clone: one failed
/// write answers many waiters.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room for a new segment, or too much waits to be written. Nobody's
    /// fault but the disk's; passes by itself when room is made.
    #[error("no space for the log: {0}")]
    Full(String),
    /// An earlier write or sync failed; what is on disk since then is
    /// unknown. The disk's fault; ends only with a restart.
    #[error("the log failed and takes nothing more: {0}")]
    Poisoned(String),
    /// The log was closed. The caller's fault; does not pass.
    #[error("the log is closed")]
    Closed,
    /// The batch does not fit in a segment, or has too many or too long
    /// entries. The caller's fault; does not pass.
    #[error("the batch is too large: {0}")]
    TooLarge(&'static str),
    /// A body that does not read back as written. The disk's fault; does not
    /// pass.
    #[error("damaged bytes in segment {segment} at offset {offset}")]
    Corrupt {
        /// The segment.
        segment: u64,
        /// Where the damaged stretch begins in its file.
        offset: u64,
    },
    /// The segment is not in the log: it was retired, or never was. The
    /// caller's fault; does not pass.
    #[error("segment {0} is not in the log")]
    NoSegment(u64),
    /// Only the oldest segment can be retired, and only when it is sealed.
    /// The caller's fault.
    #[error("segment {0} cannot be retired: it is not the oldest, or still written")]
    NotOldest(u64),
    /// Segments that should be there are missing. Somebody removed files, or
    /// the disk lost them; passes only with
    /// [`accept_loss`](crate::Options::accept_loss).
    #[error("segments {first} to {last} are missing in {}", dir.display())]
    Gap {
        /// The directory of the log.
        dir: PathBuf,
        /// The first missing segment.
        first: u64,
        /// The last missing segment.
        last: u64,
    },
    /// The files were written in a format that this version does not know.
    /// Passes with the version that wrote them.
    #[error("segment {segment} has format version {found}, known is {known}")]
    Version {
        /// The segment.
        segment: u64,
        /// The version found.
        found: u32,
        /// The version that is read and written here.
        known: u32,
    },
    /// An option is out of its bounds. The caller's fault.
    #[error("invalid option: {0}")]
    Option(&'static str),
    /// The file system refused. The disk's fault; may pass.
    #[error("{action}: {source}")]
    Io {
        /// What was tried, with the file's name.
        action: String,
        /// What the system answered.
        source: Arc<io::Error>,
    },
}

impl Error {
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action: action.into(), source: Arc::new(source) }
    }

    /// Whether the same call may succeed later without anybody's help but
    /// that of freed space.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}
