//! Who guesses passwords, and what becomes of them.
//!
//! - A user name is delayed, never banned: else anyone could lock a customer out.
//! - An address is banned after some different wrong passwords, unless a client of it has
//!   authenticated within 30 days, or it is exempt. A ban ends by itself.
//! - The same wrong password again counts once. What is remembered of a password is a
//!   keyed hash, and the key is gone with the process.
//!
//! Bans and good addresses survive a restart; counts of failures do not.

mod recent;
mod settings;
mod table;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use parking_lot::{Mutex, RwLock};
use postrider_base::metrics::Metrics;
use postrider_base::{Clock, Network, Random, Scope, Timestamp};
use postrider_mail::sanitize_text;
use postrider_store::{Change, Store, Table};
use tokio::sync::Notify;

pub use settings::BanSettings;

use crate::Error;
use recent::Recent;
use table::{Key, Row, Sentence};

/// Name of the table in the store.
const TABLE: &str = "guard";
/// Locks of the counts, so that many sessions rarely meet.
const SHARDS: usize = 16;
/// How long a success protects an address.
const GOOD: Duration = Duration::from_secs(30 * 24 * 3600);
/// A success is written down at most this often.
const REFRESH: Duration = Duration::from_secs(24 * 3600);
/// Delay of the first wrong password.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// User names that a ban remembers.
const USERS: usize = 3;
/// Longest user name that is remembered.
const MAX_USER: usize = 64;
/// How often what is over is cleared away.
const CLEANING: Duration = Duration::from_secs(3600);

/// Whether an address may talk to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Welcome,
    /// Not before this time.
    Banned {
        /// When the ban ends.
        until: Timestamp,
    },
}

/// A ban that is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The address; of IPv6 the /64 network.
    pub network: Network,
    /// When it began.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// How many bans the address has had, with this one.
    pub times: u32,
    /// User names that were tried last, printable.
    pub users: Vec<String>,
}

/// What a wrong password leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consequence {
    /// How long the answer is to be held back.
    pub delay: Duration,
    /// It was one too many: the address is banned from now on.
    pub banned: bool,
}

/// Keeps count of wrong passwords. A cheap handle; clones are the same.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    settings: RwLock<Arc<BanSettings>>,
    clock: Clock,
    secret: hmac::Key,
    /// By address.
    offenders: [Mutex<Recent<Network, Offender>>; SHARDS],
    /// By hash of the user name, which can be anything.
    users: [Mutex<Recent<u64, Failures>>; SHARDS],
    /// Bans, also those that are over but count for the next one.
    bans: RwLock<HashMap<Network, Sentence>>,
    /// As many as there are in `bans`: a connection looks at this alone while there are none.
    ban_count: AtomicUsize,
    /// When a client of the address authenticated last, as it was written down.
    good: RwLock<HashMap<Network, Timestamp>>,
    table: Table<Key, Row>,
    /// Addresses whose row is behind.
    unwritten: Mutex<Vec<Network>>,
    work: Notify,
}

#[derive(Debug, Default)]
struct Offender {
    failures: Failures,
    /// User names tried last.
    users: Vec<String>,
}

/// Different wrong passwords, by fingerprint, with the time of each.
#[derive(Debug, Default)]
struct Failures(Vec<(u64, Timestamp)>);

