//! What the log has taken, on its way to the state.
//!
//! The effects of a group of batches are taken in together, in the order of
//! the log, by the one who tells that the group is on disk: a lock for many
//! messages and not for each, and nothing depends on anybody waiting. Then who
//! waits is woken; what is due by then is handed out after that, because a
//! client that waits for its 250 goes before mail that leaves while the next
//! group is being synced.

use std::sync::Arc;

use parking_lot::Mutex;
use postrider_wal::{Committed, Durability, Entry, Lsn, Waiter};
use tokio::sync::{Notify, oneshot};

use crate::commit::Effect;
use crate::error::{Error, Result};
use crate::shared::Shared;

/// Batches taken in under one lock: a few microseconds.
const STEP: usize = 16;

type Answer = Result<Lsn, (Error, Vec<Effect>)>;

/// Batches that the log has dealt with, until the group is told.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    group: Mutex<Vec<Done>>,
    /// A group has made something due.
    due: Notify,
}

#[derive(Debug)]
struct Done {
    effects: Vec<Effect>,
    result: Result<Committed, postrider_wal::Error>,
    waiting: oneshot::Sender<Answer>,
}

/// A batch that the log has and has not answered for.
#[derive(Debug)]
struct UnderWay {
    shared: Arc<Shared>,
    effects: Vec<Effect>,
    waiting: oneshot::Sender<Answer>,
}

/// An answer that is awaited. Dropped, the batch goes on without its caller.
#[derive(Debug)]
pub(crate) enum Pending {
    Refused(Error, Vec<Effect>),
    UnderWay(oneshot::Receiver<Answer>),
}

/// Hands a batch to the log.
pub(crate) fn submit(
    shared: &Arc<Shared>,
    entries: Vec<Entry>,
    effects: Vec<Effect>,
    durability: Durability,
) -> Pending {
    let (waiting, answer) = oneshot::channel();
    let own = Arc::clone(shared);
    match shared.log.submit_for(entries, durability, Box::new(UnderWay { shared: own, effects, waiting })) {
        Ok(()) => Pending::UnderWay(answer),
        Err((error, back)) => Pending::Refused(error.into(), back.effects),
    }
}

impl Pending {
    /// Waits for the log; hands the effects back when it did not take the
    /// batch. They are taken in whether anybody waits or not.
    pub(crate) async fn done(self) -> Answer {
        match self {
            Self::Refused(error, effects) => Err((error, effects)),
            Self::UnderWay(answer) => answer.await.unwrap_or_else(|_| Err((Error::Closed, Vec::new()))),
        }
    }
}

impl Waiter for UnderWay {
    fn told(self: Box<Self>, result: Result<Committed, postrider_wal::Error>, last: bool) {
        let Self { shared, effects, waiting } = *self;
        let mut inbox = shared.inbox.group.lock();
        inbox.push(Done { effects, result, waiting });
        if last {
            // The next group is about as large.
            let room = Vec::with_capacity(inbox.len());
            let group = std::mem::replace(&mut *inbox, room);
            drop(inbox);
            take_in(&shared, group);
        }
    }
}

/// Takes in what a group says, and answers.
fn take_in(shared: &Arc<Shared>, group: Vec<Done>) {
    for done in &group {
        if let Ok(committed) = &done.result {
            count(shared, &done.effects, committed);
        }
    }
    let (mut first_young, mut is_due) = (false, false);
    let mut answers = Vec::with_capacity(STEP);
    let mut group = group.into_iter();
    while group.len() > 0 {
        let ((), wake) = shared.update_quietly(|state, now| {
            for Done { effects, result, waiting } in group.by_ref().take(STEP) {
                let answer = match result {
                    Ok(committed) => {
                        first_young |= state.take_in(effects, &committed.locations, now);
                        state.came_to(committed.lsn);
                        Ok(committed.lsn)
                    }
                    Err(error) => {
                        state.finish(&effects);
                        Err((error.into(), effects))
                    }
                };
                answers.push((waiting, answer));
            }
        });
        is_due |= wake;
        for (waiting, answer) in answers.drain(..) {
            if let Err(Err((error, _))) = waiting.send(answer) {
                tracing::warn!(%error, "a record was not written");
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
fn count(shared: &Shared, effects: &[Effect], committed: &Committed) {
    if let Some(location) = committed.locations.first() {
        shared.saw_segment(location.segment);
    }
    if !shared.feeds.is_empty() {
        shared.recent.put(committed.lsn, effects);
    }
    for (effect, location) in effects.iter().zip(&committed.locations) {
        if matches!(effect, Effect::Accepted { .. } | Effect::Imported { .. }) {
            shared.metrics.spool_accepted_bytes.inc_by(location.len.into());
        }
    }
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
