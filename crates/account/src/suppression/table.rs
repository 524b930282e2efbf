//! How suppressed addresses are kept: on disk by account and address, in memory by
//! a fingerprint of the two.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher};

use parking_lot::RwLock;
use postrider_base::{Random, Timestamp};
use postrider_mail::{AccountId, EmailAddress, SuppressionReason};
use serde::{Deserialize, Serialize};

/// Locks of the set, so that a bulk import and many sessions rarely meet.
const SHARDS: usize = 64;

/// What a row is found by: rows of one account lie together, in the order of their
/// addresses. Addresses that differ only in case are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) account: AccountId,
    /// The address in lower case.
    pub(super) address: String,
}

impl Key {
    pub(super) fn new(account: AccountId, address: &EmailAddress) -> Self {
        Self { account, address: address.fold() }
    }
}

impl postrider_store::Key for Key {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.account.get().to_be_bytes(), self.address.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (account, address) = bytes.split_first_chunk()?;
        Some(Self {
            account: AccountId::new(u64::from_be_bytes(*account))?,
            address: std::str::from_utf8(address).ok()?.to_owned(),
        })
    }
}

/// What is kept of a suppressed address. A later form becomes another variant, so
/// that rows written today stay readable.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Row {
    V1 { reason: SuppressionReason, updated_at: Timestamp },
}

/// A set of 64-bit fingerprints of keys. It says "certainly not" or "very likely", from
/// memory, in well under a microsecond.
#[derive(Debug)]
pub(super) struct Fingerprints {
    shards: [RwLock<HashSet<u64, BuildHasherDefault<Identity>>>; SHARDS],
    /// Makes fingerprints unpredictable, so that nobody can prepare addresses that collide.
    seed: u64,
}

impl Fingerprints {
    pub(super) fn new(random: &Random) -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()), seed: random.u64() }
    }

    pub(super) fn insert(&self, key: &Key) {
        let fingerprint = self.of(key);
        self.shard(fingerprint).write().insert(fingerprint);
    }

    pub(super) fn remove(&self, key: &Key) {
        let fingerprint = self.of(key);
        self.shard(fingerprint).write().remove(&fingerprint);
    }

    pub(super) fn may_contain(&self, key: &Key) -> bool {
        let fingerprint = self.of(key);
        self.shard(fingerprint).read().contains(&fingerprint)
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().len() as u64).sum()
    }

    fn of(&self, key: &Key) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        key.hash(&mut hasher);
        hasher.finish()
    }

    fn shard(&self, fingerprint: u64) -> &RwLock<HashSet<u64, BuildHasherDefault<Identity>>> {
        // Middle bits: the set itself uses both ends.
        &self.shards[(fingerprint >> 32) as usize % SHARDS]
    }
}

/// Fingerprints are hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_bytes() {
        use postrider_store::Key as _;
        let key = Key::new(AccountId::default(), &"A@Example.com".parse().unwrap());
        assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(Key::from_bytes(b"short"), None);
        assert_eq!(Key::from_bytes(&[0xff; 20]), None);
    }

    #[test]
    fn fingerprints_tell_accounts_and_addresses_apart() {
        let set = Fingerprints::new(&Random::seeded(1));
        let key = |address: &str| Key::new(AccountId::default(), &address.parse().unwrap());
        set.insert(&key("A@Example.com"));
        assert!(set.may_contain(&key("a@example.com")));
        assert!(!set.may_contain(&key("b@example.com")));
        assert_eq!(set.len(), 1);
        set.remove(&key("a@EXAMPLE.com"));
        assert!(!set.may_contain(&key("a@example.com")));
    }
}
