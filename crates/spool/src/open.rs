//! Opening: a spool that takes messages, while its old mail is still being
//! read.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use postrider_base::Scope;
use postrider_wal::{Backlog, Log, Options};
use tokio::sync::{Notify, watch};

use crate::admission::{Admissions, BodyMemory};
use crate::check::COLD;
use crate::due::Due;
use crate::error::Result;
use crate::feed::{Feeds, Recent};
use crate::inbox::{self, Inbox};
use crate::indexer::Indexer;
use crate::lives::{self, Lives};
use crate::quarantine::Quarantine;
use crate::reclaim::{self, ColdSpace};
use crate::records::Holds;
use crate::recover::{self, Old};
use crate::shared::{Recovery, Shared};
use crate::spool::SpoolOptions;
use crate::state::State;
use crate::under_way::UnderWay;
use crate::young::Youth;

/// What opening the logs gave.
struct Opened {
    log: Log,
    backlog: Backlog,
    wal: postrider_wal::OpenReport,
    cold: Log,
    cold_backlog: Backlog,
    cold_wal: postrider_wal::OpenReport,
}

pub(crate) async fn open(options: SpoolOptions) -> Result<Arc<Shared>> {
    let opened = {
        let options = options.clone();
        recover::blocking(move || open_logs(&options)).await??
    };
    let Opened { log, backlog, wal, cold, cold_backlog, cold_wal } = opened;
    let (indexer, commands) = Indexer::new(options.settings.index_backlog);
    let old = Old {
        main: (backlog, wal),
        cold: (cold_backlog, cold_wal),
        accept_loss: options.accept_loss,
        commands,
        index_dir: options.index_dir.clone(),
        start_held: options.start_held,
    };
    let shared = Arc::new(assemble(options, log, cold, indexer));
    let owner: Weak<Shared> = Arc::downgrade(&shared);
    shared.log.set_owner(owner);
    let scope = &shared.scope;
    scope.spawn("hand-out", inbox::hand_out(Arc::clone(&shared)));
    scope.spawn("recover", recover::run(Arc::clone(&shared), old));
    Ok(shared)
}

fn open_logs(options: &SpoolOptions) -> Result<Opened> {
    let main = Options {
        segment_bytes: options.settings.segment_bytes.bytes(),
        most_spare_files: options.settings.most_spare_files,
        buffered_sync: options.settings.outcome_sync.as_duration(),
        accept_loss: options.accept_loss,
        clock: options.clock.clone(),
        driver: options.driver,
        ..Options::default()
    };
    // Written now and then, by the megabyte: nothing is kept ready for it.
    let cold =
        Options { first_segment: lives::COLD, spare_segments: 0, recycle: false, recent_bytes: 0, ..main.clone() };
    let (log, backlog, wal) = Log::open_behind(Arc::clone(&options.disk), &options.dir, main)?;
    let (cold, cold_backlog, cold_wal) = Log::open_behind(Arc::clone(&options.disk), &options.dir.join(COLD), cold)?;
    Ok(Opened { log, backlog, wal, cold, cold_backlog, cold_wal })
}

fn assemble(options: SpoolOptions, log: Log, cold: Log, indexer: Indexer) -> Shared {
    let SpoolOptions { disk, dir, clock, settings, metrics, feeds, .. } = options;
    let quarantine = Quarantine::new(Arc::clone(&disk), &dir, clock.clone(), metrics.clone());
    let admissions = Admissions::new(&settings, disk, dir, clock.clone(), metrics.spool_messages.clone());
    let due = Due::new(settings.ready_batch, Holds::default());
    let youth = Arc::new(Youth::new(&settings, metrics.spool_paced.clone()));
    let under_way = Arc::new(UnderWay::default());
    let lives = Lives::new(settings.segment_bytes.bytes() / reclaim::MOSTLY_DEAD);
    Shared {
        bodies: BodyMemory::new(settings.body_memory.bytes(), metrics.spool_body_memory_bytes.clone()),
        newest: AtomicU64::new(0),
        published: Mutex::default(),
        feeds: Feeds::new(feeds),
        recent: Recent::default(),
        state: Mutex::new(State::new(due, lives, under_way.clone(), Arc::clone(&admissions), Arc::clone(&youth))),
        under_way,
        recovery: watch::Sender::new(Recovery::UnderWay),
        failure: watch::Sender::new(false),
        has_failed: AtomicBool::new(false),
        has_ended: AtomicBool::new(false),
        retiring: tokio::sync::Mutex::new(()),
        reclaim_failures: AtomicU32::new(0),
        distrusted: Mutex::default(),
        reclaiming: reclaim::Turn::default(),
        cold_space: ColdSpace::default(),
        due: Notify::new(),
        young: Notify::new(),
        reclaim: Notify::new(),
        operator: tokio::sync::Mutex::new(()),
        scope: Scope::new("spool"),
        log,
        cold,
        clock,
        settings,
        metrics,
        admissions,
        youth,
        indexer,
        quarantine,
        inbox: Inbox::default(),
    }
}
