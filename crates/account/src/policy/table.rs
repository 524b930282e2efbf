//! The policies of all credentials and identities: kept in the store, compiled in memory.

mod bulk;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use postrider_mail::AccountId;
use postrider_store::{Change, Store, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{Attached, Policy, PolicySet};
use crate::{Credentials, Error, Identities, IdentityName, Realm, Settings};
pub use bulk::PolicyEdit;

/// Name of the table in the store.
const TABLE: &str = "policies";
/// Most policies of one credential or identity, as in SES.
const MAX_POLICIES: usize = 20;
/// Policies without an owner that are removed together.
const ORPHANS: usize = 1_000;
/// What errors call one.
const KIND: &str = "policy";

/// What policies are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyOwner {
    /// The credential of this user name.
    Credential(String),
    /// An account's identity.
    Identity(AccountId, IdentityName),
}

impl fmt::Display for PolicyOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(user_name) => write!(f, "credential {user_name}"),
            Self::Identity(_, name) => write!(f, "identity {name}"),
        }
    }
}

/// All policies. Clones share them. Look-ups take no lock.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    table: Table<Key, String>,
    known: ArcSwap<Known>,
    revision: AtomicU64,
    /// Held across a change of `table` and `known`, so that the two agree.
    changing: Mutex<()>,
    credentials: Credentials,
    identities: Identities,
    max: u64,
}

/// Sets by the name of what they are attached to.
type Sets = HashMap<Arc<str>, Arc<PolicySet>>;

/// A change makes a new one of these, so those of an account lie in a map of their own.
#[derive(Clone, Default)]
struct Known {
    credentials: Sets,
    identities: HashMap<AccountId, Arc<Sets>>,
    /// How many policies there are.
    count: u64,
}

/// The form on disk: JSON, whose fields are known by their names.
#[derive(Serialize, Deserialize)]
struct Row {
    owner: PolicyOwner,
    name: String,
    /// The policy as it was given.
    text: String,
}

/// One byte for the kind of the owner, the account of an identity, then the owner's name and
/// the policy's, with a zero byte between: neither has one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key(Vec<u8>);

impl Key {
    fn of(owner: &PolicyOwner, name: &str) -> Self {
        let (kind, account, of) = match owner {
            PolicyOwner::Credential(user_name) => (b'c', None, user_name.as_str()),
            PolicyOwner::Identity(account, name) => (b'i', Some(*account), name.key()),
        };
        let account = account.map(|account| account.get().to_be_bytes());
        let account: &[u8] = account.as_ref().map_or(&[], |bytes| bytes);
        Self([&[kind], account, of.as_bytes(), &[0], name.as_bytes()].concat())
    }
}

impl postrider_store::Key for Key {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.to_vec()))
    }
}

impl Policies {
    pub(crate) fn open(
        store: &Store,
        credentials: Credentials,
        identities: Identities,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let table = store.table::<Key, String>(TABLE);
        let mut by_owner: HashMap<Vec<u8>, (PolicyOwner, Vec<Policy>)> = HashMap::new();
        for row in table.scan() {
            let (_, text) = row?;
            let row: Row = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
            // Its owner went, and a crash came before it. `forget_orphans` removes it.
            if check_owner(&credentials, &identities, &row.owner).is_err() {
                continue;
            }
            let policy =
                Policy::parse(&row.name, &row.text, attached(&row.owner)).map_err(|error| unreadable(&error))?;
            let (_, policies) = by_owner.entry(Key::of(&row.owner, "").0).or_insert_with(|| (row.owner, Vec::new()));
            policies.push(policy);
        }
        let mut known = Known::default();
        for (owner, policies) in by_owner.into_values() {
            known.set(&owner, PolicySet::new(policies));
        }
        Ok(Self(Arc::new(Inner {
            table,
            known: ArcSwap::from_pointee(known),
            revision: AtomicU64::new(0),
            changing: Mutex::default(),
            credentials,
            identities,
            max: settings.max_policies,
        })))
    }

