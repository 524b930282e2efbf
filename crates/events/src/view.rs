//! Which journal records a message has: a cache in sled, behind the journal,
//! which is never trusted over it and can be made anew at any time.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    /// None while it is broken, or not open.
    db: Mutex<Option<Db>>,
    /// Whether it knows every record that is not young.
    complete: AtomicBool,
}

/// The journal's last batch when the view was closed in order.
const CLEAN: &[u8] = b"clean";

impl View {
    /// A view that is not open. Without a directory it is temporary.
    pub(crate) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, db: Mutex::default(), complete: AtomicBool::new(false) }
    }

    /// Opens the view if it was closed with a journal that ended with `last`,
    /// and an empty one otherwise. Says whether it is complete.
    pub(crate) fn open(&self, last: Lsn) -> Result<bool> {
        let mut slot = self.db.lock();
        let dir = self.dir.as_deref();
        // sled can panic on what a crash has left.
        let trusted = catch_unwind(|| {
            let db = open_db(dir).ok()?;
            let clean = db.remove(CLEAN).ok()??;
            db.flush().ok()?;
            (*clean == last.get().to_be_bytes()).then_some(db)
        });
        let trusted = trusted.ok().flatten();
        self.complete.store(trusted.is_some(), Ordering::Release);
        *slot = match trusted {
            Some(db) => Some(db),
            None => Some(self.emptied()?),
        };
        Ok(self.is_complete())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Says that all records were added.
    pub(crate) fn completed(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Makes the view anew from the heads in `log`.
    pub(crate) fn rebuild(&self, log: &Log) -> Result<()> {
        let mut slot = self.db.lock();
        *slot = None;
        let db = self.emptied()?;
        for segment in log.segments() {
            let entries = log.entries(segment.number)?;
            let records = entries.iter().filter_map(|entry| Some((Head::decode(entry).ok()?.id, Place::of(entry))));
            guard(|| insert_records(&db, records))?;
        }
        *slot = Some(db);
        Ok(())
    }

    /// An empty one in the place of what is there.
    fn emptied(&self) -> Result<Db> {
        if let Some(dir) = self.dir.as_deref().filter(|dir| dir.exists()) {
            std::fs::remove_dir_all(dir)
                .map_err(|source| Error::Io { action: format!("removing {}", dir.display()), source })?;
        }
        guard(|| open_db(self.dir.as_deref()))
    }

    /// Adds records of one segment.
    pub(crate) fn add(&self, records: impl Iterator<Item = (MessageId, Place)>) -> Result<()> {
        self.with(|db| insert_records(db, records))
    }

    /// Adds rows.
    pub(crate) fn insert(&self, rows: &[Row]) -> Result<()> {
        self.with(|db| insert_sorted(db, rows.iter().map(|row| (row.id, &row.places[..])).collect()))
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

    /// Closes the view; with the journal's last batch when it is complete up
    /// to that.
    pub(crate) fn close(&self, last: Option<Lsn>) -> Result<()> {
        let marked = last.map_or(Ok(()), |last| {
            self.with(|db| {
                db.insert(CLEAN, &last.get().to_be_bytes())?;
                db.flush().map(|_| ())
            })
        });
        *self.db.lock() = None;
        marked
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

/// How often, and how long apart, a locked directory is tried.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: Duration = Duration::from_millis(50);

fn open_db(dir: Option<&Path>) -> sled::Result<Db> {
    let config = sled::Config::new().cache_capacity(32 << 20);
    let config = match dir {
        Some(dir) => config.path(dir),
        None => config.temporary(true),
    };
    let mut tries = 1;
    loop {
        match config.open() {
            // sled's threads let go of a directory some time after the handle
            // that was closed last: real time, whatever the clock.
            Err(error) if tries < LOCK_TRIES && error.to_string().contains("lock") => {
                tries += 1;
                std::thread::sleep(LOCK_WAIT);
            }
            result => return result,
        }
    }
}

fn guard<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::View(error.to_string())),
        Err(_) => Err(Error::View("it panicked".into())),
    }
}

/// Adds records of one segment.
fn insert_records(db: &Db, records: impl Iterator<Item = (MessageId, Place)>) -> sled::Result<()> {
    let mut messages: HashMap<MessageId, Vec<Place>> = HashMap::new();
    for (id, place) in records {
        messages.entry(id).or_default().push(place);
    }
    let rows = messages.iter().flat_map(|(id, places)| places.chunks(ROW).map(|places| (*id, places)));
    insert_sorted(db, rows.collect())
}

/// Adds rows one by one in the order of their keys: several times faster than
/// sled's batches, whose order is none, and so is opening the file later.
fn insert_sorted(db: &Db, mut rows: Vec<(MessageId, &[Place])>) -> sled::Result<()> {
    rows.sort_unstable_by_key(|(id, places)| (*id, places[0].cursor));
    for (id, places) in rows {
        db.insert(key(id, places[0].cursor), value(places))?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_sled_lets_go_of_late_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("view");
        let last = Lsn::new(7);
        let view = View::new(Some(path.clone()));
        assert!(!view.open(last).unwrap(), "it is new");
        view.close(Some(last)).unwrap();
        let held = open_db(Some(&path)).unwrap();
        let letting_go = std::thread::spawn(move || {
            std::thread::sleep(2 * LOCK_WAIT);
            drop(held);
        });
        assert!(view.open(last).unwrap(), "what was closed in order is made anew");
        letting_go.join().unwrap();
    }
}
