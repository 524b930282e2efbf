//! What the handles, the writer and the keeper share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::answer::{Owned, Waiter};
use crate::batch::Batch;
use crate::keeper::Keeper;
use crate::queue::{Queue, Submission};
use crate::recent::Recent;
use crate::segment::Segment;
use crate::{Committed, Durability, Error, Lsn, Options, Usage};

/// The middle of an open log.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) queue: Queue,
    pub(crate) keeper: Keeper,
    /// Segments in use by number, the written one included.
    pub(crate) segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    pub(crate) recent: Mutex<Recent>,
    /// Turns true once, when a write or sync fails.
    pub(crate) poison: watch::Sender<bool>,
    /// The same, for those who ask for every batch.
    poisoned: AtomicBool,
    /// The last synced batch, as watchers see it.
    pub(crate) committed: watch::Sender<Lsn>,
    /// How many of the two drivers have ended.
    pub(crate) ended: watch::Sender<usize>,
    /// The footer that was last read from disk for a reader that lags.
    pub(crate) footer: Mutex<Option<(u64, Bytes)>>,
    written: AtomicU64,
    synced: AtomicU64,
    counters: Counters,
    /// Who takes in whole groups.
    pub(crate) owner: Owned,
}

#[derive(Debug, Default)]
struct Counters {
    groups: AtomicU64,
    batches: AtomicU64,
    syncs: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    pub(crate) fn new(options: Options, keeper: Keeper, segments: BTreeMap<u64, Arc<Segment>>, next_lsn: u64) -> Self {
        Self {
            queue: Queue::new(options.max_waiting_bytes),
            keeper,
            segments: RwLock::new(segments),
            recent: Mutex::new(Recent::new(Lsn::new(next_lsn), options.recent_bytes)),
            poison: watch::Sender::new(false),
            poisoned: AtomicBool::new(false),
            committed: watch::Sender::new(Lsn::new(next_lsn - 1)),
            ended: watch::Sender::new(0),
            footer: Mutex::new(None),
            written: AtomicU64::new(next_lsn - 1),
            synced: AtomicU64::new(next_lsn - 1),
            counters: Counters::default(),
            owner: Owned::default(),
            options,
        }
    }

    /// A write or sync has failed.
    pub(crate) fn set_poisoned(&self) {
        self.poisoned.store(true, Ordering::Release);
        self.poison.send_replace(true);
    }

    /// Something panicked: nothing more is written, and nobody knows what was.
    pub(crate) fn give_up(&self) {
        self.set_poisoned();
        drop(self.queue.abandon(Error::Poisoned("a bug in the log, or its owner".into())));
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn written(&self) -> Lsn {
        Lsn::new(self.written.load(Ordering::Acquire))
    }

    pub(crate) fn synced(&self) -> Lsn {
        Lsn::new(self.synced.load(Ordering::Acquire))
    }

    pub(crate) fn count_group(&self, batches: usize, bytes: usize, last: Lsn) {
        let counters = &self.counters;
        counters.groups.fetch_add(1, Ordering::Relaxed);
        counters.batches.fetch_add(batches as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.written.store(last.get(), Ordering::Release);
    }

    pub(crate) fn count_sync(&self, last: Lsn) {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.synced.store(last.get(), Ordering::Release);
    }

    pub(crate) fn usage(&self) -> Usage {
        let segments = self.segments.read();
        let bytes: u64 = segments.values().map(|segment| segment.file_bytes).sum();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            bytes: bytes + self.keeper.bytes(),
            segments: segments.len() as u64,
            groups: count(&self.counters.groups),
            batches: count(&self.counters.batches),
            syncs: count(&self.counters.syncs),
            bytes_written: count(&self.counters.bytes),
        }
    }

    /// Takes nothing more; the writer and the keeper end when they are done.
    pub(crate) fn end(&self) {
        self.queue.end(Error::Closed);
        self.keeper.end();
    }
}

/// The other end of a submission.
pub(crate) type Answer = oneshot::Receiver<Result<Committed, Error>>;

impl Submission {
    pub(crate) fn new(batch: Batch, durability: Durability) -> (Self, Answer) {
        let (waiter, receiver) = oneshot::channel();
        let submission = Self { batch, durability, oldest: None, waiter: Waiter::Future(waiter) };
        (submission, receiver)
    }

    /// An empty batch, which carries only what every batch's header says:
    /// that all before it was synced, and, if given, what the oldest segment
    /// in use is from now on.
    pub(crate) fn mark(oldest: Option<u64>) -> Result<(Self, Answer), Error> {
        let batch = Batch::new([], u64::MAX)?;
        let (mark, waiter) = Self::new(batch, Durability::Synced);
        Ok((Self { oldest, ..mark }, waiter))
    }
}
