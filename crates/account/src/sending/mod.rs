//! How an account's mail is sent: configuration sets, pools of addresses, identities.
//!
//! The three name each other, so one lock orders all their changes. Look-ups answer from
//! memory and wait for nobody's change.

mod bulk;
pub(crate) mod catalog;
mod configuration_set;
mod destination;
mod identity;
mod pool;
#[cfg(test)]
mod tests;
mod verification;

use std::sync::Arc;

use postrider_store::Store;
use tokio::sync::Mutex;

use crate::{Error, Settings};
use catalog::Catalog;

pub use configuration_set::{ConfigurationOption, ConfigurationSet, ConfigurationSets, TlsPolicy};
pub use destination::{DestinationTarget, Dimension, DimensionSource, EventDestination, EventType};
pub use identity::{Identities, Identity, IdentityName, Resolved};
pub use pool::{Pool, PoolMember, PoolName, Pools};
pub use verification::{DkimOptions, MailFrom, MailFromFailure, MailedLink, Verification, VerificationStatus};

/// Longest name of a set or pool, as in SES.
const MAX_NAME: usize = 64;

/// What the handles share.
#[derive(Debug)]
struct Tables {
    sets: Catalog<ConfigurationSet>,
    pools: Catalog<Pool>,
    identities: Catalog<Identity>,
    /// Held across a change.
    changing: Mutex<()>,
}

/// Handles on the tables in the store.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) sets: ConfigurationSets,
    pub(crate) pools: Pools,
    pub(crate) identities: Identities,
}

impl Sending {
    pub(crate) fn open(store: &Store, settings: &Settings) -> Result<Self, Error> {
        let tables = Arc::new(Tables {
            sets: Catalog::open(store, settings.max_configuration_sets)?,
            pools: Catalog::open(store, settings.max_pools)?,
            identities: Catalog::open(store, settings.max_identities)?,
            changing: Mutex::default(),
        });
        Ok(Self {
            sets: ConfigurationSets(tables.clone()),
            pools: Pools(tables.clone()),
            identities: Identities(tables),
        })
    }
}
