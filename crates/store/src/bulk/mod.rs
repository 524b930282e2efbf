//! Tables of millions of rows, found in microseconds with little memory.
//!
//! What is new is rows of an ordinary [`Table`](crate::Table): in the log, and so durable,
//! and in the view. When there are many of them they move into a *run*, a sorted file that
//! is written once, synced, named by a row of the store and never changed. Runs are merged
//! so that each is more than twice as large as all newer ones together: there are never
//! more than a handful.
//!
//! So the log, which is read as a whole after a crash, stays small whatever the number of
//! rows, and of the runs only a filter and an index are in memory, about two octets a row.
//! A look-up asks an atomic set of what is new, then the filters; only for a row that is
//! very likely there is a file read, one block of it. It takes no lock for a row that is
//! not among the new ones.
//!
//! A crash leaves files that no row names, which the next start removes, or rows that are
//! in the newest run as well, which says the same of them.

mod filter;
mod hash;
mod merge;
mod recent;
mod run;
mod tend;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use postrider_base::Disk;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Notify};

use self::hash::hash;
use self::merge::{Entry, Merge, Source};
use self::recent::Recent;
use self::run::Run;
use crate::row::{self, Row};
use crate::table::{format_error, value_from};
use crate::{Error, Key, Store};

/// The longest key and the longest value.
const MAX: usize = 4 << 10;
/// Rows of a scan that are read at once.
const PAGE: usize = 1_000;

/// Bounds of a [`Bulk`].
#[derive(Clone, Copy, Debug)]
pub struct BulkOptions {
    /// The most rows.
    pub max_rows: u64,
    /// New rows that move into a run together. Few more are in log and view, as long as the
    /// disk takes files.
    pub recent_rows: usize,
    /// Makes hashes unpredictable. A table that has runs keeps its first one.
    pub seed: u64,
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<V> {
    /// It stays as it is, or absent.
    Keep,
    /// It gets this value.
    Put(V),
    /// It is removed, if it is there.
    Remove,
}

/// What a [`Bulk`] takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkUsage {
    /// Rows.
    pub rows: u64,
    /// Rows in log and view, those included that say that a row was removed.
    pub recent: u64,
    /// Sorted files.
    pub runs: u64,
    /// Octets of their rows on disk.
    pub run_bytes: u64,
    /// Of the sorted files, those that were found to be damaged.
    pub damaged: u64,
    /// Octets of memory.
    pub memory: u64,
}

/// One typed table of many rows; clones are handles to the same one. Keys and values (as
/// postcard writes them) are at most 4 KiB, and no value takes no octets. As a
/// [`Table`](crate::Table)'s, a value's fields are known by their order.
#[derive(Debug)]
pub struct Bulk<K, V> {
    inner: Arc<Inner>,
    types: PhantomData<fn() -> (K, V)>,
}

/// What there is beneath the types.
#[derive(Debug)]
struct Inner {
    store: Store,
    name: &'static str,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    seed: u64,
    max_rows: u64,
    recent_rows: usize,
    shown: ArcSwap<Shown>,
    /// Rows that are there.
    rows: AtomicU64,
    /// Number of the next run.
    next: AtomicU64,
    /// Held across a change, so that what a decision was made on holds, until the rows are in
    /// the table or are not: whoever moves them may take all that are there.
    changing: Arc<Mutex<()>>,
    /// Held while runs are made and merged.
    tending: Mutex<()>,
    /// There are rows to move, or nobody is left.
    work: Arc<Notify>,
}

/// Where rows are.
#[derive(Debug)]
struct Shown {
    /// Has every key of the ordinary table that is in no run with the same value; may have
    /// more.
    recent: Arc<Recent>,
    /// Newest first.
    runs: Vec<Arc<Run>>,
}

impl<K, V> Clone for Bulk<K, V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), types: PhantomData }
    }
}

impl Store {
    /// A table of many rows. Use a name with one pair of types only, and open it once: two
    /// do not see each other's changes. Call it inside a tokio runtime, in which its task
    /// then lives. Blocks for the disk.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Index`], [`Error::Format`], [`Error::Log`],
    /// [`Error::NoRuntime`].
    pub fn bulk<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        name: &'static str,
        options: BulkOptions,
    ) -> Result<Bulk<K, V>, Error> {
        Ok(Bulk { inner: Inner::open(self, name, options)?, types: PhantomData })
    }
}

