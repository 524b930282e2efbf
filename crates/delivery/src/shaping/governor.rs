//! The state of shaping while the relay runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use postrider_base::metrics::Metrics;
use postrider_base::{Clock, Scope as Tasks, Timestamp};
use postrider_mail::Domain;
use postrider_store::Store;
use tokio::sync::Notify;

use super::gate::{Gate, SYSTEM};
use super::orders::{Order, Orders};
use super::pause::{Ended, Pause, Scope};
use super::rules::{Place, ProviderRules, Shaping, SiteRules, own_name};
use super::throttle::{Allowed, Throttle, UNLIMITED};
use crate::Error;
use crate::lane::Lane;
use crate::target::Target;

/// Sites are looked through for idle ones when there are so many, and then at
/// twice what is left.
const FIRST_TIDYING: usize = 1_000;

/// Knows what every site and provider gets, who waits for it, and what pauses.
/// A cheap handle; clones are the same.
#[derive(Clone)]
pub(crate) struct Governor(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) shaping: ArcSwap<Shaping>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    sites: Mutex<Sites>,
    providers: Mutex<BTreeMap<Arc<str>, Arc<ProviderState>>>,
    pub(super) orders: Orders,
    /// When pauses end, and of what.
    ends: Mutex<BTreeMap<(Timestamp, u64), Weak<Throttle>>>,
    /// There is a new end.
    new_end: Notify,
    /// Pauses that have ended and that nobody has been told of.
    ended: Mutex<Vec<Ended>>,
    /// There are some.
    has_ended: Notify,
    numbers: AtomicU64,
}

struct Sites {
    map: HashMap<Arc<str>, Arc<SiteState>>,
    tidy_at: usize,
}

pub(super) struct SiteState {
    pub(super) place: Place,
    pub(super) rules: ArcSwap<SiteRules>,
    pub(super) provider: ArcSwapOption<ProviderState>,
    pub(super) throttle: Arc<Throttle>,
}

pub(super) struct ProviderState {
    pub(super) name: Arc<str>,
    pub(super) throttle: Arc<Throttle>,
}

