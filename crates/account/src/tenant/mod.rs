//! Accounts: whose everything else is. One company has one, of which it need not know; a
//! house with many customers has one for each.

mod bulk;
mod option;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postrider_base::{Clock, Timestamp};
use postrider_mail::{AccountId, EmailAddress, SuppressionReason};
use postrider_store::Store;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::sending::catalog::{Catalog, Item};
use crate::{Error, Settings, tags};

pub use option::TenantOption;

/// Longest name, in characters.
const MAX_NAME: usize = 64;
/// Longest reason of a pause, in characters.
const MAX_REASON: usize = 256;

/// An account. Who has made none has the default one, without bounds.
///
/// What a later version adds is absent from what was stored before, and has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its number.
    pub id: AccountId,
    /// For people, at most 64 characters, may be empty.
    #[serde(default)]
    pub name: String,
    /// Who is written to about it, beside the operator.
    #[serde(default)]
    pub contact: Option<EmailAddress>,
    /// Whether it may write only to its own verified identities and to the simulator.
    #[serde(default)]
    pub sandbox: bool,
    /// Most recipients in any 24 hours; none is no bound.
    #[serde(default)]
    pub daily_quota: Option<u64>,
    /// Most recipients a second, over a while; none is no bound.
    #[serde(default)]
    pub max_rate: Option<u32>,
    /// Which outcomes put an address on its suppression list.
    #[serde(default = "all_reasons")]
    pub suppressed_reasons: BTreeSet<SuppressionReason>,
    /// Whether it may send.
    #[serde(default)]
    pub sending: Sending,
    /// Whether the rules about its reputation may pause it.
    #[serde(default)]
    pub auto_pause: bool,
    /// Outcomes before this do not count in its rates.
    #[serde(default)]
    pub fresh_start: Option<Timestamp>,
    /// At most 50, as AWS bounds them: keys of 1 to 128 characters, values of at most 256.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// When it was made.
    #[serde(default)]
    pub created_at: Timestamp,
}

fn all_reasons() -> BTreeSet<SuppressionReason> {
    BTreeSet::from([SuppressionReason::Bounce, SuppressionReason::Complaint])
}

/// Whether mail may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sending {
    /// It may.
    #[default]
    Enabled,
    /// It may not.
    Paused(Pause),
}

/// Why mail may not be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who says so.
    pub by: PausedBy,
    /// Since when.
    pub at: Timestamp,
    /// What for, at most 256 characters, may be empty.
    pub reason: String,
    /// Whether what is in the queue waits too; else it is still sent.
    #[serde(default)]
    pub hold: bool,
}

/// Who has paused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PausedBy {
    /// A person: clients hear that their mail is refused.
    Operator,
    /// A rule: clients hear to come again, so that they keep their mail.
    Rule,
}

impl Sending {
    /// The pause, if it is one.
    #[must_use]
    pub fn pause(&self) -> Option<&Pause> {
        match self {
            Self::Enabled => None,
            Self::Paused(pause) => Some(pause),
        }
    }
}

impl Tenant {
    /// An account that may send whatever it likes: what one is that nobody has made.
    #[must_use]
    pub fn new(id: AccountId) -> Self {
        Self {
            id,
            name: String::new(),
            contact: None,
            sandbox: false,
            daily_quota: None,
            max_rate: None,
            suppressed_reasons: all_reasons(),
            sending: Sending::Enabled,
            auto_pause: false,
            fresh_start: None,
            tags: BTreeMap::new(),
            created_at: Timestamp::default(),
        }
    }

    /// # Errors
    /// [`Error::Invalid`].
    fn check(&self) -> Result<(), Error> {
        let invalid = |reason| Err(Error::Invalid { what: Self::KIND, reason });
        let fits = |text: &str, max| text.chars().count() <= max && !text.chars().any(char::is_control);
        if !fits(&self.name, MAX_NAME) {
            return invalid("its name must be at most 64 characters, without control characters");
        }
        if self.daily_quota == Some(0) || self.max_rate == Some(0) {
            return invalid("a quota of nothing is a pause: a quota is at least 1");
        }
        if self.sending.pause().is_some_and(|pause| !fits(&pause.reason, MAX_REASON)) {
            return invalid("the reason of a pause must be at most 256 characters, without control characters");
        }
        tags::check(Self::KIND, &self.tags)
    }
}

