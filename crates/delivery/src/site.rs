//! The ready queue and the connections of one lane of a site, which some domains
//! share.
//!
//! Claims are handed straight to a waiting connection; without one a new
//! connection is asked for, up to the site's limit; at the limit they wait in
//! the ready queue; with that full their queue is parked in the spool until
//! there is room. Nothing here polls.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::Timestamp;
use postrider_spool::{Claim, QueueKey, Spool};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::SiteView;
use crate::lane::Lane;
use crate::settings::Limits;
use crate::target::Target;

/// A site grows by one connection with so many messages taken.
const GROWTH: u64 = 10;

/// A claim on its way.
pub(crate) struct Job {
    pub(crate) claim: Claim,
    /// Its share of what delivery holds at all.
    pub(crate) room: OwnedSemaphorePermit,
}

/// The sites that are in use, by generation of the settings and lane.
pub(crate) struct Sites {
    map: Mutex<HashMap<SiteKey, Arc<Site>>>,
    spool: Spool,
}

/// Generation and lane.
type SiteKey = (u64, Lane);

impl Sites {
    pub(crate) fn new(spool: Spool) -> Self {
        Self { map: Mutex::default(), spool }
    }

    /// Hands a job to its lane of the target. Returns the site when it wants one
    /// more connection, which is already counted.
    pub(crate) fn push(
        &self,
        generation: u64,
        target: &Arc<Target>,
        lane: Lane,
        limits: &Limits,
        job: Job,
    ) -> Option<Arc<Site>> {
        let mut map = self.map.lock();
        let site = map.entry((generation, lane)).or_insert_with_key(|(_, lane)| {
            Arc::new(Site::new(generation, target.clone(), lane.clone(), limits, self.spool.clone()))
        });
        // Inside the lock, so that a site is not forgotten with a job in it.
        site.push(job).then(|| site.clone())
    }

    /// Forgets a site that nothing uses any more.
    pub(crate) fn tidy(&self, site: &Arc<Site>) {
        let mut map = self.map.lock();
        if site.state.lock().is_unused() {
            map.remove(&(site.generation, site.lane.clone()));
        }
    }

    /// Returns all claims that wait, for the end.
    pub(crate) fn clear(&self) {
        let sites: Vec<_> = self.map.lock().drain().map(|(_, site)| site).collect();
        for site in sites {
            drop(site.give_up());
        }
    }

    pub(crate) fn views(&self) -> Vec<SiteView> {
        let sites: Vec<_> = self.map.lock().values().cloned().collect();
        let mut views: Vec<_> = sites.iter().map(|site| site.view()).collect();
        views.sort_by(|a, b| (&a.name, &a.source).cmp(&(&b.name, &b.source)));
        views
    }
}

/// What waits for some hosts in one lane, and its connections.
pub(crate) struct Site {
    generation: u64,
    pub(crate) target: Arc<Target>,
    pub(crate) lane: Lane,
    ready_limit: usize,
    most_connections: usize,
    spool: Spool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Job>,
    parked: VecDeque<QueueKey>,
    is_parked: HashSet<QueueKey>,
    /// Connections without a message, the one used last at the end.
    waiting: Vec<oneshot::Sender<Job>>,
    /// Open or being opened.
    connections: usize,
    /// How many there may be.
    limit: usize,
    delivered: u64,
    last_refusal: Option<(Timestamp, String)>,
}

impl State {
    /// Gives a job to a connection that waits, the one used last first, so
    /// that those in excess idle out. Returned when none does.
    fn hand_over(&mut self, mut job: Job) -> Option<Job> {
        while let Some(connection) = self.waiting.pop() {
            match connection.send(job) {
                Ok(()) => return None,
                Err(back) => job = back,
            }
        }
        Some(job)
    }

    fn is_unused(&self) -> bool {
        self.connections == 0 && self.ready.is_empty() && self.parked.is_empty()
    }
}

impl Site {
    fn new(generation: u64, target: Arc<Target>, lane: Lane, limits: &Limits, spool: Spool) -> Self {
        let (first, most) = if target.is_found_by_dns() {
            (limits.initial_connections_per_site, limits.connections_per_site)
        } else {
            (limits.connections_per_route, limits.connections_per_route)
        };
        Self {
            generation,
            target,
            lane,
            ready_limit: limits.ready_per_site,
            most_connections: most,
            spool,
            state: Mutex::new(State { limit: first, ..State::default() }),
        }
    }

