//! How many of the last recipients bounced: a sliding count in a bounded space.
//!
//! Outcomes are counted in chunks, each of one day and of at most a hundredth of the volume.
//! The oldest chunk goes when those after it hold the volume, or when its day is over, so
//! that the window always holds a suffix of what was counted: the last outcomes, as many as
//! the volume asks for and at most a hundredth more.

use std::collections::VecDeque;

use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

use super::ReputationSettings;

/// Chunks that a full volume is made of.
const CHUNKS: u32 = 100;

const DAY_MILLIS: u64 = 24 * 3600 * 1000;

/// What became of recipients, as far as rates know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Recipients that do not speak against their sender: delivered, or bounced softly.
    Fine,
    /// Recipients that bounced hard.
    Bounced,
    /// Hard bounces of recipients that have been counted: a host had taken the message, and
    /// reported later that it could not deliver it.
    Returned,
    /// Complaints about messages whose recipients have been counted.
    Complained,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Recipients with an outcome that counts.
    pub recipients: u32,
    /// Hard bounces among them, and those reported later that came meanwhile.
    pub bounces: u32,
    /// Complaints that came meanwhile.
    pub complaints: u32,
}

/// How far a window reaches back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Recipients.
    pub(super) volume: u32,
    /// Days of UTC, today's included.
    pub(super) days: u16,
}

impl Reach {
    pub(super) fn of(settings: &ReputationSettings) -> Self {
        let days = settings.window.as_duration().as_secs() / (DAY_MILLIS / 1000);
        Self { volume: settings.volume, days: u16::try_from(days).unwrap_or(u16::MAX).max(1) }
    }

    fn chunk(self) -> u16 {
        u16::try_from(self.volume.div_ceil(CHUNKS)).unwrap_or(u16::MAX)
    }

    fn holds(self, day: u16, today: u16) -> bool {
        today.saturating_sub(day) < self.days
    }
}

/// At most `CHUNKS` chunks and one for each day, of 8 bytes each: with 30 days 1 KiB in the
/// store, and up to 2 in memory, where there is room for as many more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window(VecDeque<Chunk>);

/// Some outcomes of one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Chunk {
    /// Since 1970; there is room until the year 2149.
    day: u16,
    recipients: u16,
    bounces: u16,
    complaints: u16,
}

impl Window {
    /// Counts outcomes of `at`. One that is older than what was counted before counts as of
    /// the same day.
    pub(super) fn add(&mut self, reach: Reach, at: Timestamp, what: Counts, mut count: u32) {
        let day = self.0.back().map_or(0, |last| last.day).max(day_of(at));
        if matches!(what, Counts::Complained | Counts::Returned) {
            let last = self.chunk_of(reach, day, true);
            let counter = if what == Counts::Returned { &mut last.bounces } else { &mut last.complaints };
            *counter = counter.saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
            return self.trim(reach, day);
        }
        while count > 0 {
            let last = self.chunk_of(reach, day, false);
            let room = reach.chunk().saturating_sub(last.recipients);
            let taken = u16::try_from(count).unwrap_or(u16::MAX).min(room);
            last.recipients += taken;
            if what == Counts::Bounced {
                last.bounces = last.bounces.saturating_add(taken);
            }
            count -= u32::from(taken);
            self.trim(reach, day);
        }
    }

    /// What the window holds at `now`.
    pub(super) fn tally(&self, reach: Reach, now: Timestamp) -> Tally {
        let today = day_of(now);
        let held = self.0.iter().filter(|chunk| reach.holds(chunk.day, today));
        held.fold(Tally::default(), |sum, chunk| Tally {
            recipients: sum.recipients + u32::from(chunk.recipients),
            bounces: sum.bounces + u32::from(chunk.bounces),
            complaints: sum.complaints.saturating_add(u32::from(chunk.complaints)),
        })
    }

