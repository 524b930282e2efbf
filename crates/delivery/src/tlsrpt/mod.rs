//! Reports about TLS to the domains that ask for them (TLSRPT, RFC 8460): every
//! session with one of their mail hosts is counted, and once a day they are told
//! what came of them.

mod daily;
mod mail;
mod record;
mod report;
mod tally;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Clock, Metrics, Timestamp};
use postrider_mail::{Domain, TlsInfo};
use postrider_store::{Store, Table};
use serde::{Deserialize, Serialize};

use self::tally::{Applied, Failed, ResultType, Tally};
use crate::https::HttpsError;
use crate::settings::Settings;
use crate::sts::policy::{Mode, Policy};
use crate::sts::{FetchError, Sts};
use crate::tls::Failure;

pub(crate) use daily::run;

/// Domains without a record that are remembered for the day.
const MOST_SILENT: usize = 200_000;

/// Counts sessions. A cheap handle; clones count together.
#[derive(Clone)]
pub(crate) struct TlsReports(Arc<Inner>);

struct Inner {
    store: Store,
    table: Table<String, Row>,
    sts: Sts,
    clock: Clock,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    days: HashMap<(Day, Domain), Entry>,
    /// Domains that want no reports, and the day on which they were asked.
    silent: HashSet<Domain>,
    silent_on: Day,
}

/// What is in memory of a domain's day.
#[derive(Default)]
struct Entry {
    tally: Tally,
    /// The domain wants reports. Until it is asked, nobody knows.
    wanted: bool,
    /// The store has less.
    dirty: bool,
}

/// What the store has of a domain's day. A later form becomes another variant.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Row {
    V1(Stored),
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Stored {
    tally: Tally,
    /// When the report is sent, once the day is over.
    due: Option<Timestamp>,
    /// When it was tried first.
    first_try: Option<Timestamp>,
    tries: u32,
    /// The places that have it.
    done: Vec<String>,
}

/// A day in UTC, counted from 1970.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Day(u64);

impl Day {
    const MILLIS: u64 = 24 * 3600 * 1000;

    pub(crate) fn of(at: Timestamp) -> Self {
        Self(at.as_millis() / Self::MILLIS)
    }

    pub(crate) fn begin(self) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_mul(Self::MILLIS))
    }

    /// Its last second.
    pub(crate) fn end(self) -> Timestamp {
        self.begin().saturating_add(Duration::from_millis(Self::MILLIS - 1000))
    }

    /// `2017-08-05`
    pub(crate) fn date(self) -> String {
        self.begin().rfc3339().chars().take(10).collect()
    }

    pub(crate) fn first_second(self) -> String {
        format!("{}T00:00:00Z", self.date())
    }

    pub(crate) fn last_second(self) -> String {
        format!("{}T23:59:59Z", self.date())
    }
}

/// A session with a mail host, or the try to have one.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    /// The recipients' domain.
    pub(crate) domain: &'a Domain,
    /// The host's name.
    pub(crate) mx: &'a str,
    /// What the host calls itself.
    pub(crate) helo: Option<&'a str>,
    pub(crate) ip: Option<IpAddr>,
    /// Our address.
    pub(crate) source_ip: Option<IpAddr>,
    /// The host's TLSA records, where it was judged by them.
    pub(crate) tlsa: Option<&'a [String]>,
    /// How it is encrypted.
    pub(crate) tls: Option<&'a TlsInfo>,
    /// Why there was no TLS, or none that would do. Without, and without TLS, the
    /// host does not offer STARTTLS.
    pub(crate) failure: Option<&'a Failure>,
}

impl TlsReports {
    /// Opens the table, and goes on where the day was left.
    pub(crate) fn new(store: &Store, sts: Sts, clock: &Clock, metrics: &Metrics) -> Self {
        let reports = Self(Arc::new(Inner {
            table: store.table("tls-reports"),
            store: store.clone(),
            sts,
            clock: clock.clone(),
            metrics: metrics.clone(),
            state: Mutex::default(),
        }));
        reports.resume();
        reports
    }

    /// Counts a session.
    pub(crate) fn note(&self, settings: &Settings, session: &Session<'_>) {
        if !self.counts(settings, session.domain) {
            return;
        }
        let sts = || self.policy(session.domain).filter(|policy| policy.mode != Mode::None);
        let (applied, failed) = match session.tlsa {
            Some(records) => (Applied::tlsa(records, session.mx), session.failed(None)),
            None => match sts() {
                Some(policy) => (Applied::sts(&policy), session.failed(Some(&policy))),
                None => (Applied::none(), session.failed(None)),
            },
        };
        self.count(settings, session.domain, &applied, failed);
    }

