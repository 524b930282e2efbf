//! The rooms that hold state, opened in the order in which they need each other. The daemon and
//! a command without a daemon open the same ones.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use postrider_account::{Accounts, Audit};
use postrider_base::{Clock, Dialer, Disk, Metrics, Random, RealDisk, Traces};
use postrider_control::{About, Deps, ReloadRequest};
use postrider_delivery::Delivery;
use postrider_dns::Resolver;
use postrider_events::{Driver, Events, EventsOptions, Issuer};
use postrider_mailauth::MacKey;
use postrider_spool::{Spool, SpoolOptions};
use postrider_store::Store;
use postrider_submission::{KeyRing, ReturnPaths};
use postrider_upkeep::Upkeep;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::Config;
use crate::dkim;
use crate::instance::Home;
use crate::outside;
use crate::state::StateDir;

/// How long closing may take before what is left is given to the next start's recovery.
pub(crate) const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// How much is opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Open {
    /// The account tables alone.
    Accounts,
    /// The queue and the journal too.
    Everything,
}

/// Open rooms. The lock on the state directory is held until they are dropped.
#[derive(Debug)]
pub(crate) struct Rooms {
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) metrics: Metrics,
    pub(crate) mac_key: MacKey,
    pub(crate) accounts: Accounts,
    pub(crate) ring: KeyRing,
    pub(crate) store: Store,
    pub(crate) queue: Option<Queue>,
    pub(crate) state: StateDir,
}

/// The queue and what reads its feed.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) spool: Spool,
    pub(crate) events: Events,
}

/// What only a daemon has.
pub(crate) struct DaemonLink {
    pub(crate) delivery: Delivery,
    pub(crate) listeners: Vec<String>,
    pub(crate) reload: mpsc::Sender<ReloadRequest>,
    pub(crate) traces: Traces,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) upkeep: Upkeep,
}

impl Rooms {
    pub(crate) async fn open(config: &Config, open: Open, metrics: Metrics) -> Result<Rooms> {
        let clock = Clock::system();
        let random = Random::system();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let state = StateDir::open(&config.server.state_dir, config.server.node.0, &random)?;
        let mac_key = state.mac_key(&random)?;
        let store = open_store(Arc::clone(&disk), &state).await?;
        let settings = config.account();
        let audit = Audit::open(Arc::clone(&disk), &state.room("audit"), &clock, &random, &settings)
            .with_context(|| format!("cannot open the audit log in {}", state.room("audit").display()))?;
        let accounts = Accounts::open(&store, &clock, &random, &settings).context("cannot read the account tables")?;
        let accounts = accounts.with_audit(audit);
        forget_orphans(&accounts).await;
        let ring = dkim::key_ring(config, &state, Arc::clone(&disk), &accounts, &clock, &random);
        let queue = match open {
            Open::Accounts => None,
            Open::Everything => Some(open_queue(config, &state, disk, &clock, &metrics).await?),
        };
        Ok(Rooms { clock, random, metrics, mac_key, accounts, ring, store, queue, state })
    }

    /// What operations act on.
    pub(crate) fn control_deps(&self, config: &Config, daemon: Option<DaemonLink>) -> Deps {
        let running_since = daemon.as_ref().map(|_| self.clock.now());
        let upkeep = daemon.as_ref().map(|daemon| daemon.upkeep.clone());
        let reach = daemon.as_ref().map(|daemon| (daemon.resolver.clone(), daemon.dialer.clone()));
        let (listeners, delivery, reload, traces) = match daemon {
            Some(daemon) => (daemon.listeners, Some(daemon.delivery), Some(daemon.reload), Some(daemon.traces)),
            None => (Vec::new(), None, None, None),
        };
        Deps {
            about: About {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                hostname: config.server.hostname(),
                region: config.server.region.clone(),
                partition: config.server.partition.clone(),
                node: config.server.node.0,
                instance: self.state.node().instance.clone(),
                state_dir: self.state.path().display().to_string(),
                running_since,
                listeners,
                sources: config.delivery.sources.keys().cloned().collect(),
            },
            accounts: self.accounts.clone(),
            store: self.store.clone(),
            ring: self.ring.clone(),
            delivery,
            events: self.queue.as_ref().map(|queue| queue.events.clone()),
            spool: self.queue.as_ref().map(|queue| queue.spool.clone()),
            reload,
            traces,
            world: outside::world(config, &self.state, &self.clock, self.return_paths(config), reach),
            upkeep,
        }
    }

