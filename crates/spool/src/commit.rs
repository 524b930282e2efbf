//! From records to the log, and from the log to the state.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_base::Timestamp;
use postrider_mail::{AttemptOutcome, MessageId};
use postrider_wal::{Durability, Entry, Location, Lsn};
use smallvec::SmallVec;

use crate::admission::{Admission, Body};
use crate::claim::Lease;
use crate::error::{Error, Result};
use crate::feed::FeedRecord;
use crate::inbox::{self, Failed, Pending};
use crate::message::{AcceptedRecord, NewMessage};
use crate::records::{self, Kind, Mark, OperatorHead, OutcomeState, StartedHead};
use crate::row::Row;
use crate::shared::Shared;
use crate::state::{Active, State};
use crate::under_way::Standstill;

/// One record of a batch, and what it changes once it is in the log.
#[derive(Debug)]
pub(crate) enum Effect {
    Accepted {
        record: Arc<AcceptedRecord>,
        /// Its state, but for the place.
        row: Row,
        body: Option<Arc<Body>>,
        admission: Admission,
    },
    Outcomes {
        id: MessageId,
        outcomes: Arc<[AttemptOutcome]>,
        /// The claim that ends with them.
        lease: Option<Arc<Lease>>,
    },
    Imported(Box<Imported>),
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
    Copied(Box<(MessageId, Row)>),
    Mark,
}

/// Most batches have one.
pub(crate) type Effects = SmallVec<[Effect; 1]>;

/// A message from another spool, with the state that it had there.
#[derive(Debug)]
pub(crate) struct Imported {
    record: Arc<AcceptedRecord>,
    row: Row,
    last: Vec<AttemptOutcome>,
    admission: Admission,
}

/// Records with their effects, ready to be handed to the log.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub entries: SmallVec<[Entry; 1]>,
    effects: Effects,
}

impl Batch {
    /// Adds a new message; refused at the bounds unless it is a consequence
    /// of what was accepted before.
    pub(crate) fn accept(&mut self, shared: &Shared, message: NewMessage, bounded: bool) -> Result<()> {
        let (record, content) = message.into_parts();
        let (entry, row) = records::accepted(&record, &content)?;
        let bytes = entry.body.iter().map(|chunk| chunk.len() as u64).sum();
        let admission = match bounded {
            true => shared.admissions.admit(bytes)?,
            false => shared.admissions.admit_anyway(bytes),
        };
        let (record, body) = (Arc::new(record), shared.bodies.keep(content));
        self.push(entry, Effect::Accepted { record, row, body, admission });
        Ok(())
    }

    pub(crate) fn outcomes(&mut self, id: MessageId, outcomes: Vec<AttemptOutcome>) -> Result<()> {
        self.end(id, outcomes, None)
    }

    /// Adds outcomes with which a claim ends, if there is one.
    pub(crate) fn end(
        &mut self,
        id: MessageId,
        outcomes: Vec<AttemptOutcome>,
        lease: Option<Arc<Lease>>,
    ) -> Result<()> {
        let entry = records::outcomes(Kind::Outcomes, id, &outcomes)?;
        self.push(entry, Effect::Outcomes { id, outcomes: outcomes.into(), lease });
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
        self.push(
            records::imported(id, &row, body)?,
            Effect::Imported(Box::new(Imported { record, row, last, admission })),
        );
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
            self.push(entry, Effect::Copied(Box::new((id, active.row.clone()))));
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

    /// Hands the batch to the log. What it changes happens when the log has
    /// it, also when the caller stops waiting.
    pub(crate) async fn commit(self, shared: &Shared, durability: Durability) -> Result<Lsn> {
        shared.check_open()?;
        self.hand_in(shared, durability).done().await.map_err(|failed| failed.error)
    }

    /// As [`Batch::commit`], for what has happened and cannot be refused:
    /// while the disk is full it waits.
    pub(crate) async fn commit_patiently(self, shared: &Shared, durability: Durability) -> Result<Lsn> {
        shared.check_open()?;
        let mut pending = self.hand_in(shared, durability);
        loop {
            let failed = match pending.done().await {
                Ok(lsn) => return Ok(lsn),
                Err(failed) => *failed,
            };
            let (what, batch) = match (failed.error, failed.batch) {
                (Error::Full(what), Some(batch)) => (what, batch),
                (error, _) => return Err(error),
            };
            tracing::warn!(what, "an outcome waits for space");
            tokio::time::sleep(FULL).await;
            shared.check_open()?;
            pending = hand_in(shared, Ok(batch), failed.effects, durability);
        }
    }

    fn hand_in(self, shared: &Shared, durability: Durability) -> Pending {
        hand_in(shared, shared.log.batch(self.entries), self.effects, durability)
    }

    /// The first half of [`Batch::commit`], for callers that have stopped the
    /// others: no other record of these messages comes in between.
    pub(crate) fn submit(
        self,
        shared: &Shared,
        state: &mut State,
        mut under_way: Standstill<'_>,
        durability: Durability,
    ) -> Pending {
        self.effects.iter().for_each(|effect| effect.each_id(|id| under_way.comes(id)));
        let pending = under_way_with(shared, shared.log.batch(self.entries), self.effects, durability);
        drop(under_way);
        if let Pending::Refused(failed) = &pending {
            state.finish(&failed.effects);
        }
        pending
    }
}

fn hand_in(
    shared: &Shared,
    batch: Result<postrider_wal::Batch, postrider_wal::Error>,
    effects: Effects,
    durability: Durability,
) -> Pending {
    effects.iter().for_each(|effect| effect.each_id(|id| shared.under_way.comes(id)));
    let pending = under_way_with(shared, batch, effects, durability);
    if let Pending::Refused(failed) = &pending {
        shared.update(|state, _| state.finish(&failed.effects));
    }
    pending
}

fn under_way_with(
    shared: &Shared,
    batch: Result<postrider_wal::Batch, postrider_wal::Error>,
    effects: Effects,
    durability: Durability,
) -> Pending {
    match batch {
        Ok(batch) => inbox::submit(shared, batch, effects, durability),
        Err(error) => Pending::Refused(Box::new(Failed { error: error.into(), batch: None, effects })),
    }
}

/// How long to wait before trying again while the disk is full.
const FULL: Duration = Duration::from_secs(1);

impl Effect {
    /// The message that it is about, for all effects but an operator's.
    fn id(&self) -> Option<MessageId> {
        match self {
            Self::Accepted { record, .. } => Some(record.id),
            Self::Imported(imported) => Some(imported.record.id),
            Self::Outcomes { id, .. } | Self::Snapshot { id, .. } => Some(*id),
            Self::Started(head) => Some(head.id),
            Self::Operator(_) | Self::ImportedLast { .. } | Self::Copied(_) | Self::Mark => None,
        }
    }

