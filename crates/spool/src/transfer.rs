//! Waiting messages on their way from one machine to another.
//!
//! Both ends have the spool to themselves. The messages are written to a file
//! with their state; when the file is on disk, each gets an outcome in the
//! spool that it leaves: at no time is a message in neither place. What
//! interrupts that leaves messages in both; [`Spool::finish_export`] goes on.
//! What a file brought once it does not bring again ([`taken`]).

mod file;
mod import;
mod taken;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_base::{Disk, Timestamp};
use postrider_mail::{AttemptOutcome, Delays, Disposition, EnhancedStatus};
use postrider_wal::{Durability, Location};
use serde::Serialize;

use self::file::{Carried, Moved, MovedRecipient, Reader, Start, Totals, Writer};
use crate::claim::Loads;
use crate::commit::Batch;
use crate::error::{Error, Result};
use crate::operator::Places;
use crate::shared::Shared;
use crate::spool::Spool;
use crate::state::{Active, State, last_of};
use crate::view::Selector;

pub use import::{ImportOptions, Imported};
pub(crate) use taken::Taken;

/// Messages, and about how many bytes, dealt with at once.
const STEP: usize = 128;
const STEP_BYTES: u64 = 4 << 20;

/// What is to be exported, and where to.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Where the file is written.
    pub disk: Arc<dyn Disk>,
    /// The file; there must be none of this name.
    pub path: PathBuf,
    /// Which messages: all that have a waiting recipient in the selection, each
    /// with all of its waiting recipients.
    pub selector: Selector,
    /// Who writes it, for people.
    pub from: String,
    /// A number that no other export has, such as a random one: what a file brought it does
    /// not bring again.
    pub id: u128,
    /// Leave the messages waiting here: a copy, which an import holds.
    pub keep: bool,
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Messages in the file; without any there is no file.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that do not wait here any more.
    pub moved: u64,
    /// Messages in the file that did not wait here when the move was recorded:
    /// they ended in between.
    pub ended: u64,
    /// Messages that do not read back; they stay.
    pub damaged: u64,
}

impl Spool {
    /// Writes waiting messages to a file and, once that is on disk, records
    /// that they have left. To be called while nothing is delivered. A file
    /// that could not be finished, or would have no message, is taken away again.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is there or cannot be written,
    /// [`Error::Unknown`] for a single message that does not wait: nothing has
    /// left. Others as [`Spool::commit`]: some messages are in both places.
    pub async fn export(&self, options: ExportOptions) -> Result<Exported> {
        let shared = self.shared();
        let (disk, path) = (Arc::clone(&options.disk), options.path.clone());
        let start = Start { from: options.from, at: shared.clock.now(), copy: options.keep, id: options.id };
        let writer = blocking(move || Writer::create(&disk, &path, &start)).await??;
        let exported = match write(shared, &options.selector, writer).await {
            Ok(exported) => exported,
            Err(error) => {
                file::discard(&*options.disk, &options.path);
                return Err(error);
            }
        };
        if exported.messages == 0 {
            file::discard(&*options.disk, &options.path);
            return match options.selector {
                Selector::Message(id) if exported.damaged == 0 => Err(Error::Unknown(id)),
                _ => Ok(exported),
            };
        }
        if options.keep {
            return Ok(exported);
        }
        let Exported { moved, ended, .. } = self.finish_export(options.disk, &options.path).await?;
        Ok(Exported { moved, ended, ..exported })
    }

