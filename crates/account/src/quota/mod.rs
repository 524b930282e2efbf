//! Quotas: how many recipients an account, or one of its credentials, may send to in any 24
//! hours and in a second, as SES bounds accounts.
//!
//! Everything is answered from memory by atomics of the holder that asks; holders share
//! nothing. What was sent is kept in the store by who reads the journal, see [`Quotas::save`];
//! what the store does not know after a crash is counted once more from there.

mod gauges;
mod pace;
mod table;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use postrider_base::{Clock, Timestamp};
use postrider_mail::AccountId;
use postrider_store::{Batch, Store, Table};
use tokio::time::Instant;

use crate::lookup::Lookup;
use crate::{Credential, Error, Settings, Tenant};
use pace::{Pace, Taken};
use table::{Hour, Key};
use window::{Window, minute_of};

pub use table::Sent;

/// Whose mail is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// An account: what all of its credentials send.
    Account(AccountId),
    /// One credential, by its user name: its part of that.
    Credential(String),
}

impl From<AccountId> for Holder {
    fn from(account: AccountId) -> Self {
        Self::Account(account)
    }
}

/// How much may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Recipients in any 24 hours; none is no bound.
    pub per_day: Option<u64>,
    /// Recipients a second, with bursts of one second's worth; none is no bound.
    pub per_second: Option<u32>,
}

impl Limits {
    /// What SES allows in its sandbox.
    pub const SANDBOX: Self = Self { per_day: Some(200), per_second: Some(1) };

    /// Those of an account: its own, and in the sandbox SES's where it has none.
    #[must_use]
    pub fn of(tenant: &Tenant) -> Self {
        Self { per_day: tenant.daily_quota, per_second: tenant.max_rate }.or_those_of(tenant.sandbox)
    }

    /// Those of a credential, likewise; its account's are beside them.
    #[must_use]
    pub fn of_credential(credential: &Credential) -> Self {
        Self { per_day: credential.daily_quota, per_second: credential.max_rate }.or_those_of(credential.sandbox)
    }

    fn or_those_of(self, sandbox: bool) -> Self {
        let default = if sandbox { Self::SANDBOX } else { Self::default() };
        Self { per_day: self.per_day.or(default.per_day), per_second: self.per_second.or(default.per_second) }
    }
}

/// Why no more may be sent now. Each passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Exceeded {
    /// The sender's: faster than it may be. Passes within seconds.
    #[error("more recipients a second than allowed")]
    Rate,
    /// The sender's: the 24 hours hold no more. Passes when what was sent a day ago is out.
    #[error("more recipients in 24 hours than allowed")]
    Daily,
    /// Ours: what was sent before the process started is still being counted. Passes in
    /// seconds.
    #[error("what was sent before is being counted")]
    Recounting,
}

/// What a holder has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Recipients in the last 24 hours, to the minute, with those that are being accepted.
    pub sent_last_24_hours: u64,
}

/// The counts of all accounts and credentials. A cheap handle; clones are the same.
///
/// A holder takes 0.6 KB of memory, and 0.25 KB more for each hour of the day in which it sends:
/// 7 KB at most, so that 10,000 that send around the clock take 70 MB. Who has sent nothing for
/// a day is [forgotten](Quotas::forget_idle).
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    counts: Lookup<Holder, Count>,
    /// Those that have a count; held while one is added.
    holders: Mutex<Vec<Holder>>,
    table: Table<Key, Hour>,
    clock: Clock,
    /// The moment that the paces are told from.
    origin: Instant,
    is_recounting: AtomicBool,
    /// How many accounts have metrics.
    shown: u32,
}

#[derive(Debug, Default)]
struct Count {
    window: Window,
    pace: Pace,
}

/// Recipients that are taken from a quota. They go back when it is dropped, unless they are
/// [kept](Reservation::keep).
#[derive(Debug)]
#[must_use = "dropped, it gives back what was reserved"]
pub struct Reservation {
    count: Arc<Count>,
    recipients: u32,
    minute: u64,
    /// Of the second, where that is bounded.
    taken: Option<Taken>,
}

impl Reservation {
    /// They have been sent to.
    pub fn keep(mut self) {
        self.count.window.keep(self.recipients, self.minute);
        self.recipients = 0;
    }

    /// They were not even tried, since another bound forbade it: those of the second go back
    /// too, if this is said at once.
    pub fn undo(self) {
        if let Some(taken) = self.taken {
            self.count.pace.give_back(taken);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.recipients > 0 {
            self.count.window.give_back(self.recipients);
        }
    }
}

impl Quotas {
    pub(crate) fn open(store: &Store, clock: Clock, settings: &Settings) -> Result<Self, Error> {
        let origin = clock.instant();
        let quotas = Self(Arc::new(Inner {
            counts: Lookup::new(),
            holders: Mutex::default(),
            table: store.table(table::TABLE),
            clock,
            origin,
            is_recounting: AtomicBool::new(false),
            shown: settings.usage_metrics,
        }));
        quotas.load()?;
        Ok(quotas)
    }

