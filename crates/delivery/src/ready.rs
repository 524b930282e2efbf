//! What waits inside delivery: jobs for a connection, and queues of the spool for
//! room or for a time.

use std::collections::{HashMap, VecDeque};

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
    /// No job expires before this.
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

    /// Adds a job, which may wait until its message expires, or until `chance` if
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
        let until = job.claim.message.expires_at.max(chance);
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

    /// When [`Ready::expired`] is to be asked next.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.earliest
    }

    /// The jobs whose time is over.
    pub(crate) fn expired(&mut self, now: Timestamp) -> Vec<Job> {
        let (mut expired, mut earliest) = (Vec::new(), None::<Timestamp>);
        self.jobs.retain(|domains| {
            domains.retain(|jobs| {
                for waiting in std::mem::take(jobs) {
                    if waiting.until <= now {
                        expired.push(waiting.job);
                    } else {
                        earliest = Some(earliest.map_or(waiting.until, |earliest| earliest.min(waiting.until)));
                        jobs.push_back(waiting);
                    }
                }
                !jobs.is_empty()
            });
            !domains.is_empty()
        });
        (self.len, self.earliest) = (self.len - expired.len(), earliest);
        expired
    }
}

/// Queues of the spool that nothing is taken from for a while.
#[derive(Default)]
pub(crate) struct Parked {
    order: VecDeque<QueueKey>,
    /// When each is to be looked at again, whatever happens.
    until: HashMap<QueueKey, Timestamp>,
    /// None before this.
    earliest: Option<Timestamp>,
}

impl Parked {
    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// Adds a queue. One that is there already is looked at at the earlier time.
    pub(crate) fn add(&mut self, queue: QueueKey, until: Timestamp) {
        let known = self.until.entry(queue.clone()).or_insert_with(|| {
            self.order.push_back(queue);
            until
        });
        *known = until.min(*known);
        self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
    }

    /// Lets those go that `is_meant`.
    pub(crate) fn take_if(&mut self, is_meant: impl Fn(&QueueKey) -> bool) -> VecDeque<QueueKey> {
        self.until.retain(|queue, _| !is_meant(queue));
        self.rest()
    }

    /// Lets the first one go.
    pub(crate) fn pop(&mut self) -> Option<QueueKey> {
        let queue = self.order.pop_front()?;
        self.until.remove(&queue);
        Some(queue)
    }

    pub(crate) fn holds(&self, queue: &QueueKey) -> bool {
        self.until.contains_key(queue)
    }

    /// When [`Parked::over`] is to be asked next.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.earliest
    }

    /// Lets those go whose time has come.
    pub(crate) fn over(&mut self, now: Timestamp) -> VecDeque<QueueKey> {
        self.until.retain(|_, until| *until > now);
        self.rest()
    }

    /// Those whose time is not kept any more.
    fn rest(&mut self) -> VecDeque<QueueKey> {
        let is_known = |queue: &QueueKey| self.until.contains_key(queue);
        let (kept, gone): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.order).into_iter().partition(is_known);
        self.order = kept;
        self.earliest = self.until.values().min().copied();
        gone
    }
}
