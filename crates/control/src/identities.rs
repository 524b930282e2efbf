//! Operations on identities.

use std::collections::BTreeMap;

use postrider_account::{
    Accounts, DkimKey, Identity, IdentityName, KeyOrigin, KeyState, MailFrom, MailFromFailure, PolicyOwner,
    Verification,
};
use postrider_base::Timestamp;
use postrider_mail::{AccountId, DkimAlgorithm, Domain};
use postrider_mailauth::records::{Place, PlanInput, Record, plan};
use postrider_upkeep::Upkeep;
use serde::{Deserialize, Serialize};

use crate::control::Deps;
use crate::{Error, Response, dns_plan, moment};

/// Actions on the domains and addresses that an account sends from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityOperation {
    /// Makes an identity and begins to verify it. A domain gets its DKIM keys.
    Create {
        /// Whose.
        account: AccountId,
        /// A domain or an address.
        name: IdentityName,
        /// It needs no proof.
        trusted: bool,
        /// The configuration set of messages that name none.
        configuration_set: Option<String>,
        /// Its tags.
        #[serde(default)]
        tags: BTreeMap<String, String>,
    },
    /// Forgets an identity. Its keys stay.
    Delete {
        /// Whose.
        account: AccountId,
        /// Which.
        name: IdentityName,
    },
    /// Changes how its mail is signed.
    Dkim {
        /// Whose.
        account: AccountId,
        /// Which.
        name: IdentityName,
        /// Whether it is.
        enabled: Option<bool>,
        /// Whether it gets a second signature, by Ed25519.
        ed25519: Option<bool>,
    },
    /// The account's identities.
    List {
        /// Whose.
        account: AccountId,
    },
    /// Gives it a MAIL FROM domain and begins to look for that, or takes it away.
    MailFrom {
        /// Whose.
        account: AccountId,
        /// Which.
        name: IdentityName,
        /// The domain; none takes it away.
        domain: Option<Domain>,
        /// What becomes of mail while it is not as it should be.
        on_failure: MailFromFailure,
    },
    /// One of them, with what is to be published.
    Show {
        /// Whose.
        account: AccountId,
        /// Which.
        name: IdentityName,
    },
    /// Changes its tags.
    Tag {
        /// Whose.
        account: AccountId,
        /// Which.
        name: IdentityName,
        /// Those that it gets, or other values for them.
        tags: BTreeMap<String, String>,
        /// Keys of those that it loses.
        untags: Vec<String>,
    },
    /// Declares that it needs no proof, or that it does.
    Trust {
        /// Whose.
        account: AccountId,
        /// Which.
        name: IdentityName,
        /// It needs none.
        trusted: bool,
    },
    /// Begins to verify it, anew when that had failed, and its MAIL FROM domain too.
    Verify {
        /// Whose.
        account: AccountId,
        /// Which.
        name: IdentityName,
    },
}

impl IdentityOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "identities-create",
            Self::Delete { .. } => "identities-delete",
            Self::Dkim { .. } => "identities-dkim",
            Self::List { .. } => "identities-list",
            Self::MailFrom { .. } => "identities-mail-from",
            Self::Show { .. } => "identities-show",
            Self::Tag { .. } => "identities-tag",
            Self::Trust { .. } => "identities-trust",
            Self::Verify { .. } => "identities-verify",
        }
    }

    pub(crate) async fn execute(self, deps: &Deps) -> Result<Response, Error> {
        let (identities, now) = (deps.accounts.identities(), deps.world.clock.now());
        let (account, name) = match self {
            Self::List { account } => {
                let rows = identities.list(account);
                return Ok(Response::Identities(rows.iter().map(|identity| row(&deps.accounts, identity)).collect()));
            }
            Self::Delete { account, name } => {
                identities.delete(account, &name).await?;
                deps.accounts.policies().forget(&PolicyOwner::Identity(account, name)).await?;
                return Ok(Response::Changed { count: 1 });
            }
            Self::Create { account, name, trusted, configuration_set, tags } => {
                let verification = if trusted { Verification::default() } else { Verification::pending(now) };
                let new = Identity::new(account, name.clone());
                let default_configuration_set = configuration_set;
                create(deps, Identity { trusted, tags, default_configuration_set, verification, ..new }).await?;
                (account, name)
            }
            Self::Dkim { account, name, enabled, ed25519 } => {
                let change = |identity: &mut Identity| {
                    identity.dkim.enabled = enabled.unwrap_or(identity.dkim.enabled);
                    identity.dkim.ed25519 = ed25519.unwrap_or(identity.dkim.ed25519);
                };
                identities.change(account, &name, change).await?;
                (account, name)
            }
            Self::MailFrom { account, name, domain, on_failure } => {
                let change = |identity: &mut Identity| set_mail_from(identity, domain, on_failure, now);
                let changed = identities.change(account, &name, change).await?;
                if let (Some(upkeep), true) = (&deps.upkeep, changed.mail_from.is_some()) {
                    upkeep.verify_mail_from(account, &name).await.map_err(failed)?;
                }
                (account, name)
            }
            Self::Show { account, name } => (account, name),
            Self::Tag { account, name, tags, untags } => {
                let change = |identity: &mut Identity| {
                    identity.tags.retain(|key, _| !untags.contains(key));
                    identity.tags.extend(tags);
                };
                identities.change(account, &name, change).await?;
                (account, name)
            }
            Self::Trust { account, name, trusted } => {
                identities.change(account, &name, |identity| set_trust(identity, trusted, now)).await?;
                (account, name)
            }
            Self::Verify { account, name } => {
                verify(deps.upkeep.as_ref().ok_or(Error::NoDaemon)?, account, &name).await?;
                (account, name)
            }
        };
        show(deps, account, &name)
    }
}

