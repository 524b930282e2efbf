use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operator named something that does not exist or that is not allowed; does not pass.
    #[error("{0}")]
    Invalid(String),

    /// The thing named is not there; does not pass by itself.
    #[error("{0}")]
    NotFound(String),

    /// Only a running daemon can do this, and none runs; passes when it is started.
    #[error("no daemon runs on this state directory, and only a daemon can do this")]
    NoDaemon,

    /// The node could not do it (disk, log, table); may pass, the node's log says more.
    #[error("{0}")]
    Failed(String),

    /// The daemon's socket is there, and this user may not use it: the operator's to fix.
    #[error("not allowed to use the control socket {path}: be root, or in the group that owns it", path = .0.display())]
    Forbidden(PathBuf),

    /// The connection to the daemon broke; whether the operation happened is unknown.
    #[error("the connection to the daemon broke: {0}")]
    Connection(#[source] io::Error),

    /// The other side does not speak this version's language; does not pass.
    #[error("the daemon's answer makes no sense to this command ({0}): are both of the same version?")]
    Protocol(String),
}

impl Error {
    /// The closed set of kinds that crosses the socket.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Invalid(_) => ErrorKind::Invalid,
            Error::NotFound(_) => ErrorKind::NotFound,
            Error::NoDaemon => ErrorKind::NoDaemon,
            _ => ErrorKind::Failed,
        }
    }
}

/// What sort of failure the other side reported.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// See [`Error::Failed`].
    Failed,
    /// See [`Error::Invalid`].
    Invalid,
    /// See [`Error::NoDaemon`].
    NoDaemon,
    /// See [`Error::NotFound`].
    NotFound,
}

impl ErrorKind {
    /// In one word, as the audit log has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Failed => "Failed",
            ErrorKind::Invalid => "Invalid",
            ErrorKind::NoDaemon => "NoDaemon",
            ErrorKind::NotFound => "NotFound",
        }
    }

    /// The error again, on the asking side.
    #[must_use]
    pub fn with(self, message: String) -> Error {
        match self {
            ErrorKind::Failed => Error::Failed(message),
            ErrorKind::Invalid => Error::Invalid(message),
            ErrorKind::NoDaemon => Error::NoDaemon,
            ErrorKind::NotFound => Error::NotFound(message),
        }
    }
}
