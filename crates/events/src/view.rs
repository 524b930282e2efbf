//! Which journal records a message has: a cache in sled, behind the journal,
//! which is never trusted over it and can be made anew at any time.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use postrider_mail::MessageId;
use postrider_wal::{Location, Log, Lsn, Replayed};
use sled::Db;

use crate::error::{Error, Result};
use crate::record::{Cursor, Head};

/// Records per row: sled needs many times the bytes of larger values.
pub(crate) const ROW: usize = 2;

/// A record of the journal and where to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) cursor: Cursor,
    pub(crate) location: Location,
}

/// Up to [`ROW`] records of one message, in order.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: MessageId,
    pub(crate) places: Vec<Place>,
}

/// Message id and first record -> locations.
#[derive(Debug)]
pub(crate) struct View {
    dir: Option<PathBuf>,
    /// None while it is broken.
    db: Mutex<Option<Db>>,
}

/// The journal's last batch when the view was closed in order.
const CLEAN: &[u8] = b"clean";

impl View {
    /// Opens the view, and makes it anew from `log` unless it was closed with
    /// the same journal. Says whether it did. Without a directory it is
    /// temporary.
    pub(crate) fn open(dir: Option<&Path>, log: &Log, last: Lsn) -> Result<(Self, bool)> {
        let view = Self { dir: dir.map(Path::to_owned), db: Mutex::new(None) };
        // sled can panic on what a crash has left.
        let trusted = catch_unwind(|| {
            let db = open_db(dir).ok()?;
            let clean = db.remove(CLEAN).ok()??;
            db.flush().ok()?;
            (*clean == last.get().to_be_bytes()).then_some(db)
        });
        match trusted {
            Ok(Some(db)) => *view.db.lock() = Some(db),
            _ => {
                view.rebuild(log)?;
                return Ok((view, true));
            }
        }
        Ok((view, false))
    }

    /// Makes the view anew from the heads in `log`.
    pub(crate) fn rebuild(&self, log: &Log) -> Result<()> {
        let mut slot = self.db.lock();
        *slot = None;
        if let Some(dir) = self.dir.as_deref().filter(|dir| dir.exists()) {
            std::fs::remove_dir_all(dir)
                .map_err(|source| Error::Io { action: format!("removing {}", dir.display()), source })?;
        }
        let db = guard(|| open_db(self.dir.as_deref()))?;
        for segment in log.segments() {
            let mut messages: HashMap<MessageId, Vec<Place>> = HashMap::new();
            for replayed in log.entries(segment.number)? {
                if let Ok(head) = Head::decode(&replayed) {
                    messages.entry(head.id).or_default().push(Place::of(&replayed));
                }
            }
            let mut batch = sled::Batch::default();
            for (id, places) in &messages {
                for places in places.chunks(ROW) {
                    batch.insert(key(*id, places[0].cursor), value(places));
                }
            }
            guard(|| db.apply_batch(batch))?;
        }
        *slot = Some(db);
        Ok(())
    }

    /// Adds rows.
    pub(crate) fn insert(&self, rows: &[Row]) -> Result<()> {
        let mut batch = sled::Batch::default();
        for Row { id, places } in rows {
            batch.insert(key(*id, places[0].cursor), value(places));
        }
        self.with(|db| db.apply_batch(batch))
    }

    /// The records of a message, oldest first.
    pub(crate) fn find(&self, id: MessageId) -> Result<Vec<Location>> {
        self.with(|db| {
            let mut found = Vec::new();
            for row in db.scan_prefix(id.to_bytes()) {
                found.extend(locations(&row?.1));
            }
            Ok(found)
        })
    }

    /// Forgets what these messages have in `segment` and before.
    pub(crate) fn forget(&self, ids: impl IntoIterator<Item = MessageId>, segment: u64) -> Result<()> {
        self.with(|db| {
            let mut batch = sled::Batch::default();
            for id in ids {
                for row in db.scan_prefix(id.to_bytes()) {
                    let (key, value) = row?;
                    let kept: Vec<u8> = locations(&value)
                        .filter(|location| location.segment > segment)
                        .flat_map(Location::to_bytes)
                        .collect();
                    if kept.is_empty() {
                        batch.remove(key);
                    } else if kept.len() < value.len() {
                        batch.insert(key, kept);
                    }
                }
            }
            db.apply_batch(batch)
        })
    }

    /// Marks the view as complete up to the journal's last batch.
    pub(crate) fn close(&self, last: Lsn) -> Result<()> {
        self.with(|db| {
            db.insert(CLEAN, &last.get().to_be_bytes())?;
            db.flush()
        })?;
        *self.db.lock() = None;
        Ok(())
    }

    /// Leaves it broken when it fails.
    fn with<T>(&self, work: impl FnOnce(&Db) -> sled::Result<T>) -> Result<T> {
        let mut slot = self.db.lock();
        let db = slot.as_ref().ok_or_else(|| Error::View("it is closed or broken".into()))?;
        let result = guard(|| work(db));
        if result.is_err() {
            *slot = None;
        }
        result
    }
}

impl Place {
    pub(crate) fn new(batch: Lsn, index: u16, location: Location) -> Self {
        Self { cursor: Cursor { batch: batch.get(), index }, location }
    }

    pub(crate) fn of(replayed: &Replayed) -> Self {
        Self::new(replayed.lsn, replayed.index, replayed.location)
    }
}

fn open_db(dir: Option<&Path>) -> sled::Result<Db> {
    let config = sled::Config::new().cache_capacity(32 << 20);
    match dir {
        Some(dir) => config.path(dir),
        None => config.temporary(true),
    }
    .open()
}

fn guard<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::View(error.to_string())),
        Err(_) => Err(Error::View("it panicked".into())),
    }
}

fn key(id: MessageId, first: Cursor) -> Vec<u8> {
    let mut key = vec![0; 34];
    key[..24].copy_from_slice(&id.to_bytes());
    key[24..32].copy_from_slice(&first.batch.to_be_bytes());
    key[32..].copy_from_slice(&first.index.to_be_bytes());
    key
}

fn value(places: &[Place]) -> Vec<u8> {
    let bytes = places.iter().map(|place| place.location.to_bytes());
    bytes.flatten().collect()
}

fn locations(value: &[u8]) -> impl Iterator<Item = Location> {
    let (chunks, _) = value.as_chunks::<{ Location::BYTES }>();
    chunks.iter().map(|bytes| Location::from_bytes(*bytes))
}