    /// The policies of a credential; none when it has none: then it may do everything with its
    /// account's identities.
    #[must_use]
    pub fn of_credential(&self, user_name: &str) -> Option<Arc<PolicySet>> {
        self.0.known.load().credentials.get(user_name).cloned()
    }

    /// Whether there is such a credential. Sessions outlive theirs, and what has no policies
    /// any more because it was deleted may not do everything.
    pub(super) fn know_credential(&self, user_name: &str) -> bool {
        self.0.credentials.exist(user_name)
    }

    /// The policies of exactly this identity; none when it has none.
    #[must_use]
    pub fn of_identity(&self, account: AccountId, name: &IdentityName) -> Option<Arc<PolicySet>> {
        self.0.known.load().identities.get(&account)?.get(name.key()).cloned()
    }

    /// The policies of either.
    #[must_use]
    pub fn of(&self, owner: &PolicyOwner) -> Option<Arc<PolicySet>> {
        match owner {
            PolicyOwner::Credential(user_name) => self.of_credential(user_name),
            PolicyOwner::Identity(account, name) => self.of_identity(*account, name),
        }
    }

    /// Grows with every change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    /// Attaches a policy, in the place of one of the same name; says whether there was one.
    /// Durable when it returns, and in force for the next message.
    ///
    /// # Errors
    /// [`Error::Policy`]: the policy; [`Error::NoSuchUser`] or [`Error::NotFound`]: what it is
    /// to be attached to; [`Error::Invalid`]: that has 20 policies; [`Error::Full`] or
    /// [`Error::Store`].
    pub async fn put(&self, owner: &PolicyOwner, name: &str, text: &str, realm: &Realm) -> Result<bool, Error> {
        let arn = match owner {
            PolicyOwner::Identity(account, name) => Some(realm.identity(*account, name)),
            PolicyOwner::Credential(_) => None,
        };
        let place = arn.as_ref().map_or(Attached::Credential, |arn| Attached::Identity(Some(arn)));
        let policy = Policy::parse(name, text, place)?;
        let _changing = self.0.changing.lock().await;
        self.check_owner(owner)?;
        let mut policies = self.of(owner).map_or_else(Vec::new, |set| set.policies().to_vec());
        let before = policies.len();
        policies.retain(|known| known.name() != name);
        let is_replaced = policies.len() < before;
        if policies.len() >= MAX_POLICIES {
            return Err(Error::Invalid { what: KIND, reason: "there are 20 already, and that is the most" });
        }
        if !is_replaced && self.0.known.load().count >= self.0.max {
            return Err(Error::Full { setting: "max_policies", bound: self.0.max });
        }
        let row = Row { owner: owner.clone(), name: name.to_owned(), text: text.to_owned() };
        let row = serde_json::to_string(&row).map_err(|error| unreadable(&error))?;
        self.0.table.put(&Key::of(owner, name), &row).await?;
        policies.push(policy);
        self.has_changed(owner, policies);
        Ok(is_replaced)
    }

