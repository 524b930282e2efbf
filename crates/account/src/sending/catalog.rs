//! Named things that accounts own, all of them in memory: looked up on a message's way.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::RangeFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use postrider_mail::AccountId;
use postrider_store::{Change, Store, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::Error;
use crate::lookup::Lookup;

/// Something that an account has some of, each by a name of its own.
pub(crate) trait Item: Clone + PartialEq + Serialize + DeserializeOwned {
    /// Name of the table in the store.
    const TABLE: &'static str;
    /// What errors call it.
    const KIND: &'static str;
    /// The key of the settings that bounds how many there are.
    const BOUND: &'static str;
    /// Whose it is.
    fn account(&self) -> AccountId;
    /// What it is found by.
    fn name(&self) -> String;
}

/// A table of the store and all of its rows.
///
/// A row is JSON: its fields are known by their names, so that one of an earlier version
/// lacks some, which have defaults then.
///
/// Whoever changes it holds a lock of their own meanwhile, so that table and memory agree.
pub(crate) struct Catalog<T> {
    table: Table<Key, String>,
    /// For those who look for one: the way of a message.
    lookup: Lookup<Key, T>,
    /// For those who want many.
    known: RwLock<BTreeMap<Key, Arc<T>>>,
    revision: AtomicU64,
    changes: watch::Sender<()>,
    max: u64,
}

/// Rows of one account lie together, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    account: AccountId,
    name: String,
}

impl Key {
    /// All names of the account from this one on, and then all of the next accounts.
    fn from(account: AccountId, name: &str) -> RangeFrom<Self> {
        Self { account, name: name.to_owned() }..
    }
}

impl Hash for Key {
    /// As what it is looked for by.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.account, self.name.as_str()).hash(state);
    }
}

impl postrider_store::Key for Key {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.account.get().to_be_bytes(), self.name.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (account, name) = bytes.split_first_chunk()?;
        Some(Self {
            account: AccountId::new(u64::from_be_bytes(*account))?,
            name: std::str::from_utf8(name).ok()?.to_owned(),
        })
    }
}

impl<T: Item> Catalog<T> {
    pub(crate) fn open(store: &Store, max: u64) -> Result<Self, Error> {
        let table = store.table::<Key, String>(T::TABLE);
        let mut known = BTreeMap::new();
        for row in table.scan() {
            let (key, text) = row?;
            let item: T = serde_json::from_str(&text).map_err(|error| unreadable::<T>(&error))?;
            known.insert(key, Arc::new(item));
        }
        let lookup = Lookup::new();
        lookup.change(known.iter().map(|(key, item)| (key.clone(), Some(item.clone()))));
        let (known, revision) = (RwLock::new(known), AtomicU64::new(0));
        Ok(Self { table, lookup, known, revision, changes: watch::Sender::new(()), max })
    }