fn set_trust(identity: &mut Identity, trusted: bool, now: Timestamp) {
    identity.trusted = trusted;
    if !identity.is_verified() {
        identity.verification = Verification::pending(now);
    }
}

/// The identity as it is now, with what is to be published for it. Whoever looks after it
/// hears that it may have changed.
fn show(deps: &Deps, account: AccountId, name: &IdentityName) -> Result<Response, Error> {
    if let Some(upkeep) = &deps.upkeep {
        upkeep.nudge();
    }
    let absent = || Error::NotFound(format!("there is no identity {name}"));
    let identity = deps.accounts.identities().find(account, name).ok_or_else(absent)?;
    let mut row = row(&deps.accounts, &identity);
    row.records = records(deps, &identity)?;
    Ok(Response::Identities(vec![row]))
}

async fn create(deps: &Deps, identity: Identity) -> Result<(), Error> {
    let (account, name) = (identity.account, identity.name.clone());
    deps.accounts.policies().forget_remains(&PolicyOwner::Identity(account, name.clone())).await?;
    deps.accounts.identities().create(identity).await?;
    if let IdentityName::Domain(domain) = &name {
        make_keys(deps, account, domain).await;
    }
    Ok(())
}

/// The keys of a new domain identity: without them nothing could be published.
pub(crate) async fn make_keys(deps: &Deps, account: AccountId, domain: &Domain) {
    let has_keys = !deps.ring.table().of_domain(account, domain).is_empty();
    // Nobody has looked at keys that were kept without an identity.
    let keys = match has_keys {
        true => deps.ring.start_over(account, domain).await,
        false => deps.ring.create_managed(account, domain, DkimAlgorithm::RsaSha256).await.map(drop),
    };
    // Without a key to seal them with there are none; the doctor says so, and mail goes on unsigned.
    if let Err(error) = keys {
        tracing::warn!(%error, "{domain} has no DKIM keys");
    }
}

/// A domain that stays keeps what is known of it.
pub(crate) fn set_mail_from(
    identity: &mut Identity,
    domain: Option<Domain>,
    on_failure: MailFromFailure,
    now: Timestamp,
) {
    match (&mut identity.mail_from, domain) {
        (Some(known), Some(domain)) if known.domain == domain => known.on_failure = on_failure,
        (mail_from, domain) => *mail_from = domain.map(|domain| MailFrom::pending(domain, on_failure, now)),
    }
}

async fn verify(upkeep: &Upkeep, account: AccountId, name: &IdentityName) -> Result<(), Error> {
    let identity = upkeep.verify(account, name).await.map_err(failed)?;
    if identity.mail_from.is_some() {
        upkeep.verify_mail_from(account, name).await.map_err(failed)?;
    }
    Ok(())
}

fn failed(error: postrider_upkeep::Error) -> Error {
    match error {
        postrider_upkeep::Error::Account(error) => error.into(),
        postrider_upkeep::Error::NotMailed(_) => Error::Failed(error.to_string()),
        error => Error::Invalid(error.to_string()),
    }
}

/// An identity, by the names of SES's `GetEmailIdentity`; what SES has not comes last.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IdentityRow {
    /// The domain or address.
    pub identity_name: IdentityName,
    /// `DOMAIN` or `EMAIL_ADDRESS`.
    pub identity_type: String,
    /// `NOT_STARTED`, `PENDING`, `SUCCESS`, `TEMPORARY_FAILURE` or `FAILED`.
    pub verification_status: String,
    /// Whether mail may be sent from it.
    pub verified_for_sending_status: bool,
    /// How its mail is signed.
    pub dkim_attributes: DkimAttributes,
    /// Its MAIL FROM domain, where it has one.
    pub mail_from_attributes: Option<MailFromAttributes>,
    /// The configuration set of messages that name none.
    pub configuration_set_name: Option<String>,
    /// The operator vouches for it.
    pub trusted: bool,
    /// Since when it has its status.
    #[serde(with = "moment")]
    pub since: Timestamp,
    /// When it was looked at last.
    #[serde(with = "moment::optional")]
    pub last_checked: Option<Timestamp>,
    /// What was wrong then.
    pub problem: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<IdentityTag>,
    /// What is to be published for it; of one that is shown alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

