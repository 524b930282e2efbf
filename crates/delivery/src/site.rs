//! The ready queue and the connections of one lane of a site, which some domains
//! share.
//!
//! Claims are handed straight to a waiting connection; without one a new
//! connection is asked for, up to the lane's limit; at the limit they wait in
//! the ready queue; with that full their queue is parked in the spool until
//! there is room. A claim that has waited here until its message expired is
//! given out as that. Nothing here polls.
//!
//! A lane that has not proved itself holds little: one connection until a host
//! has greeted us, and few claims until messages are taken. So any number of
//! dead or hanging sites leave room for the living ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Clock, Timestamp};
use postrider_spool::{Claim, Spool};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::SiteView;
use crate::alarm::Alarms;
use crate::lane::Lane;
use crate::ready::{Parked, Ready};
use crate::settings::Limits;
use crate::target::Target;
use crate::walk::Refused;

/// A site grows by one connection with so many messages taken.
const GROWTH: u64 = 10;

/// Claims that a lane may hold before it has taken a message, and by how many
/// more with each message that it took.
const FIRST_READY: usize = 16;
const READY_GROWTH: usize = 4;

/// How long a claim may wait here at least, from when it is due, or its connection
/// is opened: the last attempt is due just when the message expires.
const LAST_CHANCE: Duration = Duration::from_secs(60);

/// How long it is remembered that a site could not be reached, for the claims that
/// were due by then.
const DOWN: Duration = Duration::from_secs(60);

/// A claim on its way.
pub(crate) struct Job {
    pub(crate) claim: Claim,
    /// Its share of what delivery holds at all.
    pub(crate) room: OwnedSemaphorePermit,
}

/// The sites that are in use, by generation of the settings and lane.
pub(crate) struct Sites {
    map: Mutex<HashMap<SiteKey, Arc<Site>>>,
    around: Arc<Around>,
    made: AtomicU64,
}

/// What all sites work with.
struct Around {
    spool: Spool,
    clock: Clock,
    alarms: Alarms<Site>,
}

/// Generation and lane.
type SiteKey = (u64, Lane);

/// What became of a job that was handed to a site.
pub(crate) enum Pushed {
    /// It is on its way, or waits.
    Taken,
    /// As that, and the site wants one more connection, which is counted already.
    Opens(Arc<Site>),
    /// There is no room for it, and its message's time is over.
    Expired(Expired),
    /// The site could not be reached since the job was due.
    Unreachable(Arc<Site>, Job, Refused),
}

/// A job whose message's time is over.
pub(crate) struct Expired {
    pub(crate) job: Job,
    /// What the site said last, if that was no success.
    pub(crate) said: Option<String>,
}

impl Sites {
    pub(crate) fn new(spool: Spool, clock: Clock) -> Self {
        let alarms = Alarms::new(clock.clone());
        Self { map: Mutex::default(), around: Arc::new(Around { spool, clock, alarms }), made: AtomicU64::new(0) }
    }

    /// Hands a job to its lane of the target.
    pub(crate) fn push(&self, generation: u64, target: &Arc<Target>, lane: Lane, limits: &Limits, job: Job) -> Pushed {
        let mut map = self.map.lock();
        let site = self.site(&mut map, generation, target, lane, limits);
        // Inside the lock, so that a site is not forgotten with a job in it.
        site.push(job)
    }

    fn site<'m>(
        &self,
        map: &'m mut HashMap<SiteKey, Arc<Site>>,
        generation: u64,
        target: &Arc<Target>,
        lane: Lane,
        limits: &Limits,
    ) -> &'m Arc<Site> {
        map.entry((generation, lane)).or_insert_with_key(|(_, lane)| {
            let id = self.made.fetch_add(1, Ordering::Relaxed);
            Arc::new_cyclic(|this| Site {
                this: this.clone(),
                id,
                generation,
                target: target.clone(),
                lane: lane.clone(),
                bounds: Bounds::new(target, limits),
                around: self.around.clone(),
                state: Mutex::new(State { limit: Bounds::new(target, limits).first_connections, ..State::default() }),
            })
        })
    }

    /// Waits until sites have jobs whose time is over, or queues that are to be
    /// looked at again; the sites.
    pub(crate) async fn alarm(&self) -> Vec<Arc<Site>> {
        self.around.alarms.next().await
    }

    /// Forgets a site that nothing uses any more.
    pub(crate) fn tidy(&self, site: &Arc<Site>) {
        let mut map = self.map.lock();
        let mut state = site.state.lock();
        if state.is_unused() {
            self.around.alarms.set(site.id, state.alarm.take(), None, &site.this);
            map.remove(&(site.generation, site.lane.clone()));
        }
    }

    /// Returns all claims that wait, for the end.
    pub(crate) fn clear(&self) {
        let sites: Vec<_> = self.map.lock().drain().map(|(_, site)| site).collect();
        sites.iter().for_each(|site| site.give_up());
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
    this: Weak<Site>,
    id: u64,
    generation: u64,
    pub(crate) target: Arc<Target>,
    pub(crate) lane: Lane,
    bounds: Bounds,
    around: Arc<Around>,
    state: Mutex<State>,
}

/// The settings' bounds, as they are for the target.
struct Bounds {
    ready: usize,
    first_connections: usize,
    connections: usize,
}

impl Bounds {
    fn new(target: &Target, limits: &Limits) -> Self {
        let (first_connections, connections) = match target.is_found_by_dns() {
            true => (limits.initial_connections_per_site, limits.connections_per_site),
            false => (limits.connections_per_route, limits.connections_per_route),
        };
        Self { ready: limits.ready_per_site, first_connections, connections }
    }
}

