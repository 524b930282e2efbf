//! When somebody has taken an address off a list: what became of mail before that must not put
//! it back, although it may be told late, and after a crash again.

use std::time::Duration;

use postrider_base::Timestamp;
use postrider_store::{Bulk, BulkOptions, BulkUsage, Edit, Error as StoreError, Store};
use serde::{Deserialize, Serialize};

use super::sweep::sweep;
use super::table::Key;
use crate::Error;

/// Name of the table in the store.
const TABLE: &str = "suppression-removed";

/// How long a removal is remembered. An outcome is told within seconds, unless the relay was down.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// A later form becomes another variant.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Removal {
    V1 { at: Timestamp },
}

#[derive(Debug)]
pub(super) struct Removals(Bulk<Key, Removal>);

impl Removals {
    pub(super) fn open(store: &Store, options: BulkOptions) -> Result<Self, Error> {
        Ok(Self(store.bulk(TABLE, options)?))
    }

    /// Remembers that these are taken off the list. Durable when it returns; where there is no
    /// room for more they are taken off all the same.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn remember(&self, keys: Vec<Key>, at: Timestamp) -> Result<(), Error> {
        match self.0.edit(keys, |_, _| Edit::Put(Removal::V1 { at })).await {
            Ok(_) => Ok(()),
            Err(error @ StoreError::Exceeded(_)) => {
                tracing::warn!(%error, "removals from suppression lists are not remembered");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether what happened at `at` was before the last removal. What can not be read is none:
    /// the address can be taken off again.
    pub(super) fn is_after(&self, key: &Key, at: Timestamp) -> bool {
        self.0.get(key).is_ok_and(|found| found.is_some_and(|Removal::V1 { at: removed }| at <= removed))
    }

    pub(super) async fn repair(&self) -> Result<u64, Error> {
        Ok(self.0.repair().await?)
    }

    pub(super) fn usage(&self) -> BulkUsage {
        self.0.usage()
    }

    /// Forgets what need not be remembered any longer at `now`; says how many.
    ///
    /// # Errors
    /// As [`sweep`].
    pub(super) async fn sweep(&self, now: Timestamp) -> Result<u64, Error> {
        sweep(&self.0, |Removal::V1 { at }| at.saturating_add(REMEMBERED) <= now).await
    }
}
