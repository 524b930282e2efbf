//! What can go wrong, whose fault it is, and whether it passes.

use postrider_wal::Lsn;

/// Why the journal did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The journal's log refuses. The disk's fault, or the operator's; whether
    /// it passes is the inner error's to say.
    #[error("journal: {0}")]
    Log(#[from] postrider_wal::Error),
    /// The spool's feed ended. Passes with the restart of the process.
    #[error("spool: {0}")]
    Spool(#[from] postrider_spool::Error),
    /// The journal has events of batches that the spool does not have: files
    /// of the spool are lost, or it is another one. Its next batches would
    /// have the numbers of those, and be taken for known. Passes only with
    /// [`accept_loss`](crate::EventsOptions::accept_loss).
    #[error(
        "the journal has events up to batch {journal} of the queue, which ends with {spool}: \
         its last files are lost, or it is not the queue that the journal belongs to"
    )]
    Ahead {
        /// The last batch that the journal has.
        journal: Lsn,
        /// The last batch that the spool has.
        spool: Lsn,
    },
    /// The view of messages, a cache, could not be made even from nothing.
    /// The disk's fault.
    #[error("view of messages: {0}")]
    View(String),
    /// A journal record does not read as one. A fault of the disk or of this
    /// program; does not pass.
    #[error("a journal record is not readable: {0}")]
    Record(&'static str),
    /// A report can not be taken at present: the journal is still being looked through, is
    /// full, or has not kept up. Nobody's fault; passes.
    #[error("a report can not be taken now: {0}")]
    Later(&'static str),
    /// A file could not be reached. The machine's fault, or the operator's.
    #[error("{action}: {source}")]
    Io {
        /// What was tried, with the file's name.
        action: String,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