#[derive(Default)]
struct State {
    ready: Ready,
    /// Queues that wait for room.
    parked: Parked,
    /// When the site is to be woken.
    alarm: Option<Timestamp>,
    /// A host has greeted us.
    is_greeted: bool,
    down: Option<Down>,
    /// Connections without a message, the one used last at the end.
    waiting: Vec<oneshot::Sender<Job>>,
    /// Open or being opened.
    connections: usize,
    /// How many there may be.
    limit: usize,
    delivered: u64,
    last_refusal: Option<(Timestamp, String)>,
}

/// The site could not be reached.
struct Down {
    at: Timestamp,
    refused: Refused,
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

    fn said(&self) -> Option<String> {
        self.last_refusal.as_ref().map(|(_, text)| text.clone())
    }

    fn is_unused(&self) -> bool {
        self.connections == 0 && self.ready.is_empty() && self.parked.is_empty() && self.down.is_none()
    }
}

impl Site {
    fn push(&self, job: Job) -> Pushed {
        let mut state = self.state.lock();
        let Some(job) = state.hand_over(job) else { return Pushed::Taken };
        if let Some((down, this)) = state.down.as_ref().zip(self.this.upgrade())
            && job.claim.ready_since <= down.at
        {
            return Pushed::Unreachable(this, job, down.refused.clone());
        }
        if state.ready.len() >= self.room(&state) {
            let now = self.around.clock.now();
            if job.claim.message.expires_at <= now {
                return Pushed::Expired(Expired { job, said: state.said() });
            }
            self.park(&mut state, job);
            return Pushed::Taken;
        }
        let limit = if state.is_greeted { state.limit } else { 1 };
        let is_wanted = state.connections < limit;
        state.connections += usize::from(is_wanted);
        let since = if is_wanted { self.around.clock.now() } else { job.claim.ready_since };
        state.ready.push(job, since.saturating_add(LAST_CHANCE));
        self.set_alarm(&mut state);
        match self.this.upgrade().filter(|_| is_wanted) {
            Some(this) => Pushed::Opens(this),
            None => Pushed::Taken,
        }
    }

    /// How many claims may wait for a connection.
    fn room(&self, state: &State) -> usize {
        let taken = usize::try_from(state.delivered).unwrap_or(usize::MAX);
        taken.saturating_mul(READY_GROWTH).saturating_add(FIRST_READY).min(self.bounds.ready)
    }

    /// Has the site woken when the first one's time is over.
    fn set_alarm(&self, state: &mut State) {
        let forgotten = state.down.as_ref().map(|down| down.at.saturating_add(DOWN));
        let at = [state.ready.earliest(), state.parked.earliest(), forgotten].into_iter().flatten().min();
        if at != state.alarm {
            self.around.alarms.set(self.id, state.alarm, at, &self.this);
            state.alarm = at;
        }
    }

    /// The alarm has gone off: the jobs whose time is over. Queues are let go whose
    /// first message's time is over, so that it comes here.
    pub(crate) fn ring(&self) -> Vec<Expired> {
        let now = self.around.clock.now();
        let mut state = self.state.lock();
        state.alarm = None;
        state.down.take_if(|down| down.at.saturating_add(DOWN) <= now);
        for queue in state.parked.over(now) {
            self.around.spool.unpark(&queue);
        }
        let expired = state.ready.expired(now);
        self.unpark(&mut state);
        self.set_alarm(&mut state);
        expired.into_iter().map(|job| Expired { job, said: state.said() }).collect()
    }

    /// Gives the claim back and takes nothing more from its queue. Under the
    /// lock, so that it cannot overtake the unparking.
    fn park(&self, state: &mut State, job: Job) {
        let (queue, until) = (job.claim.queue.clone(), job.claim.message.expires_at);
        self.around.spool.park(&queue);
        drop(job);
        state.parked.add(queue, until);
        self.set_alarm(state);
    }

    /// Lets parked queues go on as far as there is room: all of them when
    /// nothing is ready, for a queue may have nothing left.
    fn unpark(&self, state: &mut State) {
        let room = self.room(state);
        if state.parked.is_empty() || state.ready.len() > room / 2 {
            return;
        }
        let room = if state.ready.is_empty() { usize::MAX } else { room - state.ready.len() };
        for _ in 0..room {
            let Some(queue) = state.parked.pop() else { break };
            self.around.spool.unpark(&queue);
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
        let job = state.ready.pop();
        self.unpark(state);
        job
    }

    /// A host has greeted us: so many more connections have to be opened, which
    /// are counted already.
    pub(crate) fn greeted(&self) -> usize {
        let mut state = self.state.lock();
        state.down = None;
        if std::mem::replace(&mut state.is_greeted, true) {
            return 0;
        }
        let wanted = state.limit.saturating_sub(state.connections).min(state.ready.len());
        state.connections += wanted;
        wanted
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
            let chance = self.around.clock.now().saturating_add(LAST_CHANCE);
            state.ready.push_front(job, chance);
        }
        None
    }

    /// Everything that is ready, because the site cannot be reached. What else was
    /// due for it by now does not wait for the next failure.
    pub(crate) fn drain(&self, refused: &Refused) -> Vec<Job> {
        let mut state = self.state.lock();
        state.is_greeted = false;
        state.down = Some(Down { at: self.around.clock.now(), refused: refused.clone() });
        let mut ready = std::mem::take(&mut state.ready);
        self.unpark(&mut state);
        self.set_alarm(&mut state);
        drop(state);
        std::iter::from_fn(|| ready.pop()).collect()
    }

    /// Lets everything go, for the end.
    fn give_up(&self) {
        let mut state = self.state.lock();
        let ready = std::mem::take(&mut state.ready);
        state.waiting.clear();
        drop(state);
        drop(ready);
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
        if state.limit < self.bounds.connections && state.delivered.is_multiple_of(GROWTH) {
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
