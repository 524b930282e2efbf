//! Why a handshake failed, as a closed set.

use std::io;

use postrider_base::metrics::HandshakeFailure;
use rustls::Error;

/// The reason behind a failed handshake's error.
pub(crate) fn reason(error: &io::Error) -> HandshakeFailure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (inner, error.kind()) {
        (Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }), _) => HandshakeFailure::NotTls,
        (Some(Error::PeerIncompatible(_)), _) => HandshakeFailure::Incompatible,
        (Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented), _) => HandshakeFailure::ClientCertificate,
        (Some(Error::AlertReceived(_)), _) => HandshakeFailure::Alert,
        (Some(_), _) => HandshakeFailure::Other,
        (None, io::ErrorKind::TimedOut) => HandshakeFailure::TimedOut,
        (None, _) => HandshakeFailure::Closed,
    }
}
