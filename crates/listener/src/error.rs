//! What can go wrong before mail is taken.

use std::io;
use std::path::PathBuf;

use crate::{CertificateError, ListenAddress};

/// Why listeners do not start, or settings do not change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address can not be listened on: another program has the port, or the
    /// operator has to give the permission. Does not pass by itself.
    #[error("listener {address}: {}", describe(source))]
    Bind {
        /// As configured.
        address: ListenAddress,
        /// What the system said.
        source: io::Error,
    },
    /// The operator's certificate or key can not be used. Passes when the files are put right.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The self-signed certificate can not be made or kept; mostly the
    /// operator's, who has to give room or permission.
    #[error("self-signed certificate in {}: {source}", directory.display())]
    SelfSigned {
        /// Where it is kept.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file that the keys of sessions are to be written to can not be opened; the operator's.
    #[error("TLS key log {}: {source}", path.display())]
    KeyLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A feedback listener, and nobody who takes what comes there: ours.
    #[error("listener {address}: nobody takes feedback")]
    NoFeedback {
        /// As configured.
        address: ListenAddress,
    },
    /// TLS can not be set up at all: ours.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is taken by another program".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "no permission to listen here; ports below 1024 need CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address".to_owned(),
        _ => error.to_string(),
    }
}