impl<K: Key, V: Serialize + DeserializeOwned> Bulk<K, V> {
    /// The value of a key. May block for the disk, for as long as a page takes.
    ///
    /// # Errors
    /// As [`Table::get`](crate::Table::get), and [`Error::Damaged`], also for a few of the keys
    /// that have no row.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let found = self.inner.find(&key.to_bytes())?;
        found.map(|value| value_from(self.inner.name, &value)).transpose()
    }

    /// Changes rows as `decide` says, all of them or none; it is told which of the keys
    /// (by its place) has which value. Nobody changes them in between. On disk (synced) when
    /// it returns; says how many rows were changed. One call takes less than a segment of the
    /// log, 4 MiB by default.
    ///
    /// A row that is lost with a damaged block has no value for `decide`, and is replaced or
    /// removed as any other.
    ///
    /// Dropping the future does not take back what was begun, nor tear it apart.
    ///
    /// # Errors
    /// [`Error::Exceeded`]; as [`Store::write`], [`Table::get`](crate::Table::get).
    pub async fn edit(&self, keys: Vec<K>, mut decide: impl FnMut(usize, Option<V>) -> Edit<V>) -> Result<u64, Error> {
        let inner = &self.inner;
        let changing = inner.changing.clone().lock_owned().await;
        let mut changes: HashMap<Vec<u8>, Bytes> = HashMap::new();
        let mut rows = inner.rows.load(Ordering::Relaxed);
        for (place, key) in keys.iter().enumerate() {
            let key = key.to_bytes();
            let (old, was) = match changes.get(&key) {
                Some(value) if value.is_empty() => (None, false),
                Some(value) => (Some(value.clone()), true),
                None => inner.found(&key)?,
            };
            let old = old.map(|value| value_from(inner.name, &value)).transpose()?;
            let value = match decide(place, old) {
                Edit::Keep => continue,
                Edit::Put(value) => encoded(inner.name, &value)?,
                Edit::Remove if was => Bytes::new(),
                Edit::Remove => continue,
            };
            rows = (rows + u64::from(!value.is_empty())).saturating_sub(u64::from(was));
            changes.insert(key, value);
        }
        let changed = changes.len() as u64;
        let inner = self.inner.clone();
        // The rows are written whoever waits for them, and nobody else changes any before.
        let written = tokio::spawn(async move {
            let written = inner.write(changes, rows).await;
            drop(changing);
            written
        });
        written.await.unwrap_or_else(|error| Err(Error::Index(error.to_string())))?;
        Ok(changed)
    }

    /// All rows in key order. Changes made meanwhile may be seen or not. A block that can not be
    /// read is an [`Error::Damaged`], once or more, and its rows are left out; any other error
    /// is the last item.
    pub fn scan(&self) -> impl Iterator<Item = Result<(K, V), Error>> + Send + use<K, V> {
        self.rows(Vec::new())
    }

    /// All rows from this key on, in key order.
    pub fn scan_from(&self, key: &K) -> impl Iterator<Item = Result<(K, V), Error>> + Send + use<K, V> {
        self.rows(key.to_bytes())
    }

    /// Gives up the rows that damaged blocks have lost: all sorted files are made into one
    /// without them, and those that were damaged stay beside it, with `.damaged` behind their
    /// names (unless the process ends just then: the next start removes them). Says how many
    /// blocks were lost. Takes as long as reading and writing all rows; nobody waits for it but
    /// who wants more files merged.
    ///
    /// # Errors
    /// [`Error::File`] and as [`Store::write`]; nothing has changed then.
    pub async fn repair(&self) -> Result<u64, Error> {
        self.inner.repair().await
    }

    /// What it takes.
    #[must_use]
    pub fn usage(&self) -> BulkUsage {
        let shown = self.inner.shown.load();
        BulkUsage {
            rows: self.inner.rows.load(Ordering::Relaxed),
            recent: shown.recent.len() as u64,
            runs: shown.runs.len() as u64,
            run_bytes: shown.runs.iter().map(|run| run.file_bytes()).sum(),
            damaged: shown.runs.iter().filter(|run| run.is_damaged()).count() as u64,
            memory: (shown.recent.bytes() + shown.runs.iter().map(|run| run.memory()).sum::<usize>()) as u64,
        }
    }

    fn rows(&self, from: Vec<u8>) -> impl Iterator<Item = Result<(K, V), Error>> + Send + use<K, V> {
        let inner = self.inner.clone();
        let mut from = Some(from);
        let pages = std::iter::from_fn(move || {
            let page = inner.page(&from.take()?).unwrap_or_else(|error| vec![Err(error)]);
            // Behind the last key, unless that was the end.
            if page.len() >= PAGE {
                let last = page.iter().rev().flatten().next();
                from = last.map(|last| [last.key.as_slice(), &[0]].concat());
            }
            Some(page)
        });
        let name = self.inner.name;
        pages.flatten().map(move |entry: Result<Entry, Error>| {
            let entry = entry?;
            let key = K::from_bytes(&entry.key).ok_or_else(|| format_error(name, &"not a key of this table"))?;
            Ok((key, value_from(name, &entry.value)?))
        })
    }
}

