//! Policies of recipient domains (MTA-STS, RFC 8461): found through the DNS,
//! fetched over HTTPS, kept in the store until they expire.
//!
//! The store is the cache: whoever keeps an attacker's answer from us today does
//! not make us forget what the domain said yesterday, not even by a restart.

mod apply;
mod fetch;
pub mod policy;
mod refresh;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use postrider_base::metrics::StsFetch;
use postrider_base::{Clock, Dialer, Metrics, Timestamp};
use postrider_dns::Resolver;
use postrider_mail::Domain;
use postrider_store::{Store, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use self::policy::{Policy, policy_id};
use crate::config::Config;
use crate::https::Https;

pub(crate) use apply::{Way, apply};
pub(crate) use fetch::FetchError;
pub(crate) use refresh::run;

/// How long a domain whose policy could not be fetched is left alone (RFC 8461
/// section 3.3).
const RETRY: Duration = Duration::from_secs(5 * 60);

/// How often it is noted that a policy is still used.
const NOTED: Duration = Duration::from_secs(24 * 3600);

/// Policies that are forgotten at the same time: their changes share the disk's
/// syncs.
const FORGOTTEN_AT_ONCE: usize = 32;

/// Domains whose fetch failed lately that are remembered.
const MOST_FAILURES: usize = 10_000;

/// The policies that are known. A cheap handle; clones share everything.
#[derive(Clone)]
pub(crate) struct Sts(Arc<Inner>);

struct Inner {
    table: Table<String, Row>,
    resolver: Arc<dyn Resolver>,
    dialer: Arc<dyn Dialer>,
    clock: Clock,
    metrics: Metrics,
    /// A place for each fetch.
    fetches: Semaphore,
    failures: Mutex<HashMap<Domain, Instant>>,
    /// Policies that are kept; counted anew now and then.
    count: AtomicUsize,
    /// Whoever changes what is kept of a domain holds that domain's place here.
    changes: [tokio::sync::Mutex<()>; 32],
}

/// What is kept of a domain. A later form becomes another variant.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Row {
    V1(Kept),
}

/// A domain's policy, as it is kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Kept {
    pub(crate) policy: Policy,
    /// What announced it.
    pub(crate) id: String,
    pub(crate) fetched_at: Timestamp,
    /// When mail went to the domain; noted once a day.
    pub(crate) used_at: Timestamp,
}

impl Kept {
    fn expires_at(&self) -> Timestamp {
        self.fetched_at.saturating_add(self.policy.life())
    }
}

/// What an operator sees of a domain's policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyView {
    /// The policy.
    pub policy: Policy,
    /// The id that the domain announced it with.
    pub id: String,
    /// When it was fetched last.
    pub fetched_at: Timestamp,
    /// When it ends, unless it is fetched again before.
    pub expires_at: Timestamp,
}

impl From<Kept> for PolicyView {
    fn from(kept: Kept) -> Self {
        Self { expires_at: kept.expires_at(), policy: kept.policy, id: kept.id, fetched_at: kept.fetched_at }
    }
}

/// What holds for mail to a domain.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) policy: Option<Policy>,
    /// How long that can be relied on, where it is not for as long as one likes.
    pub(crate) holds: Option<Duration>,
    /// A fetch that failed on the way.
    pub(crate) failed: Option<FetchError>,
}

impl Sts {
    /// Opens the table.
    pub(crate) fn new(
        store: &Store,
        resolver: Arc<dyn Resolver>,
        dialer: Arc<dyn Dialer>,
        clock: &Clock,
        metrics: &Metrics,
        fetches: usize,
    ) -> Self {
        let sts = Self(Arc::new(Inner {
            table: store.table("sts-policies"),
            resolver,
            dialer,
            clock: clock.clone(),
            metrics: metrics.clone(),
            fetches: Semaphore::new(fetches),
            failures: Mutex::default(),
            count: AtomicUsize::new(0),
            changes: Default::default(),
        }));
        sts.counted(sts.0.table.len().map_or(0, |rows| usize::try_from(rows).unwrap_or(usize::MAX)));
        sts
    }

