//! Reputation: how many of a sender's recipients bounced or complained, and what follows.
//!
//! Senders are accounts, and those of their configuration sets that ask for it. What is
//! counted lies in one table, written together with the place in the journal that it was
//! counted up to, so that after a stop or a crash counting goes on with neither a gap nor an
//! outcome twice. What was decided lies in another.

mod settings;
mod standing;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_base::Timestamp;
use postrider_mail::AccountId;
use postrider_store::{Batch, Store, Table};
use serde::{Deserialize, Serialize};

pub use settings::ReputationSettings;
pub use standing::{EnforcementStatus, MetricStatus, Notice, Situation, Standing, Step};
pub use window::{Counts, Tally};

use window::{Reach, Window};

use crate::{ConfigurationSet, ConfigurationSets, Error, Pause, PausedBy, Sending, Tenant, Tenants};

/// Names of the tables in the store.
const WINDOWS: &str = "reputation-windows";
const STANDINGS: &str = "reputation-standings";

/// Whose rates: an account's, or those of one of its configuration sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sender {
    /// The account.
    pub account: AccountId,
    /// Its set; `None` is the account itself.
    pub set: Option<String>,
}

/// What became of some recipients of one message.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Whose message it is.
    pub account: AccountId,
    /// The configuration set it was sent with.
    pub set: Option<&'a str>,
    /// When the message was accepted: what came before a fresh start does not count.
    pub accepted_at: Timestamp,
    /// When it happened.
    pub at: Timestamp,
    /// What.
    pub what: Counts,
    /// To how many recipients.
    pub count: u32,
}

/// The reputation of all senders. Clones share it.
#[derive(Clone)]
pub struct Reputation(Arc<Inner>);

struct Inner {
    store: Store,
    windows: Table<Sender, Row>,
    standings: Table<Sender, String>,
    /// What is counted, and not yet in `windows` where it says so.
    counted: Mutex<Known>,
    stood: Mutex<HashMap<Sender, Standing>>,
    /// Those of `stood` that could not be written.
    unkept: Mutex<HashSet<Sender>>,
    tenants: Tenants,
    sets: ConfigurationSets,
    settings: ReputationSettings,
}

#[derive(Default)]
struct Known {
    senders: HashMap<Sender, Count>,
    unsaved: usize,
}

#[derive(Default)]
struct Count {
    window: Window,
    /// The fresh start that it was counted after.
    fresh: Timestamp,
    is_unsaved: bool,
}

/// Senders that are being written: those still here at its end were not.
struct Saving<'a> {
    counted: &'a Mutex<Known>,
    senders: Vec<Sender>,
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        let mut known = self.counted.lock();
        for sender in &self.senders {
            let Some(count) = known.senders.get_mut(sender) else { continue };
            let is_new = !std::mem::replace(&mut count.is_unsaved, true);
            known.unsaved += usize::from(is_new);
        }
    }
}

/// A row of `windows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Row {
    V1 { fresh: Timestamp, window: Window },
}

impl postrider_store::Key for Sender {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.account.get().to_be_bytes(), self.set.as_deref().unwrap_or_default().as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (account, set) = bytes.split_first_chunk()?;
        let set = std::str::from_utf8(set).ok()?;
        Some(Self {
            account: AccountId::new(u64::from_be_bytes(*account))?,
            set: (!set.is_empty()).then(|| set.to_owned()),
        })
    }
}

impl Sender {
    /// An account as a whole.
    #[must_use]
    pub fn account(account: AccountId) -> Self {
        Self { account, set: None }
    }

    /// A configuration set.
    #[must_use]
    pub fn set(account: AccountId, name: &str) -> Self {
        Self { account, set: Some(name.to_owned()) }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            None => write!(f, "account {}", self.account),
            Some(set) => write!(f, "configuration set {set} of account {}", self.account),
        }
    }
}

impl Reputation {
    /// Reads all of it: up to 2 KiB of memory for each sender whose volume is full.
    pub(crate) fn open(
        store: &Store,
        tenants: Tenants,
        sets: ConfigurationSets,
        settings: ReputationSettings,
    ) -> Result<Self, Error> {
        let windows: Table<Sender, Row> = store.table(WINDOWS);
        let standings: Table<Sender, String> = store.table(STANDINGS);
        let mut senders = HashMap::new();
        for row in windows.scan() {
            let (sender, Row::V1 { fresh, window }) = row?;
            senders.insert(sender, Count { window, fresh, is_unsaved: false });
        }
        let mut stood = HashMap::new();
        for row in standings.scan() {
            let (sender, text) = row?;
            stood.insert(sender, serde_json::from_str(&text).map_err(|error| unreadable(&error))?);
        }
        let counted = Mutex::new(Known { senders, unsaved: 0 });
        let store = store.clone();
        let stood = Mutex::new(stood);
        let unkept = Mutex::default();
        Ok(Self(Arc::new(Inner { store, windows, standings, counted, stood, unkept, tenants, sets, settings })))
    }

