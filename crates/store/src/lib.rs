//! Small typed durable tables: a log with a sled view behind it. Not for messages.

mod compact;
mod error;
mod key;
mod lane;
mod row;
mod store;
mod table;
mod view;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use key::Key;
pub use store::{Batch, OpenReport, Options, Store};
pub use table::{Change, Table};
