//! Choosing by weight, evenly: neither in turns, which fall into step with the mail, nor
//! by dice, whose luck runs in streaks.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};

use postrider_base::Random;

/// Counters. What shares one is chosen for a little less evenly.
const CELLS: usize = 1024;

/// The golden section of 2^64: its multiples fill the circle more evenly than those of
/// any other number, whichever of them one looks at.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Points on a circle of 2^64, for each site's messages evenly spread.
#[derive(Debug)]
pub(super) struct Turns(Box<[AtomicU64]>);

impl Turns {
    pub(super) fn new(random: &Random) -> Self {
        Self((0..CELLS).map(|_| AtomicU64::new(random.u64())).collect())
    }

    /// The next point for what is chosen for `key`.
    pub(super) fn next(&self, key: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let cell = usize::try_from(hasher.finish() % CELLS as u64).unwrap_or(0);
        self.0[cell].fetch_add(STEP, Ordering::Relaxed)
    }
}

/// Lays the weights around the circle: whose part `point` falls into, and how far into it,
/// of 2^64. `None` when nothing has weight.
pub(super) fn at(weights: impl Iterator<Item = u32> + Clone, point: u64) -> Option<(usize, u64)> {
    let total: u128 = weights.clone().map(u128::from).sum();
    // In parts of 2^64 of a weight of one.
    let mut offset = u128::from(point) * total;
    for (index, weight) in weights.enumerate() {
        let part = u128::from(weight) << 64;
        if offset < part {
            // Below 2^64, since the offset is below the weight times that.
            let share = u64::try_from(offset / u128::from(weight)).unwrap_or(u64::MAX);
            return Some((index, share));
        }
        offset -= part;
    }
    None
}

/// Whether so many percent of a part reach as far as `share`.
pub(super) fn reaches(percent: u8, share: u64) -> bool {
    u128::from(share) * 100 < u128::from(percent) << 64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How often each was chosen in so many turns.
    fn tally(turns: &Turns, weights: &[u32], count: usize) -> Vec<usize> {
        let mut tally = vec![0; weights.len()];
        for _ in 0..count {
            tally[at(weights.iter().copied(), turns.next("pool")).unwrap().0] += 1;
        }
        tally
    }

    #[test]
    fn three_to_one_after_four_already() {
        let turns = Turns::new(&Random::seeded(3));
        for _ in 0..10 {
            let tally = tally(&turns, &[3, 1], 8);
            assert!((5..=7).contains(&tally[0]), "{tally:?}");
        }
    }

    #[test]
    fn nobody_without_weight_is_chosen() {
        let turns = Turns::new(&Random::seeded(1));
        assert_eq!(tally(&turns, &[0, 5, 0], 100), [0, 100, 0]);
        assert_eq!(at([0, 0].into_iter(), 7), None);
        assert_eq!(at([].into_iter(), 7), None);
        assert_eq!(at([u32::MAX; 3].into_iter(), u64::MAX).unwrap().0, 2);
    }

    #[test]
    fn two_sites_in_turn_do_not_get_an_address_each() {
        let turns = Turns::new(&Random::seeded(5));
        for key in ["a", "b"] {
            let mut first = 0;
            for _ in 0..100 {
                first += usize::from(at([1, 1].into_iter(), turns.next(key)).unwrap().0 == 0);
                let _ = turns.next(if key == "a" { "b" } else { "a" });
            }
            assert!((40..=60).contains(&first), "{key}: {first}");
        }
    }

    #[test]
    fn percents_are_of_the_part() {
        assert!(reaches(100, u64::MAX) && reaches(1, 0) && !reaches(0, 0));
        assert!(reaches(50, u64::MAX / 2) && !reaches(50, u64::MAX / 2 + 2));
    }

    proptest! {
        #[test]
        fn shares_converge_to_the_weights(seed: u64, weights in prop::collection::vec(0u32..=1_000, 1..20)) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let turns = Turns::new(&Random::seeded(seed));
            let count = 2_000;
            let tally = tally(&turns, &weights, count);
            for (weight, times) in weights.iter().zip(tally) {
                let fair = f64::from(*weight) / f64::from(total) * count as f64;
                prop_assert!((times as f64 - fair).abs() <= 8.0, "{times} instead of {fair}");
            }
        }

        #[test]
        fn the_way_into_a_part_is_even_too(seed: u64, percent in 1u8..=99) {
            let turns = Turns::new(&Random::seeded(seed));
            let count = 3_000;
            let mut inside = 0_i32;
            for _ in 0..count {
                let (index, share) = at([1, 2].into_iter(), turns.next("pool")).unwrap();
                inside += i32::from(index == 1 && reaches(percent, share));
            }
            let fair = 2_000 * i32::from(percent) / 100;
            prop_assert!((inside - fair).abs() <= 16, "{inside} instead of {fair}");
        }
    }
}
