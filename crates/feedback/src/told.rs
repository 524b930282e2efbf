//! What was passed on: nothing twice, and to nobody too much.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;
use postrider_base::Timestamp;
use postrider_mail::{EmailAddress, MessageId, VerpScope};

use crate::status::Action;

/// A thing that a sender is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct News {
    pub(crate) id: MessageId,
    pub(crate) what: What,
}

/// What is told, with the return path that it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Automatic(VerpScope),
    /// Anything but a failure.
    Progress(VerpScope, Action),
    /// What is journaled, in the message of this id.
    Event(MessageId),
}

/// What was told lately. Forgets everything at a restart.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: HashSet<News>,
    order: VecDeque<News>,
    under_way: HashSet<News>,
    /// The hour since 1970 that is counted.
    hour: u64,
    counts: HashMap<String, u32>,
}

/// Whether something is to be told.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// It was.
    Told,
    /// Somebody is about to.
    Taken,
    /// It is, by who has this.
    Open(Telling<'a>),
}

/// Something that is being told, by nobody else meanwhile.
#[derive(Debug)]
pub(crate) struct Telling<'a> {
    told: &'a Told,
    news: News,
}

impl Telling<'_> {
    /// Whether it is of this.
    pub(crate) fn is_of(&self, news: News) -> bool {
        self.news == news
    }

    /// It was told. At most `max` are remembered.
    pub(crate) fn done(self, max: u32) {
        let mut state = self.told.0.lock();
        if state.seen.insert(self.news) {
            state.order.push_back(self.news);
        }
        while state.order.len() > max as usize {
            let Some(oldest) = state.order.pop_front() else { break };
            state.seen.remove(&oldest);
        }
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.told.0.lock().under_way.remove(&self.news);
    }
}

impl Told {
    /// Whether this is to be told.
    pub(crate) fn turn(&self, news: News) -> Turn<'_> {
        let mut state = self.0.lock();
        match () {
            () if state.seen.contains(&news) => Turn::Told,
            () if !state.under_way.insert(news) => Turn::Taken,
            () => Turn::Open(Telling { told: self, news }),
        }
    }

    /// Counts a message to this address, unless it got `max` in this hour.
    pub(crate) fn may_get(&self, address: &EmailAddress, max: u32, now: Timestamp) -> bool {
        let mut state = self.0.lock();
        let hour = now.as_millis() / HOUR;
        if state.hour != hour {
            state.hour = hour;
            state.counts.clear();
        }
        if state.counts.len() >= MAX_COUNTED {
            return false;
        }
        let count = state.counts.entry(address.fold()).or_default();
        let may = *count < max;
        *count += u32::from(may);
        may
    }

    /// Takes back that a message to this address was counted.
    pub(crate) fn got_none(&self, address: &EmailAddress) {
        if let Some(count) = self.0.lock().counts.get_mut(&address.fold()) {
            *count = count.saturating_sub(1);
        }
    }
}

/// Milliseconds.
const HOUR: u64 = 3_600_000;
/// Addresses counted in an hour; more get nothing in it.
const MAX_COUNTED: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn news(byte: u8) -> News {
        News { id: MessageId::from_bytes([byte; 24]), what: What::Automatic(VerpScope::One(0)) }
    }

    fn tell(told: &Told, news: News) -> bool {
        match told.turn(news) {
            Turn::Open(telling) => {
                telling.done(2);
                true
            }
            Turn::Told => false,
            Turn::Taken => panic!("nobody tells it"),
        }
    }

    #[test]
    fn nothing_is_told_twice_and_the_oldest_is_forgotten() {
        let told = Told::default();
        assert!(tell(&told, news(1)));
        assert!(!tell(&told, news(1)));
        assert!(tell(&told, News { what: What::Progress(VerpScope::One(0), Action::Delayed), ..news(1) }));
        assert!(tell(&told, news(2)));
        assert!(tell(&told, news(1)), "two are remembered");
    }

    #[test]
    fn one_tells_it_at_a_time_and_whoever_fails_leaves_it_to_the_next() {
        let told = Told::default();
        let Turn::Open(telling) = told.turn(news(1)) else { panic!("it is new") };
        assert!(matches!(told.turn(news(1)), Turn::Taken));
        assert!(tell(&told, news(2)), "another is another");
        drop(telling);
        assert!(tell(&told, news(1)));
    }

    #[test]
    fn an_address_gets_so_many_in_an_hour() {
        let told = Told::default();
        let (ann, bob) = ("ann@example.com".parse().unwrap(), "bob@example.com".parse().unwrap());
        let at = Timestamp::from_millis;
        assert!(told.may_get(&ann, 1, at(0)));
        assert!(!told.may_get(&ann, 1, at(HOUR - 1)));
        assert!(told.may_get(&bob, 1, at(HOUR - 1)));
        assert!(told.may_get(&ann, 1, at(HOUR)));
        told.got_none(&ann);
        assert!(told.may_get(&ann, 1, at(HOUR)));
        assert!(!told.may_get(&ann, 1, at(HOUR)));
    }
}
