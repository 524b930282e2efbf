//! The state of all tables at one moment, to be copied while changes go on; and a store made
//! from such a copy.
//!
//! The log, up to its last synced record of that moment, *is* that state. As long as a
//! checkpoint is kept no segment is given up, so that all of its records can be read; the
//! sorted files of tables of many rows never change and are held open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use postrider_base::{Disk, DiskFile, OpenMode};
use postrider_wal::{Durability, Entry, Error as LogError, Log, Lsn};
use tokio::sync::oneshot;

use crate::lane::{ROWS, Request};
use crate::store::Options;
use crate::{Error, Store, row, view};

/// Where tables of many rows have their files, in the store's directory.
const BULK: &str = "bulk";
/// What those files are called in the end.
const RUN: &str = ".run";
/// How often the files are looked at again because one has come or gone.
const TRIES: usize = 100;
/// Records that wait for the log together when a store is made.
const GROUP: usize = 64;

/// Keeps the log from being compacted, as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin(Arc<AtomicUsize>);

impl Pin {
    pub(crate) fn new(pins: &Arc<AtomicUsize>) -> Self {
        pins.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(pins))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All tables at one moment. The log grows until it is dropped.
#[derive(Debug)]
pub struct Checkpoint {
    store: Store,
    until: Lsn,
    segments: Vec<u64>,
    files: Vec<CheckpointFile>,
    _pin: Pin,
}

/// A file that belongs to a store beside its log.
#[derive(Clone, Debug)]
pub struct CheckpointFile {
    /// Where it is, below the store's directory.
    pub name: String,
    /// Its bytes, which do not change.
    pub file: Arc<dyn DiskFile>,
}

impl Store {
    /// The state that has every change that was acknowledged before this was called.
    ///
    /// # Errors
    /// [`Error::Log`] when the store is closed, [`Error::File`].
    pub async fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let closed = || Error::from(LogError::Closed);
        let mut files = self.run_files()?;
        for _ in 0..TRIES {
            let (done, answer) = oneshot::channel();
            self.ask(Request::Checkpoint(done)).await.map_err(|()| closed())?;
            let (until, pin) = answer.await.map_err(|_| closed())?;
            let after = self.run_files()?;
            // None has come or gone: those that the rows of that moment name are among them.
            if names(&files).eq(names(&after)) {
                let segments = self.log().segments().iter().map(|segment| segment.number).collect();
                return Ok(Checkpoint { store: self.clone(), until, segments, files, _pin: pin });
            }
            files = after;
        }
        let dir = self.dir().join(BULK);
        Err(Error::file(&dir, &"its files change all the time"))
    }

    /// Makes a store in a directory that has none, from the records of a checkpoint. Its
    /// files must be put into their place beside it.
    ///
    /// # Errors
    /// What `records` fails with; [`Error::Format`] for what is no record of a store;
    /// [`Error::Log`]. What was written is not to be used then.
    pub async fn restore<E: From<Error>>(
        disk: Arc<dyn Disk>,
        dir: &Path,
        records: impl Iterator<Item = Result<Bytes, E>>,
    ) -> Result<u64, E> {
        let fail = |error: LogError| E::from(Error::from(error));
        let (log, _) = Log::open(disk, dir, Options::default().log, &mut |_| {}).map_err(fail)?;
        let mut waiting = Vec::with_capacity(GROUP);
        let mut count = 0;
        for record in records {
            let record = record?;
            row::decode(record.clone(), 0)?;
            let entry = Entry { kind: ROWS, body: vec![record], ..Entry::default() };
            waiting.push(log.submit(vec![entry], Durability::Synced));
            count += 1;
            if waiting.len() == GROUP {
                for commit in waiting.drain(..) {
                    commit.await.map_err(fail)?;
                }
            }
        }
        for commit in waiting {
            commit.await.map_err(fail)?;
        }
        log.close().await.map_err(fail)?;
        Ok(count)
    }

    fn run_files(&self) -> Result<Vec<CheckpointFile>, Error> {
        let dir = self.dir().join(BULK);
        let disk = self.disk();
        let failed = |error: &std::io::Error| Error::file(&dir, error);
        if !disk.exists(&dir) {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for path in disk.read_dir(&dir).map_err(|error| failed(&error))? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(RUN)) else {
                continue;
            };
            match disk.open(&path, OpenMode::Read) {
                Ok(file) => files.push(CheckpointFile { name: format!("{BULK}/{name}"), file }),
                // A later one has taken its place: the next look finds that.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(files)
    }
}

fn names(files: &[CheckpointFile]) -> impl Iterator<Item = &str> {
    files.iter().map(|file| file.name.as_str())
}

impl Checkpoint {
    /// The files beside the log.
    #[must_use]
    pub fn files(&self) -> &[CheckpointFile] {
        &self.files
    }

    /// The records of the log, in order, each verified by its checksum. Blocks for the disk.
    pub fn records(&self) -> impl Iterator<Item = Result<Bytes, Error>> + '_ {
        let of_segment = |segment: &u64| match self.of_segment(*segment) {
            Ok(records) => records,
            Err(error) => vec![Err(error)],
        };
        self.segments.iter().flat_map(of_segment)
    }

    fn of_segment(&self, segment: u64) -> Result<Vec<Result<Bytes, Error>>, Error> {
        let log = self.store.log();
        let entries = log.entries(segment)?.into_iter().filter(|record| record.lsn <= self.until);
        let body = |record: postrider_wal::Replayed| match view::read(log, &record) {
            Ok(rows) => Ok(row::encode(&rows)),
            // The view still has what the damaged record brought.
            Err(Error::Log(LogError::Corrupt { .. })) => {
                self.store.view(|view| view.rows_of(record.lsn)).map(|rows| row::encode(&rows))
            }
            Err(error) => Err(error),
        };
        Ok(entries.map(body).collect())
    }
}