    /// The last chunk, of this day and with room; complaints need none.
    fn chunk_of(&mut self, reach: Reach, day: u16, is_full_enough: bool) -> &mut Chunk {
        let has_room = |last: &Chunk| last.day == day && (is_full_enough || last.recipients < reach.chunk());
        if !self.0.back().is_some_and(has_room) {
            self.0.push_back(Chunk { day, ..Chunk::default() });
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    fn trim(&mut self, reach: Reach, today: u16) {
        let mut held: u32 = self.0.iter().map(|chunk| u32::from(chunk.recipients)).sum();
        while let Some(first) = self.0.front() {
            let rest = held - u32::from(first.recipients);
            if reach.holds(first.day, today) && (rest < reach.volume || self.0.len() == 1) {
                return;
            }
            held = rest;
            self.0.pop_front();
        }
    }
}

fn day_of(at: Timestamp) -> u16 {
    u16::try_from(at.as_millis() / DAY_MILLIS).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REACH: Reach = Reach { volume: 1000, days: 30 };

    /// Day 20,000 is in 2024.
    fn at(day: u64) -> Timestamp {
        Timestamp::from_millis((20_000 + day) * DAY_MILLIS + 1)
    }

    fn tally(recipients: u32, bounces: u32, complaints: u32) -> Tally {
        Tally { recipients, bounces, complaints }
    }

    #[test]
    fn the_last_recipients_count_and_nobody_before_them() {
        let mut window = Window::default();
        window.add(REACH, at(0), Counts::Bounced, 500);
        assert_eq!(window.tally(REACH, at(0)), tally(500, 500, 0));
        window.add(REACH, at(0), Counts::Fine, 500);
        assert_eq!(window.tally(REACH, at(0)), tally(1000, 500, 0));
        window.add(REACH, at(0), Counts::Fine, 250);
        assert_eq!(window.tally(REACH, at(0)), tally(1000, 250, 0));
        window.add(REACH, at(0), Counts::Fine, 1);
        assert_eq!(window.tally(REACH, at(0)), tally(1001, 250, 0), "it moves by hundredths");
    }

    #[test]
    fn what_is_too_old_does_not_count_even_when_nothing_follows() {
        let mut window = Window::default();
        window.add(REACH, at(0), Counts::Bounced, 5);
        window.add(REACH, at(1), Counts::Fine, 5);
        assert_eq!(window.tally(REACH, at(29)), tally(10, 5, 0));
        assert_eq!(window.tally(REACH, at(30)), tally(5, 0, 0));
        assert_eq!(window.tally(REACH, at(400)), tally(0, 0, 0));
        window.add(REACH, at(400), Counts::Complained, 2);
        assert_eq!((window.0.len(), window.tally(REACH, at(400))), (1, tally(0, 0, 2)));
    }

    #[test]
    fn what_is_reported_later_adds_no_recipient() {
        let mut window = Window::default();
        window.add(REACH, at(0), Counts::Fine, 100);
        window.add(REACH, at(3), Counts::Returned, 2);
        window.add(REACH, at(3), Counts::Complained, 1);
        assert_eq!(window.tally(REACH, at(3)), tally(100, 2, 1));
        assert_eq!(window.tally(REACH, at(31)), tally(0, 2, 1), "they are as old as the day they came");
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let mut window = Window::default();
        window.add(REACH, at(50), Counts::Fine, 1);
        window.add(REACH, at(3), Counts::Bounced, 1);
        assert_eq!(window.tally(REACH, at(50)), tally(2, 1, 0));
        assert_eq!(window.tally(REACH, at(3)), tally(2, 1, 0));
    }

    #[test]
    fn a_full_window_takes_a_kibibyte() {
        assert_eq!(size_of::<Chunk>(), 8);
        let reach = Reach { volume: 10_000, days: 30 };
        let mut window = Window::default();
        for day in 0..100 {
            window.add(reach, at(day), Counts::Fine, 333);
            window.add(reach, at(day), Counts::Complained, 1);
        }
        assert!(window.0.len() <= 130, "{}", window.0.len());
        assert!(postcard_len(&window) < 1100);
    }

    /// Of a number in postcard: at most 3 bytes of 16 bits.
    fn postcard_len(window: &Window) -> usize {
        window.0.len() * 8 + 3
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, u8, u32)>> {
        // Days later, what, how many.
        proptest::collection::vec((prop_oneof![4 => Just(0), 1 => 0u64..12], 0..4u8, 1..400u32), 1..60)
    }

    proptest! {
        /// Against a list of everything that ever happened.
        #[test]
        fn a_window_is_the_end_of_the_story(steps in steps(), volume in 100..2000u32, days in 1..40u16, later in 0..40u64) {
            let reach = Reach { volume, days };
            let (mut window, mut day) = (Window::default(), 0);
            let mut story: Vec<(u64, bool)> = Vec::new();
            let mut complaints = 0;
            for (pause, what, count) in steps {
                day += pause;
                let what = [Counts::Fine, Counts::Fine, Counts::Bounced, Counts::Complained][usize::from(what)];
                window.add(reach, at(day), what, count);
                match what {
                    Counts::Complained => complaints += count,
                    _ => story.extend((0..count).map(|_| (day, what == Counts::Bounced))),
                }
                let held = window.tally(reach, at(day));
                check(&story, held, reach, day)?;
                prop_assert!(held.complaints <= complaints);
                prop_assert!(window.0.len() <= 102 + usize::from(days));
            }
            check(&story, window.tally(reach, at(day + later)), reach, day + later)?;
        }
    }

    fn check(story: &[(u64, bool)], held: Tally, reach: Reach, today: u64) -> Result<(), TestCaseError> {
        let young = story.iter().filter(|(day, _)| today - day < u64::from(reach.days)).count();
        let count = held.recipients as usize;
        let volume = reach.volume as usize;
        prop_assert!(count <= young, "nothing old: {count} of {young}");
        prop_assert!(count >= young.min(volume), "nothing young is missing: {count} of {young}");
        prop_assert!(count <= volume + volume / 100 + 1, "{count}");
        let end = &story[story.len() - count..];
        prop_assert_eq!(held.bounces as usize, end.iter().filter(|(_, bounced)| *bounced).count());
        Ok(())
    }
}
