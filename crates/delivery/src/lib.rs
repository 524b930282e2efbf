//! From the spool to remote hosts: routing, sites, connections, TLS,
//! classification of replies, retry, bounces. It accepts no mail and keeps no
//! state of its own: what is to be done and what was done is the spool's.
//!
//! The way of a claim (one message, the recipients of one domain):
//!
//! 1. [`route`]: the domain's route, as the operator wrote it down;
//! 2. a *site*: the hosts that share the route's connections (a domain's sorted
//!    MX set, the smarthost, the host of a static route), and its *lane*: the
//!    messages that leave from the same address and ask the same of TLS, with
//!    a bounded ready queue;
//! 3. a connection of the lane, opened along demand and kept for the next
//!    message, which runs the transaction;
//! 4. [`classify`]: what each reply means; then the outcomes go back to the
//!    spool, together with the notifications that they cause.
//!
//! Delivery is at least once: an outcome is written after the remote host took
//! the message. A crash in between, or a final reply that never came (RFC 1047),
//! repeats the delivery.

mod alarm;
mod attempt;
pub mod classify;
mod config;
mod connection;
mod dispatch;
mod finding;
mod holds;
mod https;
mod known;
mod lane;
mod needs;
mod open;
mod paused;
mod progress;
mod ready;
mod report;
pub mod route;
mod scan;
mod schedule;
pub mod settings;
mod settle;
pub mod shaping;
mod site;
mod site_view;
mod sites;
mod slots;
mod smarthost;
mod sought;
mod source;
pub mod sts;
mod target;
mod telling;
mod tls;
mod tlsrpt;
mod trace;
mod unattempted;
mod walk;
pub mod why;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postrider_account::Accounts;
use postrider_base::{Clock, Dialer, Metrics, Random, Scope, Timestamp};
use postrider_dns::{Resolver, Validation};
use postrider_mail::Domain;
use postrider_spool::Spool;
use postrider_store::Store;
use postrider_submission::{ReturnPaths, Submission};
use tokio::sync::{Notify, Semaphore};

use config::Config;
use known::KnownHosts;
use settings::Limits;
use shaping::Governor;
use site::Site;
use sites::Sites;
use slots::Slots;
use source::Sources;
use sts::{PolicyView, Sts};
use tlsrpt::TlsReports;

pub use lane::Demand;
pub use settings::Settings;
pub use site_view::{LastRefusal, SiteView};
pub use source::{ReverseDns, SourceCounts, SourceView, WarmUpView};
pub use why::Why;

/// What delivery works with.
pub struct Deps {
    /// Where claims come from and outcomes go to.
    pub spool: Spool,
    /// Whose suppression lists are asked before each RCPT.
    pub accounts: Accounts,
    /// Takes the bounce messages, and knows the relay's host name: for EHLO unless
    /// the settings have another, and for finding loops.
    pub submission: Submission,
    /// Writes what hosts hear in MAIL FROM; `None` where it is what the client said.
    pub return_paths: Option<ReturnPaths>,
    /// Keeps what is learned of recipient domains.
    pub store: Store,
    /// Finds hosts; expected to cache.
    pub resolver: Arc<dyn Resolver>,
    /// Opens connections to hosts.
    pub dialer: Arc<dyn Dialer>,
    /// Destinations inside this process, by the name that routes give them
    /// (`inbox`); whatever address is dialled, they answer.
    pub built_in: BTreeMap<String, Arc<dyn Dialer>>,
    /// Time.
    pub clock: Clock,
    /// Jitter, and the order of hosts with the same preference.
    pub random: Random,
    /// Where it is counted.
    pub metrics: Metrics,
    /// What the operator says.
    pub settings: Settings,
}

/// The running delivery. A cheap handle; it ends with the scope it was started
/// in.
#[derive(Clone)]
pub struct Delivery(Arc<Shared>);

