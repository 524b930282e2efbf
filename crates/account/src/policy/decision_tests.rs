//! Who may send as whom, by policies that are attached.

use postrider_mail::{AccountId, EmailAddress};

use super::kept_tests::World;
use super::tests::realm;
use super::*;
use crate::{Accounts, Identity, IdentityName, NewCredential};

/// Account 1 owns example.com and ann@example.com; accounts 1 and 2 have a credential.
struct Scene {
    accounts: Accounts,
    owner: String,
    delegate: String,
    _world: World,
}

const OWNER: fn() -> AccountId = AccountId::default;

fn delegate() -> AccountId {
    AccountId::new(2).unwrap()
}

fn name(text: &str) -> IdentityName {
    text.parse().unwrap()
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let accounts = world.open();
        for text in ["example.com", "ann@example.com"] {
            accounts.identities().create(Identity::new(OWNER(), name(text))).await.unwrap();
        }
        let made = |account| accounts.credentials().create(NewCredential { account, ..NewCredential::default() });
        let owner = made(OWNER()).await.unwrap().credential.user_name;
        let delegate = made(delegate()).await.unwrap().credential.user_name;
        Self { accounts, owner, delegate, _world: world }
    }

    /// One statement on an identity of the owner.
    async fn attach(&self, identity: &str, effect: &str, rest: &str) {
        let arn = realm().identity(OWNER(), &name(identity));
        let text = format!(
            r#"{{"Statement":{{"Effect":"{effect}","Principal":"*","Action":"ses:Send*","Resource":"{arn}"{rest}}}}}"#
        );
        let owner = PolicyOwner::Identity(OWNER(), name(identity));
        self.accounts.policies().put(&owner, effect, &text, &realm()).await.unwrap();
    }

    /// One statement on a credential.
    async fn limit(&self, user: &str, effect: &str, resource: &str, rest: &str) {
        let text = format!(r#"{{"Statement":{{"Effect":"{effect}","Action":"ses:*","Resource":"{resource}"{rest}}}}}"#);
        let owner = PolicyOwner::Credential(user.to_owned());
        self.accounts.policies().put(&owner, effect, &text, &realm()).await.unwrap();
    }

    /// What a user's message from these addresses meets; `named` is the identity of the owner
    /// that it names.
    fn decisions(&self, user: &str, from: &str, return_path: &str, named: Option<&str>) -> Vec<PolicyDecision> {
        let account = if user == self.owner { OWNER() } else { delegate() };
        let [from, return_path] = [from, return_path].map(|text| text.parse::<EmailAddress>().unwrap());
        let identities = self.accounts.identities();
        let identity = |address: &EmailAddress| match named {
            Some(named) => UsedIdentity::named(identities, OWNER(), name(named), address),
            None => identities.resolve(account, address).map(|resolved| UsedIdentity {
                owner: account,
                resolved,
                named: None,
            }),
        };
        let used = [(&return_path, SenderRole::Source), (&from, SenderRole::From)];
        let used = used.map(|(address, role)| UsedAddress { address, name: None, role, identity: identity(address) });
        let request = SendingRequest {
            account,
            user_name: user,
            realm: &realm(),
            used: &used,
            recipients: &[],
            source_ip: None,
            is_secure: true,
            now: postrider_base::Timestamp::from_millis(0),
        };
        let decisions = request.decisions(self.accounts.policies());
        if request.needs_no_policy(self.accounts.policies()) {
            assert!(decisions.iter().all(PolicyDecision::is_allowed), "what needs no policy is allowed");
        }
        decisions
    }

    fn may(&self, user: &str, from: &str, named: Option<&str>) -> bool {
        self.decisions(user, from, from, named).iter().all(PolicyDecision::is_allowed)
    }

    fn delegate_may(&self, from: &str) -> bool {
        self.may(&self.delegate, from, Some("example.com"))
    }
}

#[tokio::test]
async fn only_the_owner_lets_another_account_send() {
    let scene = Scene::new().await;
    assert!(scene.may(&scene.owner, "bob@example.com", None));
    assert!(!scene.delegate_may("bob@example.com"));
    scene.attach("example.com", "Allow", "").await;
    assert!(scene.delegate_may("bob@example.com"));
    assert!(scene.may(&scene.delegate, "ann@example.com", Some("ann@example.com")));
    scene.limit(&scene.delegate, "Allow", "arn:aws:ses:us-east-1:000000000002:identity/*", "").await;
    assert!(!scene.delegate_may("bob@example.com"), "its own credential must be allowed too");
    scene.limit(&scene.delegate, "Allow", "arn:aws:ses:*:000000000001:identity/example.com", "").await;
    assert!(scene.delegate_may("ann@example.com"), "the resource is what was named");
    assert!(!scene.may(&scene.delegate, "ann@example.com", Some("ann@example.com")));
}

