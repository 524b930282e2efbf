//! The addresses that mail leaves from.
//!
//! The operator names them in the settings (*sources*). Those that are assigned to a
//! dedicated pool serve the configuration sets that name the pool, all others are the
//! *shared pool*, for all other mail. Without any source the system chooses.
//!
//! Within a pool, messages are shared out by weight. A source that is being warmed up
//! gets a percentage of its share that grows with time, and no more messages to one site
//! than its daily plan allows; the rest goes to the pool's other sources, then to the
//! shared pool's. What survives a restart (how far a source is warmed up, what it has
//! sent today, what became of its mail) is written down once a minute and at the end:
//! after a power cut a minute of counts may be missing.

mod address;
mod choose;
mod pick;
mod record;
mod reverse;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
mod warm_up;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postrider_account::{Accounts, Pools};
use postrider_base::{Clock, Metrics, Random, Scope, Timestamp};
use postrider_dns::Resolver;
use postrider_store::{Change, Store, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Error;
use address::{Address, Life, Row};
use choose::Layout;
use pick::Turns;
use settings::{OnBlock, SourceSettings, WarmUpSettings};

pub(crate) use address::Place;
pub(crate) use choose::{Choice, Wish};
pub(crate) use record::Event;
pub use record::SourceCounts;
pub use reverse::ReverseDns;

/// Name of the table in the store.
const TABLE: &str = "sources";
/// How often counts are written down.
const WRITING: Duration = Duration::from_secs(60);
/// How often reverse DNS is looked up again while some is not confirmed, and after.
const LOOKING: (Duration, Duration) = (Duration::from_secs(10 * 60), Duration::from_secs(3600));

/// An address that mail leaves from, as the operator wrote it down.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Source {
    /// What the operator calls it.
    pub(crate) name: Arc<str>,
    /// For hosts with IPv4. Without it they are not dialled from here.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// For hosts with IPv6. Without it they are not dialled from here.
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// The name given in EHLO, instead of the settings'.
    pub(crate) ehlo_name: Option<String>,
    /// Whether mail leaves from others while a site wants none from here.
    pub(crate) moves: bool,
}

/// All sources. Clones share them.
#[derive(Clone)]
pub(crate) struct Sources(Arc<Inner>);

struct Inner {
    layout: ArcSwap<Layout>,
    /// Held while `layout` is made anew.
    changing: Mutex<()>,
    pools: Pools,
    turns: Turns,
    /// Says that a message that waits for an address may get one now.
    news: watch::Sender<()>,
    table: Table<String, Row>,
    clock: Clock,
    metrics: Metrics,
}

