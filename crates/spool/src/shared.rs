//! What the handle, the claims and the tasks share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_base::{Clock, Metrics, Scope, Timestamp};
use postrider_mail::MessageId;
use postrider_wal::{Location, Log, Usage};
use tokio::sync::{Notify, watch};

use crate::admission::{Admissions, BodyMemory};
use crate::error::{Error, Result};
use crate::feed::{Feeds, Recent};
use crate::inbox::Inbox;
use crate::indexer::Indexer;
use crate::lives::{COLD, Live};
use crate::quarantine::Quarantine;
use crate::reclaim::{ColdSpace, Turn};
use crate::settings::Settings;
use crate::state::State;
use crate::under_way::UnderWay;
use crate::view::OpenReport;
use crate::young::Youth;

#[derive(Debug)]
pub(crate) struct Shared {
    /// All records, in one order.
    pub log: Log,
    /// Bodies of messages that outlived the segment in which they came.
    pub cold: Log,
    /// How old mail is being recovered.
    pub recovery: watch::Sender<Recovery>,
    /// Why the process must end, though the logs have not failed.
    pub failure: watch::Sender<bool>,
    /// The same, for those who ask often.
    pub has_failed: AtomicBool,
    /// Nothing more is taken or handed out: the spool is being closed.
    pub has_ended: AtomicBool,
    /// Held while a segment is given back, or while the whole log is read.
    pub retiring: tokio::sync::Mutex<()>,
    /// Rounds of reclaim that failed, one after the other.
    pub reclaim_failures: AtomicU32,
    /// What lived in a segment when the index was found not to know it.
    pub distrusted: Mutex<HashMap<u64, Live>>,
    /// One reclaims at a time.
    pub reclaiming: Turn,
    pub clock: Clock,
    pub settings: Settings,
    pub metrics: Metrics,
    pub state: Mutex<State>,
    pub under_way: Arc<UnderWay>,
    pub admissions: Arc<Admissions>,
    pub youth: Arc<Youth>,
    pub bodies: Arc<BodyMemory>,
    pub indexer: Indexer,
    /// What the cold log takes on the disk.
    pub cold_space: ColdSpace,
    pub recent: Recent,
    pub feeds: Feeds,
    pub quarantine: Quarantine,
    pub inbox: Inbox,
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

/// How often, and how long apart, a body is read that the disk does not give.
const READ_TRIES: u32 = 3;
const READ_WAIT: Duration = Duration::from_millis(100);

/// How far the recovery of old mail is.
#[derive(Clone, Debug)]
pub(crate) enum Recovery {
    UnderWay,
    Done(Arc<OpenReport>),
    /// With the reason.
    Failed(Arc<Error>),
}

impl Shared {
    /// The log in which something lies.
    pub(crate) fn log_of(&self, location: Location) -> &Log {
        match location.segment < COLD {
            true => &self.log,
            false => &self.cold,
        }
    }

    /// Reads a body. A disk that does not answer is asked again: to take that
    /// for damage would stop the message. Blocks.
    pub(crate) fn read_body(&self, location: Location) -> Result<Bytes, postrider_wal::Error> {
        let mut tries = 1;
        loop {
            match self.log_of(location).read(location) {
                Err(postrider_wal::Error::Io { .. }) if tries < READ_TRIES => {
                    tries += 1;
                    std::thread::sleep(READ_WAIT);
                }
                result => return result,
            }
        }
    }

    /// Waits until old mail is recovered.
    pub(crate) async fn recovered(&self) -> Result<Arc<OpenReport>> {
        if let Recovery::Done(report) = &*self.recovery.borrow() {
            return Ok(Arc::clone(report));
        }
        let mut recovery = self.recovery.subscribe();
        let is_over = |recovery: &Recovery| !matches!(recovery, Recovery::UnderWay);
        let over = async {
            let over = recovery.wait_for(is_over).await;
            over.map(|over| over.clone()).unwrap_or(Recovery::UnderWay)
        };
        tokio::select! {
            biased;
            over = over => match over {
                Recovery::UnderWay => Err(Error::Closed),
                Recovery::Done(report) => Ok(report),
                Recovery::Failed(reason) => Err(Error::Unrecovered(reason)),
            },
            () = self.scope.cancelled() => Err(Error::Closed),
        }
    }

    /// Asks the tasks to end.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.scope.cancel();
    }

    /// Gives up: nothing is taken or handed out any more, and the process is
    /// to end.
    pub(crate) fn fail(&self, reason: &Error) {
        tracing::error!(%reason, "the spool has failed");
        self.has_failed.store(true, Ordering::Release);
        self.failure.send_replace(true);
    }

    /// Resolves when the process must end.
    pub(crate) async fn failed(&self) {
        let mut failure = self.failure.subscribe();
        let failed = async {
            // The sender lives as long as this.
            let _ = failure.wait_for(|failed| *failed).await;
        };
        tokio::select! {
            () = failed => {}
            () = self.log.poison_event() => {}
            () = self.cold.poison_event() => {}
        }
    }

    /// Does something under the lock, then hands on what follows from it.
    pub(crate) fn update<R>(&self, work: impl FnOnce(&mut State, Timestamp) -> R) -> R {
        let (result, wake) = self.update_quietly(work);
        if wake {
            self.due.notify_one();
        }
        result
    }

    /// As [`Shared::update`], but leaves it to the caller to wake who hands
    /// out what is due; whether that is to be done.
    pub(crate) fn update_quietly<R>(&self, work: impl FnOnce(&mut State, Timestamp) -> R) -> (R, bool) {
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
        self.youth.set_behind(state.due.behind_since());
        let thinned = state.lives.take_thinned();
        drop(state);
        self.admissions.publish();
        self.bodies.publish();
        if thinned {
            self.reclaim.notify_one();
        }
        (result, wake)
    }

    /// Refuses once nothing can be written any more.
    pub(crate) fn check_open(&self) -> Result<()> {
        let failed = self.log.poisoned() || self.cold.poisoned() || self.has_failed.load(Ordering::Acquire);
        match (failed, self.has_ended.load(Ordering::Acquire)) {
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
        let mut usage = self.log.usage();
        let cold = self.cold.usage();
        usage.syncs += cold.syncs;
        usage.bytes_written += cold.bytes_written;
        metrics.spool_bytes.set(gauge(usage.bytes + self.cold_space.bytes()));
        metrics.spool_segments.set(gauge(usage.segments + cold.segments));
        let news = |now: u64, then: u64| now.saturating_sub(then);
        metrics.spool_syncs.inc_by(news(usage.syncs, published.syncs));
        let written = news(usage.bytes_written, published.bytes_written);
        metrics.spool_written_bytes.inc_by(written);
        *published = usage;
    }

    /// Keeps a note on a message that does not read back.
    pub(crate) async fn damaged(self: &Arc<Self>, id: MessageId, what: String) -> Error {
        self.note(format!("message-{id}"), what, Bytes::new()).await;
        Error::Damaged(id)
    }

    /// Keeps a note and evidence in quarantine, away from the runtime's
    /// threads.
    pub(crate) async fn note(self: &Arc<Self>, name: String, what: String, bytes: Bytes) {
        let shared = Arc::clone(self);
        let noted = tokio::task::spawn_blocking(move || shared.quarantine.note(&name, &what, &bytes)).await;
        if let Err(error) = noted {
            tracing::error!(%error, "a note on a damaged record was not kept");
        }
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
