//! Moving new rows into runs, and merging runs.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider_base::Disk;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify};

use super::hash::hash;
use super::merge::{Entry, Merge, Source};
use super::recent::Recent;
use super::run::Run;
use super::writer::Writer;
use super::{BulkOptions, Inner, Shown};
use crate::lane::blocking;
use crate::row::Row;
use crate::{Error, Store, Table};

/// The table that says which runs there are, by the name of their table.
const TABLE: &str = "bulk";
/// The directory of the runs, in the store's.
const DIR: &str = "bulk";
/// Rows that are taken from the ordinary table at once.
const BATCH: usize = 4_000;
/// Between an attempt that failed and the next.
const PAUSE: Duration = Duration::from_secs(60);

/// What the store knows of a table's runs. A later form becomes another variant.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Manifest {
    V1 {
        /// Of all its hashes.
        seed: u64,
        /// Their numbers, newest first.
        runs: Vec<u64>,
        /// Rows that are in them and not removed.
        rows: u64,
    },
}

impl Inner {
    pub(super) fn open(store: &Store, name: &'static str, options: BulkOptions) -> Result<Arc<Self>, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (disk, dir) = (store.disk().clone(), store.dir().join(DIR));
        let made = disk.create_dir_all(&dir).and_then(|()| disk.sync_dir(store.dir()));
        made.map_err(|error| Error::file(&dir, &error))?;
        let known = manifests(store).get(&name.to_owned())?;
        let Manifest::V1 { seed, runs, rows } =
            known.unwrap_or(Manifest::V1 { seed: options.seed, runs: Vec::new(), rows: 0 });
        let next = remove_strangers(&*disk, &dir, name, &runs)?;
        let open = |number: &u64| Run::open(&*disk, &dir.join(file_name(name, *number)), *number).map(Arc::new);
        let shown = Shown { recent: Arc::new(Recent::new(0)), runs: runs.iter().map(open).collect::<Result<_, _>>()? };
        let inner = Arc::new(Self {
            store: store.clone(),
            name,
            dir,
            disk,
            seed,
            max_rows: options.max_rows,
            recent_rows: options.recent_rows.max(1),
            shown: ArcSwap::from_pointee(shown),
            rows: AtomicU64::new(rows),
            next: AtomicU64::new(next),
            changing: Arc::default(),
            tending: Mutex::default(),
            work: Arc::new(Notify::new()),
        });
        inner.load_recent()?;
        runtime.spawn(tend(Arc::downgrade(&inner), inner.work.clone()));
        Ok(inner)
    }

    /// Makes the set of the new rows, and counts them.
    fn load_recent(&self) -> Result<(), Error> {
        let (shown, rows) = self.with_recent(self.shown.load().runs.clone(), self.rows.load(Ordering::Relaxed))?;
        self.show(shown, rows);
        Ok(())
    }

    /// These runs, in which so many rows are, and the new rows beside them; how many rows that is.
    fn with_recent(&self, runs: Vec<Arc<Run>>, mut rows: u64) -> Result<(Shown, u64), Error> {
        let mut recent = Recent::new(self.recent_rows + self.recent_rows / 2);
        let mut shown = Shown { recent: Arc::new(Recent::new(0)), runs };
        for entry in self.recent_from(&[])? {
            let entry = entry?;
            let hash = hash(self.seed, &entry.key);
            if recent.room() == 0 {
                recent = recent.with_room(2 * recent.len());
            }
            recent.insert(hash);
            let was = match shown.find(hash, &entry.key) {
                // It counted when it was put there.
                Err(error) if error.is_of_a_block() => true,
                found => found?.is_some_and(|value| !value.is_empty()),
            };
            rows = (rows + u64::from(!entry.is_removed())).saturating_sub(u64::from(was));
        }
        shown.recent = Arc::new(recent);
        Ok((shown, rows))
    }

    fn show(&self, shown: Shown, rows: u64) {
        self.rows.store(rows, Ordering::Relaxed);
        // The last run may have ended before it came to that.
        if shown.recent.len() >= self.recent_rows || due(&shown.runs).is_some() {
            self.work.notify_one();
        }
        self.shown.store(Arc::new(shown));
    }