impl Delivery {
    /// Starts to take claims, on a tokio runtime, until `scope` is closed. Then
    /// transactions past their final dot are waited for, and everything else
    /// goes back to the spool at once.
    ///
    /// # Errors
    /// [`Error::Settings`] and [`Error::File`].
    pub fn start(deps: Deps, scope: &Scope) -> Result<Self, Error> {
        let hostname = deps.submission.settings().hostname();
        let config = Config::new(0, deps.settings, hostname, &deps.built_in, &deps.clock)?;
        let limits = &config.settings.limits;
        let sources = {
            let (settings, warm_up) = (&config.settings.sources, &config.settings.warm_up);
            let (clock, metrics) = (deps.clock.clone(), deps.metrics.clone());
            Sources::open(settings, warm_up, &deps.accounts, &deps.store, clock, &deps.random, metrics)?
        };
        let sts = {
            let (resolver, dialer) = (deps.resolver.clone(), deps.dialer.clone());
            Sts::new(&deps.store, resolver, dialer, &deps.clock, &deps.metrics, limits.sts_fetches)
        };
        let tls_reports = TlsReports::new(&deps.store, sts.clone(), &deps.clock, &deps.metrics);
        let rules = shaping::Shaping::new(&config.settings)?;
        let governor = Governor::new(rules, &deps.store, &deps.clock, &deps.metrics)?;
        let ready = Arc::new(Semaphore::new(limits.ready));
        let connections = Slots::new(limits.connections);
        let shared = Arc::new(Shared {
            sites: Sites::new(
                deps.spool.clone(),
                deps.clock.clone(),
                governor.clone(),
                ready.clone(),
                connections.clone(),
            ),
            connections,
            ready,
            lookups: Arc::new(Semaphore::new(limits.lookups)),
            known: KnownHosts::new(limits.known_hosts, deps.metrics.outbound_known_hosts.clone()),
            scans: scan::Board::default(),
            rescan: Notify::new(),
            seeking: Mutex::default(),
            spool: deps.spool,
            accounts: deps.accounts,
            submission: deps.submission,
            return_paths: deps.return_paths,
            resolver: deps.resolver,
            dialer: deps.dialer,
            built_in: deps.built_in,
            clock: deps.clock,
            random: deps.random,
            metrics: deps.metrics,
            scope: scope.child("delivery"),
            config: ArcSwap::from_pointee(config),
            governor,
            sources,
            tls_reports,
            sts,
        });
        shared.governor.start(&shared.scope);
        shared.scope.spawn("dispatch", dispatch::run(shared.clone()));
        shared.scope.spawn("policies", sts::run(shared.clone()));
        shared.scope.spawn("reports", tlsrpt::run(shared.clone()));
        shared.scope.spawn("sources", shared.sources.clone().keep(shared.scope.clone()));
        let names = shared.sources.clone().look_up(shared.resolver.clone(), shared.scope.clone());
        shared.scope.spawn("source names", names);
        Ok(Self(shared))
    }

    /// Every lane that has something ready or a connection, or had trouble within the last hour:
    /// those in trouble first, then by name.
    pub fn sites(&self) -> Vec<SiteView> {
        self.0.sites.views()
    }

    /// Whether what the DNS says is validated at the moment.
    pub fn dns_validation(&self) -> Validation {
        self.0.resolver.validation()
    }

    /// Every address that mail leaves from, by name.
    pub fn sources(&self) -> Vec<SourceView> {
        self.0.sources.views()
    }

    /// Begins the warm-up of a source anew, at this percentage; at 100 it is complete.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NoSuchSource`], [`Error::Store`].
    pub async fn warm_up(&self, source: &str, percent: u8) -> Result<(), Error> {
        self.0.sources.restart_warm_up(source, percent).await
    }

