//! The feed: what the log's synced batches say, in order, for those who
//! derive something from it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_mail::{AttemptOutcome, MessageId};
use postrider_wal::{Lsn, Replayed};
use tokio::sync::{Notify, watch};

use crate::commit::{Effect, feed_records};
use crate::error::{Error, Result};
use crate::message::AcceptedRecord;
use crate::records::{Kind, OutcomeHead, decode_head, decode_message, decode_outcomes};
use crate::shared::Shared;

/// One reader's place in the log. Nothing that it has not acknowledged is
/// reclaimed, also while it is not open.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    name: &'static str,
    synced: watch::Receiver<Lsn>,
    next: Lsn,
}

/// A record of a synced batch.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedItem {
    /// Number of the batch; grows.
    pub lsn: Lsn,
    /// Place in the batch; grows within it.
    pub index: u16,
    /// What happened.
    pub record: FeedRecord,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FeedRecord {
    /// A message was accepted.
    Accepted(Arc<AcceptedRecord>),
    /// A message came from another spool, where its acceptance was told.
    Imported(Arc<AcceptedRecord>),
    /// Attempts ended, or an operator deleted recipients. A recipient may
    /// come to an end twice: deleted while it was being delivered.
    Outcomes {
        /// Of this message.
        id: MessageId,
        /// One for each recipient concerned.
        outcomes: Arc<[AttemptOutcome]>,
    },
}

/// Batches handed out at once.
const MAX_BATCHES: usize = 1024;
/// Bytes of heads read from the log at once.
const MAX_BYTES: usize = 1 << 20;

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.feeds.close(self.name);
    }
}

impl Feed {
    pub(crate) fn new(shared: &Arc<Shared>, name: &'static str, from: Lsn) -> Self {
        let next = from.max(Lsn::new(1));
        shared.feeds.open(name, Lsn::new(next.get() - 1));
        Self { shared: Arc::clone(shared), name, synced: shared.log.committed(), next }
    }

    /// The next records, at least one; waits for them. Batches are never
    /// split: an acknowledged batch was seen whole.
    ///
    /// # Errors
    /// [`Error::Closed`] when everything that was synced before the spool was
    /// closed has been handed out; [`Error::Log`] when the log cannot be read.
    pub async fn next(&mut self) -> Result<Vec<FeedItem>> {
        self.shared.recovered().await?;
        loop {
            let synced = *self.synced.borrow_and_update();
            if self.next > synced {
                if self.shared.scope.is_cancelled() {
                    return Err(Error::Closed);
                }
                tokio::select! {
                    changed = self.synced.changed() => changed.map_err(|_| Error::Closed)?,
                    () = self.shared.scope.cancelled() => {}
                }
                // Those who committed get to say what they did.
                tokio::task::yield_now().await;
                continue;
            }
            let (items, last) = self.read(synced).await?;
            self.next = last.next();
            self.shared.feeds.handed(self.name, &items, last);
            if !items.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Whether all batches that are synced by now were handed out.
    pub fn is_at_end(&self) -> bool {
        // What is waited for is told only after those who committed are answered.
        self.next > self.shared.log.synced()
    }

    /// Everything up to and with this batch is dealt with and need not be
    /// kept for this reader.
    pub fn ack(&self, lsn: Lsn) {
        self.shared.feeds.ack(self.name, lsn);
        self.shared.reclaim.notify_one();
    }

    /// Items from `next` on, and the last batch that they cover.
    async fn read(&self, synced: Lsn) -> Result<(Vec<FeedItem>, Lsn)> {
        let shared = &self.shared;
        let only = shared.feeds.len() == 1;
        if let Some(found) = shared.recent.read(self.next, synced, only) {
            return Ok(found);
        }
        let (shared, from) = (Arc::clone(shared), self.next);
        let read = move || read_log(&shared, from, synced);
        tokio::task::spawn_blocking(read).await.map_err(|_| Error::Closed)?
    }
}

fn read_log(shared: &Shared, from: Lsn, synced: Lsn) -> Result<(Vec<FeedItem>, Lsn)> {
    let records = shared.log.read_from(from, MAX_BYTES)?;
    // Nothing from here on: what there was is damaged, and reported.
    let last = records.last().map_or(synced, |record| record.lsn);
    let mut items = Vec::with_capacity(records.len());
    for record in &records {
        let Replayed { lsn, index, .. } = *record;
        match decode(shared, record) {
            Ok(Some(record)) => items.push(FeedItem { lsn, index, record }),
            Ok(None) => {}
            Err(what) => shared.quarantine.note(&format!("feed-{lsn}-{index}"), &what, &record.head),
        }
    }
    Ok((items, last))
}

fn decode(shared: &Shared, record: &Replayed) -> Result<Option<FeedRecord>, String> {
    let body = || shared.read_body(record.location).map_err(|error| error.to_string());
    let unreadable = || "the record cannot be read".to_owned();
    match Kind::from_byte(record.kind) {
        Some(Kind::Accepted) => {
            let (message, _) = decode_message(&body()?).ok_or_else(unreadable)?;
            Ok(Some(FeedRecord::Accepted(message)))
        }
        Some(Kind::Imported) => {
            let (message, _) = decode_message(&body()?).ok_or_else(unreadable)?;
            Ok(Some(FeedRecord::Imported(message)))
        }
        Some(Kind::Outcomes) => {
            let head: OutcomeHead = decode_head(&record.head).ok_or_else(unreadable)?;
            let outcomes = decode_outcomes(&body()?).ok_or_else(unreadable)?;
            Ok(Some(FeedRecord::Outcomes { id: head.id, outcomes: outcomes.into() }))
        }
        Some(_) => Ok(None),
        None => Err(unreadable()),
    }
}

/// How far each reader is.
#[derive(Debug)]
pub(crate) struct Feeds {
    places: Mutex<HashMap<&'static str, Place>>,
    /// Rung when a place changes.
    moved: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    acked: Lsn,
    /// The last batch with something for the reader.
    handed: Lsn,
    /// The last batch looked at.
    seen: Lsn,
    /// Somebody reads.
    is_open: bool,
}

impl Place {
    /// Up to here nothing is needed any more.
    fn done(&self) -> Lsn {
        match self.acked >= self.handed {
            true => self.acked.max(self.seen),
            false => self.acked,
        }
    }
}

impl Feeds {
    /// With readers that are expected.
    pub(crate) fn new(names: &[&'static str]) -> Self {
        let places = names.iter().map(|name| (*name, Place::default()));
        Self { places: Mutex::new(places.collect()), moved: Notify::new() }
    }

    /// Up to here every reader is done.
    pub(crate) fn done(&self) -> Lsn {
        let places = self.places.lock();
        places.values().map(Place::done).min().unwrap_or(Lsn::new(u64::MAX))
    }

    pub(crate) fn places(&self) -> Vec<(String, u64)> {
        let places = self.places.lock();
        let places = places.iter().map(|(name, place)| ((*name).to_owned(), place.done().get()));
        places.collect()
    }

    fn len(&self) -> usize {
        self.places.lock().len()
    }

    /// Whether nobody reads.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn open(&self, name: &'static str, done: Lsn) {
        let place = Place { acked: done, handed: done, seen: done, is_open: true };
        self.places.lock().insert(name, place);
    }

    fn close(&self, name: &'static str) {
        self.places.lock().entry(name).or_default().is_open = false;
        self.moved.notify_waiters();
    }

    /// Waits until the reader is done with this batch, or nobody reads.
    pub(crate) async fn reach(&self, name: &str, lsn: Lsn) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            let waits = |place: &Place| place.is_open && place.done() < lsn;
            if !self.places.lock().get(name).is_some_and(waits) {
                return;
            }
            moved.await;
        }
    }

