//! Suppression lists: addresses that get no mail, and why.
//!
//! Each account has a list of its own, and all share the global one. Which entries of an
//! account's list hold for a message, and which of its outcomes make entries, is said by the
//! *reasons in force*: those of its configuration set, or else those of its account.

mod format;
mod global;
mod import;
mod removals;
mod sweep;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Random, Timestamp};
use postrider_mail::{AccountId, EmailAddress, SuppressionList, SuppressionReason, SuppressionSource};
use postrider_store::{Bulk, BulkOptions, BulkUsage, Edit, Store, Table};
use serde::{Deserialize, Serialize};

pub use format::{
    Addresses, Format, ImportEntry, Parsed, RefusedLine, export, export_globally, parse, parse_addresses,
};
pub use global::{GlobalList, GloballySuppressed};
pub use import::ImportReport;
use removals::Removals;
use table::{Key, Row};

use crate::{Audit, Error, Settings, Tenants};

/// Name of the table in the store.
const TABLE: &str = "suppression";
/// Name of the table of pauses that have emptied a list.
const SWEPT: &str = "suppression-swept";

/// New rows that move into a file together: about 10 MB of log, read again after a crash.
const RECENT_ROWS: usize = 100_000;

/// Rows that are removed at once.
const BATCH: usize = 1_000;

/// The entries of an account that has been paused for so long are removed, as SES does.
const KEPT_IN_PAUSE: Duration = Duration::from_hours(90 * 24);

/// A suppressed address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    /// The address, in lower case.
    pub address: String,
    /// Why it is suppressed.
    pub reason: SuppressionReason,
    /// When it was added or last changed.
    pub updated_at: Timestamp,
}

/// Which entries [`Suppression::list`] gives. The default gives all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only entries with this reason.
    pub reason: Option<SuppressionReason>,
    /// Only entries added or changed at or after this time.
    pub since: Option<Timestamp>,
    /// Only entries added or changed before this time.
    pub until: Option<Timestamp>,
    /// Only addresses that contain this text, in any case.
    pub matching: Option<String>,
}

/// The suppression lists of all accounts, and the global one. Clones share them.
#[derive(Clone)]
pub struct Suppression(Arc<Inner>);

struct Inner {
    entries: Bulk<Key, Row>,
    global: GlobalList,
    is_global_on: bool,
    removals: Removals,
    /// Of accounts (by number) that are paused and have lost their entries by that: the pause.
    swept: Table<String, Timestamp>,
    tenants: Tenants,
    clock: Clock,
}

impl Suppression {
    pub(crate) fn open(
        store: &Store,
        tenants: Tenants,
        clock: Clock,
        random: &Random,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let options = BulkOptions { max_rows: settings.max_suppressed, recent_rows: RECENT_ROWS, seed: random.u64() };
        Ok(Self(Arc::new(Inner {
            entries: store.bulk(TABLE, options)?,
            global: GlobalList::open(store, clock.clone(), options)?,
            is_global_on: settings.global_suppression,
            removals: Removals::open(store, options)?,
            swept: store.table(SWEPT),
            tenants,
            clock,
        })))
    }

    /// Whether mail to `address` is suppressed, and by what; `set` are the reasons of the
    /// message's configuration set, where it has its own. To be asked immediately before a
    /// recipient is named to a remote server: it sees every change that has returned, never
    /// waits for another task, and answers from memory for an address that is on no list.
    ///
    /// Should the disk fail to tell what it has of an address that is very likely listed, it
    /// counts as listed for a reason that is in force, [`SuppressionReason::Bounce`] first: a
    /// wrong bounce reaches a sender who can act on it, mail to a complainer can not be undone.
    #[must_use]
    pub fn check(
        &self,
        account: AccountId,
        set: Option<&BTreeSet<SuppressionReason>>,
        address: &EmailAddress,
    ) -> Option<SuppressionSource> {
        let key = Key::new(account, address);
        let is_in_force = |reason: &SuppressionReason| self.is_in_force(account, set, *reason);
        let listed = match self.0.entries.get(&key) {
            Ok(row) => row.map(|Row::V1 { reason, .. }| reason).filter(is_in_force),
            Err(error) => {
                log(&error, "suppression list can not be read");
                [SuppressionReason::Bounce, SuppressionReason::Complaint].into_iter().find(is_in_force)
            }
        };
        if let Some(reason) = listed {
            return Some(SuppressionSource { list: SuppressionList::Account, reason });
        }
        let is_global = self.0.is_global_on && self.0.global.is_listed(&key.address);
        is_global.then_some(SuppressionSource { list: SuppressionList::Global, reason: SuppressionReason::Bounce })
    }

