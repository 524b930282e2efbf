//! A running relay, from its start to its last sync.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use postrider_account::Accounts;
use postrider_base::Metrics;
use postrider_control::ReloadReport;
use postrider_events::Events;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::reload::Changes;
use super::running::{Running, Scopes};
use super::{World, supervisor};
use crate::config::{self, Config};
use crate::logging::Logging;
use crate::rooms::{CLOSE_DEADLINE, Open, Queue, Rooms};

/// How long tasks of a relay that cannot go on may take to end.
const ABANDON_DEADLINE: Duration = Duration::from_secs(1);

const READY: &str = "accepting mail";

/// A relay that takes and delivers mail. Run it, or nothing ends it in order.
pub(crate) struct Daemon {
    file: PathBuf,
    config: Config,
    logging: Logging,
    rooms: Rooms,
    queue: Queue,
    running: Running,
}

impl Daemon {
    /// Opens the state and starts everything; mail is accepted when this returns.
    pub(crate) async fn start(
        file: PathBuf,
        config: Config,
        logging: Logging,
        metrics: Metrics,
        world: World,
    ) -> Result<Daemon> {
        let rooms = {
            let _recovering = supervisor::Recovering::start();
            Rooms::open(&config, Open::Everything, metrics).await?
        };
        let queue = rooms.queue.clone().context("the queue was not opened")?;
        let scopes = Scopes::new();
        match Running::start(&config, &rooms, &queue, world, scopes.clone()) {
            Ok(running) => {
                supervisor::ready(READY);
                info!(version = env!("CARGO_PKG_VERSION"), hostname = config.server.hostname(), "{READY}");
                Ok(Daemon { file, config, logging, rooms, queue, running })
            }
            Err(error) => {
                scopes.close(ABANDON_DEADLINE).await;
                drop(queue);
                rooms.close(CLOSE_DEADLINE).await?;
                Err(error)
            }
        }
    }

    /// Whose credentials the relay knows.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.rooms.accounts
    }

    /// What happens to messages.
    pub(crate) fn events(&self) -> &Events {
        &self.queue.events
    }

    /// Works until a signal says to stop, then drains.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break info!("told to stop"),
                _ = interrupt.recv() => break info!("interrupted"),
                _ = hangup.recv() => drop(self.reload()),
                Some(answer) = self.running.reloads.recv() => {
                    // The asker may have gone; the reload has happened all the same.
                    let _ = answer.send(self.reload());
                }
                () = self.queue.spool.failed() => return self.abandon("the queue's log has failed").await,
                () = self.queue.events.failed() => return self.abandon("the journal has failed").await,
            }
        }
        tokio::select! {
            drained = self.drain() => drained,
            () = second(&mut terminate, &mut interrupt) => bail!("told to stop a second time: not drained"),
        }
    }

    /// Reads the configuration again; nothing changes when it is wrong.
    fn reload(&mut self) -> Result<ReloadReport, String> {
        supervisor::reloading();
        let result = self.try_reload();
        supervisor::ready(READY);
        match &result {
            Ok(report) => {
                report.applied.iter().for_each(|applied| info!("reload: {applied} in effect"));
                report.needs_restart.iter().for_each(|key| warn!("reload: {key} has changed and needs a restart"));
            }
            Err(error) => error!("not reloaded, the old configuration stays: {error}"),
        }
        result
    }

    fn try_reload(&mut self) -> Result<ReloadReport, String> {
        let wanted = config::load(&self.file).map_err(|error| error.to_string())?;
        let changes = Changes::between(&self.config, &wanted);
        // First what may be refused, so that a refusal leaves everything as it was.
        let listeners = &self.running.listeners;
        listeners.reload(&self.config.listener, &wanted.sessions, &wanted.tls).map_err(|error| error.to_string())?;
        if changes.touch("delivery") {
            self.running.delivery.reload(wanted.delivery()).map_err(|error| format!("delivery.{error}"))?;
        }
        if changes.touch("log") {
            self.logging.reload(&wanted.log).map_err(|error| error.to_string())?;
        }
        self.running.mail_log.reopen().map_err(|error| format!("events.mail_log: {error}"))?;
        self.config.sessions = wanted.sessions;
        self.config.tls = wanted.tls;
        self.config.delivery = wanted.delivery;
        self.config.log = wanted.log;
        Ok(ReloadReport { applied: changes.live, needs_restart: changes.needs_restart })
    }

    /// Stops taking, lets what has begun end, syncs.
    async fn drain(self) -> Result<()> {
        let deadline = self.config.server.drain.as_duration();
        supervisor::stopping(deadline + CLOSE_DEADLINE);
        self.running.close(deadline, &self.rooms.clock).await;
        drop(self.queue);
        self.rooms.close(CLOSE_DEADLINE).await?;
        info!("stopped");
        Ok(())
    }

    /// Nothing can be made durable any more: what was accepted is on disk, and the next start
    /// recovers it. Deliveries that began may be repeated.
    async fn abandon(self, reason: &str) -> Result<()> {
        error!("{reason}: stopping, so that the supervisor starts a recovery");
        supervisor::status(reason);
        self.running.close(ABANDON_DEADLINE, &self.rooms.clock).await;
        Err(anyhow!("{reason}; start again to recover"))
    }
}

async fn second(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
