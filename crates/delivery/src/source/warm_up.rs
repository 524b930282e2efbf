//! How far a new address is warmed up, and what it may send meanwhile.
//!
//! The percentage rises with time alone, in a straight line. It says how much of its
//! fair share of mail an address gets; what is left goes to others. The daily plan
//! bounds, beside that, how many messages one site sees from it.

use std::collections::HashMap;
use std::time::Duration;

use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

use super::settings::WarmUpSettings;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Sites whose messages of the day are counted, for each source. Beyond, sites are not
/// bounded: with so many, none is sent much.
const MOST_SITES: usize = 10_000;
/// Of those, the busiest are written down.
const KEPT_SITES: usize = 500;
/// Longest name of a site that is written down whole.
const KEPT_NAME: usize = 100;

/// The day in UTC, counted from 1970.
pub(super) fn day(at: Timestamp) -> u32 {
    u32::try_from(at.as_millis() / 86_400_000).unwrap_or(u32::MAX)
}

/// When the day after `at` begins, in UTC.
pub(super) fn next_day(at: Timestamp) -> Timestamp {
    Timestamp::from_millis((u64::from(day(at)) + 1) * 86_400_000)
}

/// Since when an address is warmed up, and how far it was then.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct WarmUp {
    pub(super) since: Timestamp,
    /// In percent, at most 100.
    pub(super) from: u8,
}

impl WarmUp {
    /// The present percentage: 1 to 99, or 100 when it is over.
    pub(super) fn percent(self, now: Timestamp, settings: &WarmUpSettings) -> u8 {
        let (passed, whole) = (self.passed(now, settings).as_millis(), whole(settings).as_millis());
        if passed >= whole {
            return 100;
        }
        u8::try_from(passed * 100 / whole).map_or(100, |percent| percent.max(1))
    }

    /// When it is over, or was.
    pub(super) fn ends(self, settings: &WarmUpSettings) -> Timestamp {
        let before = whole(settings) * u32::from(self.from.min(100)) / 100;
        self.since.saturating_add(whole(settings) - before)
    }

    /// Most messages to one site today; `None` for no bound.
    pub(super) fn daily(self, now: Timestamp, settings: &WarmUpSettings) -> Option<u32> {
        let days = self.passed(now, settings).as_secs() / DAY.as_secs();
        let days = usize::try_from(days).unwrap_or(usize::MAX);
        settings.daily.get(days).or(settings.daily.last()).copied()
    }

    /// How much of the whole time is behind it: one that began at 50 percent has half of
    /// it behind it from the start.
    fn passed(self, now: Timestamp, settings: &WarmUpSettings) -> Duration {
        let before = whole(settings) * u32::from(self.from.min(100)) / 100;
        before + now.saturating_since(self.since)
    }
}

fn whole(settings: &WarmUpSettings) -> Duration {
    DAY * u32::from(settings.days.max(1))
}

/// How many messages each site has had today.
#[derive(Clone, Debug, Default)]
pub(super) struct Today {
    day: u32,
    sites: HashMap<Box<str>, u32>,
}

impl Today {
    /// Counts one message to `site`, unless it has had `limit`. Says whether it was
    /// counted, or need not be.
    pub(super) fn take(&mut self, site: &str, now: Timestamp, limit: Option<u32>) -> bool {
        let today = day(now);
        if today != self.day {
            (self.day, self.sites) = (today, HashMap::new());
        }
        match self.sites.get_mut(site) {
            Some(count) if limit.is_some_and(|limit| *count >= limit) => false,
            Some(count) => {
                *count = count.saturating_add(1);
                true
            }
            None => {
                if self.sites.len() < MOST_SITES {
                    self.sites.insert(site.into(), 1);
                }
                true
            }
        }
    }

    /// Takes a count of that day back.
    pub(super) fn give_back(&mut self, site: &str, of: u32) {
        if of == self.day
            && let Some(count) = self.sites.get_mut(site)
        {
            *count = count.saturating_sub(1);
        }
    }

    /// The sites of the day, the busiest first.
    pub(super) fn sites(&self, now: Timestamp) -> Vec<(String, u32)> {
        if self.day != day(now) {
            return Vec::new();
        }
        let mut sites: Vec<_> = self.sites.iter().map(|(site, count)| (site.to_string(), *count)).collect();
        sites.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sites
    }

    /// What of it is written down: the day, and the busiest of the sites whose names are
    /// not too long.
    pub(super) fn kept(&self) -> (u32, Vec<(String, u32)>) {
        let mut sites: Vec<_> = self.sites.iter().filter(|(site, _)| site.len() <= KEPT_NAME).collect();
        sites.sort_unstable_by(|a, b| b.1.cmp(a.1));
        sites.truncate(KEPT_SITES);
        (self.day, sites.into_iter().map(|(site, count)| (site.to_string(), *count)).collect())
    }

