//! What the spool's feed turns into: event records in SES's JSON in the journal, and the mail log. Not on the way of a message: nothing waits for it.
//!
//! One consumer reads every synced batch of the spool. For each accepted
//! message and each outcome it appends one or more records to the journal, a
//! log of its own, and writes one line to the mail log. Journal records carry
//! the place in the feed that they come from: after a crash reading goes on
//! behind that of the last one, so that the journal has each outcome exactly
//! once.
//!
//! One follower reads every synced batch of the journal, and hands each record
//! to those who count what accounts send, what became of it, and whom to write
//! to no more. They keep what they made of it in the store, with their places.
//!
//! Opening takes as long as the journal's last file, which says where to go on.
//! The older ones are looked through while the relay works; until that is done
//! the feed is not read, and who asks for old events or for a message waits.
//!
//! What survives: a record is in the journal for good once its batch is
//! synced, and only then is the spool told that it need not keep the source.
//! The mail log is written after the journal and before that sync; in a crash
//! its last lines can be missing or repeated.

mod addresses;
mod consumer;
mod digest;
mod ended;
mod error;
mod event;
mod follower;
mod handle;
mod history;
mod journal;
mod live;
mod mail_log;
mod reader;
mod record;
mod recovery;
mod reports;
mod reputation;
mod returned;
#[cfg(test)]
mod samples;
mod settings;
mod suppression;
mod usage;
mod view;

pub use error::{Error, Result};
pub use handle::{Events, EventsOptions, Issuer, OpenReport};
pub use mail_log::{FileSink, MailSink, TracingSink};
pub use postrider_wal::Driver;
pub use reader::{Reader, Start};
pub use record::{Acceptance, Cursor, Kind, LifeEntry, Line, Wish, Wishes};
pub use returned::{Affected, Reported, Returned, ReturnedBounce, ReturnedComplaint, ReturnedKind, ReturnedSource};
pub use settings::Settings;
