//! Queues that wait for long, and are looked through: the spool sets only so many messages of
//! a queue aside, and none of a parked one, so that what is behind those would expire unseen.

use std::collections::HashSet;
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_spool::QueueKey;

use crate::ready::Parked;

/// A queue that has waited for so long is looked through: what waits for less long is not
/// worth reading all of it.
const AFTER: Duration = Duration::from_secs(10 * 60);

/// For so long, or until it is let go, it is gone past each message of it that has to wait. More
/// than it takes to read a million.
const LASTS: Duration = Duration::from_secs(60 * 60);

/// The queues of one lane that wait, as far as it has seen them.
#[derive(Default)]
pub(super) struct LookThrough {
    /// Of these it has seen the first messages, and when the others are to be.
    unseen: Parked,
    /// These are gone through, until then.
    open: Parked,
    /// In these something was gone past: they have to be read again when they are let go.
    passed: HashSet<QueueKey>,
}

impl LookThrough {
    /// A message of this queue has to wait. Whether the queue is gone past it.
    pub(super) fn passes(&mut self, queue: &QueueKey, now: Timestamp) -> bool {
        if self.open.holds(queue) {
            self.passed.insert(queue.clone());
            return true;
        }
        if !self.unseen.holds(queue) {
            self.unseen.add(queue.clone(), now.saturating_add(AFTER));
        }
        false
    }

    /// The queues that are to be gone through from now on.
    pub(super) fn begin(&mut self, now: Timestamp) -> Vec<QueueKey> {
        self.open.over(now);
        let unseen = self.unseen.over(now);
        unseen.iter().for_each(|queue| self.open(queue, now));
        unseen
    }

    /// When [`LookThrough::begin`] is to be asked next.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.unseen.earliest().into_iter().chain(self.open.earliest()).min()
    }

    /// The time of what waits in this queue has come. Where something was gone past, which is
    /// the answer, it is gone through again.
    pub(super) fn goes_on(&mut self, queue: &QueueKey, now: Timestamp) -> bool {
        let is_passed = self.passed.contains(queue);
        if is_passed {
            self.open(queue, now);
        }
        is_passed
    }

    /// Nothing of this queue is gone past at the moment.
    pub(super) fn is_read(&mut self, queue: &QueueKey) {
        self.passed.remove(queue);
    }

    /// A queue waits no more. Whether something of it was gone past.
    pub(super) fn end(&mut self, queue: &QueueKey) -> bool {
        self.unseen.remove(queue);
        self.open.remove(queue);
        self.passed.remove(queue)
    }

    fn open(&mut self, queue: &QueueKey, now: Timestamp) {
        self.open.remove(queue);
        self.open.add(queue.clone(), now.saturating_add(LASTS));
    }
}

#[cfg(test)]
mod tests {
    use postrider_mail::AccountId;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn queue() -> QueueKey {
        QueueKey { account: AccountId::default(), domain: "example.com".parse().unwrap() }
    }

    #[test]
    fn a_queue_is_gone_through_once_it_has_waited_long_enough() {
        let (mut through, queue) = (LookThrough::default(), queue());
        assert!(!through.passes(&queue, START));
        // A second message changes nothing.
        assert!(!through.passes(&queue, START.saturating_add(AFTER / 2)));
        let at = through.earliest().unwrap();
        assert_eq!(at, START.saturating_add(AFTER));
        assert_eq!(through.begin(at), std::slice::from_ref(&queue));
        assert!(through.passes(&queue, at));
        assert!(through.end(&queue) && through.earliest().is_none());
        assert!(!through.passes(&queue, at), "let go, it begins anew");
        assert!(!through.end(&queue));
    }

    #[test]
    fn it_stays_open_for_a_while_and_opens_again_for_what_was_gone_past() {
        let (mut through, queue) = (LookThrough::default(), queue());
        through.passes(&queue, START);
        let opened = through.earliest().unwrap();
        through.begin(opened);
        assert!(!through.goes_on(&queue, opened.saturating_add(LASTS / 2)));
        assert_eq!(through.earliest(), Some(opened.saturating_add(LASTS)), "nothing was gone past");
        assert!(through.passes(&queue, opened));
        let closed = opened.saturating_add(LASTS);
        assert!(through.begin(closed).is_empty() && through.earliest().is_none());
        assert!(through.goes_on(&queue, closed));
        assert!(through.passes(&queue, closed));
        through.is_read(&queue);
        assert!(!through.goes_on(&queue, closed) && !through.end(&queue));
    }
}
