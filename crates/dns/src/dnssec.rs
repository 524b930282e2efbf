//! Where trust in DNSSEC begins, and whether the name servers let us use it.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::dnssec::TrustAnchors;
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::RetryDnsHandle;
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use parking_lot::Mutex;
use postrider_base::{Clock, Metrics};
use tokio::sync::OnceCell;

use crate::hickory::complete;
use crate::links::Links;
use crate::trust::{Trust, Validator, forgetful};
use crate::{DnsError, Settings, proof};

/// Asks the name servers.
type Servers = RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>;

/// Asks and validates.
pub(crate) type Handle = Validator<Servers>;

/// Whether answers are validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validation {
    /// No: the operator does not want it, or this resolver can not.
    Off,
    /// They are.
    Works,
    /// Not for the moment: the name servers do not hand through what it takes.
    /// Everything is answered as if nothing were signed.
    Broken {
        /// One printable line.
        reason: Arc<str>,
    },
}

/// Validation, as long as it works.
pub(crate) struct Dnssec {
    handle: Handle,
    /// Keeps nothing: what was heard before is no probe.
    prober: DnssecDnsHandle<Servers>,
    insecure: Vec<Name>,
    every: Duration,
    metrics: Metrics,
    first_probe: OnceCell<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    validation: Validation,
    /// Probes in a row that failed.
    failed: u32,
}

/// Probes in a row that have to fail until validation is off, a minute apart: it
/// makes no difference whether nobody answers or the answer proves nothing. One
/// is not enough: then who keeps from us, or forges, a single answer would have
/// turned it off.
const MOST_FAILED: u32 = 5;

/// The wait after a probe that failed.
const AGAIN: Duration = Duration::from_secs(60);

/// As many at start, where the first mail waits for them.
const MOST_FAILED_AT_START: u32 = 3;

/// The wait between those.
const AGAIN_AT_START: Duration = Duration::from_millis(100);

impl Dnssec {
    /// Validation with these name servers. `None` when it is not wanted.
    pub(crate) fn new(
        settings: &Settings,
        servers: &ResolverConfig,
        options: &ResolverOpts,
        metrics: &Metrics,
    ) -> Result<Option<Dnssec>, DnsError> {
        let wanted = &settings.dnssec;
        if !wanted.validate {
            return Ok(None);
        }
        let setup = |reason: String| DnsError::Setup { reason: reason.into() };
        let anchors = anchors(wanted.trust_anchor_file.as_deref()).map_err(setup)?;
        let tls = TlsConfig::new().map_err(|error| setup(error.to_string()))?;
        let context = Arc::new(PoolContext::new(options.clone(), tls));
        let pool =
            NameServerPool::from_config(servers.name_servers().to_vec(), context, TokioRuntimeProvider::default());
        let retrying = RetryDnsHandle::new(pool, options.attempts);
        let entries = settings.cache_entries as usize;
        // Real servers and signatures live in real time.
        let clock = Clock::system();
        let links = Links::new(retrying.clone(), clock.clone(), entries);
        let trust = Arc::new(Trust::new(entries, settings.max_ttl.into(), clock, metrics.clone()));
        let anchors = Arc::new(anchors);
        let handle = Validator::new(links, anchors.clone(), trust);
        let prober = forgetful(DnssecDnsHandle::with_trust_anchor(retrying, anchors));
        let insecure: Result<Vec<Name>, DnsError> = wanted.insecure.iter().map(|name| complete(name)).collect();
        Ok(Some(Dnssec {
            handle,
            prober,
            insecure: insecure?,
            every: wanted.probe.into(),
            metrics: metrics.clone(),
            first_probe: OnceCell::new(),
            state: Mutex::new(State { validation: Validation::Works, failed: 0 }),
        }))
    }

    /// What answers about `name` are validated with; `None` when they are not.
    pub(crate) async fn handle(&self, name: &Name) -> Option<&Handle> {
        if self.insecure.iter().any(|top| top.zone_of(name)) {
            return None;
        }
        self.first_probe.get_or_init(|| self.start()).await;
        let works = self.state.lock().validation == Validation::Works;
        works.then_some(&self.handle)
    }

    pub(crate) fn validation(&self) -> Validation {
        self.state.lock().validation.clone()
    }

    /// Probes from time to time, for ever.
    pub(crate) async fn keep_probing(&self) {
        self.first_probe.get_or_init(|| self.start()).await;
        loop {
            let (works, failed) = {
                let state = self.state.lock();
                (state.validation == Validation::Works, state.failed)
            };
            self.metrics.dnssec.set(i64::from(works));
            let wait = if failed == 0 { self.every } else { AGAIN.min(self.every) };
            tokio::time::sleep(wait).await;
            self.probe(MOST_FAILED).await;
        }
    }

    /// Probes until it is known whether validation works.
    async fn start(&self) {
        for _ in 1..MOST_FAILED_AT_START {
            if self.probe(MOST_FAILED_AT_START).await {
                return;
            }
            tokio::time::sleep(AGAIN_AT_START).await;
        }
        self.probe(MOST_FAILED_AT_START).await;
    }

    /// Asks for the keys of the root and looks whether the trust anchor proves
    /// them: name servers that strip signatures, and those that answer with
    /// what is not signed by anybody we trust, are found out by that. True when
    /// it does; validation is off when that many in a row did not.
    async fn probe(&self, most_failed: u32) -> bool {
        let probed = proof::records(&self.prober, Name::root(), RecordType::DNSKEY, |_| Some(())).await;
        let mut state = self.state.lock();
        let before = state.validation == Validation::Works;
        let reason = match probed {
            Ok(answer) if answer.authenticated => {
                *state = State { validation: Validation::Works, failed: 0 };
                if !before {
                    tracing::info!("DNSSEC works again: answers of the DNS are validated");
                }
                return true;
            }
            Ok(_) => "the keys of the root are not proved".into(),
            Err(error) => error.to_string(),
        };
        state.failed = state.failed.saturating_add(1);
        if state.failed < most_failed && before {
            tracing::debug!(%reason, "DNSSEC could not be probed");
            return false;
        }
        if before {
            tracing::warn!(
                %reason,
                "the name servers do not let DNSSEC be used: DANE is off until they do; \
                 a validating resolver on this machine would help"
            );
        }
        state.validation = Validation::Broken { reason: reason.into() };
        false
    }
}

/// The keys in the file, or those of the root that IANA publishes.
fn anchors(file: Option<&std::path::Path>) -> Result<TrustAnchors, String> {
    let Some(path) = file else { return Ok(TrustAnchors::default()) };
    let wrong = |reason: String| format!("dnssec.trust_anchor_file: {}: {reason}", path.display());
    let anchors = TrustAnchors::from_file(path).map_err(|error| wrong(error.to_string()))?;
    if anchors.is_empty() {
        return Err(wrong("expected a DNSKEY record of the root".to_owned()));
    }
    Ok(anchors)
}
