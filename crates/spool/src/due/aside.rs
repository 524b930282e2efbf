//! Messages that let the others of their queue pass for a while.

use std::collections::{BTreeSet, HashMap};

use postrider_base::Timestamp;
use postrider_mail::MessageId;

use super::Slot;

/// Messages of one queue that are set aside, and until when.
#[derive(Debug, Default)]
pub(super) struct Aside {
    slots: BTreeSet<Slot>,
    until: HashMap<MessageId, Timestamp>,
}

/// Most messages of a queue that are set aside.
const MOST: usize = 1_000;

impl Aside {
    /// False when there are too many.
    pub(super) fn add(&mut self, id: MessageId, until: Timestamp) -> bool {
        if self.is_full() && !self.contains(id) {
            return false;
        }
        self.remove(id);
        self.until.insert(id, until);
        self.slots.insert((until, id))
    }

    /// Whether it has room for no more.
    pub(super) fn is_full(&self) -> bool {
        self.until.len() >= MOST
    }

    pub(super) fn first(&self) -> Option<&Slot> {
        self.slots.first()
    }

    pub(super) fn contains(&self, id: MessageId) -> bool {
        self.until.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: MessageId) {
        if let Some(until) = self.until.remove(&id) {
            self.slots.remove(&(until, id));
        }
    }

    /// Those that `is_meant` are set aside no longer than until then; how many there are.
    pub(super) fn recall(&mut self, is_meant: impl Fn(MessageId) -> bool, now: Timestamp) -> u64 {
        let mut count = 0;
        for (_, until) in self.until.iter_mut().filter(|(id, until)| **until > now && is_meant(**id)) {
            *until = now;
            count += 1;
        }
        self.slots = self.until.iter().map(|(id, until)| (*until, *id)).collect();
        count
    }
}
