//! DKIM keys: which there are, what is published of them, and which of them sign. The
//! private halves lie here sealed; this room can not open them.

mod sealed;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use postrider_base::Timestamp;
use postrider_mail::{AccountId, DkimAlgorithm, Domain, Selector};
use postrider_store::Store;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::sending::catalog::{Catalog, Item};
use crate::{Error, Settings};

pub use sealed::Sealed;

/// A key that signs the mail of a domain, or has, or will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimKey {
    /// Whose it is.
    pub account: AccountId,
    /// The domain that signatures name (`d=`).
    pub domain: Domain,
    /// Its name in the DNS (`s=`).
    pub selector: Selector,
    /// How it signs.
    pub algorithm: DkimAlgorithm,
    /// What it is used for now.
    pub state: KeyState,
    /// Since when.
    pub since: Timestamp,
    /// Who looks after it.
    pub origin: KeyOrigin,
    /// When it was made or given.
    pub created: Timestamp,
    /// When its record was last seen in the DNS as it should be; none when it was seen to be
    /// otherwise since.
    #[serde(default)]
    pub seen: Option<Timestamp>,
    /// Of a retired key: until when it was to stay published when it retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The text that was to be published under the selector before, by the key that this one
    /// has followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The text of the TXT record to publish.
    pub public: String,
    /// The private key, sealed for [`DkimKey::context`].
    pub sealed: Sealed,
}

impl DkimKey {
    /// What the private key is sealed for: nobody else's key fits in its place.
    #[must_use]
    pub fn context(account: AccountId, domain: &Domain, selector: &Selector) -> Vec<u8> {
        format!("dkim {account} {domain} {selector}").into_bytes()
    }

    /// Where the public key is published.
    #[must_use]
    pub fn record_name(&self) -> String {
        self.selector.record_name(&self.domain)
    }
}

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It signs.
    Current,
    /// Published, and not used until its record has been seen.
    Next,
    /// It does not sign any more. Still published: what it signed is under way.
    Retired,
}

impl KeyState {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who looks after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyOrigin {
    /// The relay, which made it and replaces it by schedule (SES: `AWS_SES`).
    Managed,
    /// The domain's owner, who gave it (SES: `EXTERNAL`).
    Own,
}

impl KeyOrigin {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Own => "own",
        }
    }
}

impl FromStr for KeyOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "managed" => Ok(Self::Managed),
            "own" => Ok(Self::Own),
            _ => Err("the origin must be managed or own"),
        }
    }
}

impl Item for DkimKey {
    const TABLE: &'static str = "dkim_keys";
    const KIND: &'static str = "DKIM key";
    const BOUND: &'static str = "max_dkim_keys";

    fn account(&self) -> AccountId {
        self.account
    }

    fn name(&self) -> String {
        name(&self.domain, &self.selector)
    }
}

/// The keys of a domain lie together.
fn name(domain: &Domain, selector: &Selector) -> String {
    format!("{domain} {selector}")
}

/// The DKIM keys of all accounts. Clones share them.
#[derive(Clone, Debug)]
pub struct DkimKeys(Arc<Table>);

#[derive(Debug)]
struct Table {
    keys: Catalog<DkimKey>,
    /// Held across a change.
    changing: Mutex<()>,
}

impl DkimKeys {
    pub(crate) fn open(store: &Store, settings: &Settings) -> Result<Self, Error> {
        let keys = Catalog::open(store, settings.max_dkim_keys)?;
        Ok(Self(Arc::new(Table { keys, changing: Mutex::default() })))
    }

    /// The key of this name, from memory.
    #[must_use]
    pub fn find(&self, account: AccountId, domain: &Domain, selector: &Selector) -> Option<Arc<DkimKey>> {
        self.0.keys.find(account, &name(domain, selector))
    }

    /// The keys that sign for exactly this domain, from memory: one of each algorithm.
    #[must_use]
    pub fn current(&self, account: AccountId, domain: &Domain) -> Vec<Arc<DkimKey>> {
        let mut keys = self.of_domain(account, domain);
        keys.retain(|key| key.state == KeyState::Current);
        keys
    }

    /// All keys of exactly this domain, in the order of their selectors.
    #[must_use]
    pub fn of_domain(&self, account: AccountId, domain: &Domain) -> Vec<Arc<DkimKey>> {
        self.0.keys.with_prefix(account, &format!("{domain} "))
    }

    /// All keys of the account, in the order of domains and selectors.
    #[must_use]
    pub fn list(&self, account: AccountId) -> Vec<Arc<DkimKey>> {
        self.0.keys.of_account(account)
    }

    /// Those of all accounts.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<DkimKey>> {
        self.0.keys.all()
    }

    /// Grows with every change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.keys.revision()
    }

    /// Adds all of these keys or none. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when a selector of the domain is in use, by any account,
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn create(&self, keys: Vec<DkimKey>) -> Result<Vec<Arc<DkimKey>>, Error> {
        let _changing = self.0.changing.lock().await;
        // Two accounts would publish different keys under one name.
        let all = self.0.keys.all();
        for key in &keys {
            if all.iter().any(|other| (&other.domain, &other.selector) == (&key.domain, &key.selector)) {
                return Err(Error::AlreadyExists { what: DkimKey::KIND, name: key.record_name() });
            }
        }
        self.0.keys.check_room(keys.len())?;
        self.0.keys.put(keys).await
    }

    /// Changes the keys of a domain by what they are at this moment: `change` is shown all of
    /// them and gives those that take the place of others of the same selectors. Durable
    /// when it returns, all of it or nothing.
    ///
    /// # Errors
    /// What `change` refuses, [`Error::NotFound`] for a selector that is not there, or
    /// [`Error::Store`].
    pub async fn change<E: From<Error>>(
        &self,
        account: AccountId,
        domain: &Domain,
        change: impl FnOnce(&[Arc<DkimKey>]) -> Result<Vec<DkimKey>, E>,
    ) -> Result<Vec<Arc<DkimKey>>, E> {
        let _changing = self.0.changing.lock().await;
        let changed = change(&self.of_domain(account, domain))?;
        for key in &changed {
            self.0.keys.get(account, &name(domain, &key.selector))?;
        }
        if changed.is_empty() { Ok(Vec::new()) } else { Ok(self.0.keys.put(changed).await?) }
    }

    /// Forgets a key. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Store`].
    pub async fn delete(&self, account: AccountId, domain: &Domain, selector: &Selector) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        self.0.keys.delete(account, &name(domain, selector)).await
    }
}
