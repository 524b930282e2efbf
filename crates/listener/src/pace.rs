//! How long a client may take.

use std::time::Duration;

use tokio::time::Instant;

use crate::Settings;

/// What the client is doing, as far as time is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Nothing that has begun.
    Waiting,
    /// A command that has begun and has not been answered.
    Command(Instant),
    /// Content: since when, and octets so far.
    Content(Instant, u64),
}

/// Watches a client's pace. It knows no clock: it is told what happened when.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When a client that is not known is cut off, however busy it is.
    known_by: Option<Instant>,
    /// When the session ends, whoever the client is.
    ends: Option<Instant>,
    doing: Doing,
}

impl Pace {
    /// Of a client that has to be known by this time.
    pub(crate) fn new(known_by: Instant) -> Pace {
        Pace { known_by: Some(known_by), ends: None, doing: Doing::Waiting }
    }

    /// The same in a session that ends at this time.
    pub(crate) fn until(self, ends: Instant) -> Pace {
        Pace { ends: Some(ends), ..self }
    }

    /// When the session ends, if it has such a bound.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Whether the session has had its time. Content has bounds of its own, from when the client
    /// was told to send it: `expected` until all of it, or of a chunk, has come.
    pub(crate) fn is_over(&self, expected: bool, now: Instant) -> bool {
        !self.is_in_content(expected) && self.ends.is_some_and(|ends| ends <= now)
    }

    /// Between the chunks of a message too.
    fn is_in_content(&self, expected: bool) -> bool {
        expected || matches!(self.doing, Doing::Content(..))
    }

    /// The client is known.
    pub(crate) fn known(&mut self) {
        self.known_by = None;
    }

    /// Octets have come; `content` when they are expected to be a message's.
    pub(crate) fn received(&mut self, octets: u64, content: bool, now: Instant) {
        self.doing = match (self.doing, content) {
            // Between the chunks of a message too.
            (Doing::Content(since, before), _) => Doing::Content(since, before + octets),
            (_, true) => Doing::Content(now, octets),
            (Doing::Command(since), false) => Doing::Command(since),
            (_, false) => Doing::Command(now),
        };
    }

    /// Something was answered: what the client had begun is over, unless a message of
    /// several chunks is still under way.
    pub(crate) fn answered(&mut self, under_way: bool, now: Instant) {
        self.doing = match (self.doing, under_way) {
            (_, false) => Doing::Waiting,
            (Doing::Content(since, octets), true) => Doing::Content(since, octets),
            // The first chunk came whole, with its command.
            (_, true) => Doing::Content(now, 0),
        };
    }

    /// When to give up unless more comes; `expected` as above.
    pub(crate) fn deadline(&self, settings: &Settings, expected: bool, now: Instant) -> Instant {
        if let Some(known_by) = self.known_by {
            let by = known_by.min(now + settings.idle_before_auth.as_duration());
            return self.ends.map_or(by, |ends| ends.min(by));
        }
        let silence = now + settings.idle.as_duration();
        let ends = self.ends.filter(|_| !self.is_in_content(expected));
        let waiting = ends.map_or(silence, |ends| ends.min(silence));
        match self.doing {
            Doing::Waiting => waiting,
            Doing::Command(since) => waiting.min(since + settings.command_time.as_duration()),
            Doing::Content(since, octets) => {
                waiting.min(since + settings.message_time.as_duration()).min(since + earned(settings, octets))
            }
        }
    }
}

/// The time that so many octets of content may have taken: a while at first,
/// and what the slowest rate allows.
fn earned(settings: &Settings, octets: u64) -> Duration {
    let rate = settings.min_data_rate.bytes();
    match rate {
        0 => settings.message_time.as_duration(),
        rate => settings.data_grace.as_duration().saturating_add(Duration::from_secs(octets / rate)),
    }
}

