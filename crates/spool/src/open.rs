//! Opening: from the log to a running spool.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use postrider_base::Scope;
use postrider_mail::MessageId;
use postrider_wal::{Durability, Log, Options};
use tokio::sync::{Notify, mpsc};

use crate::admission::{Admissions, BodyMemory};
use crate::commit::{self, Batch};
use crate::due::Due;
use crate::error::{Error, Result};
use crate::feed::{Feeds, Recent};
use crate::index::Index;
use crate::indexer::{self, Indexer};
use crate::quarantine::Quarantine;
use crate::reclaim;
use crate::records::{Holds, OperatorHead};
use crate::replay::Replay;
use crate::row::Row;
use crate::shared::Shared;
use crate::spool::SpoolOptions;
use crate::state::State;
use crate::view::OpenReport;
use crate::young;

/// What opening read.
struct Opened {
    log: Log,
    wal: postrider_wal::OpenReport,
    replay: Replay,
}

pub(crate) async fn open(options: SpoolOptions) -> Result<(Arc<Shared>, OpenReport)> {
    let opened = {
        let options = options.clone();
        blocking(move || open_log(&options)).await??
    };
    let Opened { log, wal, mut replay } = opened;
    let quarantine =
        Quarantine::new(Arc::clone(&options.disk), &options.dir, options.clock.clone(), options.metrics.clone());
    quarantine_damage(&quarantine, &log, &wal, &replay);
    let holds = std::mem::take(&mut replay.holds);
    let mut report = OpenReport {
        clean_stop: replay.clean_stop,
        messages: 0,
        records: replay.records,
        index_repairs: 0,
        index_rebuilt: None,
        quarantined: quarantine.count(),
    };
    let rows = replay.into_live(&HashSet::new());
    report.messages = rows.len() as u64;
    let dir = options.index_dir.clone();
    let (index, rows, repairs, rebuilt) = blocking(move || {
        let (index, repairs, rebuilt) = open_index(dir.as_deref(), &rows);
        (index, rows, repairs, rebuilt)
    })
    .await?;
    (report.index_repairs, report.index_rebuilt) = (repairs, rebuilt);
    let shared = assemble(options, log, quarantine, index, &rows, holds).await?;
    Ok((shared, report))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Io(std::io::Error::other(error)))
}

fn open_log(options: &SpoolOptions) -> Result<Opened> {
    let wal = Options {
        segment_bytes: options.settings.segment_bytes.bytes(),
        buffered_sync: options.settings.outcome_sync.as_duration(),
        accept_loss: options.accept_loss,
        clock: options.clock.clone(),
        driver: options.driver,
        ..Options::default()
    };
    let mut replay = Replay::default();
    let mut take = |record| replay.take(&record);
    let (log, report) = Log::open(Arc::clone(&options.disk), &options.dir, wal, &mut take)?;
    Ok(Opened { log, wal: report, replay })
}

fn quarantine_damage(quarantine: &Quarantine, log: &Log, wal: &postrider_wal::OpenReport, replay: &Replay) {
    for damage in &wal.damage {
        // The log keeps the bytes itself.
        let name = format!("segment-{}-{}", damage.segment, damage.offset);
        let what = format!("{} bytes damaged, {} batches lost", damage.len, damage.batches);
        quarantine.note(&name, &what, &[]);
    }
    for (lsn, index, kind, location) in &replay.damaged {
        let bytes = log.read(*location).unwrap_or_default();
        let what = format!("kind {kind} is not understood");
        quarantine.note(&format!("record-{lsn}-{index}"), &what, &bytes);
    }
}

/// Opens the index and makes it agree; makes it anew when that fails, in
/// memory when that fails too.
fn open_index(dir: Option<&Path>, rows: &HashMap<MessageId, Row>) -> (Index, u64, Option<String>) {
    let Some(dir) = dir else {
        let index = Index::memory();
        let _ = index.reconcile(rows);
        return (index, 0, None);
    };
    let agree = |path: &Path| {
        let index = Index::open(path)?;
        let repairs = index.reconcile(rows)?;
        Ok::<_, crate::index::Broken>((index, repairs))
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
            let index = Index::memory();
            let _ = index.reconcile(rows);
            (index, 0, Some(error))
        }
    }
}

async fn assemble(
    options: SpoolOptions,
    log: Log,
    quarantine: Quarantine,
    index: Index,
    rows: &HashMap<MessageId, Row>,
    (holds, holds_segment): (Holds, Option<u64>),
) -> Result<Arc<Shared>> {
    let SpoolOptions { disk, dir, index_dir, clock, settings, metrics, .. } = options;
    let admissions = Admissions::new(&settings, disk, dir, clock.clone(), metrics.spool_messages.clone());
    let due = Due::new(settings.ready_batch, holds);
    let thin = settings.segment_bytes.bytes() / reclaim::MOSTLY_DEAD;
    let mut state = State::new(due, holds_segment, thin, Arc::clone(&admissions));
    rows.iter().for_each(|(id, row)| state.restore(*id, row));
    let (indexer, commands) = Indexer::new(index, settings.index_backlog);
    let (orphans, adopted) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        bodies: BodyMemory::new(settings.body_memory.bytes(), metrics.spool_body_memory_bytes.clone()),
        newest: AtomicU64::new(0),
        published: Mutex::default(),
        feeds: Feeds::new(options.feeds),
        recent: Recent::default(),
        state: Mutex::new(state),
        due: Notify::new(),
        young: Notify::new(),
        reclaim: Notify::new(),
        operator: tokio::sync::Mutex::new(()),
        scope: Scope::new("spool"),
        log,
        clock,
        settings,
        metrics,
        admissions,
        indexer,
        quarantine,
        orphans,
    });
    let scope = &shared.scope;
    scope.spawn("adopt", commit::adopt(adopted, scope.clone()));
    scope.spawn("index", indexer::run(Arc::clone(&shared), commands, index_dir));
    scope.spawn("young", young::run(Arc::clone(&shared)));
    scope.spawn("reclaim", reclaim::run(Arc::clone(&shared)));
    if options.start_held && !shared.state.lock().due.holds().all {
        let mut holds = shared.state.lock().due.holds().clone();
        holds.all = true;
        let mut batch = Batch::default();
        batch.operator(OperatorHead::Holds(holds))?;
        batch.commit(&shared, Durability::Synced).await?;
    }
    shared.update(|state, now| state.due.start(now));
    shared.reclaim.notify_one();
    Ok(shared)
}
