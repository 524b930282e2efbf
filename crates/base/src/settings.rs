//! Scalar settings that people write: spans of time and amounts of bytes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a [`Period`] or [`Size`] could not be read; the text says what was
/// expected. The writer of the value is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not a number followed by a known unit.
    #[error("expected {expected}, got \"{got}\"")]
    Syntax {
        /// What would have been right, with an example.
        expected: &'static str,
        /// What was there.
        got: String,
    },
    /// Right in form, but more than fits.
    #[error("\"{got}\" is too large")]
    TooLarge {
        /// What was there.
        got: String,
    },
}

/// A span of time in whole milliseconds, written `100ms`, `90s`, `2m`, `4h`
/// or `3d`; parts may follow each other: `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

const PERIOD_UNITS: Units = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Period {
    /// From milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// From minutes.
    pub const fn from_mins(minutes: u64) -> Self {
        Self::from_secs(minutes.saturating_mul(60))
    }

    /// From hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self::from_mins(hours.saturating_mul(60))
    }

    /// From days of 24 hours.
    pub const fn from_days(days: u64) -> Self {
        Self::from_hours(days.saturating_mul(24))
    }

    /// As the standard library's type.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Whether no time passes.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.as_duration()
    }
}

impl fmt::Display for Period {
    /// The largest unit that divides it: `90s`, `2m`, `3d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PERIOD_UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((name, unit)) if self.0 > 0 => write!(f, "{}{name}", self.0 / unit),
            _ => f.write_str("0s"),
        }
    }
}

impl FromStr for Period {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str = "a span of time with its unit (ms, s, m, h, d) such as \"90s\"";
        let mut rest = text.trim();
        let mut total: u64 = 0;
        let syntax = || ParseError::Syntax { expected: EXPECTED, got: text.to_owned() };
        let too_large = || ParseError::TooLarge { got: text.to_owned() };
        loop {
            let (digits, after) = split(rest, |c| c.is_ascii_digit());
            let (name, after) = split(after, |c| c.is_ascii_alphabetic());
            let unit = unit(PERIOD_UNITS, name).ok_or_else(syntax)?;
            let number = number(digits).ok_or_else(syntax)?.ok_or_else(too_large)?;
            let part = number.checked_mul(unit).ok_or_else(too_large)?;
            total = total.checked_add(part).ok_or_else(too_large)?;
            rest = after;
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
    }
}

/// An amount of bytes, written `10MB` (powers of 1,000), `64MiB` (powers of
/// 1,024) or as a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const SIZE_UNITS: Units = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

impl Size {
    /// From bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// From units of 1,024 bytes.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1 << 10))
    }

    /// From units of 1,048,576 bytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// From units of 1,073,741,824 bytes.
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib.saturating_mul(1 << 30))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// In bytes, for sizes of things in memory; ends at the largest `usize`.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    /// The largest unit that divides it: `10MB`, `64MiB`, `10241B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZE_UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((name, unit)) if self.0 > 0 => write!(f, "{}{name}", self.0 / unit),
            _ => f.write_str("0B"),
        }
    }
}

impl FromStr for Size {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let syntax = || ParseError::Syntax {
            expected: "an amount of bytes such as \"10MB\", \"64MiB\" or 1024",
            got: text.to_owned(),
        };
        let too_large = || ParseError::TooLarge { got: text.to_owned() };
        let (digits, name) = split(text.trim(), |c| c.is_ascii_digit());
        let unit = match name.trim_start() {
            "" => 1,
            name => unit(SIZE_UNITS, name).ok_or_else(syntax)?,
        };
        let number = number(digits).ok_or_else(syntax)?.ok_or_else(too_large)?;
        number.checked_mul(unit).map(Self).ok_or_else(too_large)
    }
}

type Units = &'static [(&'static str, u64)];

fn unit(units: Units, name: &str) -> Option<u64> {
    let found = units.iter().find(|(known, _)| *known == name);
    found.map(|(_, unit)| *unit)
}

/// `None`: not digits. `Some(None)`: too many of them.
fn number(digits: &str) -> Option<Option<u64>> {
    (!digits.is_empty()).then(|| digits.parse().ok())
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string with a span of time and its unit such as \"90s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of bytes such as \"10MB\", \"64MiB\" or 1024")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                match u64::try_from(bytes) {
                    Ok(bytes) => Ok(Size(bytes)),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(bytes), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn periods_are_read() {
        for (text, millis) in
            [("100ms", 100), ("90s", 90_000), ("2m", 120_000), ("1h30m", 5_400_000), (" 3d ", 259_200_000), ("0s", 0)]
        {
            assert_eq!(text.parse(), Ok(Period::from_millis(millis)), "{text}");
        }
        assert_eq!(Period::from_days(3).to_string(), "3d");
        assert_eq!(Period::from_secs(90).to_string(), "90s");
    }

    #[test]
    fn bad_periods_say_what_was_expected() {
        for bad in ["", "90", "s", "2 m", "1.5h", "-1s", "2w", "2m!"] {
            let error = bad.parse::<Period>().unwrap_err().to_string();
            assert!(error.contains("such as \"90s\"") && error.contains(bad), "{error}");
        }
        for large in ["99999999999999999999ms", "99999999999999d", "213000000000d1000000000d"] {
            let error = large.parse::<Period>().unwrap_err();
            assert!(matches!(error, ParseError::TooLarge { .. }), "{large}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("10MB", 10_000_000), ("10MiB", 10_485_760), ("1 kB", 1000), ("1KB", 1000), ("17", 17)] {
            assert_eq!(text.parse(), Ok(Size::from_bytes(bytes)), "{text}");
        }
        assert_eq!(Size::from_mib(10).to_string(), "10MiB");
        for bad in ["", "MB", "10mb", "1.5MB", "-1"] {
            assert!(matches!(bad.parse::<Size>(), Err(ParseError::Syntax { .. })), "{bad}");
        }
        assert!("99999999TiB".parse::<Size>().is_err());
    }

    #[test]
    fn serde_takes_strings_and_plain_sizes() {
        let size: Size = serde_json::from_str("1024").unwrap();
        assert_eq!(serde_json::to_string(&size).unwrap(), "\"1KiB\"");
        assert!(serde_json::from_str::<Size>("-5").is_err());
        let error = serde_json::from_str::<Period>("5").unwrap_err().to_string();
        assert!(error.contains("such as \"90s\""), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value in any::<u64>(), shift in 0u32..64) {
            let period = Period::from_millis(value >> shift);
            prop_assert_eq!(period.to_string().parse(), Ok(period));
            let size = Size::from_bytes(value >> shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = text.parse::<Period>();
            let _ = text.parse::<Size>();
        }
    }
}
