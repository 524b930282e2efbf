//! Configuration sets: named rules for the messages that choose them.

use std::collections::BTreeSet;
use std::sync::Arc;

use postrider_base::{Period, Timestamp};
use postrider_mail::{AccountId, Domain, SuppressionReason};
use serde::{Deserialize, Serialize};

use super::catalog::Item;
use super::destination::{self, EventDestination};
use super::{MAX_NAME, PoolName, Tables};
use crate::tags::{self, Tags};
use crate::{Error, Sending};

/// Most waits that a list of retries may have.
const MAX_RETRIES: usize = 100;
/// Longest reason of a pause, in characters.
const MAX_REASON: usize = 256;
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
    /// Whether messages may be sent with it: else they are refused.
    #[serde(default)]
    pub sending: Sending,
    /// Which outcomes of its messages put an address on the account's suppression list, and
    /// which entries of that list hold for them; none is as the account has it, an empty set
    /// is no outcome and no entry.
    #[serde(default)]
    pub suppressed_reasons: Option<BTreeSet<SuppressionReason>>,
    /// Where links and images for tracking lead to, instead of the node's own domain.
    #[serde(default)]
    pub tracking_domain: Option<Domain>,
    /// Whether the outcomes of its messages are counted by themselves too.
    #[serde(default)]
    pub reputation_metrics: bool,
    /// Outcomes before this do not count in its rates.
    #[serde(default)]
    pub fresh_start: Option<Timestamp>,
    /// At most 50, as in SES: keys of 1 to 128 characters, values of at most 256.
    #[serde(default)]
    pub tags: Tags,
    /// Who is told what becomes of its messages: at most 10, as in SES, each of another name.
    #[serde(default)]
    pub event_destinations: Vec<EventDestination>,
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
    /// [`ConfigurationSet::sending`].
    Sending(Sending),
    /// [`ConfigurationSet::suppressed_reasons`].
    SuppressedReasons(Option<BTreeSet<SuppressionReason>>),
    /// [`ConfigurationSet::tracking_domain`]; it must be, or lie in, a verified domain of the
    /// account.
    TrackingDomain(Option<Domain>),
    /// [`ConfigurationSet::reputation_metrics`].
    ReputationMetrics(bool),
    /// [`ConfigurationSet::fresh_start`].
    FreshStart(Option<Timestamp>),
    /// One more of [`ConfigurationSet::tags`], or another value for it.
    Tag(String, String),
    /// One less of [`ConfigurationSet::tags`].
    Untag(String),
}

impl ConfigurationSet {
    /// A set without rules.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the name.
    pub fn new(account: AccountId, name: &str) -> Result<Self, Error> {
        check_name(Self::KIND, name)?;
        Ok(Self {
            account,
            name: name.to_owned(),
            tls: TlsPolicy::default(),
            pool: None,
            max_lifetime: None,
            retry: None,
            per_recipient: false,
            sending: Sending::Enabled,
            suppressed_reasons: None,
            tracking_domain: None,
            reputation_metrics: false,
            fresh_start: None,
            tags: Tags::new(),
            event_destinations: Vec::new(),
        })
    }