    /// What the operator says about rates.
    #[must_use]
    pub fn settings(&self) -> &ReputationSettings {
        &self.0.settings
    }

    /// Counts outcomes for their account and, where it has reputation metrics, their
    /// configuration set. Durable with the next [`Reputation::save`]. Only one task may count.
    pub fn count(&self, counted: &Counted<'_>) {
        let reach = Reach::of(&self.0.settings);
        let account = Sender::account(counted.account);
        let set = counted.set.map(|set| Sender::set(counted.account, set));
        for sender in [Some(account), set.filter(|set| self.has_metrics(set))].into_iter().flatten() {
            let fresh = self.fresh_start(&sender);
            if counted.accepted_at < fresh {
                continue;
            }
            let mut known = self.0.counted.lock();
            let count = known.senders.entry(sender).or_default();
            if count.fresh != fresh {
                *count = Count { fresh, is_unsaved: count.is_unsaved, ..Count::default() };
            }
            count.window.add(reach, counted.at, counted.what, counted.count);
            let is_new = !std::mem::replace(&mut count.is_unsaved, true);
            known.unsaved += usize::from(is_new);
        }
    }

    /// Senders that have been counted for since the last [`Reputation::save`].
    #[must_use]
    pub fn unsaved(&self) -> usize {
        self.0.counted.lock().unsaved
    }

    /// Writes what was counted together with `batch`, which says up to where: both or
    /// neither. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Store`]; what was counted is written with the next call, as it is when this
    /// one is dropped.
    pub async fn save(&self, mut batch: Batch) -> Result<(), Error> {
        let mut saving = self.unsaved_into(&mut batch)?;
        self.0.store.write(batch).await?;
        saving.senders.clear();
        Ok(())
    }