impl Failures {
    /// Takes one in; at most `most` are kept. Returns how many count.
    fn add(&mut self, fingerprint: u64, now: Timestamp, window: Duration, most: usize) -> u32 {
        self.0.retain(|(known, at)| now.saturating_since(*at) < window && *known != fingerprint);
        self.0.push((fingerprint, now));
        if self.0.len() > most {
            self.0.remove(0);
        }
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

impl Guard {
    pub(crate) fn open(store: &Store, clock: Clock, random: &Random, settings: &BanSettings) -> Result<Self, Error> {
        let mut key = [0; 32];
        random.fill(&mut key);
        let table = store.table::<Key, Row>(TABLE);
        let (mut bans, mut good) = (HashMap::new(), HashMap::new());
        for row in table.scan() {
            let (Key(network), Row::V1 { succeeded, ban }) = row?;
            ban.map(|ban| bans.insert(network, ban));
            succeeded.map(|at| good.insert(network, at));
        }
        Ok(Self(Arc::new(Inner {
            settings: RwLock::new(Arc::new(settings.clone())),
            clock,
            secret: hmac::Key::new(hmac::HMAC_SHA256, &key),
            offenders: std::array::from_fn(|_| Mutex::new(Recent::new())),
            users: std::array::from_fn(|_| Mutex::new(Recent::new())),
            ban_count: AtomicUsize::new(bans.len()),
            bans: RwLock::new(bans),
            good: RwLock::new(good),
            table,
            unwritten: Mutex::default(),
            work: Notify::new(),
        })))
    }

    /// Changes the rules for what happens from now on; bans stay as they are.
    pub fn configure(&self, settings: &BanSettings) {
        *self.0.settings.write() = Arc::new(settings.clone());
    }

    /// Whether this address may talk to us: to be asked when it connects, before anything
    /// else is done for it.
    #[must_use]
    pub fn check(&self, address: IpAddr) -> Verdict {
        if self.0.ban_count.load(Ordering::Relaxed) == 0 {
            return Verdict::Welcome;
        }
        let until = self.0.bans.read().get(&counted(address)).map(|ban| ban.until);
        match until {
            Some(until) if until > self.0.clock.now() && !self.is_exempt(address) => Verdict::Banned { until },
            _ => Verdict::Welcome,
        }
    }

    /// A client at this address gave a wrong password for this user, who may not exist;
    /// an empty name stands for an exchange that made no sense.
    pub fn failed(&self, address: IpAddr, user: &str, password: &[u8]) -> Consequence {
        let settings = self.0.settings.read().clone();
        let (network, now) = (counted(address), self.0.clock.now());
        let fingerprint = self.fingerprint(&[user.as_bytes(), b"\0", password]);
        let by_user = self.count_user(user, fingerprint, now, &settings);
        let (by_address, users) = self.count_address(network, user, fingerprint, now, &settings);
        let delay = FIRST_DELAY.saturating_mul(1 << (by_user.max(by_address) - 1).min(16));
        let earned = settings.enabled && by_address >= settings.failures && !self.is_exempt(address);
        let banned = earned && !self.is_good(network, now);
        if banned {
            self.ban(network, users, now, &settings);
        }
        Consequence { delay: delay.min(settings.max_delay.as_duration()), banned }
    }

    /// A client at this address has authenticated: the address is not banned for the next
    /// 30 days, whatever else comes from it.
    pub fn succeeded(&self, address: IpAddr) {
        let (network, now) = (counted(address), self.0.clock.now());
        let known = self.0.good.read().get(&network).copied();
        if known.is_some_and(|at| now.saturating_since(at) < REFRESH) {
            return;
        }
        let most = self.0.settings.read().max_entries as usize;
        let mut good = self.0.good.write();
        if good.len() >= most && !good.contains_key(&network) {
            // Who comes when all places are taken is not remembered until some are old.
            return;
        }
        good.insert(network, now);
        drop(good);
        self.remember(network);
    }

    /// The bans in effect, by address.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        let now = self.0.clock.now();
        let bans = self.0.bans.read();
        let active = bans.iter().filter(|(_, ban)| ban.until > now);
        let mut list: Vec<Ban> = active
            .map(|(network, ban)| {
                let Sentence { since, until, times, users } = ban.clone();
                Ban { network: *network, since, until, times, users }
            })
            .collect();
        list.sort_by_key(|ban| ban.network);
        list
    }

    /// Lifts the bans of addresses in this network, or all, and forgets what led to them.
    /// Durable when it returns. Returns how many were in effect.
    ///
    /// # Errors
    /// [`Error::Store`]: the bans are lifted until the next start.
    pub async fn clear(&self, which: Option<Network>) -> Result<u64, Error> {
        let meant = |network: &Network| which.is_none_or(|which| which.overlaps(network));
        let lifted = self.bans().iter().filter(|ban| meant(&ban.network)).count();
        let mut cleared = Vec::new();
        {
            let mut bans = self.0.bans.write();
            cleared.extend(bans.keys().filter(|network| meant(network)).copied());
            bans.retain(|network, _| !meant(network));
            self.0.ban_count.store(bans.len(), Ordering::Relaxed);
        }
        for shard in &self.0.offenders {
            shard.lock().forget(meant);
        }
        self.0.unwritten.lock().extend(cleared);
        self.flush().await?;
        Ok(lifted as u64)
    }

    /// Writes down what is to survive a restart, and clears away what is over, until the
    /// scope is cancelled.
    pub async fn keep(self, metrics: Metrics, scope: Scope) {
        let mut cleaned = self.0.clock.now();
        loop {
            let running = tokio::select! {
                () = scope.cancelled() => false,
                () = self.0.work.notified() => true,
                () = tokio::time::sleep(CLEANING) => true,
            };
            let now = self.0.clock.now();
            if now.saturating_since(cleaned) >= CLEANING {
                self.clean(now);
                cleaned = now;
            }
            if let Err(error) = self.flush().await {
                tracing::error!(%error, "bans can not be written down and end with a restart");
            }
            metrics.bans_active.set(i64::try_from(self.bans().len()).unwrap_or(i64::MAX));
            if !running {
                return;
            }
        }
    }

    /// Writes the rows that are behind.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let networks = std::mem::take(&mut *self.0.unwritten.lock());
        if networks.is_empty() {
            return Ok(());
        }
        let changes = networks.into_iter().map(|network| self.row(network)).collect();
        Ok(self.0.table.write(changes).await?)
    }

