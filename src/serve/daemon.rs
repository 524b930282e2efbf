//! A running relay, from its start to its last sync.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use postrider_account::Accounts;
use postrider_base::Metrics;
use postrider_control::ReloadReport;
use postrider_events::Events;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::feedback::rules;
use super::reload::Changes;
use super::running::{Running, Scopes, warn_of_absent_sources};
use super::{World, supervisor};
use crate::config::{self, Config};
use crate::dkim;
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
    signals: Signals,
}

/// What the operator or the service manager says to a running process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
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
        dkim::check(&rooms.ring, &config, &rooms.state)?;
        let scopes = Scopes::new();
        match Running::start(&config, &rooms, &queue, world, scopes.clone()) {
            Ok(running) => {
                // Before anybody is told that it is ready: a signal must not kill it from then on.
                let signals = Signals::new()?;
                supervisor::ready(READY);
                info!(version = env!("CARGO_PKG_VERSION"), hostname = config.server.hostname(), "{READY}");
                Ok(Daemon { file, config, logging, rooms, queue, running, signals })
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
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => break info!("told to stop"),
                _ = self.signals.interrupt.recv() => break info!("interrupted"),
                _ = self.signals.hangup.recv() => drop(self.reload()),
                Some(answer) = self.running.reloads.recv() => {
                    // The asker may have gone; the reload has happened all the same.
                    let _ = answer.send(self.reload());
                }
                () = self.queue.spool.failed() => return self.abandon("the queue's log has failed").await,
                () = self.queue.events.failed() => return self.abandon("the journal has failed").await,
                () = self.rooms.store.failed() => return self.abandon("the log of the account tables has failed").await,
            }
        }
        let mut signals = self.signals;
        let drain = drain(&self.config, self.running, self.queue, self.rooms);
        tokio::select! {
            drained = drain => drained,
            () = signals.stop() => bail!("told to stop a second time: not drained"),
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
        let mut changes = Changes::between(&self.config, &wanted);
        // First what may be refused, so that a refusal leaves everything as it was.
        let listeners = &self.running.listeners;
        listeners.reload(&self.config.listener, &wanted.sessions, &wanted.tls).map_err(|error| error.to_string())?;
        if changes.touch("delivery") {
            let settings = wanted.delivery();
            warn_of_absent_sources(&settings);
            self.running.delivery.reload(settings).map_err(|error| format!("delivery.{error}"))?;
        } else if self.running.delivery.reload_shaping().map_err(|error| format!("delivery.{error}"))? {
            changes.live.push("delivery.shaping.file".to_owned());
        }
        self.rooms.accounts.guard().configure(&wanted.bans);
        if changes.touch("log") {
            self.logging.reload(&wanted.log).map_err(|error| error.to_string())?;
        }
        self.running.mail_log.reopen().map_err(|error| format!("events.mail_log: {error}"))?;
        self.config.bans = wanted.bans;
        self.config.sessions = wanted.sessions;
        self.config.tls = wanted.tls;
        self.config.delivery = wanted.delivery;
        self.config.feedback = wanted.feedback;
        self.config.log = wanted.log;
        self.running.forwarding.store(self.config.delivery.feedback_forwarding, Ordering::Relaxed);
        if let Some(feedback) = &self.running.feedback {
            feedback.reload(rules(&self.config));
        }
        Ok(ReloadReport { applied: changes.live, needs_restart: changes.needs_restart })
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

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one that says to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Stops taking, lets what has begun end, syncs.
async fn drain(config: &Config, running: Running, queue: Queue, rooms: Rooms) -> Result<()> {
    let deadline = config.server.drain.as_duration();
    supervisor::stopping(deadline + CLOSE_DEADLINE);
    running.close(deadline, &rooms.clock).await;
    drop(queue);
    rooms.close(CLOSE_DEADLINE).await?;
    info!("stopped");
    Ok(())
}
