//! What is wrong, by the doctor.

use postrider_account::{IdentityName, MailFrom, Resolved};
use postrider_events::LifeEntry;
use postrider_mail::{AccountId, Domain, EmailAddress, MessageId};
use postrider_submission::{ReturnPath, author};
use postrider_upkeep::doctor::{CertificateFact, DiskFact, DomainFacts, Finding, HostFacts, KeyFact};
use serde::{Deserialize, Serialize};

use crate::control::Deps;
use crate::{Error, MessageLife, Response, message};

/// Whom the doctor sees.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DoctorOperation {
    /// A domain that mail is sent from.
    Domain {
        /// Whose.
        account: AccountId,
        /// The domain.
        domain: Domain,
    },
    /// This machine and the addresses that mail leaves from.
    Host {
        /// The host to connect to, instead of the configured one.
        probe: Option<String>,
    },
    /// A message, and the domain that it was sent from.
    Message {
        /// The id that the final `250 Ok` named.
        id: MessageId,
    },
}

impl DoctorOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Domain { .. } => "doctor-domain",
            Self::Host { .. } => "doctor-host",
            Self::Message { .. } => "doctor-message",
        }
    }

    pub(crate) async fn execute(self, deps: &Deps) -> Result<Response, Error> {
        let examination = match self {
            Self::Domain { account, domain } => Examination::of(domain_findings(deps, account, domain).await?),
            Self::Host { probe } => Examination::of(host_findings(deps, probe).await?),
            Self::Message { id } => about_message(deps, id).await?,
        };
        Ok(Response::Examined(Box::new(examination)))
    }
}

/// What the doctor found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Examination {
    /// What became of the message that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageLife>,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Examination {
    fn of(findings: Vec<Finding>) -> Examination {
        Examination { message: None, findings }
    }
}

async fn domain_findings(deps: &Deps, account: AccountId, domain: Domain) -> Result<Vec<Finding>, Error> {
    let facts = domain_facts(deps, account, domain)?;
    Ok(deps.world.doctor()?.examine_domain(&facts).await)
}

/// What mail of a domain would be sent with, as sending it decides.
fn domain_facts(deps: &Deps, account: AccountId, domain: Domain) -> Result<DomainFacts, Error> {
    let identities = deps.accounts.identities();
    let identity = identities.domains(account, &domain).next();
    let key_domain = deps.ring.keys_of_domain(account, &domain).first().map(|key| key.domain.clone());
    // Without a key that signs, those of the identity are what should.
    let key_domain = key_domain
        .or_else(|| identity.as_ref().map(|identity| identity.name.domain().clone()))
        .unwrap_or_else(|| domain.clone());
    let keys = deps.ring.table().of_domain(account, &key_domain);
    let keys = keys.iter().map(|key| KeyFact {
        selector: key.selector.to_string(),
        record: key.public.clone(),
        state: key.state,
    });
    let mail_from = identity.as_ref().and_then(|identity| identity.mail_from.clone());
    let envelope = envelope(deps, mail_from.as_ref(), &domain)?;
    Ok(DomainFacts {
        identity: identity.as_ref().map(|identity| (identity.name.to_string(), identity.is_verified())),
        signs: identity.as_ref().is_none_or(|identity| identity.dkim.enabled),
        keys: keys.collect(),
        key_domain,
        bounces: deps.bounces(envelope.clone())?,
        envelope,
        mail_from,
        bounce_host: deps.bounce_host()?.to_string(),
        sources: deps.source_facts(),
        domain,
    })
}

/// The domain of return paths: with `sender` the client's, which is taken for the domain of From.
fn envelope(deps: &Deps, mail_from: Option<&MailFrom>, domain: &Domain) -> Result<Domain, Error> {
    let settings = &deps.world.submission;
    match (settings.return_path, mail_from.filter(|mail_from| mail_from.is_usable())) {
        (ReturnPath::Sender, _) => Ok(domain.clone()),
        (ReturnPath::Verp, Some(mail_from)) => Ok(mail_from.domain.clone()),
        (ReturnPath::Verp, None) => {
            settings.return_path_domain().map_err(|error| Error::Invalid(format!("submission.{error}")))
        }
    }
}

async fn host_findings(deps: &Deps, probe: Option<String>) -> Result<Vec<Finding>, Error> {
    let world = &deps.world;
    let mut settings = world.doctor.clone();
    if probe.is_some() {
        settings.probe = probe;
        settings.validate().map_err(Error::Invalid)?;
    }
    let certificates = world.certificates.iter().map(|path| CertificateFact {
        path: path.clone(),
        pem: std::fs::read(path).map_err(|error| error.to_string()),
        hostname: deps.about.hostname.clone(),
    });
    let state = std::path::PathBuf::from(&deps.about.state_dir);
    let free = world.disk.available_bytes(&state).map_err(|error| error.to_string());
    let has_keys = !deps.ring.table().all().is_empty();
    let mut doctor = world.doctor()?;
    doctor.settings = &settings;
    let facts = HostFacts {
        hostname: deps.about.hostname.clone(),
        sources: deps.source_facts(),
        bounces: deps.return_path_domain()?.map(|domain| deps.bounces(domain)).transpose()?.flatten(),
        certificates: certificates.collect(),
        disks: vec![DiskFact { path: state, free, reserve: world.min_free }],
        sealing: has_keys.then(|| deps.ring.check().map_err(|error| error.to_string())),
    };
    Ok(doctor.examine_host(&facts).await)
}

async fn about_message(deps: &Deps, id: MessageId) -> Result<Examination, Error> {
    let not_open = || Error::Failed("the queue and the journal are not open here".to_owned());
    let events = deps.events.as_ref().ok_or_else(not_open)?;
    let spool = deps.spool.as_ref().ok_or_else(not_open)?;
    let life = message::life(events, spool, id).await?;
    // The queue knows the header of what waits, the journal the envelope of all: its domain is
    // taken for that of From then.
    let waits = spool.show(id).await?.map(|view| view.message).and_then(|message| {
        let fields = &message.origin.headers.fields;
        let from = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("from"))?;
        Some((message.account, author(&from.1)?))
    });
    let accepted = events.message(id).await?.into_iter().find_map(|entry| match entry {
        LifeEntry::Accepted(acceptance) => Some((acceptance.account, acceptance.sender?)),
        LifeEntry::Attempt { .. } | LifeEntry::Returned { .. } => None,
    });
    let findings = match waits.or(accepted) {
        Some((account, from)) => domain_findings(deps, account, from.domain().clone()).await?,
        None => Vec::new(),
    };
    Ok(Examination { message: Some(life), findings })
}

/// The identity that an address belongs to, in words.
pub(crate) fn identity_words(resolved: &Resolved, from: &EmailAddress) -> String {
    match &resolved.identity.name {
        IdentityName::Address(_) => format!("the identity of exactly {from} comes before those of its domains"),
        IdentityName::Domain(domain) if domain == from.domain() => "it is that of the address's domain".to_owned(),
        IdentityName::Domain(_) => "it is that of the nearest domain above".to_owned(),
    }
}
