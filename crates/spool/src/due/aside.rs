//! Messages that let the others of their queue pass for a while.

use std::collections::{BTreeSet, HashMap};

use postrider_base::Timestamp;
use postrider_mail::MessageId;

use super::Slot;

/// Messages of one queue that are set aside, and until when.
#[derive(Debug, Default)]
pub(super) struct Aside {
    slots: BTreeSet<Slot>,
    /// When each comes back, and when it was due before.
    until: HashMap<MessageId, (Timestamp, Timestamp)>,
}

/// Most messages of a queue that are set aside.
const MOST: usize = 1_000;

impl Aside {
    /// Takes in what waits at a place in the queue. False when there are too many.
    pub(super) fn add(&mut self, (due, id): Slot, until: Timestamp) -> bool {
        if self.is_full() && !self.contains(id) {
            return false;
        }
        self.remove(id);
        self.until.insert(id, (until, due));
        self.slots.insert((until, id))
    }

    /// Whether it has room for no more.
    pub(super) fn is_full(&self) -> bool {
        self.until.len() >= MOST
    }

    pub(super) fn first(&self) -> Option<&Slot> {
        self.slots.first()
    }

    /// When the first one comes back after `now`.
    pub(super) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.slots.iter().map(|(until, _)| *until).find(|until| *until > now)
    }

    pub(super) fn contains(&self, id: MessageId) -> bool {
        self.until.contains_key(&id)
    }

    /// When it was due before, if it is here.
    pub(super) fn remove(&mut self, id: MessageId) -> Option<Timestamp> {
        let (until, due) = self.until.remove(&id)?;
        self.slots.remove(&(until, id));
        Some(due)
    }

    /// Those that `is_meant` come back at once, to the places that they had; how many
    /// there are.
    pub(super) fn recall(&mut self, is_meant: impl Fn(MessageId) -> bool, now: Timestamp) -> u64 {
        let mut count = 0;
        for (id, (until, due)) in self.until.iter_mut().filter(|(id, (until, _))| *until > now && is_meant(**id)) {
            self.slots.remove(&(*until, *id));
            *until = now.min(*due);
            self.slots.insert((*until, *id));
            count += 1;
        }
        count
    }
}