impl Inner {
    /// The value of a key.
    fn find(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let hash = hash(self.seed, key);
        let mut shown = self.shown.load();
        while shown.recent.may_contain(hash) {
            let row = self.table_key(key);
            if let Some((_, value)) = self.store.view(|view| view.get(&row))? {
                return Ok(Some(value).filter(|value| !value.is_empty()));
            }
            // It may have moved into a run since.
            let now = self.shown.load();
            if Arc::ptr_eq(&shown, &now) {
                break;
            }
            shown = now;
        }
        Ok(shown.find(hash, key)?.filter(|value| !value.is_empty()))
    }

    /// The value of a key, and whether it counts as a row: one that can not be read does.
    fn found(&self, key: &[u8]) -> Result<(Option<Bytes>, bool), Error> {
        match self.find(key) {
            Ok(value) => Ok((value.clone(), value.is_some())),
            Err(error) if error.is_of_a_block() => Ok((None, true)),
            Err(error) => Err(error),
        }
    }

    /// The first rows from a key on, [`PAGE`] unless that are all; between them an error for
    /// each block that can not be read.
    fn page(&self, from: &[u8]) -> Result<Vec<Result<Entry, Error>>, Error> {
        loop {
            let shown = self.shown.load_full();
            let mut sources = vec![self.recent_from(from)?];
            for run in &shown.runs {
                sources.push(Box::new(run.clone().rows_from(from)));
            }
            let there = Merge::new(sources).filter(|entry| entry.as_ref().map_or(true, |entry| !entry.is_removed()));
            let (mut page, mut rows) = (Vec::new(), 0);
            for entry in there {
                match &entry {
                    Ok(_) => rows += 1,
                    Err(error) if error.is_of_a_block() => {}
                    Err(error) => return Err(error.clone()),
                }
                page.push(entry);
                if rows == PAGE {
                    break;
                }
            }
            // Rows that move are first in the run and then not in the table.
            if Arc::ptr_eq(&shown, &self.shown.load()) {
                return Ok(page);
            }
        }
    }

    /// The rows of the ordinary table from a key on.
    fn recent_from(&self, from: &[u8]) -> Result<Source, Error> {
        let prefix = row::prefix(self.name);
        let skip = prefix.len();
        let from = self.table_key(from);
        let rows = self.store.view(|view| Ok(view.rows(prefix, from)))?;
        Ok(Box::new(rows.map(move |row| row.map(|(key, _, value)| Entry { key: key[skip..].to_vec(), value }))))
    }

    /// Makes changes, which leave so many rows. The caller holds `changing`.
    async fn write(&self, changes: HashMap<Vec<u8>, Bytes>, rows: u64) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let before = self.rows.load(Ordering::Relaxed);
        if rows > self.max_rows && rows > before {
            return Err(Error::Exceeded(self.max_rows));
        }
        self.make_room(changes.len());
        let shown = self.shown.load_full();
        let mut batch = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            let hash = hash(self.seed, &key);
            // A removed row that a run has must stay removed; any other just goes.
            let is_gone = value.is_empty() && !shown.runs.iter().any(|run| run.may_contain(hash));
            batch.push(Row::new(self.table_key(&key), (!is_gone).then(|| value.to_vec()))?);
            // First, because the row may be found before this goes on: a hash too many costs
            // a look-up, one too few a row.
            shown.recent.insert(hash);
        }
        self.rows.store(rows, Ordering::Relaxed);
        let written = self.store.write_rows(batch).await;
        if written.is_err() {
            self.rows.store(before, Ordering::Relaxed);
        }
        if shown.recent.len() >= self.recent_rows {
            self.work.notify_one();
        }
        written.map(|_| ())
    }

    /// Sees to it that so many hashes can be added.
    fn make_room(&self, count: usize) {
        let shown = self.shown.load();
        if shown.recent.room() < count {
            let recent = Arc::new(shown.recent.with_room(2 * (shown.recent.len() + count)));
            self.shown.store(Arc::new(Shown { recent, runs: shown.runs.clone() }));
        }
    }

    fn table_key(&self, key: &[u8]) -> Vec<u8> {
        let mut bytes = row::prefix(self.name);
        bytes.extend_from_slice(key);
        bytes
    }
}

impl Shown {
    /// What the newest run that knows the key says of it.
    fn find(&self, hash: u64, key: &[u8]) -> Result<Option<Bytes>, Error> {
        for run in self.runs.iter().filter(|run| run.may_contain(hash)) {
            if let Some(value) = run.get(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.work.notify_one();
    }
}

fn encoded<V: Serialize>(table: &str, value: &V) -> Result<Bytes, Error> {
    let bytes = postcard::to_stdvec(value).map_err(|error| format_error(table, &error))?;
    match bytes.len() {
        0 => Err(format_error(table, &"a value without an octet")),
        length if length > MAX => Err(Error::TooLarge("a value over 4 KiB")),
        _ => Ok(bytes.into()),
    }
}
