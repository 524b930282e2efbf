//! Messages with records between the log and the state. Apart from the state
//! and its lock: who hands a record in does not wait for those who take a
//! whole group in. Where both are locked, the state is first.

use std::collections::hash_map::Entry;
use std::hash::BuildHasher;

use parking_lot::{Mutex, MutexGuard};
use postrider_mail::MessageId;

use crate::id_map::IdMap;

/// Parts with a lock each: two threads seldom want the same one.
const PARTS: usize = 16;

type Part = IdMap<u32>;

/// How many records of each message the log has, or may have, and the state not yet.
#[derive(Debug, Default)]
pub(crate) struct UnderWay([Mutex<Part>; PARTS]);

/// The same, while nobody else can hand in records.
#[derive(Debug)]
pub(crate) struct Standstill<'a>([MutexGuard<'a, Part>; PARTS]);

impl UnderWay {
    /// Nobody hands in a record before this is dropped.
    pub(crate) fn stop(&self) -> Standstill<'_> {
        Standstill(self.0.each_ref().map(Mutex::lock))
    }

    /// A record about a message is handed to the log.
    pub(crate) fn comes(&self, id: MessageId) {
        *self.part(id).entry(id).or_default() += 1;
    }

    pub(crate) fn contains(&self, id: MessageId) -> bool {
        self.part(id).contains_key(&id)
    }

    /// A record is taken in, or failed. Whether it was the last of its message.
    pub(crate) fn came(&self, id: MessageId) -> bool {
        let mut records = self.part(id);
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
        for part in &self.0 {
            let mut records = part.lock();
            if records.capacity() > 512 && records.capacity() / 8 > records.len() {
                let room = 4 * records.len();
                records.shrink_to(room);
            }
        }
    }

    fn part(&self, id: MessageId) -> MutexGuard<'_, Part> {
        self.0[part_of(id)].lock()
    }
}

impl Standstill<'_> {
    /// A record about a message is handed to the log.
    pub(crate) fn comes(&mut self, id: MessageId) {
        *self.0[part_of(id)].entry(id).or_default() += 1;
    }

    pub(crate) fn contains(&self, id: MessageId) -> bool {
        self.0[part_of(id)].contains_key(&id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.0.iter().flat_map(|part| part.keys().copied())
    }
}

/// By bits of the hash that the maps do not use.
fn part_of(id: MessageId) -> usize {
    (Part::default().hasher().hash_one(id) >> 32) as usize % PARTS
}