    /// Counts that the policy of `domain` could not be fetched.
    pub(crate) fn note_fetch(&self, settings: &Settings, domain: &Domain, error: &FetchError) {
        let result = match error {
            // The operator's own trouble.
            FetchError::NoAuthorities => return,
            FetchError::Https(HttpsError::Certificate(_)) => ResultType::StsWebpkiInvalid,
            FetchError::Invalid(_) | FetchError::MediaType => ResultType::StsPolicyInvalid,
            FetchError::Https(_) | FetchError::Status(_) => ResultType::StsPolicyFetchError,
        };
        self.note_policy(settings, domain, result, &error.to_string());
    }

    /// Counts that the policy of `domain` names none of its mail hosts.
    pub(crate) fn note_unmatched(&self, settings: &Settings, domain: &Domain) {
        self.note_policy(settings, domain, ResultType::ValidationFailure, NOT_NAMED);
    }

    fn note_policy(&self, settings: &Settings, domain: &Domain, result: ResultType, reason: &str) {
        if self.counts(settings, domain) {
            let applied = self.policy(domain).map_or_else(Applied::none, |policy| Applied::sts(&policy));
            let reason = Failed::reason(reason);
            let failed = Failed { result, sending: None, host: None, helo: None, receiving: None, reason };
            self.count(settings, domain, &applied, Some(failed));
        }
    }

    /// The domain's policy, so far as it is known.
    fn policy(&self, domain: &Domain) -> Option<Policy> {
        Some(self.0.sts.kept(domain).ok()??.policy)
    }

    /// Whether anything of this domain is counted today.
    fn counts(&self, settings: &Settings, domain: &Domain) -> bool {
        let is_on = settings.tls.reports.contact.is_some() && domain.literal().is_none();
        is_on && !self.0.state.lock().silent.contains(domain)
    }

    fn count(&self, settings: &Settings, domain: &Domain, applied: &Applied, failed: Option<Failed>) {
        let key = (Day::of(self.0.clock.now()), domain.clone());
        let mut state = self.0.state.lock();
        let is_full = state.days.len() >= settings.limits.tls_reports && !state.days.contains_key(&key);
        let counted = !is_full && {
            let entry = state.days.entry(key).or_default();
            entry.dirty = true;
            entry.tally.count(applied, failed)
        };
        if !counted {
            self.0.metrics.tls_report_uncounted.inc();
        }
    }

    /// Reads what the store has of today.
    fn resume(&self) {
        let today = Day::of(self.0.clock.now());
        let mut state = self.0.state.lock();
        for row in self.0.table.scan_from(&key(today, "")) {
            match row {
                Ok((row, Row::V1(stored))) => {
                    if let Some(at) = parse_key(&row) {
                        state.days.insert(at, Entry { tally: stored.tally, wanted: true, dirty: false });
                    }
                }
                Err(error) => tracing::error!(%error, "cannot read counts for a report about TLS"),
            }
        }
    }
}

/// The host is not one of the policy's.
const NOT_NAMED: &str = "the policy does not name the host";

impl Session<'_> {
    /// What went wrong, by the domain's policy; what a policy in testing would have
    /// kept from happening too.
    fn failed(&self, policy: Option<&Policy>) -> Option<Failed> {
        let (result, reason) = match (self.failure, self.tls) {
            (Some(failure), _) => (failure.kind.into(), failure.reason.as_str()),
            (None, None) => (ResultType::StartTlsNotSupported, ""),
            (None, Some(_)) if policy.is_some_and(|policy| !policy.allows(self.mx)) => {
                (ResultType::ValidationFailure, NOT_NAMED)
            }
            (None, Some(tls)) if policy.is_some() && !tls.authenticated => {
                (ResultType::CertificateNotTrusted, "the certificate does not prove the host's name")
            }
            (None, Some(_)) => return None,
        };
        Some(Failed {
            result,
            sending: self.source_ip,
            host: Some(self.mx.to_owned()),
            helo: self.helo.and_then(Failed::reason),
            receiving: self.ip,
            reason: Failed::reason(reason),
        })
    }
}

/// Rows sort by day.
fn key(day: Day, domain: &str) -> String {
    format!("{:08}/{domain}", day.0)
}

fn parse_key(key: &str) -> Option<(Day, Domain)> {
    let (day, domain) = key.split_once('/')?;
    Some((Day(day.parse().ok()?), domain.parse().ok()?))
}
