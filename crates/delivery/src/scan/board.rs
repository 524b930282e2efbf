//! What is known of the scans of messages: for those who ask why one waits, and so that no
//! message is scanned again for each domain of its recipients.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::Timestamp;
use postrider_mail::MessageId;

/// Messages of either kind that are remembered. Beyond, the older ones are forgotten, and what is
/// still to be sent of them is scanned again.
const MOST: usize = 100_000;

/// How long a message is left alone that has a virus: within that it is ended. What of it could
/// not be is scanned again.
const ENDING: Duration = Duration::from_secs(60);

/// Longest time until a message is scanned again that got no verdict.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Shared by the scans and by those who ask. Every lock is held for a look.
#[derive(Default)]
pub(crate) struct Board(Mutex<State>);

#[derive(Default)]
struct State {
    /// May leave. Two generations, of which the older one goes when the younger one is full.
    passed: [HashSet<MessageId>; 2],
    /// Has a virus, and is being ended until then.
    infected: HashMap<MessageId, Timestamp>,
    /// Since when they wait for a scan or are in one.
    under_way: HashMap<MessageId, Timestamp>,
    /// Scans that came to nothing, and how often.
    failed: HashMap<MessageId, (Failure, u32)>,
    down: Option<Failure>,
}

/// A scan that came to nothing, or a scanner that does not answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) why: String,
    pub(crate) since: Timestamp,
    /// It is not tried again before.
    pub(crate) until: Timestamp,
}

/// What is to be done with a message.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It may leave.
    Passed,
    /// It has a virus: somebody is ending it.
    Infected,
    /// It waits.
    Waits(Failure),
    /// It has to be scanned.
    Unknown,
}

impl Board {
    pub(crate) fn standing(&self, id: MessageId, now: Timestamp) -> Standing {
        let state = self.0.lock();
        if state.passed.iter().any(|passed| passed.contains(&id)) {
            return Standing::Passed;
        }
        if state.infected.get(&id).is_some_and(|until| *until > now) {
            return Standing::Infected;
        }
        let own = state.failed.get(&id).map(|(failure, _)| failure).filter(|failure| failure.until > now);
        own.or(state.down.as_ref()).map_or(Standing::Unknown, |failure| Standing::Waits(failure.clone()))
    }

    /// Since when a message is being scanned, or waits for its turn.
    pub(crate) fn under_way(&self, id: MessageId) -> Option<Timestamp> {
        self.0.lock().under_way.get(&id).copied()
    }

    /// Why a message waits that is not being scanned, where it is known. Nothing of one that may
    /// leave.
    pub(crate) fn failure(&self, id: MessageId) -> Option<Option<Failure>> {
        let state = self.0.lock();
        if state.passed.iter().any(|passed| passed.contains(&id)) {
            return None;
        }
        Some(state.failed.get(&id).map(|(failure, _)| failure).or(state.down.as_ref()).cloned())
    }

    /// Whether a scan of a message has come to nothing.
    pub(crate) fn has_failed(&self, id: MessageId) -> bool {
        self.0.lock().failed.contains_key(&id)
    }

    pub(crate) fn begins(&self, id: MessageId, now: Timestamp) {
        self.0.lock().under_way.entry(id).or_insert(now);
    }

    /// The scan is over, or will not be.
    pub(crate) fn ends(&self, id: MessageId) {
        self.0.lock().under_way.remove(&id);
    }

    pub(crate) fn passes(&self, id: MessageId) {
        let mut state = self.0.lock();
        state.failed.remove(&id);
        if state.passed[0].len() >= MOST / 2 {
            state.passed.swap(0, 1);
            state.passed[0].clear();
        }
        state.passed[0].insert(id);
    }

    pub(crate) fn is_infected(&self, id: MessageId, now: Timestamp) {
        let mut state = self.0.lock();
        state.failed.remove(&id);
        // It is out of the queue long before.
        if state.infected.len() >= MOST {
            state.infected.clear();
        }
        state.infected.insert(id, now.saturating_add(ENDING));
    }

