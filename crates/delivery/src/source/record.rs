//! What became of the mail of each source, by day.

use std::collections::VecDeque;

use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

use super::warm_up::day;

/// Days that are kept.
pub(super) const KEPT_DAYS: usize = 30;

/// Something that happened to a message of a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// An attempt began.
    Attempt,
    /// A recipient's host took it.
    Delivered,
    /// It is to be tried again for a recipient.
    Deferred,
    /// It failed for good for a recipient.
    Bounced,
    /// A host refused it because of the address that it came from.
    Blocked,
}

/// How often that happened.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SourceCounts {
    /// Attempts to deliver one message to one domain.
    pub attempts: u64,
    /// Recipients whose host took the message.
    pub delivered: u64,
    /// Recipients put off.
    pub deferred: u64,
    /// Recipients given up.
    pub bounced: u64,
    /// Refusals because of the address; each is counted as deferred or bounced too.
    pub blocked: u64,
}

impl SourceCounts {
    pub(super) fn add(&mut self, event: Event) {
        let count = match event {
            Event::Attempt => &mut self.attempts,
            Event::Delivered => &mut self.delivered,
            Event::Deferred => &mut self.deferred,
            Event::Bounced => &mut self.bounced,
            Event::Blocked => &mut self.blocked,
        };
        *count = count.saturating_add(1);
    }
}

/// Counts by day (UTC, from 1970), the last 30 days that had any.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Record(VecDeque<(u32, SourceCounts)>);

impl Record {
    pub(super) fn add(&mut self, event: Event, now: Timestamp) {
        let today = day(now);
        match self.0.back_mut() {
            // A clock that was set back counts for the last day.
            Some((last, counts)) if *last >= today => counts.add(event),
            _ => {
                let mut counts = SourceCounts::default();
                counts.add(event);
                self.0.push_back((today, counts));
                while self.0.len() > KEPT_DAYS {
                    self.0.pop_front();
                }
            }
        }
    }

    /// The last day that had any.
    pub(super) fn last_day(&self) -> Option<u32> {
        self.0.back().map(|(day, _)| *day)
    }

    /// The days, oldest first, by the moment when each began.
    pub(super) fn days(&self) -> impl Iterator<Item = (Timestamp, SourceCounts)> {
        let began = |day: u32| Timestamp::from_millis(u64::from(day) * 86_400_000);
        self.0.iter().map(move |(day, counts)| (began(*day), *counts))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn thirty_days_are_kept() {
        let mut record = Record::default();
        let start = Timestamp::parse_rfc3339("2026-01-01T23:00:00Z").unwrap();
        for day in 0..40 {
            let now = start.saturating_add(Duration::from_secs(day * 24 * 3600));
            record.add(Event::Attempt, now);
            record.add(Event::Delivered, now.saturating_add(Duration::from_secs(1)));
        }
        let days: Vec<_> = record.days().collect();
        assert_eq!(days.len(), KEPT_DAYS);
        assert_eq!(days[0].0.rfc3339(), "2026-01-11T00:00:00.000Z");
        assert!(days.iter().all(|(_, counts)| (counts.attempts, counts.delivered) == (1, 1)));
        record.add(Event::Blocked, start);
        assert_eq!(record.days().last().unwrap().1.blocked, 1, "an earlier time makes no new day");
    }
}
