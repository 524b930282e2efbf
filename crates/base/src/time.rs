//! Points in time and the clock that tells them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A point in time: whole milliseconds since 1970-01-01T00:00:00Z.
///
/// Serialized as that number. Years up to 9999 print; later ones print as the
/// last moment of 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment plus `duration`, ending at the largest representable one.
    /// Fractions of a millisecond are dropped.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_millis(duration)))
    }

    /// This moment minus `duration`, ending at the epoch.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(whole_millis(duration)))
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC with milliseconds: `2017-08-05T00:41:02.669Z`.
    pub fn rfc3339(self) -> String {
        self.to_string()
    }

    /// RFC 5322 section 3.3 `date-time` in UTC: `Sat, 05 Aug 2017 00:41:02 +0000`.
    pub fn rfc5322(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let c = self.civil();
        format!(
            "{}, {:02} {} {:04} {:02}:{:02}:{:02} +0000",
            DAYS[c.days_since_epoch % 7],
            c.day,
            MONTHS[c.month - 1],
            c.year,
            c.hour,
            c.minute,
            c.second,
        )
    }

    /// Reads an RFC 3339 time with any offset; `None` when it is not one or
    /// lies before 1970. Fractions below a millisecond are dropped.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let parsed: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(parsed.as_millisecond()).ok().map(Self)
    }

    /// Splits into calendar fields (UTC, Gregorian).
    fn civil(self) -> Civil {
        const LAST: u64 = 253_402_300_799_999;
        let millis = usize::try_from(self.0.min(LAST)).unwrap_or(usize::MAX);
        let (days, of_day) = (millis / 86_400_000, millis % 86_400_000);
        // Counted from 0000-03-01, so that the leap day ends a year.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = (march_month + 2) % 12 + 1;
        Civil {
            days_since_epoch: days,
            year: year_of_era + era * 400 + usize::from(month <= 2),
            month,
            day: of_year - (153 * march_month + 2) / 5 + 1,
            hour: of_day / 3_600_000,
            minute: of_day / 60_000 % 60,
            second: of_day / 1000 % 60,
            millisecond: of_day % 1000,
        }
    }
}

struct Civil {
    days_since_epoch: usize,
    year: usize,
    month: usize,
    day: usize,
    hour: usize,
    minute: usize,
    second: usize,
    millisecond: usize,
}

impl fmt::Display for Timestamp {
    /// As [`Timestamp::rfc3339`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.civil();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            c.year, c.month, c.day, c.hour, c.minute, c.second, c.millisecond,
        )
    }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Tells the time. A cheap handle; clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    Ahead(Arc<AtomicU64>),
    Simulated { start: Timestamp, origin: Instant },
}

impl Clock {
    /// The machine's clock. It may step when an operator sets it.
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// The machine's clock and so many milliseconds more, which may grow at any
    /// time: days pass in minutes while threads and files are real. Who sleeps
    /// until a point in time is not woken when it grows.
    pub fn ahead(millis: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Source::Ahead(millis)))
    }

    /// Tells `start` now and moves with tokio's clock, which tests pause and
    /// advance. Under a paused clock ask it only from the runtime's own
    /// threads: others see real time.
    pub fn simulated(start: Timestamp) -> Self {
        Self(Arc::new(Source::Simulated { start, origin: tokio_now() }))
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System => system_now(),
            Source::Ahead(millis) => system_now().saturating_add(Duration::from_millis(millis.load(Ordering::Relaxed))),
            Source::Simulated { start, origin } => start.saturating_add(tokio_now().saturating_duration_since(*origin)),
        }
    }

    /// The monotonic time, for measuring and for deadlines of tokio's timers.
    pub fn instant(&self) -> Instant {
        tokio_now()
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads tokio's clock")]
fn tokio_now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clock")]
fn system_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::default().saturating_add(since.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: Timestamp = Timestamp::from_millis(1_501_893_662_669);

    #[test]
    fn prints_the_two_forms() {
        assert_eq!(SAMPLE.rfc3339(), "2017-08-05T00:41:02.669Z");
        assert_eq!(SAMPLE.rfc5322(), "Sat, 05 Aug 2017 00:41:02 +0000");
        assert_eq!(Timestamp::default().rfc3339(), "1970-01-01T00:00:00.000Z");
        assert!(Timestamp::from_millis(u64::MAX).rfc3339().starts_with("9999"));
        assert!(Timestamp::from_millis(u64::MAX).rfc5322().contains("9999"));
    }

    #[test]
    fn reads_rfc3339_and_refuses_the_rest() {
        assert_eq!(Timestamp::parse_rfc3339("2017-08-05T02:41:02.669+02:00"), Some(SAMPLE));
        for bad in ["", "2017-08-05", "yesterday", "1960-01-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_millis(u64::MAX);
        assert_eq!(end.saturating_add(Duration::MAX), end);
        assert_eq!(SAMPLE.saturating_since(end), Duration::ZERO);
        assert_eq!(SAMPLE.saturating_sub(Duration::MAX), Timestamp::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_follows_tokio() {
        let clock = Clock::simulated(SAMPLE);
        tokio::time::advance(Duration::from_hours(96)).await;
        assert_eq!(clock.now().saturating_since(SAMPLE), Duration::from_hours(96));
    }

    #[test]
    fn a_clock_that_is_ahead_follows_its_lead() {
        let lead = Arc::new(AtomicU64::new(0));
        let clock = Clock::ahead(Arc::clone(&lead));
        let before = Clock::system().now();
        lead.store(3_600_000, Ordering::Relaxed);
        assert!(clock.now().saturating_since(before) >= Duration::from_hours(1));
        assert!(clock.now().saturating_since(Clock::system().now()) <= Duration::from_hours(1));
    }

    proptest! {
        #[test]
        fn rfc3339_round_trips(millis in 0u64..253_402_300_799_000) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(Timestamp::parse_rfc3339(&time.rfc3339()), Some(time));
        }
    }
}
