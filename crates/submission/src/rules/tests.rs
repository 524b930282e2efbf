//! Each rule by itself, in the order in which they are asked.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use postrider_account::{
    CredentialOption, Identity, ImportedSecret, NewCredential, Pause, PausedBy, PolicyOwner, Sending,
};
use postrider_base::{Clock, Random, SimDisk};
use postrider_mail::{EmailAddress, Recipient};
use postrider_store::Store;
use proptest::prelude::*;
use secrecy::SecretString;

use super::*;
use crate::header::mailboxes;

const ACCOUNT: AccountId = AccountId::new(1).unwrap();
const OTHER: AccountId = AccountId::new(2).unwrap();
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const USER: &str = "AKIAIOSFODNN7EXAMPLE";
const PASSWORD: &str = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9";

struct World {
    rules: Rules,
    _index: tempfile::TempDir,
}

async fn world() -> World {
    let index = tempfile::tempdir().unwrap();
    let options =
        postrider_store::Options { index_dir: Some(index.path().to_owned()), ..postrider_store::Options::default() };
    let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
    let (clock, random) = (Clock::simulated(NOW), Random::seeded(3));
    let rules = Rules {
        accounts: Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap(),
        realm: Realm { partition: "aws".into(), region: "us-east-1".into() },
        unverified_senders: UnverifiedSenders::Reject,
        operator_domain: "example.net".into(),
    };
    let secret = ImportedSecret::parse(&SecretString::from(PASSWORD)).unwrap();
    let new = NewCredential { account: ACCOUNT, ..NewCredential::default() };
    rules.accounts.credentials().import(USER, secret, new).await.unwrap();
    World { rules, _index: index }
}

/// A message, by those whom it names.
#[derive(Clone, Debug, Default)]
struct Mail {
    sender: Option<&'static str>,
    from: Vec<&'static str>,
    sender_field: Option<&'static str>,
    return_path: Option<&'static str>,
    set: Option<&'static str>,
    to: Vec<&'static str>,
    user: Option<String>,
}

fn mail(sender: &'static str, from: &'static str) -> Mail {
    Mail { sender: Some(sender), from: vec![from], to: vec!["you@example.org"], ..Mail::default() }
}

fn address(text: &str) -> EmailAddress {
    text.parse().unwrap()
}

impl World {
    async fn identity(&self, name: &str) {
        let identity = Identity { trusted: true, ..Identity::new(ACCOUNT, name.parse().unwrap()) };
        self.rules.accounts.identities().create(identity).await.unwrap();
    }

