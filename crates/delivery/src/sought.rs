//! Domains whose hosts are being looked up, and the claims that wait for that.
//!
//! A claim that waits here has a share of the room that all domains share. So that
//! domains whose DNS hangs leave room for the others, each has few here, and there are no
//! more of them than twice those that are looked up at the same time. A domain whose hosts
//! are known and whose policy has yet to be fetched counts by itself, and takes no place
//! of those that ask the DNS. The rest waits in the spool; accounts have turns.

use std::collections::HashMap;
use std::sync::Arc;

use postrider_base::metrics::Held;
use postrider_mail::Domain;
use postrider_spool::QueueKey;

use crate::Shared;
use crate::ready::Parked;
use crate::settings::Limits;
use crate::site::Job;

/// Domains that are dealt with or next to be, for each that may be at the same time.
const DOMAINS_PER_PLACE: usize = 2;

/// All of them. While queues are beyond a bound there are domains within it, so that one
/// of those ends and lets the next ones in.
pub(crate) struct Sought {
    domains: HashMap<Domain, Waiting>,
    /// How many of them have their policy fetched.
    fetching: usize,
    /// Queues of further domains.
    beyond: Parked,
    /// Queues of domains whose hosts are known and whose policies would be too many.
    unfetched: Parked,
    shared: Arc<Shared>,
}

/// What waits for the hosts of one domain.
pub(crate) struct Waiting {
    /// Of the settings by which the domain is looked up.
    pub(crate) generation: u64,
    pub(crate) jobs: Vec<Job>,
    parked: Parked,
    is_fetching: bool,
    _counted: Held,
}

impl Sought {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (beyond, unfetched) = (Parked::default(), Parked::default());
        Self { domains: HashMap::new(), fetching: 0, beyond, unfetched, shared }
    }

    pub(crate) fn is_sought(&self, domain: &Domain) -> bool {
        self.domains.contains_key(domain)
    }

    /// Has a job wait for the hosts of its domain. True when somebody has to look them up.
    pub(crate) fn add(&mut self, job: Job, generation: u64, limits: &Limits) -> bool {
        let domain = job.claim.queue.domain.clone();
        let since = self.shared.clock.now();
        self.shared.seeking.lock().entry(domain.clone()).or_insert(since);
        let room = self.room(limits);
        if let Some(waiting) = self.domains.get_mut(&domain) {
            if waiting.jobs.len() < limits.ready_per_lookup {
                waiting.jobs.push(job);
            } else {
                park(&self.shared, &mut waiting.parked, job);
            }
            return false;
        }
        if room == 0 {
            park(&self.shared, &mut self.beyond, job);
            return false;
        }
        let waiting = Waiting {
            generation,
            jobs: vec![job],
            parked: Parked::default(),
            is_fetching: false,
            _counted: Held::new(&self.shared.metrics.outbound_sought),
        };
        self.domains.insert(domain, waiting);
        true
    }

    /// The DNS has said what the hosts of a domain are, and that it has a policy. True when
    /// somebody has to fetch that. With too many such domains what waits for this one is
    /// left in the spool, and it is looked up again when there are fewer.
    pub(crate) fn fetch(&mut self, domain: &Domain, limits: &Limits) -> bool {
        if self.fetching_room(limits) > 0
            && let Some(waiting) = self.domains.get_mut(domain)
        {
            waiting.is_fetching = true;
            self.fetching += 1;
            return true;
        }
        let Some(mut waiting) = self.domains.remove(domain) else { return false };
        waiting.jobs.into_iter().for_each(|job| park(&self.shared, &mut self.unfetched, job));
        self.unfetched.append(&mut waiting.parked);
        false
    }

    /// The hosts of a domain are known, or it is known that they are not: what waited for
    /// that. The queues that are left in the spool go on once it is dealt with.
    pub(crate) fn end(&mut self, domain: &Domain) -> Option<(Waiting, Vec<QueueKey>)> {
        self.shared.seeking.lock().remove(domain);
        let mut waiting = self.domains.remove(domain)?;
        self.fetching -= usize::from(waiting.is_fetching);
        let queues = std::iter::from_fn(|| waiting.parked.pop()).collect();
        Some((waiting, queues))
    }

    /// Lets queues of further domains come, as far as there is room for domains.
    pub(crate) fn let_in(&mut self, limits: &Limits) {
        if self.domains.is_empty() {
            // What comes need not be looked up any more, and then nothing ends that would
            // let in the others.
            return self.let_all_in();
        }
        for _ in 0..self.room(limits) {
            let Some(queue) = self.beyond.pop() else { break };
            self.unpark(&queue);
        }
        for _ in 0..self.fetching_room(limits) {
            let Some(queue) = self.unfetched.pop() else { break };
            self.unpark(&queue);
        }
    }

    /// Lets all of them come: their domains may have another way by now.
    pub(crate) fn let_all_in(&mut self) {
        while let Some(queue) = self.beyond.pop().or_else(|| self.unfetched.pop()) {
            self.unpark(&queue);
        }
    }

    /// Gives everything back, for the end.
    pub(crate) fn clear(&mut self) {
        self.domains.clear();
        self.fetching = 0;
    }

    fn room(&self, limits: &Limits) -> usize {
        let asking = self.domains.len() - self.fetching;
        limits.lookups.saturating_mul(DOMAINS_PER_PLACE).saturating_sub(asking)
    }

    fn fetching_room(&self, limits: &Limits) -> usize {
        limits.sts_fetches.saturating_mul(DOMAINS_PER_PLACE).saturating_sub(self.fetching)
    }

    fn unpark(&self, queue: &QueueKey) {
        if !self.is_sought(&queue.domain) {
            self.shared.seeking.lock().remove(&queue.domain);
        }
        self.shared.spool.unpark(queue);
    }
}

/// Leaves a job and its queue in the spool.
fn park(shared: &Shared, line: &mut Parked, job: Job) {
    let (queue, until) = (job.claim.queue.clone(), job.claim.message.expires_at);
    shared.spool.park(&queue);
    shared.metrics.outbound_sought_parked.inc();
    drop(job);
    line.add(queue, until);
}
