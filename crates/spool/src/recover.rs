//! Recovering old mail, behind a spool that takes messages already.
//!
//! The heads of the log are read in order, segment by segment, into the rows
//! of what waits; the index is brought into agreement with them; the state
//! takes them in. Only then is anything handed out, for an operator may hold
//! what the first half of the log says to be waiting. What was accepted
//! meanwhile is in the state already.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_wal::{Backlog, Durability};

use crate::commit::Batch;
use crate::error::{Error, Result};
use crate::index::{Broken, Index};
use crate::indexer::{self, Commands};
use crate::lives::COLD;
use crate::records::{Holds, OperatorHead, VERSION};
use crate::replay::Replay;
use crate::rows::Rows;
use crate::shared::{Recovery, Shared};
use crate::transfer::Taken;
use crate::view::OpenReport;
use crate::{check, reclaim, young};

/// What was there when the spool was opened.
pub(crate) struct Old {
    pub main: (Backlog, postrider_wal::OpenReport),
    pub cold: (Backlog, postrider_wal::OpenReport),
    pub accept_loss: bool,
    pub commands: Commands,
    pub index_dir: Option<PathBuf>,
    pub start_held: bool,
}

/// Messages taken into the state under one lock.
const STEP: usize = 4096;

/// Recovers, then starts the tasks that need what was recovered.
pub(crate) async fn run(shared: Arc<Shared>, old: Old) {
    let Old { main, cold, accept_loss, commands, index_dir, start_held } = old;
    let own = Arc::clone(&shared);
    let dir = index_dir.clone();
    let read = blocking(move || read(&own, main, cold, accept_loss, dir.as_deref())).await;
    let recovered = match read.and_then(|read| read) {
        Ok(read) => take_over(&shared, read, start_held).await,
        Err(error) => Err(error),
    };
    let outcome = match recovered {
        Ok(report) => {
            let scope = &shared.scope;
            scope.spawn("index", indexer::run(Arc::clone(&shared), commands, index_dir));
            scope.spawn("young", young::run(Arc::clone(&shared)));
            scope.spawn("reclaim", reclaim::run(Arc::clone(&shared)));
            Recovery::Done(Arc::new(report))
        }
        Err(Error::Closed) => return,
        Err(reason) => {
            shared.fail(&reason);
            Recovery::Failed(Arc::new(reason))
        }
    };
    shared.recovery.send_replace(outcome);
    shared.reclaim.notify_one();
}

/// What the logs say, with an index that says the same.
struct Read {
    rows: Rows,
    report: OpenReport,
    holds: (Holds, Option<u64>),
    taken: (Taken, Option<u64>),
}

fn read(
    shared: &Shared,
    (main, main_report): (Backlog, postrider_wal::OpenReport),
    (mut cold, mut cold_report): (Backlog, postrider_wal::OpenReport),
    accept_loss: bool,
    index_dir: Option<&Path>,
) -> Result<Read> {
    let (replay, main_report) = replay(shared, main, main_report)?;
    // The main log says what lives in the cold one; reading it mends its
    // footers, which reclaim reads.
    while cold.replay_next(&mut cold_report, &mut |_| {})? {}
    quarantine_damage(shared, [&main_report, &cold_report], &replay);
    let mut report = OpenReport {
        clean_stop: replay.clean_stop,
        records: replay.records,
        quarantined: shared.quarantine.count(),
        ..OpenReport::default()
    };
    let (holds, taken) = (replay.holds.clone(), replay.taken.clone());
    let rows = replay.into_waiting(&HashSet::new());
    expect_cold(shared, &rows, accept_loss)?;
    report.messages = rows.len() as u64;
    let (index, repairs, rebuilt) = open_index(index_dir, &rows);
    (report.index_repairs, report.index_rebuilt) = (repairs, rebuilt);
    shared.indexer.start_with(index);
    Ok(Read { rows, report, holds, taken })
}

