//! Messages that are only in the log and in memory: how many there may be,
//! and the task that moves them to the index when they are no longer young. And
//! what slows down who hands messages in: too many young ones, or deliveries that
//! do not keep up with what is due, wherever that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_base::metrics::Counter;
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::shared::Shared;

/// How many messages are young, against their bound.
#[derive(Debug)]
pub(crate) struct Youth {
    count: AtomicUsize,
    bound: usize,
    /// Above so many, who hands messages in is slowed down.
    high_water: usize,
    /// Since when the oldest of what is due has waited to be taken for delivery, in
    /// milliseconds since 1970; 0 when nothing is due.
    behind_since: AtomicU64,
    /// How long that may be before who hands messages in is slowed down.
    pace_after: Duration,
    room: Notify,
    /// Messages that were slowed down.
    paced: Counter,
}

/// How long a message waits for others to grow old before it is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// By how much a message is slowed down at most: just below the bound, or when
/// deliveries are behind by [`FULL_PACE`] times what they may be.
const MOST_PACE: Duration = Duration::from_secs(1);
const FULL_PACE: u32 = 10;

impl Youth {
    pub(crate) fn new(settings: &Settings, paced: Counter) -> Self {
        let (bound, high_water) = (settings.max_young, settings.young_high_water);
        let (count, behind_since) = (AtomicUsize::new(0), AtomicU64::new(0));
        let pace_after = settings.pace_after.as_duration();
        Self { count, bound, high_water, behind_since, pace_after, room: Notify::new(), paced }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self) {
        if self.count.fetch_sub(1, Ordering::Relaxed) >= self.bound {
            self.room.notify_waiters();
        }
    }

    /// Since when the oldest of what is due has waited to be taken.
    pub(crate) fn set_behind(&self, since: Option<Timestamp>) {
        self.behind_since.store(since.map_or(0, Timestamp::as_millis), Ordering::Relaxed);
    }

    /// How long the next message has to wait, so that those who hand messages in
    /// notice. That deliveries are behind concerns those alone whose mail `has_to_wait`.
    fn pace(&self, now: Timestamp, has_to_wait: impl FnOnce() -> bool) -> Duration {
        let of_delay = self.pace_of_delay(now);
        let is_concerned = !of_delay.is_zero() && has_to_wait();
        self.pace_of_count().max(if is_concerned { of_delay } else { Duration::ZERO })
    }

    /// The more the longer deliveries are behind.
    fn pace_of_delay(&self, now: Timestamp) -> Duration {
        let since = self.behind_since.load(Ordering::Relaxed);
        if since == 0 || self.pace_after.is_zero() {
            return Duration::ZERO;
        }
        let above = now.saturating_since(Timestamp::from_millis(since)).saturating_sub(self.pace_after);
        let whole = self.pace_after.saturating_mul(FULL_PACE - 1);
        MOST_PACE.mul_f64(above.div_duration_f64(whole).min(1.0))
    }

    /// The more the less room there is, before there is none.
    fn pace_of_count(&self) -> Duration {
        let above = self.count().saturating_sub(self.high_water);
        let room = self.bound.saturating_sub(self.high_water);
        match above.min(room) {
            0 => Duration::ZERO,
            above => MOST_PACE.mul_f64(above as f64 / room as f64),
        }
    }

    /// Waits while there are too many: so who hands messages in is slowed down
    /// to what is delivered and what the index takes, instead of being refused all
    /// at once. `has_to_wait` says whether mail of the same account is due and not taken yet:
    /// it is asked only when deliveries are behind.
    pub(crate) async fn room(&self, now: Timestamp, has_to_wait: impl FnOnce() -> bool) -> Result<()> {
        let pace = self.pace(now, has_to_wait);
        if !pace.is_zero() {
            self.paced.inc();
            tokio::time::sleep(pace).await;
        }
        if self.count() < self.bound {
            return Ok(());
        }
        let room = async {
            loop {
                let changed = self.room.notified();
                if self.count() < self.bound {
                    return;
                }
                changed.await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, room).await;
        in_time.map_err(|_| Error::Full("max_young"))
    }
}

/// Messages moved at once.
const STEP: usize = 256;
/// How often the metrics of the log are brought up to date under way.
const PUBLISH: Duration = Duration::from_secs(1);

/// Moves messages until the spool is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let age = shared.settings.index_after.as_duration();
    let work = async {
        let mut published = shared.clock.now();
        loop {
            shared.indexer.room().await;
            let next = shared.update(|state, now| state.age(age, STEP, now));
            if shared.clock.now().saturating_since(published) >= PUBLISH {
                published = shared.clock.now();
                shared.publish();
            }
            match next {
                None => shared.young.notified().await,
                Some(at) => {
                    tokio::time::sleep(at.saturating_since(shared.clock.now())).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shared.scope.cancelled() => {}
    }
}
