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
        if self.until.len() >= MOST && !self.contains(id) {
            return false;
        }
        self.remove(id);
        self.until.insert(id, until);
        self.slots.insert((until, id))
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

    /// Nothing is set aside for longer than until then.
    pub(super) fn recall(&mut self, now: Timestamp) {
        self.until.values_mut().for_each(|until| *until = now.min(*until));
        self.slots = self.until.iter().map(|(id, until)| (*until, *id)).collect();
    }
}