    async fn tend(self: &Arc<Self>) -> Result<(), Error> {
        let _tending = self.tending.lock().await;
        if self.shown.load().recent.len() >= self.recent_rows {
            self.move_recent().await?;
        }
        while let Some(range) = due(&self.shown.load().runs) {
            match self.merge(range).await {
                // That file stays as it is from now on.
                Err(error) if error.is_of_a_block() => {}
                merged => merged?,
            }
        }
        Ok(())
    }

    /// Moves all new rows into a run. Changes wait meanwhile, readers do not.
    pub(super) async fn move_recent(self: &Arc<Self>) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        let shown = self.shown.load_full();
        let (inner, count) = (self.clone(), shown.recent.len() as u64);
        let is_oldest = shown.runs.is_empty();
        let run = blocking(move || inner.write_run(inner.recent_from(&[])?, count, is_oldest)).await?;
        let runs: Vec<_> = run.into_iter().chain(shown.runs.iter().cloned()).collect();
        self.name_runs(&runs, self.rows.load(Ordering::Relaxed)).await?;
        let recent = Arc::new(Recent::new(self.recent_rows + self.recent_rows / 2));
        self.shown.store(Arc::new(Shown { recent, runs }));
        self.clear_table().await
    }

    /// Takes all rows from the ordinary table: each is in a run. The caller has held `changing`
    /// since before that was written.
    async fn clear_table(self: &Arc<Self>) -> Result<(), Error> {
        let mut from = Vec::new();
        loop {
            let inner = self.clone();
            let start = from;
            let keys = blocking(move || {
                let rows = inner.recent_from(&start)?.take(BATCH);
                rows.map(|row| row.map(|entry| entry.key)).collect::<Result<Vec<_>, _>>()
            });
            let keys = keys.await?;
            let Some(last) = keys.last() else { return Ok(()) };
            from = last.clone();
            let rows = keys.iter().map(|key| Row::new(self.table_key(key), None)).collect::<Result<_, _>>()?;
            self.store.write_rows(rows).await?;
        }
    }

    /// Makes one run of these. Nobody waits for it.
    async fn merge(self: &Arc<Self>, range: Range<usize>) -> Result<(), Error> {
        let mut runs = self.shown.load().runs.clone();
        let old = runs[range.clone()].to_vec();
        let (inner, sources, is_oldest) = (self.clone(), old.clone(), range.end == runs.len());
        let merged = blocking(move || {
            let count = sources.iter().map(|run| run.rows()).sum();
            inner.write_run(rows_of(sources), count, is_oldest)
        });
        let merged = merged.await?;
        runs.splice(range, merged);
        let _changing = self.changing.lock().await;
        let Some(Manifest::V1 { rows, .. }) = manifests(&self.store).get(&self.name.to_owned())? else { return Ok(()) };
        self.name_runs(&runs, rows).await?;
        let recent = self.shown.load().recent.clone();
        self.shown.store(Arc::new(Shown { recent, runs }));
        old.iter().for_each(|run| self.put_away(run));
        Ok(())
    }

    /// Makes one run of all, without what damaged ones have lost; says how many blocks that is.
    pub(super) async fn repair(self: &Arc<Self>) -> Result<u64, Error> {
        let _tending = self.tending.lock().await;
        let old = self.shown.load().runs.clone();
        let (inner, sources) = (self.clone(), old.clone());
        let merging = blocking(move || {
            let count = sources.iter().map(|run| run.rows()).sum();
            let mut lost = 0;
            let known = rows_of(sources).filter(|row| {
                let is_lost = row.as_ref().is_err_and(Error::is_of_a_block);
                lost += u64::from(is_lost);
                !is_lost
            });
            let run = inner.write_run(known, count, true)?;
            Ok((run, lost))
        });
        let (merged, lost) = merging.await?;
        let _changing = self.changing.lock().await;
        let rows = merged.as_ref().map_or(0, |run| run.rows());
        let runs: Vec<_> = merged.into_iter().collect();
        // Before the runs are changed, so that nothing is when this fails.
        let (inner, made) = (self.clone(), runs.clone());
        let counted = blocking(move || inner.with_recent(made, rows)).await;
        let (shown, all_rows) = counted.inspect_err(|_| runs.iter().for_each(|run| self.put_away(run)))?;
        self.name_runs(&runs, rows).await?;
        self.show(shown, all_rows);
        old.iter().for_each(|run| self.put_away(run));
        Ok(lost)
    }

    /// Removes the file of a run that is no longer needed, and keeps one that is damaged. Who
    /// reads it still has it open; one that stays is removed at the next start.
    fn put_away(&self, run: &Run) {
        let done = if run.is_damaged() {
            self.disk.rename(&run.path, &run.path.with_extension("run.damaged"))
        } else {
            self.disk.remove_file(&run.path)
        };
        if let Err(error) = done {
            tracing::warn!(path = %run.path.display(), %error, "an old file is not removed");
        }
    }

    /// Writes at most `count` rows as a run. In the oldest one nothing has to stay removed.
    fn write_run(
        &self,
        rows: impl Iterator<Item = Result<Entry, Error>>,
        count: u64,
        is_oldest: bool,
    ) -> Result<Option<Arc<Run>>, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(file_name(self.name, number));
        let rows = rows.filter(|row| !is_oldest || row.as_ref().map_or(true, |entry| !entry.is_removed()));
        let written = self.write_rows_to(&path, rows, count).and_then(|writer| writer.finish(number));
        if written.is_err() {
            // Else a full disk would stay full; one that stays is removed at the next start.
            let _ = self.disk.remove_file(&path);
        }
        Ok(written?.map(Arc::new))
    }

    fn write_rows_to(
        &self,
        path: &Path,
        rows: impl Iterator<Item = Result<Entry, Error>>,
        count: u64,
    ) -> Result<Writer, Error> {
        let mut writer = Writer::new(self.disk.clone(), path, count)?;
        for (number, entry) in rows.enumerate() {
            let entry = entry?;
            if number % BATCH == 0 && self.store.is_closed() {
                return Err(postrider_wal::Error::Closed.into());
            }
            let hash = hash(self.seed, &entry.key);
            writer.push(entry, hash)?;
        }
        Ok(writer)
    }

    /// Makes these the runs, with so many rows that are not removed, durably. The caller
    /// holds `changing`.
    async fn name_runs(&self, runs: &[Arc<Run>], rows: u64) -> Result<(), Error> {
        let runs = runs.iter().map(|run| run.number).collect();
        manifests(&self.store).put(&self.name.to_owned(), &Manifest::V1 { seed: self.seed, runs, rows }).await
    }
}

