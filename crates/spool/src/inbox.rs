//! What the log has taken, on its way to the state.
//!
//! The effects of a group of batches are taken in together, new mail first and
//! else in the order of the log, by the one who tells that the group is on disk:
//! a lock for many messages and not for each, and nothing depends on anybody
//! waiting. Then who waits is woken; what is due by then is handed out after
//! that, because a client that waits for its 250 goes before mail that leaves
//! while the next group is being synced.

use std::sync::Arc;

use postrider_wal::{Batch, Committed, Durability, Lsn, Owner, Refused, Ticket, Told};
use tokio::sync::{Notify, oneshot};

use crate::commit::{Effect, Effects};
use crate::error::{Error, Result};
use crate::shared::Shared;

/// Batches taken in under one lock: a few microseconds.
const STEP: usize = 16;

type Answer = Result<Lsn, Box<Failed>>;

/// What waits to be handed out when a group is taken in.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// A group has made something due.
    due: Notify,
}

/// A batch that the log has and has not answered for.
#[derive(Debug)]
struct Handed {
    effects: Effects,
    waiting: oneshot::Sender<Answer>,
}

/// A batch that the log did not take, and what it would have changed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub error: Error,
    /// To be handed in again; none when the log may have it.
    pub batch: Option<Batch>,
    pub effects: Effects,
}

/// An answer that is awaited. Dropped, the batch goes on without its caller.
#[derive(Debug)]
pub(crate) enum Pending {
    Refused(Box<Failed>),
    HandedIn(oneshot::Receiver<Answer>),
}

/// Hands a batch to the log.
pub(crate) fn submit(shared: &Shared, batch: Batch, effects: Effects, durability: Durability) -> Pending {
    let (waiting, answer) = oneshot::channel();
    match shared.log.submit_for(batch, durability, Box::new(Handed { effects, waiting })) {
        Ok(()) => Pending::HandedIn(answer),
        Err(refused) => {
            let (refused, ticket) = *refused;
            let effects = opened(ticket).map(|handed| handed.effects).unwrap_or_default();
            Pending::Refused(failed(refused, effects))
        }
    }
}

fn failed(refused: Refused, effects: Effects) -> Box<Failed> {
    let Refused { error, batch } = refused;
    Box::new(Failed { error: error.into(), batch, effects })
}

/// What [`submit`] has put into a ticket; nobody else hands in with one.
fn opened(ticket: Ticket) -> Option<Box<Handed>> {
    ticket.downcast().inspect_err(|_| tracing::error!("a ticket of nobody: what came with it is lost")).ok()
}

impl Pending {
    /// Waits for the log; hands the effects back when it did not take the
    /// batch. They are taken in whether anybody waits or not.
    pub(crate) async fn done(self) -> Answer {
        // Nobody has said anything, since one of those who would have has panicked: the
        // log may have the batch.
        let unknown = || Failed { error: Error::Poisoned, batch: None, effects: Effects::new() };
        match self {
            Self::Refused(failed) => Err(failed),
            Self::HandedIn(answer) => answer.await.unwrap_or_else(|_| Err(Box::new(unknown()))),
        }
    }
}

impl Handed {
    fn is_new_mail(&self) -> bool {
        self.effects.iter().all(|effect| matches!(effect, Effect::Accepted { .. }))
    }
}

impl Owner for Shared {
    fn told(&self, group: Vec<Told>) {
        let handed = group.into_iter().filter_map(|told| Some((opened(told.ticket)?, told.result)));
        take_in(self, handed.collect());
    }
}

/// Takes in what a group says, and answers.
fn take_in(shared: &Shared, group: Vec<(Box<Handed>, Result<Committed, Refused>)>) {
    count(shared, &group);
    let (mut first_young, mut is_due) = (false, false);
    let mut answers = Vec::with_capacity(STEP);
    let last = group.iter().filter_map(|(_, result)| Some(result.as_ref().ok()?.lsn)).max();
    // Clients that wait for their 250 first: nothing else in the group can be about
    // their messages, which nobody knew before.
    let (new, others): (Vec<_>, Vec<_>) = group.into_iter().partition(|(handed, _)| handed.is_new_mail());
    let mut group = [new, others].into_iter().flatten().peekable();
    while group.peek().is_some() {
        let ((), wake) = shared.update_quietly(|state, now| {
            for (handed, result) in group.by_ref().take(STEP) {
                let Handed { effects, waiting } = *handed;
                let answer = match result {
                    Ok(committed) => {
                        first_young |= state.take_in(effects, &committed.locations, now);
                        Ok(committed.lsn)
                    }
                    Err(refused) => {
                        state.finish(&effects);
                        Err(failed(refused, effects))
                    }
                };
                answers.push((waiting, answer));
            }
            if let (None, Some(last)) = (group.peek(), last) {
                state.came_to(last);
            }
        });
        is_due |= wake;
        for (waiting, answer) in answers.drain(..) {
            if let Err(Err(failed)) = waiting.send(answer) {
                tracing::warn!(error = %failed.error, "a record was not written");
            }
        }
    }
    if first_young {
        shared.young.notify_one();
    }
    if is_due {
        shared.inbox.due.notify_one();
    }
}

/// Tells those who count and those who follow, before anybody is answered.
fn count(shared: &Shared, group: &[(Box<Handed>, Result<Committed, Refused>)]) {
    let taken = || {
        let taken = group.iter().filter_map(|(handed, result)| Some((handed, result.as_ref().ok()?)));
        taken.map(|(handed, committed)| (&handed.effects, committed))
    };
    if let Some(newest) = taken().filter_map(|(_, committed)| committed.locations.last()).next_back() {
        shared.saw_segment(newest.segment);
    }
    if !shared.feeds.is_empty() {
        shared.recent.put(taken().map(|(effects, committed)| (committed.lsn, &effects[..])));
    }
    let bytes = taken().flat_map(|(effects, committed)| {
        let each = effects.iter().zip(&committed.locations);
        let accepted = each.filter(|(effect, _)| matches!(effect, Effect::Accepted { .. } | Effect::Imported(_)));
        accepted.map(|(_, location)| u64::from(location.len))
    });
    shared.metrics.spool_accepted_bytes.inc_by(bytes.sum());
}

/// Has handed out what a group made due, once those who wait for the group
/// have had their turn.
pub(crate) async fn hand_out(shared: Arc<Shared>) {
    let work = async {
        loop {
            shared.inbox.due.notified().await;
            tokio::task::yield_now().await;
            shared.due.notify_one();
        }
    };
    tokio::select! {
        () = work => {}
        () = shared.scope.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_of_which_nothing_is_heard_may_be_in_the_log() {
        let (waiting, answer) = oneshot::channel();
        drop(waiting);
        let failed = Pending::HandedIn(answer).done().await.unwrap_err();
        assert!(matches!(failed.error, Error::Poisoned) && failed.batch.is_none());
    }
}
