//! What operators do with the queue, and what they see of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use postrider_base::Timestamp;
use postrider_mail::{AttemptOutcome, Delays, Disposition, Domain, EmailAddress, EnhancedStatus, MessageId};
use postrider_wal::Durability;
use tokio::sync::oneshot;

use crate::claim::Loads;
use crate::commit::Batch;
use crate::due::Slot;
use crate::error::{Error, Result};
use crate::index::{Broken, Index};
use crate::message::{AcceptedRecord, QueueKey};
use crate::records::{Holds, OperatorHead};
use crate::row::{NEVER, Unit};
use crate::shared::Shared;
use crate::state::{Active, State, last_of};
use crate::view::{MessageView, QueueEntry, QueueSummary, RecipientView, Selector};

/// Places dealt with at once.
const STEP: usize = 128;

pub(crate) async fn hold(shared: &Arc<Shared>, selector: &Selector) -> Result<()> {
    if let Selector::Message(id) = selector {
        return one(shared, *id, OperatorHead::Hold(vec![*id])).await;
    }
    let selector = selector.clone();
    change_holds(shared, move |holds| holds.add(&selector)).await
}

pub(crate) async fn release(shared: &Arc<Shared>, selector: &Selector) -> Result<()> {
    if let Selector::Message(id) = selector {
        return one(shared, *id, OperatorHead::Release(vec![*id])).await;
    }
    let own = selector.clone();
    change_holds(shared, move |holds| holds.remove(&own)).await?;
    each_step(shared, selector, Step::Release).await.map(drop)
}

pub(crate) async fn retry(shared: &Arc<Shared>, selector: &Selector) -> Result<u64> {
    let early = matches!(selector, Selector::Message(_));
    let hastened = each_step(shared, selector, Step::Retry { at: shared.clock.now(), early }).await?;
    // What is due but set aside needs no record: that is not remembered across restarts.
    Ok(hastened + shared.update(|state, now| state.due.recall_selected(selector, now)))
}

pub(crate) async fn delete(shared: &Arc<Shared>, selector: &Selector) -> Result<u64> {
    each_step(shared, selector, Step::Delete).await
}

/// What is done with places of the queue. An enum, because the future of a
/// generic async closure cannot be shown to be `Send`.
#[derive(Clone, Copy)]
enum Step {
    Delete,
    Release,
    Retry {
        at: Timestamp,
        /// Also what its sender does not want to be sent yet.
        early: bool,
    },
}

impl Step {
    fn wants(self, slot: &Slot) -> bool {
        match self {
            Self::Delete => true,
            Self::Release => slot.0 == NEVER,
            Self::Retry { at, .. } => slot.0 > at && slot.0 != NEVER,
        }
    }

    fn concerns(self, active: &Active) -> bool {
        match self {
            Self::Delete | Self::Release => true,
            Self::Retry { at, early } => {
                early || active.record.as_ref().is_some_and(|record| record.released_at() <= at)
            }
        }
    }

    /// How many of the places it changed.
    async fn take(self, shared: &Arc<Shared>, places: Vec<(QueueKey, Slot)>) -> Result<u64> {
        let mut batch = Batch::default();
        let mut changed = places.len() as u64;
        match self {
            Self::Delete => changed = delete_all(shared, &places, &mut batch)?,
            Self::Release => batch.operator(OperatorHead::Release(places.iter().map(|(_, slot)| slot.1).collect()))?,
            Self::Retry { at, .. } => {
                let parts = places.iter().map(|(queue, slot)| (slot.1, Some(queue.domain.clone())));
                batch.operator(OperatorHead::Retry { at, parts: parts.collect() })?;
            }
        }
        batch.commit(shared, Durability::Synced).await?;
        Ok(changed)
    }
}

