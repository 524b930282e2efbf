//! How much memory the content of messages takes while it is being received.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postrider_base::metrics::Gauge;

/// Octets are taken in steps, so that a message of usual size asks once.
const STEP: u64 = 64 * 1024;

/// The octets of all messages that are under way, from their first one until
/// the spool has them.
#[derive(Debug, Clone)]
pub(crate) struct ContentMemory {
    held: Arc<AtomicU64>,
    gauge: Gauge,
}

/// What one connection holds of it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    all: ContentMemory,
    octets: u64,
}

impl ContentMemory {
    /// Nothing held; `gauge` shows it.
    pub(crate) fn new(gauge: Gauge) -> ContentMemory {
        ContentMemory { held: Arc::default(), gauge }
    }

    /// A connection's share, empty.
    pub(crate) fn share(&self) -> Share {
        Share { all: self.clone(), octets: 0 }
    }

    /// Takes so many octets, unless that is over the bound.
    fn take(&self, octets: u64, bound: u64) -> bool {
        let before = self.held.fetch_add(octets, Ordering::Relaxed);
        if before.saturating_add(octets) > bound {
            self.held.fetch_sub(octets, Ordering::Relaxed);
            return false;
        }
        self.show();
        true
    }

    fn give_back(&self, octets: u64) {
        self.held.fetch_sub(octets, Ordering::Relaxed);
        self.show();
    }

    fn show(&self) {
        self.gauge.set(i64::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    }
}

impl Share {
    /// Makes the share cover so many octets; false, and the share as it was,
    /// when all shares together would be over `bound`.
    pub(crate) fn cover(&mut self, octets: u64, bound: u64) -> bool {
        if octets <= self.octets {
            return true;
        }
        let more = (octets - self.octets).next_multiple_of(STEP);
        let taken = self.all.take(more, bound);
        self.octets += if taken { more } else { 0 };
        taken
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        if self.octets > 0 {
            self.all.give_back(self.octets);
            self.octets = 0;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use postrider_base::Metrics;

    use super::*;

    #[test]
    fn shares_add_up_to_the_bound_and_no_further() {
        let metrics = Metrics::new();
        let memory = ContentMemory::new(metrics.content_memory.clone());
        let held = || metrics.content_memory.get().cast_unsigned();
        let (mut one, mut other) = (memory.share(), memory.share());
        assert!(one.cover(1, 3 * STEP) && one.cover(STEP, 3 * STEP));
        assert_eq!(held(), STEP);
        assert!(other.cover(2 * STEP, 3 * STEP));
        assert!(!one.cover(STEP + 1, 3 * STEP), "over the bound");
        assert!(one.cover(STEP, 3 * STEP), "what is covered stays so");
        other.release();
        assert!(one.cover(STEP + 1, 3 * STEP));
        drop((one, other));
        assert_eq!(held(), 0);
    }
}
