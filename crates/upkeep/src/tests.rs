//! Identities and MAIL FROM domains over days, in simulated time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{
    Accounts, DkimKey, Identity, IdentityName, KeyOrigin, KeyState, MailFrom, MailFromFailure, Sealed, Verification,
    VerificationStatus,
};
use postrider_base::metrics::Look;
use postrider_base::{Clock, Metrics, Random, Scope, SimDisk, Timestamp};
use postrider_dns::Zones;
use postrider_dns::zones::Failure;
use postrider_mail::{AccountId, DkimAlgorithm};
use postrider_mailauth::MacKey;
use postrider_spool::{Driver, Spool, SpoolOptions};
use postrider_store::Store;
use postrider_submission::{Submission, SubmissionDeps};

use crate::{Deps, Error, LinkError, Settings, Upkeep};

const HOUR: Duration = Duration::from_secs(3600);
const KEY: &str = "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQ";
const RECORD: &str = "s1._domainkey.example.com";
const BOUNCE: &str = "bounce.example.com";

pub(crate) struct World {
    pub(crate) zones: Zones,
    pub(crate) clock: Clock,
    pub(crate) accounts: Accounts,
    spool: Spool,
    pub(crate) metrics: Metrics,
    pub(crate) upkeep: Upkeep,
    scope: Scope,
    _index: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(|_| {}).await
    }

    async fn with(change: fn(&mut Settings)) -> World {
        let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
        let (random, metrics, index) = (Random::seeded(5), Metrics::new(), tempfile::tempdir().unwrap());
        let mut options = postrider_store::Options { index_dir: Some(index.path().into()), ..Default::default() };
        // Simulated time stands still while it writes.
        options.log.driver = Driver::Task;
        let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
        let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
        let spool = Spool::open(SpoolOptions {
            disk: Arc::new(SimDisk::new()),
            dir: "/spool".into(),
            index_dir: None,
            clock: clock.clone(),
            settings: postrider_spool::Settings::default(),
            metrics: metrics.clone(),
            feeds: &[],
            start_held: false,
            accept_loss: false,
            driver: Driver::Task,
        });
        let spool = spool.await.unwrap();
        let deps = SubmissionDeps {
            spool: spool.clone(),
            accounts: accounts.clone(),
            clock: clock.clone(),
            random: random.clone(),
            metrics: metrics.clone(),
        };
        let names = postrider_submission::Settings {
            hostname: Some("mx.example.net".into()),
            unverified_senders: postrider_submission::UnverifiedSenders::Accept,
            ..Default::default()
        };
        let mut settings = Settings {
            operator_address: Some("operator@example.net".parse().unwrap()),
            link_url: Some("https://relay.example.net/".into()),
            ..Settings::default()
        };
        change(&mut settings);
        let (zones, scope) = (Zones::new(), Scope::new("test"));
        let deps = Deps {
            accounts: accounts.clone(),
            submission: Submission::new(deps, names),
            resolver: Arc::new(zones.clone()),
            clock: clock.clone(),
            random,
            metrics: metrics.clone(),
            mac_key: MacKey::new(&[3; 32]),
            settings,
        };
        let upkeep = Upkeep::start(deps, &scope).unwrap();
        World { zones, clock, accounts, spool, metrics, upkeep, scope, _index: index }
    }

    /// Makes an identity that is to be verified.
    async fn create(&self, text: &str) {
        let verification = Verification::pending(self.clock.now());
        let identity = Identity { verification, ..Identity::new(AccountId::default(), name(text)) };
        self.accounts.identities().create(identity).await.unwrap();
        self.upkeep.nudge();
    }

    /// Gives example.com a key of this state.
    async fn key(&self, state: KeyState) {
        let now = self.clock.now();
        let key = DkimKey {
            account: AccountId::default(),
            domain: "example.com".parse().unwrap(),
            selector: "s1".parse().unwrap(),
            algorithm: DkimAlgorithm::RsaSha256,
            state,
            since: now,
            origin: KeyOrigin::Managed,
            created: now,
            seen: None,
            until: None,
            replaces: None,
            public: KEY.to_owned(),
            sealed: Sealed::new(vec![1]),
        };
        self.accounts.dkim_keys().create(vec![key]).await.unwrap();
    }

    /// A domain with a published key.
    async fn published() -> World {
        let world = World::new().await;
        world.zones.add_txt(RECORD, KEY);
        world.key(KeyState::Current).await;
        world.create("example.com").await;
        world
    }

    /// A verified domain with a MAIL FROM domain that is to be looked for.
    async fn with_mail_from() -> World {
        let world = World::published().await;
        world.set_mail_from(BOUNCE).await;
        world
    }

    async fn set_mail_from(&self, domain: &str) {
        let pending = MailFrom::pending(domain.parse().unwrap(), MailFromFailure::UseDefault, self.clock.now());
        let set = |identity: &mut Identity| identity.mail_from = Some(pending);
        self.accounts.identities().change(AccountId::default(), &name("example.com"), set).await.unwrap();
        self.upkeep.nudge();
    }

    fn publish_mail_from(&self) {
        self.zones.add_mx(BOUNCE, 10, "mx.example.net").add_txt(BOUNCE, "v=spf1 include:example.net ~all");
    }

    fn identity(&self, text: &str) -> Arc<Identity> {
        self.accounts.identities().find(AccountId::default(), &name(text)).unwrap()
    }

    fn status(&self, text: &str) -> VerificationStatus {
        self.identity(text).verification.status
    }

    fn mail_from(&self) -> MailFrom {
        self.identity("example.com").mail_from.clone().unwrap()
    }

    /// Time goes by, and what is due then is done.
    pub(crate) async fn pass(&self, hours: u32) {
        tokio::time::sleep(hours * HOUR + HOUR / 2).await;
    }

    /// The mails since the last time.
    pub(crate) async fn mails(&self) -> Vec<(String, String)> {
        let mut mails = Vec::new();
        let taken = tokio::time::timeout(Duration::from_millis(1), self.spool.take_due(1000)).await;
        for claim in taken.unwrap_or_default() {
            let content = claim.content().await.unwrap().to_bytes();
            let to = claim.message.envelope.recipients[0].address.to_string();
            mails.push((to, String::from_utf8(content.to_vec()).unwrap()));
            // Out of the way of the next look.
            std::mem::forget(claim);
        }
        mails
    }

    /// The token in the only mail to this address.
    async fn token(&self, address: &str) -> String {
        let mails = self.mails().await;
        let [(_, mail)] = &mails.iter().filter(|(to, _)| to == address).collect::<Vec<_>>()[..] else {
            panic!("not one mail to {address}: {mails:?}");
        };
        let (_, rest) = mail.split_once("\r\nhttps://relay.example.net/verify?t=").unwrap();
        rest.split_once("\r\n").unwrap().0.to_owned()
    }
}

