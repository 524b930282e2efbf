//! Messages that a queue goes past without keeping a place for each: it is read again from its
//! beginning when they may be wanted.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_base::Timestamp;

use super::{Due, Queue, Slot};
use crate::message::QueueKey;

/// A queue is not read again sooner than this because the time of some message has come: there
/// may be a million with a time each.
const READ_AGAIN: Duration = Duration::from_secs(10 * 60);

/// What was passed over in a queue since it was read from its beginning. What is in the index
/// takes no room here.
#[derive(Debug)]
pub(super) struct Passed {
    /// Those that are nowhere else.
    fresh: BTreeSet<Slot>,
    /// The first one's time.
    until: Timestamp,
    /// When the first one was passed over.
    since: Timestamp,
    count: u64,
}

impl Passed {
    pub(super) fn new(until: Timestamp, now: Timestamp) -> Self {
        Self { fresh: BTreeSet::new(), until, since: now, count: 0 }
    }

    pub(super) fn add(&mut self, slot: Slot, is_fresh: bool, until: Timestamp) {
        self.until = self.until.min(until);
        self.count += 1;
        if is_fresh {
            self.fresh.insert(slot);
        }
    }

    /// A fresh one ends or goes to the index. Whether it was here.
    pub(super) fn remove(&mut self, slot: &Slot) -> bool {
        self.fresh.remove(slot)
    }

    /// When the queue is to be read again, whatever happens.
    pub(super) fn next(&self) -> Timestamp {
        self.until.max(self.since.saturating_add(READ_AGAIN))
    }

    /// How many times a message was passed over.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn into_fresh(self) -> BTreeSet<Slot> {
        self.fresh
    }
}

impl Due {
    /// As [`Due::set_aside`], but with many there the queue goes past this one, to be read
    /// again from its beginning by [`Due::read_again`], or by [`Due::let_on`] some time after
    /// `until`. So any number takes no room that others need.
    pub(crate) fn pass_over(&mut self, key: &QueueKey, slot: Slot, until: Timestamp, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let is_fresh = queue.fresh.remove(&slot);
        queue.window.remove(&slot);
        queue.added.retain(|added| *added != slot);
        let aside = queue.aside.get_or_insert_default();
        if !aside.has_room_to_spare() || !aside.add(slot, until) {
            queue.passed.get_or_insert_with(|| Box::new(Passed::new(until, now))).add(slot, is_fresh, until);
        }
        self.schedule(key, now);
    }

    /// As [`Due::recall`], also for what the queue went past.
    pub(crate) fn read_again(&mut self, key: &QueueKey, now: Timestamp) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.read_again();
        }
        self.recall(key, now);
    }
}

impl Queue {
    /// What it went past comes back; how many those were.
    pub(super) fn read_again(&mut self) -> u64 {
        let Some(passed) = self.passed.take() else { return 0 };
        let count = passed.count();
        self.fresh.append(&mut passed.into_fresh());
        match self.refilling {
            true => self.again = true,
            false => self.forget_window(),
        }
        count
    }
}
