//! Messages that are only in the log and in memory: how many there may be,
//! and the task that moves them to the index when they are no longer young.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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
    room: Notify,
    /// Messages that were slowed down.
    paced: Counter,
}

/// How long a message waits for others to grow old before it is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// By how much a message is slowed down just below the bound.
const MOST_PACE: Duration = Duration::from_secs(1);

impl Youth {
    pub(crate) fn new(settings: &Settings, paced: Counter) -> Self {
        let (bound, high_water) = (settings.max_young, settings.young_high_water);
        Self { count: AtomicUsize::new(0), bound, high_water, room: Notify::new(), paced }
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

    /// How long the next message has to wait, so that those who hand messages in
    /// notice, the more the less room there is, before there is none.
    fn pace(&self) -> Duration {
        let above = self.count().saturating_sub(self.high_water);
        let room = self.bound.saturating_sub(self.high_water);
        match above.min(room) {
            0 => Duration::ZERO,
            above => MOST_PACE.mul_f64(above as f64 / room as f64),
        }
    }

    /// Waits while there are too many: so who hands messages in is slowed down
    /// to what is delivered and what the index takes, instead of being refused all
    /// at once.
    pub(crate) async fn room(&self) -> Result<()> {
        let pace = self.pace();
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