fn delete_all(shared: &Arc<Shared>, places: &[(QueueKey, Slot)], batch: &mut Batch) -> Result<u64> {
    let mut deleted = 0;
    for (queue, (_, id)) in places {
        let outcomes = {
            let state = shared.state.lock();
            let active = state.messages.get(id);
            active.map(|active| deletions(active, &queue.domain, shared.clock.now()))
        };
        if let Some(outcomes) = outcomes.filter(|outcomes| !outcomes.is_empty()) {
            batch.outcomes(*id, outcomes)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

fn deletions(active: &Active, domain: &Domain, at: Timestamp) -> Vec<AttemptOutcome> {
    let unit = active.row.unit(domain).into_iter();
    let waiting = unit.flat_map(|unit| &unit.waiting);
    let deleted = waiting.map(|waiting| AttemptOutcome {
        recipient: waiting.recipient,
        at,
        attempt: waiting.attempts,
        disposition: Disposition::Deleted,
        status: EnhancedStatus::new(5, 0, 0),
        diagnostic: "deleted by the operator".into(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: None,
        record: None,
    });
    deleted.collect()
}

/// A wish about one message.
async fn one(shared: &Arc<Shared>, id: MessageId, wish: OperatorHead) -> Result<()> {
    let loads = Loads::begin(shared, vec![id]).await?;
    if loads.ids().is_empty() {
        return Err(Error::Unknown(id));
    }
    let mut batch = Batch::default();
    batch.operator(wish)?;
    batch.commit(shared, Durability::Synced).await.map(drop)
}

/// A task does it: the next change begins from what this one makes of the holds,
/// also when who asked for it has gone.
async fn change_holds(shared: &Arc<Shared>, change: impl FnOnce(&mut Holds) + Send + 'static) -> Result<()> {
    shared.recovered().await?;
    let (done, changed) = oneshot::channel();
    let own = Arc::clone(shared);
    shared.scope.spawn("holds", async move {
        // Who asked may have gone.
        let _ = done.send(change_holds_now(&own, change).await);
    });
    changed.await.map_err(|_| Error::Closed)?
}

async fn change_holds_now(shared: &Arc<Shared>, change: impl FnOnce(&mut Holds)) -> Result<()> {
    let _turn = shared.operator.lock().await;
    let mut holds = shared.state.lock().due.holds().clone();
    change(&mut holds);
    let mut batch = Batch::default();
    batch.operator(OperatorHead::Holds(holds))?;
    batch.commit(shared, Durability::Synced).await.map(drop)
}

/// Does something with every place that the selector means, a few at a time,
/// with their messages in memory.
async fn each_step(shared: &Arc<Shared>, selector: &Selector, step: Step) -> Result<u64> {
    let mut places = Places::new(shared, selector).await?;
    let mut done = 0;
    loop {
        let found = places.next(STEP).await?;
        if found.is_empty() {
            return Ok(done);
        }
        let mut found: Vec<_> = found;
        found.retain(|(_, slot)| step.wants(slot));
        let ids = found.iter().map(|(_, slot)| slot.1).collect();
        let loads = Loads::begin(shared, ids).await?;
        {
            let state = shared.state.lock();
            let concerns = |id: &MessageId| state.messages.get(id).is_some_and(|active| step.concerns(active));
            found.retain(|(_, slot)| loads.ids().contains(&slot.1) && concerns(&slot.1));
        }
        if !found.is_empty() {
            done += step.take(shared, found).await?;
        }
        shared.indexer.room().await;
    }
}

/// Places in queues: those in memory first, then those in the index.
pub(crate) struct Places {
    index: Index,
    selector: Selector,
    young: Vec<(QueueKey, Slot)>,
    queues: Vec<QueueKey>,
    /// Where to go on in the last of the queues.
    after: Option<Slot>,
}

impl Places {
    pub(crate) async fn new(shared: &Arc<Shared>, selector: &Selector) -> Result<Self> {
        shared.recovered().await?;
        let (mut young, mut queues) = {
            let state = shared.state.lock();
            (in_memory(&state, selector), selected(&state, selector))
        };
        if let Selector::Message(id) = selector {
            let loads = Loads::begin(shared, vec![*id]).await?;
            let state = shared.state.lock();
            let active = loads.ids().first().and_then(|id| state.messages.get(id));
            young = active.map(|active| places_of(*id, active)).unwrap_or_default();
            queues = Vec::new();
        }
        let index = shared.indexer.settled().await?;
        young.sort_unstable();
        queues.sort_unstable_by(|one, other| other.cmp(one));
        let (selector, after) = (selector.clone(), None);
        Ok(Self { index, selector, young, queues, after })
    }

    /// Up to `limit` places; none when there are no more.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Vec<(QueueKey, Slot)>> {
        if !self.young.is_empty() {
            let count = limit.min(self.young.len());
            return Ok(self.young.drain(..count).collect());
        }
        while let Some(queue) = self.queues.last().cloned() {
            let (index, after) = (self.index.clone(), self.after);
            let read = move || (index.slots(&queue, after, limit), queue);
            let read = tokio::task::spawn_blocking(read).await;
            let (slots, queue) = read.map_err(|_| Error::Closed)?;
            // A broken index is found out and repaired by the indexer.
            let slots = slots.unwrap_or_else(|error: Broken| {
                tracing::warn!(%error, selector = ?self.selector, "incomplete answer");
                Vec::new()
            });
            self.after = slots.last().copied();
            if !slots.is_empty() {
                return Ok(slots.into_iter().map(|slot| (queue.clone(), slot)).collect());
            }
            self.queues.pop();
        }
        Ok(Vec::new())
    }
}

fn selected(state: &State, selector: &Selector) -> Vec<QueueKey> {
    let queues = state.due.states().map(|queue| queue.key);
    queues.filter(|key| selector.covers(key)).collect()
}

fn in_memory(state: &State, selector: &Selector) -> Vec<(QueueKey, Slot)> {
    let young = state.messages.iter().filter(|(_, active)| active.young);
    let places = young.flat_map(|(id, active)| places_of(*id, active));
    places.filter(|(queue, _)| selector.covers(queue)).collect()
}

fn places_of(id: MessageId, active: &Active) -> Vec<(QueueKey, Slot)> {
    let places = active.row.places();
    places.map(|(queue, due)| (queue, (due, id))).collect()
}

pub(crate) async fn summary(shared: &Arc<Shared>) -> Result<Vec<QueueSummary>> {
    let now = shared.clock.now();
    let mut places = Places::new(shared, &Selector::All).await?;
    let mut summaries: BTreeMap<QueueKey, QueueSummary> = BTreeMap::new();
    for queue in shared.state.lock().due.states() {
        let summary = QueueSummary {
            account: queue.key.account,
            domain: queue.key.domain.clone(),
            messages: queue.waiting,
            due_now: 0,
            in_delivery: queue.claimed,
            oldest: None,
            next_due: None,
            held: queue.held,
            parked: queue.parked,
        };
        summaries.insert(queue.key, summary);
    }
    loop {
        let found = places.next(4096).await?;
        if found.is_empty() {
            break;
        }
        for (queue, (due, id)) in found {
            let Some(summary) = summaries.get_mut(&queue) else { continue };
            let accepted = id.timestamp();
            summary.oldest = Some(summary.oldest.map_or(accepted, |known| known.min(accepted)));
            summary.due_now += u64::from(due <= now);
            if due != NEVER {
                summary.next_due = Some(summary.next_due.map_or(due, |known| known.min(due)));
            }
        }
    }
    Ok(summaries.into_values().filter(|summary| summary.messages > 0 || summary.parked).collect())
}

pub(crate) async fn list(shared: &Arc<Shared>, selector: &Selector, limit: usize) -> Result<Vec<QueueEntry>> {
    let mut places = Places::new(shared, selector).await?;
    let mut entries = Vec::new();
    while entries.len() < limit {
        let found = places.next(STEP.min(limit - entries.len())).await?;
        if found.is_empty() {
            break;
        }
        let ids = found.iter().map(|(_, slot)| slot.1).collect();
        let _loads = Loads::begin(shared, ids).await?;
        let state = shared.state.lock();
        let listed = found.iter().filter_map(|(queue, (_, id))| entry(&state, queue, *id));
        entries.extend(listed);
    }
    let order = |entry: &QueueEntry| (entry.account, entry.domain.clone(), entry.next_attempt, entry.id);
    entries.sort_by_cached_key(order);
    Ok(entries)
}

fn entry(state: &State, queue: &QueueKey, id: MessageId) -> Option<QueueEntry> {
    let active = state.messages.get(&id)?;
    let record = active.record.as_ref()?;
    let unit = active.row.unit(&queue.domain)?;
    let first = unit.waiting.first()?;
    let due = active.row.due(&queue.domain).filter(|due| *due != NEVER);
    Some(QueueEntry {
        id,
        account: queue.account,
        domain: queue.domain.clone(),
        sender: record.envelope.sender.clone(),
        recipients: addresses(record, unit),
        size: record.size,
        accepted_at: active.row.accepted_at,
        next_attempt: due,
        attempts: unit.waiting.iter().map(|w| w.attempts).max().unwrap_or(0),
        held: active.row.held || state.due.holds().covers(queue),
        in_delivery: state.due.is_claimed(queue, id),
        last: last_of(&active.last, first.recipient).cloned(),
    })
}

fn addresses(record: &AcceptedRecord, unit: &Unit) -> Vec<EmailAddress> {
    let recipients = &record.envelope.recipients;
    let waiting = unit.waiting.iter();
    let found = waiting.filter_map(|w| recipients.get(usize::from(w.recipient)));
    found.map(|recipient| recipient.address.clone()).collect()
}

pub(crate) async fn show(shared: &Arc<Shared>, id: MessageId) -> Result<Option<MessageView>> {
    let _loads = Loads::begin(shared, vec![id]).await?;
    let state = shared.state.lock();
    let Some(active) = state.messages.get(&id) else { return Ok(None) };
    let Some(record) = &active.record else { return Ok(None) };
    let recipients = (0u16..).zip(&record.envelope.recipients);
    let recipients = recipients.map(|(index, recipient)| {
        let waiting = active.row.waiting().find(|w| w.recipient == index);
        let queue = active.row.queue(recipient.address.domain());
        RecipientView {
            address: recipient.address.clone(),
            done: waiting.is_none(),
            in_delivery: waiting.is_some() && state.due.is_claimed(&queue, id),
            attempts: waiting.map_or(0, |w| w.attempts),
            next_attempt: waiting.filter(|_| !active.row.held).map(|w| w.due),
            last: last_of(&active.last, index).cloned(),
        }
    });
    Ok(Some(MessageView { message: Arc::clone(record), held: active.row.held, recipients: recipients.collect() }))
}
