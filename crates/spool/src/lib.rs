//! The durable queue: accepted messages, their recipients' outcomes, queues, claims and the feed. Decides nothing about mail.
//!
//! # The order of truth
//!
//! There are three places that know of a message, and they are not equal:
//!
//! 1. **The log** ([`postrider_wal`]) is the truth. A fact is a record in it, and nothing is a
//!    fact that is not. What says otherwise is wrong.
//! 2. **Memory** is what the log said, added up: messages that are young or in somebody's hands,
//!    the head of every queue, and how much lives in which segment of the log. It is behind the
//!    log by what is being written, and never ahead of it.
//! 3. **The index** (sled) is where memory puts messages that wait for longer than a moment.
//!    It is behind memory, it may be deleted at any time, and it may lie: sled does not sync
//!    what it says it flushed, and after a power cut it can open without an error and miss
//!    entries. It is asked, and never believed where that could cost mail.
//!
//! ## Records
//!
//! A record is an entry of a batch of the log: a kind, a *head* that recovery reads, and a *body*
//! that is read when somebody wants it, under a checksum of its own. A head begins with the
//! version of its format.
//!
//! | kind | head | body | means |
//! |---|---|---|---|
//! | `Accepted` | id, state | envelope and origin, then the bytes | a message was taken |
//! | `Imported` | id, state | the same | a message came from another spool, with its state |
//! | `Outcomes` | id; recipient, attempt, next time | what the remote said, behind it the records of the attempts | attempts ended |
//! | `Started` | id; recipient, attempt | – | attempts begin: before dialling |
//! | `Operator` | hold, release, retry, files imported | – | an operator's wish |
//! | `Snapshot` | id, state, where the body is | – | the state so far, said again by reclaim |
//! | `Copied` | as `Outcomes` | as `Outcomes` | what last attempts said, copied by reclaim |
//! | `Mark` | clean stop, barrier | – | a place in the log |
//!
//! The *state* of a message is a row: its account, which recipients wait, by domain, how often
//! each was tried, when each is due, and where its bytes are.
//!
//! ## Batches
//!
//! A batch is in the log whole or not at all, and batches are there in order: one that survives
//! has all before it with it. What belongs together is one batch: a final failure and the
//! notification that it causes, the parts of an operator's wish, a state and what its last
//! attempts said.
//!
//! Whoever changes something hands a batch to the log, which answers when the batch is as durable
//! as was asked for ([`Durability`]); only then memory changes, in the order of the log but that
//! new mail of a group, which nothing else in the group can be about, goes first.
//! A caller that goes away changes nothing about that: what was handed in happens. While a record
//! of a message is between the log and memory, no snapshot of it is written.
//!
//! ## What survives what
//!
//! | | process killed | power cut | failed sync, then restart | index lost or lying | bits rot |
//! |---|---|---|---|---|---|
//! | message, [`Spool::accept`] returned | yes | yes | yes | yes | its state, yes; its bytes are held in quarantine, the message is held |
//! | message, `accept` pending or failed with [`Error::Poisoned`] | perhaps, whole | perhaps, whole | perhaps, whole | – | – |
//! | message, `accept` failed otherwise | no | no | no | – | – |
//! | outcome, [`Claim::finish`] returned | yes | once `outcome_sync` has passed | perhaps | yes | the delivery may be repeated |
//! | notification and the failure that caused it | both or none | both or none | both or none | both | – |
//! | attempt, [`Claim::register`] returned | yes | once `outcome_sync` has passed | perhaps | yes | the count may be lower |
//! | hold, release, retry, delete | yes | yes | perhaps | yes | – |
//!
//! So delivery is at least once. It is repeated where the record of an outcome is not durable:
//! within `outcome_sync` before a power cut, and where the remote's reply was never read
//! (RFC 1047).
//!
//! A write or sync that fails ends the log: after a failed `fsync` the system's cache shows what
//! the disk may not have. Waiters get [`Error::Poisoned`], nothing more is handed out,
//! [`Spool::failed`] resolves, and the next process reads what is there, writes the unsealed
//! tail again and syncs it before it acts on it.
//!
//! ## Replay
//!
//! Opening reads the heads in order and adds them up: `Accepted` of a message that is known
//! changes nothing; a recipient that has come to its end stays there; the number of attempts
//! takes the maximum; a `Snapshot` stands for everything before it, unless the message has ended;
//! `Imported` stands for everything, even for an end (how far a file was imported is said in the
//! same batch, so that a file brings a message once). Read twice, or in part twice, records come
//! to the same. The sum is what waits. Messages are taken meanwhile; none is handed out before,
//! since a record near the end may say that it is held.
//!
//! Then the index is compared with the sum, key by key in order, and corrected. If it fails, errs
//! or panics, it is made anew beside the old one; if that fails too, it is kept in memory.
//!
//! ## Why an index that lies cannot lose mail
//!
//! While the spool runs, the index is asked which messages are due next and what is left to do
//! for them. If it forgets one, that message waits until the next start, whose replay finds it.
//! The only other thing that mail could be lost by is giving disk space back, and there the index
//! is not believed: memory counts for each segment what lives in it, with a sum over the places,
//! by what the log says. A segment is given back when that count is zero; a hole is made only
//! when what the index names comes to the same count and the same sum. If it does not, the index
//! is made anew from the log and nothing is destroyed.
//!
//! ## Space
//!
//! The log gives its oldest segment back when nothing lives in it and every [`Feed`] has read it.
//! What still lives in it is moved: the bytes to the *cold log*, once; the state to the end of
//! the log, each time around. The cold log is read by place only and gives space back wherever
//! it is dead. The segments in use take at most twice the live bytes and four segments, each log
//! for itself; up to four files beside that, and a part of a fifth, are kept ready, so that there
//! is always room to record what became of the accepted. In a rush up to
//! [`Settings::most_spare_files`] are kept to be used again, where space is plenty; they go within
//! 20 seconds of rest. A byte of mail is written once when it is accepted, and once more when it
//! outlives its segment.
//!
//! ## Memory
//!
//! A message that waits in the index takes no memory; its queue (account and recipient domain)
//! takes about 800 bytes and, while it has messages due, up to twice [`Settings::ready_batch`]
//! places of 48 bytes. A message younger than [`Settings::index_after`], or in somebody's hands,
//! takes its envelope and about 600 bytes, and there are at most [`Settings::max_young`] young
//! ones; bodies in memory have a budget of their own ([`Settings::body_memory`]). While old mail
//! is recovered, a waiting message takes about 140 bytes. sled's cache is 8 MB.

mod admission;
mod check;
mod claim;
mod commit;
mod due;
mod error;
mod feed;
mod id_map;
mod inbox;
mod index;
mod indexer;
mod lives;
#[cfg(test)]
mod memory;
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
mod turns;
mod under_way;
mod view;
mod young;

pub use admission::Admission;
pub use check::{Check, FaultView, IndexCheck, LogCheck, QuarantineCheck, check};
pub use claim::{Claim, DueRecipient};
pub use error::{Error, Result};
pub use feed::{Feed, FeedItem, FeedRecord};
pub use index::Disagreement;
pub use message::{
    AcceptedRecord, Content, Message, NewMessage, Origin, OriginKind, OriginalHeaders, QueueKey, SOURCE_ARN_TAG,
};
pub use postrider_wal::{Driver, Durability, Lsn};
pub use reclaim::Compacted;
pub use records::MAX_RECIPIENTS;
pub use settings::Settings;
pub use spool::{Record, Spool, SpoolOptions};
pub use transfer::{ExportOptions, Exported, ImportOptions, Imported};
pub use turns::Turns;
pub use view::{IndexKind, MessageView, OpenReport, QueueEntry, QueueSummary, RecipientView, Selector, Stat};
