//! The rooms that work: who reads the queue's feed, who takes mail, who sends it.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use postrider_api::{Confirmation, Links, Readiness, Sources};
use postrider_base::{Clock, RealDisk, Scope, Traces};
use postrider_control::{Control, ReloadRequest, Socket};
use postrider_delivery::Delivery;
use postrider_dns::Resolver;
use postrider_events::{FileSink, MailSink, TracingSink};
use postrider_feedback::Feedback;
use postrider_listener::Listeners;
use postrider_submission::{Refusal, Signing, Submission, SubmissionDeps};
use postrider_upkeep::{Rotation, Upkeep};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::feedback::{feedback, return_paths, written_return_paths};
use super::simulator::Simulator;
use super::{World, supervisor};
use crate::config::{Config, SIMULATOR};
use crate::rooms::{DaemonLink, Queue, Rooms};

/// Reloads that may wait; further askers wait to ask.
const RELOADS: usize = 4;

/// What is kept of a drain's time for those who read the queue's feed.
const READING: Duration = Duration::from_secs(2);

/// Everything that runs. Close it, or its tasks end with the process.
pub(crate) struct Running {
    pub(crate) delivery: Delivery,
    pub(crate) listeners: Listeners,
    pub(crate) feedback: Option<Feedback>,
    /// Whether the mailbox simulator's complaints go to senders by mail.
    pub(crate) forwarding: Arc<AtomicBool>,
    pub(crate) mail_log: Arc<dyn MailSink>,
    pub(crate) reloads: mpsc::Receiver<ReloadRequest>,
    scopes: Scopes,
}

/// In the order in which they end.
#[derive(Clone)]
pub(crate) struct Scopes {
    /// What takes requests: listeners, HTTP, the control socket.
    intake: Scope,
    /// What sends mail.
    outgoing: Scope,
    /// What reads the queue's feed, and the watchdog.
    background: Scope,
}

impl Running {
    /// Starts everything. Delivery is the last: when a port is taken, nothing has been sent.
    pub(crate) fn start(
        config: &Config,
        rooms: &Rooms,
        queue: &Queue,
        world: World,
        scopes: Scopes,
    ) -> Result<Running> {
        supervisor::keep_alive(&scopes.background);
        let mail_log = mail_log(config)?;
        let reading = queue.events.run(&queue.spool, Arc::clone(&mail_log), &scopes.background);
        reading.context(
            "cannot turn the queue's feed into events; server.accept_loss = true goes on without what is lost",
        )?;
        follow_events(config, rooms, queue, &scopes.background)?;

        let submission = submission(config, rooms, queue, &world)?;
        let guard = rooms.accounts.guard().clone();
        scopes.background.spawn("bans", guard.keep(rooms.metrics.clone(), scopes.background.clone()));
        probe(&world, &scopes.background);
        let traces = Traces::new();
        let feedback = feedback(config, rooms, queue, &submission, world.resolver.clone())?;
        let listeners = listeners(config, rooms, &submission, feedback.clone(), &traces, &world, &scopes.intake)?;
        let socket = Socket::bind(&config.control)
            .with_context(|| format!("cannot listen on the control socket {}", config.control.socket.display()))?;
        let upkeep = upkeep(config, rooms, &submission, &world, &scopes.outgoing)?;
        rotate_keys(config, rooms, &world, &upkeep, &scopes.background);
        let sources = Sources {
            metrics: rooms.metrics.clone(),
            readiness: readiness(&submission, &scopes.intake),
            links: Some(Arc::new(MailedLinks { upkeep: upkeep.clone(), scope: scopes.intake.clone() })),
        };
        if let Some(address) = postrider_api::start(&config.api, sources, &scopes.intake)? {
            info!("metrics and health on http://{address}");
        }
        // Without the cache: who asks the doctor has just mended something.
        let fresh = world.validating.clone().map(|resolver| Arc::new(resolver) as Arc<dyn Resolver>);
        let (resolver, dialer) = (fresh.unwrap_or_else(|| world.resolver.clone()), world.dialer.clone());
        let forwarding = Arc::new(AtomicBool::new(config.delivery.feedback_forwarding));
        let delivery = delivery(config, rooms, queue, &submission, forwarding.clone(), world, &scopes.outgoing)?;

        let (reload, reloads) = mpsc::channel(RELOADS);
        let addresses = listeners.addresses().map(|(address, listen)| format!("{address} {}", tls_word(listen)));
        let listeners_at = addresses.collect();
        let link = DaemonLink {
            listeners: listeners_at,
            delivery: delivery.clone(),
            reload,
            traces,
            resolver,
            dialer,
            upkeep,
        };
        let control = Control::new(rooms.control_deps(config, Some(link)));
        scopes.intake.spawn("control socket", socket.serve(control, scopes.intake.clone()));
        Ok(Running { delivery, listeners, feedback, forwarding, mail_log, reloads, scopes })
    }

