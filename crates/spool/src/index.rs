//! The index of waiting messages: two trees behind the log.
//!
//! `messages`: id -> [`Row`]. `queue`: account, domain, due time, id -> nothing;
//! the order of the keys is the order of delivery. In sled, which is never
//! trusted: its files can be deleted at any time, its errors and panics end
//! as [`Broken`], and the caller makes the index anew from the log. Or in
//! memory, when there is no directory or sled cannot be had.

mod compare;
mod differences;
mod reconcile;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use postrider_base::Timestamp;
use postrider_mail::{AccountId, MessageId};

use crate::due::Slot;
use crate::message::QueueKey;
use crate::row::Row;
use crate::view::IndexKind;

pub use compare::Disagreement;

/// The index failed, with what it said.
#[derive(Debug, thiserror::Error)]
#[error("the index failed: {0}")]
pub(crate) struct Broken(String);

/// A change of the index. Idempotent: the last change of a message wins.
#[derive(Debug)]
pub(crate) enum Change {
    /// The state of a message, and the places it left and took.
    Put { id: MessageId, row: Row, left: Vec<(QueueKey, Timestamp)>, took: Vec<(QueueKey, Timestamp)> },
    /// The message has ended; the places it left.
    Remove { id: MessageId, left: Vec<(QueueKey, Timestamp)> },
}

/// The trees. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) enum Index {
    Sled { db: sled::Db, messages: sled::Tree, queue: sled::Tree },
    Memory(Arc<RwLock<Memory>>),
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    messages: BTreeMap<MessageId, Row>,
    queue: BTreeSet<Vec<u8>>,
}

/// Cache of sled, shared by both trees.
const CACHE_BYTES: u64 = 8 << 20;
/// How often, and how long apart, a locked directory is tried.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: Duration = Duration::from_millis(50);
/// Changes put into order at once when the whole index is written.
const BATCH: usize = 65_536;

impl Index {
    pub(crate) fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// Opens or makes the trees in a directory. Blocks.
    pub(crate) fn open(dir: &Path) -> Result<Self, Broken> {
        let mut tries = 1;
        loop {
            match Self::open_once(dir) {
                // sled's threads let go of a directory some time after the
                // handle that was closed last: real time, whatever the clock.
                Err(Broken(error)) if error.contains("lock") && tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_WAIT);
                }
                result => return result,
            }
        }
    }

    fn open_once(dir: &Path) -> Result<Self, Broken> {
        guard(|| {
            let db = sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::HighThroughput)
                .flush_every_ms(Some(1000))
                .open()?;
            let (messages, queue) = (db.open_tree("messages")?, db.open_tree("queue")?);
            Ok(Self::Sled { db, messages, queue })
        })
    }

    pub(crate) fn kind(&self) -> IndexKind {
        match self {
            Self::Sled { .. } => IndexKind::Sled,
            Self::Memory(_) => IndexKind::Memory,
        }
    }

    /// Applies changes in order.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<(), Broken> {
        match self {
            Self::Memory(memory) => {
                let mut memory = memory.write();
                changes.iter().for_each(|change| memory.apply(change));
                Ok(())
            }
            Self::Sled { messages, queue, .. } => guard(|| {
                let (mut rows, mut places) = (Edits::default(), Edits::default());
                for change in changes {
                    change.add_to(&mut rows, &mut places);
                }
                rows.apply(messages)?;
                places.apply(queue)?;
                Ok(())
            }),
        }
    }

    /// The state of a message.
    pub(crate) fn get(&self, id: MessageId) -> Result<Option<Row>, Broken> {
        match self {
            Self::Memory(memory) => Ok(memory.read().messages.get(&id).cloned()),
            Self::Sled { messages, .. } => {
                let value = guard(|| messages.get(id.to_bytes()))?;
                value.map(|value| decode_row(&value)).transpose()
            }
        }
    }

    /// Up to `limit` slots of a queue after `after`, in order.
    pub(crate) fn slots(&self, queue: &QueueKey, after: Option<Slot>, limit: usize) -> Result<Vec<Slot>, Broken> {
        let prefix = prefix(queue);
        let start = match after {
            Some((due, id)) => Bound::Excluded(place(queue, due, id)),
            None => Bound::Included(prefix.clone()),
        };
        let range = (start, Bound::Unbounded);
        let slot = |key: &[u8]| key.strip_prefix(&*prefix).map(parse_slot);
        let slots: Option<Vec<Slot>> = match self {
            Self::Memory(memory) => {
                let memory = memory.read();
                let keys = memory.queue.range(range).map_while(|key| slot(key));
                keys.take(limit).collect()
            }
            Self::Sled { queue, .. } => guard(|| {
                let mut slots = Vec::new();
                for entry in queue.range(range.clone()).keys().take(limit) {
                    match slot(&entry?) {
                        Some(slot) => slots.push(slot),
                        None => break,
                    }
                }
                Ok(slots.into_iter().collect())
            })?,
        };
        slots.ok_or_else(|| Broken("a key is damaged".into()))
    }

    /// Writes what sled holds back; for a clean stop.
    pub(crate) fn flush(&self) -> Result<(), Broken> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Sled { db, .. } => guard(|| db.flush().map(drop)),
        }
    }
}

