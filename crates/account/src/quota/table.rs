//! The counts in the store: one row for an hour of a holder.

use std::collections::BTreeMap;

use postrider_base::Timestamp;
use postrider_mail::AccountId;
use postrider_store::{Batch, Table};
use serde::{Deserialize, Serialize};

use super::Holder;
use super::window::{DAY, minute_of};
use crate::Error;

/// Name of the table in the store.
pub(super) const TABLE: &str = "usage";

/// Rows of the past that are deleted at once: a batch is bounded.
const DELETED: usize = 1_000;

/// What a row counts. The oldest hours come first in the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Since 1970.
    pub(super) hour: u64,
    pub(super) holder: Holder,
}

/// Recipients by the minute of the hour, where there are some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hour {
    pub(super) minutes: BTreeMap<u8, u32>,
}

impl postrider_store::Key for Key {
    fn to_bytes(&self) -> Vec<u8> {
        let hour = self.hour.to_be_bytes();
        match &self.holder {
            Holder::Account(account) => [&hour[..], b"a", &account.get().to_be_bytes()].concat(),
            Holder::Credential(name) => [&hour[..], b"c", name.as_bytes()].concat(),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hour, holder) = bytes.split_first_chunk()?;
        let holder = match holder.split_first()? {
            (b'a', number) => AccountId::new(u64::from_be_bytes(number.try_into().ok()?)).map(Holder::Account),
            (b'c', name) => std::str::from_utf8(name).ok().map(|name| Holder::Credential(name.to_owned())),
            _ => None,
        };
        Some(Self { hour: u64::from_be_bytes(*hour), holder: holder? })
    }
}

/// Recipients that were sent to, by holder and minute: what is to be added to the store.
#[derive(Clone, Debug, Default)]
pub struct Sent(BTreeMap<Key, Hour>);

impl Sent {
    /// Adds a message of this time.
    pub fn add(&mut self, holder: impl Into<Holder>, recipients: u32, at: Timestamp) {
        let minute = minute_of(at);
        let key = Key { hour: minute / 60, holder: holder.into() };
        // Below 60.
        let of_hour = u8::try_from(minute % 60).unwrap_or(0);
        add(self.0.entry(key).or_default(), of_hour, recipients);
    }

    /// How many rows of the store it concerns.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn save(table: &Table<Key, Hour>, sent: &Sent, now: u64, batch: &mut Batch) -> Result<(), Error> {
    let oldest = now.saturating_sub(DAY) / 60;
    for (key, hour) in &sent.0 {
        if key.hour < oldest {
            continue;
        }
        let mut row = table.get(key)?.unwrap_or_default();
        hour.minutes.iter().for_each(|(minute, recipients)| add(&mut row, *minute, *recipients));
        batch.put(table, key, &row)?;
    }
    for row in table.scan().take(DELETED) {
        let (key, _) = row?;
        if key.hour >= oldest {
            break;
        }
        batch.delete(table, &key)?;
    }
    Ok(())
}

fn add(hour: &mut Hour, minute: u8, recipients: u32) {
    let count = hour.minutes.entry(minute).or_default();
    *count = count.saturating_add(recipients);
}

#[cfg(test)]
mod tests {
    use postrider_store::Key as _;

    use super::*;

    #[test]
    fn keys_come_back_from_their_bytes() {
        for holder in [Holder::Account(AccountId::default()), Holder::Credential("AKIAEXAMPLE".to_owned())] {
            let key = Key { hour: 490_000, holder };
            assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
        }
        for bad in [&b"short"[..], &[0; 8], &[0; 17], b"\0\0\0\0\0\0\0\0a1", b"\0\0\0\0\0\0\0\0c\xff"] {
            assert_eq!(Key::from_bytes(bad), None);
        }
    }
}