/// Works until nobody has the table any more.
async fn tend(table: Weak<Inner>, work: Arc<Notify>) {
    loop {
        work.notified().await;
        let Some(inner) = table.upgrade() else { return };
        if let Err(error) = inner.tend().await {
            if inner.store.is_closed() {
                return;
            }
            tracing::error!(table = inner.name, %error, "new rows can not be moved to a file");
            drop(inner);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Which runs are to be merged, if any: each is to be more than twice as large as all newer
/// ones together. What a damaged one has lost is not known, so it stays where it is among the
/// others, and only those before or behind it are merged with each other.
pub(super) fn due(runs: &[Arc<Run>]) -> Option<Range<usize>> {
    let mut start = 0;
    for sound in runs.split(|run| run.is_damaged()) {
        let (mut rows, mut end) = (0, None);
        for (number, run) in sound.iter().enumerate() {
            if number > 0 && run.rows() <= 2 * rows {
                end = Some(number + 1);
            }
            rows += run.rows();
        }
        if let Some(end) = end {
            return Some(start..start + end);
        }
        start += sound.len() + 1;
    }
    None
}

/// The newest rows of runs.
fn rows_of(runs: Vec<Arc<Run>>) -> Merge {
    Merge::new(runs.into_iter().map(|run| Box::new(run.rows_from(&[])) as Source).collect())
}

fn manifests(store: &Store) -> Table<String, Manifest> {
    store.table(TABLE)
}

fn file_name(table: &str, number: u64) -> String {
    format!("{table}-{number}.run")
}

/// Removes the table's files that no row names; the first number that no file has.
fn remove_strangers(disk: &dyn Disk, dir: &Path, table: &str, runs: &[u64]) -> Result<u64, Error> {
    let failed = |error: std::io::Error| Error::file(dir, &error);
    let mut next = 1;
    for path in disk.read_dir(dir).map_err(failed)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(table)?.strip_prefix('-')?.strip_suffix(".run"));
        let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else { continue };
        next = next.max(number + 1);
        if !runs.contains(&number) {
            disk.remove_file(&path).map_err(failed)?;
        }
    }
    Ok(next.max(runs.iter().max().map_or(0, |number| number + 1)))
}
