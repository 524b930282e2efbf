//! How fast mail comes: so many recipients a second over a while, with bursts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// In the nanoseconds that everything here is told in.
const SECOND: u64 = 1_000_000_000;

/// A bucket that holds the recipients of one second and fills up again within one, in a single
/// number: when it will be full. So in any time of `t` seconds at most `rate * (t + 1)`
/// recipients are let through, and less than `rate` nanoseconds' worth more: what one recipient
/// takes is rounded up, and the bucket with it.
///
/// A message with more recipients than that waits for a full bucket, and those after it until
/// the debt is worked off: the average holds, and nobody is refused for good.
#[derive(Debug, Default)]
pub(super) struct Pace {
    full_at: AtomicU64,
    /// The rate that `full_at` was told by; 0 before the first.
    per_second: AtomicU32,
}

/// When the bucket would have been full, and when it will be with what was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    before: u64,
    after: u64,
}

impl Pace {
    /// Takes so many, if the bucket has them. `now` is of a clock that never goes back.
    pub(super) fn take(&self, recipients: u32, per_second: u32, now: u64) -> Option<Taken> {
        if per_second == 0 {
            return (recipients == 0).then(Taken::default);
        }
        self.told_by(per_second, now);
        let rate = u64::from(per_second);
        // At most 4.3e18, which fits.
        let cost = (u64::from(recipients) * SECOND).div_ceil(rate);
        // A second, and as much as is rounded when they come one by one: the last one is not
        // refused for that.
        let bucket = SECOND.div_ceil(rate) * rate;
        let take = |full_at: u64| {
            let after = full_at.max(now).saturating_add(cost);
            (full_at <= now || after <= now.saturating_add(bucket)).then_some(after)
        };
        let before = self.full_at.try_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        take(before).map(|after| Taken { before, after })
    }

    /// Makes it as if that had not been taken, unless something was taken since: what has been
    /// worked off between the two is not known then.
    pub(super) fn give_back(&self, taken: Taken) {
        let Taken { before, after } = taken;
        let _ = self.full_at.compare_exchange(after, before, Ordering::AcqRel, Ordering::Acquire);
    }

    /// A debt is worked off at the new rate where that is higher: it would keep off for as long
    /// as the old one asked for. Who still comes with the old rate meanwhile does no harm.
    fn told_by(&self, per_second: u32, now: u64) {
        if self.per_second.load(Ordering::Acquire) == per_second {
            return;
        }
        let before = self.per_second.swap(per_second, Ordering::AcqRel);
        if before == 0 || before >= per_second {
            return;
        }
        let faster = |full_at: u64| {
            let debt = u128::from(full_at.checked_sub(now)?) * u128::from(before) / u128::from(per_second);
            // Less than the debt was, so it fits.
            Some(now + u64::try_from(debt).unwrap_or(u64::MAX - now))
        };
        // Without a debt there is nothing to change.
        let _ = self.full_at.try_update(Ordering::AcqRel, Ordering::Acquire, faster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: u64) -> u64 {
        millis * 1_000_000
    }

    fn takes(pace: &Pace, recipients: u32, per_second: u32, now: u64) -> bool {
        pace.take(recipients, per_second, now).is_some()
    }

    #[test]
    fn a_second_s_worth_at_once_and_then_the_rate() {
        let pace = Pace::default();
        let taken = (0..100).filter(|_| takes(&pace, 1, 10, ms(5_000))).count();
        assert_eq!(taken, 10);
        let taken: Vec<u64> = (5_000..7_000).filter(|at| takes(&pace, 1, 10, ms(*at))).collect();
        assert_eq!(taken, (51..70).map(|tenth| tenth * 100).collect::<Vec<_>>());
    }

    #[test]
    fn a_second_s_worth_is_all_of_it_where_a_recipient_s_time_is_no_whole_number() {
        for rate in (1..200).chain([14, 999, 7_777, 60_001]) {
            let pace = Pace::default();
            let taken = (0..rate + 10).filter(|_| takes(&pace, 1, rate, ms(5_000))).count();
            assert_eq!(taken, rate as usize);
        }
    }

    #[test]
    fn more_than_a_second_s_worth_waits_for_a_full_bucket_and_is_worked_off() {
        let pace = Pace::default();
        assert!(takes(&pace, 1, 10, ms(0)));
        assert!(!takes(&pace, 50, 10, ms(99)), "the bucket is not full");
        assert!(takes(&pace, 50, 10, ms(100)));
        assert!(!takes(&pace, 1, 10, ms(4_100 + 99)), "in debt");
        assert!(takes(&pace, 1, 10, ms(4_100 + 100)));
    }

    #[test]
    fn a_debt_is_worked_off_at_a_raised_rate() {
        let pace = Pace::default();
        assert!(takes(&pace, 50, 1, ms(1_000)), "a debt of 50 seconds");
        assert!(!takes(&pace, 1, 1, ms(1_000)));
        assert!(takes(&pace, 950, 1_000, ms(1_000)), "it is one of 50 ms now");
        assert!(!takes(&pace, 1, 1_000, ms(1_000)), "the new rate holds");
        assert!(takes(&pace, 1, 1_000, ms(1_001)));
        assert!(takes(&pace, 8, 10, ms(1_900)) && !takes(&pace, 1, 10, ms(1_900)), "a lowered one makes no debt");
    }

    #[test]
    fn what_is_given_back_was_never_taken() {
        let pace = Pace::default();
        assert!(takes(&pace, 3, 10, ms(1_000)));
        let taken = pace.take(7, 10, ms(1_000)).unwrap();
        assert!(!takes(&pace, 1, 10, ms(1_000)));
        pace.give_back(taken);
        assert!(takes(&pace, 6, 10, ms(1_000)), "as before");
        let taken = pace.take(1, 10, ms(1_000)).unwrap();
        assert!(takes(&pace, 4, 10, ms(1_400)));
        pace.give_back(taken);
        assert!(!takes(&pace, 10, 10, ms(1_400)), "somebody else has taken since");
        pace.give_back(Taken::default());
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_through() {
        assert!(!takes(&Pace::default(), 1, 0, ms(1_000)));
    }

    proptest! {
        #[test]
        fn in_any_time_there_is_at_most_the_rate_and_one_second_more(
            rate in 1u32..40,
            steps in proptest::collection::vec((0u64..400, 1u32..40), 1..200),
        ) {
            let pace = Pace::default();
            let (mut now, mut sent) = (0, Vec::new());
            for (step, recipients) in steps {
                now += ms(step);
                let recipients = recipients.min(rate);
                if takes(&pace, recipients, rate, now) {
                    sent.push((now, u64::from(recipients)));
                }
            }
            for (first, (from, _)) in sent.iter().enumerate() {
                let mut sum = 0;
                for (until, recipients) in &sent[first..] {
                    sum += recipients;
                    prop_assert!(sum * SECOND <= u64::from(rate) * (until - from + SECOND));
                }
            }
        }
    }
}
