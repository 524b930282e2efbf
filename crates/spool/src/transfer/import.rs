//! Taking the messages of a file in.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use postrider_base::Disk;
use postrider_mail::MessageId;
use postrider_wal::{Durability, Location};
use serde::Serialize;

use super::file::{Carried, Moved};
use super::taken::FileId;
use super::{STEP_BYTES, Steps};
use crate::commit::Batch;
use crate::error::{Error, Result};
use crate::message::AcceptedRecord;
use crate::records::OperatorHead;
use crate::row::Row;
use crate::shared::Shared;
use crate::spool::Spool;

/// What is to be imported.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Where the file is.
    pub disk: Arc<dyn Disk>,
    /// The file.
    pub path: PathBuf,
    /// Take again what was taken from this file before and does not wait here
    /// any more: it may have been delivered.
    pub again: bool,
}

/// What was imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Who wrote the file.
    pub from: String,
    /// Messages taken.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether they are held, because the file is a copy.
    pub held: bool,
    /// Messages that were taken from this file before, and were not taken again.
    pub taken_before: u64,
    /// Other messages that wait here already, and were left as they are.
    pub skipped: u64,
    /// The first [`Imported::MOST_LISTED`] of them.
    pub skipped_ids: Vec<MessageId>,
}

impl Imported {
    /// Messages that are listed; the others are counted.
    pub const MOST_LISTED: usize = 1_000;
}

impl Spool {
    /// Takes the messages of a file in, with the state that they had, once all
    /// of the file is verified. Those that wait here already are left as they
    /// are, and those that this file has brought before are not taken again,
    /// whatever became of them: an import that was interrupted can be repeated.
    /// The last hundred files are remembered. `Ok` means that all are synced.
    ///
    /// # Errors
    /// [`Error::File`] says where the file is damaged, [`Error::Full`] which
    /// bound it would exceed, [`Error::TooLarge`] that a message is larger than
    /// a segment here: nothing was taken. Others as [`Spool::accept`]:
    /// some messages may have been taken.
    pub async fn import(&self, options: ImportOptions) -> Result<Imported> {
        let shared = self.shared();
        shared.recovered().await?;
        let open = || Steps::open(Arc::clone(&options.disk), options.path.clone());
        let mut steps = open().await?;
        let file = steps.start.id;
        let before = if options.again { 0 } else { shared.state.lock().taken.0.of(file) };
        let (mut messages, mut bytes) = (0, 0);
        while let Some(step) = Step::next(shared, &mut steps, before).await? {
            if step.absent.iter().any(|carried| size(carried) > shared.settings.segment_bytes.bytes()) {
                return Err(Error::TooLarge("larger than a segment"));
            }
            messages += step.absent.len() as u64;
            bytes += step.bytes();
        }
        shared.admissions.has_room_for(messages, bytes)?;
        let mut steps = open().await?;
        let held = steps.start.copy;
        let mut imported = Imported { from: steps.start.from.clone(), held, ..Imported::default() };
        while let Some(step) = Step::next(shared, &mut steps, before).await? {
            imported.count(&step);
            if step.last > before {
                take_in(shared, file, step, held).await?;
            }
        }
        Ok(imported)
    }
}

impl Imported {
    fn count(&mut self, step: &Step) {
        self.messages += step.absent.len() as u64;
        self.bytes += step.bytes();
        self.taken_before += step.taken_before;
        self.skipped += step.waiting.len() as u64;
        let room = Self::MOST_LISTED.saturating_sub(self.skipped_ids.len());
        self.skipped_ids.extend(step.waiting.iter().take(room));
    }
}

/// A few messages of a file, sorted out.
struct Step {
    /// To be taken.
    absent: Vec<Carried>,
    /// Wait here already.
    waiting: Vec<MessageId>,
    /// The file has brought so many before.
    taken_before: u64,
    /// The number of the last one in the file.
    last: u64,
}

