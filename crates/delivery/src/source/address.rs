//! One source while the relay runs: what it is handed out as, how far it is warmed up,
//! what became of its mail.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postrider_base::metrics::{Counter, Gauge};
use postrider_base::{Metrics, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{Event, KEPT_DAYS, Record};
use super::reverse::ReverseDns;
use super::settings::{OnBlock, SourceSettings, WarmUpSettings};
use super::warm_up::{Today, WarmUp, day};
use super::{Source, SourceView, WarmUpView};

/// A source by its present settings.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) name: Arc<str>,
    pub(super) settings: SourceSettings,
    /// Without IPv6 while that is not confirmed.
    source: ArcSwap<Source>,
    /// Outlives a change of the settings.
    pub(super) life: Arc<Life>,
    counters: Counters,
}

/// Its metrics, found once.
#[derive(Debug)]
struct Counters {
    warm_up: Gauge,
    attempts: Counter,
    delivered: Counter,
    deferred: Counter,
    bounced: Counter,
    blocked: Counter,
}

impl Counters {
    fn of(name: &str, metrics: &Metrics) -> Self {
        Self {
            warm_up: metrics.source_warm_up.of(name),
            attempts: metrics.source_attempts.of(name),
            delivered: metrics.source_delivered.of(name),
            deferred: metrics.source_deferred.of(name),
            bounced: metrics.source_bounced.of(name),
            blocked: metrics.source_blocked.of(name),
        }
    }
}

/// What is true of an address whatever its settings.
#[derive(Debug)]
pub(super) struct Life {
    /// Whose history this is.
    main: IpAddr,
    /// When the warm-up is over, in milliseconds since 1970.
    warm_at: AtomicU64,
    /// Whether `state` is not yet written down.
    unwritten: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    warm_up: WarmUp,
    today: Today,
    record: Record,
    reverse: (ReverseDns, ReverseDns),
}

/// A source as it is kept on disk. A later form becomes another variant, so that rows
/// written today stay readable.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum Row {
    V1 {
        /// The address whose history this is.
        main: IpAddr,
        warm_up: WarmUp,
        /// The day that `sites` are of.
        day: u32,
        /// Messages of the day to the busiest sites.
        sites: Vec<(String, u32)>,
        record: Record,
    },
}

impl Row {
    /// Whether nothing has happened to it for as long as days are kept.
    pub(super) fn is_old(&self, now: Timestamp) -> bool {
        let Self::V1 { warm_up, record, .. } = self;
        let last = record.last_day().unwrap_or(0).max(day(warm_up.since));
        u64::from(day(now)) > u64::from(last) + KEPT_DAYS as u64
    }
}

/// A message's place among those that a source which is being warmed up may send to a site
/// today. Dropped before the message is sent, it is free again. The default is no place,
/// where none is needed.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<Held>);

#[derive(Debug)]
struct Held {
    life: Arc<Life>,
    site: Box<str>,
    day: u32,
}

impl Place {
    /// The message is being sent.
    pub(crate) fn taken(&mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.life.state.lock().today.give_back(&held.site, held.day);
            held.life.changed();
        }
    }
}

impl Life {
    /// Of an address that begins now, or goes on from what was written down of it.
    pub(super) fn new(main: IpAddr, start: u8, kept: Option<Row>, now: Timestamp) -> Self {
        let kept = kept.filter(|Row::V1 { main: of, .. }| *of == main);
        let unwritten = kept.is_none();
        let (warm_up, today, record) = match kept {
            Some(Row::V1 { warm_up, day, sites, record, .. }) => (warm_up, Today::of(day, sites), record),
            None => (WarmUp { since: now, from: start }, Today::default(), Record::default()),
        };
        Self {
            main,
            warm_at: AtomicU64::new(0),
            unwritten: AtomicBool::new(unwritten),
            state: Mutex::new(State { warm_up, today, record, reverse: Default::default() }),
        }
    }

    /// Whether this is the history of this address.
    pub(super) fn is_of(&self, main: IpAddr) -> bool {
        self.main == main
    }

    /// What is to be written down, once for each change.
    pub(super) fn take_unwritten(&self) -> Option<Row> {
        self.unwritten.swap(false, Ordering::AcqRel).then(|| self.row())
    }

    /// What was taken has not been written down.
    pub(super) fn not_written(&self) {
        self.unwritten.store(true, Ordering::Release);
    }

    fn row(&self) -> Row {
        let state = self.state.lock();
        let (day, sites) = state.today.kept();
        Row::V1 { main: self.main, warm_up: state.warm_up, day, sites, record: state.record.clone() }
    }

    fn changed(&self) {
        self.unwritten.store(true, Ordering::Release);
    }
}

impl Address {
    pub(super) fn new(
        name: &str,
        settings: SourceSettings,
        life: Arc<Life>,
        warm_up: &WarmUpSettings,
        metrics: &Metrics,
    ) -> Self {
        let counters = Counters::of(name, metrics);
        let name: Arc<str> = name.into();
        let warm_at = life.state.lock().warm_up.ends(warm_up);
        life.warm_at.store(warm_at.as_millis(), Ordering::Release);
        let source = ArcSwap::from_pointee(handed_out(&name, &settings, &life.state.lock().reverse.1));
        Self { name, settings, source, life, counters }
    }