    /// Records that the messages of a file have left, as far as they still
    /// wait: the second half of an export that was interrupted.
    ///
    /// # Errors
    /// [`Error::File`] when the file is not whole, which is found out before
    /// anything is recorded; others as [`Spool::commit`].
    pub async fn finish_export(&self, disk: Arc<dyn Disk>, path: &Path) -> Result<Exported> {
        let shared = self.shared();
        let (start, totals) = verify(&disk, path).await?;
        if start.copy {
            return Err(Error::File {
                path: path.to_owned(),
                offset: 0,
                what: "it is a copy: nothing has left".into(),
            });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        let said = format!("moved to another machine with the file {name}");
        let mut exported = Exported { messages: totals.messages, bytes: totals.bytes, ..Exported::default() };
        let mut steps = Steps::open(disk, path.to_owned()).await?;
        loop {
            let carried = steps.next().await?;
            if carried.is_empty() {
                return Ok(exported);
            }
            let left = leave(shared, &carried, &said).await?;
            exported.moved += left;
            exported.ended += carried.len() as u64 - left;
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)
}

/// Writes all of the file.
async fn write(shared: &Arc<Shared>, selector: &Selector, mut writer: Writer) -> Result<Exported> {
    // No body moves meanwhile.
    let _still = shared.reclaiming.take().await;
    let mut places = Places::new(shared, selector).await?;
    let mut damaged = 0;
    loop {
        let found = places.next(STEP).await?;
        if found.is_empty() {
            break;
        }
        let _loads = Loads::begin(shared, found.iter().map(|(_, slot)| slot.1).collect()).await?;
        let chosen: Vec<(Location, Moved)> = {
            let state = shared.state.lock();
            let mut chosen = Vec::with_capacity(found.len());
            for (queue, (_, id)) in &found {
                let Some(active) = state.messages.get(id) else { continue };
                // A message with several recipients stands in several places.
                let first = active.row.places().map(|(queue, _)| queue).filter(|queue| selects(selector, queue)).min();
                if first.as_ref().is_none_or(|first| first == queue) {
                    chosen.push((active.row.location, moved(&state, active)));
                }
            }
            chosen
        };
        let shared = Arc::clone(shared);
        let write = move || {
            let mut damaged = 0;
            for (location, state) in chosen {
                let body = shared.read_body(location).ok();
                match body.filter(|body| crate::records::decode_message(body).is_some()) {
                    Some(body) => writer.message(&state, &body)?,
                    None => damaged += 1,
                }
            }
            Ok::<_, Error>((writer, damaged))
        };
        let (written, bad) = blocking(write).await??;
        writer = written;
        damaged += bad;
    }
    let totals = blocking(move || writer.finish()).await??;
    Ok(Exported { messages: totals.messages, bytes: totals.bytes, damaged, ..Exported::default() })
}

fn selects(selector: &Selector, queue: &crate::message::QueueKey) -> bool {
    matches!(selector, Selector::Message(_)) || selector.covers(queue)
}

/// The state that a message takes with it. What a hold of its queue keeps back
/// is held there by itself.
fn moved(state: &State, active: &Active) -> Moved {
    let holds = state.due.holds();
    let waiting = active.row.waiting().map(|waiting| MovedRecipient {
        recipient: waiting.recipient,
        attempts: waiting.attempts,
        due: waiting.due,
        last: last_of(&active.last, waiting.recipient).cloned(),
    });
    Moved {
        held: active.row.held || active.row.places().any(|(queue, _)| holds.covers(&queue)),
        waiting: waiting.collect(),
    }
}

/// Records that messages have left; how many did.
async fn leave(shared: &Arc<Shared>, carried: &[Carried], said: &str) -> Result<u64> {
    let loads = Loads::begin(shared, carried.iter().map(|carried| carried.record.id).collect()).await?;
    let mut batch = Batch::default();
    let mut left = 0;
    for Carried { record, state, .. } in carried.iter().filter(|carried| loads.ids().contains(&carried.record.id)) {
        let waits: Vec<(u16, u32)> = {
            let state = shared.state.lock();
            let active = state.messages.get(&record.id).into_iter();
            active.flat_map(|active| active.row.waiting().map(|w| (w.recipient, w.attempts))).collect()
        };
        let waits = waits.into_iter().filter(|(index, _)| state.waiting.iter().any(|w| w.recipient == *index));
        let outcomes: Vec<_> = waits.map(|wait| departure(wait, shared.clock.now(), said)).collect();
        if !outcomes.is_empty() {
            batch.outcomes(record.id, outcomes)?;
            left += 1;
        }
    }
    if left > 0 {
        batch.commit(shared, Durability::Synced).await?;
    }
    shared.indexer.room().await;
    Ok(left)
}

/// The end of a recipient here: no failure, so no bounce, and no event.
fn departure((recipient, attempt): (u16, u32), at: Timestamp, said: &str) -> AttemptOutcome {
    AttemptOutcome {
        recipient,
        at,
        attempt,
        disposition: Disposition::Deleted,
        status: EnhancedStatus::new(2, 0, 0),
        diagnostic: said.to_owned(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: None,
        record: None,
    }
}

/// Reads a file to its end.
async fn verify(disk: &Arc<dyn Disk>, path: &Path) -> Result<(Start, Totals)> {
    let (disk, path) = (Arc::clone(disk), path.to_owned());
    let read = move || {
        let (mut reader, start) = Reader::open(&*disk, &path)?;
        while reader.next()?.is_some() {}
        Ok((start, reader.totals()))
    };
    blocking(read).await?
}

/// The messages of a file, a few at a time.
struct Steps {
    start: Start,
    reader: Option<Reader>,
}

impl Steps {
    async fn open(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self> {
        let (reader, start) = blocking(move || Reader::open(&*disk, &path)).await??;
        Ok(Self { start, reader: Some(reader) })
    }

    /// The next messages; none at the end.
    async fn next(&mut self) -> Result<Vec<Carried>> {
        let Some(mut reader) = self.reader.take() else { return Ok(Vec::new()) };
        let read = move || {
            let (mut step, mut bytes) = (Vec::new(), 0);
            while step.len() < STEP && bytes < STEP_BYTES {
                let Some(carried) = reader.next()? else { return Ok((step, None)) };
                bytes += carried.body.len() as u64;
                step.push(carried);
            }
            Ok::<_, Error>((step, Some(reader)))
        };
        let (step, reader) = blocking(read).await??;
        self.reader = reader;
        Ok(step)
    }
}
