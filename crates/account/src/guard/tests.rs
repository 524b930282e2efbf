use postrider_base::{Period, SimDisk};

use super::*;
use crate::samples;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct World {
    clock: Clock,
    disk: SimDisk,
    guard: Guard,
    store: Store,
    _index: tempfile::TempDir,
}

fn world(change: fn(&mut BanSettings)) -> World {
    open(SimDisk::new(), Clock::simulated(NOW), change)
}

fn open(disk: SimDisk, clock: Clock, change: fn(&mut BanSettings)) -> World {
    let (store, index) = samples::store(&disk);
    let mut settings = BanSettings { failures: 3, ..BanSettings::default() };
    change(&mut settings);
    let guard = Guard::open(&store, clock.clone(), &Random::seeded(1), &settings).unwrap();
    World { clock, disk, guard, store, _index: index }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl World {
    /// So many different wrong passwords.
    fn guess(&self, address: &str, user: &str, times: u32) -> Consequence {
        let mut last = None;
        for n in 0..times {
            last = Some(self.guard.failed(ip(address), user, format!("guess {n}").as_bytes()));
        }
        last.unwrap()
    }

    fn is_banned(&self, address: &str) -> bool {
        self.guard.check(ip(address)) != Verdict::Welcome
    }
}

#[tokio::test(start_paused = true)]
async fn guessing_is_banned_for_a_while_and_longer_the_next_time() {
    let world = world(|_| {});
    assert!(!world.guess("192.0.2.7", "user", 2).banned && !world.is_banned("192.0.2.7"));
    assert!(world.guard.failed(ip("192.0.2.7"), "other\r\n", b"third").banned);
    let until = NOW.saturating_add(Duration::from_secs(15 * 60));
    assert_eq!(world.guard.check(ip("::ffff:192.0.2.7")), Verdict::Banned { until });
    assert!(!world.is_banned("192.0.2.8"));
    let bans = world.guard.bans();
    assert_eq!((bans.len(), bans[0].network.to_string().as_str(), bans[0].times), (1, "192.0.2.7", 1));
    assert_eq!(bans[0].users, ["other??", "user"]);
    tokio::time::advance(Duration::from_secs(15 * 60)).await;
    assert!(!world.is_banned("192.0.2.7") && world.guard.bans().is_empty());
    assert!(!world.guess("192.0.2.7", "user", 2).banned, "a ban that is over has been served");
    assert!(world.guess("192.0.2.7", "user", 3).banned);
    let again = &world.guard.bans()[0];
    assert_eq!((again.times, again.until.saturating_since(again.since)), (2, Duration::from_secs(30 * 60)));
}

#[tokio::test]
async fn a_client_with_an_old_password_is_not_an_attacker() {
    let world = world(|_| {});
    for _ in 0..100 {
        assert!(!world.guard.failed(ip("192.0.2.7"), "user", b"old").banned);
    }
    assert!(!world.is_banned("192.0.2.7"));
}

#[tokio::test]
async fn a_user_is_delayed_wherever_the_guesses_come_from_and_never_banned() {
    let world = world(|s| s.max_delay = Period::from_secs(1));
    let delays: Vec<u64> = (0..5)
        .map(|n| {
            let address = ip(&format!("192.0.2.{n}"));
            let consequence = world.guard.failed(address, "user", format!("{n}").as_bytes());
            assert!(!consequence.banned);
            u64::try_from(consequence.delay.as_millis()).unwrap()
        })
        .collect();
    assert_eq!(delays, [250, 500, 1000, 1000, 1000]);
    assert_eq!(world.guard.failed(ip("198.51.100.1"), "other", b"x").delay, Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_long_ago_do_not_count() {
    let world = world(|_| {});
    world.guess("192.0.2.7", "user", 2);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(!world.guess("192.0.2.7", "user", 2).banned);
}

#[tokio::test(start_paused = true)]
async fn good_addresses_are_never_banned_for_thirty_days() {
    let world = world(|_| {});
    world.guard.succeeded(ip("192.0.2.7"));
    assert!(!world.guess("192.0.2.7", "user", 50).banned);
    assert!(world.guess("192.0.2.8", "user", 3).banned);
    tokio::time::advance(GOOD).await;
    assert!(world.guess("192.0.2.7", "user", 3).banned);
}

#[tokio::test]
async fn exempt_networks_are_never_banned_and_bans_can_be_turned_off() {
    let world = self::world(|s| s.exempt = vec!["192.0.2.0/24".parse().unwrap()]);
    assert!(!world.guess("192.0.2.7", "user", 50).banned);
    assert!(world.guess("198.51.100.7", "user", 3).banned);
    // An exemption lifts what is there.
    let exempt = vec!["198.51.100.0/24".parse().unwrap()];
    world.guard.configure(&BanSettings { exempt, ..BanSettings::default() });
    assert!(!world.is_banned("198.51.100.7"));
    let off = self::world(|s| s.enabled = false);
    assert!(!off.guess("192.0.2.7", "user", 50).banned);
}

#[tokio::test]
async fn an_ipv6_customer_is_one_network() {
    let world = world(|_| {});
    for n in 0..3 {
        world.guard.failed(ip(&format!("2001:db8::{n}")), "user", format!("{n}").as_bytes());
    }
    assert!(world.is_banned("2001:db8::ffff") && !world.is_banned("2001:db8:0:1::1"));
    assert_eq!(world.guard.bans()[0].network.to_string(), "2001:db8::/64");
}

#[tokio::test]
async fn bans_and_good_addresses_survive_a_restart() {
    let world = world(|_| {});
    world.guess("192.0.2.7", "user", 3);
    world.guess("2001:db8::1", "user", 3);
    world.guard.succeeded(ip("192.0.2.9"));
    world.guard.flush().await.unwrap();
    let World { disk, clock, store, .. } = world;
    store.close().await.unwrap();
    let world = open(disk, clock, |_| {});
    assert!(world.is_banned("192.0.2.7") && world.is_banned("2001:db8::2"));
    assert!(!world.guess("192.0.2.9", "user", 50).banned);
    assert_eq!(world.guard.bans()[0].users, ["user"]);
}

#[tokio::test]
async fn an_operator_lifts_bans() {
    let world = world(|_| {});
    for address in ["192.0.2.7", "192.0.2.8", "198.51.100.7"] {
        world.guess(address, "user", 3);
    }
    assert_eq!(world.guard.clear(Some("203.0.113.0/24".parse().unwrap())).await.unwrap(), 0);
    assert_eq!(world.guard.clear(Some("192.0.2.7".parse().unwrap())).await.unwrap(), 1);
    assert!(!world.is_banned("192.0.2.7") && world.is_banned("192.0.2.8"));
    assert_eq!(world.guard.clear(None).await.unwrap(), 2);
    assert!(world.guard.bans().is_empty());
    let World { disk, clock, store, .. } = world;
    store.close().await.unwrap();
    assert!(open(disk, clock, |_| {}).guard.bans().is_empty());
}

#[tokio::test]
async fn memory_is_bounded_whoever_comes() {
    let world = world(|s| s.max_entries = 320);
    for n in 0..20_000_u32 {
        let address = IpAddr::V4(n.wrapping_mul(2_654_435_761).into());
        world.guard.failed(address, &format!("user {n}"), b"x");
        world.guess(&address.to_string(), "user", 3);
        world.guard.succeeded(IpAddr::V4((n + 1).into()));
    }
    let inner = &world.guard.0;
    assert!(inner.offenders.iter().map(|shard| shard.lock().len()).sum::<usize>() <= 320);
    assert!(inner.users.iter().map(|shard| shard.lock().len()).sum::<usize>() <= 320);
    assert!(inner.bans.read().len() <= 320 && inner.good.read().len() <= 320);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_cleared_away() {
    let world = world(|_| {});
    let (metrics, scope) = (Metrics::new(), Scope::new("test"));
    world.guess("192.0.2.7", "user", 3);
    world.guard.succeeded(ip("192.0.2.9"));
    let keeping = tokio::spawn(world.guard.clone().keep(metrics.clone(), scope.clone()));
    while metrics.bans_active.get() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(GOOD + CLEANING * 2).await;
    scope.cancel();
    keeping.await.unwrap();
    assert_eq!(metrics.bans_active.get(), 0);
    assert!(world.guard.0.bans.read().is_empty() && world.guard.0.good.read().is_empty());
    assert_eq!(world.guard.0.table.len().unwrap(), 0);
}