    fn unsaved_into(&self, batch: &mut Batch) -> Result<Saving<'_>, Error> {
        let mut known = self.0.counted.lock();
        let mut senders = Vec::with_capacity(known.unsaved);
        for (sender, count) in known.senders.iter().filter(|(_, count)| count.is_unsaved) {
            let row = Row::V1 { fresh: count.fresh, window: count.window.clone() };
            batch.put(&self.0.windows, sender, &row)?;
            senders.push(sender.clone());
        }
        known.senders.values_mut().for_each(|count| count.is_unsaved = false);
        known.unsaved = 0;
        Ok(Saving { counted: &self.0.counted, senders })
    }

    /// What is counted of a sender as of `now`.
    #[must_use]
    pub fn tally(&self, sender: &Sender, now: Timestamp) -> Tally {
        let fresh = self.fresh_start(sender);
        let known = self.0.counted.lock();
        let count = known.senders.get(sender).filter(|count| count.fresh == fresh);
        count.map_or_else(Tally::default, |count| count.window.tally(Reach::of(&self.0.settings), now))
    }

    /// Everybody that anything was counted of, or decided about: accounts, each before its
    /// sets.
    #[must_use]
    pub fn senders(&self) -> Vec<Sender> {
        let mut senders: Vec<_> = self.0.counted.lock().senders.keys().cloned().collect();
        senders.extend(self.0.stood.lock().keys().cloned());
        senders.sort_unstable();
        senders.dedup();
        senders
    }

    /// Where a sender stands.
    #[must_use]
    pub fn standing(&self, sender: &Sender) -> Standing {
        self.0.stood.lock().get(sender).cloned().unwrap_or_default()
    }

    /// Keeps where a sender stands. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Store`]; it holds all the same, until the process ends, so that people are
    /// told each thing once, and [`Reputation::is_kept`] is false.
    pub async fn stand(&self, sender: &Sender, standing: &Standing) -> Result<(), Error> {
        let text = serde_json::to_string(standing).map_err(|error| unreadable(&error))?;
        self.0.stood.lock().insert(sender.clone(), standing.clone());
        self.0.unkept.lock().insert(sender.clone());
        self.0.standings.put(sender, &text).await?;
        self.0.unkept.lock().remove(sender);
        Ok(())
    }

    /// Whether where a sender stands is durable.
    #[must_use]
    pub fn is_kept(&self, sender: &Sender) -> bool {
        !self.0.unkept.lock().contains(sender)
    }

    /// Forgets sets that are gone, and senders of whom nothing counts any more and that stand
    /// as if nothing had ever been. For the task that counts, which has saved what it counted.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn tidy(&self, now: Timestamp) -> Result<(), Error> {
        for sender in self.senders() {
            let is_idle = || {
                let stands = self.standing(&sender).status;
                stands == EnforcementStatus::Healthy && self.tally(&sender, now) == Tally::default()
            };
            let is_gone = sender.set.is_some() && !self.has_metrics(&sender);
            if is_gone || is_idle() {
                let mut batch = Batch::new();
                batch.delete(&self.0.windows, &sender)?;
                batch.delete(&self.0.standings, &sender)?;
                self.0.store.write(batch).await?;
                self.0.counted.lock().senders.remove(&sender);
                self.0.stood.lock().remove(&sender);
                self.0.unkept.lock().remove(&sender);
            }
        }
        Ok(())
    }

    /// Since when a sender's outcomes count.
    #[must_use]
    pub fn fresh_start(&self, sender: &Sender) -> Timestamp {
        let fresh = match &sender.set {
            None => self.0.tenants.find(sender.account).fresh_start,
            Some(set) => self.0.sets.find(sender.account, set).and_then(|set| set.fresh_start),
        };
        fresh.unwrap_or_default()
    }

    /// The pause of a sender, if there is one.
    #[must_use]
    pub fn pause_of(&self, sender: &Sender) -> Option<Pause> {
        match &sender.set {
            None => self.0.tenants.find(sender.account).sending.pause().cloned(),
            Some(set) => self.0.sets.find(sender.account, set)?.sending.pause().cloned(),
        }
    }

    /// Pauses or resumes a sender. To resume is a fresh start. Durable when it returns, and
    /// holds for the next message.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the set), [`Error::Invalid`] (the reason) or [`Error::Store`].
    pub async fn set_sending(&self, sender: &Sender, sending: Sending, now: Timestamp) -> Result<(), Error> {
        let change = |known: &mut Sending, fresh_start: &mut Option<Timestamp>| {
            if sending == Sending::Enabled {
                *fresh_start = Some(now);
            }
            *known = sending;
        };
        self.change(sender, change).await
    }

    /// Pauses a sender by rule, for rates that count since the fresh start `seen`. Says whether
    /// it did: a rule neither takes the place of a pause that is there, nor pauses whom a
    /// person has given a fresh start meanwhile. Durable when it returns.
    ///
    /// # Errors
    /// As [`Reputation::set_sending`].
    pub async fn pause_by_rule(
        &self,
        sender: &Sender,
        reason: String,
        seen: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut pauses = false;
        let change = |known: &mut Sending, fresh_start: &mut Option<Timestamp>| {
            if *known == Sending::Enabled && fresh_start.unwrap_or_default() == seen {
                *known = Sending::Paused(Pause { by: PausedBy::Rule, at: now, reason, hold: false });
                pauses = true;
            }
        };
        self.change(sender, change).await?;
        Ok(pauses)
    }

    /// Has only the outcomes of messages count that are accepted from `now` on. Durable when
    /// it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] (the set) or [`Error::Store`].
    pub async fn start_afresh(&self, sender: &Sender, now: Timestamp) -> Result<(), Error> {
        self.change(sender, |_, fresh_start| *fresh_start = Some(now)).await
    }

    async fn change(
        &self,
        sender: &Sender,
        change: impl FnOnce(&mut Sending, &mut Option<Timestamp>),
    ) -> Result<(), Error> {
        match &sender.set {
            None => {
                let change = |tenant: &mut Tenant| change(&mut tenant.sending, &mut tenant.fresh_start);
                self.0.tenants.change(sender.account, change).await.map(drop)
            }
            Some(set) => {
                let change = |set: &mut ConfigurationSet| change(&mut set.sending, &mut set.fresh_start);
                self.0.sets.change(sender.account, set, change).await.map(drop)
            }
        }
    }

    /// Whether a configuration set is there and has rates of its own.
    fn has_metrics(&self, sender: &Sender) -> bool {
        let set = sender.set.as_deref().and_then(|set| self.0.sets.find(sender.account, set));
        set.is_some_and(|set| set.reputation_metrics)
    }
}

impl fmt::Debug for Reputation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reputation").field("senders", &self.0.counted.lock().senders.len()).finish_non_exhaustive()
    }
}

fn unreadable(error: &serde_json::Error) -> Error {
    Error::Store(postrider_store::Error::Format { table: STANDINGS.to_owned(), reason: error.to_string() })
}
