//! Telling the waiters of a group.

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::Batch;
use crate::{Committed, Error, Lsn};

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
    pub(crate) waiter: oneshot::Sender<Result<Committed, Error>>,
    pub(crate) result: Result<Committed, Error>,
}

impl Done {
    fn tell(self, synced: &watch::Sender<Lsn>) {
        synced.send_if_modified(|known| {
            let news = self.synced > *known;
            *known = self.synced.max(*known);
            news
        });
        for Answer { waiter, result } in self.answers {
            // A waiter that went away does not want to know.
            let _ = waiter.send(result);
        }
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