    /// The policy of a recipient domain (MTA-STS) that is kept, until it expires.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn policy(&self, domain: &Domain) -> Result<Option<PolicyView>, Error> {
        Ok(self.0.sts.kept(domain)?.map(PolicyView::from))
    }

    /// Takes new settings, and reads the files that they name again. They hold
    /// from the next claim on; connections that are open keep what they were
    /// opened with. `limits.sts_fetches` holds from the next start.
    ///
    /// # Errors
    /// [`Error::Settings`] and [`Error::File`]; the settings in force stay.
    pub fn reload(&self, settings: Settings) -> Result<(), Error> {
        let shared = &self.0;
        let generation = shared.config.load().generation + 1;
        let hostname = shared.submission.settings().hostname();
        let config = Config::new(generation, settings, hostname, &shared.built_in, &shared.clock)?;
        shared.governor.reload(shaping::Shaping::new(&config.settings)?);
        shared.sources.configure(&config.settings.sources, &config.settings.warm_up);
        let before = shared.config.swap(Arc::new(config));
        shared.metrics.outbound_recalled.inc_by(shared.sites.reconsider());
        shared.rescan.notify_one();
        shared.resize(&before.settings.limits);
        Ok(())
    }
}

/// What all tasks of delivery share.
struct Shared {
    spool: Spool,
    accounts: Accounts,
    submission: Submission,
    return_paths: Option<ReturnPaths>,
    resolver: Arc<dyn Resolver>,
    dialer: Arc<dyn Dialer>,
    built_in: BTreeMap<String, Arc<dyn Dialer>>,
    clock: Clock,
    random: Random,
    metrics: Metrics,
    scope: Scope,
    config: ArcSwap<Config>,
    governor: Governor,
    sources: Sources,
    sts: Sts,
    tls_reports: TlsReports,
    sites: Sites,
    /// A place for each open connection.
    connections: Arc<Slots>,
    /// A place for each claim.
    ready: Arc<Semaphore>,
    /// A place for each lookup.
    lookups: Arc<Semaphore>,
    known: KnownHosts,
    scans: scan::Board,
    /// The scanner may be another one.
    rescan: Notify,
    /// Domains whose hosts are being looked up or next to be, and since when.
    seeking: Mutex<HashMap<Domain, Timestamp>>,
}

impl Shared {
    /// Makes as many places as the limits in force say, where there were others
    /// `before`. Places that are to go and are taken go when they are free, before
    /// anybody gets a new one.
    fn resize(&self, before: &Limits) {
        let config = self.config.load();
        let now = &config.settings.limits;
        for (places, before, now) in [
            (self.connections.places(), before.connections, now.connections),
            (&self.ready, before.ready, now.ready),
            (&self.lookups, before.lookups, now.lookups),
        ] {
            places.add_permits(now.saturating_sub(before));
            let excess = u32::try_from(before.saturating_sub(now)).unwrap_or(u32::MAX);
            if excess > 0 {
                let (places, scope) = (places.clone(), self.scope.clone());
                self.scope.spawn("limits", async move {
                    tokio::select! {
                        Ok(permits) = places.acquire_many_owned(excess) => permits.forget(),
                        () = scope.cancelled() => {}
                    }
                });
            }
        }
    }

    /// Starts the task of a connection that `site` has counted.
    fn start_worker(self: &Arc<Self>, site: Arc<Site>) {
        self.scope.spawn("connection", worker::run(self.clone(), site));
    }
}

/// Why delivery does not start or does not take new settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings are wrong; the text names the key and what was expected.
    /// The operator's fault; does not pass by itself.
    #[error("{0}")]
    Settings(String),
    /// A table of the store cannot be read or written. The disk's fault.
    #[error(transparent)]
    Store(#[from] postrider_store::Error),
    /// No source has this name. The operator's fault.
    #[error("there is no source {0} in the configuration")]
    NoSuchSource(String),
    /// What the operator names is not known here. The operator's fault.
    #[error("{0}")]
    Unknown(String),
    /// A file that the settings name cannot be used. The operator's fault.
    #[error("{key}: {path}: {reason}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}