    /// All messages that it is about.
    fn each_id(&self, mut concern: impl FnMut(MessageId)) {
        match self {
            Self::Operator(wish) => wish.ids().into_iter().for_each(concern),
            one => one.id().into_iter().for_each(&mut concern),
        }
    }
}

impl State {
    /// Records with these effects failed.
    pub(crate) fn finish(&mut self, effects: &[Effect]) {
        effects.iter().for_each(|effect| effect.each_id(|id| self.came(id)));
    }

    /// Takes in what the log has. Whether a message became young while none
    /// was.
    pub(crate) fn take_in(&mut self, effects: Effects, locations: &[Location], now: Timestamp) -> bool {
        let mut first_young = false;
        debug_assert_eq!(effects.len(), locations.len(), "an effect without a place");
        for (effect, location) in effects.into_iter().zip(locations) {
            let one = effect.id();
            let many = match &effect {
                Effect::Operator(wish) => wish.ids(),
                _ => Vec::new(),
            };
            first_young |= apply(self, effect, *location, now);
            one.into_iter().chain(many).for_each(|id| self.came(id));
        }
        first_young
    }
}

/// Whether a message became young while none was.
fn apply(state: &mut State, effect: Effect, location: Location, now: Timestamp) -> bool {
    match effect {
        Effect::Accepted { record, row, body, admission } => {
            admission.keep();
            return state.accepted(record, Row { location, home: location.segment, ..row }, body, now);
        }
        Effect::Imported(imported) => {
            let Imported { record, row, last, admission } = *imported;
            admission.keep();
            state.imported(record, Row { location, home: location.segment, ..row }, last, now);
        }
        Effect::ImportedLast { id, outcomes } => {
            state.change(id, now, |active| active.row.copied(&outcomes, location));
        }
        Effect::Outcomes { id, outcomes, lease } => {
            let states: SmallVec<[_; 1]> = outcomes.iter().map(OutcomeState::from).collect();
            state.change(id, now, |active| {
                active.row.settle(&states, location);
                active.remember(&outcomes);
            });
            if let Some(lease) = lease {
                lease.end(state, now);
            }
        }
        Effect::Started(StartedHead { id, attempts }) => {
            if let Some(active) = state.messages.get_mut(&id) {
                active.row.started(&attempts);
                active.unsaved |= !active.young;
            }
        }
        Effect::Operator(wish) => operator(state, wish, location, now),
        Effect::Snapshot { id, body } => {
            state.change(id, now, |active| {
                active.row.location = body;
                active.row.home = location.segment;
            });
        }
        Effect::Copied(copied) => {
            let (id, then) = *copied;
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
        OperatorHead::Taken(taken) => state.taken = (taken, Some(location.segment)),
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
            Effect::Imported(imported) => FeedRecord::Imported(Arc::clone(&imported.record)),
            Effect::Outcomes { id, outcomes, .. } => FeedRecord::Outcomes { id: *id, outcomes: Arc::clone(outcomes) },
            _ => return None,
        };
        Some((index, record))
    });
    records.collect()
}
