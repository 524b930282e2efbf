//! The ready queue and the connections of one lane of a site, which some domains
//! share.
//!
//! A claim wakes a waiting connection; without one a new connection is asked
//! for, up to the lane's limit; at the limit claims wait in the ready queue; with
//! that full their queue is parked in the spool until there is room or the message
//! that was given back is overdue. A connection takes a claim when it has its turn, not
//! before: until then the claim may expire or be paused like any other. A claim that has
//! waited here until its message expired, or is so late that its sender wants to know, is given
//! out as that. Nothing here polls.
//!
//! A lane that has not proved itself holds little: one connection until a host
//! has greeted us, and few claims until messages are taken. So any number of
//! dead or hanging sites leave room for the living ones.

mod aside;
mod look;
mod park;
mod through;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::Timestamp;
use postrider_spool::Claim;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::lane::{Demand, Lane, responsible_domain};
use crate::progress::Progress;
use crate::ready::{Parked, Ready};
use crate::settings::Limits;
use crate::shaping::{Gate, Pause};
use crate::site_view::LastRefusal;
use crate::sites::{Around, Key};
use crate::source::Place;
use crate::target::Target;
use crate::walk::Refused;

pub(crate) use aside::HeldBy;
use aside::Wait;
pub(crate) use look::Asked;
use through::LookThrough;

/// Hosts that took few connections are offered one more with so many messages
/// taken.
const GROWTH: u64 = 10;

/// Claims that a lane may hold before it has taken a message, and by how many
/// more with each message that it took.
const FIRST_READY: usize = 16;
const READY_GROWTH: usize = 4;

/// What delivery may hold at all is scarce when no more than one in so many places is
/// free: then a lane holds no more than before it has taken a message.
const SCARCE: usize = 4;

/// How long a claim may wait here at least, from when it is due, or its connection
/// is opened: the last attempt is due just when the message expires.
const LAST_CHANCE: Duration = Duration::from_secs(60);

/// How long it is remembered that a site could not be reached, for the claims that
/// were due by then.
const DOWN: Duration = Duration::from_secs(60);

/// Different refusals that are kept for operators.
const REFUSALS: usize = 5;

/// A claim on its way.
pub(crate) struct Job {
    pub(crate) claim: Claim,
    /// Its share of what delivery holds at all.
    pub(crate) room: OwnedSemaphorePermit,
    /// Its share of what its source may send today.
    pub(crate) place: Place,
    /// When its sender is to be told that it is late, where that is wanted and was not done.
    pub(crate) late: Option<Timestamp>,
}

impl Job {
    /// How long it may wait without a word: until its message expires, or its sender is to be
    /// told that it is late.
    pub(crate) fn patience(&self) -> Timestamp {
        let expires_at = self.claim.message.expires_at;
        self.late.map_or(expires_at, |late| late.min(expires_at))
    }

    /// Makes the first recipient a job of its own, where there are others and `ready` has room
    /// for one more.
    pub(crate) fn split_first(&mut self, ready: &Arc<Semaphore>) -> Option<Self> {
        if self.claim.recipients.len() < 2 {
            return None;
        }
        let room = ready.clone().try_acquire_owned().ok()?;
        Some(Self { claim: self.claim.split_first()?, room, place: Place::default(), late: self.late })
    }
}

/// What became of a job that was handed to a site.
pub(crate) enum Pushed {
    /// It is on its way, or waits.
    Taken,
    /// As that, and the site wants one more connection, which is counted already.
    Opens(Arc<Site>),
    /// It has to wait, and its time is over.
    Overdue(Overdue),
    /// The site could not be reached since the job was due.
    Unreachable(Arc<Site>, Job, Refused),
}

/// A job that has waited for as long as it may: see [`Job::patience`].
pub(crate) struct Overdue {
    pub(crate) job: Job,
    /// What the site said last, if that was no success.
    pub(crate) said: Option<String>,
}

/// What waits for some hosts in one lane, and its connections.
pub(crate) struct Site {
    this: Weak<Site>,
    id: u64,
    pub(crate) key: Key,
    pub(crate) target: Arc<Target>,
    /// As the key, and what the operator asks of sessions with the site.
    pub(crate) lane: Lane,
    /// What shaping says of it.
    pub(crate) gate: Gate,
    most_ready: usize,
    /// What delivery may hold is scarce when fewer places are free.
    scarce: usize,
    around: Arc<Around>,
    state: Mutex<State>,
    /// What its connections are doing.
    tasks: Mutex<Vec<Weak<Progress>>>,
}