    fn row(&self, network: Network) -> Change<Key, Row> {
        let succeeded = self.0.good.read().get(&network).copied();
        let ban = self.0.bans.read().get(&network).cloned();
        match (&succeeded, &ban) {
            (None, None) => Change::Delete(Key(network)),
            _ => Change::Put(Key(network), Row::V1 { succeeded, ban }),
        }
    }

    /// Forgets successes that no longer protect, and bans that no longer count.
    fn clean(&self, now: Timestamp) {
        let memory = self.0.settings.read().max_duration.as_duration();
        let mut gone = Vec::new();
        self.0.good.write().retain(|network, at| {
            let keep = now.saturating_since(*at) < GOOD;
            if !keep {
                gone.push(*network);
            }
            keep
        });
        let mut bans = self.0.bans.write();
        bans.retain(|network, ban| {
            let keep = now.saturating_since(ban.until) < memory || ban.until > now;
            if !keep {
                gone.push(*network);
            }
            keep
        });
        self.0.ban_count.store(bans.len(), Ordering::Relaxed);
        drop(bans);
        self.0.unwritten.lock().extend(gone);
    }

    fn ban(&self, network: Network, users: Vec<String>, now: Timestamp, settings: &BanSettings) {
        let mut bans = self.0.bans.write();
        if bans.len() >= settings.max_entries as usize && !bans.contains_key(&network) {
            let soonest = bans.iter().min_by_key(|(_, ban)| ban.until).map(|(network, _)| *network);
            soonest.map(|network| bans.remove(&network));
        }
        let times = bans.get(&network).map_or(0, |before| before.times).saturating_add(1);
        let length = settings.duration.as_duration().saturating_mul(1 << (times - 1).min(16));
        let until = now.saturating_add(length.min(settings.max_duration.as_duration()));
        tracing::info!(address = %network, until = until.rfc3339(), users = users.join(" "), "address banned: too many wrong passwords");
        bans.insert(network, Sentence { since: now, until, times, users });
        self.0.ban_count.store(bans.len(), Ordering::Relaxed);
        drop(bans);
        // What led to this ban does not count for the next one.
        self.shard(network).lock().forget(|known| *known == network);
        self.remember(network);
    }

    fn count_user(&self, user: &str, fingerprint: u64, now: Timestamp, settings: &BanSettings) -> u32 {
        // An exchange that broke off before it named one.
        if user.is_empty() {
            return 0;
        }
        let hash = self.fingerprint(&[user.as_bytes()]);
        let mut users = self.0.users[shard_of(hash)].lock();
        let failures = users.touch(hash, settings.max_entries as usize / SHARDS);
        failures.add(fingerprint, now, settings.window.as_duration(), settings.failures as usize)
    }

    fn count_address(
        &self,
        network: Network,
        user: &str,
        fingerprint: u64,
        now: Timestamp,
        settings: &BanSettings,
    ) -> (u32, Vec<String>) {
        let mut offenders = self.shard(network).lock();
        let offender = offenders.touch(network, settings.max_entries as usize / SHARDS);
        let user = sanitize_text(user, MAX_USER);
        if !offender.users.contains(&user) {
            offender.users.truncate(USERS - 1);
            offender.users.insert(0, user);
        }
        let count = offender.failures.add(fingerprint, now, settings.window.as_duration(), settings.failures as usize);
        (count, offender.users.clone())
    }

    fn shard(&self, network: Network) -> &Mutex<Recent<Network, Offender>> {
        let bits = match network.address() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            // The low half is the client's own to choose and no part of the network.
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        &self.0.offenders[shard_of(bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32)]
    }

    fn is_good(&self, network: Network, now: Timestamp) -> bool {
        let at = self.0.good.read().get(&network).copied();
        at.is_some_and(|at| now.saturating_since(at) < GOOD)
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.0.settings.read().exempt.iter().any(|network| network.contains(address))
    }

    fn fingerprint(&self, parts: &[&[u8]]) -> u64 {
        let mut context = hmac::Context::with_key(&self.0.secret);
        parts.iter().for_each(|part| context.update(part));
        let tag = context.sign();
        let (first, _) = tag.as_ref().split_first_chunk().expect("SHA-256 has 32 octets");
        u64::from_le_bytes(*first)
    }

    fn remember(&self, network: Network) {
        self.0.unwritten.lock().push(network);
        self.0.work.notify_one();
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("bans", &self.0.ban_count).finish_non_exhaustive()
    }
}

/// What counts as one address: a customer has a whole /64 of IPv6 (RFC 6177).
fn counted(address: IpAddr) -> Network {
    Network::around(address, 32, 64)
}

fn shard_of(hash: u64) -> usize {
    // The remainder is below the number of shards.
    usize::try_from(hash % SHARDS as u64).unwrap_or(0)
}
