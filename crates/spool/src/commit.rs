//! From records to the log, and from the log to the state.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_base::{Scope, Timestamp};
use postrider_mail::{AttemptOutcome, MessageId};
use postrider_wal::{Committed, Durability, Entry, Location, Lsn};
use tokio::sync::mpsc;

use crate::admission::{Admission, Body};
use crate::error::{Error, Result};
use crate::feed::FeedRecord;
use crate::message::{AcceptedRecord, NewMessage};
use crate::records::{self, Kind, Mark, OperatorHead, OutcomeState, StartedHead};
use crate::row::Row;
use crate::shared::Shared;
use crate::state::{Active, State};

/// One record of a batch, and what it changes once it is in the log.
#[derive(Debug)]
pub(crate) enum Effect {
    Accepted {
        record: Arc<AcceptedRecord>,
        body: Option<Arc<Body>>,
        admission: Admission,
    },
    Outcomes {
        id: MessageId,
        outcomes: Arc<[AttemptOutcome]>,
    },
    /// A message from another spool, with the state that it had there.
    Imported {
        record: Arc<AcceptedRecord>,
        row: Row,
        last: Vec<AttemptOutcome>,
        admission: Admission,
    },
    /// What its last attempts had said there.
    ImportedLast {
        id: MessageId,
        outcomes: Vec<OutcomeState>,
    },
    Started(StartedHead),
    Operator(OperatorHead),
    /// The state of a message said again, with its body at this place.
    Snapshot {
        id: MessageId,
        body: Location,
    },
    /// What last attempts had said when the message was `then`, copied.
    Copied {
        id: MessageId,
        then: Row,
    },
    Mark,
}

/// Records with their effects, ready to be handed to the log.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub entries: Vec<Entry>,
    effects: Vec<Effect>,
}

impl Batch {
    /// Adds a new message; refused at the bounds unless it is a consequence
    /// of what was accepted before.
    pub(crate) fn accept(&mut self, shared: &Shared, message: NewMessage, bounded: bool) -> Result<()> {
        let (record, content) = message.into_parts();
        let entry = records::accepted(&record, &content)?;
        let bytes = entry.body.iter().map(|chunk| chunk.len() as u64).sum();
        let admission = match bounded {
            true => shared.admissions.admit(bytes)?,
            false => shared.admissions.admit_anyway(bytes),
        };
        self.push(entry, Effect::Accepted { record: Arc::new(record), body: shared.bodies.keep(&content), admission });
        Ok(())
    }

    pub(crate) fn outcomes(&mut self, id: MessageId, outcomes: Vec<AttemptOutcome>) -> Result<()> {
        let entry = records::outcomes(Kind::Outcomes, id, &outcomes)?;
        self.push(entry, Effect::Outcomes { id, outcomes: outcomes.into() });
        Ok(())
    }

    /// Adds a message from another spool; `body` as it lay in the log there.
    pub(crate) fn import(
        &mut self,
        record: Arc<AcceptedRecord>,
        row: Row,
        last: Vec<AttemptOutcome>,
        body: Bytes,
        admission: Admission,
    ) -> Result<()> {
        let id = record.id;
        let copied = (!last.is_empty()).then(|| records::outcomes(Kind::Copied, id, &last)).transpose()?;
        let outcomes = last.iter().map(OutcomeState::from).collect();
        self.push(records::imported(id, &row, body)?, Effect::Imported { record, row, last, admission });
        if let Some(entry) = copied {
            self.push(entry, Effect::ImportedLast { id, outcomes });
        }
        Ok(())
    }

    pub(crate) fn started(&mut self, head: StartedHead) -> Result<()> {
        let entry = records::head_only(Kind::Started, &head)?;
        self.push(entry, Effect::Started(head));
        Ok(())
    }

    pub(crate) fn operator(&mut self, head: OperatorHead) -> Result<()> {
        let entry = records::head_only(Kind::Operator, &head)?;
        self.push(entry, Effect::Operator(head));
        Ok(())
    }

    pub(crate) fn mark(&mut self, mark: Mark) -> Result<()> {
        self.push(records::head_only(Kind::Mark, &mark)?, Effect::Mark);
        Ok(())
    }

    /// Says the state of a message again, with its body at this place, and
    /// what last attempts said: that never lies before the state.
    pub(crate) fn snapshot(&mut self, id: MessageId, active: &Active, body: Location) -> Result<()> {
        let mut row = Row { location: body, ..active.row.clone() };
        row.forget_last();
        self.push(records::snapshot(id, row)?, Effect::Snapshot { id, body });
        if !active.last.is_empty() {
            let entry = records::outcomes(Kind::Copied, id, &active.last)?;
            self.push(entry, Effect::Copied { id, then: active.row.clone() });
        }
        Ok(())
    }