    /// Takes a policy away. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Store`].
    pub async fn delete(&self, owner: &PolicyOwner, name: &str) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        let mut policies = self.of(owner).map_or_else(Vec::new, |set| set.policies().to_vec());
        let before = policies.len();
        policies.retain(|known| known.name() != name);
        if policies.len() == before {
            return Err(Error::NotFound { what: KIND, name: postrider_mail::sanitize_text(name, 64) });
        }
        self.0.table.delete(&Key::of(owner, name)).await?;
        self.has_changed(owner, policies);
        Ok(())
    }

    /// Takes all policies of a credential or identity away, which is about to be forgotten, and
    /// says how many there were. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn forget(&self, owner: &PolicyOwner) -> Result<usize, Error> {
        let _changing = self.0.changing.lock().await;
        self.remove(owner).await
    }

    /// Takes away what an earlier credential or identity of this name has left, before a new
    /// one is made: nobody means it for that. Leaves those of one that is there. Durable when
    /// it returns.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn forget_remains(&self, owner: &PolicyOwner) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        match self.check_owner(owner) {
            Ok(()) => Ok(()),
            Err(_) => self.remove(owner).await.map(drop),
        }
    }

    /// Removes policies whose credential or identity is no more, as a crash between the two
    /// may leave them; says how many. They are in force for nobody, but would be for the next
    /// one of that name. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn forget_orphans(&self) -> Result<usize, Error> {
        let _changing = self.0.changing.lock().await;
        let mut orphans = Vec::new();
        for row in self.0.table.scan() {
            let (key, text) = row?;
            let row: Row = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
            if self.check_owner(&row.owner).is_err() {
                orphans.push(key);
            }
        }
        let count = orphans.len();
        // What is left by a crash is few; so many fit into the log at once.
        for part in orphans.chunks(ORPHANS) {
            self.0.table.write(part.iter().cloned().map(Change::Delete).collect()).await?;
        }
        Ok(count)
    }

    /// Takes all of an owner's away, those too that are in the store alone. The caller holds
    /// `changing`.
    async fn remove(&self, owner: &PolicyOwner) -> Result<usize, Error> {
        let first = Key::of(owner, "");
        let mut keys = Vec::new();
        for row in self.0.table.scan_from(&first) {
            let (key, _) = row?;
            if !key.0.starts_with(&first.0) {
                break;
            }
            keys.push(Change::Delete(key));
        }
        let count = keys.len();
        if count > 0 {
            self.0.table.write(keys).await?;
            self.has_changed(owner, Vec::new());
        }
        Ok(count)
    }

    fn check_owner(&self, owner: &PolicyOwner) -> Result<(), Error> {
        check_owner(&self.0.credentials, &self.0.identities, owner)
    }

    /// Memory as the store has it now. The caller holds `changing`.
    fn has_changed(&self, owner: &PolicyOwner, policies: Vec<Policy>) {
        let mut known = Known::clone(&self.0.known.load());
        known.set(owner, PolicySet::new(policies));
        self.0.known.store(Arc::new(known));
        self.0.revision.fetch_add(1, Ordering::Release);
    }
}

impl Known {
    /// An empty set is none.
    fn set(&mut self, owner: &PolicyOwner, set: PolicySet) {
        let added = set.policies().len() as u64;
        let set = (added > 0).then(|| Arc::new(set));
        let replaced = match owner {
            PolicyOwner::Credential(user_name) => replace(&mut self.credentials, user_name, set),
            PolicyOwner::Identity(account, name) => {
                let of_account = self.identities.entry(*account).or_default();
                let replaced = replace(Arc::make_mut(of_account), name.key(), set);
                if of_account.is_empty() {
                    self.identities.remove(account);
                }
                replaced
            }
        };
        self.count = self.count + added - replaced.map_or(0, |set| set.policies().len() as u64);
    }
}

fn replace(sets: &mut Sets, name: &str, set: Option<Arc<PolicySet>>) -> Option<Arc<PolicySet>> {
    match set {
        Some(set) => sets.insert(name.into(), set),
        None => sets.remove(name),
    }
}

/// Whether what policies are attached to is there.
fn check_owner(credentials: &Credentials, identities: &Identities, owner: &PolicyOwner) -> Result<(), Error> {
    match owner {
        PolicyOwner::Credential(user_name) => {
            let found = credentials.get(user_name);
            found.map(drop).ok_or_else(|| Error::NoSuchUser(postrider_mail::sanitize_text(user_name, 64)))
        }
        PolicyOwner::Identity(account, name) => {
            let found = identities.find(*account, name);
            found.map(drop).ok_or_else(|| Error::NotFound { what: "identity", name: name.to_string() })
        }
    }
}

/// What was put when the realm was another one stays attached to its identity.
fn attached(owner: &PolicyOwner) -> Attached<'static> {
    match owner {
        PolicyOwner::Credential(_) => Attached::Credential,
        PolicyOwner::Identity(..) => Attached::Identity(None),
    }
}

fn unreadable(error: &dyn fmt::Display) -> Error {
    Error::Store(postrider_store::Error::Format { table: TABLE.to_owned(), reason: error.to_string() })
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies").field("count", &self.0.known.load().count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
