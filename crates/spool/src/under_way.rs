//! Messages with records between the log and the state. Apart from the state
//! and its lock: who hands a record in does not wait for those who take a
//! whole group in. Where both are locked, the state is first.

use std::collections::hash_map::Entry;

use parking_lot::{Mutex, MutexGuard};
use postrider_mail::MessageId;

use crate::id_map::IdMap;

/// How many records of each message the log has, or may have, and the state not yet.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<IdMap<u32>>);

/// The same, while nobody else can hand in records.
#[derive(Debug)]
pub(crate) struct Standstill<'a>(MutexGuard<'a, IdMap<u32>>);

impl UnderWay {
    /// Nobody hands in a record before this is dropped.
    pub(crate) fn stop(&self) -> Standstill<'_> {
        Standstill(self.0.lock())
    }

    pub(crate) fn contains(&self, id: MessageId) -> bool {
        self.stop().contains(id)
    }

    /// A record is taken in, or failed. Whether it was the last of its message.
    pub(crate) fn came(&self, id: MessageId) -> bool {
        let mut records = self.0.lock();
        let Entry::Occupied(mut count) = records.entry(id) else { return false };
        *count.get_mut() -= 1;
        let is_last = *count.get() == 0;
        if is_last {
            count.remove();
        }
        is_last
    }

    /// Gives back the room of a crowd that has gone.
    pub(crate) fn shrink(&self) {
        let mut records = self.0.lock();
        if records.capacity() > 8192 && records.capacity() / 8 > records.len() {
            let room = 4 * records.len();
            records.shrink_to(room);
        }
    }
}

impl Standstill<'_> {
    /// A record about a message is handed to the log.
    pub(crate) fn comes(&mut self, id: MessageId) {
        *self.0.entry(id).or_default() += 1;
    }

    pub(crate) fn contains(&self, id: MessageId) -> bool {
        self.0.contains_key(&id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.0.keys().copied()
    }
}