    /// Bytes that the batch takes in the log, roughly.
    pub(crate) fn bytes(&self) -> u64 {
        let entry = |entry: &Entry| 2 * entry.head.len() + entry.body.iter().map(Bytes::len).sum::<usize>();
        self.entries.iter().map(entry).sum::<usize>() as u64
    }

    fn push(&mut self, entry: Entry, effect: Effect) {
        self.entries.push(entry);
        self.effects.push(effect);
    }

    fn ids(&self) -> impl Iterator<Item = MessageId> + '_ {
        ids(&self.effects)
    }

    /// Hands the batch to the log. What it changes happens when the log has
    /// it, also when the caller stops waiting.
    pub(crate) async fn commit(self, shared: &Arc<Shared>, durability: Durability) -> Result<Lsn> {
        shared.check_open()?;
        let pending = self.hand_in(shared, durability);
        pending.done().await.map_err(|(error, _)| error)
    }

    /// As [`Batch::commit`], for what has happened and cannot be refused:
    /// while the disk is full it waits.
    pub(crate) async fn commit_patiently(mut self, shared: &Arc<Shared>, durability: Durability) -> Result<Lsn> {
        let entries = self.entries.clone();
        loop {
            shared.check_open()?;
            let pending = self.hand_in(shared, durability);
            let effects = match pending.done().await {
                Ok(lsn) => return Ok(lsn),
                Err((Error::Full(what), effects)) => {
                    tracing::warn!(what, "an outcome waits for space");
                    effects
                }
                Err((error, _)) => return Err(error),
            };
            tokio::time::sleep(FULL).await;
            self = Self { entries: entries.clone(), effects };
        }
    }

    fn hand_in(self, shared: &Arc<Shared>, durability: Durability) -> Pending {
        shared.state.lock().begin(self.ids());
        self.under_way(shared, durability)
    }

    /// The first half of [`Batch::commit`], for callers that hold the lock:
    /// no other record of these messages comes in between.
    pub(crate) fn submit(self, shared: &Arc<Shared>, state: &mut State, durability: Durability) -> Pending {
        state.begin(self.ids());
        self.under_way(shared, durability)
    }

    fn under_way(self, shared: &Arc<Shared>, durability: Durability) -> Pending {
        let answer = Box::pin(shared.log.submit(self.entries, durability));
        Pending { shared: Arc::clone(shared), rest: Some((self.effects, answer)) }
    }
}

/// How long to wait before trying again while the disk is full.
const FULL: Duration = Duration::from_secs(1);

/// The messages that effects are about.
fn ids(effects: &[Effect]) -> impl Iterator<Item = MessageId> + '_ {
    let ids = |effect: &Effect| -> (Option<MessageId>, Vec<MessageId>) {
        match effect {
            Effect::Accepted { record, .. } | Effect::Imported { record, .. } => (Some(record.id), Vec::new()),
            Effect::Outcomes { id, .. } | Effect::Snapshot { id, .. } => (Some(*id), Vec::new()),
            Effect::Started(head) => (Some(head.id), Vec::new()),
            Effect::Operator(wish) => (None, wish.ids()),
            Effect::ImportedLast { .. } | Effect::Copied { .. } | Effect::Mark => (None, Vec::new()),
        }
    };
    effects.iter().flat_map(move |effect| {
        let (one, many) = ids(effect);
        one.into_iter().chain(many)
    })
}

type Answer = Pin<Box<dyn Future<Output = Result<Committed, postrider_wal::Error>> + Send>>;

/// A batch that the log has not confirmed yet. Dropped, it goes on without
/// its caller.
pub(crate) struct Pending {
    shared: Arc<Shared>,
    rest: Option<(Vec<Effect>, Answer)>,
}

