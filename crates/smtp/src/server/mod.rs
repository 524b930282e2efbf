//! The server's side.

mod auth;
mod commands;
mod content;
mod profile;
mod replies;
mod session;
mod speech;
#[cfg(test)]
mod tests;
mod transaction;
mod transcript;

pub use profile::{Profile, RecipientOverflow, SessionLimits, TlsMode};
pub use session::{AuthEvent, Event, Session};
pub use transaction::ReceivedMessage;
pub use transcript::Spoken;
