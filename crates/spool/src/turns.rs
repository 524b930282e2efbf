//! Taking turns.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Heaps of things, one for each key, that are taken from in turn: whoever has
/// much waiting takes nothing from those who have little. Taking from a heap and
/// finding one cost the same however many there are.
#[derive(Debug)]
pub struct Turns<K, H> {
    /// Each key once, the next one in front.
    order: VecDeque<K>,
    heaps: HashMap<K, H>,
}

impl<K, H> Default for Turns<K, H> {
    fn default() -> Self {
        Self { order: VecDeque::new(), heaps: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, H: Default> Turns<K, H> {
    /// The heap of `key`. One that was not there gets its turn after all others,
    /// and has to be filled.
    pub fn of(&mut self, key: &K) -> &mut H {
        self.heaps.entry(key.clone()).or_insert_with(|| {
            self.order.push_back(key.clone());
            H::default()
        })
    }

    /// The heap of `key`, where there is one.
    pub fn get(&self, key: &K) -> Option<&H> {
        self.heaps.get(key)
    }

    /// Takes from the heap whose turn it is. `take` says with what it took
    /// whether the heap has more.
    pub fn next<T>(&mut self, take: impl FnOnce(&K, &mut H) -> (T, bool)) -> Option<T> {
        let key = self.order.pop_front()?;
        let heap = self.heaps.entry(key.clone()).or_default();
        let (taken, has_more) = take(&key, heap);
        if has_more {
            self.order.push_back(key);
        } else {
            self.heaps.remove(&key);
        }
        Some(taken)
    }

    /// Looks at every heap, and keeps those of which `keep` says that they are
    /// not empty.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut H) -> bool) {
        self.heaps.retain(|_, heap| keep(heap));
        let heaps = &self.heaps;
        self.order.retain(|key| heaps.contains_key(key));
    }

    /// Whether there is no heap.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(heaps: &[(char, usize)]) -> Turns<char, Vec<usize>> {
        let mut turns: Turns<char, Vec<usize>> = Turns::default();
        for (key, count) in heaps {
            turns.of(key).extend(0..*count);
        }
        turns
    }

    #[test]
    fn a_look_at_a_heap_makes_none() {
        let turns = filled(&[('a', 2)]);
        assert_eq!((turns.get(&'a').map(Vec::len), turns.get(&'b')), (Some(2), None));
        assert!(filled(&[]).is_empty());
    }

    fn next(turns: &mut Turns<char, Vec<usize>>) -> Option<char> {
        turns.next(|key, heap| {
            heap.pop();
            (*key, !heap.is_empty())
        })
    }

    #[test]
    fn heaps_are_taken_from_in_turn() {
        let mut turns = filled(&[('a', 4), ('b', 1), ('c', 2)]);
        let mut order: String = (0..4).filter_map(|_| next(&mut turns)).collect();
        // Filled again, it does not go before those who wait.
        turns.of(&'b').push(1);
        order.extend(std::iter::from_fn(|| next(&mut turns)));
        assert_eq!(order, "abcacaba");
        assert!(turns.is_empty());
    }

    #[test]
    fn heaps_that_are_not_kept_have_no_turn() {
        let mut turns = filled(&[('a', 1), ('b', 2), ('c', 1)]);
        turns.retain(|heap| heap.len() > 1);
        assert_eq!((next(&mut turns), next(&mut turns), next(&mut turns)), (Some('b'), Some('b'), None));
    }
}
