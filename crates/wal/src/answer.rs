//! Telling the waiters of a group.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::{Batch, Placed};
use crate::shared::Shared;
use crate::{Committed, Error, Lsn};

/// One who takes in what a whole group of batches changes at once, see
/// [`Log::submit_for`](crate::Log::submit_for).
pub trait Owner: Send + Sync + fmt::Debug {
    /// What became of the owner's batches of a group, in the order of the log;
    /// called group by group, by one task or thread at a time. It must not block.
    /// The log is poisoned if it panics.
    fn told(&self, group: Vec<Told>);
}

/// What an owner hands in with a batch, and gets back with the answer.
pub type Ticket = Box<dyn Any + Send>;

/// What became of a batch.
#[derive(Debug)]
pub struct Told {
    /// What came with it.
    pub ticket: Ticket,
    /// Where it is, or why it is not in the log.
    pub result: Result<Committed, Refused>,
}

/// A batch that the log has not taken.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// It, to be handed in again; none when the log may have it.
    pub batch: Option<Batch>,
}

/// A group that is done, or failed.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) answers: Vec<Answer>,
    /// Batches that were written: freed away from the writer.
    pub(crate) spent: Vec<Placed>,
    pub(crate) synced: Lsn,
}

/// What one waiter gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) waiter: Waiter,
    pub(crate) result: Result<Committed, Refused>,
}

/// Who is told.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// The future of a commit.
    Future(oneshot::Sender<Result<Committed, Error>>),
    /// The log's owner.
    Owner(Ticket),
}

/// The owner of a log, once there is one.
pub(crate) type Owned = Arc<OnceLock<Weak<dyn Owner>>>;

impl Done {
    fn tell(self, synced: &watch::Sender<Lsn>, owned: &Owned) {
        let mut group = Vec::with_capacity(self.answers.len());
        for Answer { waiter, result } in self.answers {
            match waiter {
                // One that went away does not want to know.
                Waiter::Future(waiter) => drop(waiter.send(result.map_err(|refused| refused.error))),
                Waiter::Owner(ticket) => group.push(Told { ticket, result }),
            }
        }
        if !group.is_empty()
            && let Some(owner) = owned.get().and_then(Weak::upgrade)
        {
            owner.told(group);
        }
        // Last, so that who follows the log finds the owner informed.
        synced.send_if_modified(|known| {
            let news = self.synced > *known;
            *known = self.synced.max(*known);
            news
        });
    }
}

/// Ends the log when its owner panics: what the owner has not taken in of a
/// group is missing from then on, and only a restart brings it.
struct Unheard(Weak<Shared>);

impl Drop for Unheard {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(shared) = self.0.upgrade()
        {
            shared.give_up();
        }
    }
}

/// Waking a task from a foreign thread costs a system call each; so a group
/// is one message to a task inside the runtime, which wakes the others there.
#[derive(Debug)]
pub(crate) struct Answers {
    synced: watch::Sender<Lsn>,
    owned: Owned,
    fan_out: Option<mpsc::UnboundedSender<Done>>,
}

impl Answers {
    /// Answers by a task of `runtime`, or directly without one. The task ends
    /// with this value. Its queue is bounded by the batches that wait.
    pub(crate) fn new(shared: &Arc<Shared>, runtime: Option<&Handle>) -> Self {
        let (synced, owned) = (shared.committed.clone(), shared.owner.clone());
        let fan_out = runtime.map(|runtime| {
            let (sender, mut receiver) = mpsc::unbounded_channel::<Done>();
            let (synced, owned) = (synced.clone(), owned.clone());
            let unheard = Unheard(Arc::downgrade(shared));
            runtime.spawn(async move {
                let _unheard = unheard;
                while let Some(done) = receiver.recv().await {
                    done.tell(&synced, &owned);
                }
            });
            sender
        });
        Self { synced, owned, fan_out }
    }

    pub(crate) fn send(&self, done: Done) {
        let rest = match &self.fan_out {
            Some(fan_out) => fan_out.send(done).err().map(|refused| refused.0),
            None => Some(done),
        };
        if let Some(done) = rest {
            done.tell(&self.synced, &self.owned);
        }
    }
}
