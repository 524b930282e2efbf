//! The server's side.

mod commands;
mod profile;
mod replies;
mod session;
#[cfg(test)]
mod session_tests;
mod transaction;

pub use profile::{Profile, RecipientOverflow, Role, SessionLimits, TlsMode};
pub use session::{AuthEvent, Event, Session};
pub use transaction::ReceivedMessage;
