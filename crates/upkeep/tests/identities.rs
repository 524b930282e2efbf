//! Identities and MAIL FROM domains against a real name server: NSD, asked through the
//! relay's own resolver.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{
    Accounts, DkimKey, Identity, KeyOrigin, KeyState, MailFrom, MailFromFailure, Sealed, VerificationStatus,
};
use postrider_base::{Clock, Metrics, Period, Random, Scope, SimDisk};
use postrider_dns::{HickoryResolver, NameServer};
use postrider_mail::{AccountId, DkimAlgorithm};
use postrider_mailauth::MacKey;
use postrider_spool::{Driver, Spool, SpoolOptions};
use postrider_store::Store;
use postrider_submission::{Submission, SubmissionDeps};
use postrider_testkit::nsd::{Nsd, Zone};
use postrider_testkit::ports::free_address;
use postrider_upkeep::{Deps, Settings, Upkeep};

fn zone() -> Zone {
    let mut zone = Zone::new("example.com");
    zone.line("s1._domainkey.split IN TXT \"v=DKIM1; k=rsa; \" \"p=AA\" \"AA\"");
    zone.line("s1._domainkey.chain IN CNAME one");
    zone.line("one IN CNAME two");
    zone.line("two IN CNAME s1._domainkey.split");
    zone.line("s1._domainkey.wrong IN TXT \"v=DKIM1; k=rsa; p=BBBB\"");
    zone.line("s1._domainkey.revoked IN TXT \"v=DKIM1; k=rsa; p=\"");
    zone.line("s1._domainkey.empty IN A 192.0.2.1");
    zone.line("s1._domainkey.nowhere IN CNAME gone");
    zone.line("back.split IN MX 10 mx.relay.example.");
    zone.line("back.split IN TXT \"v=spf1 \" \"include:relay.example ~all\"");
    zone.line("back.chain IN MX 10 mx.relay.example.");
    zone.line("back.chain IN MX 20 mx2.relay.example.");
    zone.line("back.chain IN TXT \"v=spf1 -all\"");
    zone.line("back.wrong IN MX 10 mx.relay.example.");
    zone
}

struct World {
    accounts: Accounts,
    upkeep: Upkeep,
    /// Ends what runs.
    _scope: Scope,
    _index: tempfile::TempDir,
}

impl World {
    async fn new(server: SocketAddr) -> World {
        let (clock, random, metrics) = (Clock::system(), Random::seeded(1), Metrics::new());
        let index = tempfile::tempdir().unwrap();
        let options = postrider_store::Options { index_dir: Some(index.path().into()), ..Default::default() };
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
            spool,
            accounts: accounts.clone(),
            clock: clock.clone(),
            random: random.clone(),
            metrics: metrics.clone(),
        };
        let names = postrider_submission::Settings { hostname: Some("mx.relay.example".into()), ..Default::default() };
        let mut dns = postrider_dns::Settings {
            servers: vec![NameServer(server)],
            timeout: Period::from_millis(500),
            attempts: 1,
            ..Default::default()
        };
        dns.dnssec.validate = false;
        let scope = Scope::new("test");
        let deps = Deps {
            accounts: accounts.clone(),
            submission: Submission::new(deps, names),
            resolver: Arc::new(HickoryResolver::new(&dns, &Metrics::new()).unwrap()),
            clock,
            random,
            metrics,
            mac_key: MacKey::new(&[1; 32]),
            settings: Settings::default(),
        };
        let upkeep = Upkeep::start(deps, &scope).unwrap();
        World { accounts, upkeep, _scope: scope, _index: index }
    }

    /// A domain with a key of its own and a MAIL FROM domain.
    async fn create(&self, domain: &str) {
        let (account, now) = (AccountId::default(), Clock::system().now());
        let key = DkimKey {
            account,
            domain: domain.parse().unwrap(),
            selector: "s1".parse().unwrap(),
            algorithm: DkimAlgorithm::RsaSha256,
            state: KeyState::Current,
            since: now,
            origin: KeyOrigin::Managed,
            created: now,
            seen: None,
            until: None,
            replaces: None,
            public: "v=DKIM1; k=rsa; p=AAAA".to_owned(),
            sealed: Sealed::new(vec![1]),
        };
        self.accounts.dkim_keys().create(vec![key]).await.unwrap();
        let back = format!("back.{domain}").parse().unwrap();
        let mut identity = Identity::new(account, domain.parse().unwrap());
        identity.mail_from = Some(MailFrom::pending(back, MailFromFailure::UseDefault, now));
        self.accounts.identities().create(identity).await.unwrap();
    }

    /// The status and what was found wrong, now: of the proof, and of the MAIL FROM domain.
    async fn look(&self, domain: &str) -> [(VerificationStatus, String); 2] {
        let (account, name) = (AccountId::default(), domain.parse().unwrap());
        let proof = self.upkeep.verify(account, &name).await.unwrap().verification.clone();
        let looked = self.upkeep.verify_mail_from(account, &name).await.unwrap();
        let mail_from = looked.mail_from.clone().unwrap();
        [
            (proof.status, proof.found_wrong.unwrap_or_default()),
            (mail_from.status, mail_from.found_wrong.unwrap_or_default()),
        ]
    }
}

#[tokio::test]
async fn what_a_name_server_says_is_understood() {
    use VerificationStatus::{Pending, Success};
    let address = free_address().unwrap();
    let nsd = Nsd::start(address, &[zone()], Duration::from_secs(1)).unwrap();
    let world = World::new(address).await;
    for (domain, proof, wrong, mail_from, problem) in [
        ("split.example.com", Success, "", Success, ""),
        ("chain.example.com", Success, "", Pending, "should be mx.relay.example alone"),
        ("wrong.example.com", Pending, "is not our key", Pending, "has no SPF record"),
        ("revoked.example.com", Pending, "is not our key", Pending, "has no MX record"),
        ("empty.example.com", Pending, "has no TXT record: no such records", Pending, "has no MX record"),
        ("nowhere.example.com", Pending, "has no TXT record: domain does not exist", Pending, "has no MX record"),
        ("gone.example.com", Pending, "has no TXT record: domain does not exist", Pending, "has no MX record"),
        // The server does not know the zone, and says that it will not answer.
        ("example.net", Pending, "temporary DNS failure", Pending, "temporary DNS failure"),
    ] {
        world.create(domain).await;
        let [(status, found), (own, own_found)] = world.look(domain).await;
        assert_eq!((status, own), (proof, mail_from), "{domain}: {found}; {own_found}");
        assert!(found.contains(wrong) && own_found.contains(problem), "{domain}: {found}; {own_found}");
    }
    nsd.freeze().unwrap();
    let silent = world.look("split.example.com").await;
    nsd.thaw().unwrap();
    for (status, found) in silent {
        assert_eq!(status, Success, "no answer takes nothing away");
        assert!(found.contains("temporary DNS failure"), "{found}");
    }
    let [(status, found), _] = world.look("split.example.com").await;
    assert_eq!((status, found.as_str()), (Success, ""));
}
