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
use crate::{DnsError, Settings, proof};

/// Asks and validates.
pub(crate) type Handle = DnssecDnsHandle<Links<RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>>>;

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
    insecure: Vec<Name>,
    every: Duration,
    first_probe: OnceCell<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    validation: Validation,
    /// Probes in a row that nobody answered.
    unanswered: u32,
}

/// Probes in a row that nobody has to answer until validation is off. One is
/// not enough: then who keeps a single answer from us would have turned it off.
const MOST_UNANSWERED: u32 = 3;

/// The wait after a probe that failed.
const AGAIN: Duration = Duration::from_secs(60);

impl Dnssec {
    /// Validation with these name servers. `None` when it is not wanted.
    pub(crate) fn new(
        settings: &Settings,
        servers: &ResolverConfig,
        options: &ResolverOpts,
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
        let links = Links::new(retrying, Clock::system(), entries);
        let handle = DnssecDnsHandle::with_trust_anchor(links, Arc::new(anchors)).validation_cache_size(entries);
        let insecure: Result<Vec<Name>, DnsError> = wanted.insecure.iter().map(|name| complete(name)).collect();
        Ok(Some(Dnssec {
            handle,
            insecure: insecure?,
            every: wanted.probe.into(),
            first_probe: OnceCell::new(),
            state: Mutex::new(State { validation: Validation::Works, unanswered: 0 }),
        }))
    }

    /// What answers about `name` are validated with; `None` when they are not.
    pub(crate) async fn handle(&self, name: &Name) -> Option<&Handle> {
        if self.insecure.iter().any(|top| top.zone_of(name)) {
            return None;
        }
        self.first_probe.get_or_init(|| self.probe()).await;
        let works = self.state.lock().validation == Validation::Works;
        works.then_some(&self.handle)
    }

    pub(crate) fn validation(&self) -> Validation {
        self.state.lock().validation.clone()
    }

    /// Probes from time to time, for ever.
    pub(crate) async fn keep_probing(&self, metrics: &Metrics) {
        self.first_probe.get_or_init(|| self.probe()).await;
        loop {
            let (works, unanswered) = {
                let state = self.state.lock();
                (state.validation == Validation::Works, state.unanswered)
            };
            metrics.dnssec.set(i64::from(works));
            let wait = if works && unanswered == 0 { self.every } else { AGAIN.min(self.every) };
            tokio::time::sleep(wait).await;
            self.probe().await;
        }
    }

    /// Asks for the keys of the root and looks whether the trust anchor proves
    /// them: name servers that strip signatures, and those that answer with
    /// what is not signed by anybody we trust, are found out by that.
    async fn probe(&self) {
        let probed = proof::records(&self.handle, Name::root(), RecordType::DNSKEY, |_| Some(())).await;
        let first = !self.first_probe.initialized();
        let mut state = self.state.lock();
        let before = state.validation == Validation::Works;
        let reason = match probed {
            Ok(answer) if answer.authenticated => {
                *state = State { validation: Validation::Works, unanswered: 0 };
                if !before {
                    tracing::info!("DNSSEC works again: answers of the DNS are validated");
                }
                return;
            }
            Ok(_) => "the keys of the root are not proved".into(),
            Err(error) if error.is_no_answer() => {
                state.unanswered = state.unanswered.saturating_add(1);
                if before && !first && state.unanswered < MOST_UNANSWERED {
                    return;
                }
                error.to_string()
            }
            Err(error) => error.to_string(),
        };
        if before {
            tracing::warn!(
                %reason,
                "the name servers do not let DNSSEC be used: DANE is off until they do; \
                 a validating resolver on this machine would help"
            );
        }
        state.validation = Validation::Broken { reason: reason.into() };
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
