//! What waits inside delivery: jobs for a connection, and queues of the spool for
//! room or for a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use postrider_base::Timestamp;
use postrider_mail::{AccountId, Domain, MessageId};
use postrider_spool::{QueueKey, Turns};

use crate::site::Job;

/// Jobs that wait for a connection: accounts in turn, and domains in turn within
/// each, so that nobody's thousand messages stand before another's one.
#[derive(Default)]
pub(crate) struct Ready {
    jobs: Turns<AccountId, Turns<Domain, VecDeque<Waiting>>>,
    len: usize,
    /// No job is overdue before this.
    earliest: Option<Timestamp>,
}

struct Waiting {
    job: Job,
    /// How long it may wait.
    until: Timestamp,
}

impl Ready {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a job, which may wait for as long as its patience lasts, or until `chance` if
    /// that is later.
    pub(crate) fn push(&mut self, job: Job, chance: Timestamp) {
        let until = self.count(&job, chance);
        self.queue(&job).push_back(Waiting { job, until });
    }

    /// As [`Ready::push`], before the others of its queue.
    pub(crate) fn push_front(&mut self, job: Job, chance: Timestamp) {
        let until = self.count(&job, chance);
        self.queue(&job).push_front(Waiting { job, until });
    }

    fn count(&mut self, job: &Job, chance: Timestamp) -> Timestamp {
        let until = job.patience().max(chance);
        self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
        self.len += 1;
        until
    }

    fn queue(&mut self, job: &Job) -> &mut VecDeque<Waiting> {
        let QueueKey { account, domain } = &job.claim.queue;
        self.jobs.of(account).of(domain)
    }

    pub(crate) fn pop(&mut self) -> Option<Job> {
        let taken = self.jobs.next(|_, domains| {
            let taken = domains.next(|_, jobs| (jobs.pop_front(), !jobs.is_empty()));
            (taken.flatten(), !domains.is_empty())
        });
        let waiting = taken.flatten()?;
        self.len -= 1;
        Some(waiting.job)
    }

    /// How many jobs of its own queue are before the one of a message.
    pub(crate) fn before(&self, queue: &QueueKey, id: MessageId) -> Option<usize> {
        let mut jobs = self.jobs.get(&queue.account)?.get(&queue.domain)?.iter();
        jobs.position(|waiting| waiting.job.claim.id == id)
    }

    /// When [`Ready::overdue`] is to be asked next.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.earliest
    }

    /// The jobs whose time is over.
    pub(crate) fn overdue(&mut self, now: Timestamp) -> Vec<Job> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let (mut overdue, mut earliest) = (Vec::new(), None::<Timestamp>);
        self.jobs.retain(|domains| {
            domains.retain(|jobs| {
                for waiting in std::mem::take(jobs) {
                    if waiting.until <= now {
                        overdue.push(waiting.job);
                    } else {
                        earliest = Some(earliest.map_or(waiting.until, |earliest| earliest.min(waiting.until)));
                        jobs.push_back(waiting);
                    }
                }
                !jobs.is_empty()
            });
            !domains.is_empty()
        });
        (self.len, self.earliest) = (self.len - overdue.len(), earliest);
        overdue
    }
}

/// Queues of the spool that nothing is taken from for a while. Accounts have their turns,
/// and the queues of one go in the order in which they came. Nothing here costs more with
/// more queues, but for [`Parked::take_if`].
#[derive(Default)]
pub(crate) struct Parked {
    /// By the number of coming. The line of an account may be empty.
    order: Turns<AccountId, BTreeMap<u64, QueueKey>>,
    /// The number of each, and when it is to be looked at again, whatever happens.
    places: HashMap<QueueKey, (u64, Timestamp)>,
    times: BTreeSet<(Timestamp, QueueKey)>,
    added: u64,
}

impl Parked {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds a queue. One that is there already is looked at at the earlier time.
    pub(crate) fn add(&mut self, queue: QueueKey, until: Timestamp) {
        if let Some((_, known)) = self.places.get_mut(&queue) {
            if until < *known {
                self.times.remove(&(*known, queue.clone()));
                *known = until;
                self.times.insert((until, queue));
            }
            return;
        }
        self.added += 1;
        self.order.of(&queue.account).insert(self.added, queue.clone());
        self.times.insert((until, queue.clone()));
        self.places.insert(queue, (self.added, until));
    }

