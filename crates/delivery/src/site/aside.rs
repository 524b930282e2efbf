//! What one lane sets aside in the spool until something has passed: the end of a
//! pause, the news of an address to leave from, or the end of its sender's pause.

use postrider_base::Timestamp;
use postrider_mail::AccountId;
use postrider_spool::QueueKey;

use super::{Job, Overdue, Pushed, Site, State};
use crate::shaping::{Ended, Pause};

/// What a job waits for before it comes to a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeldBy {
    /// An address to leave from.
    Source,
    /// The end of its sender's pause.
    Sender,
}

/// What a job that is set aside waits for.
pub(super) struct Wait<'a> {
    until: Option<Timestamp>,
    why: &'a str,
    /// `None` is a pause of the lane.
    by: Option<HeldBy>,
}

impl<'a> From<&'a Pause> for Wait<'a> {
    fn from(pause: &'a Pause) -> Self {
        Self { until: pause.until, why: &pause.why, by: None }
    }
}

impl Site {
    /// For a job that has to wait until then, or until there is news of what it waits for, if
    /// its message lives as long.
    pub(crate) fn hold_back(&self, job: Job, until: Timestamp, why: &str, by: HeldBy) -> Pushed {
        self.wait(&mut self.state.lock(), job, &Wait { until: Some(until), why, by: Some(by) })
    }

    pub(super) fn wait(&self, state: &mut State, job: Job, wait: &Wait<'_>) -> Pushed {
        if job.patience() <= self.around.clock.now() {
            return Pushed::Overdue(Overdue { job, said: Some(wait.why.to_owned()) });
        }
        self.set_aside(state, job, wait);
        Pushed::Taken
    }

    /// Gives a claim back until what it waits for is over or its own time is. Others
    /// of its queue may have another lane, and pass.
    pub(super) fn set_aside(&self, state: &mut State, job: Job, wait: &Wait<'_>) {
        let (queue, patience) = (job.claim.queue.clone(), job.patience());
        let end = wait.until.map_or(patience, |until| until.min(patience));
        let is_passed_over = match wait.by {
            // All that one sender has queued may be held, and its other mail goes on. It says
            // nothing of the lane.
            Some(HeldBy::Sender) => true,
            None | Some(HeldBy::Source) => {
                state.pause = Some((wait.until, wait.why.to_owned()));
                state.through.passes(&queue, self.around.clock.now())
            }
        };
        match is_passed_over {
            true => job.claim.pass_over(end),
            false => job.claim.set_aside(end),
        }
        let waiting = match wait.by {
            None => &mut state.paused,
            Some(HeldBy::Source) => &mut state.sourceless,
            Some(HeldBy::Sender) => &mut state.held,
        };
        waiting.add(queue, end);
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

    /// Senders of these accounts are not paused any more: what was held of them is looked at
    /// again.
    pub(crate) fn release(&self, accounts: &[AccountId]) -> u64 {
        let mut state = self.state.lock();
        let queues = state.held.take_if(|queue| accounts.contains(&queue.account));
        queues.iter().for_each(|queue| self.around.spool.read_again(queue));
        self.set_alarm(&mut state);
        queues.len() as u64
    }

    /// For some queues something that is aside comes back by itself, since what it waits
    /// for or its message's time is over. The rest waits on.
    pub(super) fn let_on(&self, state: &mut State, now: Timestamp) {
        let State { paused, sourceless, held, through, .. } = state;
        for waiting in [paused, sourceless, held] {
            for queue in waiting.over(now) {
                through.goes_on(&queue, now);
                match self.around.spool.let_on(&queue) {
                    Some(next) => waiting.add(queue, next),
                    None => through.is_read(&queue),
                }
            }
        }
        if state.has_no_pause() {
            state.pause = None;
        }
    }

    /// How many queues are looked at again.
    pub(super) fn recall(&self, state: &mut State, queues: &[QueueKey]) -> u64 {
        for queue in queues {
            match state.through.end(queue) {
                true => self.around.spool.read_again(queue),
                false => self.around.spool.recall(queue),
            }
        }
        if state.has_no_pause() {
            state.pause = None;
        }
        self.set_alarm(state);
        queues.len() as u64
    }
}
