use postrider_base::SimDisk;

use super::*;
use crate::samples;

struct World {
    store: Store,
    _index: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (store, index) = samples::store(&SimDisk::new());
        Self { store, _index: index }
    }

    fn open(&self, max_dkim_keys: u64) -> DkimKeys {
        DkimKeys::open(&self.store, &Settings { max_dkim_keys, ..Settings::default() }).unwrap()
    }
}

fn key(domain: &str, selector: &str, state: KeyState) -> DkimKey {
    DkimKey {
        account: AccountId::default(),
        domain: domain.parse().unwrap(),
        selector: selector.parse().unwrap(),
        algorithm: DkimAlgorithm::RsaSha256,
        state,
        since: Timestamp::from_millis(1),
        origin: KeyOrigin::Managed,
        created: Timestamp::from_millis(1),
        seen: None,
        until: None,
        replaces: None,
        public: "v=DKIM1; p=".to_owned(),
        sealed: Sealed::new(b"secret bytes".to_vec()),
    }
}

fn selectors(keys: &[Arc<DkimKey>]) -> Vec<&str> {
    keys.iter().map(|key| key.selector.as_str()).collect()
}

#[tokio::test]
async fn keys_are_kept_and_found_by_their_domain() {
    let world = World::new();
    let (me, com) = (AccountId::default(), "example.com".parse().unwrap());
    {
        let keys = world.open(10);
        let three = [("b", KeyState::Next), ("a", KeyState::Current), ("c", KeyState::Retired)];
        keys.create(three.map(|(name, state)| key("example.com", name, state)).to_vec()).await.unwrap();
        keys.create(vec![key("example.co", "x", KeyState::Current), key("a.example.com", "y", KeyState::Current)])
            .await
            .unwrap();
    }
    let keys = world.open(10);
    assert_eq!(selectors(&keys.of_domain(me, &com)), ["a", "b", "c"]);
    assert_eq!(selectors(&keys.current(me, &com)), ["a"]);
    assert_eq!((keys.list(me).len(), keys.all().len()), (5, 5));
    assert_eq!(
        keys.find(me, &com, &"a".parse().unwrap()).as_deref(),
        Some(&key("example.com", "a", KeyState::Current))
    );
    let stranger = AccountId::new(2).unwrap();
    assert!(keys.of_domain(stranger, &com).is_empty());

    keys.delete(me, &com, &"a".parse().unwrap()).await.unwrap();
    assert!(matches!(keys.delete(me, &com, &"a".parse().unwrap()).await, Err(Error::NotFound { .. })));
    assert!(keys.current(me, &com).is_empty());
}

#[tokio::test]
async fn a_selector_in_use_is_refused_whoever_uses_it() {
    let keys = World::new().open(2);
    keys.create(vec![key("example.com", "s", KeyState::Current)]).await.unwrap();
    let of_another = DkimKey { account: AccountId::new(2).unwrap(), ..key("example.com", "S", KeyState::Next) };
    for taken in [key("example.com", "s", KeyState::Next), of_another] {
        let error = keys.create(vec![key("example.com", "free", KeyState::Next), taken]).await.unwrap_err();
        assert_eq!(error.to_string(), "DKIM key s._domainkey.example.com already exists");
    }
    assert_eq!(keys.all().len(), 1, "all or none");
    let two = vec![key("example.com", "t", KeyState::Next), key("example.com", "u", KeyState::Next)];
    assert!(matches!(keys.create(two).await, Err(Error::Full { setting: "max_dkim_keys", bound: 2 })));
}

#[tokio::test]
async fn a_change_sees_the_domain_and_adds_nothing() {
    let keys = World::new().open(9);
    let (me, com) = (AccountId::default(), "example.com".parse().unwrap());
    keys.create(vec![key("example.com", "s", KeyState::Current)]).await.unwrap();
    let changed = keys
        .change::<Error>(me, &com, |found| Ok(vec![DkimKey { state: KeyState::Retired, ..DkimKey::clone(&found[0]) }]))
        .await
        .unwrap();
    assert_eq!(changed[0].state, KeyState::Retired);
    let stranger = keys.change::<Error>(me, &com, |_| Ok(vec![key("example.com", "t", KeyState::Next)])).await;
    assert!(matches!(stranger, Err(Error::NotFound { .. })));
}

#[test]
fn what_is_sealed_does_not_show() {
    let key = key("example.com", "s", KeyState::Current);
    assert!(format!("{key:?}").contains("Sealed(12 bytes)"));
    assert_eq!(serde_json::from_str::<DkimKey>(&serde_json::to_string(&key).unwrap()).unwrap(), key);
}
