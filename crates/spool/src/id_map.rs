//! Maps by message, quick to ask: the random half of an id is its hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use postrider_mail::MessageId;

/// What is known by message. Ids are made here, of 122 random bits: nobody
/// can choose them to collide.
pub(crate) type IdMap<V> = HashMap<MessageId, V, BuildHasherDefault<IdHasher>>;

#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, part: u64) {
        self.0 = self.0.rotate_left(32) ^ part;
    }

    fn write_u128(&mut self, part: u128) {
        let [high, low] = [part >> 64, part & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or_default());
        // The fixed bits of a version 4 UUID lie elsewhere in the two halves.
        self.0 ^= high.rotate_left(32) ^ low;
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
