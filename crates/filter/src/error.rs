//! Why there is no verdict.

use std::io;

/// Why a program gave no verdict about a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program does not run, or not there. The operator's; passes when it is started.
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    /// It took longer than the settings allow. The program's; may pass.
    #[error("no answer in time")]
    Timeout,
    /// It broke the connection off. The program's; may pass.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// What it said is not of its protocol. The program's, or another one listens there.
    #[error("not what its protocol says: {0}")]
    Garbage(String),
    /// It can not judge this message; others it may. What it said is one line of printable text.
    /// The message's, or the program's settings; does not pass by itself.
    #[error("it can not look at the message: {0}")]
    Refused(String),
}

impl Error {
    /// Whether it is about this message, and says nothing of others.
    #[must_use]
    pub fn is_about_the_message(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// As it stands in a connection that has been opened.
    pub(crate) fn broken(error: io::Error) -> Self {
        Self::Broken(error)
    }
}