    /// Lets those go that `is_meant`.
    pub(crate) fn take_if(&mut self, is_meant: impl Fn(&QueueKey) -> bool) -> Vec<QueueKey> {
        let meant = self.places.iter().filter(|(queue, _)| is_meant(queue));
        let mut meant: Vec<_> = meant.map(|(queue, (number, _))| (*number, queue.clone())).collect();
        meant.sort_unstable();
        for (_, queue) in &meant {
            self.remove(queue);
        }
        meant.into_iter().map(|(_, queue)| queue).collect()
    }

    /// Lets the next one go.
    pub(crate) fn pop(&mut self) -> Option<QueueKey> {
        self.next().map(|(queue, _)| queue)
    }

    /// Adds all of others.
    pub(crate) fn append(&mut self, others: &mut Self) {
        while let Some((queue, until)) = others.next() {
            self.add(queue, until);
        }
    }

    fn next(&mut self) -> Option<(QueueKey, Timestamp)> {
        loop {
            let next = self.order.next(|_, line| (line.pop_first(), !line.is_empty()))?;
            if let Some((_, queue)) = next {
                let until = self.remove(&queue)?;
                return Some((queue, until));
            }
        }
    }

    pub(crate) fn holds(&self, queue: &QueueKey) -> bool {
        self.places.contains_key(queue)
    }

    /// When [`Parked::over`] is to be asked next.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.times.first().map(|(until, _)| *until)
    }

    /// Lets those go whose time has come.
    pub(crate) fn over(&mut self, now: Timestamp) -> Vec<QueueKey> {
        let mut over = Vec::new();
        while let Some((_, queue)) = self.times.first().filter(|(until, _)| *until <= now) {
            let queue = queue.clone();
            self.remove(&queue);
            over.push(queue);
        }
        over
    }

    /// Lets one go; until when it would have been here, if it was.
    pub(crate) fn remove(&mut self, queue: &QueueKey) -> Option<Timestamp> {
        let (number, until) = self.places.remove(queue)?;
        self.times.remove(&(until, queue.clone()));
        if self.places.is_empty() {
            // The empty lines, too.
            self.order = Turns::default();
        } else {
            self.order.of(&queue.account).remove(&number);
        }
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(account: u64, domain: &str) -> QueueKey {
        QueueKey { account: AccountId::new(account).unwrap(), domain: domain.parse().unwrap() }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn parked(queues: &[(u64, &str, u64)]) -> Parked {
        let mut parked = Parked::default();
        queues.iter().for_each(|(account, domain, until)| parked.add(queue(*account, domain), at(*until)));
        parked
    }

    fn rest(mut parked: Parked) -> Vec<String> {
        let queues = std::iter::from_fn(|| parked.pop());
        let rest = queues.map(|queue| queue.domain.to_string()).collect();
        assert!(parked.is_empty() && parked.earliest().is_none());
        rest
    }

    #[test]
    fn accounts_have_turns_and_their_queues_go_as_they_came() {
        let parked = parked(&[(1, "c.example", 9), (1, "b.example", 8), (1, "a.example", 7), (2, "d.example", 6)]);
        assert_eq!(rest(parked), ["c.example", "d.example", "b.example", "a.example"]);
    }

    #[test]
    fn a_queue_is_over_at_the_earliest_time_that_it_was_added_with() {
        let mut parked =
            parked(&[(1, "a.example", 50), (1, "b.example", 20), (1, "a.example", 10), (1, "a.example", 90)]);
        assert_eq!((parked.len(), parked.earliest()), (2, Some(at(10))));
        assert!(parked.over(at(9)).is_empty());
        assert_eq!(parked.over(at(10)), [queue(1, "a.example")]);
        assert!(!parked.holds(&queue(1, "a.example")) && parked.holds(&queue(1, "b.example")));
        // Back again, it comes after the others.
        parked.add(queue(1, "a.example"), at(60));
        assert_eq!(parked.earliest(), Some(at(20)));
        assert_eq!(rest(parked), ["b.example", "a.example"]);
    }

    #[test]
    fn those_that_are_meant_go_as_they_came_and_the_others_keep_their_places() {
        let mut parked = parked(&[(1, "b.example", 1), (2, "x.example", 2), (1, "c.example", 3), (1, "a.example", 4)]);
        let taken = parked.take_if(|queue| queue.domain.as_str() < "c");
        assert_eq!(taken, [queue(1, "b.example"), queue(1, "a.example")]);
        assert_eq!(parked.earliest(), Some(at(2)));
        assert!(parked.take_if(|_| false).is_empty());
        assert_eq!(rest(parked), ["c.example", "x.example"]);
    }
}
