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
}