    /// What connections are opened from.
    pub(super) fn source(&self) -> Arc<Source> {
        self.source.load_full()
    }

    /// Whether it has an address that may be used.
    pub(super) fn is_usable(&self) -> bool {
        let source = self.source.load();
        source.ipv4.is_some() || source.ipv6.is_some()
    }

    /// Whether a connection came from here.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let source = self.source.load();
        source.ipv4.map(IpAddr::V4) == Some(address) || source.ipv6.map(IpAddr::V6) == Some(address)
    }

    pub(super) fn moves(&self) -> bool {
        self.settings.on_block == OnBlock::Move
    }

    pub(super) fn is_warm(&self, now: Timestamp, warm_up: &WarmUpSettings) -> bool {
        !warm_up.enabled || now.as_millis() >= self.life.warm_at.load(Ordering::Acquire)
    }

    pub(super) fn percent(&self, now: Timestamp, warm_up: &WarmUpSettings) -> u8 {
        self.life.state.lock().warm_up.percent(now, warm_up)
    }

    /// Counts a message to `site`, unless the site has had all of today's.
    pub(super) fn take(&self, site: &str, now: Timestamp, warm_up: &WarmUpSettings) -> Option<Place> {
        let mut state = self.life.state.lock();
        let limit = state.warm_up.daily(now, warm_up);
        let taken = state.today.take(site, now, limit);
        drop(state);
        taken.then(|| self.place(site, now))
    }

    /// Counts a message to `site`, however many it has had.
    pub(super) fn take_excess(&self, site: &str, now: Timestamp) -> Place {
        self.life.state.lock().today.take(site, now, None);
        self.place(site, now)
    }

    fn place(&self, site: &str, now: Timestamp) -> Place {
        self.life.changed();
        Place(Some(Held { life: self.life.clone(), site: site.into(), day: day(now) }))
    }

    pub(super) fn count(&self, event: Event, now: Timestamp) {
        let counter = match event {
            Event::Attempt => &self.counters.attempts,
            Event::Delivered => &self.counters.delivered,
            Event::Deferred => &self.counters.deferred,
            Event::Bounced => &self.counters.bounced,
            Event::Blocked => &self.counters.blocked,
        };
        counter.inc();
        self.life.state.lock().record.add(event, now);
        self.life.changed();
    }

    /// Begins the warm-up anew, at this percentage. Returns what is to be written down.
    pub(super) fn restart(&self, from: u8, now: Timestamp, warm_up: &WarmUpSettings) -> Row {
        let mut state = self.life.state.lock();
        state.warm_up = WarmUp { since: now, from };
        self.life.warm_at.store(state.warm_up.ends(warm_up).as_millis(), Ordering::Release);
        drop(state);
        self.life.row()
    }

    /// What is known of the reverse DNS of its IPv4 and its IPv6 address.
    pub(super) fn reverse(&self) -> (ReverseDns, ReverseDns) {
        self.life.state.lock().reverse.clone()
    }

    /// Takes new knowledge in. True where it has changed.
    pub(super) fn learn(&self, reverse: (ReverseDns, ReverseDns)) -> bool {
        let mut state = self.life.state.lock();
        if state.reverse == reverse {
            return false;
        }
        state.reverse = reverse;
        self.source.store(Arc::new(handed_out(&self.name, &self.settings, &state.reverse.1)));
        true
    }

    /// Shows the percentage in the metrics.
    pub(super) fn show(&self, now: Timestamp, warm_up: &WarmUpSettings) {
        self.counters.warm_up.set(i64::from(self.percent(now, warm_up)));
    }

    pub(super) fn view(&self, pool: Option<(String, String)>, now: Timestamp, warm_up: &WarmUpSettings) -> SourceView {
        let state = self.life.state.lock();
        let (account, pool) = pool.unzip();
        SourceView {
            name: self.name.to_string(),
            ipv4: self.settings.ipv4,
            ipv6: self.settings.ipv6,
            ipv6_used: self.source.load().ipv6.is_some(),
            reverse_ipv4: self.settings.ipv4.map(|_| state.reverse.0.clone()),
            reverse_ipv6: self.settings.ipv6.map(|_| state.reverse.1.clone()),
            ehlo_name: self.settings.ehlo_name.clone(),
            account,
            pool,
            on_block: self.settings.on_block,
            warm_up: WarmUpView {
                enabled: warm_up.enabled,
                percent: state.warm_up.percent(now, warm_up),
                since: state.warm_up.since,
                until: state.warm_up.ends(warm_up),
                daily: state.warm_up.daily(now, warm_up),
                today: state.today.sites(now),
            },
            days: state.record.days().collect(),
        }
    }
}

fn handed_out(name: &Arc<str>, settings: &SourceSettings, ipv6: &ReverseDns) -> Source {
    let may = settings.allow_unconfirmed_ipv6 || ipv6.is_confirmed();
    Source {
        name: name.clone(),
        ipv4: settings.ipv4,
        ipv6: settings.ipv6.filter(|_| may),
        ehlo_name: settings.ehlo_name.clone(),
        moves: settings.on_block == OnBlock::Move,
    }
}
