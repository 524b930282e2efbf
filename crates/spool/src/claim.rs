//! Claims: a message's recipients of one domain, handed out to one delivery.

use std::sync::Arc;

use parking_lot::Mutex;
use postrider_base::{Clock, Timestamp};
use postrider_mail::{AttemptOutcome, MessageId};
use postrider_wal::{Durability, Location};

use crate::admission::Body;
use crate::commit::Batch;
use crate::due::Slot;
use crate::error::{Error, Result};
use crate::indexer::{Loaded, What};
use crate::message::{Content, Message, NewMessage, QueueKey};
use crate::records::{OperatorHead, StartedHead, decode_message};
use crate::shared::Shared;
use crate::state::{Active, Parcel, State};

/// A message's due recipients of one domain, owned by one delivery. Dropping
/// it gives what has no outcome back to its queue, due as before; there is no
/// expiry.
#[derive(Debug)]
pub struct Claim {
    /// The message's name.
    pub id: MessageId,
    /// The queue it came from.
    pub queue: QueueKey,
    /// Whom to deliver to.
    pub recipients: Vec<DueRecipient>,
    /// The message.
    pub message: Arc<Message>,
    /// Since when it has been due.
    pub ready_since: Timestamp,
    body: Option<Arc<Body>>,
    location: Location,
    /// Whether the log need not be told that an attempt begins.
    registered: bool,
    lease: Arc<Lease>,
}

/// A recipient whose time has come.
#[derive(Clone, Debug, PartialEq)]
pub struct DueRecipient {
    /// Index in the envelope's recipients.
    pub index: u16,
    /// Attempts made before this one.
    pub attempts: u32,
    /// What the last attempt said; none before the first.
    pub last: Option<AttemptOutcome>,
}

impl Claim {
    /// Records that an attempt begins, written but not synced, so that
    /// attempts are counted although a crash keeps their outcome from being
    /// recorded. To be called before dialling. Nothing is written for the
    /// first attempt of a message that was just accepted, or when called
    /// again.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Full`]: no attempt may be made.
    pub async fn register(&mut self) -> Result<()> {
        let shared = &self.lease.shared;
        shared.check_open()?;
        if self.registered {
            return Ok(());
        }
        let attempts = self.recipients.iter().map(|r| (r.index, r.attempts + 1));
        let mut batch = Batch::default();
        batch.started(StartedHead { id: self.id, attempts: attempts.collect() })?;
        batch.commit(shared, Durability::Buffered).await?;
        self.registered = true;
        Ok(())
    }

