//! How much one site, or one provider, gets at the moment: its connections and
//! its rate, grown by success, halved by complaints, given back with time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::metrics::{Held, Metrics};
use postrider_base::{Clock, Timestamp};
use postrider_mail::Stage;
use tokio::time::Instant;

use super::pacer::Pacer;
use super::pause::{Ended, Pause, Pauses, Scope};
use super::rate::Rate;
use super::seats::Seats;

/// One connection more with so many messages taken.
const GROWTH: u64 = 10;

/// A complaint that comes within this time of another one says the same.
const SETTLING: Duration = Duration::from_secs(30);

/// So long must it go well until one halving is taken back.
const RECOVERY: Duration = Duration::from_secs(600);

/// Halvings at most.
const LOWEST: u32 = 6;

/// How long what was sent is counted for at least, to know the rate.
const MEASURE: Duration = Duration::from_secs(60);

/// Replies that are kept for operators.
const REPLIES: usize = 5;

/// More connections than there can be.
pub(crate) const UNLIMITED: usize = usize::MAX >> 4;

/// What the rules allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allowed {
    pub(crate) initial: usize,
    pub(crate) most: usize,
    pub(crate) rate: Option<Rate>,
}

/// The state of one site or provider.
#[derive(Debug)]
pub(crate) struct Throttle {
    pub(crate) seats: Arc<Seats>,
    pub(crate) pacer: Pacer,
    clock: Clock,
    metrics: Metrics,
    taken: AtomicU64,
    is_slowed: AtomicBool,
    paused: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allowed: Allowed,
    /// What success has made of the initial connections.
    grown: usize,
    slowed: Option<Slowed>,
    /// Messages taken at two moments of the past.
    marks: [(Instant, u64); 2],
    pauses: Pauses,
    replies: VecDeque<LastReply>,
}

/// After complaints.
#[derive(Debug)]
struct Slowed {
    /// How often it was halved.
    level: u32,
    /// Connections that are left.
    connections: usize,
    /// What was sent when it began, where the rules have no rate.
    measured: Option<Rate>,
    since: Instant,
    _counted: Held,
}

/// What a host said, for operators.
#[derive(Clone, Debug)]
pub(crate) struct LastReply {
    pub(crate) at: Timestamp,
    pub(crate) stage: Stage,
    pub(crate) text: String,
    /// The feedback rule that it met.
    pub(crate) rule: Option<Arc<str>>,
}

/// A look at a throttle.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) most: usize,
    pub(crate) limit: usize,
    pub(crate) taken: usize,
    pub(crate) waiting: usize,
    pub(crate) messages: u64,
    pub(crate) rate: Option<Rate>,
    pub(crate) tokens: Option<u64>,
    /// How often it is halved at the moment.
    pub(crate) halved: u32,
    pub(crate) pauses: Vec<(Scope, Pause)>,
    pub(crate) replies: Vec<LastReply>,
}

impl Throttle {
    pub(crate) fn new(clock: &Clock, metrics: &Metrics, allowed: Allowed) -> Self {
        let now = clock.instant();
        let state = State {
            allowed,
            grown: allowed.initial,
            slowed: None,
            marks: [(now, 0); 2],
            pauses: Pauses::default(),
            replies: VecDeque::new(),
        };
        Self {
            seats: Seats::new(allowed.initial),
            pacer: Pacer::new(clock.clone(), allowed.rate),
            clock: clock.clone(),
            metrics: metrics.clone(),
            taken: AtomicU64::new(0),
            is_slowed: AtomicBool::new(false),
            paused: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }

    /// The rules have changed.
    pub(crate) fn allow(&self, allowed: Allowed) {
        let mut state = self.state.lock();
        if state.allowed != allowed {
            state.allowed = allowed;
            state.grown = state.grown.clamp(allowed.initial, allowed.most);
            self.apply(&state);
        }
    }

    /// A message was taken.
    pub(crate) fn message_taken(&self) {
        let count = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if !count.is_multiple_of(GROWTH) && !self.is_slowed.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        let now = self.clock.instant();
        if now.duration_since(state.marks[1].0) >= MEASURE {
            state.marks = [state.marks[1], (now, count)];
        }
        let most = state.allowed.most;
        let grows = count.is_multiple_of(GROWTH) && state.grown < most;
        state.grown += usize::from(grows);
        let recovers = state.slowed.as_ref().is_some_and(|slowed| now.duration_since(slowed.since) >= RECOVERY);
        if recovers {
            state.recover(now);
        }
        if grows || recovers {
            self.apply(&state);
        }
    }

    /// The host complains of how much it gets: it gets half. False when it has just complained.
    pub(crate) fn slow(&self) -> bool {
        let mut state = self.state.lock();
        let now = self.clock.instant();
        let in_use = self.seats.taken().min(self.seats.limit());
        match &mut state.slowed {
            Some(slowed) if now.duration_since(slowed.since) < SETTLING => return false,
            Some(slowed) => {
                slowed.level = (slowed.level + 1).min(LOWEST);
                slowed.connections = (slowed.connections.min(in_use) / 2).max(1);
                slowed.since = now;
            }
            None => {
                let measured = state.measure(now, self.taken.load(Ordering::Relaxed));
                state.slowed = Some(Slowed {
                    level: 1,
                    connections: (in_use / 2).max(1),
                    measured,
                    since: now,
                    _counted: Held::new(&self.metrics.shaping_slowed),
                });
            }
        }
        self.apply(&state);
        true
    }

    /// Nothing of `scope` until the pause ends. True when it did not pause before.
    pub(crate) fn pause(&self, scope: Scope, pause: Pause) -> bool {
        let mut state = self.state.lock();
        let gauge = self.metrics.shaping_pauses.of(pause.kind);
        let is_new = state.pauses.add(scope, pause, gauge);
        self.paused.store(state.pauses.len(), Ordering::Relaxed);
        is_new
    }

    /// Ends pauses, and says whose.
    pub(crate) fn resume(self: &Arc<Self>, ends: impl Fn(&Scope, &Pause) -> bool) -> Vec<Ended> {
        let mut state = self.state.lock();
        let ended = state.pauses.remove(ends);
        self.paused.store(state.pauses.len(), Ordering::Relaxed);
        ended.into_iter().map(|scope| Ended::Heard(self.clone(), scope)).collect()
    }

    /// Whether anything pauses: an atomic load.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed) > 0
    }

