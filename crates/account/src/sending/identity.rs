//! Identities: the domains and addresses that an account may send from. Only kept; who
//! may send as whom is decided elsewhere.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use postrider_mail::{AccountId, AddressError, Domain, EmailAddress};
use serde::{Deserialize, Serialize};

use super::Tables;
use super::catalog::Item;
use crate::Error;

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
    /// What it is found by: without regard to case.
    fn key(&self) -> String {
        match self {
            Self::Domain(domain) => domain.as_str().to_owned(),
            Self::Address(address) => address.fold(),
        }
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

    /// With an `@` it is an address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('@') { text.parse().map(Self::Address) } else { text.parse().map(Self::Domain) }
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
        self.name.key()
    }
}

/// The identities of all accounts. Clones share them.
#[derive(Clone, Debug)]
pub struct Identities(pub(super) Arc<Tables>);

impl Identities {
    /// The identity of exactly this name, in any case, from memory.
    #[must_use]
    pub fn find(&self, account: AccountId, name: &IdentityName) -> Option<Arc<Identity>> {
        self.0.identities.find(account, &name.key())
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
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn create(&self, identity: Identity) -> Result<Arc<Identity>, Error> {
        let _changing = self.0.changing.lock().await;
        self.check(&identity)?;
        self.0.identities.insert(identity).await
    }

    /// Replaces an identity. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the identity, its default configuration set) or
    /// [`Error::Store`].
    pub async fn put(&self, identity: Identity) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        self.0.identities.get(identity.account, &identity.name.key())?;
        self.check(&identity)?;
        self.0.identities.put(vec![identity]).await.map(drop)
    }

    /// Forgets an identity. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Store`].
    pub async fn delete(&self, account: AccountId, name: &IdentityName) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        self.0.identities.delete(account, &name.key()).await
    }

    fn check(&self, identity: &Identity) -> Result<(), Error> {
        match &identity.default_configuration_set {
            Some(set) => self.0.sets.get(identity.account, set).map(drop),
            None => Ok(()),
        }
    }
}