impl Sources {
    /// Reads what was written down of the sources of the settings.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn open(
        settings: &BTreeMap<String, SourceSettings>,
        warm_up: &WarmUpSettings,
        accounts: &Accounts,
        store: &Store,
        clock: Clock,
        random: &Random,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let table = store.table::<String, Row>(TABLE);
        let kept = table.scan().collect::<Result<HashMap<_, _>, _>>()?;
        let nothing = Layout::new(0, warm_up.clone(), BTreeMap::new(), &[]);
        let inner = Inner {
            layout: ArcSwap::from_pointee(nothing),
            changing: Mutex::default(),
            pools: accounts.pools().clone(),
            turns: Turns::new(random),
            news: watch::Sender::new(()),
            table,
            clock,
            metrics,
        };
        let sources = Self(Arc::new(inner));
        sources.arrange(settings, warm_up, kept);
        Ok(sources)
    }

    /// Takes new settings. A source whose address stays the same keeps its history.
    pub(crate) fn configure(&self, settings: &BTreeMap<String, SourceSettings>, warm_up: &WarmUpSettings) {
        // What was not in the settings until now is read; if that fails it begins anew.
        let fresh = settings.keys().filter(|name| !self.0.layout.load().known.contains_key(*name));
        let kept = fresh.filter_map(|name| Some((name.clone(), self.0.table.get(name).ok()??)));
        self.arrange(settings, warm_up, kept.collect());
        self.0.news.send_replace(());
    }

    /// Changes when a message that waits for an address may get one before its time.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    /// Whether the settings have any.
    pub(crate) fn are_there(&self) -> bool {
        !self.0.layout.load().known.is_empty()
    }

    /// Where a message leaves from. From memory; a source that is being warmed up counts
    /// the message.
    pub(crate) fn choose(&self, wish: &Wish<'_>) -> Choice {
        self.layout().choose(wish, &self.0.turns)
    }

    /// Counts what happened to a message of a source.
    pub(crate) fn count(&self, source: &Source, event: Event) {
        let layout = self.0.layout.load();
        let Some(address) = layout.known.get(&*source.name) else { return };
        address.count(event, self.0.clock.now());
    }

    /// Every source, in the order of the names.
    pub(crate) fn views(&self) -> Vec<SourceView> {
        let layout = self.layout();
        let pools = self.0.pools.all();
        let now = self.0.clock.now();
        let view = |address: &Arc<Address>| {
            let is_in = |pool: &&Arc<postrider_account::Pool>| pool.members.iter().any(|m| *m.source == *address.name);
            let pool = pools.iter().find(is_in).map(|pool| (pool.account.to_string(), pool.name.clone()));
            address.view(pool, now, &layout.warm_up)
        };
        layout.known.values().map(view).collect()
    }

    /// Begins the warm-up of a source anew, at this percentage; at 100 it is over.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NoSuchSource`], [`Error::Store`].
    pub(crate) async fn restart_warm_up(&self, name: &str, percent: u8) -> Result<(), Error> {
        let layout = self.layout();
        let address = layout.known.get(name).ok_or_else(|| Error::NoSuchSource(name.to_owned()))?;
        let row = address.restart(percent.min(100), self.0.clock.now(), &layout.warm_up);
        address.show(self.0.clock.now(), &layout.warm_up);
        self.0.news.send_replace(());
        self.0.table.put(&name.to_owned(), &row).await?;
        Ok(())
    }

    /// Writes down what has changed, now and then, until the scope is cancelled.
    pub(crate) async fn keep(self, scope: Scope) {
        if let Err(error) = self.forget_old().await {
            tracing::warn!(%error, "what is known of sources of former configurations cannot be forgotten");
        }
        loop {
            let running = tokio::select! {
                biased;
                () = scope.cancelled() => false,
                () = tokio::time::sleep(WRITING) => true,
            };
            self.write_down().await;
            if !running {
                return;
            }
        }
    }

    /// Looks up the reverse DNS of the sources, and again, until the scope is cancelled.
    pub(crate) async fn look_up(self, resolver: Arc<dyn Resolver>, scope: Scope) {
        let looking = async {
            loop {
                let all_well = self.look_up_once(&*resolver).await;
                tokio::time::sleep(if all_well { LOOKING.1 } else { LOOKING.0 }).await;
            }
        };
        tokio::select! {
            () = scope.cancelled() => {}
            () = looking => {}
        }
    }

    /// True when everything is confirmed that can be.
    async fn look_up_once(&self, resolver: &dyn Resolver) -> bool {
        let mut all_well = true;
        for address in self.layout().known.values() {
            let (mut v4, mut v6) = address.reverse();
            let wanted = address.settings.ptr.as_deref();
            if let Some(ip) = address.settings.ipv4 {
                v4 = v4.look_up(resolver, ip.into(), wanted).await;
            }
            if let Some(ip) = address.settings.ipv6 {
                v6 = v6.look_up(resolver, ip.into(), wanted).await;
            }
            let bad = [&v4, &v6].into_iter().filter_map(|reverse| match reverse {
                ReverseDns::Unconfirmed(why) => Some(why.clone()),
                _ => None,
            });
            let bad: Vec<_> = bad.collect();
            all_well &= bad.is_empty() && (address.settings.ipv6.is_none() || v6 != ReverseDns::Unknown);
            let is_news = address.learn((v4, v6));
            if is_news {
                self.0.news.send_replace(());
            }
            if is_news && !bad.is_empty() {
                let used = if address.source().ipv6.is_none() && address.settings.ipv6.is_some() {
                    "not used over IPv6"
                } else {
                    "used all the same"
                };
                tracing::warn!(source = %address.name, why = bad.join("; "), "reverse DNS is not confirmed: {used}");
            }
        }
        all_well
    }

    /// Forgets sources that are no longer in the settings, once they have been out of use
    /// for so long that their history would not count.
    async fn forget_old(&self) -> Result<(), Error> {
        let (layout, now) = (self.layout(), self.0.clock.now());
        let mut old = Vec::new();
        for row in self.0.table.scan() {
            let (name, row) = row?;
            if !layout.known.contains_key(&name) && row.is_old(now) {
                old.push(Change::Delete(name));
            }
        }
        Ok(self.0.table.write(old).await?)
    }

    /// Writes the rows that are behind.
    async fn write_down(&self) {
        let layout = self.layout();
        let (now, table) = (self.0.clock.now(), &self.0.table);
        for (name, address) in &layout.known {
            address.show(now, &layout.warm_up);
            let Some(row) = address.life.take_unwritten() else { continue };
            if let Err(error) = table.write(vec![Change::Put(name.clone(), row)]).await {
                address.life.not_written();
                tracing::error!(source = name, %error, "what a source has sent cannot be written down");
            }
        }
    }

    /// By the present pools.
    fn layout(&self) -> Arc<Layout> {
        let layout = self.0.layout.load_full();
        if layout.revision == self.0.pools.revision() {
            return layout;
        }
        let _changing = self.0.changing.lock();
        let layout = self.0.layout.load_full();
        self.place(layout.known.clone(), layout.warm_up.clone())
    }

    fn arrange(
        &self,
        settings: &BTreeMap<String, SourceSettings>,
        warm_up: &WarmUpSettings,
        mut kept: HashMap<String, Row>,
    ) {
        let _changing = self.0.changing.lock();
        let before = self.0.layout.load_full();
        let now = self.0.clock.now();
        let make = |(name, source): (&String, &SourceSettings)| {
            let main = source.main_address()?;
            let known = before.known.get(name).map(|address| &address.life).filter(|life| life.is_of(main));
            let fresh = || Arc::new(Life::new(main, source.warm_up_start, kept.remove(name), now));
            let life = known.cloned().unwrap_or_else(fresh);
            let address = Address::new(name, source.clone(), life, warm_up, &self.0.metrics);
            address.show(now, warm_up);
            Some((name.clone(), Arc::new(address)))
        };
        let known = settings.iter().filter_map(make).collect();
        self.place(known, warm_up.clone());
    }

    /// The caller holds `changing`.
    fn place(&self, known: BTreeMap<String, Arc<Address>>, warm_up: WarmUpSettings) -> Arc<Layout> {
        // Read before the pools, so that a change in between is seen the next time.
        let revision = self.0.pools.revision();
        let layout = Arc::new(Layout::new(revision, warm_up, known, &self.0.pools.all()));
        self.0.layout.store(layout.clone());
        layout
    }
}

