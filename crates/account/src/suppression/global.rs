//! The list that all accounts share: addresses whose mailboxes servers said do not exist,
//! whoever wrote to them. An entry ends by itself, later with each bounce.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Timestamp};
use postrider_mail::EmailAddress;
use postrider_store::{Bulk, BulkOptions, BulkUsage, Edit, Store};
use serde::{Deserialize, Serialize};

use super::full;
use super::sweep::sweep;
use crate::Error;

/// Name of the table in the store.
const TABLE: &str = "global-suppression";

const DAY: Duration = Duration::from_hours(24);

/// For how many days an address is listed after its first, second ... hard bounce; the last
/// holds for all further ones. SES names only the longest.
const STEPS: [u32; 5] = [1, 2, 4, 8, 14];

/// How long the number of bounces is remembered after an entry's end: who writes every week or
/// month is to come to the longer steps too.
const REMEMBERED: Duration = Duration::from_hours(35 * 24);

/// An entry of the global list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GloballySuppressed {
    /// The address, in lower case.
    pub address: String,
    /// Hard bounces that are remembered; 0 of one that was put there by hand.
    pub bounces: u32,
    /// When it bounced last, or was put there.
    pub updated_at: Timestamp,
    /// When it gets mail again.
    pub until: Timestamp,
}

/// What is kept of an address. A later form becomes another variant.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Row {
    V1 { bounces: u32, updated_at: Timestamp, until: Timestamp },
}

/// The list that all accounts share. It can be asked and changed whether or not it is in
/// force. Clones share it.
#[derive(Clone)]
pub struct GlobalList(Arc<Inner>);

struct Inner {
    /// By address in lower case. Entries whose time is over stay as long as their number of
    /// bounces is remembered.
    entries: Bulk<String, Row>,
    clock: Clock,
}

impl GlobalList {
    pub(super) fn open(store: &Store, clock: Clock, options: BulkOptions) -> Result<Self, Error> {
        Ok(Self(Arc::new(Inner { entries: store.bulk(TABLE, options)?, clock })))
    }

    /// Whether an address (in lower case) gets no mail now. What can not be read is not
    /// listed: the mail itself will say whether the mailbox exists.
    pub(super) fn is_listed(&self, address: &String) -> bool {
        match self.0.entries.get(address) {
            Ok(row) => row.is_some_and(|Row::V1 { until, .. }| self.0.clock.now() < until),
            Err(error) => {
                super::log(&error, "global suppression list can not be read");
                false
            }
        }
    }

    /// The entry of an address, if its time is not over.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn get(&self, address: &EmailAddress) -> Result<Option<GloballySuppressed>, Error> {
        let (address, now) = (address.fold(), self.0.clock.now());
        let row = self.0.entries.get(&address)?;
        Ok(row.map(|row| entry(address, row)).filter(|entry| now < entry.until))
    }

    /// The entries whose time is not over, in the order of their addresses; only those that
    /// contain a text, in any case, if there is one.
    pub fn list(
        &self,
        matching: Option<&str>,
    ) -> impl Iterator<Item = Result<GloballySuppressed, Error>> + Send + 'static {
        self.list_while(matching, || true)
    }

    /// As [`GlobalList::list`], which may look at millions of entries before it gives one, as
    /// long as `goes_on` says so. Blocks for the disk.
    pub fn list_while(
        &self,
        matching: Option<&str>,
        goes_on: impl Fn() -> bool + Send + 'static,
    ) -> impl Iterator<Item = Result<GloballySuppressed, Error>> + Send + 'static {
        let (now, matching) = (self.0.clock.now(), matching.map(str::to_lowercase));
        let lets = move |entry: &GloballySuppressed| {
            now < entry.until && matching.as_ref().is_none_or(|text| entry.address.contains(text))
        };
        let rows = self.0.entries.scan().take_while(move |_| goes_on());
        let entries = rows.map(|row| Ok(row.map(|(address, row)| entry(address, row))?));
        entries.filter(move |entry| entry.as_ref().map_or(true, &lets))
    }

    /// Lists an address for 14 days from now, or for longer where it is. Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn put(&self, address: &EmailAddress) -> Result<(), Error> {
        let now = self.0.clock.now();
        let longest = now.saturating_add(DAY * STEPS[STEPS.len() - 1]);
        let decide = |_, old: Option<Row>| {
            let (bounces, until) = old.map_or((0, longest), |Row::V1 { bounces, until, .. }| (bounces, until));
            Edit::Put(Row::V1 { bounces, updated_at: now, until: until.max(longest) })
        };
        self.0.entries.edit(vec![address.fold()], decide).await.map(drop).map_err(full)
    }

    /// Takes an address off the list, and forgets its bounces; says whether it was on it.
    /// Bounces until now do not put it back. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete(&self, address: &EmailAddress) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let mut was_listed = false;
        let decide = |_, old: Option<Row>| {
            was_listed = old.is_some_and(|Row::V1 { until, .. }| now < until);
            // With its time over: what bounced before that is passed over.
            old.map_or(Edit::Keep, |_| Edit::Put(Row::V1 { bounces: 0, updated_at: now, until: now }))
        };
        self.0.entries.edit(vec![address.fold()], decide).await?;
        Ok(was_listed)
    }

    /// Counts a hard bounce, which may be told any number of times; but none of the time of an
    /// entry: such mail was under way already, and says nothing that its first bounce did not.
    /// Says whether the list changed.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Store`].
    pub async fn record(&self, address: &EmailAddress, at: Timestamp) -> Result<bool, Error> {
        let decide = |_, old: Option<Row>| {
            let bounces = match old {
                Some(Row::V1 { until, .. }) if at < until => return Edit::Keep,
                Some(Row::V1 { bounces, .. }) => bounces.saturating_add(1),
                None => 1,
            };
            Edit::Put(Row::V1 { bounces, updated_at: at, until: end(bounces, at) })
        };
        Ok(self.0.entries.edit(vec![address.fold()], decide).await.map_err(full)? > 0)
    }

    /// Forgets what need not be remembered any longer at `now`; says how many.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn sweep(&self, now: Timestamp) -> Result<u64, Error> {
        sweep(&self.0.entries, |Row::V1 { until, .. }| until.saturating_add(REMEMBERED) <= now).await
    }

    pub(super) async fn repair(&self) -> Result<u64, Error> {
        Ok(self.0.entries.repair().await?)
    }

    /// What the list takes.
    #[must_use]
    pub fn usage(&self) -> BulkUsage {
        self.0.entries.usage()
    }
}

impl fmt::Debug for GlobalList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalList").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

/// When an entry ends whose so-manieth bounce was at `at`.
fn end(bounces: u32, at: Timestamp) -> Timestamp {
    let step = usize::try_from(bounces).unwrap_or(usize::MAX).clamp(1, STEPS.len());
    at.saturating_add(DAY * STEPS[step - 1])
}

fn entry(address: String, Row::V1 { bounces, updated_at, until }: Row) -> GloballySuppressed {
    GloballySuppressed { address, bounces, updated_at, until }
}