    /// Asks the DNS which policy `domain` announces. One question, and no answer
    /// is as good as none.
    pub(crate) async fn announced(&self, config: &Config, domain: &Domain) -> Option<String> {
        if !config.settings.tls.mta_sts || domain.literal().is_some() {
            return None;
        }
        let limit = config.settings.timeouts.lookup.as_duration();
        let name = format!("_mta-sts.{domain}");
        let records = timeout(limit, self.0.resolver.txt(&name)).await.ok()?.ok()?;
        policy_id(&records.value)
    }

    /// Whether [`Sts::find`] has to fetch a policy before it can say anything.
    pub(crate) fn has_to_fetch(&self, config: &Config, domain: &Domain, announced: Option<&str>) -> bool {
        let Some(id) = announced.filter(|_| config.settings.tls.mta_sts) else { return false };
        !self.has_failed(domain) && !matches!(self.kept(domain), Ok(Some(kept)) if kept.id == id)
    }

    /// The policy of `domain`, which announces the one with this id, if any. What
    /// is kept is used as long as nothing newer is announced or can be had, until
    /// it expires (RFC 8461 section 5.1).
    ///
    /// # Errors
    /// The store can not say what is kept, and no policy can be had in its place.
    /// That is no reason to do without one.
    pub(crate) async fn find(
        &self,
        config: &Config,
        domain: &Domain,
        announced: Option<&str>,
    ) -> Result<Found, postrider_store::Error> {
        if !config.settings.tls.mta_sts {
            return Ok(Found::default());
        }
        let kept = self.kept(domain);
        let is_known = |id: &&str| matches!(&kept, Ok(Some(kept)) if kept.id == *id);
        let Some(id) = announced.filter(|id| !is_known(id)) else {
            return Ok(self.found(domain, kept?).await);
        };
        match self.fetch(config, domain, id, self.0.clock.now()).await {
            Ok(new) => Ok(self.found(domain, Some(new)).await),
            Err(failed) => Ok(Found { failed, holds: Some(RETRY), ..self.found(domain, kept?).await }),
        }
    }

    /// What is known of `domain`, without asking anybody.
    ///
    /// # Errors
    /// The store can not say.
    pub(crate) fn kept(&self, domain: &Domain) -> Result<Option<Kept>, postrider_store::Error> {
        let row = self.0.table.get(&domain.to_string()).inspect_err(|error| {
            tracing::error!(%domain, %error, "cannot read the domain's MTA-STS policy");
        })?;
        Ok(row.map(|Row::V1(kept)| kept).filter(|kept| kept.expires_at() > self.0.clock.now()))
    }

    async fn found(&self, domain: &Domain, kept: Option<Kept>) -> Found {
        let Some(kept) = kept else { return Found::default() };
        let now = self.0.clock.now();
        let holds = kept.expires_at().saturating_since(now);
        if now.saturating_since(kept.used_at) >= NOTED {
            let used = |kept: Option<Kept>| kept.map(|kept| Some(Kept { used_at: now, ..kept }));
            self.change(domain.as_str(), used).await;
        }
        Found { policy: Some(kept.policy), holds: Some(holds), failed: None }
    }

    /// Fetches a policy and keeps it. The error is `None` where the domain is left
    /// alone because it failed lately.
    async fn fetch(
        &self,
        config: &Config,
        domain: &Domain,
        id: &str,
        used_at: Timestamp,
    ) -> Result<Kept, Option<FetchError>> {
        if self.has_failed(domain) {
            return Err(None);
        }
        let _turn = self.0.fetches.acquire().await;
        let fetched = match config.tls.web() {
            Some(tls) => {
                let (resolver, dialer) = (&*self.0.resolver, &*self.0.dialer);
                fetch::fetch(&Https { resolver, dialer, tls, settings: &config.settings }, domain).await
            }
            None => Err(FetchError::NoAuthorities),
        };
        match fetched {
            Ok(policy) => {
                self.0.metrics.sts_fetches.of(StsFetch::Fetched).inc();
                self.0.failures.lock().remove(domain);
                let kept = Kept { policy, id: id.to_owned(), fetched_at: self.0.clock.now(), used_at };
                self.keep(config, domain, kept.clone()).await;
                Ok(kept)
            }
            Err(error) => {
                self.0.metrics.sts_fetches.of(StsFetch::Failed).inc();
                tracing::info!(%domain, %error, "cannot fetch the domain's MTA-STS policy");
                self.remember_failure(domain);
                Err(Some(error))
            }
        }
    }