/// What SES calls `Tag`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IdentityTag {
    /// Its key.
    pub key: String,
    /// Its value, which may be empty.
    pub value: String,
}

/// What SES calls so.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DkimAttributes {
    /// Whether its mail is signed.
    pub signing_enabled: bool,
    /// `SUCCESS` when there is a key that signs, `PENDING` while there is one that will.
    pub status: String,
    /// The selectors of keys that the relay looks after.
    pub tokens: Vec<String>,
    /// `AWS_SES` for those, `EXTERNAL` for the owner's.
    pub signing_attributes_origin: String,
}

/// What SES calls so.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MailFromAttributes {
    /// The domain.
    pub mail_from_domain: Domain,
    /// As [`IdentityRow::verification_status`].
    pub mail_from_domain_status: String,
    /// `USE_DEFAULT_VALUE` or `REJECT_MESSAGE`.
    pub behavior_on_mx_failure: String,
    /// When it was looked at last.
    #[serde(with = "moment::optional")]
    pub last_checked: Option<Timestamp>,
    /// What was wrong then.
    pub problem: Option<String>,
}

fn row(accounts: &Accounts, identity: &Identity) -> IdentityRow {
    let domain = matches!(identity.name, IdentityName::Domain(_));
    let verification = &identity.verification;
    let tag = |(key, value): (&String, &String)| IdentityTag { key: key.clone(), value: value.clone() };
    IdentityRow {
        identity_name: identity.name.clone(),
        identity_type: if domain { "DOMAIN" } else { "EMAIL_ADDRESS" }.to_owned(),
        verification_status: verification.status.as_str().to_owned(),
        verified_for_sending_status: identity.is_verified(),
        dkim_attributes: dkim_attributes(accounts, identity),
        mail_from_attributes: identity.mail_from.as_ref().map(|mail_from| MailFromAttributes {
            mail_from_domain: mail_from.domain.clone(),
            mail_from_domain_status: mail_from.status.as_str().to_owned(),
            behavior_on_mx_failure: mail_from.on_failure.as_str().to_owned(),
            last_checked: mail_from.checked,
            problem: mail_from.found_wrong.clone(),
        }),
        configuration_set_name: identity.default_configuration_set.clone(),
        trusted: identity.trusted,
        since: verification.since,
        last_checked: verification.checked,
        problem: verification.found_wrong.clone(),
        tags: identity.tags.iter().map(tag).collect(),
        records: Vec::new(),
    }
}

fn dkim_attributes(accounts: &Accounts, identity: &Identity) -> DkimAttributes {
    let keys = accounts.dkim_keys().of_domain(identity.account, identity.name.domain());
    let is_own = |key: &DkimKey| key.origin == KeyOrigin::Own && key.state == KeyState::Current;
    let external = keys.iter().any(|key| is_own(key));
    let status = match &keys[..] {
        [] => "NOT_STARTED",
        keys if keys.iter().any(|key| key.state == KeyState::Current) => "SUCCESS",
        _ => "PENDING",
    };
    let managed = keys.iter().filter(|key| key.origin == KeyOrigin::Managed && !external);
    DkimAttributes {
        signing_enabled: identity.dkim.enabled,
        status: status.to_owned(),
        tokens: managed.map(|key| key.selector.to_string()).collect(),
        signing_attributes_origin: if external { "EXTERNAL" } else { "AWS_SES" }.to_owned(),
    }
}

/// What belongs into the DNS of the identity's domain.
fn records(deps: &Deps, identity: &Identity) -> Result<Vec<Record>, Error> {
    let domain = identity.name.domain().clone();
    let keys = deps.ring.table().of_domain(identity.account, &domain);
    let plan = plan(&PlanInput {
        keys: keys.iter().map(|key| dns_plan::planned(deps, key)).collect(),
        mail_from: identity.mail_from.as_ref().map(|mail_from| mail_from.domain.clone()),
        return_path: None,
        bounce_host: deps.bounce_host()?,
        operator_domain: deps.world.operator_domain.clone(),
        sources: deps.planned_sources(),
        domain,
        dmarc_reports: None,
        tls_reports: None,
    });
    let of_mail_from = |name: &str| identity.mail_from.as_ref().is_some_and(|own| own.domain.as_str() == name);
    let belongs = |record: &Record| {
        record.place == Place::Domain && (record.name.contains("._domainkey.") || of_mail_from(&record.name))
    };
    Ok(plan.records.into_iter().filter(belongs).collect())
}
