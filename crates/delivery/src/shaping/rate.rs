//! How many messages in how much time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// Most messages that a rate may name.
const MOST_MESSAGES: u64 = 1_000_000_000;

/// Longest time that a rate may name.
const LONGEST: Duration = Duration::from_hours(24);

/// Messages in a span of time, written `20/s`, `600/m`, `1000/h`, `5000/d` or
/// `10/30s`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rate {
    messages: u64,
    nanos: u64,
}

/// What a rate never falls below, however often it is halved.
const SLOWEST: Rate = Rate { messages: 1, nanos: 60_000_000_000 };

impl Rate {
    /// `None` where one of the two is zero or out of bounds.
    pub(crate) fn new(messages: u64, time: Duration) -> Option<Self> {
        let nanos = u64::try_from(time.as_nanos()).ok().filter(|_| time <= LONGEST)?;
        (1..=MOST_MESSAGES).contains(&messages).then_some(())?;
        (nanos > 0).then_some(Self { messages, nanos })
    }

    /// Half as much for each level, but at least one message a minute, or what
    /// it is without any level where that is less.
    pub(crate) fn halved(self, levels: u32) -> Self {
        let nanos = self.nanos.saturating_mul(1 << levels.min(16));
        let halved = Self { nanos, ..self };
        let floor = if self.is_below(SLOWEST) { self } else { SLOWEST };
        if halved.is_below(floor) { floor } else { halved }
    }

    /// What was measured at a quiet site says nothing of what it would take: one
    /// message a minute at least.
    pub(crate) fn at_least_slowest(self) -> Self {
        if self.is_below(SLOWEST) { SLOWEST } else { self }
    }

    /// The smaller of two.
    pub(crate) fn least(self, other: Self) -> Self {
        if other.is_below(self) { other } else { self }
    }

    /// Messages that may go at once after a quiet time: what one second
    /// allows, and one at least.
    pub(crate) fn burst(self) -> u64 {
        let a_second = u128::from(self.messages) * 1_000_000_000 / u128::from(self.nanos);
        u64::try_from(a_second).unwrap_or(u64::MAX).max(1)
    }

    /// The numerator: messages.
    pub(super) fn messages(self) -> u64 {
        self.messages
    }

    /// The denominator: nanoseconds.
    pub(super) fn nanos(self) -> u64 {
        self.nanos
    }

    fn is_below(self, other: Self) -> bool {
        u128::from(self.messages) * u128::from(other.nanos) < u128::from(other.messages) * u128::from(self.nanos)
    }
}

const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, nanos) = (self.messages, u128::from(self.nanos));
        match UNITS.iter().find(|(_, seconds)| nanos == u128::from(*seconds) * 1_000_000_000) {
            Some((unit, _)) => write!(f, "{messages}/{unit}"),
            None if nanos < 1_000_000_000 || !nanos.is_multiple_of(1_000_000_000) => {
                // What was measured: messages in a minute, or in an hour where that says more.
                let a_minute = u128::from(messages) * 60_000_000_000 / nanos;
                match a_minute {
                    0..10 => write!(f, "{}/h", u128::from(messages) * 3_600_000_000_000 / nanos),
                    _ => write!(f, "{a_minute}/m"),
                }
            }
            None => write!(f, "{messages}/{}s", nanos / 1_000_000_000),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (messages, time) = text.split_once('/')?;
            let digits = time.find(|c: char| !c.is_ascii_digit())?;
            let (count, unit) = time.split_at(digits);
            let count: u64 = if count.is_empty() { 1 } else { count.parse().ok()? };
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            Self::new(messages.parse().ok()?, Duration::from_secs(seconds.checked_mul(count)?))
        };
        read().ok_or_else(|| {
            format!("expected messages in a time of at most one day, such as \"20/s\", \"1000/h\" or \"10/30s\", found {text:?}")
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_read_and_printed() {
        for text in ["20/s", "600/m", "1000/h", "5000/d", "10/30s", "1/7200s"] {
            assert_eq!(rate(text).to_string(), text);
        }
        assert_eq!(rate("1/2h").to_string(), "1/7200s");
        for bad in ["", "20", "20/", "/s", "0/s", "-1/s", "20/w", "20/0s", "20/25h", "20/2d", "1.5/s", "99999999999/s"]
        {
            let error = bad.parse::<Rate>().unwrap_err();
            assert!(error.contains("\"20/s\"") && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_burst_is_what_a_second_allows_and_one_at_least() {
        for (text, burst) in [("20/s", 20), ("600/m", 10), ("1000/h", 1), ("1/d", 1)] {
            assert_eq!(rate(text).burst(), burst, "{text}");
        }
    }

    #[test]
    fn halving_ends_at_one_a_minute() {
        assert!(!rate("20/s").halved(1).is_below(rate("10/s")) && !rate("10/s").is_below(rate("20/s").halved(1)));
        assert_eq!(rate("4/m").halved(9), rate("1/m"));
        assert_eq!(rate("1/h").halved(3), rate("1/h"), "what is slower anyway stays");
        assert_eq!(rate("20/s").least(rate("1/m")), rate("1/m"));
    }

    #[test]
    fn what_was_measured_is_printed_in_minutes_or_hours() {
        assert_eq!(Rate::new(30, Duration::from_millis(61_500)).unwrap().to_string(), "29/m");
        assert_eq!(Rate::new(3, Duration::from_millis(61_500)).unwrap().to_string(), "175/h");
    }
}