    /// Whether a fetch failed lately.
    fn has_failed(&self, domain: &Domain) -> bool {
        let now = self.0.clock.instant();
        self.0.failures.lock().get(domain).is_some_and(|at| now.duration_since(*at) < RETRY)
    }

    fn remember_failure(&self, domain: &Domain) {
        let now = self.0.clock.instant();
        let mut failures = self.0.failures.lock();
        if failures.len() >= MOST_FAILURES {
            failures.retain(|_, at| now.duration_since(*at) < RETRY);
        }
        if failures.len() < MOST_FAILURES {
            failures.insert(domain.clone(), now);
        }
    }

    async fn keep(&self, config: &Config, domain: &Domain, new: Kept) {
        let most = config.settings.limits.sts_policies;
        let is_new = !matches!(self.0.table.get(&domain.to_string()), Ok(Some(_)));
        let count = self.0.count.load(Relaxed);
        let excess = if is_new && count >= most { self.excess(most).await } else { Vec::new() };
        self.counted((count + usize::from(is_new)).saturating_sub(excess.len()));
        self.forget(excess).await;
        let used_at = |old: Option<Kept>| old.map_or(new.used_at, |old| old.used_at.max(new.used_at));
        self.change(domain.as_str(), |old| Some(Some(Kept { used_at: used_at(old), ..new.clone() }))).await;
    }

    /// Forgets what is still as it was when that was decided: a policy that came
    /// meanwhile stays.
    async fn forget(&self, rows: Vec<(String, Kept)>) {
        let forget = |(domain, seen): (String, Kept)| async move {
            self.change(&domain, |kept| (kept.as_ref() == Some(&seen)).then_some(None)).await;
        };
        futures_util::stream::iter(rows).for_each_concurrent(FORGOTTEN_AT_ONCE, forget).await;
    }

    /// Makes of what is kept of a domain, if anything, what is to be kept, `None`
    /// for nothing. Without an answer all stays as it is.
    async fn change(&self, domain: &str, change: impl FnOnce(Option<Kept>) -> Option<Option<Kept>>) {
        let mut hasher = DefaultHasher::new();
        domain.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % self.0.changes.len() as u64).unwrap_or_default();
        let _turn = self.0.changes[place].lock().await;
        let key = domain.to_owned();
        // What can not be read is replaced.
        let kept = self.0.table.get(&key).ok().flatten().map(|Row::V1(kept)| kept);
        let written = match change(kept) {
            Some(Some(kept)) => self.0.table.put(&key, &Row::V1(kept)).await,
            Some(None) => self.0.table.delete(&key).await.map(drop),
            None => return,
        };
        if let Err(error) = written {
            tracing::error!(%domain, %error, "cannot keep the domain's MTA-STS policy");
        }
    }

    /// Who is forgotten when there are too many: those that were used the longest
    /// time ago, a sixteenth of them, so that it is not done for each domain.
    async fn excess(&self, most: usize) -> Vec<(String, Kept)> {
        let mut rows = self.rows(|_| true).await;
        rows.sort_by_key(|(_, kept)| kept.used_at);
        let excess = (rows.len() + 1).saturating_sub(most) + most / 16;
        rows.truncate(excess);
        rows
    }

    /// The rows that are `wanted`, read beside the runtime's tasks.
    async fn rows(&self, wanted: impl Fn(&Kept) -> bool + Send + 'static) -> Vec<(String, Kept)> {
        let table = self.0.table.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let rows = table.scan().filter_map(|row| match row {
                Ok((domain, Row::V1(kept))) => Some((domain, kept)),
                Err(error) => {
                    tracing::error!(%error, "cannot read an MTA-STS policy");
                    None
                }
            });
            rows.filter(|(_, kept)| wanted(kept)).collect()
        });
        reading.await.unwrap_or_default()
    }

    /// So many policies are kept.
    fn counted(&self, count: usize) {
        self.0.count.store(count, Relaxed);
        self.0.metrics.sts_policies.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
