//! What can go wrong.

/// Why the store did not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log refused; see there whose fault it is and whether it passes.
    #[error(transparent)]
    Log(#[from] postrider_wal::Error),
    /// The view behind the log failed and could not be rebuilt. The disk's
    /// fault; nothing durable is lost, a restart rebuilds it.
    #[error("the store's index failed: {0}")]
    Index(String),
    /// A key or value that is not what the table holds: written by another
    /// version, or under another type. The caller's fault; does not pass.
    #[error("table {table}: {reason}")]
    Format {
        /// The table.
        table: String,
        /// What is wrong.
        reason: String,
    },
    /// The store was opened outside of a tokio runtime. The caller's fault.
    #[error("the store needs a tokio runtime")]
    NoRuntime,
    /// A key, value or batch over the bounds. The caller's fault.
    #[error("too large for the store: {0}")]
    TooLarge(&'static str),
    /// A table of many rows has as many as it may have. The caller's fault; passes when rows
    /// are removed.
    #[error("the table has its {0} rows")]
    Exceeded(u64),
    /// A sorted file of a table of many rows can not be written or read. The disk's fault:
    /// it is full, which passes, or it has lost what it was given.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the disk said.
        reason: String,
    },
    /// A block of such a file can not be read: its rows are unknown. The disk's fault: it has
    /// lost what it was given; does not pass.
    #[error("{path}: the block at {at} can not be read: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// Where the block begins, in octets.
        at: u64,
        /// What the disk said, or that its checksum is wrong.
        reason: String,
    },
}

impl Error {
    /// Whether this is about some rows, and others can be read. It was logged when it was first
    /// found.
    #[must_use]
    pub fn is_of_a_block(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    pub(crate) fn file(path: &std::path::Path, reason: &dyn std::fmt::Display) -> Self {
        Self::File { path: path.display().to_string(), reason: reason.to_string() }
    }
}
