//! Which keys sign, and what becomes of them.

use std::path::Path;
use std::time::Duration;

use postrider_account::{Accounts, Identity, IdentityName, KeyState};
use postrider_base::{Clock, Random, SimDisk};
use postrider_mail::{DkimAlgorithm, Selector};
use postrider_mailauth::dkim::{KeyError, SealError, Sealing};
use postrider_store::Store;

use super::*;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const RETENTION: Duration = Duration::from_hours(12 * 24);
const KEY: &str = include_str!("../../../mailauth/tests/keys/rsa-2048-pkcs8.pem");
const SHORT: &str = include_str!("../../../mailauth/tests/keys/rsa-1024-pkcs1.pem");
const RSA: DkimAlgorithm = DkimAlgorithm::RsaSha256;
const ED25519: DkimAlgorithm = DkimAlgorithm::Ed25519Sha256;

struct World {
    accounts: Accounts,
    clock: Clock,
    ring: KeyRing,
    _index: tempfile::TempDir,
}

fn me() -> AccountId {
    AccountId::default()
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

impl World {
    async fn new(identities: &[&str]) -> Self {
        let index = tempfile::tempdir().unwrap();
        let options = postrider_store::Options { index_dir: Some(index.path().to_owned()), ..Default::default() };
        let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
        let (clock, random) = (Clock::simulated(START), Random::seeded(7));
        let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
        for name in identities {
            accounts.identities().create(Identity::new(me(), name.parse().unwrap())).await.unwrap();
        }
        let ring = ring(&accounts, &clock, Sealing::ephemeral(&random).unwrap().into());
        ring.check().unwrap();
        Self { accounts, clock, ring, _index: index }
    }

    /// Gives the domain a key that signs at once.
    async fn current(&self, name: &str, key: &str) {
        self.ring.import(me(), &domain(name), selector(key), KEY).await.unwrap();
        self.ring.rotate(me(), &domain(name), Some(&selector(key)), true).await.unwrap();
    }

    async fn change(&self, name: &str, change: fn(&mut Identity)) {
        let name: IdentityName = name.parse().unwrap();
        self.accounts.identities().change(me(), &name, change).await.unwrap();
    }

    /// Domains of the signatures on this author's mail.
    fn signers(&self, author: &str) -> Vec<String> {
        let keys = self.ring.keys_of(me(), &author.parse().unwrap());
        keys.iter().map(|key| format!("{} {}", key.domain, key.algorithm)).collect()
    }

    fn signing(&self, operator: Option<&str>) -> Signing {
        let settings = DkimSettings { operator_signature: true, threads: 2, ..DkimSettings::default() };
        Signing::start(self.ring.clone(), &settings, operator.map(domain), Metrics::new()).unwrap()
    }
}

/// At most two keys are open.
fn ring(accounts: &Accounts, clock: &Clock, sealer: Sealer) -> KeyRing {
    KeyRing::new(KeyRingDeps {
        accounts: accounts.clone(),
        sealer,
        clock: clock.clone(),
        random: Random::seeded(8),
        max_open: 2,
        retention: RETENTION,
    })
}

fn content(pieces: &[&str]) -> Content {
    Content::new(pieces.iter().map(|piece| Bytes::copy_from_slice(piece.as_bytes())).collect())
}

fn text(content: &Content) -> String {
    String::from_utf8(content.to_bytes().to_vec()).unwrap()
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[tokio::test]
async fn the_nearest_domain_signs_and_the_most_specific_identity_says_whether() {
    let world = World::new(&["example.com", "eu.example.com", "bare.example.com", "ann@eu.example.com"]).await;
    world.current("example.com", "s1").await;
    world.current("eu.example.com", "s1").await;
    for (author, expected) in [
        ("x@example.com", "example.com rsa-sha256"),
        ("x@deep.in.example.com", "example.com rsa-sha256"),
        ("x@bare.example.com", "example.com rsa-sha256"),
        ("x@in.eu.example.com", "eu.example.com rsa-sha256"),
        ("ann@eu.example.com", "eu.example.com rsa-sha256"),
    ] {
        assert_eq!(world.signers(author), [expected], "{author}");
    }
    assert!(world.signers("x@example.org").is_empty() && world.signers("x@notexample.com").is_empty());
    assert!(world.ring.keys_of(AccountId::new(2).unwrap(), &"x@example.com".parse().unwrap()).is_empty());

    world.change("ann@eu.example.com", |ann| ann.dkim.enabled = false).await;
    assert!(world.signers("ann@eu.example.com").is_empty());
    assert_eq!(world.signers("bob@eu.example.com").len(), 1);
    world.change("eu.example.com", |eu| eu.dkim.enabled = false).await;
    assert!(world.signers("bob@eu.example.com").is_empty());
    world.change("ann@eu.example.com", |ann| ann.dkim.enabled = true).await;
    assert_eq!(world.signers("ann@eu.example.com").len(), 1, "the address overrides its domain");
}

#[tokio::test]
async fn a_second_signature_is_by_ed25519_where_it_is_wished() {
    let world = World::new(&["example.com"]).await;
    for algorithm in [RSA, ED25519] {
        world.ring.create_managed(me(), &domain("example.com"), algorithm).await.unwrap();
    }
    world.ring.rotate(me(), &domain("example.com"), None, true).await.unwrap();
    assert_eq!(world.signers("x@example.com"), ["example.com rsa-sha256"]);
    world.change("example.com", |identity| identity.dkim.ed25519 = true).await;
    let mut both = world.signers("x@example.com");
    both.sort();
    assert_eq!(both, ["example.com ed25519-sha256", "example.com rsa-sha256"]);
}

#[tokio::test]
async fn signatures_go_in_front_and_nothing_else_changes() {
    let world = World::new(&["example.com", "example.net"]).await;
    world.current("example.com", "s1").await;
    world.current("example.net", "op").await;
    let signing = world.signing(Some("example.net"));
    let theirs = "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=own; h=From; bh=; b=\r\n";
    let message = content(&[&format!("{theirs}From: x@example.com\r\n\r\n"), "bo", "dy\r\n"]);
    let signed =
        signing.of_author(me(), Some(&"x@example.com".parse().unwrap()), START, message.clone()).await.unwrap();
    let front = text(&signed).strip_suffix(&text(&message)).expect("the message is there as it was").to_owned();
    assert_eq!(count(&front, "DKIM-Signature: "), 2);
    for tags in ["d=example.com;\r\n\ts=s1; t=1700000000;", "d=example.net;\r\n\ts=op; t=1700000000;"] {
        assert!(front.contains(tags), "{front}");
    }
    assert_eq!(signed.chunks()[1].as_ptr(), message.chunks()[0].as_ptr(), "nothing is copied");
    assert_eq!(signing.metrics.dkim_signatures.get(), 2);

    let of_operator =
        signing.of_author(me(), Some(&"x@example.net".parse().unwrap()), START, message.clone()).await.unwrap();
    assert_eq!(count(&text(&of_operator), "d=example.net"), 1, "one signature of one domain is enough");
    let of_nobody = signing.of_author(me(), None, START, message.clone()).await.unwrap();
    assert_eq!(count(&text(&of_nobody), "d=example.net"), 1, "the operator answers for all that is sent");
    let by_nobody = world.signing(None).of_author(me(), None, START, message.clone()).await.unwrap();
    assert_eq!(text(&by_nobody), text(&message));
    let own = signing.of_relay(&domain("mx.example.net"), START, message.clone()).await.unwrap();
    assert_eq!(count(&text(&own), "d=example.net"), 1);
    let unknown = signing.of_relay(&domain("example.org"), START, message.clone()).await.unwrap();
    assert_eq!(text(&unknown), text(&message));
}

#[tokio::test]
async fn what_can_not_be_signed_is_an_error() {
    let world = World::new(&["example.com"]).await;
    world.current("example.com", "s1").await;
    let signing = world.signing(None);
    let author = "x@example.com".parse().unwrap();
    let result = signing.of_author(me(), Some(&author), START, content(&["To: y@z\r\n\r\n"])).await;
    assert!(matches!(result, Err(KeyRingError::Sign(_))));
    assert_eq!((signing.metrics.dkim_failures.get(), signing.metrics.dkim_signatures.get()), (1, 0));
}

#[tokio::test]
async fn keys_are_refused_with_reasons() {
    let world = World::new(&["example.com", "ann@example.org"]).await;
    let (ring, com) = (&world.ring, domain("example.com"));
    for other in ["example.org", "sub.example.com"] {
        let error = ring.create_managed(me(), &domain(other), RSA).await.unwrap_err();
        assert!(matches!(error, KeyRingError::NotOurs(_)) && error.to_string().contains(other));
        assert!(matches!(ring.import(me(), &domain(other), selector("s"), KEY).await, Err(KeyRingError::NotOurs(_))));
    }
    let refused = ring.import(me(), &com, selector("s"), SHORT).await;
    assert!(matches!(refused, Err(KeyRingError::Key(KeyError::TooShort))));
    ring.import(me(), &com, selector("s"), KEY).await.unwrap();
    let error = ring.import(me(), &com, selector("S"), KEY).await.unwrap_err();
    assert_eq!(error.to_string(), "DKIM key s._domainkey.example.com already exists");
    ring.create_managed(me(), &com, RSA).await.unwrap();
    assert!(matches!(ring.create_managed(me(), &com, RSA).await, Err(KeyRingError::Managed(_))));
    ring.create_managed(me(), &com, ED25519).await.unwrap();
    assert_eq!(world.accounts.dkim_keys().of_domain(me(), &com).len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_key_signs_when_it_was_seen_and_stays_published_when_it_retires() {
    let world = World::new(&["example.com"]).await;
    let (ring, com) = (&world.ring, domain("example.com"));
    assert!(matches!(ring.rotate(me(), &com, None, true).await, Err(KeyRingError::NoNext(_))));
    let made = ring.create_managed(me(), &com, ED25519).await.unwrap();
    let error = ring.rotate(me(), &com, None, false).await.unwrap_err();
    assert!(matches!(error, KeyRingError::NotSeen(_)), "{error}");
    assert!(ring.table().current(me(), &com).is_empty());

    ring.looked(&made[1], true).await.unwrap();
    ring.rotate(me(), &com, None, false).await.unwrap();
    assert_eq!(ring.table().current(me(), &com)[0].selector, made[1].selector);
    ring.rotate(me(), &com, Some(&made[2].selector), true).await.unwrap();
    assert_eq!(ring.table().current(me(), &com)[0].selector, made[2].selector);
    let retired = ring.table().find(me(), &com, &made[1].selector).unwrap();
    assert_eq!((retired.state, retired.public == made[1].public), (KeyState::Retired, true));

    assert!(matches!(ring.renew(&retired).await, Err(KeyRingError::StillNeeded)));
    assert!(matches!(ring.delete(me(), &com, &retired.selector, false).await, Err(KeyRingError::StillNeeded)));
    assert!(matches!(ring.delete(me(), &com, &made[2].selector, false).await, Err(KeyRingError::StillNeeded)));
    tokio::time::advance(RETENTION).await;
    ring.renew(&retired).await.unwrap();
    let renewed = ring.table().find(me(), &com, &retired.selector).unwrap();
    assert_eq!((renewed.state, renewed.seen, renewed.created), (KeyState::Next, None, world.clock.now()));
    assert_ne!(renewed.public, retired.public);
    ring.delete(me(), &com, &renewed.selector, false).await.unwrap();
    ring.retire(me(), &com, &made[2].selector, true).await.unwrap();
    assert!(ring.table().current(me(), &com).is_empty());
    ring.delete(me(), &com, &made[2].selector, true).await.unwrap();
    assert_eq!(ring.table().list(me()).len(), 1);
}

#[tokio::test]
async fn keys_sealed_by_another_file_do_not_open() {
    let world = World::new(&["example.com"]).await;
    world.current("example.com", "s1").await;
    let other = ring(&world.accounts, &world.clock, Sealing::ephemeral(&Random::seeded(99)).unwrap().into());
    assert!(matches!(other.check(), Err(KeyRingError::Seal(SealError::WrongKey(_)))));
    let nowhere = Sealer::file(Arc::new(SimDisk::new()), "/keys/lost.key".into(), Random::seeded(99));
    let lost = ring(&world.accounts, &world.clock, nowhere);
    assert!(lost.check().unwrap_err().to_string().contains("/keys/lost.key"));
    let (com, s1) = (domain("example.com"), selector("s1"));
    assert!(matches!(
        lost.import(me(), &com, selector("s2"), KEY).await,
        Err(KeyRingError::Seal(SealError::File { .. }))
    ));
    lost.delete(me(), &com, &s1, true).await.unwrap();
    lost.check().unwrap();
}

#[tokio::test]
async fn no_more_keys_are_open_than_the_bound() {
    let world = World::new(&["a.example", "b.example", "c.example"]).await;
    for name in ["a.example", "b.example", "c.example"] {
        world.current(name, "s").await;
        let key = world.ring.table().current(me(), &domain(name)).remove(0);
        let first = world.ring.signer(&key).unwrap();
        assert!(Arc::ptr_eq(&first, &world.ring.signer(&key).unwrap()), "opened once");
        assert_eq!(first.domain(), &domain(name));
    }
    let again = world.ring.table().current(me(), &domain("a.example")).remove(0);
    assert_eq!(world.ring.signer(&again).unwrap().domain(), &domain("a.example"));
}

#[tokio::test]
async fn another_key_under_the_same_selector_is_another_key() {
    let world = World::new(&["example.com"]).await;
    let com = domain("example.com");
    let first = world.ring.create_managed(me(), &com, ED25519).await.unwrap().remove(0);
    let open = world.ring.signer(&first).unwrap();
    world.ring.delete(me(), &com, &first.selector, true).await.unwrap();
    world.ring.import(me(), &com, first.selector.clone(), KEY).await.unwrap();
    let second = world.ring.table().find(me(), &com, &first.selector).unwrap();
    assert_ne!(world.ring.signer(&second).unwrap().algorithm(), open.algorithm());
}