    /// The message's bytes, from memory when they are still there.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the disk does not give them back as they were
    /// written: a note goes to the quarantine directory, and the message is
    /// held for the operator.
    pub async fn content(&self) -> Result<Content> {
        if let Some(body) = &self.body {
            return Ok(body.content().clone());
        }
        let shared = &self.lease.shared;
        let mut location = self.location;
        let damage = loop {
            let own = Arc::clone(shared);
            let read = tokio::task::spawn_blocking(move || own.read_body(location)).await;
            let error = match read.map_err(|_| Error::Closed)? {
                Ok(body) => match decode_message(&body) {
                    Some((_, content)) => return Ok(content),
                    None => "the record cannot be read".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            // Reclaim may have moved the message since it was claimed.
            let state = shared.state.lock();
            match state.messages.get(&self.id) {
                Some(active) if active.row.location != location => location = active.row.location,
                Some(_) => break error,
                None => return Err(Error::Unknown(self.id)),
            }
        };
        let error = shared.damaged(self.id, damage).await;
        hold_damaged(shared, self.id).await;
        Err(error)
    }

    /// Records outcomes of some of the recipients and the messages that they
    /// cause, as one batch, and keeps the claim for the rest. On return they
    /// are written; the sync follows within `outcome_sync`. While the disk is
    /// full this waits.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: what the outcomes say may have to be done again.
    pub async fn record(&mut self, outcomes: Vec<AttemptOutcome>, dsns: Vec<NewMessage>) -> Result<()> {
        let done: Vec<_> = outcomes.iter().map(|outcome| outcome.recipient).collect();
        write(&self.lease.shared, self.id, outcomes, dsns, None).await?;
        self.recipients.retain(|recipient| !done.contains(&recipient.index));
        Ok(())
    }

    /// As [`Claim::record`], then the claim ends. Recipients without an
    /// outcome are due as before.
    ///
    /// # Errors
    /// As [`Claim::record`]; the claim has ended nevertheless.
    pub async fn finish(self, outcomes: Vec<AttemptOutcome>, dsns: Vec<NewMessage>) -> Result<()> {
        // It ends where the outcomes are taken in, under one lock with them.
        let Self { id, lease, .. } = self;
        let shared = Arc::clone(&lease.shared);
        write(&shared, id, outcomes, dsns, Some(lease)).await
    }

    /// Gives the claim back, and has it not handed out again before `until`, while
    /// the others of its queue are. Up to a thousand messages of a queue are set
    /// aside like this; with more the whole queue is, as by [`Spool::park`]. Not
    /// remembered across restarts; [`Spool::recall`] ends it early.
    ///
    /// [`Spool::park`]: crate::Spool::park
    /// [`Spool::recall`]: crate::Spool::recall
    pub fn set_aside(self, until: Timestamp) {
        self.lease.set_aside(until, false);
    }

    /// As [`Claim::set_aside`], for any number of messages: with many of a queue set aside it
    /// goes past the others, which keeps them in memory no more than any that wait. Those come
    /// back with [`Spool::read_again`]; without it some minutes after `until`, by
    /// [`Spool::let_on`].
    ///
    /// [`Spool::read_again`]: crate::Spool::read_again
    /// [`Spool::let_on`]: crate::Spool::let_on
    pub fn pass_over(self, until: Timestamp) {
        self.lease.set_aside(until, true);
    }

    /// Makes the first recipient a claim of its own; none when there is no other. The message
    /// is given back with the last of its claims: until then nothing of it that is due for the
    /// domain is handed out again. It is set aside if one of them was, for the shortest time,
    /// unless its queue was called back in between.
    pub fn split_first(&mut self) -> Option<Self> {
        if self.recipients.len() < 2 {
            return None;
        }
        Some(Self {
            id: self.id,
            queue: self.queue.clone(),
            recipients: vec![self.recipients.remove(0)],
            message: Arc::clone(&self.message),
            ready_since: self.ready_since,
            body: self.body.clone(),
            location: self.location,
            registered: self.registered,
            lease: Arc::clone(&self.lease),
        })
    }

    fn new(lease: Lease, parcel: Parcel) -> Self {
        Self {
            id: lease.slot.1,
            queue: lease.queue.clone(),
            recipients: parcel.recipients,
            message: parcel.record,
            ready_since: lease.slot.0,
            body: parcel.body,
            location: parcel.location,
            registered: parcel.fresh,
            lease: Arc::new(lease),
        }
    }
}

/// Writes outcomes and what they cause as one batch.
async fn write(
    shared: &Arc<Shared>,
    id: MessageId,
    outcomes: Vec<AttemptOutcome>,
    dsns: Vec<NewMessage>,
    lease: Option<Arc<Lease>>,
) -> Result<()> {
    if outcomes.is_empty() && dsns.is_empty() {
        return Ok(());
    }
    shared.indexer.room().await;
    let mut batch = Batch::default();
    batch.end(id, outcomes, lease)?;
    for dsn in dsns {
        batch.accept(shared, dsn, false)?;
    }
    batch.commit_patiently(shared, Durability::Buffered).await?;
    Ok(())
}

/// A place in a queue that is taken. Given back on drop.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    queue: QueueKey,
    slot: Slot,
    /// The message is kept in memory for this lease.
    pinned: bool,
    /// The message does not wait in this queue any more.
    void: bool,
    /// It is to let others pass.
    aside: Mutex<Option<Aside>>,
    /// It was given back.
    ended: bool,
}

/// How a message lets others pass.
#[derive(Clone, Copy, Debug)]
struct Aside {
    until: Timestamp,
    /// Its queue may go past it.
    is_passed_over: bool,
    /// How often its queue had been called back by then.
    recalls: u32,
}

impl Lease {
    /// It lets others pass once it is given back, which is now or when other parts of it end. Who
    /// calls its queue back meanwhile means it, too.
    fn set_aside(&self, until: Timestamp, is_passed_over: bool) {
        let state = self.shared.state.lock();
        let wish = Aside { until, is_passed_over, recalls: state.due.recalls(&self.queue) };
        let mut aside = self.aside.lock();
        *aside = match *aside {
            Some(known) => Some(Aside {
                until: known.until.min(until),
                is_passed_over: known.is_passed_over && is_passed_over,
                recalls: known.recalls,
            }),
            None => Some(wish),
        };
    }