    fn decide<R>(&self, mail: &Mail, look: impl FnOnce(&Decision<'_>) -> R) -> Result<R, Refusal> {
        let envelope = Envelope {
            sender: mail.sender.map(address),
            recipients: mail.to.iter().map(|to| Recipient::new(address(to))).collect(),
            ..Envelope::default()
        };
        let senders = Senders {
            from: mail.from.iter().flat_map(|from| mailboxes(from).unwrap()).collect(),
            sender: mail.sender_field.map(address),
            return_path: mail.return_path.map(address),
            ..Senders::default()
        };
        let submitted = Submitted {
            account: ACCOUNT,
            credential: mail.user.as_deref().unwrap_or(USER),
            envelope: &envelope,
            senders: &senders,
            set: mail.set,
            client_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            has_tls: true,
            now: NOW,
        };
        self.rules.decide(&submitted).map(|decision| look(&decision))
    }

    fn outcome(&self, mail: &Mail) -> Result<(), Refusal> {
        self.decide(mail, |_| ())
    }

    /// The addresses that are refused because they are not verified.
    fn unverified(&self, mail: &Mail) -> Vec<String> {
        match self.outcome(mail) {
            Ok(()) => Vec::new(),
            Err(Refusal::NotVerified { identities, .. }) => identities,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn each_place_that_names_a_sender_is_looked_at() {
    let world = world().await;
    world.identity("example.com").await;
    let good = Mail {
        sender_field: Some("secretary@example.com"),
        return_path: Some("bounces@mail.example.com"),
        ..mail("ann@example.com", "ann@example.com")
    };
    assert_eq!(world.outcome(&good), Ok(()));
    let not = "eve@example.net";
    for bad in [
        Mail { sender: Some(not), ..good.clone() },
        Mail { from: vec![not], ..good.clone() },
        Mail { from: vec!["ann@example.com", not], ..good.clone() },
        Mail { sender_field: Some(not), ..good.clone() },
        Mail { return_path: Some(not), ..good.clone() },
        Mail { sender: Some(not), from: vec![not], sender_field: Some(not), return_path: Some(not), ..good.clone() },
    ] {
        assert_eq!(world.unverified(&bad), [not], "{bad:?}");
    }
    let refused = world.outcome(&Mail { from: vec![not], return_path: Some("x@example.org"), ..good }).unwrap_err();
    assert_eq!(
        refused.reply().to_string(),
        "554 5.7.1 Message rejected: Email address is not verified. The following identities failed the check \
         in region US-EAST-1: eve@example.net, x@example.org"
    );
}

#[tokio::test]
async fn of_the_null_sender_the_author_decides() {
    let world = world().await;
    world.identity("example.com").await;
    let bounce = |from| Mail { sender: None, ..mail("", from) };
    assert_eq!(world.outcome(&bounce("mailer-daemon@example.com")), Ok(()));
    assert_eq!(world.unverified(&bounce("mailer-daemon@example.net")), ["mailer-daemon@example.net"]);
    let nobody = Mail { from: Vec::new(), ..bounce("") };
    assert_eq!(world.outcome(&nobody), Err(Refusal::MissingHeader("From")));
}

#[tokio::test]
async fn a_change_holds_for_the_next_message() {
    let world = world().await;
    let identities = world.rules.accounts.identities();
    let name: postrider_account::IdentityName = "example.com".parse().unwrap();
    let mail = mail("ann@example.com", "ann@example.com");
    assert_eq!(world.unverified(&mail), ["ann@example.com"]);
    identities.create(Identity::new(ACCOUNT, name.clone())).await.unwrap();
    assert_eq!(world.unverified(&mail), ["ann@example.com"], "it is not verified yet");
    identities.change(ACCOUNT, &name, |identity| identity.trusted = true).await.unwrap();
    assert_eq!(world.outcome(&mail), Ok(()));
    identities.delete(ACCOUNT, &name).await.unwrap();
    assert_eq!(world.unverified(&mail), ["ann@example.com"]);
}

#[tokio::test]
async fn the_local_part_has_case_and_the_domain_has_none() {
    let world = world().await;
    world.identity("Ann@Example.com").await;
    for good in ["Ann@example.com", "Ann@EXAMPLE.COM", "Ann+news@example.com", "Ann+a+b@example.com"] {
        assert_eq!(world.outcome(&mail(good, good)), Ok(()), "{good}");
    }
    for bad in ["ann@example.com", "ANN@example.com", "Ann@mail.example.com", "bob@example.com", "Ann-x@example.com"] {
        assert_eq!(world.unverified(&mail(bad, bad)), [address(bad).to_string()], "{bad}");
    }
}

#[tokio::test]
async fn the_most_specific_identity_wins() {
    let world = world().await;
    let sets = world.rules.accounts.configuration_sets();
    let names = ["example.com", "b.example.com", "a.b.example.com", "user@a.b.example.com"];
    for (index, name) in names.iter().enumerate() {
        let set = format!("set{index}");
        sets.create(ACCOUNT, &set, Vec::new()).await.unwrap();
        let identity = Identity::new(ACCOUNT, name.parse().unwrap());
        let identity = Identity { trusted: true, default_configuration_set: Some(set), ..identity };
        world.rules.accounts.identities().create(identity).await.unwrap();
    }
    for (from, index) in [
        ("user@example.com", 0),
        ("user@c.example.com", 0),
        ("user@b.example.com", 1),
        ("user@x.y.b.example.com", 1),
        ("other@a.b.example.com", 2),
        ("user@z.a.b.example.com", 2),
        ("user@a.b.example.com", 3),
        ("user+label@a.b.example.com", 3),
    ] {
        let set = world.decide(&mail(from, from), |decision| decision.set.as_ref().map(|set| set.name.clone()));
        assert_eq!(set, Ok(Some(format!("set{index}"))), "{from}");
    }
}

#[tokio::test]
async fn a_set_must_be_there_and_may_send() {
    let world = world().await;
    world.identity("example.com").await;
    let (sets, mail) = (world.rules.accounts.configuration_sets(), mail("a@example.com", "a@example.com"));
    let with = Mail { set: Some("news"), ..mail.clone() };
    let refused = world.outcome(&with).unwrap_err();
    assert_eq!(refused.reply().to_string(), "554 5.7.1 Message rejected: Configuration set does not exist: news");
    sets.create(ACCOUNT, "news", Vec::new()).await.unwrap();
    assert_eq!(world.outcome(&with), Ok(()));
    let paused = |by| Sending::Paused(Pause { by, at: NOW, reason: String::new(), hold: false });
    for (by, refusal) in
        [(PausedBy::Operator, Refusal::ConfigurationSetPaused), (PausedBy::Rule, Refusal::PausedByRule)]
    {
        sets.set_sending(ACCOUNT, "news", paused(by)).await.unwrap();
        assert_eq!(world.outcome(&with), Err(refusal));
        assert_eq!(world.outcome(&mail), Ok(()), "mail without the set");
    }
    let identities = world.rules.accounts.identities();
    sets.set_sending(ACCOUNT, "news", Sending::Enabled).await.unwrap();
    let default = |identity: &mut Identity| identity.default_configuration_set = Some("news".into());
    identities.change(ACCOUNT, &"example.com".parse().unwrap(), default).await.unwrap();
    sets.delete(ACCOUNT, "news").await.unwrap();
    assert_eq!(world.outcome(&mail), Err(Refusal::UnknownConfigurationSet("news".into())), "a default that is gone");
}

#[tokio::test]
async fn a_paused_account_sends_nothing() {
    let world = world().await;
    world.identity("example.com").await;
    let (tenants, mail) = (world.rules.accounts.tenants(), mail("a@example.com", "a@example.com"));
    for (by, line) in [
        (PausedBy::Operator, "554 5.7.1 Message rejected: Sending paused for this account."),
        (PausedBy::Rule, "454 4.7.1 Throttling failure: Sending paused"),
    ] {
        let pause = Pause { by, at: NOW, reason: "rates".into(), hold: false };
        tenants.change(ACCOUNT, |tenant| tenant.sending = Sending::Paused(pause)).await.unwrap();
        assert_eq!(world.outcome(&mail).unwrap_err().reply().to_string(), line);
        tenants.change(ACCOUNT, |tenant| tenant.sending = Sending::Enabled).await.unwrap();
        assert_eq!(world.outcome(&mail), Ok(()));
    }
    tenants.change(OTHER, |tenant| tenant.sandbox = true).await.unwrap();
    assert_eq!(world.outcome(&mail), Ok(()), "what happens to another account is its own matter");
}

#[tokio::test]
async fn in_the_sandbox_mail_goes_to_verified_identities_and_the_simulator() {
    let world = world().await;
    world.identity("example.com").await;
    let to = |to: &[&'static str]| Mail { to: to.to_vec(), ..mail("a@example.com", "a@example.com") };
    let everybody = to(&["you@example.org"]);
    assert_eq!(world.outcome(&everybody), Ok(()));
    world.rules.accounts.tenants().change(ACCOUNT, |tenant| tenant.sandbox = true).await.unwrap();
    let own = ["b@example.com", "c@sub.example.com", "bounce@simulator.amazonses.com", "ok@simulator.example.net"];
    assert_eq!(world.outcome(&to(&own)), Ok(()));
    let mixed = ["b@example.com", "you@example.org", "them@example.net"];
    assert_eq!(world.unverified(&to(&mixed)), ["you@example.org", "them@example.net"]);
    let nobody = Mail { to: mixed.to_vec(), ..mail("them@example.net", "eve@example.net") };
    let all = ["them@example.net", "eve@example.net", "you@example.org"];
    assert_eq!(world.unverified(&nobody), all, "senders and recipients in one reply, each once");
    world.rules.accounts.tenants().change(ACCOUNT, |tenant| tenant.sandbox = false).await.unwrap();
    assert_eq!(world.outcome(&everybody), Ok(()));
    assert_eq!(world.unverified(&nobody), all[..2]);
}

#[tokio::test]
async fn a_credential_can_be_in_the_sandbox_alone() {
    let world = world().await;
    world.identity("example.com").await;
    let credentials = world.rules.accounts.credentials();
    let new = NewCredential { account: ACCOUNT, sandbox: true, ..NewCredential::default() };
    let user = credentials.create(new).await.unwrap().credential.user_name;
    let mail = mail("a@example.com", "a@example.com");
    let tested = Mail { user: Some(user.clone()), ..mail.clone() };
    assert_eq!(world.unverified(&tested), ["you@example.org"]);
    assert_eq!(world.outcome(&mail), Ok(()), "mail of another credential");
    credentials.set(&user, [CredentialOption::Sandbox(false)]).await.unwrap();
    assert_eq!(world.outcome(&tested), Ok(()));
}

#[tokio::test]
async fn a_disabled_credential_sends_no_more_on_sessions_that_are_open() {
    let world = world().await;
    world.identity("example.com").await;
    let (credentials, mail) = (world.rules.accounts.credentials(), mail("a@example.com", "a@example.com"));
    let allow = r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
    let owner = PolicyOwner::Credential(USER.to_owned());
    for has_policy in [false, true] {
        if has_policy {
            world.rules.accounts.policies().put(&owner, "all", allow, &world.rules.realm).await.unwrap();
        }
        assert_eq!(world.outcome(&mail), Ok(()));
        credentials.disable(USER).await.unwrap();
        assert!(matches!(world.outcome(&mail), Err(Refusal::AccessDenied(_))), "policy: {has_policy}");
        credentials.enable(USER).await.unwrap();
    }
}

#[tokio::test]
async fn needless_quotes_are_no_other_address() {
    let world = world().await;
    world.identity("\"ann\"@example.com").await;
    for good in ["ann@example.com", "\"ann\"@example.com", "\"an\\n\"@Example.com", "\"ann+x\"@example.com"] {
        assert_eq!(world.outcome(&mail(good, good)), Ok(()), "{good}");
    }
    let bad = "\"ann \"@example.com";
    assert_eq!(world.unverified(&mail(bad, bad)), [bad]);
}

#[tokio::test]
async fn where_any_sender_is_taken_the_rest_still_holds() {
    let mut world = world().await;
    world.rules.unverified_senders = UnverifiedSenders::Accept;
    let anybody = mail("eve@example.net", "eve@example.net");
    assert_eq!(world.outcome(&anybody), Ok(()));
    assert_eq!(world.outcome(&Mail { from: Vec::new(), ..anybody.clone() }), Ok(()));
    let with = Mail { set: Some("none"), ..anybody };
    assert_eq!(world.outcome(&with), Err(Refusal::UnknownConfigurationSet("none".into())));
}

#[test]
fn a_long_list_is_cut_at_a_whole_address() {
    let identities: Vec<String> = (0..50).map(|number| format!("user{number}@example.com")).collect();
    let refused = |identities: &[String]| {
        let refusal = Refusal::NotVerified { identities: identities.to_vec(), region: "eu-west-1".into() };
        refusal.reply().to_string()
    };
    let line = refused(&identities);
    assert!(line.len() + 2 <= 512, "{}", line.len());
    assert!(
        line.ends_with("@example.com, ...") && line.contains("region EU-WEST-1: user0@example.com, user1@"),
        "{line}"
    );
    assert!(refused(&identities[..3]).ends_with("user0@example.com, user1@example.com, user2@example.com"));
}

#[tokio::test]
async fn an_explanation_tells_of_every_check() {
    let world = world().await;
    world.rules.accounts.tenants().change(ACCOUNT, |tenant| tenant.sandbox = true).await.unwrap();
    let envelope = Envelope {
        sender: Some(address("a@example.com")),
        recipients: vec![Recipient::new(address("b@example.org"))],
        ..Envelope::default()
    };
    let explained = world.rules.explain(&Question {
        account: ACCOUNT,
        credential: USER,
        envelope: &envelope,
        from: &address("a@example.com"),
        set: Some("none"),
        client_ip: None,
        now: NOW,
    });
    let refused: BTreeSet<_> =
        explained.iter().filter(|answer| answer.refusal.is_some()).map(|answer| answer.check).collect();
    assert_eq!(refused, BTreeSet::from(["configuration-set", "recipients", "senders"]));
    assert_eq!(explained.len(), CHECKS.len());
}

proptest! {
    /// An address may be used when it, or it without its label, or a domain that it is in is
    /// verified; and then alone.
    #[test]
    fn senders_agree_with_a_plain_model(
        locals in proptest::collection::vec("[abA]{1,2}(\\+[ab]{0,2})?", 1..4),
        domains in proptest::collection::vec("([ab]\\.){0,3}test", 1..4),
        whole in proptest::collection::vec(any::<bool>(), 4),
        verified in proptest::collection::vec(any::<bool>(), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _in = runtime.enter();
        let world = runtime.block_on(world());
        let mut proved = BTreeSet::new();
        for (index, domain) in domains.iter().enumerate() {
            let local = &locals[index % locals.len()];
            let name = if whole[index] { domain.clone() } else { format!("{local}@{domain}") };
            let identity = Identity { trusted: verified[index], ..Identity::new(ACCOUNT, name.parse().unwrap()) };
            if runtime.block_on(world.rules.accounts.identities().create(identity)).is_ok() && verified[index] {
                proved.insert(name);
            }
        }
        for (local, domain) in locals.iter().flat_map(|local| domains.iter().map(move |domain| (local, domain))) {
            let plain = local.split('+').next().unwrap();
            let own = [format!("{local}@{domain}"), format!("{plain}@{domain}")];
            let labels: Vec<_> = domain.split('.').collect();
            let above = (0..labels.len()).map(|from| labels[from..].join("."));
            let expected = own.into_iter().chain(above).any(|name| proved.contains(&name));
            let sender: &'static str = Box::leak(format!("{local}@{domain}").into_boxed_str());
            prop_assert_eq!(world.outcome(&mail(sender, sender)).is_ok(), expected, "{} with {:?}", sender, proved);
        }
    }
}
