//! Queues that one lane has no room for.

use postrider_base::Timestamp;

use super::{Job, Site, State};

impl Site {
    /// Gives a claim back that there is no room for, and takes nothing more from its queue
    /// unless that is looked through. Under the lock, so that it cannot overtake the unparking.
    pub(super) fn park(&self, state: &mut State, job: Job) {
        let (queue, until) = (job.claim.queue.clone(), job.patience());
        if state.through.passes(&queue, self.around.clock.now()) {
            job.claim.pass_over(until);
        } else {
            self.around.spool.park(&queue);
            drop(job);
        }
        state.parked.add(queue, until);
        self.set_alarm(state);
    }

    /// Lets parked queues go on as far as there is room: all of them when
    /// nothing is ready, for a queue may have nothing left.
    pub(super) fn unpark(&self, state: &mut State) {
        if state.parked.is_empty() {
            return;
        }
        let room = self.room(state);
        if state.ready.len() > room / 2 {
            return;
        }
        let room = if state.ready.is_empty() { usize::MAX } else { room - state.ready.len() };
        for _ in 0..room {
            let Some(queue) = state.parked.pop() else { break };
            match state.through.end(&queue) {
                true => self.around.spool.read_again(&queue),
                false => self.around.spool.unpark(&queue),
            }
        }
    }

    /// Begins to go through queues that have waited for long: they are handed out whole.
    pub(super) fn look_through(&self, state: &mut State, now: Timestamp) {
        for queue in state.through.begin(now) {
            if [&state.parked, &state.paused, &state.sourceless].iter().any(|waiting| waiting.holds(&queue)) {
                self.around.spool.unpark(&queue);
            }
        }
    }

    /// Parked queues are let go whose first message's time is over, so that it comes here.
    pub(super) fn let_over(&self, state: &mut State, now: Timestamp) {
        for queue in state.parked.over(now) {
            if !state.through.goes_on(&queue, now) {
                self.around.spool.unpark(&queue);
                continue;
            }
            match self.around.spool.let_on(&queue) {
                Some(next) => state.parked.add(queue, next),
                None => state.through.is_read(&queue),
            }
        }
    }
}
