//! Sockets, TLS and limits: takes connections, drives an SMTP session on each
//! for [`Submission`](postrider_submission::Submission) or
//! [`Feedback`](postrider_feedback::Feedback). It knows no rule of mail: the
//! protocol is in `postrider_smtp`, acceptance in `postrider_submission`, what
//! comes back in `postrider_feedback`.
//!
//! [`Listeners::start`] binds every [`Listen`] and runs until its scope is
//! cancelled; [`Listeners::drain`] stops in order: no new connections, every
//! session finishes the message that it is in, then gets 421.

mod address;
mod admission;
mod connection;
mod entrance;
mod error;
mod feedback_settings;
mod listen;
mod listeners;
mod memory;
mod pace;
mod proxy;
mod role;
mod session;
mod settings;
mod tls;
mod transcript;

pub use address::ListenAddress;
pub use error::Error;
pub use feedback_settings::FeedbackSettings;
pub use listen::{Listen, ListenRole, ListenTls, RelayFrom};
pub use listeners::{Deps, Listeners};
pub use settings::{BareLineFeeds, Settings};
pub use tls::{
    CertificateError, CertificateWarning, ClientCertificate, SniCertificate, TlsSettings, TlsVersion,
    check_certificates,
};
