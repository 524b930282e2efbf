//! What can go wrong, whose fault it is, and whether it passes.

use std::sync::Arc;

use postrider_mail::MessageId;

/// Why the spool refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A bound of the settings or the disk's space is reached. Nobody's
    /// fault; passes when messages leave. SMTP: 452.
    #[error("the spool is full: {0}")]
    Full(&'static str),
    /// The log gets no new file although the disk has space: there is no free
    /// inode, or the file system fails. The machine's fault; passes by itself
    /// when files can be made again. SMTP: 451.
    #[error("no new file can be made for the spool's log")]
    NoFile,
    /// The log has records of a later version of this program. Passes with
    /// that version. SMTP: 451.
    #[error("segment {segment} of the spool has a record of version {found}, known is {known}")]
    Version {
        /// The segment.
        segment: u64,
        /// The version found.
        found: u8,
        /// The version that is read and written here.
        known: u8,
    },
    /// A write or sync failed earlier: the log accepts nothing any more and
    /// the process must be restarted. The machine's fault. SMTP: 451.
    #[error("the spool's log failed and must be reopened")]
    Poisoned,
    /// The spool is closed. Passes with the restart. SMTP: 421 or 451.
    #[error("the spool is closed")]
    Closed,
    /// The message and its envelope do not fit a record. The sender's fault;
    /// does not pass.
    #[error("the message does not fit a record: {0}")]
    TooLarge(&'static str),
    /// Such a message is already queued. The caller's fault; does not pass.
    #[error("message {0} is already queued")]
    Duplicate(MessageId),
    /// No such message waits here (any more). Nobody's fault.
    #[error("message {0} is not queued")]
    Unknown(MessageId),
    /// A stored record cannot be read back; it was put into quarantine. The
    /// disk's fault; does not pass.
    #[error("the stored record of message {0} is damaged")]
    Damaged(MessageId),
    /// A file to be imported is not whole, or not one. Whoever brought it; does not pass.
    #[error("{}: {what} (at byte {offset})", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Where the trouble begins.
        offset: u64,
        /// What it is.
        what: String,
    },
    /// Old mail could not be recovered when the spool was opened; the reason
    /// says whether it passes.
    #[error("the queue cannot be recovered: {0}")]
    Unrecovered(#[source] Arc<Error>),
    /// The log refuses for another reason.
    #[error(transparent)]
    Log(postrider_wal::Error),
    /// A file could not be reached. The machine's fault.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What spool functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
