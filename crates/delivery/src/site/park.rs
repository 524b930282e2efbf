//! Queues that one lane has no room for.

use super::{Job, Site, State};

impl Site {
    /// Gives a claim back that there is no room for, and takes nothing more from its queue.
    /// Under the lock, so that it cannot overtake the unparking.
    pub(super) fn park(&self, state: &mut State, job: Job) {
        let (queue, until) = (job.claim.queue.clone(), job.patience());
        self.around.spool.park(&queue);
        drop(job);
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
            self.around.spool.unpark(&queue);
        }
    }
}