#[tokio::test]
async fn a_credential_that_is_gone_may_nothing() {
    let scene = Scene::new().await;
    scene.limit(&scene.owner, "Allow", "*", "").await;
    assert!(scene.may(&scene.owner, "bob@example.com", None));
    scene.accounts.credentials().delete(&scene.owner).await.unwrap();
    let owner = PolicyOwner::Credential(scene.owner.clone());
    assert_eq!(scene.accounts.policies().forget(&owner).await.unwrap(), 1);
    assert!(!scene.may(&scene.owner, "bob@example.com", None), "a session of before is not set free");
}

#[tokio::test]
async fn an_address_beats_its_domain_both_ways() {
    let scene = Scene::new().await;
    scene.attach("example.com", "Deny", "").await;
    assert!(!scene.delegate_may("ann@example.com") && !scene.may(&scene.owner, "ann@example.com", None));
    scene.attach("ann@example.com", "Allow", "").await;
    assert!(scene.delegate_may("ann@example.com") && scene.delegate_may("ann+news@example.com"));
    assert!(!scene.delegate_may("bob@example.com"));
    assert!(scene.may(&scene.owner, "ann@example.com", None) && !scene.may(&scene.owner, "bob@example.com", None));

    let scene = Scene::new().await;
    scene.attach("example.com", "Allow", "").await;
    scene.attach("ann@example.com", "Deny", "").await;
    assert!(scene.delegate_may("bob@example.com") && !scene.delegate_may("ann@example.com"));
    let decision = scene.decisions(&scene.delegate, "ann@example.com", "ann@example.com", Some("example.com"));
    let (by, verdict) = decision[0].identity.clone().unwrap();
    assert_eq!(by, name("ann@example.com"));
    assert!(matches!(verdict, PolicyVerdict::Deny(Deciding { statement: 1, .. })));
}

#[tokio::test]
async fn from_and_return_path_must_both_be_allowed() {
    let scene = Scene::new().await;
    let only_bob = r#","Condition":{"StringEquals":{"ses:FeedbackAddress":"bob@example.com"}}"#;
    scene.attach("example.com", "Allow", only_bob).await;
    let may = |from: &str, to: &str| {
        let decisions = scene.decisions(&scene.delegate, from, to, Some("example.com"));
        decisions.iter().all(PolicyDecision::is_allowed)
    };
    assert!(may("eve@example.com", "bob@example.com") && !may("bob@example.com", "eve@example.com"));

    scene.attach("ann@example.com", "Deny", "").await;
    assert!(!may("ann@example.com", "bob@example.com") && !may("bob@example.com", "ann@example.com"));
}

#[tokio::test]
async fn an_arn_names_what_covers_the_address() {
    let scene = Scene::new().await;
    scene.attach("example.com", "Allow", "").await;
    let named = |named: &str, address: &str| {
        let address = address.parse().unwrap();
        UsedIdentity::named(scene.accounts.identities(), OWNER(), name(named), &address).is_some()
    };
    assert!(named("example.com", "x@mail.example.com") && named("ann@example.com", "ann+1@example.com"));
    assert!(!named("ann@example.com", "bob@example.com"), "another address");
    assert!(!named("example.com", "bob@example.org") && !named("example.org", "bob@example.org"));
    // Not a named one: the address belongs to nobody here, and stands for itself.
    let decisions = scene.decisions(&scene.owner, "x@example.org", "x@example.org", None);
    assert_eq!(decisions[0].resource, realm().identity(OWNER(), &name("x@example.org")));
    assert!(decisions[0].is_allowed());
    scene.limit(&scene.owner, "Allow", "arn:aws:ses:us-east-1:000000000001:identity/example.com", "").await;
    assert!(!scene.may(&scene.owner, "x@example.org", None) && scene.may(&scene.owner, "bob@example.com", None));
    assert!(!scene.may(&scene.owner, "ann@example.com", None), "that is another identity");
    let user = realm().user(OWNER(), "AKIAIOSFODNN7EXAMPLE");
    assert_eq!(
        PolicyDecision::denial(&user, &decisions[0].resource),
        "User `arn:aws:iam::000000000001:user/AKIAIOSFODNN7EXAMPLE' is not authorized to perform `ses:SendRawEmail' on \
         resource `arn:aws:ses:us-east-1:000000000001:identity/x@example.org'"
    );
}

