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
    /// Whose return path it came to; `None` where the message is what counts.
    pub(crate) scope: Option<VerpScope>,
    pub(crate) what: What,
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Automatic,
    Complaint,
    /// Anything but a failure, which the journal remembers.
    Progress(Action),
}

/// What was told lately. Forgets everything at a restart.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: HashSet<News>,
    order: VecDeque<News>,
    /// The hour since 1970 that is counted.
    hour: u64,
    counts: HashMap<String, u32>,
}

impl Told {
    /// Notes that this is told now; `false` where it was before. At most `max` are remembered.
    pub(crate) fn is_new(&self, news: News, max: u32) -> bool {
        let mut state = self.0.lock();
        if !state.seen.insert(news) {
            return false;
        }
        state.order.push_back(news);
        while state.order.len() > max as usize {
            let Some(oldest) = state.order.pop_front() else { break };
            state.seen.remove(&oldest);
        }
        true
    }

    /// Takes a note back: it could not be told.
    pub(crate) fn forget(&self, news: News) {
        let mut state = self.0.lock();
        state.seen.remove(&news);
        state.order.retain(|known| *known != news);
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
}

/// Milliseconds.
const HOUR: u64 = 3_600_000;
/// Addresses counted in an hour; more get nothing in it.
const MAX_COUNTED: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn news(byte: u8) -> News {
        News { id: MessageId::from_bytes([byte; 24]), scope: Some(VerpScope::One(0)), what: What::Automatic }
    }

    #[test]
    fn nothing_is_new_twice_and_the_oldest_is_forgotten() {
        let told = Told::default();
        assert!(told.is_new(news(1), 2));
        assert!(!told.is_new(news(1), 2));
        assert!(told.is_new(News { what: What::Progress(Action::Delayed), ..news(1) }, 2));
        assert!(told.is_new(news(2), 2));
        assert!(told.is_new(news(1), 2), "two are remembered");
        told.forget(news(1));
        assert!(told.is_new(news(1), 2));
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
    }
}
