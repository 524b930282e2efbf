//! A token bucket: no more than a rate in the long run, no more than its burst
//! at once.

use std::time::Duration;

use super::rate::Rate;

/// The state of one bucket, in exact arithmetic: in any span of time no more
/// than `rate x time + burst` tokens are given, and whoever waits as long as he
/// is told gets one.
///
/// The generic cell rate algorithm: not the tokens are kept but the time at
/// which the bucket will be full.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// When it will be full, in nanoseconds times `scale`, so that the time
    /// between two tokens is a whole number.
    full_at: u128,
    /// The messages of the rate that `full_at` was counted by.
    scale: u64,
}

impl Bucket {
    /// Takes a token, or says how long it takes until there is one. `now` is
    /// counted from any fixed moment.
    pub(crate) fn take(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        self.rescale(rate);
        let scale = u128::from(rate.messages());
        let token = u128::from(rate.nanos());
        let now = now.as_nanos() * scale;
        // Empty is a burst's time away from full.
        let full_at = self.full_at.clamp(now, now + token * u128::from(rate.burst()));
        let earliest = (full_at + token).saturating_sub(token * u128::from(rate.burst()));
        if earliest > now {
            let nanos = (earliest - now).div_ceil(scale);
            return Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        }
        self.full_at = full_at + token;
        Ok(())
    }

    /// Takes a token back that was not used.
    pub(crate) fn give_back(&mut self, rate: Rate) {
        self.rescale(rate);
        self.full_at = self.full_at.saturating_sub(u128::from(rate.nanos()));
    }

    /// Tokens that are there.
    pub(crate) fn tokens(mut self, rate: Rate, now: Duration) -> u64 {
        self.rescale(rate);
        let missing = self.full_at.saturating_sub(now.as_nanos() * u128::from(rate.messages()));
        let missing = missing.div_ceil(u128::from(rate.nanos()));
        rate.burst().saturating_sub(u64::try_from(missing).unwrap_or(u64::MAX))
    }

    /// Takes over the time from another rate, rounded so that no token is won.
    fn rescale(&mut self, rate: Rate) {
        if self.scale != rate.messages() {
            self.full_at = self.full_at.div_ceil(u128::from(self.scale.max(1))) * u128::from(rate.messages());
            self.scale = rate.messages();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_rate() -> impl Strategy<Value = Rate> {
        (1u64..300, 1u64..400)
            .prop_map(|(messages, seconds)| Rate::new(messages, Duration::from_secs(seconds)).unwrap())
    }

    /// What `rate` allows in `time`, rounded down.
    fn allowed(rate: Rate, time: Duration) -> u128 {
        time.as_nanos() * u128::from(rate.messages()) / u128::from(rate.nanos())
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_the_burst(rate in any_rate(), steps in prop::collection::vec(0u64..3_000_000_000, 1..60)) {
            let mut bucket = Bucket::default();
            let mut now = Duration::from_secs(5);
            let mut given = Vec::new();
            for step in steps {
                now += Duration::from_nanos(step);
                while bucket.take(rate, now).is_ok() {
                    given.push(now);
                }
            }
            for (first, start) in given.iter().enumerate() {
                for (last, end) in given.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u128;
                    prop_assert!(count <= allowed(rate, *end - *start) + u128::from(rate.burst()));
                }
            }
        }

        #[test]
        fn who_waits_as_told_gets_a_token_and_the_rate_is_kept(rate in any_rate()) {
            let mut bucket = Bucket::default();
            let mut now = Duration::ZERO;
            let rounds = 500u64;
            for _ in 0..rounds {
                if let Err(wait) = bucket.take(rate, now) {
                    prop_assert!(!wait.is_zero());
                    prop_assert!(bucket.take(rate, now + wait - Duration::from_nanos(1)).is_err(), "no sooner");
                    now += wait;
                    prop_assert!(bucket.take(rate, now).is_ok(), "told {wait:?}");
                }
            }
            // Nothing is lost to rounding over a long time.
            let exact = u128::from(rounds - rate.burst().min(rounds)) * u128::from(rate.nanos()) / u128::from(rate.messages());
            prop_assert!(now.as_nanos() <= exact + u128::from(rounds), "{} for {exact}", now.as_nanos());
        }

        #[test]
        fn a_change_of_the_rate_fills_nothing_beyond_the_burst(rates in prop::collection::vec(any_rate(), 2..20)) {
            let mut bucket = Bucket::default();
            let now = Duration::from_secs(7);
            for rate in rates {
                let mut given = 0;
                while bucket.take(rate, now).is_ok() {
                    given += 1;
                }
                prop_assert!(given <= rate.burst());
                prop_assert_eq!(bucket.tokens(rate, now), 0);
                let wait = bucket.take(rate, now).unwrap_err();
                let token = Duration::from_nanos(rate.nanos().div_ceil(rate.messages()));
                prop_assert!(wait <= token, "nobody waits by an old rate: {wait:?}");
            }
        }
    }

    #[test]
    fn a_token_that_is_given_back_is_there_again_and_no_more_than_that() {
        let rate: Rate = "6/m".parse().unwrap();
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(1);
        assert_eq!(bucket.take(rate, now), Ok(()));
        bucket.give_back(rate);
        assert_eq!(bucket.take(rate, now), Ok(()));
        assert_eq!(bucket.take(rate, now), Err(Duration::from_secs(10)));
        // Back after it has filled up by itself.
        bucket.give_back(rate);
        let later = now + Duration::from_hours(1);
        assert_eq!(bucket.take(rate, later), Ok(()));
        assert_eq!(bucket.take(rate, later), Err(Duration::from_secs(10)));
    }

    #[test]
    fn a_bucket_fills_up_to_its_burst() {
        let rate: Rate = "10/s".parse().unwrap();
        let mut bucket = Bucket::default();
        let start = Duration::from_secs(1);
        assert_eq!(bucket.tokens(rate, start), 10);
        for _ in 0..10 {
            assert_eq!(bucket.take(rate, start), Ok(()));
        }
        assert_eq!(bucket.take(rate, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.tokens(rate, start + Duration::from_millis(250)), 2);
        assert_eq!(bucket.tokens(rate, start + Duration::from_hours(1)), 10);
    }
}
