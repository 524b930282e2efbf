//! The three tables over a store that outlives them.

use postrider_base::{Period, SimDisk, Timestamp};
use postrider_mail::AccountId;

use super::*;
use crate::samples;

const ME: fn() -> AccountId = AccountId::default;

struct World {
    store: Store,
    settings: Settings,
    _index: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (store, index) = samples::store(&SimDisk::new());
        Self { store, settings: Settings::default(), _index: index }
    }

    fn open(&self) -> Sending {
        Sending::open(&self.store, &self.settings).unwrap()
    }
}

fn other() -> AccountId {
    AccountId::new(2).unwrap()
}

#[tokio::test]
async fn a_set_keeps_what_it_was_given() {
    let world = World::new();
    let Sending { sets, pools, .. } = world.open();
    pools.create(ME(), "bulk").await.unwrap();
    let options = vec![
        ConfigurationOption::Tls(TlsPolicy::Require),
        ConfigurationOption::Pool(Some("bulk".into())),
        ConfigurationOption::MaxLifetime(Some(Period::from_hours(14))),
        ConfigurationOption::Retry(Some(vec![Period::from_mins(1), Period::from_mins(5)])),
        ConfigurationOption::PerRecipient(true),
    ];
    let made = sets.create(ME(), "news_2-B", options).await.unwrap();
    assert_eq!(world.open().sets.find(ME(), "news_2-B"), Some(made.clone()));
    assert_eq!((made.tls, made.pool.as_deref(), made.per_recipient), (TlsPolicy::Require, Some("bulk"), true));
    let changed = sets.set(ME(), "news_2-B", vec![ConfigurationOption::Pool(None)]).await.unwrap();
    assert_eq!((changed.tls, changed.pool.as_deref()), (TlsPolicy::Require, None));
    assert_eq!(world.open().sets.list(ME()), [changed]);
    assert_eq!(sets.find(ME(), "NEWS_2-B"), None, "names have case");
    assert_eq!(sets.find(other(), "news_2-B"), None);
    sets.delete(ME(), "news_2-B").await.unwrap();
    assert!(sets.list(ME()).is_empty() && world.open().sets.list(ME()).is_empty());
}

