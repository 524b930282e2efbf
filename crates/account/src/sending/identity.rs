//! Identities: the domains and addresses that an account may send from. Kept, and found by
//! the address of a sender; who may send as whom is decided elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use postrider_mail::{AccountId, AddressError, Domain, EmailAddress};
use serde::{Deserialize, Serialize};

use super::Tables;
use super::catalog::Item;
use super::verification::{DkimOptions, MailFrom, Verification, VerificationStatus};
use crate::{Error, tags};

/// A domain or an address that mail is sent from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Whose it is.
    pub account: AccountId,
    /// The domain or address.
    pub name: IdentityName,
    /// The configuration set of messages that name none.
    #[serde(default)]
    pub default_configuration_set: Option<String>,
    /// The operator vouches for it: it needs no verification.
    #[serde(default)]
    pub trusted: bool,
    /// The proof that it is the account's.
    #[serde(default)]
    pub verification: Verification,
    /// How its mail is signed.
    #[serde(default)]
    pub dkim: DkimOptions,
    /// The domain of its mail's return path, where it has one of its own.
    #[serde(default)]
    pub mail_from: Option<MailFrom>,
    /// At most 50, as in SES: keys of 1 to 128 characters, values of at most 256.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Identity {
    /// One that nobody has asked to verify, without any rules.
    #[must_use]
    pub fn new(account: AccountId, name: IdentityName) -> Self {
        Self {
            account,
            name,
            default_configuration_set: None,
            trusted: false,
            verification: Verification::default(),
            dkim: DkimOptions::default(),
            mail_from: None,
            tags: BTreeMap::new(),
        }
    }

    /// Whether it is proved, or needs no proof. What was proved stays so while it is looked
    /// for again ([`VerificationStatus::TemporaryFailure`]).
    #[must_use]
    pub fn is_verified(&self) -> bool {
        let status = self.verification.status;
        self.trusted || matches!(status, VerificationStatus::Success | VerificationStatus::TemporaryFailure)
    }
}

/// What an identity is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityName {
    /// Every address below the domain.
    Domain(Domain),
    /// One address.
    Address(EmailAddress),
}

impl IdentityName {
    /// What it is found by. A domain has one spelling; the local part of an address has
    /// case, as in SES.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Domain(domain) => domain.as_str(),
            Self::Address(address) => address.as_str(),
        }
    }

    /// The domain, or that of the address.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        match self {
            Self::Domain(domain) => domain,
            Self::Address(address) => address.domain(),
        }
    }
}

/// Whom an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The most specific identity: its options hold.
    pub identity: Arc<Identity>,
    /// The most specific domain among them; the same as `identity` unless that is an address.
    pub domain_identity: Option<Arc<Identity>>,
    /// All that cover the address, verified or not, from the most specific one to the first
    /// domain that is verified: what their policies say holds before they are verified too.
    pub covering: Arc<[Arc<Identity>]>,
}

impl Resolved {
    /// Whether the address is proved: by itself, or by its domain.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.identity.is_verified() || self.domain_identity.as_ref().is_some_and(|domain| domain.is_verified())
    }

    /// The configuration set of messages that name none: that of the identity, else that of
    /// its domain.
    #[must_use]
    pub fn default_configuration_set(&self) -> Option<&str> {
        let of_domain = || self.domain_identity.as_ref()?.default_configuration_set.as_deref();
        self.identity.default_configuration_set.as_deref().or_else(of_domain)
    }

    /// The custom MAIL FROM domain: that of the identity, else that of its domain.
    #[must_use]
    pub fn mail_from(&self) -> Option<&MailFrom> {
        let of_domain = || self.domain_identity.as_ref()?.mail_from.as_ref();
        self.identity.mail_from.as_ref().or_else(of_domain)
    }
}

impl fmt::Display for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for IdentityName {
    type Err = AddressError;

    /// With an `@` it is an address, which is kept without quotes that change nothing.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains('@') {
            return text.parse().map(Self::Domain);
        }
        text.parse().map(|address: EmailAddress| Self::Address(address.unquoted().into_owned()))
    }
}

impl Serialize for IdentityName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdentityName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Item for Identity {
    const TABLE: &'static str = "identities";
    const KIND: &'static str = "identity";
    const BOUND: &'static str = "max_identities";

    fn account(&self) -> AccountId {
        self.account
    }

    fn name(&self) -> String {
        self.name.key().to_owned()
    }
}

/// The first that is verified, else the first.
fn most_specific(identities: &[Arc<Identity>]) -> Option<Arc<Identity>> {
    identities.iter().find(|identity| identity.is_verified()).or(identities.first()).cloned()
}