    /// The pause that holds for mail of these scopes.
    pub(crate) fn pause_of(&self, scopes: &[Scope], now: Timestamp) -> Option<Pause> {
        if !self.is_paused() {
            return None;
        }
        let state = self.state.lock();
        scopes.iter().find_map(|scope| state.pauses.find(scope, now).cloned())
    }

    pub(crate) fn note(&self, reply: LastReply) {
        let mut state = self.state.lock();
        if state.replies.len() >= REPLIES {
            state.replies.pop_front();
        }
        state.replies.push_back(reply);
    }

    /// Whether something is lost when it is forgotten.
    pub(crate) fn is_remarkable(&self) -> bool {
        self.is_paused() || self.is_slowed.load(Ordering::Relaxed) || self.seats.taken() > 0
    }

    pub(crate) fn look(&self) -> Look {
        let state = self.state.lock();
        Look {
            most: state.allowed.most,
            limit: self.seats.limit(),
            taken: self.seats.taken(),
            waiting: self.seats.waiting(),
            messages: self.taken.load(Ordering::Relaxed),
            rate: self.pacer.rate(),
            tokens: self.pacer.tokens(),
            halved: state.slowed.as_ref().map_or(0, |slowed| slowed.level),
            pauses: state.pauses.iter().map(|(scope, pause)| (scope.clone(), pause.clone())).collect(),
            replies: state.replies.iter().cloned().collect(),
        }
    }

    fn apply(&self, state: &State) {
        self.is_slowed.store(state.slowed.is_some(), Ordering::Relaxed);
        self.seats.set_limit(state.connections());
        self.pacer.set(state.rate());
    }
}

impl State {
    fn connections(&self) -> usize {
        let grown = self.grown.min(self.allowed.most);
        self.slowed.as_ref().map_or(grown, |slowed| slowed.connections.min(grown))
    }

    fn rate(&self) -> Option<Rate> {
        let Some(slowed) = &self.slowed else { return self.allowed.rate };
        let whole = match (self.allowed.rate, slowed.measured) {
            (Some(allowed), Some(measured)) => Some(allowed.least(measured)),
            (allowed, measured) => allowed.or(measured),
        };
        whole.map(|rate| rate.halved(slowed.level))
    }

    /// Gives one halving back.
    fn recover(&mut self, now: Instant) {
        if let Some(slowed) = &mut self.slowed {
            slowed.level -= 1;
            slowed.connections = slowed.connections.saturating_mul(2);
            slowed.since = now;
            if slowed.level == 0 {
                self.slowed = None;
            }
        }
    }

    /// Messages over the last minute or two.
    fn measure(&self, now: Instant, count: u64) -> Option<Rate> {
        let [(earlier, before), (later, after)] = self.marks;
        let (start, before) = if now.duration_since(later) >= MEASURE { (later, after) } else { (earlier, before) };
        let time = now.duration_since(start).max(Duration::from_secs(1));
        Rate::new(count - before, time).map(Rate::at_least_slowest)
    }
}