#[tokio::test]
async fn sets_are_refused_with_reasons() {
    let world = World::new();
    let Sending { sets, .. } = world.open();
    for bad in ["", "a b", "ü", "a.b", &"x".repeat(65)] {
        assert!(matches!(sets.create(ME(), bad, vec![]).await, Err(Error::Invalid { .. })), "{bad}");
    }
    let bad = [
        ConfigurationOption::MaxLifetime(Some(Period::from_secs(59))),
        ConfigurationOption::MaxLifetime(Some(Period::from_days(31))),
        ConfigurationOption::Retry(Some(vec![])),
        ConfigurationOption::Retry(Some(vec![Period::from_secs(0)])),
        ConfigurationOption::Retry(Some(vec![Period::from_mins(1); 101])),
    ];
    for option in bad {
        let refused = sets.create(ME(), "a", vec![option.clone()]).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{option:?}");
    }
    let missing = vec![ConfigurationOption::Pool(Some("none".into()))];
    let refused = sets.create(ME(), "a", missing.clone()).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no pool none");
    sets.create(ME(), &"x".repeat(64), vec![]).await.unwrap();
    sets.create(ME(), "a", vec![ConfigurationOption::Pool(Some("ses-shared-pool".into()))]).await.unwrap();
    let refused = sets.create(ME(), "a", vec![]).await.unwrap_err();
    assert_eq!(refused.to_string(), "configuration set a already exists");
    sets.create(other(), "a", vec![]).await.unwrap();
    assert!(matches!(sets.set(ME(), "a", missing).await, Err(Error::NotFound { what: "pool", .. })));
    assert!(matches!(sets.set(ME(), "b\n", vec![]).await, Err(Error::NotFound { name, .. }) if name == "b?"));
    assert!(matches!(sets.delete(ME(), "b").await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_set_has_the_options_of_ses() {
    let world = World::new();
    let Sending { sets, identities, .. } = world.open();
    let tracking = ConfigurationOption::TrackingDomain(Some("click.example.com".parse().unwrap()));
    let refused = sets.create(ME(), "news", vec![tracking.clone()]).await.unwrap_err();
    assert!(refused.to_string().contains("must be, or lie in, a verified domain"), "{refused}");
    let mut identity = Identity::new(ME(), "example.com".parse().unwrap());
    identity.trusted = true;
    identities.create(identity).await.unwrap();
    let options = vec![
        tracking,
        ConfigurationOption::SuppressedReasons(Some([].into())),
        ConfigurationOption::ReputationMetrics(true),
        ConfigurationOption::Tag("team".into(), "a".into()),
        ConfigurationOption::Tag("team".into(), "b".into()),
        ConfigurationOption::Tag("gone".into(), String::new()),
        ConfigurationOption::Untag("gone".into()),
    ];
    let made = sets.create(ME(), "news", options).await.unwrap();
    assert_eq!(made.tags, [("team".to_owned(), "b".to_owned())].into());
    assert_eq!(
        (made.suppressed_reasons.as_ref().map(|reasons| reasons.len()), made.reputation_metrics),
        (Some(0), true)
    );
    assert_eq!(world.open().sets.find(ME(), "news"), Some(made));
    let pause = crate::Pause { by: crate::PausedBy::Rule, at: Timestamp::default(), reason: "x\n".into(), hold: false };
    let paused = sets.set_sending(ME(), "news", crate::Sending::Paused(pause)).await;
    assert!(matches!(paused, Err(Error::Invalid { .. })), "a reason of two lines");

    let revision = sets.revision();
    sets.change(ME(), "news", |set| set.name = "other".into()).await.unwrap();
    assert_eq!(sets.list(ME()).iter().map(|set| set.name.as_str()).collect::<Vec<_>>(), ["news"], "names stay");
    assert!(sets.revision() > revision);
    let tags = ConfigurationSet { tags: (0..51).map(|n| (n.to_string(), String::new())).collect(), ..new("many") };
    assert!(matches!(sets.put(vec![new("a"), tags]).await, Err(Error::Invalid { .. })));
    assert!(sets.find(ME(), "a").is_none(), "all of them or none");
    sets.put(vec![new("a"), new("news")]).await.unwrap();
    assert_eq!(*sets.find(ME(), "news").unwrap(), new("news"), "replaced");
}

fn new(name: &str) -> ConfigurationSet {
    ConfigurationSet::new(ME(), name).unwrap()
}

#[test]
fn a_set_of_an_earlier_version_is_read() {
    let row = r#"{"account":"000000000001","name":"news","tls":"REQUIRE"}"#;
    let set: ConfigurationSet = serde_json::from_str(row).unwrap();
    assert_eq!(set, ConfigurationSet { tls: TlsPolicy::Require, ..new("news") });
}

#[tokio::test]
async fn bounds_hold_and_replacing_is_no_addition() {
    let mut world = World::new();
    world.settings.max_configuration_sets = 1;
    let Sending { sets, .. } = world.open();
    sets.create(ME(), "a", vec![]).await.unwrap();
    let full = sets.create(other(), "b", vec![]).await.unwrap_err();
    assert_eq!(full.to_string(), "account.max_configuration_sets = 1 is reached");
    sets.set(ME(), "a", vec![ConfigurationOption::PerRecipient(true)]).await.unwrap();
}

#[tokio::test]
async fn an_address_is_in_one_pool_at_most() {
    let world = World::new();
    let Sending { pools, .. } = world.open();
    pools.create(ME(), "one").await.unwrap();
    pools.create(ME(), "two").await.unwrap();
    let before = pools.revision();
    assert_eq!(pools.assign(ME(), "one", "out1", 1).await.unwrap(), None);
    assert!(pools.revision() > before);
    assert_eq!(pools.assign(ME(), "one", "out1", 3).await.unwrap(), None, "a new weight");
    assert_eq!(pools.assign(ME(), "two", "out1", 2).await.unwrap().as_deref(), Some("one"));
    let members = |name: &str| world.open().pools.find(ME(), name).unwrap().members.clone();
    assert_eq!(members("one"), []);
    assert_eq!(members("two"), [PoolMember { source: "out1".into(), weight: 2 }]);

    pools.create(other(), "theirs").await.unwrap();
    let refused = pools.assign(other(), "theirs", "out1", 1).await.unwrap_err();
    assert_eq!(refused.to_string(), "address out1 is in use by account 000000000001");
    assert!(matches!(pools.remove(ME(), "one", "out1").await, Err(Error::NotFound { .. })));
    pools.remove(ME(), "two", "out1").await.unwrap();
    pools.assign(other(), "theirs", "out1", 1).await.unwrap();
}

#[tokio::test]
async fn pools_are_refused_with_reasons() {
    let world = World::new();
    let Sending { sets, pools, .. } = world.open();
    for bad in ["", "Bulk", "a b", "ses-shared-pool", "ses-default-dedicated-pool", &"x".repeat(65)] {
        assert!(matches!(pools.create(ME(), bad).await, Err(Error::Invalid { .. })), "{bad}");
    }
    pools.create(ME(), "b.u_l-k9").await.unwrap();
    assert!(matches!(pools.create(ME(), "b.u_l-k9").await, Err(Error::AlreadyExists { .. })));
    for weight in [0, 1_001] {
        assert!(matches!(pools.assign(ME(), "b.u_l-k9", "out", weight).await, Err(Error::Invalid { .. })));
    }
    assert!(matches!(pools.assign(ME(), "b.u_l-k9", "o\nut", 1).await, Err(Error::Invalid { .. })));
    assert!(matches!(pools.assign(ME(), "none", "out", 1).await, Err(Error::NotFound { .. })));
    sets.create(ME(), "news", vec![ConfigurationOption::Pool(Some("b.u_l-k9".into()))]).await.unwrap();
    let refused = pools.delete(ME(), "b.u_l-k9").await.unwrap_err();
    assert_eq!(refused.to_string(), "pool b.u_l-k9 is in use by configuration set news");
    sets.set(ME(), "news", vec![ConfigurationOption::Pool(None)]).await.unwrap();
    pools.delete(ME(), "b.u_l-k9").await.unwrap();
    assert!(pools.all().is_empty());
}

fn name(text: &str) -> IdentityName {
    text.parse().unwrap()
}

fn identity(text: &str) -> Identity {
    Identity { default_configuration_set: Some("news".into()), trusted: true, ..Identity::new(ME(), name(text)) }
}

#[tokio::test]
async fn identities_are_kept() {
    let world = World::new();
    let Sending { sets, identities, .. } = world.open();
    assert!(matches!(identities.create(identity("Example.com")).await, Err(Error::NotFound { .. })));
    sets.create(ME(), "news", vec![]).await.unwrap();
    identities.create(identity("Example.com")).await.unwrap();
    identities.create(identity("Ann@example.com")).await.unwrap();
    assert!(matches!(identities.create(identity("Ann@EXAMPLE.com")).await, Err(Error::AlreadyExists { .. })));
    let kept = world.open().identities;
    assert!(matches!(kept.find(ME(), &name("EXAMPLE.com")).unwrap().name, IdentityName::Domain(_)));
    let ann = kept.find(ME(), &name("Ann@Example.com")).unwrap();
    assert_eq!((ann.name.to_string().as_str(), ann.trusted), ("Ann@example.com", true));
    assert_eq!(kept.find(ME(), &name("ann@example.com")), None, "local parts have case");
    assert_eq!(kept.list(ME()).len(), 2);

    identities.put(Identity { trusted: false, ..identity("Ann@example.com") }).await.unwrap();
    assert!(!identities.find(ME(), &name("Ann@example.com")).unwrap().trusted);
    assert!(matches!(identities.put(identity("bob@example.com")).await, Err(Error::NotFound { .. })));
    identities.delete(ME(), &name("example.com")).await.unwrap();
    assert!(matches!(identities.delete(ME(), &name("example.com")).await, Err(Error::NotFound { .. })));
    assert!("not an@address".parse::<IdentityName>().is_err() && "a b".parse::<IdentityName>().is_err());
}

#[tokio::test]
async fn an_identity_outlives_its_default_set() {
    let Sending { sets, identities, .. } = World::new().open();
    for set in ["news", "other"] {
        sets.create(ME(), set, vec![]).await.unwrap();
    }
    identities.create(identity("example.com")).await.unwrap();
    sets.delete(ME(), "news").await.unwrap();
    let me = name("example.com");
    let changed = identities.change(ME(), &me, |identity| identity.trusted = false).await.unwrap();
    assert!(!changed.trusted && changed.default_configuration_set.as_deref() == Some("news"));
    identities.put(identity("example.com")).await.unwrap();
    let edited =
        |_, found: Option<&Identity>| Ok::<_, Error>(found.cloned().map(|it| Identity { trusted: false, ..it }));
    identities.edit(&[(ME(), me.clone())], edited).await.unwrap();
    let default = |set: &str| {
        let set = Some(set.to_owned());
        identities.change(ME(), &me, |identity| identity.default_configuration_set = set)
    };
    assert!(matches!(default("absent").await, Err(Error::NotFound { .. })));
    default("other").await.unwrap();
    assert!(matches!(default("news").await, Err(Error::NotFound { .. })), "it is gone");
}

#[tokio::test]
async fn a_sender_belongs_to_the_most_specific_identity() {
    let world = World::new();
    let identities = world.open().identities;
    for text in ["example.com", "eu.example.com", "ann@example.com", "bob@in.eu.example.com"] {
        identities.create(Identity::new(ME(), name(text))).await.unwrap();
    }
    let found = |address: &str| {
        let resolved = identities.resolve(ME(), &address.parse().unwrap())?;
        let domain = resolved.domain_identity.map(|domain| domain.name.to_string());
        Some((resolved.identity.name.to_string(), domain?))
    };
    for (address, identity, domain) in [
        ("ann@example.com", "ann@example.com", "example.com"),
        ("ann+news@example.com", "ann@example.com", "example.com"),
        ("ANN@example.com", "example.com", "example.com"),
        ("+ann@Example.com", "example.com", "example.com"),
        ("ann@deep.in.example.com", "example.com", "example.com"),
        ("bob@in.eu.example.com", "bob@in.eu.example.com", "eu.example.com"),
        ("x@eu.example.com", "eu.example.com", "eu.example.com"),
    ] {
        assert_eq!(found(address), Some((identity.to_owned(), domain.to_owned())), "{address}");
    }
    for address in ["ann@example.org", "ann@notexample.com", "ann@com", "ann@[192.0.2.1]"] {
        assert_eq!(found(address), None, "{address}");
    }
    assert_eq!(identities.resolve(other(), &"ann@example.com".parse().unwrap()), None);

    identities.create(Identity::new(ME(), name("ann+news@example.com"))).await.unwrap();
    assert_eq!(found("ann+news@example.com").unwrap().0, "ann+news@example.com");
    identities.delete(ME(), &name("example.com")).await.unwrap();
    let alone = identities.resolve(ME(), &"ann@example.com".parse().unwrap()).unwrap();
    assert_eq!(alone.domain_identity, None);
}

#[tokio::test]
async fn an_address_is_proved_by_itself_or_by_its_domain() {
    use VerificationStatus::{Failed, NotStarted, Pending, Success, TemporaryFailure};
    let world = World::new();
    let identities = world.open().identities;
    for text in ["example.com", "ann@example.com"] {
        identities.create(Identity::new(ME(), name(text))).await.unwrap();
    }
    let verified = |statuses: [VerificationStatus; 2]| {
        let identities = identities.clone();
        async move {
            for (text, status) in ["example.com", "ann@example.com"].into_iter().zip(statuses) {
                identities.change(ME(), &name(text), |identity| identity.verification.status = status).await.unwrap();
            }
            identities.resolve(ME(), &"ann@example.com".parse().unwrap()).unwrap().is_verified()
        }
    };
    assert!(!verified([NotStarted, Pending]).await);
    assert!(!verified([Failed, Failed]).await);
    assert!(verified([Success, Pending]).await);
    assert!(verified([TemporaryFailure, NotStarted]).await);
    assert!(verified([Failed, Success]).await);
}

#[tokio::test]
async fn a_mail_from_domain_lies_inside_its_identity() {
    let world = World::new();
    let identities = world.open().identities;
    let with = |text: &str, domain: &str| {
        let mail_from = MailFrom::pending(domain.parse().unwrap(), MailFromFailure::Reject, Timestamp::from_millis(1));
        Identity { mail_from: Some(mail_from), ..Identity::new(ME(), name(text)) }
    };
    for (text, domain) in [
        ("example.com", "example.com"),
        ("example.com", "bounce.example.org"),
        ("example.com", "notexample.com"),
        ("ann@eu.example.com", "bounce.example.com"),
    ] {
        let refused = identities.create(with(text, domain)).await;
        assert!(matches!(refused, Err(Error::Invalid { what: "identity", .. })), "{text} {domain}");
    }
    identities.create(with("example.com", "a.b.example.com")).await.unwrap();
    identities.create(Identity::new(ME(), name("ann@example.com"))).await.unwrap();
    let resolved = identities.resolve(ME(), &"ann@example.com".parse().unwrap()).unwrap();
    assert_eq!(resolved.mail_from().unwrap().domain.as_str(), "a.b.example.com", "inherited");
    let own = with("ann@example.com", "own.example.com");
    identities.put(own).await.unwrap();
    let resolved = identities.resolve(ME(), &"ann@example.com".parse().unwrap()).unwrap();
    assert_eq!(resolved.mail_from().unwrap().domain.as_str(), "own.example.com");
}

#[tokio::test]
async fn a_change_starts_from_what_is_there() {
    let world = World::new();
    let identities = world.open().identities;
    identities.create(Identity::new(ME(), name("example.com"))).await.unwrap();
    let revision = identities.revision();
    identities.change(ME(), &name("example.com"), |_| ()).await.unwrap();
    assert_eq!(identities.revision(), revision, "nothing has changed");
    identities.change(ME(), &name("example.com"), |identity| identity.dkim.enabled = false).await.unwrap();
    identities.change(ME(), &name("example.com"), |identity| identity.trusted = true).await.unwrap();
    let kept = world.open().identities.find(ME(), &name("example.com")).unwrap();
    assert!(kept.trusted && !kept.dkim.enabled);
    let absent = identities.change(ME(), &name("example.org"), |_| ()).await;
    assert!(matches!(absent, Err(Error::NotFound { .. })));
}

#[test]
fn what_was_stored_before_a_field_has_its_default() {
    let set: ConfigurationSet = serde_json::from_str(r#"{"account":"000000000001","name":"a"}"#).unwrap();
    assert_eq!(set, ConfigurationSet::new(ME(), "a").unwrap());
    let later = r#"{"account":"000000000001","name":"a","tls":"REQUIRE","of_a_later_version":1}"#;
    assert_eq!(serde_json::from_str::<ConfigurationSet>(later).unwrap().tls, TlsPolicy::Require);
    let pool = r#"{"account":"000000000001","name":"p","members":[{"source":"out1"}]}"#;
    assert_eq!(serde_json::from_str::<Pool>(pool).unwrap().members[0].weight, 1);
    let identity: Identity = serde_json::from_str(r#"{"account":"000000000001","name":"a@b.example"}"#).unwrap();
    assert_eq!(identity, Identity::new(ME(), name("a@b.example")));
    assert!(identity.dkim.enabled && !identity.is_verified());
}
