//! Places for open connections, of all sites together.
//!
//! Unlike the seats at one site or provider ([`crate::shaping`]), which lanes take in turns, these
//! have one line: an idle connection of any site makes room for whoever came first.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// So many places; who waits for one is served in the order of coming.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    counts: Mutex<Counts>,
    /// As in `counts`, for those who look without the lock.
    waiting: AtomicUsize,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: usize,
    /// Holders who were told that their place is wanted and have not left it.
    leaving: usize,
}

/// A place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    is_leaving: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

/// One who waits, for as long as that takes.
struct Waiting<'a>(&'a Slots);

impl Slots {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(limit)),
            counts: Mutex::default(),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
        })
    }

    /// The places, to make them more or fewer.
    pub(crate) fn places(&self) -> &Arc<Semaphore> {
        &self.free
    }

    /// Whether who comes now has to wait.
    pub(crate) fn are_taken(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// A place, at once or in turn; `None` when there will be none any more. Who has held
    /// an idle one for longest is asked for it. Giving up waiting loses nothing.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Slot> {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::begin(self);
                self.wanted.notify_one();
                self.free.clone().acquire_owned().await.ok()?
            }
        };
        Some(Slot { slots: self.clone(), is_leaving: AtomicBool::new(false), _permit: permit })
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock();
        change(&mut counts);
        self.waiting.store(counts.waiting, Ordering::Relaxed);
    }
}

impl<'a> Waiting<'a> {
    fn begin(slots: &'a Slots) -> Self {
        slots.count(|counts| counts.waiting += 1);
        Self(slots)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.count(|counts| counts.waiting -= 1);
    }
}

impl Slot {
    /// Resolves when the place is wanted: see [`Slot::is_wanted`]. For one who does not need
    /// it at the moment.
    pub(crate) async fn wanted(&self) {
        loop {
            let mut called = pin!(self.slots.wanted.notified());
            called.as_mut().enable();
            if self.is_wanted() {
                return;
            }
            called.await;
        }
    }

    /// Whether somebody waits for a place: true for as many holders as there are such. Who
    /// is told so is expected to leave soon.
    pub(crate) fn is_wanted(&self) -> bool {
        if self.is_leaving.load(Ordering::Relaxed) || self.slots.waiting.load(Ordering::Relaxed) == 0 {
            return self.is_leaving.load(Ordering::Relaxed);
        }
        let mut is_wanted = false;
        self.slots.count(|counts| {
            is_wanted = counts.waiting > counts.leaving;
            counts.leaving += usize::from(is_wanted);
        });
        self.is_leaving.store(is_wanted, Ordering::Relaxed);
        is_wanted
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if *self.is_leaving.get_mut() {
            self.slots.count(|counts| counts.leaving -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn as_many_leave_as_wait() {
        let slots = Slots::new(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(slots.take().await.unwrap());
        }
        assert!(held.iter().all(|slot| slot.wanted().now_or_never().is_none()));
        let mut next = Box::pin(slots.take());
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(held.iter().filter(|slot| slot.is_wanted()).count(), 1);
        assert!(held[0].wanted().now_or_never().is_some(), "asked again, it is the same one");
        held.remove(0);
        assert!(next.await.is_some());
        assert!(held.iter().all(|slot| !slot.is_wanted()));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_wants_nothing() {
        let slots = Slots::new(1);
        let slot = slots.take().await.unwrap();
        assert!(slots.take().now_or_never().is_none());
        assert!(slot.wanted().now_or_never().is_none());
    }

    #[tokio::test]
    async fn of_those_who_are_idle_the_first_is_asked() {
        let slots = Slots::new(2);
        let (early, late) = (slots.take().await.unwrap(), slots.take().await.unwrap());
        let (mut first, mut second) = (Box::pin(early.wanted()), Box::pin(late.wanted()));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        let mut next = Box::pin(slots.take());
        assert!(next.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(first.as_mut().now_or_never().is_some());
    }
}
