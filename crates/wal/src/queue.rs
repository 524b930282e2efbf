//! Batches that wait to be written.

use std::collections::VecDeque;
use std::time::Duration;

use crate::answer::Waiter;
use crate::batch::Batch;
use crate::bell::Bell;
use crate::{Durability, Error};
use parking_lot::{Condvar, Mutex, MutexGuard};

/// A batch and who waits for it.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) batch: Batch,
    pub(crate) durability: Durability,
    /// The segment that is the oldest in use from this batch on.
    pub(crate) oldest: Option<u64>,
    pub(crate) waiter: Waiter,
}

/// The queue between callers and the writer: one short lock per submission,
/// and a bell that is rung only when the writer sleeps.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    bell: Bell,
    enough: Condvar,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Submission>,
    bytes: usize,
    /// The writer waits for the bell.
    asleep: bool,
    /// How many of those that wait want to be synced.
    synced: usize,
    /// For how many of these the writer waits; 0 when it does not.
    awaited: usize,
    /// Why nothing more is taken.
    ended: Option<Error>,
}

/// What [`Queue::take`] hands out.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) group: Vec<Submission>,
    /// The log is being closed and this was the rest.
    pub(crate) last: bool,
}

impl Queue {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), bell: Bell::default(), enough: Condvar::new(), max_bytes }
    }

    /// The next place in the queue for a batch of this length.
    pub(crate) fn room(&self, len: u64) -> Result<Room<'_>, Error> {
        let size = bytes(len);
        let state = self.state.lock();
        if let Some(ended) = &state.ended {
            return Err(ended.clone());
        }
        if state.bytes > 0 && state.bytes + size > self.max_bytes {
            return Err(Error::Full("too much waits to be written".into()));
        }
        Ok(Room { queue: self, state, size })
    }

    /// The next group: at least one batch if any waits, then as many as stay
    /// within the limits.
    pub(crate) fn take(&self, max_bytes: usize, max_vectors: usize) -> Taken {
        let mut state = self.state.lock();
        let (mut bytes, mut vectors, mut count) = (0, 0, 0);
        for submission in &state.waiting {
            bytes += size(submission);
            vectors += submission.batch.vectors();
            if count > 0 && (bytes > max_bytes || vectors > max_vectors) {
                break;
            }
            count += 1;
        }
        let group: Vec<_> = state.waiting.drain(..count).collect();
        state.bytes -= group.iter().map(size).sum::<usize>();
        state.synced -= synced(&group);
        let last = state.ended.is_some() && state.waiting.is_empty();
        Taken { group, last }
    }

    /// Takes nothing more for this reason, unless there already is one, and
    /// wakes the writer.
    pub(crate) fn end(&self, reason: Error) {
        self.state.lock().ended.get_or_insert(reason);
        self.enough.notify_one();
        self.bell.ring();
    }

    /// Takes nothing more and gives up what waits, for a reason that replaces
    /// any before it.
    pub(crate) fn abandon(&self, reason: Error) -> VecDeque<Submission> {
        let mut state = self.state.lock();
        state.ended = Some(reason);
        (state.bytes, state.synced) = (0, 0);
        std::mem::take(&mut state.waiting)
    }

    /// Waits until so many batches that want to be synced are there, or for so
    /// long, or for the end.
    pub(crate) fn wait_for(&self, batches: usize, timeout: Duration) {
        let mut state = self.state.lock();
        if state.ended.is_none() && state.synced < batches {
            state.awaited = batches;
            self.enough.wait_for(&mut state, timeout);
            state.awaited = 0;
        }
    }

    /// The bell to wait for, unless there is work already.
    pub(crate) fn fall_asleep(&self) -> Option<&Bell> {
        let mut state = self.state.lock();
        state.asleep = state.waiting.is_empty() && state.ended.is_none();
        state.asleep.then_some(&self.bell)
    }
}

/// A place at the end of the queue, which stays locked meanwhile.
pub(crate) struct Room<'a> {
    queue: &'a Queue,
    state: MutexGuard<'a, State>,
    size: usize,
}

impl Room<'_> {
    pub(crate) fn put(self, submission: Submission) {
        let Self { queue, mut state, size } = self;
        state.bytes += size;
        if submission.durability == Durability::Synced {
            state.synced += 1;
            if state.synced == state.awaited {
                queue.enough.notify_one();
            }
        }
        // A segment that goes makes room for those who wait.
        match submission.oldest {
            Some(_) => state.waiting.push_front(submission),
            None => state.waiting.push_back(submission),
        }
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            queue.bell.ring();
        }
    }
}

fn size(submission: &Submission) -> usize {
    bytes(submission.batch.len())
}

/// How many want to be synced.
pub(crate) fn synced(group: &[Submission]) -> usize {
    group.iter().filter(|submission| submission.durability == Durability::Synced).count()
}

fn bytes(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