/// A message that is not in the index yet.
pub(crate) fn put(id: MessageId, row: &Row) -> Change {
    Change::Put { id, row: row.clone(), left: Vec::new(), took: row.places().collect() }
}

impl Change {
    fn add_to(&self, rows: &mut Edits, places: &mut Edits) {
        let (id, left) = match self {
            Self::Put { id, row, left, took } => {
                rows.insert(id.to_bytes().into(), row.encode());
                for (queue, due) in left {
                    places.remove(place(queue, *due, *id));
                }
                for (queue, due) in took {
                    places.insert(place(queue, *due, *id), Vec::new());
                }
                return;
            }
            Self::Remove { id, left } => (id, left),
        };
        rows.remove(id.to_bytes().into());
        for (queue, due) in left {
            places.remove(place(queue, *due, *id));
        }
    }
}

/// Changes of a tree, applied one by one in the order of their keys: a batch
/// of sled's has a random order, and costs several times as much. Nobody needs
/// them to happen together.
#[derive(Debug, Default)]
struct Edits(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Edits {
    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key, Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.0.insert(key, None);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// How many there were.
    fn apply(&mut self, tree: &sled::Tree) -> sled::Result<u64> {
        let edits = std::mem::take(&mut self.0);
        let count = edits.len() as u64;
        for (key, value) in edits {
            match value {
                Some(value) => drop(tree.insert(key, value)?),
                None => drop(tree.remove(key)?),
            }
        }
        Ok(count)
    }
}

impl Memory {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { id, row, left, took } => {
                for (queue, due) in left {
                    self.queue.remove(&place(queue, *due, *id));
                }
                let took = took.iter().map(|(queue, due)| place(queue, *due, *id));
                self.queue.extend(took);
                self.messages.insert(*id, row.clone());
            }
            Change::Remove { id, left } => {
                for (queue, due) in left {
                    self.queue.remove(&place(queue, *due, *id));
                }
                self.messages.remove(id);
            }
        }
    }
}

/// sled reports damage by errors and by panics; both end here.
fn guard<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, Broken> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| Broken(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Broken(format!("panic: {}", text.unwrap_or("without a message"))))
        }
    }
}

fn decode_row(value: &[u8]) -> Result<Row, Broken> {
    Row::decode(value).ok_or_else(|| Broken("a row is damaged".into()))
}

/// Length of the due time and id that end a key.
const SLOT: usize = 8 + 24;

/// What all keys of a queue begin with. A domain has no NUL.
fn prefix(queue: &QueueKey) -> Vec<u8> {
    let domain = queue.domain.as_str().as_bytes();
    let mut key = Vec::with_capacity(8 + domain.len() + 1 + SLOT);
    key.extend(queue.account.get().to_be_bytes());
    key.extend(domain);
    key.push(0);
    key
}

fn place(queue: &QueueKey, due: Timestamp, id: MessageId) -> Vec<u8> {
    let mut key = prefix(queue);
    key.extend(due.as_millis().to_be_bytes());
    key.extend(id.to_bytes());
    key
}

fn parse_place(key: &[u8]) -> Option<(QueueKey, Slot)> {
    let (account, rest) = key.split_first_chunk::<8>()?;
    let (rest, slot) = rest.split_last_chunk::<SLOT>()?;
    let (nul, domain) = rest.split_last()?;
    let queue = QueueKey {
        account: AccountId::new(u64::from_be_bytes(*account))?,
        domain: str::from_utf8(domain).ok()?.parse().ok()?,
    };
    (*nul == 0).then_some((queue, parse_slot(slot)?))
}

fn parse_slot(slot: &[u8]) -> Option<Slot> {
    let (due, id) = slot.split_first_chunk::<8>()?;
    let due = Timestamp::from_millis(u64::from_be_bytes(*due));
    Some((due, parse_id(id)?))
}

fn parse_id(key: &[u8]) -> Option<MessageId> {
    Some(MessageId::from_bytes(key.try_into().ok()?))
}
