//! The task that keeps the index behind the log.
//!
//! All changes and look-ups go through one queue, so that a look-up sees
//! every change that was decided before it. Nothing on the way to an accepted
//! message waits here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use postrider_mail::{AttemptOutcome, Envelope, MessageId};
use postrider_wal::{Durability, Location, Lsn};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::commit::Batch;
use crate::due::{Refill, Slot};
use crate::error::{Error, Result};
use crate::index::{Broken, Change, Index};
use crate::message::{AcceptedRecord, Origin};
use crate::records::{Mark, decode_message, decode_outcomes};
use crate::replay::Replay;
use crate::row::Row;
use crate::rows::Rows;
use crate::shared::Shared;
use crate::state::Active;
use crate::view::IndexKind;

/// The near end of the queue to the task.
#[derive(Debug)]
pub(crate) struct Indexer {
    commands: mpsc::UnboundedSender<Command>,
    backlog: AtomicU64,
    bound: u64,
    /// The backlog fell below its bound.
    room: Notify,
    /// For reads that may lag behind.
    index: RwLock<Index>,
}

/// A message read back.
#[derive(Debug)]
pub(crate) enum Loaded {
    Found(Box<Active>),
    /// Not in the index: it has ended.
    Missing,
    /// The log does not give it back; what the index knows, and the reason.
    Damaged(Box<Active>, String),
}

#[derive(Debug)]
enum Command {
    Change(Change),
    Refill(Refill),
    Load(Vec<MessageId>, What, oneshot::Sender<Vec<(MessageId, Loaded)>>),
    /// Which bodies that live lie in a segment, of messages that may have one.
    Bodies(Vec<MessageId>, u64, oneshot::Sender<Vec<Location>>),
    /// The index has been caught lying.
    Distrust,
    /// Everything before is done.
    Barrier(oneshot::Sender<()>),
}

/// How much of a message is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Its record and its bytes.
    Message,
    /// What is left to do for it.
    State,
}

/// Commands dealt with at once.
const STEP: usize = 256;
/// How long to wait while the disk is full.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Indexer {
    /// Nothing is dealt with before [`run`].
    pub(crate) fn new(bound: usize) -> (Self, Commands) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let indexer = Self {
            commands,
            backlog: AtomicU64::new(0),
            bound: bound as u64,
            room: Notify::new(),
            index: RwLock::new(Index::memory()),
        };
        (indexer, Commands(receiver))
    }

    pub(crate) fn change(&self, change: Change) {
        self.backlog.fetch_add(1, Ordering::Relaxed);
        self.send(Command::Change(change));
    }

    pub(crate) fn refill(&self, refill: Refill) {
        self.send(Command::Refill(refill));
    }

    /// Reads messages from the index and the log.
    pub(crate) async fn load(&self, ids: Vec<MessageId>, what: What) -> Result<Vec<(MessageId, Loaded)>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Load(ids, what, reply));
        answer.await.map_err(|_| Error::Closed)
    }

    /// The bodies in a segment that these messages have there, as the index
    /// knows it.
    pub(crate) async fn bodies(&self, ids: Vec<MessageId>, segment: u64) -> Result<Vec<Location>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Bodies(ids, segment, reply));
        answer.await.map_err(|_| Error::Closed)
    }

    /// Has the index made anew: it does not say what the log says.
    pub(crate) fn distrust(&self) {
        self.send(Command::Distrust);
    }

    /// The index is there, in agreement with the log.
    pub(crate) fn start_with(&self, index: Index) {
        *self.index.write() = index;
    }

    /// Waits until everything before is applied, and gives the index for
    /// reading.
    pub(crate) async fn settled(&self) -> Result<Index> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Barrier(reply));
        answer.await.map_err(|_| Error::Closed)?;
        Ok(self.index.read().clone())
    }

    /// Waits while too many changes are waiting.
    pub(crate) async fn room(&self) {
        loop {
            let room = self.room.notified();
            if self.backlog() < self.bound {
                return;
            }
            room.await;
        }
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    pub(crate) fn kind(&self) -> IndexKind {
        self.index.read().kind()
    }

    /// After the task has ended there is nobody to tell, and no need.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    fn applied(&self, changes: usize) {
        let before = self.backlog.fetch_sub(changes as u64, Ordering::Relaxed);
        if before >= self.bound {
            self.room.notify_waiters();
        }
    }
}

/// The far end of the queue.
#[derive(Debug)]
pub(crate) struct Commands(mpsc::UnboundedReceiver<Command>);

