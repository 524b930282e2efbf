//! "Try again in 5 minutes": how long a host asks to be left alone.

use std::time::Duration;

/// Whatever a host says, it is asked again within this time.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(4);

/// Words after which hosts name a time.
const LEADS: [&str; 14] = [
    "again in",
    "again after",
    "retry in",
    "retry after",
    "retrying in",
    "resend in",
    "resend after",
    "back in",
    "back after",
    "listed for",
    "listing for",
    "deferred for",
    "wait",
    "delayed for",
];

/// Words that may stand between them and the number.
const FILLERS: [&str; 9] = ["at", "least", "about", "another", "for", "in", "after", "approximately", "further"];

/// The time that a reply's text names, in lower case, held within 1 second and
/// 4 hours. `None` when it names none.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    let after = |lead: &&str| text.match_indices(*lead).find_map(|(at, lead)| time(&text[at + lead.len()..]));
    LEADS.iter().find_map(after).map(|time| time.clamp(SHORTEST, LONGEST))
}

/// Reads `300 seconds`, `5min`, `00:05:00` at the front of `text`.
fn time(text: &str) -> Option<Duration> {
    let mut words = text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | '[' | ']' | '<' | '>'));
    let number = words.by_ref().filter(|word| !word.is_empty()).find(|word| !FILLERS.contains(word))?;
    let number = number.trim_end_matches(['.', ';', '!']);
    if number.contains(':') {
        return clock(number);
    }
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    let (count, unit) = number.split_at(digits);
    let unit = match unit {
        "" => words.find(|word| !word.is_empty())?,
        unit => unit.trim_start_matches('-'),
    };
    let seconds = match unit.trim_end_matches(|c: char| !c.is_ascii_alphabetic()) {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(count.parse::<u64>().ok()?.saturating_mul(seconds)))
}

/// `HH:MM:SS`, or `MM:SS`.
fn clock(text: &str) -> Option<Duration> {
    let parts: Vec<u64> = text.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let seconds = match parts[..] {
        [hours, minutes @ 0..60, seconds @ 0..60] => hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?,
        [minutes, seconds @ 0..60] => minutes.checked_mul(60)?.checked_add(seconds)?,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [
            ("greylisted, please try again in 300 seconds", 300),
            ("recipient address rejected: greylisted for 5 minutes", 300),
            ("greylisting in action, please come back in 00:04:57", 297),
            ("please try again after 60 seconds.", 60),
            ("service busy, please retry in 5min", 300),
            ("too many messages, retry after 1 hour (rate limit)", 3600),
            ("mail deferred, please wait at least 90s before trying again", 90),
            ("try again in 04:30 minutes", 270),
            ("rate limit: try again later, try again in 2 minutes", 120),
            ("delayed for 120 secs, see https://example.com/wait", 120),
        ] {
            assert_eq!(retry_after(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "please try again later",
            "try again in a few hours",
            "please wait",
            "try again in 5",
            "try again in 5 moons",
            "wait 99999999999999999999999 seconds",
            "try again in 1:2:3:4",
            "try again in 00:75:00",
            "await 5",
            "452 4.2.2 300 seconds",
            "",
        ] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_held_within_bounds() {
        assert_eq!(retry_after("try again in 0 seconds"), Some(SHORTEST));
        assert_eq!(retry_after("try again in 7 days"), Some(LONGEST));
        assert_eq!(retry_after("try again in 18446744073709551615 hours"), Some(LONGEST));
    }

    proptest! {
        #[test]
        fn whatever_a_host_says_it_is_within_bounds(text in "(try again in |wait |[a-z: ]){1,5}[0-9:]{0,30} ?(s|min|hours|.)") {
            if let Some(time) = retry_after(&text.to_lowercase()) {
                prop_assert!((SHORTEST..=LONGEST).contains(&time));
            }
        }
    }
}