    /// Reads return paths of the relay's, also where it writes none any more. None where they
    /// could have no domain.
    pub(crate) fn return_paths(&self, config: &Config) -> Option<ReturnPaths> {
        let domain = config.submission().return_path_domain().ok()?;
        Some(ReturnPaths::new(self.accounts.clone(), self.mac_key.clone(), domain))
    }

    /// Syncs and closes what is open, the last opened first.
    pub(crate) async fn close(self, deadline: Duration) -> Result<()> {
        let closing = async {
            if let Some(Queue { spool, events }) = &self.queue {
                events.close().await.context("cannot close the journal")?;
                spool.close().await.context("cannot close the queue's log")?;
            }
            self.store.close().await.context("cannot close the account tables")
        };
        tokio::time::timeout(deadline, closing)
            .await
            .map_err(|_| anyhow!("the logs were not closed within {deadline:?}; the next start recovers"))?
    }
}

async fn open_store(disk: Arc<dyn Disk>, state: &StateDir) -> Result<Store> {
    let dir = state.room("store");
    let shown = dir.display().to_string();
    tokio::task::spawn_blocking(move || Store::open(disk, &dir))
        .await
        .context("opening the account tables panicked")?
        .with_context(|| format!("cannot open the account tables in {shown}"))
}

/// Policies that outlived what they were attached to. They are in force for nobody, so a disk
/// that takes nothing is no reason not to start.
async fn forget_orphans(accounts: &Accounts) {
    match accounts.policies().forget_orphans().await {
        Ok(0) => {}
        Ok(count) => info!(count, "removed policies of credentials and identities that were deleted"),
        Err(error) => warn!(%error, "policies of credentials and identities that were deleted are not removed"),
    }
}

/// Says in the log how old mail came back. That it did not ends the daemon elsewhere.
async fn tell_recovered(spool: Spool) {
    if let Ok(report) = spool.recovered().await {
        info!(messages = report.messages, records = report.records, clean_stop = report.clean_stop, "queue recovered");
    }
}

async fn open_queue(
    config: &Config,
    state: &StateDir,
    disk: Arc<dyn Disk>,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<Queue> {
    let dir = state.room("spool");
    let home = Home::of(&*disk, &dir, &state.node().instance)?;
    let spool = Spool::open_behind(SpoolOptions {
        disk: Arc::clone(&disk),
        index_dir: Some(dir.join("index")),
        dir: dir.clone(),
        driver: Driver::Thread,
        clock: clock.clone(),
        settings: config.spool.clone(),
        metrics: metrics.clone(),
        feeds: &[Events::FEED],
        start_held: home.is_foreign(),
        accept_loss: config.server.accept_loss,
    })
    .await
    .with_context(|| format!("cannot open the queue in {}", dir.display()))?;
    if home.is_foreign() {
        // Its hold is on the disk before it counts as ours.
        spool.recovered().await.context("cannot recover the queue")?;
    }
    home.settle()?;
    tokio::spawn(tell_recovered(spool.clone()));

    let dir = state.room("journal");
    let events = Events::open(EventsOptions {
        disk,
        view_dir: Some(dir.join("index")),
        dir: dir.clone(),
        driver: Driver::Thread,
        clock: clock.clone(),
        settings: config.events.clone(),
        metrics: metrics.clone(),
        issuer: Issuer {
            partition: config.server.partition.clone(),
            region: config.server.region.clone(),
            hostname: config.server.hostname(),
            operator_domain: config.submission().operator_domain().to_owned(),
        },
        accept_loss: config.server.accept_loss,
    })
    .await
    .with_context(|| format!("cannot open the journal in {}", dir.display()))?;
    Ok(Queue { spool, events })
}
