//! When a deferred recipient is tried again.

use std::time::Duration;

use postrider_base::{Period, Random, Timestamp};

use crate::settings::Settings;

/// The waits between attempts. The last one repeats; the end of a message's
/// life is in the message, not here.
#[derive(Clone, Debug)]
pub(crate) struct RetrySchedule {
    waits: Vec<Duration>,
    jitter_percent: u8,
}

impl RetrySchedule {
    /// The schedule of `settings`, which are validated: it has a wait.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            waits: settings.retry.iter().map(|wait| wait.as_duration()).collect(),
            jitter_percent: settings.retry_jitter_percent,
        }
    }

    /// When the recipient whose `attempt`-th attempt (counted from 1) has just
    /// ended is tried again: after the wait of `own`, or else of the schedule, but
    /// once more at the latest when the message expires. A host that has `asked`
    /// for a time gets at least that. `None` when it has expired already.
    pub(crate) fn next(
        &self,
        attempt: u32,
        now: Timestamp,
        expires_at: Timestamp,
        random: &Random,
        own: Option<&[Period]>,
        asked: Option<Duration>,
    ) -> Option<Timestamp> {
        if now >= expires_at {
            return None;
        }
        let index = attempt.saturating_sub(1) as usize;
        let own = own.and_then(|own| own.get(index).or(own.last())).map(|wait| wait.as_duration());
        let wait = own.or_else(|| self.waits.get(index).or(self.waits.last()).copied()).unwrap_or_default();
        let wait = match asked {
            // Never sooner than it wants.
            Some(asked) => asked + asked.abs_diff(random.jitter(asked, self.jitter_percent)),
            None => random.jitter(wait, self.jitter_percent),
        };
        Some(now.saturating_add(wait).min(expires_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn waits_grow_and_the_last_repeats_within_ten_percent() {
        let schedule = RetrySchedule::new(&Settings::default());
        let random = Random::seeded(1);
        let start = Timestamp::from_millis(1_000_000);
        let end = Timestamp::from_millis(u64::MAX / 2);
        let minutes = [2, 5, 10, 20, 40, 60, 120, 240, 240, 240];
        for (attempt, minutes) in (1..).zip(minutes) {
            let next = schedule.next(attempt, start, end, &random, None, None).unwrap();
            let wait = next.as_millis() - start.as_millis();
            let exact = minutes * MINUTE;
            assert!(wait >= exact * 9 / 10 && wait <= exact * 11 / 10, "attempt {attempt}: {wait} ms");
        }
    }

    #[test]
    fn the_last_attempt_is_at_expiry_and_none_follows() {
        let schedule = RetrySchedule::new(&Settings::default());
        let random = Random::seeded(1);
        let end = Timestamp::from_millis(10 * MINUTE);
        let next = |now| schedule.next(9, Timestamp::from_millis(now), end, &random, None, None);
        assert_eq!(next(9 * MINUTE), Some(end));
        assert_eq!(next(10 * MINUTE), None);
        assert_eq!(next(11 * MINUTE), None);
    }

    #[test]
    fn waits_of_its_own_and_what_a_host_asks_for_come_first() {
        let schedule = RetrySchedule::new(&Settings { retry_jitter_percent: 10, ..Settings::default() });
        let random = Random::seeded(1);
        let (start, end) = (Timestamp::from_millis(0), Timestamp::from_millis(u64::MAX / 2));
        let own = [Period::from_mins(1), Period::from_mins(3)];
        let next = |attempt, asked| {
            let next = schedule.next(attempt, start, end, &random, Some(&own), asked).unwrap();
            next.as_millis() as f64 / MINUTE as f64
        };
        assert!((0.9..=1.1).contains(&next(1, None)));
        assert!((2.7..=3.3).contains(&next(2, None)) && (2.7..=3.3).contains(&next(9, None)));
        for attempt in 1..20 {
            let waited = next(attempt, Some(Duration::from_secs(600)));
            assert!((10.0..=11.0).contains(&waited), "{waited}");
        }
    }
}
