//! The server's side.

mod commands;
mod profile;
mod replies;
mod session;
#[cfg(test)]
mod session_tests;
mod transaction;
mod transcript;

pub use profile::{Profile, RecipientOverflow, SessionLimits, TlsMode};
pub use session::{AuthEvent, Event, Session};
pub use transaction::ReceivedMessage;
pub use transcript::Spoken;
