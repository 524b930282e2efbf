//! Randomness, injectable.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, RngExt, SeedableRng};

/// A source of random numbers, fit for secrets when made by
/// [`Random::system`]. A cheap handle; clones draw from one stream.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// Seeded by the operating system.
    ///
    /// # Panics
    /// When the operating system has no random source.
    pub fn system() -> Self {
        let generator = StdRng::try_from_rng(&mut SysRng).expect("the operating system has a random source");
        Self(Arc::new(Mutex::new(generator)))
    }

    /// The same numbers for the same seed: for simulation, never for secrets.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }

    /// Any `u64`.
    pub fn u64(&self) -> u64 {
        self.0.lock().random()
    }

    /// Any `u128`.
    pub fn u128(&self) -> u128 {
        self.0.lock().random()
    }

    /// A number in `0..bound`, evenly; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            _ => self.0.lock().random_range(0..bound),
        }
    }

    /// A version 4 UUID (RFC 9562 section 5.4) as a number, most significant
    /// byte first.
    pub fn uuid_v4(&self) -> u128 {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        self.u128() & !(VERSION | VARIANT) | (4 << 76) | (0b10 << 62)
    }

    /// `length` characters out of `A`-`Z` and `0`-`9`, evenly.
    pub fn alphanumeric(&self, length: usize) -> String {
        const ALPHABET: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let mut generator = self.0.lock();
        (0..length).map(|_| char::from(ALPHABET[generator.random_range(0..ALPHABET.len())])).collect()
    }

    /// `duration` made longer or shorter by at most `percent` (0 to 100) of
    /// itself.
    pub fn jitter(&self, duration: Duration, percent: u8) -> Duration {
        let share = f64::from(percent.min(100)) / 100.0;
        if share == 0.0 {
            return duration;
        }
        let factor = 1.0 + self.0.lock().random_range(-share..=share);
        Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let draw = |seed| {
            let random = Random::seeded(seed);
            (random.u64(), random.u128(), random.alphanumeric(20))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(Random::system().u128(), Random::system().u128());
    }

    #[test]
    fn uuids_carry_version_and_variant() {
        let random = Random::seeded(1);
        for _ in 0..100 {
            let uuid = random.uuid_v4();
            assert_eq!(uuid >> 76 & 0xf, 4);
            assert_eq!(uuid >> 62 & 0b11, 0b10);
        }
    }

    #[test]
    fn bounds_hold() {
        let random = Random::seeded(2);
        assert_eq!(random.below(0), 0);
        let hour = Duration::from_secs(3600);
        assert_eq!(random.jitter(hour, 0), hour);
        assert_eq!(random.jitter(Duration::MAX, 10).min(hour), hour);
        for _ in 0..1000 {
            assert!(random.below(3) < 3);
            let around = random.jitter(hour, 10);
            assert!(around >= hour * 9 / 10 && around <= hour * 11 / 10);
        }
        let name = random.alphanumeric(20);
        assert!(name.len() == 20 && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
    }
}
