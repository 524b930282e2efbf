//! A map that forgets: bounded, without a search for what to forget.

use std::collections::HashMap;
use std::hash::Hash;

/// Keeps what was touched lately. Two generations: when the young one has half
/// of the bound, the old one is dropped and the young one becomes old. So at
/// least the last half of the bound is remembered, and never more than it.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Default> Recent<K, V> {
    pub(super) fn new() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }

    /// The value of a key, new if it is not known; at most `bound` are kept.
    pub(super) fn touch(&mut self, key: K, bound: usize) -> &mut V {
        if !self.young.contains_key(&key) && self.young.len() >= (bound / 2).max(1) {
            self.old = std::mem::take(&mut self.young);
        }
        let known = self.old.remove(&key);
        let slot = self.young.entry(key);
        slot.or_insert_with(|| known.unwrap_or_default())
    }

    /// Forgets keys.
    pub(super) fn forget(&mut self, which: impl Fn(&K) -> bool) {
        self.young.retain(|key, _| !which(key));
        self.old.retain(|key, _| !which(key));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_never_more_than_the_bound() {
        let mut recent: Recent<u32, u32> = Recent::new();
        for key in 0..1_000 {
            *recent.touch(key, 100) += 1;
            // Touched all the time, so never forgotten.
            *recent.touch(7_777, 100) += 1;
            assert!(recent.len() <= 100);
        }
        assert_eq!(*recent.touch(7_777, 100), 1_000);
        assert_eq!(*recent.touch(980, 100), 1);
        assert_eq!(*recent.touch(10, 100), 0);
        recent.forget(|key| *key == 980);
        assert_eq!(*recent.touch(980, 100), 0);
    }
}