    /// The list that all accounts share.
    #[must_use]
    pub fn global(&self) -> &GlobalList {
        &self.0.global
    }

    /// Adds an address, or replaces its reason, as of now. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn put(
        &self,
        account: AccountId,
        address: &EmailAddress,
        reason: SuppressionReason,
    ) -> Result<(), Error> {
        let row = Row::V1 { reason, updated_at: self.0.clock.now() };
        let key = Key::new(account, address);
        self.0.entries.edit(vec![key], |_, _| Edit::Put(row)).await.map(drop).map_err(full)
    }

    /// The entry of an address.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn get(&self, account: AccountId, address: &EmailAddress) -> Result<Option<Suppressed>, Error> {
        let key = Key::new(account, address);
        let row = self.0.entries.get(&key)?;
        Ok(row.map(|row| suppressed(key, row)))
    }

    /// Takes an address off the list; says whether it was on it. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete(&self, account: AccountId, address: &EmailAddress) -> Result<bool, Error> {
        Ok(self.remove(account, std::slice::from_ref(address)).await? > 0)
    }

    /// Takes addresses off the list in one atomic batch; says how many were on it. What became
    /// of mail until now does not put them back ([`Suppression::record`]). Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`Error::Store`]; none was taken off then.
    pub async fn remove(&self, account: AccountId, addresses: &[EmailAddress]) -> Result<u64, Error> {
        let keys: Vec<_> = addresses.iter().map(|address| Key::new(account, address)).collect();
        // One that can not be read is on the list.
        let is_listed = |key: &&Key| self.0.entries.get(key).map_or(true, |row| row.is_some());
        let listed = keys.iter().filter(is_listed).cloned().collect();
        self.0.removals.remember(listed, self.0.clock.now()).await?;
        Ok(self.0.entries.edit(keys, |_, _| Edit::Remove).await?)
    }

    /// The account's entries that `filter` lets through, in the order of their addresses.
    /// Entries that change meanwhile may be seen either way.
    pub fn list(
        &self,
        account: AccountId,
        filter: Filter,
    ) -> impl Iterator<Item = Result<Suppressed, Error>> + Send + 'static {
        self.list_while(account, filter, || true)
    }

    /// As [`Suppression::list`], which may look at millions of entries before it gives one, as
    /// long as `goes_on` says so. Blocks for the disk.
    pub fn list_while(
        &self,
        account: AccountId,
        filter: Filter,
        goes_on: impl Fn() -> bool + Send + 'static,
    ) -> impl Iterator<Item = Result<Suppressed, Error>> + Send + 'static {
        let first = Key { account, address: String::new() };
        let filter = filter.prepared();
        let rows = self.0.entries.scan_from(&first).map(|row| row.map_err(Error::from));
        rows.take_while(move |row| goes_on() && row.as_ref().map_or(true, |(key, _)| key.account == account))
            .map(|row| row.map(|(key, row)| suppressed(key, row)))
            .filter(move |entry| entry.as_ref().map_or(true, |entry| filter.lets(entry)))
    }

    /// The entries of all accounts, in the order of accounts and addresses.
    pub fn all(&self) -> impl Iterator<Item = Result<(AccountId, Suppressed), Error>> + Send + 'static {
        self.0.entries.scan().map(|row| {
            let (key, row) = row?;
            Ok((key.account, suppressed(key, row)))
        })
    }

    /// Adds an address because of what became of a message at `at`: a server said that the
    /// mailbox does not exist, or its owner complained; if that reason is in force, `set`
    /// being the reasons of the message's configuration set, where it has its own. The same
    /// outcome may be told any number of times: an entry that is as new is left alone, and so
    /// is a complaint by a bounce, which weighs less; and whom somebody has taken off the list
    /// since stays off it. Says whether the list changed.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn record(
        &self,
        account: AccountId,
        set: Option<&BTreeSet<SuppressionReason>>,
        address: &EmailAddress,
        reason: SuppressionReason,
        at: Timestamp,
    ) -> Result<bool, Error> {
        if !self.is_in_force(account, set, reason) {
            return Ok(false);
        }
        let key = Key::new(account, address);
        let removable = key.clone();
        let decide = |_, old: Option<Row>| match old {
            Some(Row::V1 { reason: SuppressionReason::Complaint, .. }) if reason == SuppressionReason::Bounce => {
                Edit::Keep
            }
            Some(Row::V1 { reason: old, updated_at }) if old == reason && updated_at >= at => Edit::Keep,
            None if self.0.removals.is_after(&removable, at) => Edit::Keep,
            _ => Edit::Put(Row::V1 { reason, updated_at: at }),
        };
        Ok(self.0.entries.edit(vec![key], decide).await.map_err(full)? > 0)
    }

    /// Counts a hard bounce for the global list, if that is on.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn record_globally(&self, address: &EmailAddress, at: Timestamp) -> Result<bool, Error> {
        if self.0.is_global_on { self.0.global.record(address, at).await } else { Ok(false) }
    }

    /// Adds entries in one atomic batch, except those that the list has as new or newer; of
    /// several for one address that are equally new the last holds, as it would in batches of
    /// their own. Entries without a time count as of now. Returns how many were added or changed.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`]; none was added then.
    pub async fn add(&self, account: AccountId, entries: Vec<ImportEntry>) -> Result<u64, Error> {
        let now = self.0.clock.now();
        let keys = entries.iter().map(|entry| Key::new(account, &entry.address)).collect();
        let decide = |place: usize, old: Option<Row>| {
            let ImportEntry { reason, updated_at, .. } = &entries[place];
            let updated_at = updated_at.unwrap_or(now);
            match old {
                Some(Row::V1 { updated_at: old, .. }) if old > updated_at => Edit::Keep,
                Some(Row::V1 { updated_at: old, reason: same }) if old == updated_at && same == *reason => Edit::Keep,
                _ => Edit::Put(Row::V1 { reason: *reason, updated_at }),
            }
        };
        self.0.entries.edit(keys, decide).await.map_err(full)
    }

    /// Removes what has had its time: entries of accounts that have been paused for 90 days,
    /// and what the global list need not remember. Says how many. To be called now and then;
    /// nothing depends on when. What an account gets while it is still paused after that stays.
    ///
    /// # Errors
    /// [`Error::Store`], the first; what can be removed is removed all the same.
    pub async fn sweep(&self, audit: &Audit) -> Result<u64, Error> {
        let now = self.0.clock.now();
        let mut removed = self.0.global.sweep(now).await;
        if let Err(error) = self.0.removals.sweep(now).await {
            removed = removed.and(Err(error));
        }
        for tenant in self.0.tenants.list() {
            let swept = self.sweep_account(tenant.id, now, audit).await;
            removed = match (removed, swept) {
                (Ok(before), Ok(swept)) => Ok(before + swept),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
        removed
    }

    /// Removes the entries of an account once for each pause that has lasted for long enough.
    async fn sweep_account(&self, account: AccountId, now: Timestamp, audit: &Audit) -> Result<u64, Error> {
        let key = account.to_string();
        let swept = self.0.swept.get(&key)?;
        let Some(since) = self.paused_since(account) else {
            if swept.is_some() {
                self.0.swept.delete(&key).await?;
            }
            return Ok(0);
        };
        if since.saturating_add(KEPT_IN_PAUSE) > now || swept == Some(since) {
            return Ok(0);
        }
        if self.list(account, Filter::default()).next().is_some() {
            let parameters = serde_json::json!({ "account": account, "pausedSince": since.rfc3339() });
            audit.by_relay("suppression", "ClearSuppressionList", parameters).await;
        }
        let removed = self.clear(account, since).await?;
        self.0.swept.put(&key, &since).await?;
        Ok(removed)
    }

    fn paused_since(&self, account: AccountId) -> Option<Timestamp> {
        self.0.tenants.find(account).sending.pause().map(|pause| pause.at)
    }

    /// Removes all entries of an account, as long as this pause of it lasts.
    async fn clear(&self, account: AccountId, since: Timestamp) -> Result<u64, Error> {
        let mut entries = self.list(account, Filter::default());
        let mut removed = 0;
        let mut failed = None;
        loop {
            let some: Vec<_> = entries.by_ref().take(BATCH).collect();
            let is_last = some.len() < BATCH;
            let mut keys = Vec::with_capacity(some.len());
            for entry in some {
                match entry {
                    Ok(entry) => keys.push(Key { account, address: entry.address }),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            // It may be resumed at any moment.
            let decide = |_, _| if self.paused_since(account) == Some(since) { Edit::Remove } else { Edit::Keep };
            removed += self.0.entries.edit(keys, decide).await?;
            if is_last || self.paused_since(account) != Some(since) {
                return failed.map_or(Ok(removed), Err);
            }
        }
    }

    /// What the lists of the accounts take.
    #[must_use]
    pub fn usage(&self) -> BulkUsage {
        self.0.entries.usage()
    }

    /// Gives up the entries of all lists that damaged files have lost: until then mail to them,
    /// and to a few others, counts as suppressed. The files are kept beside the others. Says how
    /// many parts of files were lost.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn repair(&self) -> Result<u64, Error> {
        Ok(self.0.entries.repair().await? + self.0.global.repair().await? + self.0.removals.repair().await?)
    }

    /// Files of all lists, the global one included, that were found to be damaged.
    #[must_use]
    pub fn damaged_files(&self) -> u64 {
        self.usage().damaged + self.0.global.usage().damaged + self.0.removals.usage().damaged
    }

    /// Whether this reason makes entries of the account's list, and whether its entries hold.
    fn is_in_force(
        &self,
        account: AccountId,
        set: Option<&BTreeSet<SuppressionReason>>,
        reason: SuppressionReason,
    ) -> bool {
        match set {
            Some(reasons) => reasons.contains(&reason),
            None => self.0.tenants.find(account).suppressed_reasons.contains(&reason),
        }
    }
}

impl fmt::Debug for Suppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suppression").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Filter {
    fn prepared(mut self) -> Self {
        self.matching = self.matching.map(|text| text.to_lowercase());
        self
    }

    /// Expects `matching` in lower case.
    fn lets(&self, entry: &Suppressed) -> bool {
        self.reason.is_none_or(|reason| reason == entry.reason)
            && self.since.is_none_or(|since| entry.updated_at >= since)
            && self.until.is_none_or(|until| entry.updated_at < until)
            && self.matching.as_ref().is_none_or(|text| entry.address.contains(text.as_str()))
    }
}

fn suppressed(key: Key, Row::V1 { reason, updated_at }: Row) -> Suppressed {
    Suppressed { address: key.address, reason, updated_at }
}

/// A check could not read a list. Each recipient may meet the same damaged block.
fn log(error: &postrider_store::Error, what: &str) {
    match error.is_of_a_block() {
        true => tracing::debug!(%error, "{what}"),
        false => tracing::error!(%error, "{what}"),
    }
}

/// The bound of the table is one of our settings.
fn full(error: postrider_store::Error) -> Error {
    match error {
        postrider_store::Error::Exceeded(bound) => Error::Full { setting: "max_suppressed", bound },
        error => error.into(),
    }
}