    /// Takes so many recipients, all or none, for a message of this time.
    ///
    /// Those of the 24 hours go back with the reservation. Those of the second do not, unless it
    /// is [undone](Reservation::undo): a second later they are there again anyway, and a client
    /// that fails in a loop is slowed too.
    ///
    /// # Errors
    /// [`Exceeded`]: nothing was taken.
    pub fn reserve(
        &self,
        holder: impl Into<Holder>,
        limits: &Limits,
        recipients: u32,
        now: Timestamp,
    ) -> Result<Reservation, Exceeded> {
        // A message to the simulator alone meets no bound.
        let limits = if recipients == 0 { &Limits::default() } else { limits };
        if limits.per_day.is_some() && self.0.is_recounting.load(Ordering::Acquire) {
            return Err(Exceeded::Recounting);
        }
        let count = self.count(&holder.into());
        let minute = count.window.reserve(recipients, limits.per_day, minute_of(now)).ok_or(Exceeded::Daily)?;
        let mut reservation = Reservation { count, recipients, minute, taken: None };
        let elapsed = self.0.clock.instant().saturating_duration_since(self.0.origin);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let Some(rate) = limits.per_second else { return Ok(reservation) };
        reservation.taken = Some(reservation.count.pace.take(recipients, rate, nanos).ok_or(Exceeded::Rate)?);
        Ok(reservation)
    }

    /// What a holder has sent in the 24 hours before `now`.
    #[must_use]
    pub fn usage(&self, holder: impl Into<Holder>, now: Timestamp) -> Usage {
        let count = self.find(&holder.into());
        Usage { sent_last_24_hours: count.map_or(0, |count| count.window.used(minute_of(now))) }
    }

    /// The accounts that have sent in the 24 hours before `now`, in their order.
    #[must_use]
    pub fn accounts(&self, now: Timestamp) -> Vec<(AccountId, Usage)> {
        let holders = self.0.holders.lock().clone();
        let accounts = holders.into_iter().filter_map(|holder| match holder {
            Holder::Account(account) => Some((account, self.usage(account, now))),
            Holder::Credential(_) => None,
        });
        let mut used: Vec<_> = accounts.filter(|(_, usage)| usage.sent_last_24_hours > 0).collect();
        used.sort_unstable_by_key(|(account, _)| *account);
        used
    }

    /// Frees the memory of those that have sent nothing in the 24 hours before `now`, deleted
    /// ones among them.
    pub fn forget_idle(&self, now: Timestamp) {
        let minute = minute_of(now);
        let mut holders = self.0.holders.lock();
        holders.retain(|holder| {
            let is_idle = |count: &Arc<Count>| count.window.used(minute) == 0;
            let Some(count) = self.find(holder).filter(is_idle) else { return true };
            self.0.counts.change([(holder.clone(), None)]);
            // Nobody finds it any more. Who has found it before may be about to take from it:
            // then it stays.
            let Err(used) = Arc::try_unwrap(count) else { return false };
            self.0.counts.change([(holder.clone(), Some(used))]);
            true
        });
    }

    /// Until [`Quotas::recounted`], those that have a bound for the 24 hours must wait: what
    /// was sent before a crash is not all known.
    pub fn recounting(&self) {
        self.0.is_recounting.store(true, Ordering::Release);
    }

    /// Everything that was sent before is counted.
    pub fn recounted(&self) {
        self.0.is_recounting.store(false, Ordering::Release);
    }

    /// Counts what was sent at `at` by the process before this one, and is not in the store.
    pub fn recount(&self, holder: impl Into<Holder>, recipients: u32, at: Timestamp) {
        let now = minute_of(self.0.clock.now());
        self.count(&holder.into()).window.add(recipients, minute_of(at), now);
    }

    /// Adds to `batch` what makes the store's counts have `sent` too, and no more what is out of
    /// every window. Write it before saving again, together with how far the journal was read:
    /// then a crash leaves both or neither, and nothing is counted twice or lost.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn save(&self, sent: &Sent, batch: &mut Batch) -> Result<(), Error> {
        table::save(&self.0.table, sent, minute_of(self.0.clock.now()), batch)
    }

    fn load(&self) -> Result<(), Error> {
        let now = minute_of(self.0.clock.now());
        for row in self.0.table.scan() {
            let (key, hour) = row?;
            let count = self.count(&key.holder);
            for (minute, recipients) in hour.minutes {
                count.window.add(recipients, key.hour * 60 + u64::from(minute), now);
            }
        }
        Ok(())
    }

    fn find(&self, holder: &Holder) -> Option<Arc<Count>> {
        self.0.counts.find(holder, |other| other == holder)
    }

    fn count(&self, holder: &Holder) -> Arc<Count> {
        if let Some(count) = self.find(holder) {
            return count;
        }
        let mut holders = self.0.holders.lock();
        if let Some(count) = self.find(holder) {
            return count;
        }
        let count = Arc::new(Count::default());
        self.0.counts.change([(holder.clone(), Some(Arc::clone(&count)))]);
        holders.push(holder.clone());
        count
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("is_recounting", &self.0.is_recounting).finish_non_exhaustive()
    }
}
