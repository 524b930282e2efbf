//! Configuration sets: named rules for the messages that choose them.

use std::sync::Arc;

use postrider_base::Period;
use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};

use super::catalog::Item;
use super::{MAX_NAME, PoolName, Tables};
use crate::Error;

/// Most waits that a list of retries may have.
const MAX_RETRIES: usize = 100;
/// The shortest and the longest life that a set may give its messages.
const LIFETIMES: (Period, Period) = (Period::from_mins(1), Period::from_days(30));

/// Rules for the messages that are sent with it: those whose header names it
/// (`X-SES-CONFIGURATION-SET`).
///
/// What a later version adds is absent from what was stored before, and has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationSet {
    /// Whose it is.
    pub account: AccountId,
    /// 1 to 64 of `A-Z`, `a-z`, `0-9`, `-` and `_`, as in SES.
    pub name: String,
    /// Whether messages may leave in clear.
    #[serde(default)]
    pub tls: TlsPolicy,
    /// The pool whose addresses they leave from; none is the shared one.
    #[serde(default)]
    pub pool: Option<String>,
    /// How long delivery is tried, where that is shorter than for other messages. Decided
    /// when a message is accepted.
    #[serde(default)]
    pub max_lifetime: Option<Period>,
    /// The waits between attempts, instead of the node's; the last one repeats.
    #[serde(default)]
    pub retry: Option<Vec<Period>>,
    /// Each recipient gets a copy of its own, in a transaction of its own, under the one
    /// message id.
    #[serde(default)]
    pub per_recipient: bool,
}

/// What SES calls `TlsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TlsPolicy {
    /// Encrypted where the receiving host offers it.
    #[default]
    Optional,
    /// Encrypted, or not at all.
    Require,
}

/// One rule of a set, to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigurationOption {
    /// [`ConfigurationSet::tls`].
    Tls(TlsPolicy),
    /// [`ConfigurationSet::pool`].
    Pool(Option<String>),
    /// [`ConfigurationSet::max_lifetime`].
    MaxLifetime(Option<Period>),
    /// [`ConfigurationSet::retry`].
    Retry(Option<Vec<Period>>),
    /// [`ConfigurationSet::per_recipient`].
    PerRecipient(bool),
}

impl ConfigurationSet {
    /// A set without rules.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the name.
    pub fn new(account: AccountId, name: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(allowed) {
            let reason = "its name must be 1 to 64 letters, digits, - and _";
            return Err(Error::Invalid { what: Self::KIND, reason });
        }
        Ok(Self {
            account,
            name: name.to_owned(),
            tls: TlsPolicy::default(),
            pool: None,
            max_lifetime: None,
            retry: None,
            per_recipient: false,
        })
    }

    fn apply(&mut self, option: ConfigurationOption) {
        match option {
            ConfigurationOption::Tls(tls) => self.tls = tls,
            ConfigurationOption::Pool(pool) => self.pool = pool,
            ConfigurationOption::MaxLifetime(lifetime) => self.max_lifetime = lifetime,
            ConfigurationOption::Retry(retry) => self.retry = retry,
            ConfigurationOption::PerRecipient(per_recipient) => self.per_recipient = per_recipient,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |reason| Err(Error::Invalid { what: Self::KIND, reason });
        let (shortest, longest) = LIFETIMES;
        if self.max_lifetime.is_some_and(|lifetime| lifetime < shortest || lifetime > longest) {
            return invalid("the life of its messages must be 1m to 30d");
        }
        let Some(retry) = &self.retry else { return Ok(()) };
        if !(1..=MAX_RETRIES).contains(&retry.len()) || retry.iter().any(|wait| wait.is_zero() || *wait > longest) {
            return invalid("its retries must be 1 to 100 waits, each longer than zero and at most 30d");
        }
        Ok(())
    }
}

impl Item for ConfigurationSet {
    const TABLE: &'static str = "configuration-sets";
    const KIND: &'static str = "configuration set";
    const BOUND: &'static str = "max_configuration_sets";

    fn account(&self) -> AccountId {
        self.account
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// The configuration sets of all accounts. Clones share them.
#[derive(Clone, Debug)]
pub struct ConfigurationSets(pub(super) Arc<Tables>);

impl ConfigurationSets {
    /// The set of this name, from memory.
    #[must_use]
    pub fn find(&self, account: AccountId, name: &str) -> Option<Arc<ConfigurationSet>> {
        self.0.sets.find(account, name)
    }

    /// The account's sets, in the order of their names.
    #[must_use]
    pub fn list(&self, account: AccountId) -> Vec<Arc<ConfigurationSet>> {
        self.0.sets.of_account(account)
    }

    /// Makes a set. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AlreadyExists`], [`Error::NotFound`] (its pool),
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn create(
        &self,
        account: AccountId,
        name: &str,
        options: Vec<ConfigurationOption>,
    ) -> Result<Arc<ConfigurationSet>, Error> {
        let set = ConfigurationSet::new(account, name)?;
        let _changing = self.0.changing.lock().await;
        let set = self.with(set, options)?;
        self.0.sets.insert(set).await
    }

    /// Changes rules of a set, all of them or none. Durable when it returns; it holds from
    /// the next attempt of each message on, a life for what is accepted from then on.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the set, its pool), [`Error::Invalid`] or [`Error::Store`].
    pub async fn set(
        &self,
        account: AccountId,
        name: &str,
        options: Vec<ConfigurationOption>,
    ) -> Result<Arc<ConfigurationSet>, Error> {
        let _changing = self.0.changing.lock().await;
        let found = self.0.sets.get(account, name)?;
        let set = self.with(ConfigurationSet::clone(&found), options)?;
        let mut written = self.0.sets.put(vec![set]).await?;
        Ok(written.remove(0))
    }

    /// Forgets a set. Messages that name it are sent without rules from now on. Durable
    /// when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Store`].
    pub async fn delete(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        self.0.sets.delete(account, name).await
    }

    fn with(&self, mut set: ConfigurationSet, options: Vec<ConfigurationOption>) -> Result<ConfigurationSet, Error> {
        options.into_iter().for_each(|option| set.apply(option));
        set.check()?;
        if let Some(pool) = &set.pool
            && !PoolName::is_shared(pool)
        {
            self.0.pools.get(set.account, pool)?;
        }
        Ok(set)
    }
}