impl Governor {
    /// Begins with these rules, and the pauses that operators left in `store`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn new(shaping: Shaping, store: &Store, clock: &Clock, metrics: &Metrics) -> Result<Self, Error> {
        let inner = Inner {
            orders: Orders::open(store, clock, metrics)?,
            shaping: ArcSwap::from_pointee(shaping),
            clock: clock.clone(),
            metrics: metrics.clone(),
            sites: Mutex::new(Sites { map: HashMap::new(), tidy_at: FIRST_TIDYING }),
            providers: Mutex::default(),
            ends: Mutex::default(),
            new_end: Notify::new(),
            ended: Mutex::default(),
            has_ended: Notify::new(),
            numbers: AtomicU64::new(0),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Starts the task that ends pauses.
    pub(crate) fn start(&self, tasks: &Tasks) {
        let (governor, scope) = (self.clone(), tasks.clone());
        tasks.spawn("pauses", async move {
            tokio::select! {
                () = governor.end_pauses() => {}
                () = scope.cancelled() => {}
            }
        });
    }

    /// Takes new rules; they hold for connections and messages from now on.
    pub(crate) fn reload(&self, shaping: Shaping) {
        let inner = &*self.0;
        inner.shaping.store(Arc::new(shaping));
        let shaping = inner.shaping.load();
        for rules in shaping.providers() {
            inner.provider(rules);
        }
        let sites: Vec<_> = inner.sites.lock().map.values().cloned().collect();
        for site in sites {
            inner.apply(&site, &shaping);
        }
    }

    /// What a lane asks for its connections and turns. Resolves everything,
    /// so that nothing has to be looked up later.
    pub(crate) fn gate(&self, target: &Target, lane: &Lane) -> Gate {
        let mut gate = self.gate_at(Place::of(target), lane.source.as_ref().map(|source| source.name.clone()));
        gate.moves = lane.source.as_ref().is_some_and(|source| source.moves);
        gate
    }

    pub(super) fn gate_at(&self, place: Place, source: Option<Arc<str>>) -> Gate {
        Gate::new(self.0.clone(), self.0.site(place), source, self.0.number())
    }

    /// Who runs the hosts of a target, where that is known.
    pub(crate) fn provider(&self, target: &Target) -> Option<Arc<str>> {
        let known = self.0.sites.lock().map.get(&target.name).cloned();
        let site = known.unwrap_or_else(|| self.0.site(Place::of(target)));
        site.provider.load().as_ref().map(|provider| provider.name.clone())
    }

    /// A recipient domain with limits of its own is a site of its own.
    pub(crate) fn split(&self, domain: &Domain, mut target: Target) -> Target {
        if self.0.shaping.load().has_own(domain) {
            target.name = own_name(&target.name, domain);
        }
        target
    }

    /// Waits for pauses to end, by themselves or by an operator; which. For one who asks
    /// again and again. Giving up waiting loses nothing.
    pub(crate) async fn ended(&self) -> Vec<Ended> {
        loop {
            let called = self.0.has_ended.notified();
            let ended = std::mem::take(&mut *self.0.ended.lock());
            if !ended.is_empty() {
                return ended;
            }
            called.await;
        }
    }

    /// Whether mail to a site from a source waits because of what hosts said.
    pub(crate) fn is_paused(&self, site: &str, source: Option<&Arc<str>>) -> bool {
        let Some(site) = self.0.sites.lock().map.get(site).cloned() else { return false };
        site.pause_of(&[Scope::Source(source.cloned())], self.0.clock.now()).is_some()
    }

    /// Gives an operator's order; on disk when it returns.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Settings`] when there are too many.
    pub(crate) async fn pause(&self, order: Order) -> Result<(), Error> {
        self.0.orders.put(order).await?;
        self.0.new_end.notify_one();
        Ok(())
    }

    /// Ends the pauses of a name, operators' and others, and says how many.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn resume(&self, name: &str, source: Option<&str>) -> Result<usize, Error> {
        let is_source = |of: Option<&str>| source.is_none() || of == source;
        let orders = self.0.orders.remove(|order| order.name == name && is_source(order.source.as_deref())).await?;
        let mut ended: Vec<_> = orders.into_iter().map(Ended::Ordered).collect();
        let ends = |scope: &Scope, _: &Pause| match scope {
            Scope::Source(of) => is_source(Some(of.as_deref().unwrap_or(SYSTEM))),
            Scope::SigningDomain(_) => source.is_none(),
        };
        let sites = self.0.sites_called(name);
        let provider = self.0.providers.lock().get(name).cloned();
        let throttles = sites.iter().map(|site| &site.throttle).chain(provider.iter().map(|state| &state.throttle));
        ended.extend(throttles.flat_map(|throttle| throttle.resume(ends)));
        let count = ended.len();
        self.0.have_ended(ended);
        Ok(count)
    }

    /// Ends pauses when their time has come; sleeps in between.
    async fn end_pauses(&self) {
        loop {
            let called = self.0.new_end.notified();
            let first = self.0.ends.lock().first_key_value().map(|((end, _), _)| *end);
            let next = first.into_iter().chain(self.0.orders.next_end()).min();
            let wait = next.map(|end| end.saturating_since(self.0.clock.now()));
            match wait {
                Some(wait) if wait.is_zero() => self.end_due().await,
                Some(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = called => {}
                },
                None => called.await,
            }
        }
    }

    async fn end_due(&self) {
        let now = self.0.clock.now();
        let throttles = self.0.take_due(now);
        let throttles = throttles.values().filter_map(Weak::upgrade);
        let heard = throttles.flat_map(|throttle| throttle.resume(|_, pause| pause.is_over(now)));
        let orders = self.0.orders.end(now);
        self.0.have_ended(heard.chain(orders.iter().cloned().map(Ended::Ordered)));
        for order in orders {
            if let Err(error) = self.0.orders.forget(&order).await {
                tracing::warn!(%error, "a pause that is over stays in the table");
            }
        }
    }
}

impl Inner {
    /// The state of a site, made when it is not known.
    fn site(&self, place: Place) -> Arc<SiteState> {
        let mut sites = self.sites.lock();
        if let Some(site) = sites.map.get(&place.name) {
            return site.clone();
        }
        if sites.map.len() >= sites.tidy_at {
            sites.map.retain(|_, site| Arc::strong_count(site) > 1 || site.throttle.is_remarkable());
            sites.tidy_at = (sites.map.len() * 2).max(FIRST_TIDYING);
        }
        let rules = self.shaping.load().rules(&place);
        let provider = rules.provider.as_ref().map(|rules| self.provider(rules));
        let site = Arc::new(SiteState {
            throttle: Arc::new(Throttle::new(&self.clock, &self.metrics, rules.allowed())),
            rules: ArcSwap::from_pointee(rules),
            provider: ArcSwapOption::new(provider),
            place,
        });
        sites.map.insert(site.place.name.clone(), site.clone());
        site
    }