/// Deals with commands until the spool is closed.
pub(crate) async fn run(shared: Arc<Shared>, mut commands: Commands, dir: Option<PathBuf>) {
    let dir = Arc::new(dir);
    loop {
        let mut step = Vec::with_capacity(STEP);
        tokio::select! {
            biased;
            count = commands.0.recv_many(&mut step, STEP) => if count == 0 { return },
            () = shared.scope.cancelled() => return,
        }
        let (shared, dir) = (Arc::clone(&shared), Arc::clone(&dir));
        // On a thread that may block; simulated time stands still meanwhile.
        let done = tokio::task::spawn_blocking(move || deal(&shared, step, dir.as_deref()));
        if let Err(error) = done.await {
            tracing::error!(%error, "the indexer failed");
        }
    }
}

fn deal(shared: &Arc<Shared>, step: Vec<Command>, dir: Option<&Path>) {
    let mut changes = Vec::new();
    for command in step {
        if let Command::Change(change) = command {
            changes.push(change);
            continue;
        }
        apply(shared, &mut changes, dir);
        match command {
            Command::Change(_) => {}
            Command::Refill(refill) => {
                let (slots, end) = persist(shared, dir, |index| read_slots(index, &refill));
                shared.update(|state, now| state.due.refilled(&refill.queue, &slots, end, now));
            }
            // Who asked has gone.
            Command::Load(_, _, reply) if reply.is_closed() => {}
            Command::Load(ids, what, reply) => {
                let load = |id| (id, load(shared, dir, id, what));
                let _ = reply.send(ids.into_iter().map(load).collect());
            }
            Command::Bodies(ids, segment, reply) => {
                let in_memory = |id| shared.state.lock().messages.get(&id).map(|active| active.row.location);
                let indexed = |id| persist(shared, dir, |index| index.get(id)).map(|row| row.location);
                let bodies = ids.into_iter().filter_map(|id| in_memory(id).or_else(|| indexed(id)));
                let _ = reply.send(bodies.filter(|body| body.segment == segment).collect());
            }
            Command::Distrust => make_anew(shared, dir),
            Command::Barrier(reply) => {
                let _ = reply.send(());
            }
        }
    }
    apply(shared, &mut changes, dir);
}

fn apply(shared: &Arc<Shared>, changes: &mut Vec<Change>, dir: Option<&Path>) {
    if !changes.is_empty() {
        persist(shared, dir, |index| index.apply(changes));
        shared.indexer.applied(changes.len());
        changes.clear();
    }
}

fn read_slots(index: &Index, refill: &Refill) -> Result<(Vec<Slot>, bool), Broken> {
    let mut slots = index.slots(&refill.queue, refill.after, refill.limit)?;
    let end = slots.len() < refill.limit;
    // What is not due is not needed, but for the time of the first.
    let due = slots.partition_point(|(at, _)| *at <= refill.now);
    let cut = due + 1 < slots.len();
    slots.truncate(due + 1);
    Ok((slots, end && !cut))
}

fn load(shared: &Arc<Shared>, dir: Option<&Path>, id: MessageId, what: What) -> Loaded {
    let Some(mut row) = persist(shared, dir, |index| index.get(id)) else { return Loaded::Missing };
    let last = read_last(shared, &row);
    row.forget_last_but(&last);
    let active = |record, body, row, damaged| {
        let (young, unsaved, pins) = (false, false, 0);
        Box::new(Active { record, row, body, last, young, unsaved, pins, damaged })
    };
    if what == What::State {
        return Loaded::Found(active(None, None, row, false));
    }
    let body = shared.read_body(row.location).map_err(|error| error.to_string());
    let decoded = body.and_then(|body| {
        let message = decode_message(&body).filter(|(record, _)| record.id == id);
        message.ok_or_else(|| "the record cannot be read".to_owned())
    });
    match decoded {
        Ok((record, content)) => Loaded::Found(active(Some(record), shared.bodies.keep(content), row, false)),
        Err(what) => Loaded::Damaged(active(Some(Arc::new(remains(id, &row))), None, row, true), what),
    }
}

/// What can be said of a message whose record is damaged.
fn remains(id: MessageId, row: &Row) -> AcceptedRecord {
    AcceptedRecord {
        id,
        account: row.account,
        accepted_at: row.accepted_at,
        expires_at: row.accepted_at,
        envelope: Envelope::default(),
        origin: Origin::default(),
        size: u64::from(row.location.len),
        not_before: None,
        tls_optional: false,
    }
}

