//! The client's side.

mod config;
mod conversation;
#[cfg(test)]
mod conversation_tests;
mod exchange;
mod features;
mod transaction;

pub use config::{ClientConfig, Credentials, Timeouts, TlsUse};
pub use conversation::{Action, Conversation, Ended, NotReady};
pub use features::Features;
pub use transaction::{Gate, LocalRefusal, RecipientResult, Transaction, TransactionResult};