const ARN: &str = "arn:aws:ses:us-east-1:000000000001:identity/";

#[tokio::test]
async fn of_its_own_identities_a_user_chooses_none() {
    let scene = Scene::new().await;
    scene.limit(&scene.owner, "Allow", "*", "").await;
    scene.limit(&scene.owner, "Deny", &format!("{ARN}ann@example.com"), "").await;
    for named in [None, Some("example.com"), Some("EXAMPLE.com"), Some("ann@Example.com")] {
        assert!(!scene.may(&scene.owner, "ann@example.com", named), "{named:?}");
        assert!(!scene.may(&scene.owner, "\"ann\"@example.com", named), "{named:?}");
        assert!(!scene.may(&scene.owner, "ann+x@example.com", named), "{named:?}");
    }
    assert!(scene.may(&scene.owner, "bob@example.com", Some("Example.com")));

    let scene = Scene::new().await;
    scene.limit(&scene.owner, "Allow", &format!("{ARN}example.com"), "").await;
    assert!(scene.may(&scene.owner, "bob@example.com", Some("EXAMPLE.COM")));
    assert!(!scene.may(&scene.owner, "ann@example.com", Some("example.com")), "that is another identity");
}

#[tokio::test]
async fn the_spelling_of_what_is_named_changes_nothing() {
    let scene = Scene::new().await;
    scene.attach("example.com", "Allow", "").await;
    scene.limit(&scene.delegate, "Allow", "*", "").await;
    assert!(scene.may(&scene.delegate, "bob@example.com", Some("EXAMPLE.com")));
    scene.limit(&scene.delegate, "Deny", &format!("{ARN}ann@example.com"), "").await;
    assert!(!scene.may(&scene.delegate, "ann@example.com", Some("example.com")), "nor does it help to name its domain");
    scene.limit(&scene.delegate, "Deny", &format!("{ARN}example.com"), "").await;
    assert!(!scene.may(&scene.delegate, "bob@example.com", Some("EXAMPLE.com")));
}

#[tokio::test]
async fn policies_of_what_is_not_verified_are_in_force() {
    let scene = Scene::new().await;
    let trust = |identity: &mut Identity| identity.trusted = true;
    scene.accounts.identities().change(OWNER(), &name("example.com"), trust).await.unwrap();
    for pending in ["mail.example.com", "ann+x@example.com"] {
        scene.accounts.identities().create(Identity::new(OWNER(), name(pending))).await.unwrap();
    }
    scene.attach("example.com", "Allow", "").await;
    assert!(scene.delegate_may("ann@example.com") && scene.delegate_may("bob@mail.example.com"));
    scene.attach("ann@example.com", "Deny", "").await;
    scene.attach("mail.example.com", "Deny", "").await;
    for denied in ["ann@example.com", "ann+x@example.com", "\"ann\"@example.com", "bob@mail.example.com"] {
        assert!(!scene.delegate_may(denied) && !scene.may(&scene.owner, denied, None), "{denied}");
    }
    assert!(scene.delegate_may("bob@example.com"));

    scene.limit(&scene.owner, "Allow", "*", "").await;
    scene.limit(&scene.owner, "Deny", &format!("{ARN}ann@example.com"), "").await;
    scene.accounts.policies().forget(&PolicyOwner::Identity(OWNER(), name("ann@example.com"))).await.unwrap();
    assert!(!scene.may(&scene.owner, "ann@example.com", None), "those of a credential too");
}

#[tokio::test]
async fn quotes_are_no_way_around_a_condition() {
    let scene = Scene::new().await;
    scene.limit(&scene.owner, "Allow", "*", "").await;
    for pattern in ["bob@example.com", r#"\"b*\"@EXAMPLE.com"#] {
        let condition = format!(r#","Condition":{{"StringLike":{{"ses:FromAddress":"{pattern}"}}}}"#);
        scene.limit(&scene.owner, "Deny", "*", &condition).await;
        for from in ["bob@example.com", "\"bob\"@example.com", "\"bo\\b\"@example.com"] {
            assert!(!scene.may(&scene.owner, from, None), "{from} by {pattern}");
        }
        assert!(scene.may(&scene.owner, "eve@example.com", None));
    }
}