impl Pending {
    /// Waits for the log, then takes the effects in; hands them back when the
    /// log did not take the batch.
    pub(crate) async fn done(mut self) -> Result<Lsn, (Error, Vec<Effect>)> {
        let Some((_, answer)) = &mut self.rest else {
            unreachable!("only this function takes the rest, and it consumes the batch")
        };
        let result = answer.await;
        let effects = self.rest.take().map(|(effects, _)| effects);
        let effects = effects.unwrap_or_default();
        match result {
            Ok(committed) => Ok(settle(&self.shared, effects, committed)),
            Err(error) => {
                self.shared.update(|state, _| state.finish(ids(&effects)));
                Err((error.into(), effects))
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            let pending = Self { shared: Arc::clone(&self.shared), rest: Some(rest) };
            if let Err(mpsc::error::SendError(mut pending)) = self.shared.orphans.send(pending) {
                // Nobody is left to care; the log knows.
                pending.rest = None;
            }
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effects = self.rest.as_ref().map(|(effects, _)| effects);
        f.debug_struct("Pending").field("effects", &effects).finish()
    }
}

fn settle(shared: &Arc<Shared>, effects: Vec<Effect>, committed: Committed) -> Lsn {
    if let Some(location) = committed.locations.first() {
        shared.saw_segment(location.segment);
    }
    if !shared.feeds.is_empty() {
        shared.recent.put(committed.lsn, &effects);
    }
    for (effect, location) in effects.iter().zip(&committed.locations) {
        if matches!(effect, Effect::Accepted { .. } | Effect::Imported { .. }) {
            shared.metrics.spool_accepted_bytes.inc_by(location.len.into());
        }
    }
    let first_young = shared.update(|state, now| {
        let touched: Vec<_> = ids(&effects).collect();
        let mut first_young = false;
        for (effect, location) in effects.into_iter().zip(committed.locations) {
            first_young |= apply(state, effect, location, now);
        }
        state.finish(touched.into_iter());
        first_young
    });
    if first_young {
        shared.young.notify_one();
    }
    committed.lsn
}

/// Whether a message became young while none was.
fn apply(state: &mut State, effect: Effect, location: Location, now: Timestamp) -> bool {
    match effect {
        Effect::Accepted { record, body, admission } => {
            admission.keep();
            return state.accepted(record, location, body, now);
        }
        Effect::Imported { record, row, last, admission } => {
            admission.keep();
            state.imported(record, Row { location, home: location.segment, ..row }, last, now);
        }
        Effect::ImportedLast { id, outcomes } => {
            state.change(id, now, |active| active.row.copied(&outcomes, location));
        }
        Effect::Outcomes { id, outcomes } => {
            let states: Vec<_> = outcomes.iter().map(OutcomeState::from).collect();
            state.change(id, now, |active| {
                active.row.settle(&states, location);
                active.remember(&outcomes);
            });
        }
        Effect::Started(StartedHead { id, attempts }) => {
            if let Some(active) = state.messages.get_mut(&id) {
                active.row.started(&attempts);
            }
        }
        Effect::Operator(wish) => operator(state, wish, location, now),
        Effect::Snapshot { id, body } => {
            state.change(id, now, |active| {
                active.row.location = body;
                active.row.home = location.segment;
            });
        }
        Effect::Copied { id, then } => {
            state.change(id, now, |active| active.row.copied_since(&then, location));
        }
        Effect::Mark => {}
    }
    false
}

fn operator(state: &mut State, wish: OperatorHead, location: Location, now: Timestamp) {
    let mut hold = |ids: Vec<MessageId>, held| {
        for id in ids {
            state.change(id, now, |active| active.row.held = held);
        }
    };
    match wish {
        OperatorHead::Hold(ids) => hold(ids, true),
        OperatorHead::Release(ids) => hold(ids, false),
        OperatorHead::Retry { at, parts } => {
            for (id, domain) in parts {
                state.change(id, now, |active| active.row.hasten(domain.as_ref(), at));
            }
        }
        OperatorHead::Holds(holds) => {
            state.holds_segment = Some(location.segment);
            state.due.set_holds(holds, now);
        }
    }
}

impl Active {
    /// Keeps what these attempts said, while their recipients wait.
    fn remember(&mut self, outcomes: &[AttemptOutcome]) {
        for outcome in outcomes {
            self.last.retain(|known| known.recipient != outcome.recipient);
            if !outcome.disposition.is_terminal() {
                self.last.push(outcome.clone());
            }
        }
    }
}

/// What a batch tells the feeds.
pub(crate) fn feed_records(effects: &[Effect]) -> Vec<(u16, FeedRecord)> {
    let records = (0..).zip(effects).filter_map(|(index, effect)| {
        let record = match effect {
            Effect::Accepted { record, .. } => FeedRecord::Accepted(Arc::clone(record)),
            Effect::Imported { record, .. } => FeedRecord::Imported(Arc::clone(record)),
            Effect::Outcomes { id, outcomes } => FeedRecord::Outcomes { id: *id, outcomes: Arc::clone(outcomes) },
            _ => return None,
        };
        Some((index, record))
    });
    records.collect()
}

/// Takes in what callers no longer wait for, until the spool is closed.
pub(crate) async fn adopt(mut orphans: mpsc::UnboundedReceiver<Pending>, scope: Scope) {
    loop {
        let pending = tokio::select! {
            pending = orphans.recv() => pending,
            () = scope.cancelled() => None,
        };
        let Some(pending) = pending else { return };
        if let Err((error, _)) = pending.done().await {
            tracing::warn!(%error, "a record was not written");
        }
    }
}
