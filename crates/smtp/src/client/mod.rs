//! The client's side.

mod config;
mod conversation;
mod exchange;
mod expected;
mod features;
#[cfg(test)]
mod tests;
mod transaction;
mod transcript;

pub use config::{ClientConfig, Credentials, Protocol, Timeouts, TlsUse};
pub use conversation::{Action, Conversation, Ended, NotReady};
pub use features::Features;
pub use transaction::{Gate, LocalRefusal, RecipientResult, Transaction, TransactionResult};
