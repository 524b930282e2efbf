//! Keys over weeks, in simulated time.

use std::path::Path;

use postrider_account::Accounts;
use postrider_base::{Random, SimDisk, Timestamp};
use postrider_dns::Zones;
use postrider_dns::zones::Failure;
use postrider_mailauth::dkim::Sealing;
use postrider_spool::Driver;
use postrider_store::Store;
use postrider_submission::KeyRingDeps;
use tokio::sync::Mutex;

use super::*;

const DAY: Duration = Duration::from_hours(24);
const RETENTION: Duration = Duration::from_hours(12 * 24);
const KEY: &str = include_str!("../../../mailauth/tests/keys/rsa-2048-pkcs8.pem");

struct World {
    accounts: Accounts,
    zones: Zones,
    rotation: Rotation,
    watch: Mutex<Watch>,
    _index: tempfile::TempDir,
}

fn com() -> Domain {
    "example.com".parse().unwrap()
}

impl World {
    async fn new() -> Self {
        let index = tempfile::tempdir().unwrap();
        let mut options = postrider_store::Options { index_dir: Some(index.path().to_owned()), ..Default::default() };
        // Paused time would fly while a thread writes.
        options.log.driver = Driver::Task;
        let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
        let (clock, random) = (Clock::simulated(Timestamp::from_millis(1_700_000_000_000)), Random::seeded(5));
        let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
        let ring = KeyRing::new(KeyRingDeps {
            accounts: accounts.clone(),
            sealer: Sealing::ephemeral(&random).unwrap().into(),
            clock: clock.clone(),
            random,
            max_open: 10,
            retention: RETENTION,
        });
        let zones = Zones::new();
        let rotation = Rotation {
            ring,
            identities: accounts.identities().clone(),
            resolver: Arc::new(zones.clone()),
            clock,
            period: 90 * DAY,
            interval: Duration::from_mins(15),
            recheck: Duration::from_hours(6),
            lookups: 8,
            operator: None,
        };
        let world = Self { accounts, zones, rotation, watch: Mutex::default(), _index: index };
        let mut identity = Identity::new(AccountId::default(), "example.com".parse().unwrap());
        // Without RSA keys the tests are quick; those are made where a test asks for them.
        identity.dkim.enabled = false;
        world.accounts.identities().create(identity).await.unwrap();
        world.rotation.ring.create_managed(AccountId::default(), &com(), DkimAlgorithm::Ed25519Sha256).await.unwrap();
        world
    }

    fn keys(&self, state: KeyState) -> Vec<Arc<DkimKey>> {
        let mut keys = self.accounts.dkim_keys().of_domain(AccountId::default(), &com());
        keys.retain(|key| key.state == state);
        keys
    }

    /// How many sign, follow, and are retired.
    fn counts(&self) -> [usize; 3] {
        [KeyState::Current, KeyState::Next, KeyState::Retired].map(|state| self.keys(state).len())
    }

    /// Publishes every key there is, and nothing else.
    fn publish(&self) {
        for key in self.accounts.dkim_keys().all() {
            self.zones.remove(&key.record_name()).add_txt(&key.record_name(), &key.public);
        }
    }

    async fn step(&self) {
        self.rotation.step(&mut *self.watch.lock().await).await;
    }

