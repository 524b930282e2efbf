//! What lies outside: for operations that look at it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use postrider_base::{Clock, Dialer, Disk};
use postrider_dns::Resolver;
use postrider_mail::Domain;
use postrider_mailauth::records::PlannedSource;
use postrider_submission::{ReturnPath, ReturnPaths};
use postrider_upkeep::doctor::{self, BounceFacts, Doctor, SourceFact};

use crate::Error;
use crate::control::Deps;

/// What operations look at the world with, and what the configuration says of it.
pub struct World {
    /// Asks the DNS; or why it cannot.
    pub resolver: Result<Arc<dyn Resolver>, String>,
    /// Opens connections.
    pub dialer: Arc<dyn Dialer>,
    /// Says what time it is.
    pub clock: Clock,
    /// Holds the state directory.
    pub disk: Arc<dyn Disk>,
    /// Whom the doctor asks.
    pub doctor: doctor::Settings,
    /// How identities are looked after.
    pub upkeep: postrider_upkeep::Settings,
    /// The domain of whoever runs the relay.
    pub operator_domain: Option<Domain>,
    /// Whether that domain signs all mail besides.
    pub operator_signature: bool,
    /// Rules of acceptance: what return paths are.
    pub submission: postrider_submission::Settings,
    /// Reads return paths of the relay's. None where they could have no domain.
    pub return_paths: Option<ReturnPaths>,
    /// How what comes back is read.
    pub feedback: postrider_feedback::Settings,
    /// Where mail leaves from.
    pub delivery: postrider_delivery::Settings,
    /// The files of the listeners' certificates.
    pub certificates: Vec<PathBuf>,
    /// Below this much free space no mail is accepted, in bytes.
    pub min_free: u64,
}

impl World {
    pub(crate) fn resolver(&self) -> Result<&dyn Resolver, Error> {
        match &self.resolver {
            Ok(resolver) => Ok(&**resolver),
            Err(reason) => Err(Error::Failed(format!("name resolution cannot be set up: {reason}"))),
        }
    }

    pub(crate) fn doctor(&self) -> Result<Doctor<'_>, Error> {
        let resolver = self.resolver()?;
        Ok(Doctor { resolver, dialer: &*self.dialer, clock: &self.clock, settings: &self.doctor })
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("operator_domain", &self.operator_domain).finish_non_exhaustive()
    }
}

impl Deps {
    /// The addresses that mail leaves from: those in force where a daemon runs.
    pub(crate) fn source_facts(&self) -> Vec<SourceFact> {
        let configured = &self.world.delivery.sources;
        let ptr = |name: &str| configured.get(name).and_then(|source| source.ptr.clone());
        let fallback = self.world.delivery.ehlo_name.clone().unwrap_or_else(|| self.about.hostname.clone());
        let fact = |name: &str, address: IpAddr, ehlo_name: &Option<String>| SourceFact {
            name: name.to_owned(),
            address,
            host: ehlo_name.clone().unwrap_or_else(|| fallback.clone()),
            ptr: ptr(name),
        };
        let Some(delivery) = &self.delivery else {
            let all = configured.iter().map(|(name, source)| {
                source.addresses().map(|address| fact(name, address, &source.ehlo_name)).collect::<Vec<_>>()
            });
            return all.flatten().collect();
        };
        let all = delivery.sources().into_iter().map(|source| {
            let addresses = source.ipv4.map(IpAddr::V4).into_iter().chain(source.ipv6.map(IpAddr::V6));
            addresses.map(|address| fact(&source.name, address, &source.ehlo_name)).collect::<Vec<_>>()
        });
        all.flatten().collect()
    }

    /// The same, as they are published.
    pub(crate) fn planned_sources(&self) -> Vec<PlannedSource> {
        let planned = |fact: SourceFact| {
            let host = fact.ptr.unwrap_or(fact.host).to_ascii_lowercase();
            PlannedSource { address: fact.address, host }
        };
        self.source_facts().into_iter().map(planned).collect()
    }

    /// The relay's own domain of return paths; none where they are what clients say.
    pub(crate) fn return_path_domain(&self) -> Result<Option<Domain>, Error> {
        let settings = &self.world.submission;
        if settings.return_path == ReturnPath::Sender {
            return Ok(None);
        }
        settings.return_path_domain().map(Some).map_err(|error| Error::Invalid(format!("submission.{error}")))
    }

    /// Where bounces to this domain come back to; none where they do not come to the relay.
    pub(crate) fn bounces(&self, domain: Domain) -> Result<Option<BounceFacts>, Error> {
        let host = self.bounce_host()?.to_string();
        let paths = self.world.return_paths.as_ref().filter(|_| self.world.submission.return_path == ReturnPath::Verp);
        let probe = paths.and_then(|paths| paths.of_nobody(&domain));
        Ok(probe.map(|probe| BounceFacts { domain, host, probe }))
    }

    /// The host that takes bounces.
    pub(crate) fn bounce_host(&self) -> Result<Domain, Error> {
        self.world.upkeep.bounce_host(&self.about.hostname).map_err(|error| Error::Invalid(format!("upkeep.{error}")))
    }
}