/// What the last attempts said. Losing it loses no mail.
pub(crate) fn read_last(shared: &Shared, row: &Row) -> Vec<AttemptOutcome> {
    let mut places: Vec<_> = row.waiting().filter_map(|waiting| waiting.last).collect();
    places.sort_unstable();
    places.dedup();
    let mut last = Vec::new();
    for place in places {
        let body = shared.read_body(place).ok();
        let outcomes = body.and_then(|body| decode_outcomes(&body)).unwrap_or_default();
        let asked = |outcome: &AttemptOutcome| {
            let mut waiting = row.waiting();
            waiting.any(|w| w.last == Some(place) && w.recipient == outcome.recipient)
        };
        last.extend(outcomes.into_iter().filter(asked));
    }
    last
}

/// Uses the index; when it is broken, makes it anew and tries again. An index
/// in memory does not break.
fn persist<T>(shared: &Arc<Shared>, dir: Option<&Path>, work: impl Fn(&Index) -> Result<T, Broken>) -> T {
    loop {
        let index = shared.indexer.index.read().clone();
        match work(&index) {
            Ok(value) => return value,
            Err(error) => {
                tracing::error!(%error, "the index is of no use");
                drop(index);
                make_anew(shared, dir);
            }
        }
    }
}

fn make_anew(shared: &Arc<Shared>, dir: Option<&Path>) {
    tracing::warn!("making the index anew from the log");
    *shared.indexer.index.write() = Index::memory();
    let fresh = rebuild(shared, dir);
    *shared.indexer.index.write() = fresh;
    shared.update(|state, now| state.due.forget_windows(now));
}

/// The index as the log says it was a moment ago. Changes since then are
/// behind in the queue, and come to the same.
fn rebuild(shared: &Arc<Shared>, dir: Option<&Path>) -> Index {
    let rows = loop {
        match rows_of_log(shared) {
            Ok(rows) => break rows,
            Err(error @ Error::Full(_)) if shared.check_open().is_ok() => {
                tracing::warn!(%error, "the index waits to be made anew");
                std::thread::sleep(AFTER_FAILURE);
            }
            Err(error) => {
                // Without an index nothing old is delivered: the process ends
                // and the next one recovers.
                shared.fail(&error);
                return Index::memory();
            }
        }
    };
    let on_disk = dir.and_then(|dir| {
        let aside = aside(dir).ok()?;
        let index = Index::open(&aside).ok()?;
        index.reconcile(&rows).ok().map(|_| index)
    });
    on_disk.unwrap_or_else(|| {
        tracing::error!("the index stays in memory");
        let index = Index::memory();
        let _ = index.reconcile(&rows);
        index
    })
}

fn rows_of_log(shared: &Arc<Shared>) -> Result<Rows> {
    // No segment goes meanwhile.
    let _gate = shared.retiring.blocking_lock();
    let (except, barrier) = {
        let mut state = shared.state.lock();
        let mut batch = Batch::default();
        batch.mark(Mark::Barrier)?;
        let under_way = shared.under_way.stop();
        let except = state.not_indexed(&under_way);
        (except, batch.submit(shared, &mut state, under_way, Durability::Synced))
    };
    let runtime = tokio::runtime::Handle::current();
    let until = runtime.block_on(barrier.done()).map_err(|failed| failed.error)?;
    Ok(replay_until(shared, until)?.into_waiting(&except))
}

fn replay_until(shared: &Shared, until: Lsn) -> Result<Replay> {
    const CHUNK: usize = 4 << 20;
    let mut replay = Replay::default();
    let mut from = Lsn::ZERO;
    loop {
        let records = shared.log.read_from(from, CHUNK)?;
        let known = records.iter().filter(|record| record.lsn <= until);
        known.for_each(|record| replay.take(record));
        match records.last() {
            Some(last) if last.lsn < until => from = last.lsn.next(),
            _ => return Ok(replay),
        }
    }
}

/// The directory that an index is in: the newest number below `dir`.
pub(crate) fn current(dir: &Path) -> PathBuf {
    dir.join(newest(dir).to_string())
}

/// A fresh directory for an index, and the old ones away.
pub(crate) fn aside(dir: &Path) -> std::io::Result<PathBuf> {
    let next = newest(dir) + 1;
    let fresh = dir.join(next.to_string());
    std::fs::create_dir_all(&fresh)?;
    for number in numbers(dir).into_iter().filter(|number| *number != next) {
        // What cannot be removed now is removed the next time.
        let _ = std::fs::remove_dir_all(dir.join(number.to_string()));
    }
    Ok(fresh)
}

fn newest(dir: &Path) -> u64 {
    numbers(dir).into_iter().max().unwrap_or(0)
}

fn numbers(dir: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
