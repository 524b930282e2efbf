//! Suppression lists: addresses that get no mail, and why.

mod format;
mod table;

use std::fmt;
use std::sync::Arc;

use postrider_base::{Clock, Random, Timestamp};
use postrider_mail::{AccountId, EmailAddress, SuppressionList, SuppressionReason, SuppressionSource};
use postrider_store::{Change, Store, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

pub use format::{Format, ImportEntry, Parsed, RefusedLine, export, parse};
use table::{Fingerprints, Key, Row};

use crate::{Error, Settings};

/// Name of the table in the store.
const TABLE: &str = "suppression";

/// Rows in one atomic batch of an import: enough that its syncs do not count, few
/// enough that nobody waits long behind one.
const BATCH: usize = 1_000;

/// Refused lines that an [`ImportReport`] lists; the others are only counted.
const REPORTED_LINES: usize = 1_000;

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

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// The form of the text.
    pub format: Format,
    /// Entries added or changed.
    pub added: u64,
    /// Entries that the list already had, as new or newer.
    pub unchanged: u64,
    /// Lines that could not be understood.
    pub refused: u64,
    /// The first 1,000 of those, with reasons.
    pub refused_lines: Vec<RefusedLine>,
}

/// The suppression lists of all accounts. Clones share them.
#[derive(Clone)]
pub struct Suppression(Arc<Inner>);

struct Inner {
    table: Table<Key, Row>,
    /// Has every key of `table`; may have more.
    fingerprints: Fingerprints,
    /// Held across a change, so that "only if newer" and the bound hold.
    changing: Mutex<()>,
    clock: Clock,
    max: u64,
}

impl Suppression {
    pub(crate) fn open(store: &Store, clock: Clock, random: &Random, settings: &Settings) -> Result<Self, Error> {
        let table = store.table::<Key, Row>(TABLE);
        let fingerprints = Fingerprints::new(random);
        for row in table.scan() {
            fingerprints.insert(&row?.0);
        }
        Ok(Self(Arc::new(Inner { table, fingerprints, changing: Mutex::new(()), clock, max: settings.max_suppressed })))
    }

    /// Whether mail to `address` is suppressed, and by what. To be asked immediately
    /// before a recipient is named to a remote server: it sees every change that has
    /// returned, never waits, and answers from memory for an address that is on no list.
    ///
    /// Should the store fail to read a row whose presence is as good as certain, the
    /// address counts as suppressed for [`SuppressionReason::Bounce`]: a wrong bounce
    /// reaches a sender who can act on it, mail to a complainer can not be undone.
    #[must_use]
    pub fn check(&self, account: AccountId, address: &EmailAddress) -> Option<SuppressionSource> {
        let key = Key::new(account, address);
        if !self.0.fingerprints.may_contain(&key) {
            return None;
        }
        let reason = match self.0.table.get(&key) {
            Ok(Some(Row::V1 { reason, .. })) => reason,
            Ok(None) => return None,
            Err(error) => {
                tracing::error!(%error, "suppression list can not be read");
                SuppressionReason::Bounce
            }
        };
        let list = SuppressionList::Account;
        Some(SuppressionSource { list, reason })
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
        let now = self.0.clock.now();
        let row = Row::V1 { reason, updated_at: now };
        let _changing = self.0.changing.lock().await;
        self.write(vec![(Key::new(account, address), row)]).await
    }