    /// A scan has come to nothing. The message waits for `retry`, and for twice as long each
    /// further time.
    pub(crate) fn fails(&self, id: MessageId, why: String, retry: Duration, now: Timestamp) -> Failure {
        let mut state = self.0.lock();
        if state.failed.len() >= MOST {
            state.failed.retain(|_, (failure, _)| failure.until > now);
        }
        if state.failed.len() >= MOST {
            state.failed.clear();
        }
        let (since, times) = state.failed.get(&id).map_or((now, 0), |(known, times)| (known.since, *times));
        let wait = retry.saturating_mul(2_u32.saturating_pow(times)).min(LONGEST_WAIT.max(retry));
        let failure = Failure { why, since, until: now.saturating_add(wait) };
        state.failed.insert(id, (failure.clone(), times.saturating_add(1)));
        failure
    }

    /// The scanner does not answer. False when that was known.
    pub(crate) fn goes_down(&self, failure: Failure) -> bool {
        let mut state = self.0.lock();
        let is_news = state.down.is_none();
        let since = state.down.as_ref().map_or(failure.since, |known| known.since);
        state.down = Some(Failure { since, ..failure });
        is_news
    }

    /// The scanner answers. False when that was known.
    pub(crate) fn comes_up(&self) -> bool {
        self.0.lock().down.take().is_some()
    }

    /// Another scanner may be in force.
    pub(crate) fn forget_failures(&self) {
        let mut state = self.0.lock();
        state.failed.clear();
        state.down = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> MessageId {
        MessageId::new(1, Timestamp::from_millis(0), number)
    }

    fn failure(until: u64) -> Failure {
        Failure { why: "why".into(), since: Timestamp::from_millis(0), until: Timestamp::from_millis(until) }
    }

    #[test]
    fn a_failure_holds_for_a_message_until_its_time_and_for_all_while_the_scanner_is_down() {
        let (board, now) = (Board::default(), Timestamp::from_millis(5));
        board.fails(id(1), "why".into(), Duration::from_millis(1), now);
        assert!(matches!(board.standing(id(1), now), Standing::Waits(_)));
        assert!(matches!(board.standing(id(1), Timestamp::from_millis(6)), Standing::Unknown));
        assert!(matches!(board.standing(id(2), now), Standing::Unknown));
        assert!(board.goes_down(failure(9)) && !board.goes_down(failure(9)));
        assert!(matches!(board.standing(id(2), now), Standing::Waits(_)));
        board.passes(id(3));
        assert!(matches!(board.standing(id(3), now), Standing::Passed));
        assert!(board.failure(id(3)).is_none() && board.failure(id(2)).flatten().is_some());
        assert!(board.comes_up() && !board.comes_up());
        assert!(matches!(board.standing(id(2), now), Standing::Unknown));
    }

    #[test]
    fn a_message_waits_longer_each_time_and_what_is_being_ended_not_for_ever() {
        let (board, retry) = (Board::default(), Duration::from_secs(10));
        let mut now = Timestamp::from_millis(0);
        let mut waits = Vec::new();
        for _ in 0..40 {
            let failure = board.fails(id(1), "why".into(), retry, now);
            assert_eq!(failure.since, Timestamp::from_millis(0));
            waits.push(failure.until.saturating_since(now).as_secs());
            now = failure.until;
        }
        assert_eq!((&waits[..4], waits[39]), (&[10, 20, 40, 80][..], 3600));
        board.is_infected(id(1), now);
        assert!(!board.has_failed(id(1)) && matches!(board.standing(id(1), now), Standing::Infected));
        assert!(matches!(board.standing(id(1), now.saturating_add(ENDING)), Standing::Unknown));
    }

    #[test]
    fn what_has_passed_is_forgotten_in_the_end() {
        let board = Board::default();
        (0..=MOST as u128).for_each(|number| board.passes(id(number)));
        let standing = |number| board.standing(id(number), Timestamp::from_millis(0));
        assert!(matches!(standing(MOST as u128), Standing::Passed));
        assert!(matches!(standing(0), Standing::Unknown));
    }
}
