//! How policies are kept.

use std::sync::Arc;

use postrider_base::{Clock, Random, SimDisk};
use postrider_store::Store;

use super::tests::{account, realm, sending, statement};
use super::*;
use crate::{Accounts, Error, Identity, IdentityName, NewCredential, Settings, samples};

pub(super) struct World {
    store: Store,
    settings: Settings,
    _index: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let (store, index) = samples::store(&SimDisk::new());
        Self { store, settings: Settings::default(), _index: index }
    }

    pub(super) fn open(&self) -> Accounts {
        Accounts::open(&self.store, &Clock::system(), &Random::seeded(1), &self.settings).unwrap()
    }
}

#[tokio::test]
async fn policies_are_kept_and_hold_at_once() {
    let world = World::new();
    let accounts = world.open();
    let user = accounts.credentials().create(NewCredential::default()).await.unwrap().credential.user_name;
    let name: IdentityName = "example.com".parse().unwrap();
    accounts.identities().create(Identity::new(account(1), name.clone())).await.unwrap();
    let (by_user, by_name) = (PolicyOwner::Credential(user.clone()), PolicyOwner::Identity(account(1), name.clone()));
    let policies = accounts.policies();
    assert_eq!((policies.of_credential(&user), policies.of_identity(account(1), &name)), (None, None));

    let text = statement(r#""Sid":"a""#);
    let before = policies.revision();
    assert!(!policies.put(&by_user, "first", &text, &realm()).await.unwrap());
    assert!(policies.put(&by_user, "first", &statement(r#""Sid":"b""#), &realm()).await.unwrap());
    policies.put(&by_user, "second", &text, &realm()).await.unwrap();
    let sending = format!(r#"{{"Statement":[{}]}}"#, sending("\"*\"", ""));
    policies.put(&by_name, "first", &sending, &realm()).await.unwrap();
    assert!(policies.revision() > before);
    let kept = world.open();
    for policies in [policies, kept.policies()] {
        let names = |set: Option<Arc<PolicySet>>| {
            set.unwrap().policies().iter().map(|policy| policy.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(policies.of_credential(&user)), ["first", "second"]);
        assert_eq!(names(policies.of_identity(account(1), &name)), ["first"]);
        assert_eq!(policies.of_identity(account(2), &name), None);
        assert!(policies.of(&by_user).unwrap().policies()[0].text().contains(r#""Sid":"b""#));
    }

    policies.delete(&by_user, "first").await.unwrap();
    assert!(matches!(policies.delete(&by_user, "first").await, Err(Error::NotFound { what: "policy", .. })));
    assert_eq!(policies.forget(&by_user).await.unwrap(), 1);
    assert_eq!(policies.forget(&by_name).await.unwrap(), 1);
    assert_eq!(policies.forget(&by_name).await.unwrap(), 0);
    let kept = world.open();
    assert_eq!((kept.policies().of(&by_user), kept.policies().of(&by_name)), (None, None));
}

#[tokio::test]
async fn what_can_not_be_attached_is_refused() {
    let world = World { settings: Settings { max_policies: 22, ..Settings::default() }, ..World::new() };
    let accounts = world.open();
    let users = [NewCredential::default(), NewCredential::default()].map(|new| accounts.credentials().create(new));
    let [a, b] = users;
    let (a, b) = (a.await.unwrap().credential.user_name, b.await.unwrap().credential.user_name);
    let (a, b) = (PolicyOwner::Credential(a), PolicyOwner::Credential(b));
    let policies = accounts.policies();
    let text = statement(r#""Sid":"a""#);
    let nobody = PolicyOwner::Credential("AKIANOBODY".to_owned());
    assert!(matches!(policies.put(&nobody, "a", &text, &realm()).await, Err(Error::NoSuchUser(_))));
    let nothing = PolicyOwner::Identity(account(1), "example.com".parse().unwrap());
    let sending = format!(r#"{{"Statement":[{}]}}"#, sending("\"*\"", ""));
    let refused = policies.put(&nothing, "a", &sending, &realm()).await;
    assert!(matches!(refused, Err(Error::NotFound { what: "identity", .. })));
    let refused = policies.put(&a, "a", "{}", &realm()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the policy can not be used: it has no Statement");
    for index in 0..20 {
        policies.put(&a, &format!("p{index}"), &text, &realm()).await.unwrap();
    }
    policies.put(&a, "p0", &text, &realm()).await.unwrap();
    assert!(matches!(policies.put(&a, "p20", &text, &realm()).await, Err(Error::Invalid { what: "policy", .. })));
    policies.put(&b, "p0", &text, &realm()).await.unwrap();
    policies.put(&b, "p1", &text, &realm()).await.unwrap();
    let full = policies.put(&b, "p2", &text, &realm()).await;
    assert!(matches!(full, Err(Error::Full { setting: "max_policies", .. })));
    policies.delete(&a, "p0").await.unwrap();
    policies.put(&b, "p2", &text, &realm()).await.unwrap();
}
