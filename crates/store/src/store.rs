//! The store of all tables.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use postrider_base::Disk;
use postrider_wal::Log;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::lane::{Lane, ROWS, Request, Shown, Write};
use crate::row::Row;
use crate::view::{Last, View};
use crate::{Error, Key, Table};

/// Writes that wait for the lane before the next one waits to be queued.
const MAX_WAITING: usize = 1024;

/// Where a store is and how it is laid out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the sled view, always on the real file system; `None`:
    /// `index` below the store's directory.
    pub index_dir: Option<PathBuf>,
    /// Options of the log; 4 MiB segments and one spare by default.
    pub log: postrider_wal::Options,
}

impl Default for Options {
    fn default() -> Self {
        let log = postrider_wal::Options {
            segment_bytes: 4 << 20,
            spare_segments: 1,
            recent_bytes: 0,
            ..postrider_wal::Options::default()
        };
        Self { index_dir: None, log }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Of the log.
    pub log: postrider_wal::OpenReport,
    /// The view was made anew from the log: after a crash, or when it was
    /// missing or damaged.
    pub rebuilt: bool,
    /// Records that were synced once and are lost to damage.
    pub lost: u64,
}

/// Durable tables; clones are handles to the same store.
///
/// It ends with [`close`](Store::close). One that is only dropped loses
/// nothing, but makes its view anew when it is next opened.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    lane: mpsc::Sender<Request>,
    shown: Shown,
    log: Log,
    report: OpenReport,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// Changes of any tables of one store that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
}

impl Batch {
    /// Without changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Format`].
    pub fn put<K: Key, V: Serialize + DeserializeOwned>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), Error> {
        self.rows.push(table.put_row(key, value)?);
        Ok(())
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn delete<K: Key, V: Serialize + DeserializeOwned>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
    ) -> Result<(), Error> {
        self.rows.push(table.delete_row(key)?);
        Ok(())
    }
}

impl Store {
    /// Opens the store in `dir` (its log there, its view in `dir/index`),
    /// making it when there is none. Blocks for the disk. Call it inside a
    /// tokio runtime, in which the store's task then lives.
    ///
    /// # Errors
    /// [`Error::Log`], [`Error::Index`], [`Error::Format`],
    /// [`Error::NoRuntime`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        Self::open_with(disk, dir, Options::default())
    }

    /// As [`Store::open`], with options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Self, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let segment_bytes = options.log.segment_bytes;
        let index_dir = options.index_dir.unwrap_or_else(|| dir.join("index"));
        let mut last: Last = None;
        let mut unknown = None;
        let (log, found) = Log::open(disk.clone(), dir, options.log, &mut |record| {
            last = Some((record.lsn, record.location));
            if record.kind != ROWS {
                unknown = Some(record.kind);
            }
        })?;
        if let Some(kind) = unknown {
            return Err(Error::Format { table: "(record)".into(), reason: format!("unknown kind {kind}") });
        }
        let mut report = OpenReport { log: found, ..OpenReport::default() };
        let view = match View::open(&index_dir, last) {
            Some(view) => view,
            None => {
                let rebuilt = View::rebuild(&index_dir, &log)?;
                (report.rebuilt, report.lost) = (last.is_some(), rebuilt.lost);
                rebuilt.view
            }
        };
        let shown: Shown = Arc::new(RwLock::new(Some(Arc::new(view))));
        let (lane, requests) = mpsc::channel(MAX_WAITING);
        let pins = Arc::default();
        let worker = Lane { log: log.clone(), shown: shown.clone(), index_dir, last, segment_bytes, pins };
        runtime.spawn(worker.run(requests));
        Ok(Self { inner: Arc::new(Inner { lane, shown, log, report, disk, dir: dir.to_owned() }) })
    }

    /// A table. Use a name, of at most 255 octets, with one pair of types
    /// only.
    #[must_use]
    pub fn table<K: Key, V: Serialize + DeserializeOwned>(&self, name: &'static str) -> Table<K, V> {
        Table { store: self.clone(), name, types: PhantomData }
    }

    /// Makes all changes of a batch or none; they are on disk (synced) when
    /// it returns, and readers see them. Dropping the future does not take
    /// them back.
    ///
    /// # Errors
    /// [`Error::Log`]; [`Error::Index`] when the changes are on disk but
    /// readers may not see them before a restart.
    pub async fn write(&self, batch: Batch) -> Result<(), Error> {
        self.write_rows(batch.rows).await.map(|_| ())
    }

    /// What opening found.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.inner.report
    }

    /// Counters and size of the log.
    #[must_use]
    pub fn usage(&self) -> postrider_wal::Usage {
        self.inner.log.usage()
    }

    /// Returns when a write or sync has failed: nothing is taken any more,
    /// and the process should restart.
    pub async fn failed(&self) {
        self.inner.log.poison_event().await;
    }

    /// Finishes what was handed in, syncs, and ends the store; reads fail
    /// from now on.
    ///
    /// # Errors
    /// [`Error::Log`] when the log failed before.
    pub async fn close(&self) -> Result<(), Error> {
        let (done, closed) = oneshot::channel();
        if self.inner.lane.send(Request::Close(done)).await.is_err() {
            return Ok(());
        }
        closed.await.unwrap_or(Ok(()))
    }

    /// Hands a request to the lane, unless the store is closed.
    pub(crate) async fn ask(&self, request: Request) -> Result<(), ()> {
        self.inner.lane.send(request).await.map_err(|_| ())
    }

    pub(crate) fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Where files of tables can be.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.inner.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.shown.read().is_none()
    }

    /// Returns how many of the rows were there before.
    pub(crate) async fn write_rows(&self, rows: Vec<Row>) -> Result<u64, Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let (done, answer) = oneshot::channel();
        let closed = |()| Error::from(postrider_wal::Error::Closed);
        let write = Request::Write(Write { rows, done });
        self.inner.lane.send(write).await.map_err(|_| closed(()))?;
        answer.await.map_err(|_| closed(()))?
    }

    /// Asks the view; when it fails, has it made anew.
    pub(crate) fn view<T>(&self, ask: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        let view = self.inner.shown.read().clone().ok_or(postrider_wal::Error::Closed)?;
        let result = ask(&view);
        if let Err(Error::Index(_)) = &result {
            // When the queue is full, the next reader asks again.
            let _ = self.inner.lane.try_send(Request::Rebuild(view));
        }
        result
    }
}
