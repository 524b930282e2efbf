//! Rows in memory that are found without a lock that all readers share: such a lock, even if
//! only read, has every processor write to the same place for every message.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// Parts of the table, so that a change copies a small one: of 100,000 rows it copies 100.
const SHARDS: usize = 1_024;

/// A table of rows by their keys. A row may be looked for by whatever hashes as its key does.
pub(crate) struct Lookup<K, T> {
    shards: Box<[ArcSwap<Shard<K, T>>]>,
    hasher: RandomState,
    /// Held across a change.
    changing: Mutex<()>,
}

type Shard<K, T> = Vec<Row<K, T>>;

/// Rows of a shard are in the order of their hashes.
struct Row<K, T> {
    hash: u64,
    key: Arc<K>,
    item: Arc<T>,
}

impl<K, T> Clone for Row<K, T> {
    fn clone(&self) -> Self {
        Self { hash: self.hash, key: self.key.clone(), item: self.item.clone() }
    }
}

impl<K: Hash + Eq, T> Lookup<K, T> {
    pub(crate) fn new() -> Self {
        let empty = Arc::new(Vec::new());
        let shards = (0..SHARDS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect();
        Self { shards, hasher: RandomState::new(), changing: Mutex::new(()) }
    }

    /// The row whose key hashes as `like` does, and `is` the one.
    pub(crate) fn find(&self, like: impl Hash, is: impl Fn(&K) -> bool) -> Option<Arc<T>> {
        let hash = self.hasher.hash_one(like);
        let shard = self.shards[shard_of(hash)].load();
        let first = shard.partition_point(|row| row.hash < hash);
        let alike = shard[first..].iter().take_while(|row| row.hash == hash);
        alike.into_iter().find(|row| is(&row.key)).map(|row| row.item.clone())
    }

    /// Puts rows in their place, or takes them away. Readers may see some changes before others.
    pub(crate) fn change(&self, changes: impl IntoIterator<Item = (K, Option<Arc<T>>)>) {
        let hashed = changes.into_iter().map(|(key, item)| (self.hasher.hash_one(&key), key, item));
        let mut changes: Vec<_> = hashed.collect();
        // In the order that they were given, where several are of one key.
        changes.sort_by_key(|(hash, ..)| *hash);
        let _changing = self.changing.lock();
        let mut changes = changes.into_iter().peekable();
        while let Some(change) = changes.next() {
            let index = shard_of(change.0);
            let mut shard = Vec::clone(&self.shards[index].load());
            apply(&mut shard, change);
            while let Some(change) = changes.next_if(|(hash, ..)| shard_of(*hash) == index) {
                apply(&mut shard, change);
            }
            self.shards[index].store(Arc::new(shard));
        }
    }
}

/// The high bits, which sort first.
fn shard_of(hash: u64) -> usize {
    usize::try_from(hash >> (u64::BITS - SHARDS.ilog2())).expect("less than the number of shards")
}

fn apply<K: Eq, T>(shard: &mut Shard<K, T>, (hash, key, item): (u64, K, Option<Arc<T>>)) {
    let first = shard.partition_point(|row| row.hash < hash);
    let alike = shard[first..].iter().take_while(|row| row.hash == hash);
    let found = alike.into_iter().position(|row| *row.key == key).map(|nth| first + nth);
    match (found, item) {
        (Some(index), Some(item)) => shard[index].item = item,
        (Some(index), None) => drop(shard.remove(index)),
        (None, Some(item)) => shard.insert(first, Row { hash, key: Arc::new(key), item }),
        (None, None) => {}
    }
}

impl<K, T> fmt::Debug for Lookup<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: usize = self.shards.iter().map(|shard| shard.load().len()).sum();
        f.debug_struct("Lookup").field("rows", &rows).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn find(table: &Lookup<String, u32>, key: &str) -> Option<u32> {
        table.find(key, |other| other == key).map(|item| *item)
    }

    #[test]
    fn it_agrees_with_a_map_after_any_changes() {
        let random = postrider_base::Random::seeded(1);
        let (table, mut model) = (Lookup::new(), HashMap::new());
        for round in 0..200_u32 {
            let mut bytes = [0; 64];
            random.fill(&mut bytes);
            let changes: Vec<_> = bytes
                .iter()
                .map(|byte| (format!("key{}", byte % 100), (byte % 3 > 0).then(|| Arc::new(u32::from(*byte) + round))))
                .collect();
            for (key, item) in &changes {
                match item {
                    Some(item) => model.insert(key.clone(), **item),
                    None => model.remove(key),
                };
            }
            table.change(changes);
            for number in 0..110 {
                let key = format!("key{number}");
                assert_eq!(find(&table, &key), model.get(&key).copied(), "{key}");
            }
        }
    }

    #[test]
    fn keys_with_one_hash_are_told_apart() {
        #[derive(PartialEq, Eq)]
        struct Same(&'static str);
        impl Hash for Same {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                0_u8.hash(state);
            }
        }
        let table = Lookup::new();
        table.change([(Same("a"), Some(Arc::new(1))), (Same("b"), Some(Arc::new(2)))]);
        table.change([(Same("a"), None)]);
        let find = |name: &str| table.find(Same(""), |key| key.0 == name).map(|item| *item);
        assert_eq!((find("a"), find("b"), find("c")), (None, Some(2), None));
    }
}