    /// What was written down.
    pub(super) fn of(day: u32, sites: Vec<(String, u32)>) -> Self {
        Self { day, sites: sites.into_iter().map(|(site, count)| (site.into_boxed_str(), count)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn after(hours: u64) -> Timestamp {
        START.saturating_add(Duration::from_secs(hours * 3600))
    }

    #[test]
    fn forty_five_days_in_a_straight_line() {
        let settings = WarmUpSettings::default();
        let warm_up = WarmUp { since: START, from: 0 };
        let percents: Vec<_> =
            [0, 9, 18, 27, 36, 44, 45, 90].map(|day| warm_up.percent(after(24 * day), &settings)).into();
        assert_eq!(percents, [1, 20, 40, 60, 80, 97, 100, 100]);
        assert_eq!(warm_up.ends(&settings), after(45 * 24));
        let restarted = WarmUp { since: START, from: 60 };
        assert_eq!(restarted.percent(after(9 * 24), &settings), 80);
        assert_eq!(restarted.ends(&settings), after(18 * 24));
        assert_eq!(WarmUp { since: START, from: 100 }.percent(START, &settings), 100);
        assert_eq!(warm_up.percent(Timestamp::from_millis(0), &settings), 1, "the clock was set back");
    }

    #[test]
    fn the_plan_goes_with_the_percentage() {
        let settings = WarmUpSettings { daily: vec![10, 20, 40], days: 4, ..WarmUpSettings::default() };
        let warm_up = WarmUp { since: START, from: 0 };
        let daily: Vec<_> = [0, 23, 24, 48, 72].map(|hours| warm_up.daily(after(hours), &settings).unwrap()).into();
        assert_eq!(daily, [10, 10, 20, 40, 40]);
        assert_eq!(WarmUp { since: START, from: 50 }.daily(START, &settings), Some(40));
        assert_eq!(warm_up.daily(START, &WarmUpSettings { daily: vec![], ..settings }), None);
    }

    #[test]
    fn a_new_day_begins_at_midnight() {
        let mut today = Today::default();
        let last = Timestamp::parse_rfc3339("2026-03-01T23:59:59.999Z").unwrap();
        let midnight = next_day(last);
        assert_eq!(midnight.rfc3339(), "2026-03-02T00:00:00.000Z");
        assert_eq!(next_day(midnight).rfc3339(), "2026-03-03T00:00:00.000Z");
        assert!(today.take("mx.example", last, Some(2)) && today.take("mx.example", last, Some(2)));
        assert!(!today.take("mx.example", last, Some(2)) && today.take("mx.example.net", last, Some(2)));
        assert_eq!(today.sites(last), [("mx.example".to_owned(), 2), ("mx.example.net".to_owned(), 1)]);
        today.give_back("mx.example", day(last));
        assert!(today.take("mx.example", last, Some(2)), "one was given back");
        assert!(today.take("mx.example", midnight, Some(2)));
        today.give_back("mx.example", day(last));
        assert_eq!(today.sites(midnight), [("mx.example".to_owned(), 1)]);
    }

    #[test]
    fn what_is_written_down_is_bounded_and_comes_back() {
        let mut today = Today::default();
        for site in 0..MOST_SITES + 10 {
            assert!(today.take(&format!("mx{site}"), START, Some(1)));
        }
        assert!(today.take("mx3", START, Some(2)) && today.take(&"long".repeat(30), START, Some(2)));
        let (day, sites) = today.kept();
        assert_eq!((sites.len(), &sites[0]), (KEPT_SITES, &("mx3".to_owned(), 2)));
        let mut again = Today::of(day, sites);
        assert!(!again.take("mx3", START, Some(2)));
    }

    proptest! {
        #[test]
        fn nothing_ever_shrinks(from in 0u8..=100, days in 1u16..=365, a in 0u64..10_000, b in 0u64..10_000) {
            let settings = WarmUpSettings { days, ..WarmUpSettings::default() };
            let warm_up = WarmUp { since: START, from };
            let (earlier, later) = (after(a.min(b)), after(a.max(b)));
            prop_assert!(warm_up.percent(earlier, &settings) <= warm_up.percent(later, &settings));
            prop_assert!(warm_up.daily(earlier, &settings) <= warm_up.daily(later, &settings));
            let over = warm_up.percent(later, &settings) == 100;
            prop_assert_eq!(over, later >= warm_up.ends(&settings));
        }
    }
}
