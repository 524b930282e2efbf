//! Choosing, warming up and restarting, over a store and in simulated time.

use std::path::Path;

use postrider_base::SimDisk;
use postrider_dns::Zones;
use postrider_mail::AccountId;

use super::settings::Excess;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const SITE: &str = "mx.example";
/// The beginning of 2026.
const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

struct World {
    store: Store,
    accounts: Accounts,
    clock: Clock,
    random: Random,
    metrics: Metrics,
    settings: BTreeMap<String, SourceSettings>,
    warm_up: WarmUpSettings,
    _index: tempfile::TempDir,
}

impl World {
    /// With these sources: 192.0.2.1 and so on, warmed up this far.
    fn new(sources: &[(&str, u8)]) -> Self {
        let index = tempfile::tempdir().unwrap();
        let mut options = postrider_store::Options { index_dir: Some(index.path().to_owned()), ..Default::default() };
        // A thread would let paused time run ahead while it syncs.
        options.log.driver = postrider_spool::Driver::Task;
        let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
        let clock = Clock::simulated(START);
        let random = Random::seeded(11);
        let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
        let source = |(name, start): (u8, &(&str, u8))| {
            let ipv4 = Some(Ipv4Addr::new(192, 0, 2, name + 1));
            ((start.0).to_owned(), SourceSettings { ipv4, warm_up_start: start.1, ..SourceSettings::default() })
        };
        let settings = (0u8..).zip(sources).map(source).collect();
        let warm_up = WarmUpSettings { daily: Vec::new(), ..WarmUpSettings::default() };
        let metrics = Metrics::new();
        Self { store, accounts, clock, random, metrics, settings, warm_up, _index: index }
    }

    fn open(&self) -> Sources {
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        Sources::open(&self.settings, &self.warm_up, &self.accounts, &self.store, clock, &self.random, metrics).unwrap()
    }

    async fn pool(&self, name: &str, members: &[(&str, u32)]) {
        let pools = self.accounts.pools();
        pools.create(AccountId::default(), name).await.unwrap();
        for (source, weight) in members {
            pools.assign(AccountId::default(), name, source, *weight).await.unwrap();
        }
    }

    fn wish<'a>(&self, pool: Option<&'a str>) -> Wish<'a> {
        wish(&self.clock, pool)
    }

    /// How many of so many messages each source gets.
    fn tally(&self, sources: &Sources, pool: Option<&str>, count: usize) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for _ in 0..count {
            *tally.entry(sent(sources.choose(&self.wish(pool)))).or_default() += 1;
        }
        tally
    }
}

fn wish<'a>(clock: &Clock, pool: Option<&'a str>) -> Wish<'a> {
    Wish {
        account: AccountId::default(),
        pool,
        site: SITE,
        by_dns: true,
        last: None,
        now: clock.now(),
        paused: &|_| false,
    }
}

/// What was chosen: the name of a source, `system` or `wait`.
fn name(choice: &Choice) -> &str {
    match choice {
        Choice::Use { source: Some(source), .. } => &source.name,
        Choice::Use { source: None, .. } => "system",
        Choice::Wait { .. } => "wait",
    }
}

/// The same, and the message is sent.
fn sent(mut choice: Choice) -> String {
    if let Choice::Use { place, .. } = &mut choice {
        place.taken();
    }
    name(&choice).to_owned()
}

