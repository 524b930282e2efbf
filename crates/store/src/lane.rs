//! The one task that changes things: rounds of commits, then the view, then
//! compaction.
//!
//! Whoever writes hands in rows and waits. The lane takes what has come
//! together, gives it to the log as batches of one group, and applies the
//! synced ones to the view in the order of the log; so view and log never
//! disagree on which of two changes was the later one, and compaction, which
//! runs between rounds, races with nobody.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use postrider_wal::{Committed, Durability, Entry, Log, Lsn};
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::Pin;
use crate::row::{self, Row};
use crate::view::{Last, View};
use crate::{Error, compact};

/// The mark of a record that [`row::decode`] reads.
pub(crate) const ROWS: u8 = 1;
/// The most writes of a round.
const MAX_ROUND: usize = 256;

/// What the lane is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    /// One atomic record.
    Write(Write),
    /// This view failed a reader.
    Rebuild(Arc<View>),
    /// The last record that readers see, and a pin on all that the log has.
    Checkpoint(oneshot::Sender<(Lsn, Pin)>),
    /// The end.
    Close(oneshot::Sender<Result<(), Error>>),
}

#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) rows: Vec<Row>,
    /// Gets how many of the rows were there before.
    pub(crate) done: oneshot::Sender<Result<u64, Error>>,
}

/// The view that readers use; none once the store is closed.
pub(crate) type Shown = Arc<RwLock<Option<Arc<View>>>>;

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) log: Log,
    pub(crate) shown: Shown,
    pub(crate) index_dir: PathBuf,
    pub(crate) last: Last,
    pub(crate) segment_bytes: u64,
    /// How many need the log as it is.
    pub(crate) pins: Arc<AtomicUsize>,
}

/// A write that is in the log.
struct Logged {
    write: Write,
    committed: Committed,
}

impl Lane {
    /// Serves requests until there is nobody left to send any.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut round = Vec::with_capacity(MAX_ROUND);
        while requests.recv_many(&mut round, MAX_ROUND).await > 0 {
            let mut writes = Vec::with_capacity(round.len());
            let (mut rebuild, mut checkpoints, mut close) = (false, Vec::new(), None);
            for request in round.drain(..) {
                match request {
                    Request::Write(write) if close.is_none() => writes.push(write),
                    Request::Write(late) => {
                        let _ = late.done.send(Err(postrider_wal::Error::Closed.into()));
                    }
                    Request::Rebuild(failed) => rebuild |= self.is_shown(&failed),
                    Request::Checkpoint(done) => checkpoints.push(done),
                    Request::Close(done) => close = Some(done),
                }
            }
            self.write(writes).await;
            for done in checkpoints {
                // Who has gone drops the pin.
                let _ = done.send((self.last.map_or(Lsn::ZERO, |(lsn, _)| lsn), Pin::new(&self.pins)));
            }
            if rebuild && let Err(error) = self.rebuild().await {
                tracing::error!("the store's view cannot be rebuilt: {error}");
            }
            if let Some(done) = close {
                let _ = done.send(self.close().await);
                return;
            }
            if self.pins.load(Ordering::Acquire) == 0
                && let Err(error) = compact::compact(&mut self).await
            {
                tracing::warn!("the store was not compacted: {error}");
            }
        }
    }

    fn is_shown(&self, view: &Arc<View>) -> bool {
        self.shown.read().as_ref().is_some_and(|shown| Arc::ptr_eq(shown, view))
    }

    async fn write(&mut self, writes: Vec<Write>) {
        let submitted: Vec<_> = writes
            .into_iter()
            .map(|write| {
                let record = Entry { kind: ROWS, body: vec![row::encode(&write.rows)], ..Entry::default() };
                (self.log.submit(vec![record], Durability::Synced), write)
            })
            .collect();
        let mut logged = Vec::with_capacity(submitted.len());
        for (commit, write) in submitted {
            match commit.await {
                Ok(committed) => logged.push(Logged { write, committed }),
                Err(error) => {
                    let _ = write.done.send(Err(error.into()));
                }
            }
        }
        if !logged.is_empty() {
            self.apply(logged).await;
        }
    }

    /// Brings the view up to date and answers. Readers see a change before
    /// its writer is told.
    async fn apply(&mut self, logged: Vec<Logged>) {
        for Logged { committed, .. } in &logged {
            self.note(committed);
        }
        let view = self.shown.read().clone();
        let applied = blocking(move || {
            let mut answers = Vec::with_capacity(logged.len());
            let mut result = view.ok_or_else(|| Error::Index("closed".into()));
            for Logged { write, committed } in logged {
                let existed = result.clone().and_then(|view| view.apply(&write.rows, committed.lsn));
                if let Err(error) = &existed {
                    result = Err(error.clone());
                }
                answers.push((write, existed));
            }
            Ok(answers)
        });
        let Ok(answers) = applied.await else { return };
        let failed = answers.iter().any(|(_, existed)| existed.is_err());
        let rebuilt = if failed { self.rebuild().await } else { Ok(()) };
        for (write, existed) in answers {
            let answer = match (existed, &rebuilt) {
                (Ok(existed), _) => Ok(existed),
                // In the log, and so in the new view; what was there before
                // is not known any more.
                (Err(_), Ok(())) => Ok(write.rows.len() as u64),
                (Err(_), Err(error)) => Err(error.clone()),
            };
            let _ = write.done.send(answer);
        }
    }

    /// The view reflects the log up to this record.
    pub(crate) fn note(&mut self, committed: &Committed) {
        if let Some(location) = committed.locations.last() {
            self.last = Some((committed.lsn, *location));
        }
    }

    /// Replaces the view by one made from the log.
    pub(crate) async fn rebuild(&mut self) -> Result<(), Error> {
        tracing::warn!("rebuilding the store's view from its log");
        let (dir, log) = (self.index_dir.clone(), self.log.clone());
        let rebuilt = blocking(move || View::rebuild(&dir, &log)).await?;
        *self.shown.write() = Some(Arc::new(rebuilt.view));
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Error> {
        let view = self.shown.write().take();
        let last = self.last;
        let marked = blocking(move || view.map_or(Ok(()), |view| view.mark(last))).await;
        if let Err(error) = marked {
            tracing::warn!("the store's view will be rebuilt at the next start: {error}");
        }
        Ok(self.log.close().await?)
    }
}

/// Runs what blocks for sled or the disk beside the runtime's tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Index(error.to_string())))
}
