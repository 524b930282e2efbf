//! What one lane sets aside in the spool until something has passed: the end of a
//! pause, or the news of an address to leave from.

use postrider_base::Timestamp;
use postrider_spool::QueueKey;

use super::{Expired, Job, Pushed, Site, State};
use crate::shaping::{Ended, Pause};

/// What a job that is set aside waits for.
pub(super) struct Wait<'a> {
    until: Option<Timestamp>,
    why: &'a str,
    /// An address to leave from, and not the end of a pause.
    is_sourceless: bool,
}

impl<'a> From<&'a Pause> for Wait<'a> {
    fn from(pause: &'a Pause) -> Self {
        Self { until: pause.until, why: &pause.why, is_sourceless: false }
    }
}

impl Site {
    /// For a job that has no address to leave from until then, or until there is news of
    /// the addresses, if its message lives as long.
    pub(crate) fn hold_back(&self, job: Job, until: Timestamp, why: &str) -> Pushed {
        self.wait(&mut self.state.lock(), job, &Wait { until: Some(until), why, is_sourceless: true })
    }

    pub(super) fn wait(&self, state: &mut State, job: Job, wait: &Wait<'_>) -> Pushed {
        if job.claim.message.expires_at <= self.around.clock.now() {
            return Pushed::Expired(Expired { job, said: Some(wait.why.to_owned()) });
        }
        self.set_aside(state, job, wait);
        Pushed::Taken
    }

    /// Gives a claim back until what it waits for is over or the message's time is. Others
    /// of its queue may have another lane, and pass.
    pub(super) fn set_aside(&self, state: &mut State, job: Job, wait: &Wait<'_>) {
        let (queue, expires_at) = (job.claim.queue.clone(), job.claim.message.expires_at);
        let end = wait.until.map_or(expires_at, |until| until.min(expires_at));
        job.claim.set_aside(end);
        let waiting = if wait.is_sourceless { &mut state.sourceless } else { &mut state.paused };
        waiting.add(queue, end);
        state.pause = Some((wait.until, wait.why.to_owned()));
        self.set_alarm(state);
    }

    /// Pauses have ended: the queues that they held are looked at again.
    pub(crate) fn resume(&self, ended: &[Ended]) -> u64 {
        let was_held = |queue: &QueueKey| ended.iter().any(|ended| self.gate.was_held_by(ended, &queue.domain));
        let mut state = self.state.lock();
        let queues = state.paused.take_if(was_held);
        self.recall(&mut state, &queues)
    }

    /// There are new rules: what waits for the end of a pause is looked at again.
    pub(crate) fn reconsider(&self) -> u64 {
        let mut state = self.state.lock();
        let queues = state.paused.take_if(|_| true);
        self.recall(&mut state, &queues)
    }

    /// There is news of the addresses to leave from: what waits for one is looked at again.
    pub(crate) fn resource(&self) -> u64 {
        let mut state = self.state.lock();
        let queues = state.sourceless.take_if(|_| true);
        self.recall(&mut state, &queues)
    }

    /// For some queues something that is aside comes back by itself, since what it waits
    /// for or its message's time is over. The rest waits on.
    pub(super) fn let_on(&self, state: &mut State, now: Timestamp) {
        let State { paused, sourceless, .. } = state;
        for waiting in [paused, sourceless] {
            for queue in waiting.over(now) {
                if let Some(next) = self.around.spool.let_on(&queue) {
                    waiting.add(queue, next);
                }
            }
        }
        if state.is_free() {
            state.pause = None;
        }
    }

    /// How many queues are looked at again.
    pub(super) fn recall(&self, state: &mut State, queues: &[QueueKey]) -> u64 {
        queues.iter().for_each(|queue| self.around.spool.recall(queue));
        if state.is_free() {
            state.pause = None;
        }
        self.set_alarm(state);
        queues.len() as u64
    }
}
