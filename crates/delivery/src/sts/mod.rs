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
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::metrics::StsFetch;
use postrider_base::{Clock, Dialer, Metrics, Timestamp};
use postrider_dns::Resolver;
use postrider_mail::Domain;
use postrider_store::{Change, Store, Table};
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

    /// The policy of `domain`, which announces the one with this id, if any. What
    /// is kept is used as long as nothing newer is announced or can be had, until
    /// it expires (RFC 8461 section 5.1).
    pub(crate) async fn find(&self, config: &Config, domain: &Domain, announced: Option<&str>) -> Found {
        if !config.settings.tls.mta_sts {
            return Found::default();
        }
        let kept = self.kept(domain);
        let Some(id) = announced.filter(|id| kept.as_ref().is_none_or(|kept| kept.id != *id)) else {
            return self.found(domain, kept).await;
        };
        match self.fetch(config, domain, id).await {
            Ok(new) => self.found(domain, Some(new)).await,
            Err(failed) => Found { failed, holds: Some(RETRY), ..self.found(domain, kept).await },
        }
    }

    /// What is known of `domain`, without asking anybody.
    pub(crate) fn kept(&self, domain: &Domain) -> Option<Kept> {
        let Row::V1(kept) = match self.0.table.get(&domain.to_string()) {
            Ok(row) => row?,
            Err(error) => {
                tracing::error!(%domain, %error, "cannot read the domain's MTA-STS policy");
                return None;
            }
        };
        (kept.expires_at() > self.0.clock.now()).then_some(kept)
    }

    async fn found(&self, domain: &Domain, kept: Option<Kept>) -> Found {
        let Some(mut kept) = kept else { return Found::default() };
        let now = self.0.clock.now();
        let holds = kept.expires_at().saturating_since(now);
        if now.saturating_since(kept.used_at) >= NOTED {
            kept.used_at = now;
            self.write(vec![Change::Put(domain.to_string(), Row::V1(kept.clone()))]).await;
        }
        Found { policy: Some(kept.policy), holds: Some(holds), failed: None }
    }

    /// Fetches a policy and keeps it. The error is `None` where the domain is left
    /// alone because it failed lately.
    async fn fetch(&self, config: &Config, domain: &Domain, id: &str) -> Result<Kept, Option<FetchError>> {
        let now = self.0.clock.instant();
        if self.0.failures.lock().get(domain).is_some_and(|at| now.duration_since(*at) < RETRY) {
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
                let now = self.0.clock.now();
                let kept = Kept { policy, id: id.to_owned(), fetched_at: now, used_at: now };
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

    async fn keep(&self, config: &Config, domain: &Domain, kept: Kept) {
        let (key, most) = (domain.to_string(), config.settings.limits.sts_policies);
        let is_new = !matches!(self.0.table.get(&key), Ok(Some(_)));
        let count = self.0.count.load(Relaxed);
        let excess = if is_new && count >= most { self.excess(most).await } else { Vec::new() };
        self.counted((count + usize::from(is_new)).saturating_sub(excess.len()));
        let mut changes: Vec<_> = excess.into_iter().map(Change::Delete).collect();
        changes.push(Change::Put(key, Row::V1(kept)));
        self.write(changes).await;
    }

    /// Who is forgotten when there are too many: those that were used the longest
    /// time ago, a sixteenth of them, so that it is not done for each domain.
    async fn excess(&self, most: usize) -> Vec<String> {
        let mut rows = self.rows(|_| true).await;
        rows.sort_by_key(|(_, kept)| kept.used_at);
        let excess = (rows.len() + 1).saturating_sub(most) + most / 16;
        rows.into_iter().take(excess).map(|(domain, _)| domain).collect()
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

    async fn write(&self, changes: Vec<Change<String, Row>>) {
        if let Err(error) = self.0.table.write(changes).await {
            tracing::error!(%error, "cannot keep MTA-STS policies");
        }
    }

    /// So many policies are kept.
    fn counted(&self, count: usize) {
        self.0.count.store(count, Relaxed);
        self.0.metrics.sts_policies.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
