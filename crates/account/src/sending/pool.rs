//! Dedicated pools: addresses that only the configuration sets naming the pool send from.

use std::sync::Arc;

use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};

use super::catalog::Item;
use super::{MAX_NAME, Tables};
use crate::Error;

/// Most addresses of one pool.
const MAX_MEMBERS: usize = 256;
/// The largest share that an address can have.
const MAX_WEIGHT: u32 = 1_000;

/// Addresses that an account's mail leaves from, where a configuration set names the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Whose it is.
    pub account: AccountId,
    /// 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, as in SES.
    pub name: String,
    /// Its addresses, in the order of their names.
    #[serde(default)]
    pub members: Vec<PoolMember>,
}

/// One address of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolMember {
    /// Its name in `[delivery.sources]`.
    pub source: String,
    /// Its share of the pool's mail, 1 to 1,000, against the other members'.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// What pools may be called.
#[derive(Clone, Copy, Debug)]
pub struct PoolName;

impl PoolName {
    /// The names that SES gives to pools that nobody makes. Here both mean the one shared
    /// pool: all addresses that are in no other.
    pub const SHARED: [&'static str; 2] = ["ses-shared-pool", "ses-default-dedicated-pool"];

    /// Whether it is a name of the shared pool.
    #[must_use]
    pub fn is_shared(name: &str) -> bool {
        Self::SHARED.contains(&name)
    }

    pub(super) fn check(name: &str) -> Result<(), Error> {
        let invalid = |reason| Err(Error::Invalid { what: Pool::KIND, reason });
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(allowed) {
            return invalid("its name must be 1 to 64 lower-case letters, digits, dots, - and _");
        }
        if Self::is_shared(name) {
            return invalid("its name is one of the shared pool's: all addresses that are in no other pool");
        }
        Ok(())
    }
}

impl Item for Pool {
    const TABLE: &'static str = "pools";
    const KIND: &'static str = "pool";
    const BOUND: &'static str = "max_pools";

    fn account(&self) -> AccountId {
        self.account
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// The dedicated pools of all accounts. Clones share them.
#[derive(Clone, Debug)]
pub struct Pools(pub(super) Arc<Tables>);

impl Pools {
    /// Grows with every change of any pool, so that what is made from them can be kept.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.pools.revision()
    }

    /// Changes with any pool.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.pools.changes()
    }

    /// The pool of this name, from memory.
    #[must_use]
    pub fn find(&self, account: AccountId, name: &str) -> Option<Arc<Pool>> {
        self.0.pools.find(account, name)
    }

    /// The account's pools, in the order of their names.
    #[must_use]
    pub fn list(&self, account: AccountId) -> Vec<Arc<Pool>> {
        self.0.pools.of_account(account)
    }

    /// The pools of all accounts.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.0.pools.all()
    }

    /// Makes a pool without addresses. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AlreadyExists`], [`Error::Full`] or [`Error::Store`].
    pub async fn create(&self, account: AccountId, name: &str) -> Result<Arc<Pool>, Error> {
        PoolName::check(name)?;
        let _changing = self.0.changing.lock().await;
        self.0.pools.insert(Pool { account, name: name.to_owned(), members: Vec::new() }).await
    }

    /// Puts an address into a pool, or changes its weight there. An address is in one pool
    /// at most: it leaves the account's other pool, whose name is returned. Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] (name, weight, more than 256 addresses),
    /// [`Error::InUse`] when another account has the address, or [`Error::Store`].
    pub async fn assign(
        &self,
        account: AccountId,
        name: &str,
        source: &str,
        weight: u32,
    ) -> Result<Option<String>, Error> {
        let invalid = |reason| Error::Invalid { what: Pool::KIND, reason };
        Self::check_member(source, weight)?;
        let _changing = self.0.changing.lock().await;
        let mut pool = Pool::clone(&*self.0.pools.get(account, name)?);
        let mut left = None;
        let mut changed = Vec::new();
        if let Some(other) = self.of_source(source).filter(|other| other.name != name || other.account != account) {
            if other.account != account {
                let by = format!("account {}", other.account);
                return Err(Error::InUse { what: "address", name: source.to_owned(), by });
            }
            let mut other = Pool::clone(&other);
            other.members.retain(|member| member.source != source);
            left = Some(other.name.clone());
            changed.push(other);
        }
        pool.members.retain(|member| member.source != source);
        if pool.members.len() >= MAX_MEMBERS {
            return Err(invalid("a pool has 256 addresses at most"));
        }
        pool.members.push(PoolMember { source: source.to_owned(), weight });
        pool.members.sort_by(|a, b| a.source.cmp(&b.source));
        changed.push(pool);
        self.0.pools.put(changed).await?;
        Ok(left)
    }

    /// Takes an address out of a pool: it is in the shared one from then on. Durable when
    /// it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the pool, or the address in it) or [`Error::Store`].
    pub async fn remove(&self, account: AccountId, name: &str, source: &str) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        let mut pool = Pool::clone(&*self.0.pools.get(account, name)?);
        let before = pool.members.len();
        pool.members.retain(|member| member.source != source);
        if pool.members.len() == before {
            return Err(Error::NotFound { what: "address of the pool", name: source.to_owned() });
        }
        self.0.pools.put(vec![pool]).await?;
        Ok(())
    }

    /// Forgets a pool: its addresses are in the shared one from then on. Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InUse`] while a configuration set names it, or
    /// [`Error::Store`].
    pub async fn delete(&self, account: AccountId, name: &str) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        self.0.pools.get(account, name)?;
        let sets = self.0.sets.of_account(account);
        if let Some(set) = sets.iter().find(|set| set.pool.as_deref() == Some(name)) {
            let by = format!("configuration set {}", set.name);
            return Err(Error::InUse { what: Pool::KIND, name: name.to_owned(), by });
        }
        self.0.pools.delete(account, name).await
    }

    /// What [`Pools::assign`] refuses of one address.
    fn check_member(source: &str, weight: u32) -> Result<(), Error> {
        let invalid = |reason| Err(Error::Invalid { what: Pool::KIND, reason });
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return invalid("the weight of an address must be 1 to 1000");
        }
        if !(1..=MAX_NAME).contains(&source.len()) || source.contains(char::is_control) {
            return invalid("the name of an address must be 1 to 64 printable characters");
        }
        Ok(())
    }

    /// Whether a pool may be so, its other members apart.
    pub(super) fn check(pool: &Pool) -> Result<(), Error> {
        PoolName::check(&pool.name)?;
        if pool.members.len() > MAX_MEMBERS {
            return Err(Error::Invalid { what: Pool::KIND, reason: "a pool has 256 addresses at most" });
        }
        pool.members.iter().try_for_each(|member| Self::check_member(&member.source, member.weight))
    }

    fn of_source(&self, source: &str) -> Option<Arc<Pool>> {
        self.all().into_iter().find(|pool| pool.members.iter().any(|member| member.source == source))
    }
}
