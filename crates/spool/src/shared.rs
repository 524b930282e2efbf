//! What the handle, the claims and the tasks share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use postrider_base::{Clock, Metrics, Scope, Timestamp};
use postrider_mail::MessageId;
use postrider_wal::{Log, Usage};
use tokio::sync::{Notify, mpsc};

use crate::admission::{Admissions, BodyMemory};
use crate::commit::Pending;
use crate::error::{Error, Result};
use crate::feed::{Feeds, Recent};
use crate::indexer::Indexer;
use crate::quarantine::Quarantine;
use crate::settings::Settings;
use crate::state::State;

#[derive(Debug)]
pub(crate) struct Shared {
    pub log: Log,
    pub clock: Clock,
    pub settings: Settings,
    pub metrics: Metrics,
    pub state: Mutex<State>,
    pub admissions: Arc<Admissions>,
    pub bodies: Arc<BodyMemory>,
    pub indexer: Indexer,
    pub recent: Recent,
    pub feeds: Feeds,
    pub quarantine: Quarantine,
    /// Commits whose callers went away.
    pub orphans: mpsc::UnboundedSender<Pending>,
    /// Something is due, or the next due time is nearer than it was.
    pub due: Notify,
    /// A message is young while none was.
    pub young: Notify,
    /// There may be a segment to reclaim.
    pub reclaim: Notify,
    /// One operator's change of holds at a time.
    pub operator: tokio::sync::Mutex<()>,
    pub scope: Scope,
    /// The newest segment seen.
    pub newest: AtomicU64,
    /// What the log's counters were when metrics last heard of them.
    pub published: Mutex<Usage>,
}

impl Shared {
    /// Does something under the lock, then hands on what follows from it.
    pub(crate) fn update<R>(&self, work: impl FnOnce(&mut State, Timestamp) -> R) -> R {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let before = state.due.next();
        let result = work(&mut state, now);
        // Sent under the lock: the index gets them in the order of the state.
        // Changes first, so that a refill sees them.
        for change in std::mem::take(&mut state.changes) {
            self.indexer.change(change);
        }
        for refill in state.due.refills() {
            self.indexer.refill(refill);
        }
        let sooner = match (state.due.next(), before) {
            (Some(next), Some(before)) => next < before,
            (next, _) => next.is_some(),
        };
        let wake = sooner || state.due.is_ready();
        let thinned = std::mem::take(&mut state.thinned);
        drop(state);
        if thinned {
            self.reclaim.notify_one();
        }
        if wake {
            self.due.notify_one();
        }
        result
    }

    /// Refuses once nothing can be written any more.
    pub(crate) fn check_open(&self) -> Result<()> {
        match (self.log.poisoned(), self.scope.is_cancelled()) {
            (true, _) => Err(Error::Poisoned),
            (false, true) => Err(Error::Closed),
            (false, false) => Ok(()),
        }
    }

    /// Notes that the log has grown to this place.
    pub(crate) fn saw_segment(&self, segment: u64) {
        if self.newest.fetch_max(segment, Ordering::Relaxed) < segment {
            self.reclaim.notify_one();
            self.publish();
        }
    }

    /// Brings the metrics of the log up to date.
    pub(crate) fn publish(&self) {
        let metrics = &self.metrics;
        let mut published = self.published.lock();
        let usage = self.log.usage();
        metrics.spool_bytes.set(gauge(usage.bytes));
        metrics.spool_segments.set(gauge(usage.segments));
        let news = |now: u64, then: u64| now.saturating_sub(then);
        metrics.spool_syncs.inc_by(news(usage.syncs, published.syncs));
        let written = news(usage.bytes_written, published.bytes_written);
        metrics.spool_written_bytes.inc_by(written);
        *published = usage;
    }

    /// Keeps a copy of a record that does not read back, once.
    pub(crate) fn damaged(&self, id: MessageId, what: &str) -> Error {
        self.quarantine.note(&format!("message-{id}"), what, &[]);
        Error::Damaged(id)
    }
}

/// A count as gauges take it.
pub(crate) fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl From<postrider_wal::Error> for Error {
    fn from(error: postrider_wal::Error) -> Self {
        use postrider_wal::Error as Wal;
        match error {
            Wal::Full(_) => Self::Full("disk space"),
            Wal::Poisoned(_) => Self::Poisoned,
            Wal::Closed => Self::Closed,
            Wal::TooLarge(what) => Self::TooLarge(what),
            other => Self::Log(other),
        }
    }
}