    /// True when one more connection is to be opened, which is counted already.
    fn push(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        let Some(job) = state.hand_over(job) else { return false };
        if state.ready.len() >= self.ready_limit {
            self.park(&mut state, job);
            return false;
        }
        state.ready.push_back(job);
        let wanted = state.connections < state.limit;
        state.connections += usize::from(wanted);
        wanted
    }

    /// Gives the claim back and takes nothing more from its queue. Under the
    /// lock, so that it cannot overtake the unparking.
    fn park(&self, state: &mut State, job: Job) {
        let queue = job.claim.queue.clone();
        self.spool.park(&queue);
        drop(job);
        if state.is_parked.insert(queue.clone()) {
            state.parked.push_back(queue);
        }
    }

    /// Lets parked queues go on as far as there is room: all of them when
    /// nothing is ready, for a queue may have nothing left.
    fn unpark(&self, state: &mut State) {
        if state.ready.len() > self.ready_limit / 2 {
            return;
        }
        let room = if state.ready.is_empty() { usize::MAX } else { self.ready_limit - state.ready.len() };
        for _ in 0..room {
            let Some(queue) = state.parked.pop_front() else { break };
            state.is_parked.remove(&queue);
            self.spool.unpark(&queue);
        }
    }

    /// The next job for a connection that waits at most `idle` for it.
    pub(crate) async fn next(&self, idle: Duration) -> Option<Job> {
        let mut handed = {
            let mut state = self.state.lock();
            if let Some(job) = self.pop(&mut state) {
                return Some(job);
            }
            if idle.is_zero() {
                return None;
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push(sender);
            receiver
        };
        if let Ok(job) = tokio::time::timeout(idle, &mut handed).await {
            return job.ok();
        }
        let mut state = self.state.lock();
        handed.close();
        if let Ok(job) = handed.try_recv() {
            return Some(job);
        }
        state.waiting.retain(|waiting| !waiting.is_closed());
        self.pop(&mut state)
    }

    fn pop(&self, state: &mut State) -> Option<Job> {
        let job = state.ready.pop_front();
        if !state.parked.is_empty() {
            self.unpark(state);
        }
        job
    }

    /// A connection could not be opened. While there are others that is a
    /// limit of the site and no failure: it takes the job back. The last one
    /// gets it returned.
    pub(crate) fn take_back(&self, job: Job) -> Option<Job> {
        let mut state = self.state.lock();
        let others = state.connections - 1;
        if others == 0 {
            return Some(job);
        }
        state.limit = others;
        if let Some(job) = state.hand_over(job) {
            state.ready.push_front(job);
        }
        None
    }

    /// Everything that is ready, because the site cannot be reached.
    pub(crate) fn drain(&self) -> VecDeque<Job> {
        let mut state = self.state.lock();
        let jobs = std::mem::take(&mut state.ready);
        self.unpark(&mut state);
        jobs
    }

    /// As [`Site::drain`], and all parked queues are let go.
    fn give_up(&self) -> VecDeque<Job> {
        let jobs = self.drain();
        self.state.lock().waiting.clear();
        jobs
    }

    /// A connection's task ends. True when another one may and has to take its
    /// place, which is counted already.
    pub(crate) fn left(&self, may_be_replaced: bool) -> bool {
        let mut state = self.state.lock();
        state.connections -= 1;
        let wanted = may_be_replaced && !state.ready.is_empty() && state.connections < state.limit;
        state.connections += usize::from(wanted);
        wanted
    }

    /// The site has taken a message.
    pub(crate) fn delivered(&self) {
        let mut state = self.state.lock();
        state.delivered += 1;
        if state.limit < self.most_connections && state.delivered.is_multiple_of(GROWTH) {
            state.limit += 1;
        }
    }

    /// The site has said something that is not a success. True when it has not
    /// just said the same.
    pub(crate) fn refused(&self, at: Timestamp, text: &str) -> bool {
        let mut state = self.state.lock();
        let is_new = state.last_refusal.as_ref().is_none_or(|(_, last)| last != text);
        match &mut state.last_refusal {
            Some((last_at, _)) if !is_new => *last_at = at,
            last => *last = Some((at, text.to_owned())),
        }
        is_new
    }

    fn view(&self) -> SiteView {
        let state = self.state.lock();
        SiteView {
            name: self.lane.site.to_string(),
            source: self.lane.source.as_ref().map(|source| source.name.to_string()),
            demand: self.lane.demand,
            ready: state.ready.len(),
            parked: state.parked.len(),
            connections: state.connections,
            idle: state.waiting.len(),
            limit: state.limit,
            delivered: state.delivered,
            last_refusal: state.last_refusal.clone(),
        }
    }
}