    /// Stops taking, lets what has begun end, cuts off the rest at the deadline.
    pub(crate) async fn close(self, deadline: Duration, clock: &Clock) {
        // Nobody reads the configuration again: whoever waits for that must not be waited for.
        drop(self.reloads);
        let reading = READING.min(deadline / 4);
        let working = clock.instant() + (deadline - reading);
        let left = || working.saturating_duration_since(clock.instant());
        if let Err(late) = self.listeners.drain(left()).await {
            warn!("sessions cut off: {late}");
        }
        self.scopes.close_intake(left()).await;
        self.scopes.close_outgoing(left()).await;
        drop(self.delivery);
        self.scopes.close_background(reading).await;
    }
}

impl Scopes {
    pub(crate) fn new() -> Scopes {
        Scopes { intake: Scope::new("intake"), outgoing: Scope::new("delivery"), background: Scope::new("background") }
    }

    /// Ends what was started by a start that failed.
    pub(crate) async fn close(&self, deadline: Duration) {
        self.close_intake(deadline).await;
        self.close_outgoing(deadline).await;
        self.close_background(deadline).await;
    }

    async fn close_intake(&self, deadline: Duration) {
        close("requests", &self.intake, deadline).await;
    }

    async fn close_outgoing(&self, deadline: Duration) {
        close("deliveries", &self.outgoing, deadline).await;
    }

    async fn close_background(&self, deadline: Duration) {
        close("readers of the queue's feed", &self.background, deadline).await;
    }
}

async fn close(what: &str, scope: &Scope, deadline: Duration) {
    if let Err(late) = scope.clone().close(deadline).await {
        warn!("{what} cut off: {late}; what came of their last step is unknown");
    }
}

fn mail_log(config: &Config) -> Result<Arc<dyn MailSink>> {
    Ok(match &config.events.mail_log {
        Some(path) => Arc::new(FileSink::open(path.clone()).context("cannot open events.mail_log")?),
        None => Arc::new(TracingSink),
    })
}

/// Counts what accounts have sent, before anybody can send more, and what became of it.
fn follow_events(config: &Config, rooms: &Rooms, queue: &Queue, scope: &Scope) -> Result<()> {
    let (accounts, submission) = (&rooms.accounts, config.submission());
    let following = queue.events.follow(accounts, &rooms.store, &queue.spool, submission.operator_domain(), scope);
    following.context("cannot count what accounts have sent, and what became of it")?;
    scope.spawn("quota metrics", accounts.clone().show_usage(rooms.metrics.clone(), scope.clone()));
    Ok(())
}

/// Keeps looking whether the name servers let answers be validated.
fn probe(world: &World, scope: &Scope) {
    let Some(resolver) = world.validating.clone() else { return };
    let stop = scope.clone();
    scope.spawn("dnssec probe", async move {
        tokio::select! {
            () = resolver.keep_probing() => {}
            () = stop.cancelled() => {}
        }
    });
}

fn submission(config: &Config, rooms: &Rooms, queue: &Queue, world: &World) -> Result<Submission> {
    let deps = SubmissionDeps {
        spool: queue.spool.clone(),
        accounts: rooms.accounts.clone(),
        clock: rooms.clock.clone(),
        random: rooms.random.clone(),
        metrics: rooms.metrics.clone(),
    };
    let settings = config.submission();
    // Of a domain alone: an address literal has no records.
    let operator = settings.operator_domain().parse().ok();
    let signing = Signing::start(rooms.ring.clone(), &config.dkim, operator, rooms.metrics.clone());
    let signing = signing.context("cannot start the threads that sign")?;
    Ok(Submission::with(deps, settings, Some(signing), world.dialer.clone()))
}

/// Who looks after identities and MAIL FROM domains.
fn upkeep(config: &Config, rooms: &Rooms, submission: &Submission, world: &World, scope: &Scope) -> Result<Upkeep> {
    let deps = postrider_upkeep::Deps {
        accounts: rooms.accounts.clone(),
        submission: submission.clone(),
        resolver: world.resolver.clone(),
        clock: rooms.clock.clone(),
        random: rooms.random.clone(),
        metrics: rooms.metrics.clone(),
        mac_key: rooms.mac_key.clone(),
        settings: config.upkeep.clone(),
    };
    Upkeep::start(deps, scope).map_err(|error| anyhow!("upkeep.{error}"))
}

/// Mailed links, as the HTTP service shows them.
struct MailedLinks {
    upkeep: Upkeep,
    scope: Scope,
}