    /// The state of a provider by its rules of now.
    fn provider(&self, rules: &ProviderRules) -> Arc<ProviderState> {
        let most = rules.connections.unwrap_or(UNLIMITED);
        let allowed = Allowed { initial: most, most, rate: rules.rate };
        let mut providers = self.providers.lock();
        let state = providers.entry(rules.name.clone()).or_insert_with(|| {
            let throttle = Arc::new(Throttle::new(&self.clock, &self.metrics, allowed));
            Arc::new(ProviderState { name: rules.name.clone(), throttle })
        });
        state.throttle.allow(allowed);
        state.clone()
    }

    fn apply(&self, site: &SiteState, shaping: &Shaping) {
        let rules = shaping.rules(&site.place);
        site.provider.store(rules.provider.as_ref().map(|rules| self.provider(rules)));
        site.throttle.allow(rules.allowed());
        site.rules.store(Arc::new(rules));
    }

    /// Those that are known by a name: their own, a host's, their provider's.
    pub(super) fn sites_called(&self, name: &str) -> Vec<Arc<SiteState>> {
        let sites = self.sites.lock();
        let mut found: Vec<_> = sites.map.values().filter(|site| site.place.is_called(name)).cloned().collect();
        found.sort_by(|a, b| a.place.name.cmp(&b.place.name));
        found
    }

    /// Those at the same hosts.
    pub(super) fn sites_like(&self, place: &Place) -> Vec<Arc<SiteState>> {
        let sites = self.sites.lock();
        let mut found: Vec<_> = sites.map.values().filter(|site| site.place.is_like(place)).cloned().collect();
        found.sort_by(|a, b| a.place.name.cmp(&b.place.name));
        found
    }

    /// Those of a provider that are in use or have something to tell.
    pub(super) fn sites_of(&self, provider: &str) -> Vec<Arc<SiteState>> {
        let is_its = |site: &&Arc<SiteState>| site.provider.load().as_ref().is_some_and(|of| *of.name == *provider);
        let mut found: Vec<_> = self.sites.lock().map.values().filter(is_its).cloned().collect();
        found.sort_by(|a, b| a.place.name.cmp(&b.place.name));
        found
    }

    /// All sites and providers, by name.
    pub(super) fn throttles(&self) -> Vec<(Arc<str>, Arc<Throttle>)> {
        let providers = self
            .providers
            .lock()
            .values()
            .map(|state| (state.name.clone(), state.throttle.clone()))
            .collect::<Vec<_>>();
        let sites = self
            .sites
            .lock()
            .map
            .values()
            .map(|site| (site.place.name.clone(), site.throttle.clone()))
            .collect::<Vec<_>>();
        providers.into_iter().chain(sites).collect()
    }

    pub(super) fn provider_called(&self, name: &str) -> Option<Arc<ProviderState>> {
        let shaping = self.shaping.load();
        shaping.provider(name).map(|rules| self.provider(rules))
    }

    /// A throttle pauses: somebody has to end it.
    pub(super) fn ends(&self, throttle: &Arc<Throttle>, until: Timestamp) {
        let number = self.number();
        self.ends.lock().insert((until, number), Arc::downgrade(throttle));
        self.new_end.notify_one();
    }

    /// Pauses may have ended by `now` there.
    fn take_due(&self, now: Timestamp) -> BTreeMap<(Timestamp, u64), Weak<Throttle>> {
        let mut ends = self.ends.lock();
        let later = ends.split_off(&(now.saturating_add(Duration::from_millis(1)), 0));
        std::mem::replace(&mut *ends, later)
    }

    fn have_ended(&self, ended: impl IntoIterator<Item = Ended>) {
        self.ended.lock().extend(ended);
        self.has_ended.notify_one();
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl SiteState {
    /// The pause of the site, or of its provider.
    pub(super) fn pause_of(&self, scopes: &[Scope], now: Timestamp) -> Option<Pause> {
        let here = self.throttle.pause_of(scopes, now);
        here.or_else(|| self.provider.load().as_ref().and_then(|provider| provider.throttle.pause_of(scopes, now)))
    }
}

impl SiteRules {
    fn allowed(&self) -> Allowed {
        Allowed { initial: self.initial_connections, most: self.connections, rate: self.rate }
    }
}