#[derive(Default)]
struct State {
    ready: Ready,
    /// Queues that wait for room.
    parked: Parked,
    /// Queues that wait for the end of a pause.
    paused: Parked,
    /// Queues that wait for an address to leave from.
    sourceless: Parked,
    /// Queues with mail of paused senders.
    held: Parked,
    /// Those that wait for the lane, as far as it has seen them.
    through: LookThrough,
    /// The last pause, and when it is thought to end.
    pause: Option<(Option<Timestamp>, String)>,
    /// When the site is to be woken.
    alarm: Option<Timestamp>,
    /// A host has greeted us.
    is_greeted: bool,
    down: Option<Down>,
    /// Connections without a message, the one used last at the end.
    waiting: Vec<oneshot::Sender<()>>,
    /// Open or being opened.
    connections: usize,
    /// How many the hosts were found to take, where that is fewer than there might be.
    taken_at_once: Option<usize>,
    delivered: u64,
    /// The last different things that it said and that were no success, oldest first.
    refusals: VecDeque<LastRefusal>,
}

/// The site could not be reached.
struct Down {
    at: Timestamp,
    refused: Refused,
}

impl State {
    /// Wakes a connection that waits, the one used last first, so that those in excess
    /// idle out. It finds what is made ready before the lock is given up. False when
    /// none waits.
    fn wake(&mut self) -> bool {
        while let Some(connection) = self.waiting.pop() {
            if connection.send(()).is_ok() {
                return true;
            }
        }
        false
    }

    /// What the site said last while this job waited for it.
    fn said(&self, job: &Job) -> Option<String> {
        let last = self.refusals.back().filter(|refusal| refusal.at >= job.claim.message.accepted_at);
        last.map(|refusal| refusal.text.clone())
    }

    /// Whether nothing waits for the lane.
    fn has_no_pause(&self) -> bool {
        self.paused.is_empty() && self.sourceless.is_empty()
    }

    fn is_unused(&self) -> bool {
        let is_idle = self.connections == 0 && self.ready.is_empty() && self.down.is_none();
        is_idle && self.parked.is_empty() && self.held.is_empty() && self.has_no_pause()
    }
}