impl Links for MailedLinks {
    fn address(&self, token: &str) -> Result<String, String> {
        self.upkeep.link(token).map(|address| address.to_string()).map_err(|error| error.to_string())
    }

    /// In a task of its own: a browser that hangs up must not leave half of a change.
    fn confirm<'a>(&'a self, token: &'a str) -> Confirmation<'a> {
        let (tell, told) = oneshot::channel();
        let (upkeep, token) = (self.upkeep.clone(), token.to_owned());
        self.scope.spawn("mailed link", async move {
            let confirmed = upkeep.confirm(&token).await;
            // Nobody hears it: the browser has gone.
            let _ = tell.send(confirmed.map(|address| address.to_string()).map_err(|error| error.to_string()));
        });
        Box::pin(async { told.await.unwrap_or_else(|_| Err("the relay is stopping: try again later".to_owned())) })
    }
}

/// Looks after the DKIM keys.
fn rotate_keys(config: &Config, rooms: &Rooms, world: &World, upkeep: &Upkeep, scope: &Scope) {
    let rotation = Rotation {
        ring: rooms.ring.clone(),
        identities: rooms.accounts.identities().clone(),
        resolver: world.resolver.clone(),
        clock: rooms.clock.clone(),
        period: config.dkim.rotation.as_duration(),
        interval: config.dkim.check_interval.as_duration(),
        recheck: config.upkeep.recheck_interval.as_duration(),
        lookups: config.upkeep.lookups,
        operator: Some(upkeep.clone()),
    };
    scope.spawn("rotation of DKIM keys", rotation.run(scope.clone()));
}

fn listeners(
    config: &Config,
    rooms: &Rooms,
    submission: &Submission,
    feedback: Option<Feedback>,
    traces: &Traces,
    world: &World,
    scope: &Scope,
) -> Result<Listeners> {
    let deps = postrider_listener::Deps {
        submission: submission.clone(),
        feedback,
        clock: rooms.clock.clone(),
        random: rooms.random.clone(),
        metrics: rooms.metrics.clone(),
        disk: Arc::new(RealDisk),
        keys: rooms.state.room("keys"),
        traces: traces.clone(),
        key_log: world.tls_key_log.clone(),
    };
    Ok(Listeners::start(&config.listener, &config.sessions, &config.tls, deps, scope)?)
}

fn delivery(
    config: &Config,
    rooms: &Rooms,
    queue: &Queue,
    submission: &Submission,
    forwarding: Arc<AtomicBool>,
    world: World,
    scope: &Scope,
) -> Result<Delivery> {
    let mut built_in = world.built_in;
    let simulator = Simulator {
        submission: submission.clone(),
        spool: queue.spool.clone(),
        events: queue.events.clone(),
        return_paths: return_paths(config, rooms)?,
        forwarding,
        clock: rooms.clock.clone(),
        random: rooms.random.clone(),
    };
    built_in.insert(SIMULATOR.to_owned(), simulator.start(scope));
    let deps = postrider_delivery::Deps {
        spool: queue.spool.clone(),
        accounts: rooms.accounts.clone(),
        submission: submission.clone(),
        return_paths: written_return_paths(config, rooms)?,
        store: rooms.store.clone(),
        resolver: world.resolver,
        dialer: world.dialer,
        built_in,
        clock: rooms.clock.clone(),
        random: rooms.random.clone(),
        metrics: rooms.metrics.clone(),
        settings: config.delivery(),
    };
    warn_of_absent_sources(&deps.settings);
    Delivery::start(deps, scope).context("cannot start delivery")
}

/// An address may come later, as one that moves between machines does: no reason not to start.
pub(super) fn warn_of_absent_sources(settings: &postrider_delivery::Settings) {
    for (name, source) in &settings.sources {
        for address in source.addresses() {
            if let Err(error) = UdpSocket::bind((address, 0)) {
                warn!(%address, %error, "source {name} is no address of this machine: no mail can leave from it");
            }
        }
    }
}

/// Why `/readyz` says no.
fn readiness(submission: &Submission, intake: &Scope) -> Readiness {
    let (submission, intake) = (submission.clone(), intake.clone());
    Arc::new(move || {
        let draining = intake.is_cancelled().then(|| "draining".to_owned());
        let refused = match submission.check_mail(0) {
            Ok(()) => None,
            Err(Refusal::NoRoom) => Some("there is no room for more mail".to_owned()),
            Err(_) => Some("the queue's log has failed".to_owned()),
        };
        draining.into_iter().chain(refused).collect()
    })
}

fn tls_word(listen: &postrider_listener::Listen) -> &'static str {
    match listen.tls {
        postrider_listener::ListenTls::StartTls => "STARTTLS",
        postrider_listener::ListenTls::TlsWrapper => "TLS wrapper",
    }
}
