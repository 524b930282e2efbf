//! Messages that let the others of their queue pass for a while.

use std::collections::{BTreeSet, HashMap};

use postrider_base::Timestamp;
use postrider_mail::MessageId;

use super::{Due, Queue, Slot};
use crate::message::QueueKey;
use crate::view::Selector;

/// Messages of one queue that are set aside, and until when.
#[derive(Debug, Default)]
pub(super) struct Aside {
    slots: BTreeSet<Slot>,
    /// When each comes back, and when it was due before.
    until: HashMap<MessageId, (Timestamp, Timestamp)>,
}

/// Most messages of a queue that are set aside.
const MOST: usize = 1_000;

/// Most of them that are there although they could be passed over: the rest of the room is for
/// those that could not.
const MOST_PASSABLE: usize = MOST / 2;

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

    /// Whether one more may come in that could be passed over as well.
    pub(super) fn has_room_to_spare(&self) -> bool {
        self.until.len() < MOST_PASSABLE
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

impl Due {
    /// A message lets the others of its queue pass until then; `slot` is where it
    /// waits. False when too many do.
    pub(crate) fn set_aside(&mut self, key: &QueueKey, slot: Slot, until: Timestamp, now: Timestamp) -> bool {
        let Some(queue) = self.queues.get_mut(key) else { return true };
        let is_aside = queue.aside.get_or_insert_default().add(slot, until);
        if is_aside {
            let _ = queue.fresh.remove(&slot) || queue.window.remove(&slot);
        }
        self.schedule(key, now);
        is_aside
    }

    /// What was set aside in a queue is due as far as it was before.
    pub(crate) fn recall(&mut self, key: &QueueKey, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.recalls = queue.recalls.wrapping_add(1);
        if let Some(aside) = &mut queue.aside {
            aside.recall(|_| true, now);
        }
        self.schedule(key, now);
    }

    /// Nothing but their own times keeps those back any more that are set aside in a queue;
    /// when the next one of them comes.
    pub(crate) fn let_on(&mut self, key: &QueueKey, now: Timestamp) -> Option<Timestamp> {
        let queue = self.queues.get_mut(key)?;
        queue.parked = false;
        queue.recalls = queue.recalls.wrapping_add(1);
        if queue.passed.as_ref().is_some_and(|passed| passed.next() <= now) {
            queue.read_again();
        }
        let aside = queue.aside.as_ref().and_then(|aside| aside.next(now));
        let passed = queue.passed.as_ref().map(|passed| passed.next());
        self.schedule(key, now);
        aside.into_iter().chain(passed).min()
    }

    /// As [`Due::recall`], for what a selector means and nobody holds; how many messages.
    pub(crate) fn recall_selected(&mut self, selector: &Selector, now: Timestamp) -> u64 {
        let one = match selector {
            Selector::Message(id) => Some(*id),
            _ => None,
        };
        let is_meant = |key: &QueueKey, queue: &Queue| {
            queue.aside.is_some() && !queue.held && (one.is_some() || selector.covers(key))
        };
        let keys: Vec<_> = self.queues.iter().filter(|(key, queue)| is_meant(key, queue)).collect();
        let keys: Vec<_> = keys.into_iter().map(|(key, _)| key.clone()).collect();
        let mut count = 0;
        for key in keys {
            if let Some(queue) = self.queues.get_mut(&key).filter(|_| one.is_none()) {
                count += queue.read_again();
            }
            if let Some(Queue { aside: Some(aside), parked, .. }) = self.queues.get_mut(&key) {
                let is_full = aside.is_full();
                let recalled = aside.recall(|id| one.is_none_or(|one| one == id), now);
                // With too many aside the rest of the queue waits for the same.
                *parked &= !is_full || (one.is_some() && recalled == 0);
                count += recalled;
            }
            self.schedule(&key, now);
        }
        count
    }
}