fn name(text: &str) -> IdentityName {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_domain_is_verified_when_its_key_is_seen() {
    let world = World::new().await;
    world.key(KeyState::Current).await;
    world.create("example.com").await;
    world.pass(1).await;
    let waiting = world.identity("example.com");
    assert_eq!(waiting.verification.status, VerificationStatus::Pending);
    assert!(waiting.verification.checked.is_some());
    assert!(waiting.verification.found_wrong.as_ref().unwrap().contains("has no TXT record"));
    assert!(world.mails().await.is_empty());
    world.zones.add_txt(RECORD, KEY);
    world.pass(0).await;
    let verified = world.identity("example.com");
    assert_eq!((verified.verification.status, verified.is_verified()), (VerificationStatus::Success, true));
    assert_eq!(verified.verification.found_wrong, None);
    let mails = world.mails().await;
    assert_eq!((mails.len(), mails[0].0.as_str()), (1, "operator@example.net"));
    assert!(mails[0].1.contains("Subject: identity is SUCCESS\r\n"), "{}", mails[0].1);
    assert!(mails[0].1.contains("Before: PENDING\r\nNow:    SUCCESS\r\n"), "{}", mails[0].1);
    assert!(world.metrics.upkeep_looks.of(Look::Wrong).get() > 5);
}

#[tokio::test(start_paused = true)]
async fn a_domain_whose_key_never_appears_fails_after_three_days_and_can_begin_again() {
    let world = World::new().await;
    world.key(KeyState::Current).await;
    world.create("example.com").await;
    world.pass(71).await;
    assert_eq!(world.status("example.com"), VerificationStatus::Pending);
    world.pass(1).await;
    assert_eq!(world.status("example.com"), VerificationStatus::Failed);
    let asked = world.zones.queries(RECORD);
    world.zones.add_txt(RECORD, KEY);
    world.pass(100).await;
    assert_eq!((world.status("example.com"), world.zones.queries(RECORD)), (VerificationStatus::Failed, asked));
    let begun = world.upkeep.verify(AccountId::default(), &name("example.com")).await.unwrap();
    assert_eq!(begun.verification.status, VerificationStatus::Success);
}

#[tokio::test(start_paused = true)]
async fn no_answer_of_the_dns_fails_nothing() {
    let world = World::published().await;
    world.pass(0).await;
    assert_eq!(world.status("example.com"), VerificationStatus::Success);
    for failure in [Failure::ServFail, Failure::Timeout, Failure::Silence] {
        world.zones.fail(RECORD, failure);
        world.pass(100).await;
        let identity = world.identity("example.com");
        assert_eq!(identity.verification.status, VerificationStatus::Success, "{failure:?}");
        assert!(identity.verification.found_wrong.as_ref().unwrap().contains("temporary DNS failure"));
    }
    let fresh = World::new().await;
    fresh.key(KeyState::Current).await;
    fresh.zones.add_txt(RECORD, KEY).fail(RECORD, Failure::ServFail);
    fresh.create("example.com").await;
    fresh.pass(200).await;
    assert_eq!(fresh.status("example.com"), VerificationStatus::Pending, "not even after 72 hours");
    fresh.zones.remove(RECORD).add_txt(RECORD, KEY);
    fresh.pass(0).await;
    assert_eq!(fresh.status("example.com"), VerificationStatus::Success);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_name_servers_that_are_silent() {
    let world = World::with(|settings| settings.lookups = 2).await;
    world.key(KeyState::Current).await;
    world.zones.fail(RECORD, Failure::Silence);
    world.create("example.com").await;
    for address in ["ann@example.net", "bob@example.net"] {
        tokio::time::sleep(Duration::from_millis(10)).await;
        world.create(address).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.identity("example.com").verification.checked, None, "it is being looked at");
    assert_eq!(world.mails().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_goes_is_looked_for_and_counts_as_there_meanwhile() {
    for wrong in [None, Some("v=DKIM1; p="), Some("v=DKIM1; k=rsa; p=MIIBother")] {
        let world = World::published().await;
        world.pass(0).await;
        world.zones.remove(RECORD);
        wrong.map(|text| world.zones.add_txt(RECORD, text));
        world.pass(8).await;
        let lost = world.identity("example.com");
        assert_eq!(lost.verification.status, VerificationStatus::TemporaryFailure);
        assert!(lost.is_verified());
        world.zones.remove(RECORD).add_txt(RECORD, KEY);
        world.pass(0).await;
        assert_eq!(world.status("example.com"), VerificationStatus::Success);
        world.zones.remove(RECORD);
        world.pass(8).await;
        assert_eq!(world.status("example.com"), VerificationStatus::TemporaryFailure);
        world.pass(73).await;
        let failed = world.identity("example.com");
        assert_eq!((failed.verification.status, failed.is_verified()), (VerificationStatus::Failed, false));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_looked_at_for_ever_and_not_all_at_once() {
    let world = World::published().await;
    world.pass(0).await;
    let before = world.zones.queries(RECORD);
    world.pass(24 * 30).await;
    let looks = world.zones.queries(RECORD) - before;
    assert!((100..=150).contains(&looks), "about four a day: {looks}");
    assert_eq!(
        world.identity("example.com").verification.checked.map(|at| world.clock.now().saturating_since(at) < 8 * HOUR),
        Some(true)
    );
}

#[tokio::test(start_paused = true)]
async fn an_alias_of_the_operators_record_is_a_published_key() {
    let world = World::new().await;
    world.zones.add_alias(RECORD, "s1.dkim.example.net").add_txt("s1.dkim.example.net", KEY);
    world.key(KeyState::Next).await;
    world.create("example.com").await;
    world.create("mail.example.com").await;
    world.pass(0).await;
    assert_eq!(world.status("example.com"), VerificationStatus::Success, "the key that will sign");
    assert_eq!(world.status("mail.example.com"), VerificationStatus::Success, "signed with the same key");
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_trusts_is_not_looked_at() {
    let world = World::new().await;
    world.key(KeyState::Current).await;
    let trusted = Identity { trusted: true, ..Identity::new(AccountId::default(), name("example.com")) };
    world.accounts.identities().create(trusted).await.unwrap();
    world.create("without.example.org").await;
    world.pass(100).await;
    assert_eq!(world.zones.queries(RECORD), 0);
    assert!(world.identity("example.com").is_verified());
    let without = world.identity("without.example.org").verification.clone();
    assert!(without.found_wrong.unwrap().contains("has no DKIM key"));
}

#[tokio::test(start_paused = true)]
async fn a_mail_from_domain_goes_through_its_states() {
    let world = World::with_mail_from().await;
    world.pass(1).await;
    assert_eq!(world.mail_from().status, VerificationStatus::Pending);
    world.publish_mail_from();
    world.pass(0).await;
    assert!(world.mail_from().is_usable());
    world.zones.add_mx(BOUNCE, 20, "mx.example.org");
    world.pass(8).await;
    let two = world.mail_from();
    assert_eq!((two.status, two.is_usable()), (VerificationStatus::TemporaryFailure, false));
    assert!(two.found_wrong.unwrap().contains("alone"));
    world.zones.fail(BOUNCE, Failure::ServFail);
    world.pass(100).await;
    assert_eq!(world.mail_from().status, VerificationStatus::TemporaryFailure, "no answer fails nothing");
    world.zones.remove(BOUNCE);
    world.pass(0).await;
    assert_eq!(world.mail_from().status, VerificationStatus::Failed, "it has not been there for 72 hours");
    world.publish_mail_from();
    world.pass(100).await;
    assert_eq!(world.mail_from().status, VerificationStatus::Failed);
    let subjects: Vec<String> = world.mails().await.into_iter().map(|(_, mail)| mail).collect();
    assert_eq!(subjects.iter().filter(|mail| mail.contains("Subject: MAIL FROM domain")).count(), 3);
    assert!(subjects.iter().any(|mail| mail.contains("postrider identities mail-from")), "says what to do");

    let again = world.upkeep.verify_mail_from(AccountId::default(), &name("example.com")).await.unwrap();
    assert!(again.mail_from.as_ref().unwrap().is_usable());
}

#[tokio::test(start_paused = true)]
async fn another_mail_from_domain_begins_at_once() {
    let world = World::with_mail_from().await;
    world.publish_mail_from();
    world.pass(0).await;
    assert!(world.mail_from().is_usable());
    world.set_mail_from("other.example.com").await;
    world.pass(0).await;
    assert!(!world.mail_from().is_usable());
    world.zones.add_mx("other.example.com", 10, "mx.example.net").add_txt("other.example.com", "v=spf1 -all");
    world.pass(0).await;
    assert!(world.mail_from().is_usable());
    let none = world.upkeep.verify_mail_from(AccountId::default(), &name("nobody.example")).await;
    assert!(matches!(none, Err(Error::Account(_))));
}

#[tokio::test(start_paused = true)]
async fn an_address_is_verified_by_who_follows_its_link() {
    let world = World::new().await;
    world.create("Ann@example.com").await;
    world.pass(0).await;
    let token = world.token("Ann@example.com").await;
    for _ in 0..2 {
        // Programs that look at mail follow links; that alone confirms nothing.
        assert_eq!(world.upkeep.link(&token).unwrap().as_str(), "Ann@example.com");
    }
    assert_eq!(world.status("Ann@example.com"), VerificationStatus::Pending);
    world.upkeep.confirm(&token).await.unwrap();
    assert!(world.identity("Ann@example.com").is_verified());
    world.upkeep.confirm(&token).await.unwrap();
    let told = world.mails().await;
    assert_eq!(told.len(), 1, "the operator, once: {told:?}");
    world.pass(24 * 30).await;
    assert!(world.identity("Ann@example.com").is_verified());
    assert_eq!(world.zones.queries_total(), 0);
    assert!(world.mails().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_link_ends_after_a_day_and_with_a_later_one() {
    let world = World::new().await;
    world.create("ann@example.com").await;
    world.pass(0).await;
    let first = world.token("ann@example.com").await;
    world.pass(1).await;
    world.upkeep.verify(AccountId::default(), &name("ann@example.com")).await.unwrap();
    let second = world.token("ann@example.com").await;
    assert_eq!(world.upkeep.confirm(&first).await, Err(LinkError::Superseded));
    assert!(world.upkeep.link(&second).is_ok());
    world.pass(24).await;
    assert_eq!(world.upkeep.confirm(&second).await, Err(LinkError::Expired));
    let failed = world.identity("ann@example.com");
    assert_eq!(failed.verification.status, VerificationStatus::Failed);
    assert!(failed.verification.found_wrong.as_ref().unwrap().contains("24 hours"));
    for forged in ["", "AAAA", &first[..first.len() - 2]] {
        assert_eq!(world.upkeep.confirm(forged).await, Err(LinkError::Unknown));
    }
    world.mails().await;
    world.upkeep.verify(AccountId::default(), &name("ann@example.com")).await.unwrap();
    let third = world.token("ann@example.com").await;
    world.accounts.identities().delete(AccountId::default(), &name("ann@example.com")).await.unwrap();
    assert_eq!(world.upkeep.confirm(&third).await, Err(LinkError::Superseded));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_could_not_be_mailed_is_none() {
    let world = World::new().await;
    world.spool.close().await.unwrap();
    world.create("ann@example.com").await;
    world.pass(30).await;
    let waiting = world.identity("ann@example.com");
    assert_eq!((waiting.verification.status, &waiting.verification.link), (VerificationStatus::Pending, &None));
    assert!(waiting.verification.found_wrong.as_ref().unwrap().contains("could not be mailed"), "{waiting:?}");
    let again = world.upkeep.verify(AccountId::default(), &name("ann@example.com")).await;
    assert!(matches!(again, Err(Error::NotMailed(_))), "{again:?}");
    assert_eq!(world.identity("ann@example.com").verification.link, None);
}

#[tokio::test(start_paused = true)]
async fn without_a_place_for_links_none_is_mailed_and_that_is_said() {
    let world = World::with(|settings| settings.link_url = None).await;
    world.create("ann@example.com").await;
    world.pass(0).await;
    let waiting = world.identity("ann@example.com");
    assert!(waiting.verification.found_wrong.as_ref().unwrap().contains("upkeep.link_url"));
    let refused = world.upkeep.verify(AccountId::default(), &name("ann@example.com")).await;
    assert!(matches!(refused, Err(Error::NoLinks)));
    assert!(world.mails().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_operator_is_not_flooded() {
    let world = World::with(|settings| settings.notices_per_hour = 2).await;
    world.zones.add_txt(RECORD, KEY);
    world.key(KeyState::Current).await;
    for host in 0..5 {
        world.create(&format!("host{host}.example.com")).await;
    }
    world.create("example.com").await;
    world.pass(0).await;
    assert_eq!(world.mails().await.len(), 2);
    assert!((0..5).all(|host| world.identity(&format!("host{host}.example.com")).is_verified()));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_scope() {
    let world = World::published().await;
    world.zones.fail(RECORD, Failure::Silence);
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.scope.close(Duration::from_secs(1)).await.unwrap();
}
