//! One typed table.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::row::{self, Row};
use crate::{Error, Key, Store};

/// One change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<K, V> {
    /// Sets the value of a key.
    Put(K, V),
    /// Removes a key, if it is there.
    Delete(K),
}

/// A table of a [`Store`]; clones are handles to the same one.
///
/// Keys are at most 4 KiB long, values at most 64 KiB as postcard writes
/// them. A value's fields are known by their order: append, and bump the
/// table's name when an old value can no longer be read.
#[derive(Debug)]
pub struct Table<K, V> {
    pub(crate) store: Store,
    pub(crate) name: &'static str,
    pub(crate) types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), name: self.name, types: PhantomData }
    }
}

impl<K: Key, V: Serialize + DeserializeOwned> Table<K, V> {
    /// The value of a key. Reads may block for sled's disk, for as long as a
    /// page takes.
    ///
    /// # Errors
    /// [`Error::Format`]; [`Error::Index`] when the view failed, which is
    /// then made anew; [`Error::Log`] when the store is closed.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let found = self.store.view(|view| view.get(&self.key(key)))?;
        found.map(|(_, value)| value_from(self.name, &value)).transpose()
    }

    /// Sets the value of a key; on disk (synced) when it returns.
    ///
    /// # Errors
    /// As [`Store::write`], [`Error::TooLarge`], [`Error::Format`].
    pub async fn put(&self, key: &K, value: &V) -> Result<(), Error> {
        let row = self.put_row(key, value)?;
        self.store.write_rows(vec![row]).await.map(|_| ())
    }

    /// Removes a key, synced, and says whether it was there.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn delete(&self, key: &K) -> Result<bool, Error> {
        let row = self.delete_row(key)?;
        Ok(self.store.write_rows(vec![row]).await? > 0)
    }

    /// All of the changes or none, in order; on disk (synced) when it
    /// returns. One call takes less than a segment of the log, 4 MiB by
    /// default: write large imports in chunks of some thousand.
    ///
    /// # Errors
    /// As [`Store::write`], [`Error::TooLarge`], [`Error::Format`].
    pub async fn write(&self, changes: Vec<Change<K, V>>) -> Result<(), Error> {
        let rows = changes.iter().map(|change| match change {
            Change::Put(key, value) => self.put_row(key, value),
            Change::Delete(key) => self.delete_row(key),
        });
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        self.store.write_rows(rows).await.map(|_| ())
    }

    /// All rows in key order. Changes made meanwhile may be seen or not.
    pub fn scan(&self) -> impl Iterator<Item = Result<(K, V), Error>> + use<K, V> {
        self.rows(row::prefix(self.name))
    }

    /// All rows from this key on, in key order.
    pub fn scan_from(&self, key: &K) -> impl Iterator<Item = Result<(K, V), Error>> + use<K, V> {
        self.rows(self.key(key))
    }

    /// Number of rows, by counting them.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn len(&self) -> Result<u64, Error> {
        let prefix = row::prefix(self.name);
        let rows = self.store.view(|view| Ok(view.rows(prefix.clone(), prefix)))?;
        rows.map(|row| row.map(|_| 1)).sum()
    }

    /// Whether there is no row.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        let prefix = row::prefix(self.name);
        let first = self.store.view(|view| view.rows(prefix.clone(), prefix).next().transpose())?;
        Ok(first.is_none())
    }

    fn rows(&self, from: Vec<u8>) -> impl Iterator<Item = Result<(K, V), Error>> + use<K, V> {
        let (name, prefix) = (self.name, row::prefix(self.name));
        let skip = prefix.len();
        let (rows, failed) = match self.store.view(|view| Ok(view.rows(prefix, from))) {
            Ok(rows) => (Some(rows), None),
            Err(error) => (None, Some(Err(error))),
        };
        let typed = rows.into_iter().flatten().map(move |row| {
            let (key, _, value) = row?;
            let known = key.get(skip..).and_then(K::from_bytes);
            let key = known.ok_or_else(|| format_error(name, &"not a key of this table"))?;
            Ok((key, value_from(name, &value)?))
        });
        failed.into_iter().chain(typed)
    }

    pub(crate) fn put_row(&self, key: &K, value: &V) -> Result<Row, Error> {
        let value = postcard::to_stdvec(value).map_err(|error| format_error(self.name, &error))?;
        Row::new(self.key(key), Some(value))
    }

    pub(crate) fn delete_row(&self, key: &K) -> Result<Row, Error> {
        Row::new(self.key(key), None)
    }

    fn key(&self, key: &K) -> Vec<u8> {
        let mut bytes = row::prefix(self.name);
        bytes.extend(key.to_bytes());
        bytes
    }
}

pub(crate) fn value_from<V: DeserializeOwned>(table: &str, bytes: &[u8]) -> Result<V, Error> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(format_error(table, &"more than a value of this table")),
        Err(error) => Err(format_error(table, &error)),
    }
}

pub(crate) fn format_error(table: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::Format { table: table.into(), reason: reason.to_string() }
}