    /// The entry of an address.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn get(&self, account: AccountId, address: &EmailAddress) -> Result<Option<Suppressed>, Error> {
        let key = Key::new(account, address);
        let row = self.0.table.get(&key)?;
        Ok(row.map(|row| suppressed(key, row)))
    }

    /// Takes an address off the list; says whether it was on it. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete(&self, account: AccountId, address: &EmailAddress) -> Result<bool, Error> {
        let key = Key::new(account, address);
        let _changing = self.0.changing.lock().await;
        let was = self.0.table.delete(&key).await?;
        self.0.fingerprints.remove(&key);
        Ok(was)
    }

    /// The account's entries that `filter` lets through, in the order of their addresses.
    /// Entries that change meanwhile may be seen either way.
    pub fn list(
        &self,
        account: AccountId,
        filter: Filter,
    ) -> impl Iterator<Item = Result<Suppressed, Error>> + Send + 'static {
        let first = Key { account, address: String::new() };
        let filter = filter.prepared();
        self.0
            .table
            .scan_from(&first)
            .map(|row| row.map_err(Error::from))
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.account == account))
            .map(|row| row.map(|(key, row)| suppressed(key, row)))
            .filter(move |entry| entry.as_ref().map_or(true, |entry| filter.lets(entry)))
    }

    /// Adds an address because a server said at `at` that its mailbox does not exist.
    /// The same bounce may be told any number of times: an entry that is as new is left
    /// alone, and so is a complaint, which weighs more. Says whether the list changed.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn record_hard_bounce(
        &self,
        account: AccountId,
        address: &EmailAddress,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let key = Key::new(account, address);
        let _changing = self.0.changing.lock().await;
        if let Some(Row::V1 { reason, updated_at }) = self.0.table.get(&key)?
            && (updated_at >= at || reason == SuppressionReason::Complaint)
        {
            return Ok(false);
        }
        let reason = SuppressionReason::Bounce;
        let row = Row::V1 { reason, updated_at: at };
        self.write(vec![(key, row)]).await?;
        Ok(true)
    }

    /// Adds what a text in any [`Format`] lists, in batches that are durable one after
    /// the other; says after each how many lines or elements have been dealt with.
    /// Entries without a time count as of now; one that the list has as new stays.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`]: the batches before are kept, and importing
    /// the same text again is harmless.
    pub async fn import(
        &self,
        account: AccountId,
        text: &str,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<ImportReport, Error> {
        let mut parsed = parse(text);
        let mut report =
            ImportReport { format: parsed.format(), added: 0, unchanged: 0, refused: 0, refused_lines: Vec::new() };
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let item = parsed.next();
            let done = item.is_none();
            match item {
                Some(Ok(entry)) => batch.push(entry),
                Some(Err(line)) => report.refuse(line),
                None => {}
            }
            if batch.len() == BATCH || done {
                let entries = batch.len() as u64;
                let added = self.add(account, std::mem::take(&mut batch)).await?;
                report.added += added;
                report.unchanged += entries - added;
                progress(report.added + report.unchanged + report.refused);
            }
            if done {
                return Ok(report);
            }
        }
    }

    /// Adds entries in one atomic batch, except those that the list has as new or newer.
    /// Entries without a time count as of now. Returns how many were added or changed.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`]; none was added then.
    pub async fn add(&self, account: AccountId, entries: Vec<ImportEntry>) -> Result<u64, Error> {
        let now = self.0.clock.now();
        let _changing = self.0.changing.lock().await;
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = Key::new(account, &entry.address);
            let updated_at = entry.updated_at.unwrap_or(now);
            let old = if self.0.fingerprints.may_contain(&key) { self.0.table.get(&key)? } else { None };
            let newer = old.is_none_or(|Row::V1 { updated_at: old, .. }| old < updated_at);
            if newer {
                let reason = entry.reason;
                rows.push((key, Row::V1 { reason, updated_at }));
            }
        }
        let changed = rows.len() as u64;
        self.write(rows).await?;
        Ok(changed)
    }

    /// Writes rows as one atomic batch. The caller holds `changing`.
    async fn write(&self, rows: Vec<(Key, Row)>) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let fingerprints = &self.0.fingerprints;
        let new = rows.iter().filter(|(key, _)| !fingerprints.may_contain(key));
        if fingerprints.len() + new.count() as u64 > self.0.max {
            return Err(Error::Full { setting: "max_suppressed", bound: self.0.max });
        }
        // First, because this future may be dropped after the row is written: a
        // fingerprint too many costs a look-up, one too few a mail.
        for (key, _) in &rows {
            fingerprints.insert(key);
        }
        let changes = rows.into_iter().map(|(key, row)| Change::Put(key, row));
        Ok(self.0.table.write(changes.collect()).await?)
    }
}

impl fmt::Debug for Suppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suppression").field("len", &self.0.fingerprints.len()).finish_non_exhaustive()
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

impl ImportReport {
    fn refuse(&mut self, line: RefusedLine) {
        self.refused += 1;
        if self.refused_lines.len() < REPORTED_LINES {
            self.refused_lines.push(line);
        }
    }
}

fn suppressed(key: Key, Row::V1 { reason, updated_at }: Row) -> Suppressed {
    Suppressed { address: key.address, reason, updated_at }
}
