//! The hashes of the rows that are in no file yet, read without a lock.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A set of hashes that one writer at a time adds to, and nothing is taken from. Readers
/// look at octets that nobody else writes, unless a row is being added just there.
#[derive(Debug)]
pub(super) struct Recent {
    /// Open addressing; 0 is empty. Never more than half full.
    slots: Box<[AtomicU64]>,
    len: AtomicUsize,
}

impl Recent {
    /// With room for so many.
    pub(super) fn new(room: usize) -> Self {
        let slots = (room.max(32) * 2).next_power_of_two();
        Self { slots: (0..slots).map(|_| AtomicU64::new(0)).collect(), len: AtomicUsize::new(0) }
    }

    /// The same set with room for so many.
    pub(super) fn with_room(&self, room: usize) -> Self {
        let larger = Self::new(room);
        for slot in &self.slots {
            match slot.load(Ordering::Relaxed) {
                0 => {}
                hash => larger.insert(hash),
            }
        }
        larger
    }

    /// How many more it has room for.
    pub(super) fn room(&self) -> usize {
        self.slots.len() / 2 - self.len()
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * 8
    }

    /// Adds a hash. The caller has seen to it that there is room, and that nobody else adds.
    pub(super) fn insert(&self, hash: u64) {
        let hash = hash.max(1);
        if let Err(free) = self.find(hash) {
            free.store(hash, Ordering::Release);
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.find(hash.max(1)).is_ok()
    }

    /// The hash's slot, or the free one where it would be.
    fn find(&self, hash: u64) -> Result<(), &AtomicU64> {
        let mask = self.slots.len() - 1;
        // A file's filter takes the high bits; any will do here.
        let mut at = usize::try_from(hash & mask as u64).unwrap_or(0);
        loop {
            match self.slots[at].load(Ordering::Acquire) {
                0 => return Err(&self.slots[at]),
                found if found == hash => return Ok(()),
                _ => at = (at + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_stay_when_it_grows() {
        let mut recent = Recent::new(1);
        for hash in 0..5_000u64 {
            if recent.room() == 0 {
                recent = recent.with_room(recent.len() * 2);
            }
            // The worst case: all in a row.
            recent.insert(hash);
            recent.insert(hash);
        }
        // 0 and 1 are one: a row too many is looked for, none too few.
        assert_eq!(recent.len(), 4_999);
        assert!((0..5_000).all(|hash| recent.may_contain(hash)));
        assert!((5_000..9_000).all(|hash| !recent.may_contain(hash)));
        assert!(recent.bytes() >= 8 * 2 * 4_999);
    }

    #[test]
    fn readers_see_what_was_added_before() {
        let recent = Recent::new(50_000);
        let added = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..50_000u64 {
                    recent.insert(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    added.store(n, Ordering::Release);
                }
            });
            scope.spawn(|| {
                loop {
                    let n = added.load(Ordering::Acquire);
                    assert!(n == 0 || recent.may_contain(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                    if n == 49_999 {
                        break;
                    }
                }
            });
        });
    }
}