impl Item for Tenant {
    const TABLE: &'static str = "accounts";
    const KIND: &'static str = "account";
    const BOUND: &'static str = "max_accounts";

    fn account(&self) -> AccountId {
        self.id
    }

    /// The number says it all.
    fn name(&self) -> String {
        String::new()
    }
}

/// All accounts. Clones share them.
#[derive(Clone, Debug)]
pub struct Tenants(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    catalog: Catalog<Tenant>,
    clock: Clock,
    /// Held across a change.
    changing: Mutex<()>,
}

impl Tenants {
    pub(crate) fn open(store: &Store, clock: Clock, settings: &Settings) -> Result<Self, Error> {
        let catalog = Catalog::open(store, settings.max_accounts)?;
        Ok(Self(Arc::new(Inner { catalog, clock, changing: Mutex::default() })))
    }

    /// The account of this number, from memory; one that nobody has made is as
    /// [`Tenant::new`] has it.
    #[must_use]
    pub fn find(&self, id: AccountId) -> Arc<Tenant> {
        self.made(id).unwrap_or_else(|| Arc::new(Tenant::new(id)))
    }

    /// The account, where somebody has made it.
    #[must_use]
    pub fn made(&self, id: AccountId) -> Option<Arc<Tenant>> {
        self.0.catalog.find(id, "")
    }

    /// Those that somebody has made, in the order of their numbers.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Tenant>> {
        self.0.catalog.all()
    }

    /// Grows with every change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.catalog.revision()
    }

    /// Says when there was a change.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.catalog.changes()
    }

    /// Makes an account, as of now. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AlreadyExists`], [`Error::Full`] or [`Error::Store`].
    pub async fn create(&self, tenant: Tenant) -> Result<Arc<Tenant>, Error> {
        tenant.check()?;
        let _changing = self.0.changing.lock().await;
        if self.made(tenant.id).is_some() {
            return Err(Error::AlreadyExists { what: Tenant::KIND, name: tenant.id.to_string() });
        }
        self.0.catalog.insert(Tenant { created_at: self.0.clock.now(), ..tenant }).await
    }

    /// Adds or replaces all of them or none. Durable when it returns. Their time of creation
    /// is kept, or is now.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Full`] or [`Error::Store`].
    pub async fn put(&self, tenants: Vec<Tenant>) -> Result<(), Error> {
        tenants.iter().try_for_each(Tenant::check)?;
        let _changing = self.0.changing.lock().await;
        let now = self.0.clock.now();
        let dated = tenants.into_iter().map(|tenant| {
            let created_at = self.made(tenant.id).map_or(now, |made| made.created_at);
            Tenant { created_at, ..tenant }
        });
        let tenants: Vec<_> = dated.collect();
        let new = tenants.iter().filter(|tenant| self.made(tenant.id).is_none()).count();
        self.0.catalog.check_room(new)?;
        self.0.catalog.put(tenants).await.map(drop)
    }

    /// Changes an account by what it is at this moment, so that no other change is lost; makes
    /// it first where nobody has. Durable when it returns, and holds for the next message.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Full`] or [`Error::Store`].
    pub async fn change(&self, id: AccountId, change: impl FnOnce(&mut Tenant)) -> Result<Arc<Tenant>, Error> {
        let _changing = self.0.changing.lock().await;
        let made = self.made(id);
        let found =
            made.clone().unwrap_or_else(|| Arc::new(Tenant { created_at: self.0.clock.now(), ..Tenant::new(id) }));
        let mut tenant = Tenant::clone(&found);
        change(&mut tenant);
        if made.is_some() && tenant == *found {
            return Ok(found);
        }
        tenant.id = id;
        tenant.check()?;
        if made.is_none() {
            self.0.catalog.check_room(1)?;
        }
        let mut written = self.0.catalog.put(vec![tenant]).await?;
        Ok(written.remove(0))
    }

    /// Forgets an account that has nothing any more; [`crate::Accounts::delete_tenant`] looks.
    pub(crate) async fn delete(&self, id: AccountId) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        if self.made(id).is_none() {
            return Err(Error::NotFound { what: Tenant::KIND, name: id.to_string() });
        }
        self.0.catalog.delete(id, "").await
    }
}
