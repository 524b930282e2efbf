//! A segmented, checksummed log of atomic batches with group commit, recovery and reclaim. Knows nothing of mail.
//!
//! # What it is for
//!
//! An owner, such as a queue or a set of tables, keeps its truth here and whatever answers
//! questions elsewhere. It hands in *batches* of *entries*. A batch is in the log whole or
//! not at all; when [`Log::commit`] returns for a [`Durability::Synced`] batch, the batch is
//! on disk, and every later [`Log::open`] hands it out again, in order, until the owner
//! retires its segment.
//!
//! An entry has a *head*, which recovery and the feed hand out, and a *body*, which is only
//! read when asked for with the [`Location`] that the commit returned. Opening a log costs
//! its heads, not its bodies.
//!
//! # What survives what
//!
//! | | process ends | power fails | a sync fails | bits rot |
//! |---|---|---|---|---|
//! | synced batch | yes | yes | yes | known and reported |
//! | buffered batch, written | yes | once synced: with the next synced group or within [`Options::buffered_sync`] | perhaps | perhaps |
//! | batch whose future was still pending | perhaps, whole | perhaps, whole | perhaps, whole | – |
//!
//! Batches survive in order: one that is there has all before it with it.
//!
//! # The files
//!
//! ```text
//! segment-0000000007.log    in use; numbers go up by one
//! segment-0000000008.log    being written
//! segment-0000000009.log    ready: named, synced, empty
//! spare-0000000003.log      space without a number
//! quarantine/               copies of what was found damaged
//!
//! segment   header block (4096) | batch | batch | ...        | footer | trailer (64)
//! header    magic, crc, version, number, oldest segment in use, salt     (twice, in two sectors)
//! batch     header (56) | table: 13 an entry | heads | bodies
//!           magic, crc, version, entries, length of table and heads, length of bodies,
//!           LSN, LSN synced so far, oldest segment in use, crc of table and heads
//! table     kind, length of head, length of body, crc of body
//! footer    for each batch: its offset, header, table and heads
//! trailer   magic, crc, version, where the footer is, its crc, first LSN, next LSN, oldest
//! ```
//!
//! A batch header's checksum covers the checksum of table and heads, and those cover the
//! checksums of the bodies: one seal over the batch, in parts that can be verified without
//! each other. The sums over the bodies are the work of the caller's thread.
//!
//! The header's checksum is seeded with the segment's number, the offset, and a *salt* that
//! is drawn whenever a file becomes a segment. A file is filled with zeros once and used
//! again and again, since overwriting syncs faster than appending; what an earlier use left
//! in it, or what somebody put into a body to look like a record, does not pass.
//!
//! # Writing
//!
//! Callers put batches in a queue. One thread takes what has come together, at most
//! [`Options::max_group_bytes`], gives each batch the next LSN and place, writes all of them
//! with one vectored write from where they lie, calls `fdatasync` once if any of them is
//! synced, and sends one message to a task that wakes the waiters. While it syncs, the next
//! group gathers: the slower the disk, the larger the groups.
//!
//! A segment is *sealed* when the next batch does not fit. Its batches are synced, then
//! footer and trailer are written and synced, and only then the next segment gets its first
//! batch. So a segment with a batch in it proves that the one before is complete, and a good
//! trailer proves that the batches before it are.
//!
//! A second thread, the keeper, owns the directory: it makes [`Options::spare_segments`]
//! ahead, so that no commit waits for 64 MiB of zeros, and takes retired files away. Those
//! are used again before a new file is filled, also when one is half filled: zeros cost as
//! much as what is written. A file
//! is renamed to `segment-` only when its header is synced. No space for a segment is
//! [`Error::Full`] for the batches that would need it, and passes when space is there:
//! [`Log::is_full`] says so while the segments made ahead last.
//!
//! **A write or sync of a segment that fails ends the log** ([`Error::Poisoned`]). After a
//! failed `fsync` Linux marks the pages clean: a second one would succeed and prove nothing.
//! So it is never tried again, the owner's process ends, and recovery sorts it out.
//!
//! # Opening
//!
//! 1. Each segment's header and trailer are read. Headers, trailers and batches name the
//!    oldest segment in use; one missing from there on is [`Error::Gap`].
//! 2. Of a sealed segment only the footer is read, and only when its heads are asked for
//!    ([`Backlog`]): the log takes batches before that. A footer that is damaged is made
//!    anew from the segment then.
//! 3. The last segment with batches usually has no trailer. It is scanned. A bad stretch is
//!    *damage* if a later header says that the log was synced beyond it, and is reported,
//!    with a copy in `quarantine/`; the scan goes on at the next good header. Beyond the
//!    last known sync, the first bad batch is a *torn tail*: it and all after it were never
//!    acknowledged as synced, and are dropped.
//! 4. What is good of a scanned segment is written to a new file, at the same offsets,
//!    sealed, synced and renamed into place, before anything is handed to the owner: what the
//!    last process wrote may be readable from the cache without being on the disk.
//! 5. New batches begin a new segment. [`Log::close`] ends with an empty batch, which says
//!    that all before it was synced.
//!
//! # Reclaim, and the owner's replay rule
//!
//! Only the oldest segment can be retired. The owner commits again, synced, what still
//! matters of it, and calls [`Log::retire_oldest`]. That commits a batch that names the new
//! oldest segment, takes the file away and syncs the directory; so a segment that is gone is
//! known to be gone on purpose. Since an owner's later facts are in later segments, a fact
//! never goes before what it is about.
//!
//! The same thing can be replayed twice, once where it was first committed and once where
//! it was committed again, when the power fails in between: **replay must be idempotent, the
//! later entry wins.**
//!
//! # Running it without threads
//!
//! The writer's turn and the keeper's step are plain functions over [`postrider_base::Disk`].
//! Two threads call them in production, two tasks in simulation ([`Driver::Task`]), tests
//! directly.

mod answer;
mod backlog;
mod batch;
mod bell;
mod driver;
mod error;
mod format;
mod history;
mod inspect;
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

pub use answer::{Owner, Refused, Ticket, Told};
pub use backlog::Backlog;
pub use batch::Batch;
pub use error::Error;
pub use inspect::{Body, Fault, Inspected, Inspection, Part, Zeros, inspect};
pub use log::Log;
pub use options::{Driver, Options};
pub use types::{Committed, Damage, Durability, Entry, Location, Lsn, OpenReport, Replayed, SegmentInfo, Torn, Usage};
