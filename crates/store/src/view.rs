//! The sled database behind the log: answers questions, proves nothing.
//!
//! One tree holds all rows: key as in the log, value = LSN of the row's last
//! change (8 octets, big-endian) and the value. sled can come back from a
//! power cut or a flipped bit with an error, with a panic, or without a word
//! and with rows missing; so every call is guarded against panics, and what
//! is found at opening counts only when its rows add up to the mark that an
//! orderly close left. Otherwise the view is made anew from the log, in a
//! fresh directory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes};
use postrider_wal::{Location, Log, Lsn, Replayed};

use crate::Error;
use crate::row::{self, Row};

/// The mark's key: no table has an empty name and this key.
const MARK: &[u8] = &[0];
/// What is in front of a row's value.
const LSN: usize = 8;

/// The last record of the log that the rows reflect.
pub(crate) type Last = Option<(Lsn, Location)>;

/// All rows, as of the last applied record.
#[derive(Debug)]
pub(crate) struct View {
    /// Taken only to be dropped.
    db: Option<sled::Db>,
    path: PathBuf,
    /// What the rows would take in the log.
    live: AtomicU64,
}

/// Row count and sum of the checksums of all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    checksums: u64,
}

/// A view made from the log.
pub(crate) struct Rebuilt {
    pub(crate) view: View,
    /// Records that could not be read.
    pub(crate) lost: u64,
}

/// How often, and how long apart, a directory is opened that sled still lets go of.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: std::time::Duration = std::time::Duration::from_millis(50);

impl View {
    /// The view that an orderly close left, if there is one and it reflects
    /// the log up to `last`.
    pub(crate) fn open(dir: &Path, last: Last) -> Option<Self> {
        let path = generations(dir).pop()?.1;
        let view = Self::open_at(&path).ok()?;
        match view.check(last) {
            Ok(true) => Some(view),
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), "the view is unusable: {error}");
                None
            }
        }
    }

    /// A view with the rows of the log, in a directory of its own; older ones
    /// are removed.
    pub(crate) fn rebuild(dir: &Path, log: &Log) -> Result<Rebuilt, Error> {
        let old = generations(dir);
        let next = old.last().map_or(1, |(number, _)| number + 1);
        let view = Self::open_at(&dir.join(next.to_string()))?;
        let mut lost = 0;
        for segment in log.segments() {
            for record in log.entries(segment.number)? {
                match read(log, &record) {
                    Ok(rows) => view.apply(&rows, record.lsn).map(|_| ())?,
                    Err(Error::Log(postrider_wal::Error::Corrupt { segment, offset })) => {
                        tracing::error!(segment, offset, "a damaged record of the store is lost");
                        lost += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        for (_, path) in old {
            // Only space is lost with one that stays.
            let _ = std::fs::remove_dir_all(path);
        }
        Ok(Rebuilt { view, lost })
    }

    fn open_at(path: &Path) -> Result<Self, Error> {
        let config = sled::Config::new()
            .path(path)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(64 << 20)
            .flush_every_ms(Some(5000));
        let mut tries = 1;
        let db = loop {
            match guarded(|| config.open()) {
                // sled's threads let go of a directory some time after the handle
                // that was closed last: real time, whatever the clock.
                Err(Error::Index(reason)) if tries < LOCK_TRIES && reason.contains("lock") => {
                    tries += 1;
                    std::thread::sleep(LOCK_WAIT);
                }
                result => break result?,
            }
        };
        Ok(Self { db: Some(db), path: path.to_owned(), live: AtomicU64::new(0) })
    }

    fn db(&self) -> Result<&sled::Db, Error> {
        self.db.as_ref().ok_or_else(|| Error::Index("closed".into()))
    }

    /// Whether the rows are those that the mark promises, as of `last`.
    fn check(&self, last: Last) -> Result<bool, Error> {
        let db = self.db()?;
        let Some(mark) = guarded(|| db.get(MARK))? else {
            return Ok(false);
        };
        Ok(self.sum()?.mark(last) == mark[..])
    }

    /// Writes the mark. Call it when no change is under way, and close then.
    pub(crate) fn mark(&self, last: Last) -> Result<(), Error> {
        let mark = self.sum()?.mark(last);
        let db = self.db()?;
        guarded(|| db.insert(MARK, mark.as_slice()))?;
        guarded(|| db.flush()).map(|_| ())
    }

    /// Adds all rows up, and counts the live bytes on the way.
    fn sum(&self) -> Result<Sum, Error> {
        let mut sum = Sum::default();
        let mut live = 0;
        for row in self.range(vec![1]) {
            let (key, value) = row?;
            sum.rows += 1;
            sum.checksums = sum.checksums.wrapping_add(checksum(&key, &value));
            live += row_size(key.len(), value.len());
        }
        self.live.store(live, Ordering::Relaxed);
        Ok(sum)
    }

    /// What the rows would take in the log, in bytes.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Makes the rows' changes, which are those of a synced record. Returns
    /// how many of the rows were there before.
    pub(crate) fn apply(&self, rows: &[Row], lsn: Lsn) -> Result<u64, Error> {
        let db = self.db()?;
        let mut existed = 0;
        for Row { key, value } in rows {
            let old = match value {
                Some(value) => {
                    let mut stored = Vec::with_capacity(LSN + value.len());
                    stored.put_u64(lsn.get());
                    stored.put_slice(value);
                    self.live.fetch_add(row_size(key.len(), stored.len()), Ordering::Relaxed);
                    guarded(|| db.insert(key, stored))?
                }
                None => guarded(|| db.remove(key))?,
            };
            if let Some(old) = old {
                existed += 1;
                self.live.fetch_sub(row_size(key.len(), old.len()), Ordering::Relaxed);
            }
        }
        Ok(existed)
    }

    /// The value of a key, and the record that it comes from.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<(Lsn, Bytes)>, Error> {
        let db = self.db()?;
        let stored = guarded(|| db.get(key))?;
        Ok(stored.and_then(|stored| split(&stored)))
    }

    /// Keys and stored values from this key on.
    fn range(&self, from: Vec<u8>) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), Error>> + use<> {
        let mut rows = self.db().and_then(|db| guarded(|| Ok(db.range(from..)))).map_err(Some);
        std::iter::from_fn(move || match &mut rows {
            Ok(rows) => guarded(|| rows.next().transpose()).transpose(),
            Err(error) => error.take().map(Err),
        })
    }

    /// Keys, LSNs and values of the rows from a key on, as long as their keys
    /// begin so.
    pub(crate) fn rows(
        &self,
        prefix: Vec<u8>,
        from: Vec<u8>,
    ) -> impl Iterator<Item = Result<(Bytes, Lsn, Bytes), Error>> + use<> {
        let rows = self.range(from);
        let inside =
            move |row: &Result<(sled::IVec, _), Error>| row.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix));
        rows.take_while(inside).filter_map(|row| {
            let row = row.map(|(key, stored)| {
                let (lsn, value) = split(&stored)?;
                Some((Bytes::copy_from_slice(&key), lsn, value))
            });
            row.transpose()
        })
    }

    /// The rows that a record set and no later one changed, found without
    /// reading the record.
    pub(crate) fn rows_of(&self, lsn: Lsn) -> Result<Vec<Row>, Error> {
        self.rows(Vec::new(), vec![1])
            .filter(|row| row.as_ref().map_or(true, |(_, at, _)| *at == lsn))
            .map(|row| row.map(|(key, _, value)| Row { key, value: Some(value) }))
            .collect()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(path = %self.path.display(), "the view did not close in order");
        }
    }
}