/// A source as it is now.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SourceView {
    /// What the operator calls it.
    pub name: String,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether mail leaves from its IPv6 address.
    pub ipv6_used: bool,
    /// What is known of the reverse DNS of its IPv4 address, if it has one.
    pub reverse_ipv4: Option<ReverseDns>,
    /// What is known of the reverse DNS of its IPv6 address, if it has one.
    pub reverse_ipv6: Option<ReverseDns>,
    /// The name given in EHLO, where it has one of its own.
    pub ehlo_name: Option<String>,
    /// Whose pool it is in; without one it is in the shared pool.
    pub account: Option<String>,
    /// The name of that pool.
    pub pool: Option<String>,
    /// What becomes of mail to a site that blocks it.
    pub on_block: OnBlock,
    /// How far it is warmed up.
    pub warm_up: WarmUpView,
    /// What became of its mail on the last 30 days that it sent any, oldest first, by the
    /// moment when each began.
    pub days: Vec<(Timestamp, SourceCounts)>,
}

/// How far a source is warmed up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WarmUpView {
    /// Whether sources are warmed up at all.
    pub enabled: bool,
    /// 1 to 99, or 100 when it is complete.
    pub percent: u8,
    /// When it began.
    pub since: Timestamp,
    /// When it is complete, or was.
    pub until: Timestamp,
    /// Most messages to one site today; `None` for no bound.
    pub daily: Option<u32>,
    /// Messages of today by site, the busiest first; counted during a warm-up only.
    pub today: Vec<(String, u32)>,
}