#[cfg(test)]
mod tests {
    use postrider_base::{Clock, Period, Size, Timestamp};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> Settings {
        Settings {
            idle_before_auth: Period::from_secs(10),
            idle: Period::from_secs(300),
            command_time: Period::from_secs(60),
            message_time: Period::from_secs(600),
            min_data_rate: Size::from_bytes(100),
            data_grace: Period::from_secs(30),
            ..Settings::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_have_little_time_and_no_more_by_being_busy() {
        let now = Clock::simulated(Timestamp::from_millis(0)).instant();
        let mut pace = Pace::new(now + 15 * SECOND);
        let deadline = |pace: &Pace, after: u32| pace.deadline(&settings(), false, now + after * SECOND) - now;
        assert_eq!(deadline(&pace, 0), 10 * SECOND);
        pace.received(1, false, now + 9 * SECOND);
        assert_eq!(deadline(&pace, 9), 15 * SECOND);
        pace.known();
        pace.answered(false, now);
        assert_eq!(deadline(&pace, 9), 309 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_has_begun_must_end() {
        let now = Clock::simulated(Timestamp::from_millis(0)).instant();
        let mut pace = Pace::new(now);
        pace.known();
        let deadline = |pace: &Pace, after: u32| pace.deadline(&settings(), false, now + after * SECOND) - now;
        pace.received(1, false, now);
        pace.received(1, false, now + 59 * SECOND);
        assert_eq!(deadline(&pace, 59), 60 * SECOND);
        pace.answered(false, now);
        pace.received(1, false, now + 100 * SECOND);
        assert_eq!(deadline(&pace, 100), 160 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_but_not_in_the_middle_of_content() {
        let now = Clock::simulated(Timestamp::from_millis(0)).instant();
        let mut pace = Pace::new(now).until(now + 100 * SECOND);
        pace.known();
        let at = |after: u32| now + after * SECOND;
        assert_eq!(pace.deadline(&settings(), false, at(90)), at(100));
        assert!(!pace.is_over(false, at(99)) && pace.is_over(false, at(100)));
        // Told to send it, or in the middle of a chunk that began in its command's packet.
        assert!(!pace.is_over(true, at(101)));
        assert_eq!(pace.deadline(&settings(), true, at(99)), at(99 + 300));
        pace.received(5_000, true, at(99));
        assert!(!pace.is_over(false, at(100)));
        assert_eq!(pace.deadline(&settings(), false, at(99)), at(99 + 30 + 50));
        pace.answered(false, at(110));
        assert!(pace.is_over(false, at(110)));
        assert!(!Pace::new(now).is_over(false, at(1_000_000)));
    }

    #[tokio::test(start_paused = true)]
    async fn content_earns_its_time_up_to_a_bound() {
        let now = Clock::simulated(Timestamp::from_millis(0)).instant();
        let mut pace = Pace::new(now);
        pace.known();
        let deadline = |pace: &Pace, after: u32| pace.deadline(&settings(), false, now + after * SECOND) - now;
        pace.received(0, true, now);
        assert_eq!(deadline(&pace, 0), 30 * SECOND);
        pace.received(1_000, true, now + SECOND);
        assert_eq!(deadline(&pace, 1), 40 * SECOND);
        pace.received(10_000_000, true, now + 2 * SECOND);
        assert_eq!(deadline(&pace, 2), 302 * SECOND, "silence");
        assert_eq!(deadline(&pace, 400), 600 * SECOND, "the whole message");
        // The chunks of a message have one clock together.
        pace.answered(true, now);
        pace.received(20, false, now + 100 * SECOND);
        pace.received(10, true, now + 200 * SECOND);
        assert_eq!(deadline(&pace, 400), 600 * SECOND);
        pace.answered(false, now);
        assert_eq!(deadline(&pace, 400), 700 * SECOND);
        let without = Settings { min_data_rate: Size::from_bytes(0), ..settings() };
        let mut slow = Pace::new(now);
        slow.known();
        slow.received(1, true, now);
        assert_eq!(slow.deadline(&without, false, now) - now, 300 * SECOND);
    }
}