impl Sum {
    fn mark(self, last: Last) -> Vec<u8> {
        let (lsn, location) = last.unwrap_or_default();
        let mut mark = Vec::with_capacity(3 * 8 + Location::BYTES);
        mark.put_u64(self.rows);
        mark.put_u64(self.checksums);
        mark.put_u64(lsn.get());
        mark.put_slice(&location.to_bytes());
        mark
    }
}

/// The rows of a record of the log.
pub(crate) fn read(log: &Log, record: &Replayed) -> Result<Vec<Row>, Error> {
    row::decode(log.read(record.location)?, record.location.segment)
}

/// Calls into sled; a panic in there is an error here.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| Error::Index(error.to_string())),
        Err(_) => Err(Error::Index("sled panicked".into())),
    }
}

fn split(stored: &[u8]) -> Option<(Lsn, Bytes)> {
    let (mut lsn, value) = stored.split_at_checked(LSN)?;
    Some((Lsn::new(lsn.get_u64()), Bytes::copy_from_slice(value)))
}

/// What a row takes in the log, by the lengths of its key and stored value.
fn row_size(key: usize, stored: usize) -> u64 {
    row::size(key, stored.saturating_sub(LSN)) as u64
}

/// 64 bits over a row: sled checks its pages, not that all of them are there.
fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325u64 ^ key.len() as u64;
    for byte in key.iter().chain(value) {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    sum ^ sum >> 29
}

/// The numbered directories of views, oldest first.
fn generations(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, entry.path()))
    });
    let mut generations: Vec<_> = numbered.collect();
    generations.sort();
    generations
}