    fn apply(&mut self, option: ConfigurationOption) {
        match option {
            ConfigurationOption::Tls(tls) => self.tls = tls,
            ConfigurationOption::Pool(pool) => self.pool = pool,
            ConfigurationOption::MaxLifetime(lifetime) => self.max_lifetime = lifetime,
            ConfigurationOption::Retry(retry) => self.retry = retry,
            ConfigurationOption::PerRecipient(per_recipient) => self.per_recipient = per_recipient,
            ConfigurationOption::Sending(sending) => self.sending = sending,
            ConfigurationOption::SuppressedReasons(reasons) => self.suppressed_reasons = reasons,
            ConfigurationOption::TrackingDomain(domain) => self.tracking_domain = domain,
            ConfigurationOption::ReputationMetrics(counted) => self.reputation_metrics = counted,
            ConfigurationOption::FreshStart(at) => self.fresh_start = at,
            ConfigurationOption::Tag(key, value) => drop(self.tags.insert(key, value)),
            ConfigurationOption::Untag(key) => drop(self.tags.remove(&key)),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |reason| Err(Error::Invalid { what: Self::KIND, reason });
        check_name(Self::KIND, &self.name)?;
        let (shortest, longest) = LIFETIMES;
        if self.max_lifetime.is_some_and(|lifetime| lifetime < shortest || lifetime > longest) {
            return invalid("the life of its messages must be 1m to 30d");
        }
        let is_text = |text: &str| text.chars().count() <= MAX_REASON && !text.chars().any(char::is_control);
        if self.sending.pause().is_some_and(|pause| !is_text(&pause.reason)) {
            return invalid("the reason of a pause must be at most 256 characters, without control characters");
        }
        tags::check(Self::KIND, &self.tags)?;
        destination::check(&self.event_destinations)?;
        let Some(retry) = &self.retry else { return Ok(()) };
        if !(1..=MAX_RETRIES).contains(&retry.len()) || retry.iter().any(|wait| wait.is_zero() || *wait > longest) {
            return invalid("its retries must be 1 to 100 waits, each longer than zero and at most 30d");
        }
        Ok(())
    }
}

/// SES's rule for the names of sets and of their destinations.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(allowed) {
        return Err(Error::Invalid { what, reason: "its name must be 1 to 64 letters, digits, - and _" });
    }
    Ok(())
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

    /// Says when there was a change.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.sets.changes()
    }

    /// The account's sets, in the order of their names.
    #[must_use]
    pub fn list(&self, account: AccountId) -> Vec<Arc<ConfigurationSet>> {
        self.0.sets.of_account(account)
    }

    /// Those of all accounts.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ConfigurationSet>> {
        self.0.sets.all()
    }

    /// Grows with every change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.sets.revision()
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
        let mut set = ConfigurationSet::new(account, name)?;
        let _changing = self.0.changing.lock().await;
        self.apply(&mut set, options)?;
        self.check(&set)?;
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
        self.try_change(account, name, |set| self.apply(set, options)).await
    }

    /// Changes a set by what it is at this moment, so that no other change is lost. Durable
    /// when it returns.
    ///
    /// # Errors
    /// As [`ConfigurationSets::set`].
    pub async fn change(
        &self,
        account: AccountId,
        name: &str,
        change: impl FnOnce(&mut ConfigurationSet),
    ) -> Result<Arc<ConfigurationSet>, Error> {
        let change = |set: &mut ConfigurationSet| {
            change(set);
            Ok(())
        };
        self.try_change(account, name, change).await
    }

    /// Lets messages be sent with a set, or not. Durable when it returns.
    ///
    /// # Errors
    /// As [`ConfigurationSets::set`].
    pub async fn set_sending(
        &self,
        account: AccountId,
        name: &str,
        sending: Sending,
    ) -> Result<Arc<ConfigurationSet>, Error> {
        self.set(account, name, vec![ConfigurationOption::Sending(sending)]).await
    }

    /// Adds a destination for the events of a set. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the set), [`Error::AlreadyExists`], [`Error::Invalid`] or
    /// [`Error::Store`].
    pub async fn add_destination(
        &self,
        account: AccountId,
        name: &str,
        destination: EventDestination,
    ) -> Result<Arc<ConfigurationSet>, Error> {
        let add = |set: &mut ConfigurationSet| {
            if set.event_destinations.iter().any(|known| known.name == destination.name) {
                return Err(Error::AlreadyExists { what: destination::KIND, name: destination.name });
            }
            set.event_destinations.push(destination);
            Ok(())
        };
        self.try_change(account, name, add).await
    }

    /// Changes a destination, which keeps its name. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the set, the destination), [`Error::Invalid`] or [`Error::Store`].
    pub async fn change_destination(
        &self,
        account: AccountId,
        name: &str,
        destination: &str,
        change: impl FnOnce(&mut EventDestination),
    ) -> Result<Arc<ConfigurationSet>, Error> {
        let change = |set: &mut ConfigurationSet| {
            let index = destination::index_of(&set.event_destinations, destination)?;
            let found = &mut set.event_destinations[index];
            let kept = found.name.clone();
            change(found);
            found.name = kept;
            Ok(())
        };
        self.try_change(account, name, change).await
    }

    /// Forgets a destination. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the set, the destination) or [`Error::Store`].
    pub async fn remove_destination(
        &self,
        account: AccountId,
        name: &str,
        destination: &str,
    ) -> Result<Arc<ConfigurationSet>, Error> {
        let remove = |set: &mut ConfigurationSet| {
            let index = destination::index_of(&set.event_destinations, destination)?;
            set.event_destinations.remove(index);
            Ok(())
        };
        self.try_change(account, name, remove).await
    }

    /// Adds or replaces all of them or none. Durable when it returns. Whether a tracking domain
    /// is verified is not asked: it may be on its way.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`] (a pool), [`Error::Full`] or [`Error::Store`].
    pub async fn put(&self, sets: Vec<ConfigurationSet>) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        sets.iter().try_for_each(|set| self.check(set))?;
        let new = sets.iter().filter(|set| self.find(set.account, &set.name).is_none()).count();
        self.0.sets.check_room(new)?;
        self.0.sets.put(sets).await.map(drop)
    }

    /// Forgets a set. Messages that name it are refused from now on; those in the queue go out
    /// without its rules. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Store`].
    pub async fn delete(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        self.0.sets.delete(account, name).await
    }

    async fn try_change(
        &self,
        account: AccountId,
        name: &str,
        change: impl FnOnce(&mut ConfigurationSet) -> Result<(), Error>,
    ) -> Result<Arc<ConfigurationSet>, Error> {
        let _changing = self.0.changing.lock().await;
        let found = self.0.sets.get(account, name)?;
        let mut set = ConfigurationSet::clone(&found);
        change(&mut set)?;
        if set == *found {
            return Ok(found);
        }
        (set.account, set.name) = (account, name.to_owned());
        self.check(&set)?;
        let mut written = self.0.sets.put(vec![set]).await?;
        Ok(written.remove(0))
    }

    fn apply(&self, set: &mut ConfigurationSet, options: Vec<ConfigurationOption>) -> Result<(), Error> {
        for option in options {
            if let ConfigurationOption::TrackingDomain(Some(domain)) = &option {
                self.check_tracking_domain(set.account, domain)?;
            }
            set.apply(option);
        }
        Ok(())
    }

    /// As in SES, mail can not point to a domain that is not the account's.
    fn check_tracking_domain(&self, account: AccountId, domain: &Domain) -> Result<(), Error> {
        let mut identities = domain.with_parents().filter_map(|name| self.0.identities.find(account, name));
        if identities.any(|identity| identity.is_verified()) {
            return Ok(());
        }
        let reason = "its tracking domain must be, or lie in, a verified domain of the account";
        Err(Error::Invalid { what: ConfigurationSet::KIND, reason })
    }

    pub(super) fn check(&self, set: &ConfigurationSet) -> Result<(), Error> {
        set.check()?;
        match &set.pool {
            Some(pool) if !PoolName::is_shared(pool) => self.0.pools.get(set.account, pool).map(drop),
            _ => Ok(()),
        }
    }
}
