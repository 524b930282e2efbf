//! Small typed durable tables: a log with a sled view behind it. Not for messages.
//!
//! A [`Store`] has any number of named [`Table`]s, each from a [`Key`] to a value that serde
//! knows. A write returns when it is synced; a read sees every write that has returned. Rows
//! are small (64 KiB) and, all together, a few hundred thousand. A [`Bulk`] is a table of
//! many millions.
//!
//! # The log is the truth
//!
//! Every change is one batch of a [`postrider_wal`] log, with all of its rows or none. When
//! it is synced, and only then, it is applied to the *view*, a sled database, from which all
//! reads are answered. sled alone would lose acknowledged writes in a power cut, and come
//! back with a panic or silently without some rows; here that costs no row:
//!
//! - An orderly [`Store::close`] leaves a mark in the view: number and checksum of all rows,
//!   and which record of the log was the last. At the next start the rows must add up to it,
//!   and the log must end with that record.
//! - Otherwise, as after every crash, the view is made anew from the log, in a fresh
//!   directory beside it. The directory can be deleted whenever the store is closed.
//! - Calls into sled are guarded against its panics. When one fails while the store runs,
//!   the view is made anew and the store goes on.
//!
//! # Space
//!
//! When the log's segments take more than twice what the current rows need, and two
//! segments, the current rows of the oldest segment are committed again, synced, and the
//! segment is retired. With one segment being written ahead and one spare the log stays
//! within twice the live bytes and four segments, or five while one is given up.

mod bulk;
mod checkpoint;
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

pub use bulk::{Bulk, BulkOptions, BulkUsage, Edit};
pub use checkpoint::{Checkpoint, CheckpointFile};
pub use error::Error;
pub use key::Key;
pub use store::{Batch, OpenReport, Options, Store};
pub use table::{Change, Table};