    /// Grows with every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Says when there was a change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn has_changed(&self) {
        self.revision.fetch_add(1, Ordering::Release);
        self.changes.send_replace(());
    }

    /// Without a lock that others hold too.
    pub(crate) fn find(&self, account: AccountId, name: &str) -> Option<Arc<T>> {
        self.lookup.find((account, name), |key| key.account == account && key.name == name)
    }

    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn get(&self, account: AccountId, name: &str) -> Result<Arc<T>, Error> {
        self.find(account, name).ok_or_else(|| Error::NotFound { what: T::KIND, name: shown(name) })
    }

    /// In the order of their names.
    pub(crate) fn of_account(&self, account: AccountId) -> Vec<Arc<T>> {
        self.with_prefix(account, "")
    }

    /// The account's items whose names begin so, in the order of their names.
    pub(crate) fn with_prefix(&self, account: AccountId, prefix: &str) -> Vec<Arc<T>> {
        let known = self.known.read();
        let range = known.range(Key::from(account, prefix));
        let begin_so = range.take_while(|(key, _)| key.account == account && key.name.starts_with(prefix));
        begin_so.map(|(_, item)| item.clone()).collect()
    }

    /// Of all accounts, in their order and that of the names.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.known.read().values().cloned().collect()
    }

    /// Adds one that is not there yet. Durable when it returns.
    pub(crate) async fn insert(&self, item: T) -> Result<Arc<T>, Error> {
        if self.find(item.account(), &item.name()).is_some() {
            return Err(Error::AlreadyExists { what: T::KIND, name: item.name() });
        }
        self.check_room(1)?;
        let mut written = self.put(vec![item]).await?;
        Ok(written.remove(0))
    }

    /// Whether there is room for so many more.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub(crate) fn check_room(&self, more: usize) -> Result<(), Error> {
        let count = self.known.read().len();
        if (count + more) as u64 > self.max {
            return Err(Error::Full { setting: T::BOUND, bound: self.max });
        }
        Ok(())
    }

    /// Adds or replaces all of them or none. Durable when it returns.
    pub(crate) async fn put(&self, items: Vec<T>) -> Result<Vec<Arc<T>>, Error> {
        let key = |item: &T| Key { account: item.account(), name: item.name() };
        let mut changes = Vec::with_capacity(items.len());
        for item in &items {
            let text = serde_json::to_string(item).map_err(|error| unreadable::<T>(&error))?;
            changes.push(Change::Put(key(item), text));
        }
        self.table.write(changes).await?;
        let items: Vec<_> = items.into_iter().map(Arc::new).collect();
        self.known.write().extend(items.iter().map(|item| (key(item), item.clone())));
        self.lookup.change(items.iter().map(|item| (key(item), Some(item.clone()))));
        self.has_changed();
        Ok(items)
    }

    /// Shows each of these to `edit`, as it is, and puts what that gives in its place; none
    /// takes it away. All of it or nothing; durable when it returns.
    pub(crate) async fn edit<E: From<Error>>(
        &self,
        names: &[(AccountId, String)],
        mut edit: impl FnMut(usize, Option<&T>) -> Result<Option<T>, E>,
    ) -> Result<(), E> {
        let mut edits = Vec::with_capacity(names.len());
        let mut more = 0;
        for (index, (account, name)) in names.iter().enumerate() {
            let found = self.find(*account, name);
            let edited = edit(index, found.as_deref())?;
            more += usize::from(found.is_none() && edited.is_some());
            if found.as_deref() != edited.as_ref() {
                edits.push((Key { account: *account, name: name.clone() }, edited.map(Arc::new)));
            }
        }
        self.check_room(more)?;
        Ok(self.write(edits).await?)
    }

    async fn write(&self, edits: Vec<(Key, Option<Arc<T>>)>) -> Result<(), Error> {
        if edits.is_empty() {
            return Ok(());
        }
        let row = |(key, item): &(Key, Option<Arc<T>>)| match item {
            None => Ok(Change::Delete(key.clone())),
            Some(item) => serde_json::to_string(&**item).map(|text| Change::Put(key.clone(), text)),
        };
        let rows = edits.iter().map(row).collect::<Result<Vec<_>, _>>();
        self.table.write(rows.map_err(|error| unreadable::<T>(&error))?).await?;
        let mut known = self.known.write();
        for (key, item) in &edits {
            match item {
                Some(item) => drop(known.insert(key.clone(), item.clone())),
                None => drop(known.remove(key)),
            }
        }
        drop(known);
        self.lookup.change(edits);
        self.has_changed();
        Ok(())
    }

    /// Takes one away. Durable when it returns.
    pub(crate) async fn delete(&self, account: AccountId, name: &str) -> Result<(), Error> {
        self.get(account, name)?;
        let key = Key { account, name: name.to_owned() };
        self.table.delete(&key).await?;
        self.known.write().remove(&key);
        self.lookup.change([(key, None)]);
        self.has_changed();
        Ok(())
    }
}

impl<T> fmt::Debug for Catalog<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("rows", &self.known.read().len()).finish_non_exhaustive()
    }
}

/// A name as errors repeat it: one line, not longer than names are.
fn shown(name: &str) -> String {
    postrider_mail::sanitize_text(name, 2 * crate::sending::MAX_NAME)
}

fn unreadable<T: Item>(error: &serde_json::Error) -> Error {
    Error::Store(postrider_store::Error::Format { table: T::TABLE.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use postrider_store::Key as _;

    use super::*;

    #[test]
    fn keys_come_back_from_their_bytes() {
        let key = Key { account: AccountId::default(), name: "news".to_owned() };
        assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(Key::from_bytes(b"short"), None);
        assert_eq!(Key::from_bytes(&[0xff; 20]), None);
    }
}
