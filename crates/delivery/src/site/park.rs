//! Queues that one lane has no room for.

use std::time::Duration;

use postrider_base::Timestamp;

use super::{Job, Site, State};

/// How long a queue waits for room before it is looked through for messages whose time
/// is over before there is room.
const SEARCH: Duration = Duration::from_secs(60);

impl Site {
    /// Gives a claim back that there is no room for. Nothing more is taken from its queue,
    /// unless that is being looked through: then the others of the queue come here, too, as
    /// many as the spool sets aside. Under the lock, so that it cannot overtake the unparking.
    pub(super) fn park(&self, state: &mut State, job: Job) {
        let (queue, expires_at) = (job.claim.queue.clone(), job.claim.message.expires_at);
        if state.searched.holds(&queue) {
            return job.claim.set_aside(expires_at);
        }
        self.around.spool.park(&queue);
        drop(job);
        let search = self.around.clock.now().saturating_add(SEARCH);
        state.parked.add(queue, expires_at.min(search));
        self.set_alarm(state);
    }

    /// Looks through the queues that have waited for long.
    pub(super) fn search(&self, state: &mut State, now: Timestamp) {
        for queue in state.parked.over(now) {
            self.around.spool.unpark(&queue);
            state.searched.add(queue, now);
        }
    }

    /// Lets parked queues go on as far as there is room: all of them when
    /// nothing is ready, for a queue may have nothing left.
    pub(super) fn unpark(&self, state: &mut State) {
        if state.parked.is_empty() && state.searched.is_empty() {
            return;
        }
        let room = self.room(state);
        if state.ready.len() > room / 2 {
            return;
        }
        let room = if state.ready.is_empty() { usize::MAX } else { room - state.ready.len() };
        for _ in 0..room {
            // Those that were looked through have waited for longer.
            let Some(queue) = state.searched.pop().or_else(|| state.parked.pop()) else { break };
            self.around.spool.recall(&queue);
        }
    }
}
