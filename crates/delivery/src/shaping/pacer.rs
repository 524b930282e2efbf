//! Who may begin when: a token bucket and those who wait for it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::Clock;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::bucket::Bucket;
use super::rate::Rate;

/// Gives turns at a rate, in the order of asking. Without a rate it costs
/// next to nothing.
#[derive(Debug)]
pub(crate) struct Pacer {
    clock: Clock,
    origin: Instant,
    is_on: AtomicBool,
    rate: Mutex<Option<Rate>>,
    changed: Notify,
    /// Turns that were given and not used.
    unused: AtomicU64,
    /// When the one who waits gets his turn, counted from the origin in nanoseconds.
    next: AtomicU64,
    /// Held by the one whose turn is next while he waits: the others stand in line.
    bucket: tokio::sync::Mutex<Bucket>,
}

/// How a turn was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Given {
    /// There is no rate.
    Free,
    /// It counts, unless it is given back.
    Counted {
        /// Whether there was something to wait for.
        has_waited: bool,
    },
}

impl Pacer {
    pub(crate) fn new(clock: Clock, rate: Option<Rate>) -> Self {
        let origin = clock.instant();
        Self {
            clock,
            origin,
            is_on: AtomicBool::new(rate.is_some()),
            rate: Mutex::new(rate),
            changed: Notify::new(),
            unused: AtomicU64::new(0),
            next: AtomicU64::new(0),
            bucket: tokio::sync::Mutex::default(),
        }
    }

    /// Resolves when the next one may begin. Giving up waiting loses nothing.
    pub(crate) async fn turn(&self) -> Given {
        if !self.is_on.load(Ordering::Relaxed) {
            return Given::Free;
        }
        let mut has_waited = false;
        let mut bucket = match self.bucket.try_lock() {
            Ok(bucket) => bucket,
            Err(_) => {
                has_waited = true;
                self.bucket.lock().await
            }
        };
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let Some(rate) = self.rate() else { return Given::Free };
            (0..self.unused.swap(0, Ordering::Relaxed)).for_each(|_| bucket.give_back(rate));
            let Err(wait) = bucket.take(rate, self.now()) else { return Given::Counted { has_waited } };
            has_waited = true;
            let next = self.now().saturating_add(wait).as_nanos();
            self.next.store(u64::try_from(next).unwrap_or(u64::MAX), Ordering::Relaxed);
            tokio::select! {
                () = sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    /// A turn that was counted was not used: the next one gets it.
    pub(crate) fn give_back(&self) {
        self.unused.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Who waits goes on by the new rate.
    pub(crate) fn set(&self, rate: Option<Rate>) {
        let old = std::mem::replace(&mut *self.rate.lock(), rate);
        if old != rate {
            self.is_on.store(rate.is_some(), Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn rate(&self) -> Option<Rate> {
        *self.rate.lock()
    }

    /// How long the one who waits at the moment has to wait, as it looks.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let next = Duration::from_nanos(self.next.load(Ordering::Relaxed));
        next.checked_sub(self.now()).filter(|wait| !wait.is_zero())
    }

    /// Messages that may begin at once; `None` without a rate, and none while somebody waits.
    pub(crate) fn tokens(&self) -> Option<u64> {
        let rate = self.rate()?;
        Some(self.bucket.try_lock().map_or(0, |bucket| bucket.tokens(rate, self.now())))
    }

    fn now(&self) -> Duration {
        self.clock.instant().duration_since(self.origin)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postrider_base::Timestamp;

    use super::*;

    fn pacer(rate: &str) -> Arc<Pacer> {
        Arc::new(Pacer::new(Clock::simulated(Timestamp::from_millis(0)), Some(rate.parse().unwrap())))
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_get_the_rate_over_hours() {
        let pacer = pacer("100/m");
        let start = pacer.clock.instant();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let pacer = pacer.clone();
                tokio::spawn(async move {
                    for _ in 0..1_200 {
                        pacer.turn().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let took = pacer.clock.instant().duration_since(start);
        let exact = Duration::from_secs(12_000 * 60 / 100);
        assert!(took >= exact - Duration::from_secs(2), "{took:?}");
        // Timers tick in whole milliseconds.
        assert!(took <= exact + exact / 500, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_takes_no_token_and_holds_up_nobody() {
        let pacer = pacer("1/m");
        assert_eq!(pacer.turn().await, Given::Counted { has_waited: false });
        let impatient = tokio::time::timeout(Duration::from_secs(30), pacer.turn());
        assert!(impatient.await.is_err());
        let start = pacer.clock.instant();
        assert_eq!(pacer.turn().await, Given::Counted { has_waited: true });
        let waited = pacer.clock.instant().duration_since(start);
        assert!((29..=31).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_given_back_is_the_next_ones_at_once() {
        let pacer = pacer("1/h");
        pacer.turn().await;
        let waiting = tokio::spawn({
            let pacer = pacer.clone();
            async move { pacer.turn().await }
        });
        tokio::task::yield_now().await;
        pacer.give_back();
        let given = tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
        assert_eq!(given, Given::Counted { has_waited: true });
        assert!(tokio::time::timeout(Duration::from_secs(3_500), pacer.turn()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_holds_for_those_who_wait() {
        let pacer = pacer("1/h");
        pacer.turn().await;
        let waiting = tokio::spawn({
            let pacer = pacer.clone();
            async move { pacer.turn().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(pacer.tokens(), Some(0));
        pacer.set(None);
        let given = tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
        assert_eq!(given, Given::Free);
        assert_eq!(pacer.tokens(), None);
    }
}