    async fn after(&self, time: Duration) {
        tokio::time::advance(time).await;
        self.step().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_signs_before_its_record_is_seen() {
    let world = World::new().await;
    world.after(DAY).await;
    assert_eq!(world.counts(), [0, 3, 0]);
    let first = world.keys(KeyState::Next).remove(0);
    world.zones.add_txt(&first.record_name(), "v=DKIM1; k=ed25519; p=c29tZXRoaW5nIGVsc2U=");
    world.after(DAY).await;
    assert_eq!(world.counts(), [0, 3, 0], "another key is published");
    world.zones.fail(&first.record_name(), Failure::ServFail);
    world.after(DAY).await;
    assert_eq!(world.counts(), [0, 3, 0]);
    world.publish();
    world.after(DAY).await;
    assert_eq!(world.counts(), [1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn keys_take_turns_and_every_retired_one_stays_for_the_life_of_mail() {
    let world = World::new().await;
    world.publish();
    world.step().await;
    let first = world.keys(KeyState::Current).remove(0);
    world.after(89 * DAY).await;
    assert_eq!(world.keys(KeyState::Current)[0].selector, first.selector);
    world.after(DAY).await;
    let second = world.keys(KeyState::Current).remove(0);
    assert_ne!(second.selector, first.selector);
    assert_eq!(world.counts(), [1, 1, 1]);
    world.after(RETENTION - Duration::from_secs(1)).await;
    assert_eq!(world.keys(KeyState::Retired)[0].public, first.public);
    world.after(Duration::from_secs(1)).await;
    assert_eq!(world.counts(), [1, 2, 0]);
    let renewed = world.keys(KeyState::Next).into_iter().find(|key| key.selector == first.selector).unwrap();
    assert!(renewed.public != first.public && renewed.seen.is_none());
    // Nobody publishes the new one: those that are published take their turns, and then the last goes on.
    for _ in 0..4 {
        world.after(90 * DAY).await;
        assert_eq!(world.keys(KeyState::Current).len(), 1);
    }
    assert!(world.zones_have(&world.keys(KeyState::Current)[0]).await);
}

impl World {
    async fn zones_have(&self, key: &DkimKey) -> bool {
        is_published(&self.zones, &key.record_name(), &key.public).await == Finding::Right
    }
}

#[tokio::test(start_paused = true)]
async fn with_no_period_keys_stay() {
    let mut world = World::new().await;
    world.rotation.period = Duration::ZERO;
    world.publish();
    world.step().await;
    let first = world.keys(KeyState::Current).remove(0);
    world.after(1_000 * DAY).await;
    assert_eq!(world.keys(KeyState::Current)[0].selector, first.selector);
}

#[tokio::test(start_paused = true)]
async fn an_own_key_signs_when_it_is_seen_and_is_nobody_elses_to_change() {
    let world = World::new().await;
    let own = "mine".parse().unwrap();
    world.rotation.ring.create_managed(AccountId::default(), &com(), DkimAlgorithm::RsaSha256).await.unwrap();
    world.publish();
    world.step().await;
    let taken = world.rotation.ring.import(AccountId::default(), &com(), own, KEY).await.unwrap();
    world.after(DAY).await;
    assert!(world.keys(KeyState::Current).iter().all(|key| key.origin == KeyOrigin::Managed));
    world.publish();
    world.after(DAY).await;
    let signs = |key: &Arc<DkimKey>| key.selector == taken.selector;
    assert!(world.keys(KeyState::Current).iter().any(signs));
    world.after(200 * DAY).await;
    assert!(world.keys(KeyState::Current).iter().any(signs), "it is not replaced by schedule");
}

#[tokio::test(start_paused = true)]
async fn a_domain_gets_the_keys_that_it_should_have() {
    let world = World::new().await;
    let name = "example.com".parse().unwrap();
    let on = |identity: &mut Identity| identity.dkim.enabled = true;
    world.accounts.identities().change(AccountId::default(), &name, on).await.unwrap();
    world
        .accounts
        .identities()
        .create(Identity::new(AccountId::default(), "a@example.org".parse().unwrap()))
        .await
        .unwrap();
    world.step().await;
    let keys = world.accounts.dkim_keys().all();
    let rsa = keys.iter().filter(|key| key.algorithm == DkimAlgorithm::RsaSha256).count();
    assert_eq!((rsa, keys.len()), (3, 6));
    world.step().await;
    assert_eq!(world.accounts.dkim_keys().all().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn where_the_record_of_the_key_that_signs_is_gone_a_published_one_takes_its_place() {
    let world = World::new().await;
    world.publish();
    world.step().await;
    let first = world.keys(KeyState::Current).remove(0);
    world.zones.fail(&first.record_name(), Failure::ServFail);
    world.after(DAY).await;
    assert_eq!(world.keys(KeyState::Current)[0].selector, first.selector, "no answer says nothing");
    world.publish();
    world.zones.remove(&first.record_name());
    world.after(DAY).await;
    assert_ne!(world.keys(KeyState::Current)[0].selector, first.selector);
    assert_eq!(world.counts(), [1, 1, 1]);

    for key in world.accounts.dkim_keys().all() {
        world.zones.remove(&key.record_name());
    }
    world.after(DAY).await;
    assert_eq!(world.counts(), [1, 1, 1], "none is better");
    assert!(world.keys(KeyState::Current)[0].seen.is_none() && world.keys(KeyState::Next)[0].seen.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_went_again_does_not_count() {
    let world = World::new().await;
    world.publish();
    world.step().await;
    for next in world.keys(KeyState::Next) {
        world.zones.remove(&next.record_name());
    }
    world.after(DAY).await;
    assert!(world.keys(KeyState::Next).iter().all(|key| key.seen.is_none()));
    world.after(90 * DAY).await;
    assert_eq!(world.counts(), [1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn name_servers_that_are_dead_hold_nobody_up() {
    let world = World::new().await;
    for number in 0..20 {
        let name = format!("dead{number}.example");
        let mut identity = Identity::new(AccountId::default(), name.parse().unwrap());
        identity.dkim.enabled = false;
        world.accounts.identities().create(identity).await.unwrap();
        let domain = name.parse().unwrap();
        let ring = &world.rotation.ring;
        let keys = ring.create_managed(AccountId::default(), &domain, DkimAlgorithm::Ed25519Sha256).await.unwrap();
        for key in keys {
            world.zones.fail(&key.record_name(), Failure::Silence);
        }
    }
    world.publish_of_com();
    let began = world.rotation.clock.now();
    world.step().await;
    assert_eq!(world.counts(), [1, 2, 0]);
    let first = world.rotation.clock.now().saturating_since(began);
    assert!(first < Duration::from_mins(5), "sixty looks of 30 s, eight at a time: {first:?}");
    let began = world.rotation.clock.now();
    for _ in 0..16 {
        tokio::time::advance(Duration::from_mins(15)).await;
        world.step().await;
    }
    let waited = world.rotation.clock.now().saturating_since(began) - 16 * Duration::from_mins(15);
    assert!(waited < 6 * first, "they are asked ever less: {waited:?}");
}

impl World {
    fn publish_of_com(&self) {
        for key in self.accounts.dkim_keys().of_domain(AccountId::default(), &com()) {
            self.zones.add_txt(&key.record_name(), &key.public);
        }
    }
}
