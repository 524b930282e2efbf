//! Domains whose hosts are being looked up, and the claims that wait for that.
//!
//! A claim that waits here has a share of the room that all domains share. So that
//! domains whose DNS hangs leave room for the others, each has few here, and there are no
//! more of them than twice those that are looked up at the same time; the rest waits in
//! the spool, in the order of coming.

use std::collections::HashMap;
use std::sync::Arc;

use postrider_base::metrics::Held;
use postrider_mail::Domain;
use postrider_spool::QueueKey;

use crate::Shared;
use crate::ready::Parked;
use crate::settings::Limits;
use crate::site::Job;

/// Domains looked up or next to be, for each that may be looked up at the same time.
const DOMAINS_PER_LOOKUP: usize = 2;

/// All of them.
pub(crate) struct Sought {
    domains: HashMap<Domain, Waiting>,
    /// Queues of further domains.
    beyond: Parked,
    shared: Arc<Shared>,
}

/// What waits for the hosts of one domain.
pub(crate) struct Waiting {
    /// Of the settings by which the domain is looked up.
    pub(crate) generation: u64,
    pub(crate) jobs: Vec<Job>,
    parked: Parked,
    _counted: Held,
}

impl Sought {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { domains: HashMap::new(), beyond: Parked::default(), shared }
    }

    pub(crate) fn is_sought(&self, domain: &Domain) -> bool {
        self.domains.contains_key(domain)
    }

    /// Has a job wait for the hosts of its domain. True when somebody has to look them up.
    pub(crate) fn add(&mut self, job: Job, generation: u64, limits: &Limits) -> bool {
        let queue = job.claim.queue.clone();
        let until = job.claim.message.expires_at;
        let since = self.shared.clock.now();
        self.shared.seeking.lock().entry(queue.domain.clone()).or_insert(since);
        let count = self.domains.len();
        if let Some(waiting) = self.domains.get_mut(&queue.domain) {
            if waiting.jobs.len() < limits.ready_per_lookup {
                waiting.jobs.push(job);
            } else {
                park(&self.shared, &queue);
                waiting.parked.add(queue, until);
            }
            return false;
        }
        if count >= limits.lookups.saturating_mul(DOMAINS_PER_LOOKUP) {
            park(&self.shared, &queue);
            self.beyond.add(queue, until);
            return false;
        }
        let waiting = Waiting {
            generation,
            jobs: vec![job],
            parked: Parked::default(),
            _counted: Held::new(&self.shared.metrics.outbound_sought),
        };
        self.domains.insert(queue.domain, waiting);
        true
    }

    /// The hosts of a domain are known, or it is known that they are not: what waited for
    /// that. The queues that are left in the spool go on once it is dealt with.
    pub(crate) fn end(&mut self, domain: &Domain) -> Option<(Waiting, Vec<QueueKey>)> {
        self.shared.seeking.lock().remove(domain);
        let mut waiting = self.domains.remove(domain)?;
        let queues = std::iter::from_fn(|| waiting.parked.pop()).collect();
        Some((waiting, queues))
    }

    /// Lets queues of further domains come, as far as there is room for domains.
    pub(crate) fn let_in(&mut self, limits: &Limits) {
        let room = limits.lookups.saturating_mul(DOMAINS_PER_LOOKUP).saturating_sub(self.domains.len());
        for _ in 0..room {
            let Some(queue) = self.beyond.pop() else { return };
            self.shared.seeking.lock().remove(&queue.domain);
            self.shared.spool.unpark(&queue);
        }
    }

    /// Gives everything back, for the end.
    pub(crate) fn clear(&mut self) {
        self.domains.clear();
    }
}

/// Leaves a queue in the spool.
fn park(shared: &Shared, queue: &QueueKey) {
    shared.spool.park(queue);
    shared.metrics.outbound_sought_parked.inc();
}