/// Refuses when segments of the cold log are missing: it is not as old as the
/// main one, or not there.
fn expect_cold(shared: &Shared, rows: &Rows, accept_loss: bool) -> Result<()> {
    let there: HashSet<u64> = shared.cold.segments().iter().map(|segment| segment.number).collect();
    let wanted = rows.iter().map(|(_, row)| row.location.segment);
    let missing: BTreeSet<u64> = wanted.filter(|segment| *segment >= COLD && !there.contains(segment)).collect();
    let (Some(&first), Some(&last)) = (missing.first(), missing.last()) else { return Ok(()) };
    let gap = postrider_wal::Error::Gap { dir: check::COLD.into(), first, last };
    tracing::error!(error = %gap, "bodies of waiting messages are lost");
    if accept_loss { Ok(()) } else { Err(gap.into()) }
}

/// The state takes in what the logs say.
async fn take_over(shared: &Arc<Shared>, read: Read, start_held: bool) -> Result<OpenReport> {
    let Read { rows, mut report, holds, taken } = read;
    shared.update(|state, now| {
        state.taken = taken;
        (_, state.holds_segment) = holds;
        state.due.set_holds(holds.0, now);
    });
    let own = Arc::clone(shared);
    blocking(move || take_in(&own, &rows)).await?;
    if start_held && !shared.state.lock().due.holds().all {
        let mut holds = shared.state.lock().due.holds().clone();
        holds.all = true;
        let mut batch = Batch::default();
        batch.operator(OperatorHead::Holds(holds))?;
        batch.commit(shared, Durability::Synced).await?;
    }
    shared.update(|state, now| state.due.start(now));
    report.quarantined = shared.quarantine.count();
    Ok(report)
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Io(std::io::Error::other(error)))
}

/// Reads all heads, unless the spool is closed meanwhile.
fn replay(
    shared: &Shared,
    mut backlog: Backlog,
    mut report: postrider_wal::OpenReport,
) -> Result<(Replay, postrider_wal::OpenReport)> {
    let mut replay = Replay::default();
    while backlog.replay_next(&mut report, &mut |record| replay.take(&record))? {
        if shared.scope.is_cancelled() {
            return Err(Error::Closed);
        }
    }
    match replay.later {
        Some((segment, found)) => Err(Error::Version { segment, found, known: VERSION }),
        None => Ok((replay, report)),
    }
}

fn quarantine_damage(shared: &Shared, logs: [&postrider_wal::OpenReport; 2], replay: &Replay) {
    for damage in logs.iter().flat_map(|log| &log.damage) {
        // The log keeps the bytes itself.
        let name = format!("segment-{}-{}", damage.segment, damage.offset);
        let what = format!("{} bytes damaged, {} batches lost", damage.len, damage.batches);
        shared.quarantine.note(&name, &what, &[]);
    }
    for (lsn, index, kind, location) in &replay.damaged {
        let bytes = shared.log.read(*location).unwrap_or_default();
        let what = format!("kind {kind} is not understood");
        shared.quarantine.note(&format!("record-{lsn}-{index}"), &what, &bytes);
    }
}

/// Opens the index and makes it agree; makes it anew when that fails, in
/// memory when that fails too.
fn open_index(dir: Option<&Path>, rows: &Rows) -> (Index, u64, Option<String>) {
    let in_memory = || {
        let index = Index::memory();
        let _ = index.reconcile(rows);
        index
    };
    let Some(dir) = dir else {
        return (in_memory(), 0, None);
    };
    let agree = |path: &Path| {
        let index = Index::open(path)?;
        let repairs = index.reconcile(rows)?;
        Ok::<_, Broken>((index, repairs))
    };
    let first = match agree(&indexer::current(dir)) {
        Ok((index, repairs)) => return (index, repairs, None),
        Err(error) => error.to_string(),
    };
    tracing::warn!(error = first, "making the index anew");
    let second = indexer::aside(dir).map_err(|error| error.to_string());
    match second.and_then(|path| agree(&path).map_err(|error| error.to_string())) {
        Ok((index, repairs)) => (index, repairs, Some(first)),
        Err(error) => {
            tracing::error!(error, "the index stays in memory");
            (in_memory(), 0, Some(error))
        }
    }
}

/// Tells the state what waits, a little at a time: who accepts does not wait.
fn take_in(shared: &Shared, rows: &Rows) {
    let mut rows = rows.iter().peekable();
    while rows.peek().is_some() {
        let mut state = shared.state.lock();
        rows.by_ref().take(STEP).for_each(|(id, row)| state.restore(id, &row));
    }
}
