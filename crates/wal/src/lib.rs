//! A segmented, checksummed log of atomic batches with group commit, recovery and reclaim. Knows nothing of mail.

mod answer;
mod batch;
mod bell;
mod driver;
mod error;
mod format;
mod history;
mod keeper;
mod log;
mod options;
mod queue;
mod recent;
mod recover;
mod salvage;
mod scan;
mod segment;
mod shared;
mod types;
mod writer;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use log::Log;
pub use options::{Driver, Options};
pub use types::{Committed, Damage, Durability, Entry, Location, Lsn, OpenReport, Replayed, SegmentInfo, Torn, Usage};