impl Site {
    pub(crate) fn new(id: u64, key: Key, target: Arc<Target>, limits: &Limits, around: Arc<Around>) -> Arc<Self> {
        let gate = around.governor.gate(&target, &key.1);
        let demand = match gate.rules().tls.demand() {
            Demand::Waived | Demand::Opportunistic => key.1.demand,
            least => key.1.demand.max(least),
        };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            id,
            lane: Lane { demand, ..key.1.clone() },
            key,
            target,
            gate,
            most_ready: limits.ready_per_site,
            scarce: limits.ready / SCARCE,
            around,
            state: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    pub(crate) fn push(&self, job: Job) -> Pushed {
        let mut state = self.state.lock();
        if let Some(pause) = self.pause_of(&job) {
            return self.wait(&mut state, job, &Wait::from(&pause));
        }
        let is_awaited = state.wake();
        if !is_awaited {
            if let Some((down, this)) = state.down.as_ref().zip(self.this.upgrade())
                && job.claim.ready_since <= down.at
            {
                return Pushed::Unreachable(this, job, down.refused.clone());
            }
            if state.ready.len() >= self.room(&state) {
                if job.patience() <= self.around.clock.now() {
                    return Pushed::Overdue(Overdue { said: state.said(&job), job });
                }
                self.park(&mut state, job);
                return Pushed::Taken;
            }
        }
        let is_wanted = !is_awaited && state.connections < self.limit(&state);
        state.connections += usize::from(is_wanted);
        let now = self.around.clock.now();
        let since = if is_awaited || is_wanted { now } else { job.claim.ready_since };
        state.ready.push(job, since.saturating_add(LAST_CHANCE));
        self.set_alarm(&mut state);
        match self.this.upgrade().filter(|_| is_wanted) {
            Some(this) => Pushed::Opens(this),
            None => Pushed::Taken,
        }
    }

    /// Why a job has to wait.
    fn pause_of(&self, job: &Job) -> Option<Pause> {
        let claim = &job.claim;
        self.gate.pause(&claim.queue.domain, || responsible_domain(&claim.message))
    }

    /// Connections that there may be.
    fn limit(&self, state: &State) -> usize {
        match state.is_greeted {
            // Others wait for their first: who has one asks for no more.
            true if self.around.slots.are_taken() => 1,
            true => self.gate.limit().min(state.taken_at_once.unwrap_or(usize::MAX)),
            false => 1,
        }
    }

    /// How many claims may wait for a connection.
    fn room(&self, state: &State) -> usize {
        if self.around.ready.available_permits() < self.scarce {
            return FIRST_READY.min(self.most_ready);
        }
        let taken = usize::try_from(state.delivered).unwrap_or(usize::MAX);
        taken.saturating_mul(READY_GROWTH).saturating_add(FIRST_READY).min(self.most_ready)
    }

    /// Has the site woken when the first one's time is over.
    fn set_alarm(&self, state: &mut State) {
        let forgotten = state.down.as_ref().map(|down| down.at.saturating_add(DOWN));
        let earliest = [
            state.ready.earliest(),
            state.parked.earliest(),
            state.paused.earliest(),
            state.sourceless.earliest(),
            state.held.earliest(),
            state.through.earliest(),
            forgotten,
        ];
        let at = earliest.into_iter().flatten().min();
        if at != state.alarm {
            self.around.alarms.set(self.id, state.alarm, at, &self.this);
            state.alarm = at;
        }
    }

    /// The alarm has gone off: the jobs whose time is over. Queues are let go whose
    /// first message's time is over, so that it comes here.
    pub(crate) fn ring(&self) -> Vec<Overdue> {
        let now = self.around.clock.now();
        let mut state = self.state.lock();
        state.alarm = None;
        state.down.take_if(|down| down.at.saturating_add(DOWN) <= now);
        self.look_through(&mut state, now);
        self.let_over(&mut state, now);
        self.let_on(&mut state, now);
        let overdue = state.ready.overdue(now);
        self.unpark(&mut state);
        self.set_alarm(&mut state);
        overdue.into_iter().map(|job| Overdue { said: state.said(&job), job }).collect()
    }

    /// Waits until something is ready, at most `idle`; whether something may be.
    pub(crate) async fn work(&self, idle: Duration) -> bool {
        let woken = {
            let mut state = self.state.lock();
            if !state.ready.is_empty() || idle.is_zero() {
                return !state.ready.is_empty();
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push(sender);
            receiver
        };
        if let Ok(woken) = tokio::time::timeout(idle, woken).await {
            return woken.is_ok();
        }
        let mut state = self.state.lock();
        state.waiting.retain(|waiting| !waiting.is_closed());
        !state.ready.is_empty()
    }

    /// The next job, for a connection that has its turn.
    pub(crate) fn take(&self) -> Option<Job> {
        let (mut next, mut moving) = (None, Vec::new());
        let mut state = self.state.lock();
        while let Some(job) = state.ready.pop() {
            match self.pause_of(&job) {
                None => {
                    next = Some(job);
                    break;
                }
                // Its claim is due as before, and finds another lane, or waits for all.
                Some(pause) if self.gate.moves_from(&pause) => moving.push(job),
                Some(pause) => self.set_aside(&mut state, job, &Wait::from(&pause)),
            }
        }
        self.unpark(&mut state);
        // What goes back to the spool goes when nobody waits for the lane.
        drop(state);
        drop(moving);
        next
    }

    /// A host has greeted us: so many more connections have to be opened, which
    /// are counted already.
    pub(crate) fn greeted(&self) -> usize {
        let mut state = self.state.lock();
        state.down = None;
        if std::mem::replace(&mut state.is_greeted, true) {
            return 0;
        }
        let wanted = self.limit(&state).saturating_sub(state.connections).min(state.ready.len());
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
        state.taken_at_once = Some(others);
        let chance = self.around.clock.now().saturating_add(LAST_CHANCE);
        state.ready.push_front(job, chance);
        state.wake();
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
    pub(crate) fn give_up(&self) {
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
        // It may have been woken for what is ready.
        let is_left = may_be_replaced && !state.ready.is_empty() && !state.wake();
        let wanted = is_left && state.connections < self.limit(&state);
        state.connections += usize::from(wanted);
        wanted
    }

    /// The site has taken a message.
    pub(crate) fn delivered(&self) {
        self.gate.taken();
        let mut state = self.state.lock();
        state.delivered += 1;
        if state.delivered.is_multiple_of(GROWTH)
            && let Some(taken_at_once) = &mut state.taken_at_once
        {
            *taken_at_once += 1;
        }
    }

    /// The site has said something that is not a success. True when it has not
    /// just said the same.
    pub(crate) fn refused(&self, at: Timestamp, text: &str) -> bool {
        let mut state = self.state.lock();
        let is_new = state.refusals.back().is_none_or(|last| last.text != text);
        let known = state.refusals.iter().position(|refusal| refusal.text == text);
        let known = known.and_then(|place| state.refusals.remove(place));
        if state.refusals.len() >= REFUSALS {
            state.refusals.pop_front();
        }
        let count = known.map_or(0, |known| known.count).saturating_add(1);
        state.refusals.push_back(LastRefusal { at, count, text: text.to_owned() });
        is_new
    }

    /// What hosts said to a lane before this one, for operators.
    pub(crate) fn inherit(&self, mut before: Vec<LastRefusal>) {
        let mut state = self.state.lock();
        before.retain(|old| state.refusals.iter().all(|new| new.text != old.text));
        before.extend(state.refusals.drain(..));
        before.sort_by_key(|refusal| refusal.at);
        let excess = before.len().saturating_sub(REFUSALS);
        state.refusals = before.split_off(excess).into();
    }

    /// Whether nothing uses the lane any more; it has to be forgotten then.
    pub(crate) fn retire(&self) -> bool {
        let mut state = self.state.lock();
        let is_unused = state.is_unused();
        if is_unused {
            self.around.alarms.set(self.id, state.alarm.take(), None, &self.this);
        }
        is_unused
    }
}
