//! The durable queue: accepted messages, their recipients' outcomes, queues, claims and the feed. Decides nothing about mail.
//!
//! Every fact is a record in a [`postrider_wal`] log; what is accepted is
//! synced before [`Spool::accept`] returns. An index in sled, behind the log
//! and never trusted over it, finds the messages that wait for longer than a
//! moment; younger ones are in memory.
//!
//! # What survives
//! - A message whose `accept` returned survives every crash and power cut
//!   until each of its recipients has a terminal outcome.
//! - An outcome survives a crash of the process once [`Claim::finish`]
//!   returned, and a power cut within `outcome_sync` after that. In between
//!   the delivery is repeated: at least once, never at most once.
//! - A final outcome and the bounce message it causes survive together or
//!   not at all.

mod admission;
mod check;
mod claim;
mod commit;
mod due;
mod error;
mod feed;
mod index;
mod indexer;
mod lives;
mod message;
mod open;
mod operator;
mod quarantine;
mod reclaim;
mod records;
mod recover;
mod replay;
mod row;
mod rows;
mod settings;
mod shared;
mod spool;
mod state;
mod transfer;
mod view;
mod young;

pub use admission::Admission;
pub use check::{Check, FaultView, IndexCheck, LogCheck, QuarantineCheck, check};
pub use claim::{Claim, DueRecipient};
pub use error::{Error, Result};
pub use feed::{Feed, FeedItem, FeedRecord};
pub use index::Disagreement;
pub use message::{AcceptedRecord, Content, Message, NewMessage, Origin, OriginKind, OriginalHeaders, QueueKey};
pub use postrider_wal::{Driver, Durability, Lsn};
pub use reclaim::Compacted;
pub use records::MAX_RECIPIENTS;
pub use settings::Settings;
pub use spool::{Record, Spool, SpoolOptions};
pub use transfer::{ExportOptions, Exported, Imported};
pub use view::{IndexKind, MessageView, OpenReport, QueueEntry, QueueSummary, RecipientView, Selector, Stat};