    fn handed(&self, name: &'static str, items: &[FeedItem], seen: Lsn) {
        let mut places = self.places.lock();
        let place = places.entry(name).or_default();
        place.seen = seen;
        if let Some(last) = items.last() {
            place.handed = last.lsn;
        }
        drop(places);
        self.moved.notify_waiters();
    }

    fn ack(&self, name: &'static str, lsn: Lsn) {
        let mut places = self.places.lock();
        let place = places.entry(name).or_default();
        place.acked = place.acked.max(lsn);
        drop(places);
        self.moved.notify_waiters();
    }
}

/// What the last batches say, so that a reader at the end of the log decodes
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<BTreeMap<Lsn, Vec<(u16, FeedRecord)>>>);

impl Recent {
    /// Batches kept.
    const BOUND: usize = 4096;

    /// Adds a group of batches.
    pub(crate) fn put<'a>(&self, group: impl Iterator<Item = (Lsn, &'a [Effect])>) {
        let group: Vec<_> = group.map(|(lsn, effects)| (lsn, feed_records(effects))).collect();
        let mut recent = self.0.lock();
        recent.extend(group);
        let surplus = recent.len().saturating_sub(Self::BOUND);
        let oldest: Vec<_> = (0..surplus).map_while(|_| recent.pop_first()).collect();
        drop(recent);
        // Freed without the lock.
        drop(oldest);
    }

    /// Items of batches from `from` on without a gap, and the last of those
    /// batches; none when the first is not here. They are forgotten when
    /// nobody else will ask.
    fn read(&self, from: Lsn, synced: Lsn, forget: bool) -> Option<(Vec<FeedItem>, Lsn)> {
        let mut recent = self.0.lock();
        let (mut items, mut last, mut next) = (Vec::new(), None, from);
        for _ in 0..MAX_BATCHES {
            let records = match forget {
                _ if next > synced => None,
                true => recent.remove(&next),
                false => recent.get(&next).cloned(),
            };
            let Some(records) = records else { break };
            let item = |(index, record)| FeedItem { lsn: next, index, record };
            items.extend(records.into_iter().map(item));
            last = Some(next);
            next = next.next();
        }
        last.map(|last| (items, last))
    }
}