fn share(tally: &BTreeMap<String, usize>, name: &str) -> usize {
    tally.get(name).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn without_sources_the_system_chooses() {
    let world = World::new(&[]);
    world.pool("bulk", &[("gone", 1)]).await;
    let sources = world.open();
    assert_eq!(name(&sources.choose(&world.wish(None))), "system");
    assert_eq!(name(&sources.choose(&world.wish(Some("bulk")))), "system");
    assert!(sources.views().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pool_serves_those_who_name_it_and_the_shared_one_all_others() {
    let world = World::new(&[("a", 100), ("b", 100), ("c", 100)]);
    world.pool("bulk", &[("a", 3), ("b", 1)]).await;
    let sources = world.open();
    let tally = world.tally(&sources, Some("bulk"), 400);
    assert!(share(&tally, "a").abs_diff(300) <= 4 && share(&tally, "b").abs_diff(100) <= 4, "{tally:?}");
    for shared in [None, Some("ses-shared-pool"), Some("ses-default-dedicated-pool")] {
        assert_eq!(name(&sources.choose(&world.wish(shared))), "c");
    }
    let other = Wish { account: AccountId::new(2).unwrap(), ..world.wish(Some("bulk")) };
    let Choice::Wait { until, why } = sources.choose(&other) else { panic!("another account's pool") };
    assert!(until > world.clock.now());
    assert_eq!(why, "pool bulk has no address that may be used");

    // A change of the pools is seen at once.
    world.accounts.pools().assign(AccountId::default(), "bulk", "c", 1).await.unwrap();
    assert_eq!(name(&sources.choose(&world.wish(None))), "system", "all are dedicated");
    world.accounts.pools().remove(AccountId::default(), "bulk", "a").await.unwrap();
    assert_eq!(name(&sources.choose(&world.wish(None))), "a");
}

#[tokio::test(start_paused = true)]
async fn shares_of_the_shared_pool_are_in_the_settings() {
    let mut world = World::new(&[("a", 100), ("b", 100)]);
    world.settings.get_mut("a").unwrap().weight = 9;
    let sources = world.open();
    assert!(share(&world.tally(&sources, None, 1_000), "a").abs_diff(900) <= 8);
    world.settings.get_mut("a").unwrap().weight = 1;
    sources.configure(&world.settings, &world.warm_up);
    assert!(share(&world.tally(&sources, None, 1_000), "a").abs_diff(500) <= 8);
}

#[tokio::test(start_paused = true)]
async fn a_greylisted_message_comes_from_the_same_address_again() {
    let mut world = World::new(&[("a", 100), ("b", 100), ("c", 100)]);
    world.settings.get_mut("b").unwrap().on_block = OnBlock::Move;
    world.pool("bulk", &[("a", 1), ("b", 1)]).await;
    let sources = world.open();
    let last = |ip: &str| Wish { last: Some(ip.parse().unwrap()), ..world.wish(Some("bulk")) };
    for _ in 0..20 {
        assert_eq!(name(&sources.choose(&last("192.0.2.2"))), "b");
        assert_eq!(name(&sources.choose(&last("192.0.2.3"))), "c", "it had spilled over");
    }
    // Unless that is paused and its mail moves meanwhile, or is the pool's no more.
    let paused = Wish { paused: &|source| &*source.name == "b", ..last("192.0.2.2") };
    assert_eq!(name(&sources.choose(&paused)), "a");
    world.accounts.pools().remove(AccountId::default(), "bulk", "a").await.unwrap();
    world.accounts.pools().create(AccountId::default(), "other").await.unwrap();
    world.accounts.pools().assign(AccountId::default(), "other", "a", 1).await.unwrap();
    assert_eq!(name(&sources.choose(&last("192.0.2.1"))), "b");
}

#[tokio::test(start_paused = true)]
async fn mail_of_a_blocked_address_moves_only_where_the_operator_says_so() {
    let mut world = World::new(&[("a", 100), ("b", 100)]);
    world.settings.get_mut("b").unwrap().on_block = OnBlock::Move;
    let sources = world.open();
    let clock = world.clock.clone();
    let with_paused = |paused: &'static [&str]| {
        let is_paused = move |source: &Source| paused.contains(&&*source.name);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let wish = Wish { paused: &is_paused, ..wish(&clock, None) };
            seen.insert(name(&sources.choose(&wish)).to_owned());
        }
        seen.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(with_paused(&["a"]), "a b", "on_block = pause: it waits there");
    assert_eq!(with_paused(&["b"]), "a");
    assert_eq!(with_paused(&["a", "b"]), "a");
    world.settings.get_mut("a").unwrap().on_block = OnBlock::Move;
    sources.configure(&world.settings, &world.warm_up);
    assert_eq!(with_paused(&["a", "b"]), "a b", "with nowhere to go it waits as well");
}

#[tokio::test(start_paused = true)]
async fn forty_five_days_of_warming_up_beside_a_warm_address() {
    let world = World::new(&[("new", 0), ("old", 100)]);
    let sources = world.open();
    let mut before = 0;
    for day in 0..=45 {
        let tally = world.tally(&sources, None, 1_000);
        // Half of the mail would be its fair share.
        let fair = if day == 0 { 5 } else { 500 * day / 45 };
        let got = share(&tally, "new");
        assert!(got.abs_diff(fair) <= 14, "day {day}: {got} instead of {fair}");
        assert!(got + 14 >= before, "day {day}");
        assert_eq!(share(&tally, "old"), 1_000 - got);
        before = got;
        tokio::time::sleep(DAY).await;
    }
    let view = sources.views().remove(0);
    assert_eq!((view.warm_up.percent, view.warm_up.until.rfc3339().as_str()), (100, "2026-02-15T00:00:00.000Z"));
    assert!(world.metrics.encode().contains("postrider_source_warm_up_percent{source=\"old\"} 100"));
}

#[tokio::test(start_paused = true)]
async fn what_a_new_address_may_not_send_goes_to_its_pool_then_to_the_shared_one() {
    let mut world = World::new(&[("new", 0), ("old", 100), ("shared", 100)]);
    world.warm_up.daily = vec![10];
    world.pool("mixed", &[("new", 1), ("old", 1)]).await;
    let sources = world.open();
    sources.restart_warm_up("new", 90).await.unwrap();
    let tally = world.tally(&sources, Some("mixed"), 100);
    assert_eq!((share(&tally, "new"), share(&tally, "old")), (10, 90));
    let other_site = Wish { site: "mx.example.net", ..world.wish(Some("mixed")) };
    let seen = (0..10).filter(|_| sent(sources.choose(&other_site)) == "new").count();
    assert!(seen >= 3, "the plan is for each site: {seen}");

    world.accounts.pools().remove(AccountId::default(), "mixed", "old").await.unwrap();
    world.accounts.pools().create(AccountId::default(), "elsewhere").await.unwrap();
    world.accounts.pools().assign(AccountId::default(), "elsewhere", "old", 1).await.unwrap();
    tokio::time::sleep(DAY).await;
    let tally = world.tally(&sources, Some("mixed"), 100);
    assert_eq!((share(&tally, "new"), share(&tally, "shared")), (10, 90));

    // The operator's own hosts do not mind.
    let own_host = Wish { by_dns: false, ..world.wish(Some("mixed")) };
    assert_eq!(name(&sources.choose(&own_host)), "new");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_not_sent_gives_its_place_back() {
    let mut world = World::new(&[("new", 0)]);
    world.warm_up = WarmUpSettings { daily: vec![2], excess: Excess::Wait, ..world.warm_up };
    let sources = world.open();
    for _ in 0..10 {
        assert_eq!(name(&sources.choose(&world.wish(None))), "new", "claimed, and returned to the queue");
    }
    let ready = [sources.choose(&world.wish(None)), sources.choose(&world.wish(None))];
    assert_eq!(name(&sources.choose(&world.wish(None))), "wait", "what is ready counts");
    let [one, other] = ready;
    assert_eq!((sent(one), name(&other)), ("new".into(), "new"));
    tokio::time::sleep(DAY).await;
    assert_eq!(share(&world.tally(&sources, None, 5), "new"), 2);
    drop(other);
    assert_eq!(name(&sources.choose(&world.wish(None))), "wait", "a place of yesterday is none of today");
}

#[tokio::test(start_paused = true)]
async fn with_new_addresses_alone_mail_is_sent_or_waits_as_the_operator_says() {
    let mut world = World::new(&[("new", 0), ("newer", 0)]);
    world.warm_up.daily = vec![10, 20];
    world.warm_up.excess = Excess::Wait;
    let sources = world.open();
    let tally = world.tally(&sources, None, 30);
    assert_eq!((share(&tally, "new"), share(&tally, "newer"), share(&tally, "wait")), (10, 10, 10));
    let Choice::Wait { until, why } = sources.choose(&world.wish(None)) else { panic!("the plan has room") };
    assert_eq!(until.rfc3339(), "2026-01-02T00:00:00.000Z");
    assert!(why.starts_with("mx.example has had today's messages from new"), "{why}");
    let again = Wish { last: Some("192.0.2.1".parse().unwrap()), ..world.wish(None) };
    assert_eq!(name(&sources.choose(&again)), "new", "one that was begun is finished");

    tokio::time::sleep(DAY).await;
    assert_eq!(share(&world.tally(&sources, None, 100), "wait"), 60);
    world.warm_up.excess = Excess::Send;
    sources.configure(&world.settings, &world.warm_up);
    let tally = world.tally(&sources, None, 100);
    assert_eq!(share(&tally, "wait"), 0);
    world.warm_up = WarmUpSettings { enabled: false, excess: Excess::Wait, ..world.warm_up };
    sources.configure(&world.settings, &world.warm_up);
    assert_eq!(share(&world.tally(&sources, None, 100), "wait"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_forgets_nothing() {
    let mut world = World::new(&[("new", 0), ("old", 100)]);
    world.warm_up.daily = vec![5];
    let sources = world.open();
    let scope = Scope::new("test");
    let keeping = tokio::spawn(sources.clone().keep(scope.clone()));
    tokio::time::sleep(DAY * 9).await;
    assert_eq!(share(&world.tally(&sources, None, 200), "new"), 5);
    let Choice::Use { source: Some(source), .. } = sources.choose(&world.wish(None)) else { panic!("there is one") };
    for event in [Event::Attempt, Event::Delivered, Event::Deferred, Event::Bounced, Event::Blocked] {
        sources.count(&source, event);
    }
    let before = sources.views();
    scope.cancel();
    keeping.await.unwrap();

    let again = world.open();
    assert_eq!(again.views(), before);
    assert_eq!(share(&world.tally(&again, None, 200), "new"), 0, "today's five are gone");
    let counts = SourceCounts { attempts: 1, delivered: 1, deferred: 1, bounced: 1, blocked: 1 };
    let old = again.views().into_iter().find(|view| view.name == *source.name).unwrap();
    assert_eq!(old.days, [(Timestamp::parse_rfc3339("2026-01-10T00:00:00Z").unwrap(), counts)]);
    assert!(world.metrics.encode().contains("postrider_source_blocked_total{source=\"old\"} 1"));

    // Another address under the same name is another matter.
    world.settings.get_mut("new").unwrap().ipv4 = Some(Ipv4Addr::new(198, 51, 100, 1));
    again.configure(&world.settings, &world.warm_up);
    assert_eq!(again.views()[0].warm_up.percent, 1);
    assert!(again.views()[0].days.is_empty());
}

#[tokio::test(start_paused = true)]
async fn counts_are_written_at_times_and_not_once_a_message() {
    let world = World::new(&[("new", 0)]);
    let sources = world.open();
    sources.write_down().await;
    let before = world.store.usage().batches;
    for _ in 0..1_000 {
        sources.choose(&world.wish(None));
    }
    sources.write_down().await;
    sources.write_down().await;
    assert_eq!(world.store.usage().batches, before + 1);
}

#[tokio::test(start_paused = true)]
async fn sources_of_former_configurations_are_forgotten_after_a_month() {
    let mut world = World::new(&[("kept", 0), ("gone", 0)]);
    world.open().write_down().await;
    world.settings.remove("gone");
    let sources = world.open();
    for (days, rows) in [(30, 2), (31, 1)] {
        tokio::time::sleep(DAY * days - world.clock.now().saturating_since(START)).await;
        sources.forget_old().await.unwrap();
        assert_eq!(sources.0.table.len().unwrap(), rows, "after {days} days");
    }
}

#[tokio::test(start_paused = true)]
async fn operators_restart_and_complete_a_warm_up() {
    let world = World::new(&[("new", 0)]);
    let sources = world.open();
    for percent in [40, 0, 100] {
        sources.restart_warm_up("new", percent).await.unwrap();
        assert_eq!(world.open().views()[0].warm_up.percent, percent.max(1), "durable at once");
    }
    assert!(matches!(sources.restart_warm_up("old", 1).await, Err(Error::NoSuchSource(_))));
}

#[tokio::test(start_paused = true)]
async fn ipv6_waits_for_its_reverse_dns() {
    let mut world = World::new(&[("both", 100)]);
    let ipv6: Ipv6Addr = "2001:db8::25".parse().unwrap();
    world.settings.get_mut("both").unwrap().ipv6 = Some(ipv6);
    let only =
        SourceSettings { ipv6: Some("2001:db8::26".parse().unwrap()), warm_up_start: 100, ..SourceSettings::default() };
    world.settings.insert("only".into(), only);
    world.pool("six", &[("only", 1)]).await;
    let sources = world.open();
    let scope = Scope::new("test");
    let zones = Zones::new();
    zones.add_ptr("192.0.2.1", "both.example").add_address("both.example", "192.0.2.1");
    let looking = tokio::spawn(sources.clone().look_up(Arc::new(zones.clone()), scope.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = |sources: &Sources| match sources.choose(&world.wish(None)) {
        Choice::Use { source: Some(source), .. } => source.ipv6,
        other => panic!("{other:?}"),
    };
    assert_eq!(used(&sources), None);
    assert_eq!(name(&sources.choose(&world.wish(Some("six")))), "wait");
    let both = sources.views().remove(0);
    assert_eq!(both.reverse_ipv4, Some(ReverseDns::Confirmed("both.example".into())));
    assert!(matches!(both.reverse_ipv6, Some(ReverseDns::Unconfirmed(_))) && !both.ipv6_used);

    zones.add_ptr("2001:db8::25", "both.example").add_address("both.example", "2001:db8::25");
    tokio::time::sleep(LOOKING.0).await;
    assert_eq!(used(&sources), Some(ipv6));
    // It is kept through a change of the settings, and asked about again.
    sources.configure(&world.settings, &world.warm_up);
    assert_eq!(used(&sources), Some(ipv6));
    zones.remove("both.example");
    tokio::time::sleep(LOOKING.1).await;
    assert_eq!(used(&sources), None);

    let mut settings = world.settings.clone();
    settings.get_mut("only").unwrap().allow_unconfirmed_ipv6 = true;
    sources.configure(&settings, &world.warm_up);
    assert_eq!(name(&sources.choose(&world.wish(Some("six")))), "only");
    scope.cancel();
    looking.await.unwrap();
}
