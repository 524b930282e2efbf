//! Telling the waiters of a group.

use std::fmt;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::Batch;
use crate::{Committed, Error, Lsn};

/// An owner's end of a batch that was [handed in](crate::Log::submit_for):
/// hears what became of it.
pub trait Waiter: Send + fmt::Debug {
    /// Called once, in the order of the log and group by group, by one task or
    /// thread at a time. `last` says that no other of the group is told after
    /// this one. It must not block.
    fn told(self: Box<Self>, result: Result<Committed, Error>, last: bool);
}

/// A group that is done, or failed.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) answers: Vec<Answer>,
    /// Batches that were written: freed away from the writer.
    pub(crate) spent: Vec<Batch>,
    pub(crate) synced: Lsn,
}

/// What one waiter gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) waiter: Told,
    pub(crate) result: Result<Committed, Error>,
}

/// Who is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// The future of a commit.
    Future(oneshot::Sender<Result<Committed, Error>>),
    Owner(Box<dyn Waiter>),
}

impl Done {
    fn tell(self, synced: &watch::Sender<Lsn>) {
        let last = self.answers.iter().rposition(|answer| matches!(answer.waiter, Told::Owner(_)));
        for (index, Answer { waiter, result }) in self.answers.into_iter().enumerate() {
            match waiter {
                // One that went away does not want to know.
                Told::Future(waiter) => drop(waiter.send(result)),
                Told::Owner(waiter) => waiter.told(result, Some(index) == last),
            }
        }
        // Last, so that who follows the log finds the owner informed.
        synced.send_if_modified(|known| {
            let news = self.synced > *known;
            *known = self.synced.max(*known);
            news
        });
    }
}

/// Waking a task from a foreign thread costs a system call each; so a group
/// is one message to a task inside the runtime, which wakes the others there.
#[derive(Debug)]
pub(crate) struct Answers {
    synced: watch::Sender<Lsn>,
    fan_out: Option<mpsc::UnboundedSender<Done>>,
}

impl Answers {
    /// Answers by a task of `runtime`, or directly without one. The task ends
    /// with this value. Its queue is bounded by the batches that wait.
    pub(crate) fn new(synced: watch::Sender<Lsn>, runtime: Option<&Handle>) -> Self {
        let fan_out = runtime.map(|runtime| {
            let (sender, mut receiver) = mpsc::unbounded_channel::<Done>();
            let synced = synced.clone();
            runtime.spawn(async move {
                while let Some(done) = receiver.recv().await {
                    done.tell(&synced);
                }
            });
            sender
        });
        Self { synced, fan_out }
    }

    pub(crate) fn send(&self, done: Done) {
        let rest = match &self.fan_out {
            Some(fan_out) => fan_out.send(done).err().map(|refused| refused.0),
            None => Some(done),
        };
        if let Some(done) = rest {
            done.tell(&self.synced);
        }
    }
}
