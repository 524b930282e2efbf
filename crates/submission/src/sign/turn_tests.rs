//! Keys take turns, and nothing is signed or sealed by a key that it should not be.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{Accounts, DkimKey, Identity, KeyState};
use postrider_base::{Clock, Disk as _, Random, SimDisk, Timestamp};
use postrider_mail::{AccountId, DkimAlgorithm, Domain, Selector};
use postrider_mailauth::dkim::{SealError, Sealing};
use postrider_store::Store;

use super::*;

const RETENTION: Duration = Duration::from_hours(12 * 24);
const HOUR: Duration = Duration::from_hours(1);
const ED25519: DkimAlgorithm = DkimAlgorithm::Ed25519Sha256;
const RSA_KEY: &str = include_str!("../../../mailauth/tests/keys/rsa-2048-pkcs8.pem");

struct World {
    accounts: Accounts,
    clock: Clock,
    ring: KeyRing,
    _index: tempfile::TempDir,
}

fn me() -> AccountId {
    AccountId::default()
}

fn com() -> Domain {
    "example.com".parse().unwrap()
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

impl World {
    /// With three managed Ed25519 keys of example.com, which are quick to make.
    async fn new() -> Self {
        let world = Self::bare().await;
        world.ring.create_managed(me(), &com(), ED25519).await.unwrap();
        world
    }

    async fn bare() -> Self {
        let index = tempfile::tempdir().unwrap();
        let options = postrider_store::Options { index_dir: Some(index.path().to_owned()), ..Default::default() };
        let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
        let (clock, random) = (Clock::simulated(Timestamp::from_millis(1_700_000_000_000)), Random::seeded(7));
        let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
        accounts.identities().create(Identity::new(me(), "example.com".parse().unwrap())).await.unwrap();
        let ring = ring(&accounts, &clock, Sealing::ephemeral(&random).unwrap().into(), RETENTION);
        Self { accounts, clock, ring, _index: index }
    }

    fn keys(&self, state: KeyState) -> Vec<Arc<DkimKey>> {
        let mut keys = self.ring.table().of_domain(me(), &com());
        keys.retain(|key| key.state == state);
        keys
    }

    fn find(&self, key: &DkimKey) -> Arc<DkimKey> {
        self.ring.table().find(me(), &com(), &key.selector).unwrap()
    }

    async fn rotate(&self, force: bool) -> Result<Vec<Arc<DkimKey>>, KeyRingError> {
        self.ring.rotate(me(), &com(), None, force).await
    }

    async fn retire(&self, key: &DkimKey, force: bool) -> Result<(), KeyRingError> {
        self.ring.retire(me(), &com(), &key.selector, force).await
    }
}

fn ring(accounts: &Accounts, clock: &Clock, sealer: Sealer, retention: Duration) -> KeyRing {
    let random = Random::seeded(8);
    KeyRing::new(KeyRingDeps {
        accounts: accounts.clone(),
        sealer,
        clock: clock.clone(),
        random,
        max_open: 9,
        retention,
    })
}

#[tokio::test]
async fn the_last_key_that_signs_retires_by_force_alone() {
    let world = World::new().await;
    world.rotate(true).await.unwrap();
    let current = world.keys(KeyState::Current).remove(0);
    let error = world.retire(&current, false).await.unwrap_err();
    assert!(matches!(error, KeyRingError::LastKey(_)) && error.to_string().contains(&current.record_name()), "{error}");
    assert_eq!(world.keys(KeyState::Current).len(), 1);
    world.retire(&current, true).await.unwrap();
    assert!(world.keys(KeyState::Current).is_empty());
    world.retire(&current, false).await.unwrap();
    let nobody = world.ring.retire(me(), &com(), &selector("nobody"), true).await;
    assert!(matches!(nobody, Err(KeyRingError::Account(postrider_account::Error::NotFound { .. }))));
}

#[tokio::test]
async fn where_the_next_key_is_seen_it_signs_in_the_place_of_one_that_is_retired_or_deleted() {
    let world = World::new().await;
    world.rotate(true).await.unwrap();
    let (first, next) = (world.keys(KeyState::Current).remove(0), world.keys(KeyState::Next));
    world.ring.looked(&next[1], true).await.unwrap();
    world.retire(&first, false).await.unwrap();
    assert_eq!(world.keys(KeyState::Current)[0].selector, next[1].selector);
    assert_eq!(world.find(&first).state, KeyState::Retired);

    world.ring.looked(&next[0], true).await.unwrap();
    world.ring.delete(me(), &com(), &next[1].selector, true).await.unwrap();
    assert_eq!(world.keys(KeyState::Current)[0].selector, next[0].selector);
}

#[tokio::test]
async fn whoever_waits_hears_of_every_change() {
    let world = World::new().await;
    world.ring.changed().await;
    world.rotate(true).await.unwrap();
    world.ring.changed().await;
    let current = world.keys(KeyState::Current).remove(0);
    world.retire(&current, true).await.unwrap();
    world.ring.changed().await;
    world.ring.delete(me(), &com(), &current.selector, true).await.unwrap();
    world.ring.changed().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_of_long_ago_does_not_count() {
    let world = World::new().await;
    let next = world.keys(KeyState::Next).remove(0);
    world.ring.looked(&next, true).await.unwrap();
    tokio::time::advance(HOUR + Duration::from_secs(1)).await;
    assert!(matches!(world.rotate(false).await, Err(KeyRingError::NotSeen(_))));
    world.ring.looked(&next, true).await.unwrap();
    world.ring.looked(&next, false).await.unwrap();
    assert_eq!(world.find(&next).seen, None, "it is gone");
    assert!(matches!(world.rotate(false).await, Err(KeyRingError::NotSeen(_))));
    world.ring.looked(&next, true).await.unwrap();
    world.rotate(false).await.unwrap();
    assert_eq!(world.keys(KeyState::Current)[0].selector, next.selector);
}

#[tokio::test]
async fn a_look_says_nothing_about_another_key_of_the_same_selector() {
    let world = World::new().await;
    let next = world.keys(KeyState::Next).remove(0);
    let before = DkimKey { public: "v=DKIM1; k=ed25519; p=b3RoZXI=".to_owned(), ..DkimKey::clone(&next) };
    world.ring.looked(&before, true).await.unwrap();
    assert_eq!(world.find(&next).seen, None);
}

#[tokio::test]
async fn a_kind_of_key_that_nobody_published_does_not_hold_up_the_other() {
    let world = World::new().await;
    let own = world.ring.import(me(), &com(), selector("own"), RSA_KEY).await.unwrap();
    let second = world.keys(KeyState::Next).into_iter().find(|key| key.algorithm == ED25519).unwrap();
    assert!(matches!(world.rotate(false).await, Err(KeyRingError::NotSeen(_))));
    world.ring.looked(&second, true).await.unwrap();
    assert_eq!(world.rotate(false).await.unwrap()[0].selector, second.selector);
    let named = world.ring.rotate(me(), &com(), Some(&own.selector), false).await.unwrap_err();
    assert!(matches!(named, KeyRingError::NotSeen(name) if name == own.record_name()));
    world.ring.looked(&own, true).await.unwrap();
    assert_eq!(world.rotate(false).await.unwrap().len(), 1);
    assert_eq!(world.keys(KeyState::Current).len(), 2);
}

#[tokio::test]
async fn managed_keys_are_made_once_whoever_asks_at_the_same_time() {
    let world = World::bare().await;
    let domain = com();
    let (one, other) = tokio::join!(
        world.ring.create_managed(me(), &domain, ED25519),
        world.ring.create_managed(me(), &domain, ED25519)
    );
    assert!(one.is_ok() != other.is_ok());
    assert_eq!(world.ring.table().all().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_retired_key_stays_as_long_as_was_said_then() {
    let world = World::new().await;
    world.rotate(true).await.unwrap();
    let current = world.keys(KeyState::Current).remove(0);
    world.retire(&current, true).await.unwrap();
    let (retired, now) = (world.find(&current), world.clock.now());
    let of = |retention| {
        ring(&world.accounts, &world.clock, Sealing::ephemeral(&Random::seeded(1)).unwrap().into(), retention)
    };
    assert_eq!(of(HOUR).published_until(&retired), Some(now.saturating_add(RETENTION)), "shorter settings came after");
    assert_eq!(of(2 * RETENTION).published_until(&retired), Some(now.saturating_add(2 * RETENTION)));
    assert!(matches!(of(HOUR).delete(me(), &com(), &current.selector, false).await, Err(KeyRingError::StillNeeded)));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_in_use_again_is_not_renewed() {
    let world = World::new().await;
    world.rotate(true).await.unwrap();
    let current = world.keys(KeyState::Current).remove(0);
    world.retire(&current, true).await.unwrap();
    let retired = world.find(&current);
    tokio::time::advance(RETENTION).await;
    world.ring.renew(&retired).await.unwrap();
    let renewed = world.find(&current);
    assert_eq!((renewed.state, renewed.replaces.as_ref()), (KeyState::Next, Some(&retired.public)));
    assert!(matches!(world.ring.renew(&retired).await, Err(KeyRingError::StillNeeded)), "it was shown an old row");
    assert_eq!(world.find(&current), renewed);
}

#[tokio::test]
async fn after_a_new_start_no_key_signs_unseen() {
    let world = World::new().await;
    let next = world.keys(KeyState::Next);
    world.ring.looked(&next[1], true).await.unwrap();
    world.rotate(false).await.unwrap();
    world.rotate(true).await.unwrap();
    world.ring.start_over(me(), &com()).await.unwrap();
    let [current, next, retired] =
        [KeyState::Current, KeyState::Next, KeyState::Retired].map(|state| world.keys(state));
    assert_eq!((current.len(), next.len(), retired.len()), (0, 2, 1));
    assert!(next.iter().chain(&retired).all(|key| key.seen.is_none()));
}

#[tokio::test]
async fn all_keys_of_a_store_are_sealed_by_one() {
    let world = World::new().await;
    let (disk, path) = (Arc::new(SimDisk::new()), Path::new("/keys/dkim-sealing.key"));
    Sealing::load_or_make(&*disk, path, &Random::seeded(3)).unwrap();
    let other = ring(&world.accounts, &world.clock, Sealer::file(disk, path.into(), Random::seeded(4)), RETENTION);
    let refused = other.import(me(), &com(), selector("s"), RSA_KEY).await.unwrap_err();
    assert!(matches!(refused, KeyRingError::Seal(SealError::WrongKey(_))), "{refused}");
    assert!(refused.to_string().contains("/keys/dkim-sealing.key") && refused.to_string().contains("sealing_key_file"));
    assert_eq!(world.ring.table().all().len(), 3);
}

#[tokio::test]
async fn the_sealing_key_is_made_with_the_first_key() {
    let world = World::bare().await;
    let (disk, path) = (Arc::new(SimDisk::new()), Path::new("/keys/dkim-sealing.key"));
    let ring =
        ring(&world.accounts, &world.clock, Sealer::file(disk.clone(), path.into(), Random::seeded(4)), RETENTION);
    ring.check().unwrap();
    assert!(!disk.exists(path));
    ring.create_managed(me(), &com(), ED25519).await.unwrap();
    assert!(disk.exists(path));
    ring.check().unwrap();
}

#[tokio::test]
async fn a_header_over_its_bound_is_refused_for_good() {
    let world = World::new().await;
    world.rotate(true).await.unwrap();
    let identity = "example.com".parse().unwrap();
    world.accounts.identities().change(me(), &identity, |identity| identity.dkim.ed25519 = true).await.unwrap();
    let settings = DkimSettings { threads: 1, ..DkimSettings::default() };
    let signing = Signing::start(world.ring.clone(), &settings, None, Metrics::new()).unwrap();
    let author = "x@example.com".parse().unwrap();
    let field = format!("X: {}\r\n", "x".repeat(postrider_mail::MAX_HEADER_BYTES));
    let content = Content::new(vec![format!("{field}From: x@example.com\r\n\r\n").into()]);
    let error = signing.of_author(me(), Some(&author), world.clock.now(), content).await.unwrap_err();
    assert_eq!(crate::Refusal::from(error), crate::Refusal::HeaderTooLong);
}
