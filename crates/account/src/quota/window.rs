//! What was sent in the last 24 hours, minute by minute, without a lock on the way of a message.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use postrider_base::Timestamp;

/// Minutes of a day. What was sent in a minute counts until the minute of the same time on the
/// next day is over: up to a minute longer than 24 hours, never shorter.
pub(super) const DAY: u64 = 24 * 60;
/// Hours of minutes that are kept: the window's 24, and the one that begins.
const HOURS: usize = 25;
const RING: u64 = HOURS as u64 * 60;
/// A clock that goes back by less than this many minutes stands still here until it has caught
/// up; after a longer step back all that counted counts as sent at the new time.
const STEP_BACK: u64 = 60;

/// Counts recipients. 424 bytes, and 240 more for each hour of the day in which something was
/// ever sent: 6.4 KB at most.
///
/// `used` is the truth that is compared with a bound: one number, so that any number of threads
/// never get more than there is. It is the sum of the minutes and of what is reserved, which
/// belongs to no minute until it is kept; so nothing is ever subtracted twice.
#[derive(Debug, Default)]
pub(super) struct Window {
    used: AtomicU64,
    /// The minute that the window ends with.
    last: AtomicU64,
    /// Held by who moves it on.
    turning: Mutex<()>,
    /// A ring of minutes, in pieces that exist when they are first needed. A minute can not
    /// hold more than 4,294,967,295 recipients; no machine sends as many.
    hours: [OnceLock<Box<[AtomicU32; 60]>>; HOURS],
}

/// The minute of a point in time.
pub(super) fn minute_of(time: Timestamp) -> u64 {
    time.as_millis() / 60_000
}

impl Window {
    /// Takes so many if there are then at most `max`. Returns the minute that they are to be
    /// kept in.
    pub(super) fn reserve(&self, recipients: u32, max: Option<u64>, minute: u64) -> Option<u64> {
        let minute = self.turn(minute);
        let room = |used: u64| {
            let used = used.saturating_add(recipients.into());
            (used <= max.unwrap_or(u64::MAX)).then_some(used)
        };
        self.used.try_update(Ordering::AcqRel, Ordering::Acquire, room).ok().map(|_| minute)
    }

    /// What was reserved has been sent.
    pub(super) fn keep(&self, recipients: u32, minute: u64) {
        self.slot(minute).fetch_add(recipients, Ordering::AcqRel);
    }

    /// What was reserved has not been sent.
    pub(super) fn give_back(&self, recipients: u32) {
        self.used.fetch_sub(recipients.into(), Ordering::AcqRel);
    }

    /// Adds what was sent in an earlier life of the process. What lies in the future, because
    /// the clock has gone back since, counts as sent now.
    pub(super) fn add(&self, recipients: u32, sent: u64, now: u64) {
        let now = self.turn(now);
        if sent + DAY >= now {
            self.used.fetch_add(recipients.into(), Ordering::AcqRel);
            self.keep(recipients, sent.min(now));
        }
    }

    /// How many count at this time, with what is reserved.
    pub(super) fn used(&self, minute: u64) -> u64 {
        self.turn(minute);
        self.used.load(Ordering::Acquire)
    }

    /// Moves the window on, so that it ends with this minute; returns the one that it ends with,
    /// which is a later one when the clock has gone back a little.
    fn turn(&self, minute: u64) -> u64 {
        let last = self.last.load(Ordering::Acquire);
        if !(last < minute || minute + STEP_BACK < last) {
            return last;
        }
        // Once a minute, for as long as it takes to empty a minute of yesterday.
        let _turning = self.turning.lock();
        let last = self.last.load(Ordering::Acquire);
        if last < minute {
            let gone = (last + 1).max(minute.saturating_sub(RING - 1))..=minute;
            let gone: u64 = gone.map(|begun| self.empty(begun + RING - DAY - 1)).sum();
            self.used.fetch_sub(gone, Ordering::AcqRel);
        } else if minute + STEP_BACK < last {
            let all: u64 = (0..RING).map(|minute| self.empty(minute)).sum();
            // A minute has no place for more, were there ever a day with more.
            let kept = u32::try_from(all).unwrap_or(u32::MAX);
            self.used.fetch_sub(all - u64::from(kept), Ordering::AcqRel);
            self.keep(kept, minute);
        } else {
            return last;
        }
        self.last.store(minute, Ordering::Release);
        minute
    }

    /// What was sent in this minute, which does not count any more.
    fn empty(&self, minute: u64) -> u64 {
        let (hour, minute) = place(minute);
        self.hours[hour].get().map_or(0, |hour| hour[minute].swap(0, Ordering::AcqRel).into())
    }

    fn slot(&self, minute: u64) -> &AtomicU32 {
        let (hour, minute) = place(minute);
        &self.hours[hour].get_or_init(|| Box::new([const { AtomicU32::new(0) }; 60]))[minute]
    }
}

/// Where in the ring a minute is.
fn place(minute: u64) -> (usize, usize) {
    let place = usize::try_from(minute % RING).unwrap_or(0);
    (place / 60, place % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_small_as_it_says() {
        assert_eq!(size_of::<Window>(), 424);
        let window = Window::default();
        for minute in 1_000_000..1_010_000 {
            let reserved = window.reserve(1, None, minute).unwrap();
            window.keep(1, reserved);
        }
        assert_eq!(window.used(1_010_000 - 1), 1_441);
        assert_eq!(window.hours.iter().filter(|hour| hour.get().is_some()).count(), HOURS);
    }
}