/// The identities of all accounts. Clones share them.
#[derive(Clone, Debug)]
pub struct Identities(pub(super) Arc<Tables>);

impl Identities {
    /// The identity of exactly this name, from memory.
    #[must_use]
    pub fn find(&self, account: AccountId, name: &IdentityName) -> Option<Arc<Identity>> {
        self.0.identities.find(account, name.key())
    }

    /// Whom mail from this address belongs to, from memory: the address itself, or without
    /// its `+label`; else its domain or the nearest one that that lies in. Those that are
    /// verified go before, as in SES: others count only where none is.
    #[must_use]
    pub fn resolve(&self, account: AccountId, address: &EmailAddress) -> Option<Resolved> {
        let find = |address: &EmailAddress| self.0.identities.find(account, address.as_str());
        let address = address.unquoted();
        let unlabelled = address.without_label().and_then(|address| find(&address));
        let mut covering: Vec<_> = find(&address).into_iter().chain(unlabelled).collect();
        let addresses = covering.len();
        for domain in self.domains(account, address.domain()) {
            let is_verified = domain.is_verified();
            covering.push(domain);
            if is_verified {
                break;
            }
        }
        Some(Resolved {
            identity: most_specific(&covering)?,
            domain_identity: most_specific(&covering[addresses..]),
            covering: covering.into(),
        })
    }

    /// The account's domains that this one is or lies in, the most specific first.
    pub fn domains(&self, account: AccountId, domain: &Domain) -> impl Iterator<Item = Arc<Identity>> {
        domain.with_parents().filter_map(move |name| self.0.identities.find(account, name))
    }

    /// Those of all accounts.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Identity>> {
        self.0.identities.all()
    }

    /// Grows with every change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.identities.revision()
    }

    /// The account's identities, in the order of their names.
    #[must_use]
    pub fn list(&self, account: AccountId) -> Vec<Arc<Identity>> {
        self.0.identities.of_account(account)
    }

    /// Adds an identity. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`] (its default configuration set),
    /// [`Error::Invalid`] (its MAIL FROM domain), [`Error::Full`] or [`Error::Store`].
    pub async fn create(&self, identity: Identity) -> Result<Arc<Identity>, Error> {
        let _changing = self.0.changing.lock().await;
        self.check(&identity, None)?;
        self.0.identities.insert(identity).await
    }

    /// Replaces an identity. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the identity, its default configuration set),
    /// [`Error::Invalid`] (its MAIL FROM domain) or [`Error::Store`].
    pub async fn put(&self, identity: Identity) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        let found = self.0.identities.get(identity.account, identity.name.key())?;
        self.check(&identity, Some(&found))?;
        self.0.identities.put(vec![identity]).await.map(drop)
    }

    /// Changes an identity by what it is at this moment, so that no other change is lost.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the identity, its default configuration set),
    /// [`Error::Invalid`] (its MAIL FROM domain) or [`Error::Store`].
    pub async fn change(
        &self,
        account: AccountId,
        name: &IdentityName,
        change: impl FnOnce(&mut Identity),
    ) -> Result<Arc<Identity>, Error> {
        let _changing = self.0.changing.lock().await;
        let found = self.0.identities.get(account, name.key())?;
        let mut identity = Identity::clone(&found);
        change(&mut identity);
        if identity == *found {
            return Ok(found);
        }
        self.check(&identity, Some(&found))?;
        let mut written = self.0.identities.put(vec![identity]).await?;
        Ok(written.remove(0))
    }

    /// Forgets an identity. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Store`].
    pub async fn delete(&self, account: AccountId, name: &IdentityName) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        self.0.identities.delete(account, name.key()).await
    }

    /// What is put in the place of `before` keeps a default configuration set that has gone since:
    /// mail is refused then, and the identity must be able to lose its verification all the same.
    pub(super) fn check(&self, identity: &Identity, before: Option<&Identity>) -> Result<(), Error> {
        tags::check(Identity::KIND, &identity.tags)?;
        let domain = identity.name.domain();
        if let Some(mail_from) = &identity.mail_from
            && !mail_from.domain.with_parents().skip(1).any(|parent| parent == domain.as_str())
        {
            let reason = "a MAIL FROM domain must lie inside the identity's domain, and not be it";
            return Err(Error::Invalid { what: Identity::KIND, reason });
        }
        match &identity.default_configuration_set {
            had if before.is_some_and(|before| before.default_configuration_set == *had) => Ok(()),
            Some(set) => self.0.sets.get(identity.account, set).map(drop),
            None => Ok(()),
        }
    }
}