impl Step {
    /// The next messages, of which the first `before` of the file have been
    /// here; none at its end.
    async fn next(shared: &Arc<Shared>, steps: &mut Steps, before: u64) -> Result<Option<Self>> {
        let carried = steps.next().await?;
        let Some(last) = carried.last().map(|carried| carried.number) else { return Ok(None) };
        let index = shared.indexer.settled().await?;
        let mut step = Self { absent: Vec::with_capacity(carried.len()), waiting: Vec::new(), taken_before: 0, last };
        let mut seen = HashSet::new();
        for carried in carried {
            let id = carried.record.id;
            let in_memory = shared.state.lock().messages.contains_key(&id);
            // A broken index is found out and repaired by the indexer.
            let indexed = || index.get(id).map_err(|error| Error::Io(std::io::Error::other(error)));
            if carried.number <= before {
                step.taken_before += 1;
            } else if in_memory || !seen.insert(id) || indexed()?.is_some() {
                step.waiting.push(id);
            } else {
                step.absent.push(carried);
            }
        }
        Ok(Some(step))
    }

    /// Of what is to be taken.
    fn bytes(&self) -> u64 {
        self.absent.iter().map(|carried| carried.body.len() as u64).sum()
    }
}

/// Takes messages of a file in that do not wait here.
async fn take_in(shared: &Arc<Shared>, file: FileId, step: Step, held: bool) -> Result<()> {
    shared.indexer.room().await;
    let bound = STEP_BYTES.min(shared.settings.segment_bytes.bytes() / 2);
    let (mut batch, mut ids, mut bytes) = (Batch::default(), Vec::new(), 0);
    for carried in step.absent {
        bytes += size(&carried);
        if bytes > bound && !ids.is_empty() {
            let so_far = carried.number - 1;
            commit(shared, std::mem::take(&mut batch), std::mem::take(&mut ids), (file, so_far)).await?;
            bytes = size(&carried);
        }
        let Carried { record, state, body, .. } = carried;
        ids.push(record.id);
        let row = row_of(&record, &state, held);
        let last = state.waiting.into_iter().filter_map(|waiting| waiting.last).collect();
        let admission = shared.admissions.admit_anyway(body.len() as u64);
        batch.import(record, row, last, body, admission)?;
    }
    commit(shared, batch, ids, (file, step.last)).await
}

/// What a message takes in the log at most: heads and what the last attempts
/// said are about as long as the record, which is part of the body.
fn size(carried: &Carried) -> u64 {
    /// How far files were imported is said in at most 3 kB of it.
    const BOOKKEEPING: u64 = 8 << 10;
    let last = carried.state.waiting.iter().filter_map(|waiting| waiting.last.as_ref());
    let said: usize = last.map(|outcome| 256 + outcome.diagnostic.len()).sum();
    let heads = 128 * carried.state.waiting.len() + 4 * said;
    BOOKKEEPING + carried.body.len() as u64 + heads as u64
}

/// Records messages, and how far their file has come with them.
async fn commit(
    shared: &Arc<Shared>,
    mut batch: Batch,
    ids: Vec<MessageId>,
    (file, messages): (FileId, u64),
) -> Result<()> {
    let _turn = shared.operator.lock().await;
    let mut taken = shared.state.lock().taken.0.clone();
    taken.note(file, messages);
    batch.operator(OperatorHead::Taken(taken))?;
    batch.commit(shared, Durability::Synced).await?;
    shared.update(|state, now| ids.into_iter().for_each(|id| state.index_now(id, now)));
    Ok(())
}

fn row_of(record: &AcceptedRecord, state: &Moved, held: bool) -> Row {
    let mut row = Row::fresh(record, Location::default());
    row.held = held || state.held;
    let waiting: Vec<_> = state.waiting.iter().map(|w| (w.recipient, w.attempts, w.due)).collect();
    row.resume(&waiting);
    row
}