    /// Gives it back under the lock, unless it is another claim's, too.
    pub(crate) fn end(self: Arc<Self>, state: &mut State, now: Timestamp) {
        // Dropped under the lock, the last one would wait for it.
        if let Some(mut last) = Arc::into_inner(self) {
            last.give_back(state, now);
            last.ended = true;
        }
    }

    fn give_back(&self, state: &mut State, now: Timestamp) {
        let Self { queue, slot, pinned, .. } = self;
        if self.void {
            return state.discard(queue, slot.1, now);
        }
        let aside = *self.aside.lock();
        let aside = aside.filter(|aside| aside.until > now && aside.recalls == state.due.recalls(queue));
        let due = aside.and_then(|_| state.messages.get(&slot.1)?.row.due(&queue.domain));
        state.give_back(queue, *slot, *pinned, now);
        let (Some(due), Some(Aside { until, is_passed_over, .. })) = (due, aside) else { return };
        let slot = (due, slot.1);
        if is_passed_over {
            state.due.pass_over(queue, slot, until, now);
        } else if !state.due.set_aside(queue, slot, until, now) {
            state.due.park(queue, true, now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.update(|state, now| self.give_back(state, now));
        }
    }
}

/// What was taken from the queues: what is in memory is a claim at once.
enum Taken {
    Claim(Claim),
    Unread(Lease),
}

/// Waits until something is due and claims it.
pub(crate) async fn take_due(shared: &Arc<Shared>, max: usize) -> Vec<Claim> {
    if shared.recovered().await.is_err() {
        return std::future::pending().await;
    }
    loop {
        let changed = shared.due.notified();
        let (taken, next) = take_now(shared, max.max(1));
        let claims = fetch(shared, taken).await;
        if !claims.is_empty() {
            return claims;
        }
        let wait = async {
            match next {
                Some(at) => sleep_until(&shared.clock, at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = wait => {}
        }
    }
}

/// Takes what is due now; also says when more will be.
fn take_now(shared: &Arc<Shared>, max: usize) -> (Vec<Taken>, Option<Timestamp>) {
    if shared.check_open().is_err() {
        return (Vec::new(), None);
    }
    let (slots, next) = shared.update(|state, now| {
        let slots = state.due.take(max, now).into_iter();
        let slots = slots.map(|(queue, slot)| {
            let known = state.messages.get(&slot.1).is_some_and(|active| active.record.is_some());
            let parcel = state.parcel(slot.1, &queue.domain, now);
            (queue, slot, known, parcel)
        });
        (slots.collect::<Vec<_>>(), state.due.next())
    });
    let taken = slots.into_iter().filter_map(|(queue, slot, known, parcel)| {
        let lease = Lease {
            shared: Arc::clone(shared),
            queue,
            slot,
            pinned: parcel.is_some(),
            void: known && parcel.is_none(),
            aside: Mutex::default(),
            ended: false,
        };
        match parcel {
            Some(parcel) => Some(Taken::Claim(Claim::new(lease, parcel))),
            None if known => None,
            None => Some(Taken::Unread(lease)),
        }
    });
    (taken.collect(), next)
}

/// Reads the messages back that are not in memory. The order stays.
async fn fetch(shared: &Arc<Shared>, taken: Vec<Taken>) -> Vec<Claim> {
    let unread = taken.iter().filter_map(|taken| match taken {
        Taken::Claim(_) => None,
        Taken::Unread(lease) => Some(lease.slot.1),
    });
    let unread: Vec<_> = unread.collect();
    let mut claims = Vec::with_capacity(taken.len());
    let mut loads = None;
    if !unread.is_empty() {
        loads = Loads::begin(shared, unread).await.ok();
    }
    for taken in taken {
        match (taken, &loads) {
            (Taken::Claim(claim), _) => claims.push(claim),
            (Taken::Unread(lease), Some(loads)) => claims.extend(read(lease, loads).await),
            (Taken::Unread(_), None) => {}
        }
    }
    claims
}

async fn read(mut lease: Lease, loads: &Loads) -> Option<Claim> {
    let (shared, id) = (Arc::clone(&lease.shared), lease.slot.1);
    if let Some(what) = loads.damaged(id) {
        shared.damaged(id, what.to_owned()).await;
        hold_damaged(&shared, id).await;
    }
    let parcel = shared.update(|state, now| state.parcel(id, &lease.queue.domain, now));
    lease.pinned = parcel.is_some();
    lease.void = parcel.is_none();
    parcel.map(|parcel| Claim::new(lease, parcel))
}

/// Messages being read into memory; there until this is dropped.
#[derive(Debug)]
pub(crate) struct Loads {
    shared: Arc<Shared>,
    ids: Vec<MessageId>,
    damaged: Vec<(MessageId, String)>,
}

impl Loads {
    /// Brings messages into memory and pins them there.
    pub(crate) async fn begin(shared: &Arc<Shared>, ids: Vec<MessageId>) -> Result<Self> {
        Self::begin_with(shared, ids, What::Message).await
    }

    /// As [`Loads::begin`], but reads no more of messages than their states.
    pub(crate) async fn begin_states(shared: &Arc<Shared>, ids: Vec<MessageId>) -> Result<Self> {
        Self::begin_with(shared, ids, What::State).await
    }

    async fn begin_with(shared: &Arc<Shared>, ids: Vec<MessageId>, what: What) -> Result<Self> {
        shared.recovered().await?;
        let mut loading = Loading { shared: Arc::clone(shared), ids: ids.clone() };
        shared.update(|state, _| ids.iter().for_each(|id| state.load_begins(*id)));
        let loaded = shared.indexer.load(ids, what).await?;
        let mut this = Self { shared: Arc::clone(shared), ids: Vec::new(), damaged: Vec::new() };
        loading.ids.clear();
        shared.update(|state, _| {
            for (id, loaded) in loaded {
                let active: Option<Active> = match loaded {
                    Loaded::Found(active) => Some(*active),
                    Loaded::Missing => None,
                    Loaded::Damaged(active, what) => {
                        this.damaged.push((id, what));
                        Some(*active)
                    }
                };
                state.load_ends(id, active);
                if state.pin(id) {
                    this.ids.push(id);
                }
            }
        });
        Ok(this)
    }

    /// The messages that are in memory now.
    pub(crate) fn ids(&self) -> &[MessageId] {
        &self.ids
    }

    fn damaged(&self, id: MessageId) -> Option<&str> {
        let mut damaged = self.damaged.iter();
        damaged.find(|(known, _)| *known == id).map(|(_, what)| what.as_str())
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        self.shared.update(|state, _| ids.into_iter().for_each(|id| state.unpin(id)));
    }
}

/// Loads that were begun and not ended.
struct Loading {
    shared: Arc<Shared>,
    ids: Vec<MessageId>,
}

impl Drop for Loading {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        self.shared.update(|state, _| {
            for id in ids {
                state.load_ends(id, None);
                state.forget_if_idle(id);
            }
        });
    }
}

/// A message that cannot be read is not tried again and again.
async fn hold_damaged(shared: &Arc<Shared>, id: MessageId) {
    let mut batch = Batch::default();
    let committed = match batch.operator(OperatorHead::Hold(vec![id])) {
        Ok(()) => batch.commit(shared, Durability::Buffered).await,
        Err(error) => Err(error),
    };
    if let Err(error) = committed {
        tracing::warn!(%id, %error, "a damaged message could not be held");
    }
}

async fn sleep_until(clock: &Clock, at: Timestamp) {
    let now = clock.now();
    if at > now {
        tokio::time::sleep(at.saturating_since(now)).await;
    }
}
