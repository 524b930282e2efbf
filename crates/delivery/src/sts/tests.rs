//! Policies over a simulated network, in simulated time.

use std::collections::BTreeMap;

use postrider_base::{SimDisk, SimNet};
use postrider_dns::Zones;

use super::policy::{Mode, PolicyError};
use super::*;
use crate::https::HttpsError;
use crate::settings::Settings;

use web::{Authority, Reply, Web};

#[path = "../../tests/delivery/web.rs"]
mod web;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEB: &str = "198.51.100.80:443";

fn policy(mode: &str, mx: &str) -> String {
    format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 604800\r\n")
}

struct Rig {
    net: SimNet,
    zones: Zones,
    clock: Clock,
    metrics: Metrics,
    authority: Authority,
    config: Config,
    disk: SimDisk,
    state: tempfile::TempDir,
    domain: Domain,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
        let authority = Authority::new();
        let mut settings = Settings::default();
        settings.tls.ca_file = Some(authority.file());
        change(&mut settings);
        let config = Config::new(0, settings, "relay.example.net", &BTreeMap::new(), &clock).unwrap();
        let zones = Zones::new();
        zones.add_address("mta-sts.example.com", "198.51.100.80");
        Self {
            net: SimNet::new(),
            zones,
            clock,
            metrics: Metrics::new(),
            authority,
            config,
            disk: SimDisk::new(),
            state: tempfile::tempdir().unwrap(),
            domain: "example.com".parse().unwrap(),
        }
    }

    fn web(&self, reply: Reply) -> Web {
        Web::start(&self.net, WEB, self.authority.acceptor("mta-sts.example.com"), reply)
    }

    fn store(&self) -> Store {
        let mut options = postrider_store::Options::default();
        // Simulated time stands still while it writes.
        options.log.driver = postrider_spool::Driver::Task;
        Store::open_with(Arc::new(self.disk.clone()), self.state.path(), options).unwrap()
    }

    fn sts(&self, store: &Store) -> Sts {
        let (resolver, dialer) = (Arc::new(self.zones.clone()), Arc::new(self.net.clone()));
        Sts::new(store, resolver, dialer, &self.clock, &self.metrics, 10)
    }

    async fn find(&self, sts: &Sts, id: Option<&str>) -> Found {
        sts.find(&self.config, &self.domain, id).await.unwrap()
    }

    async fn mode(&self, sts: &Sts, id: Option<&str>) -> Option<Mode> {
        self.find(sts, id).await.policy.map(|policy| policy.mode)
    }

    /// Why there is no policy with this reply.
    async fn failure(&self, reply: Reply) -> FetchError {
        let sts = self.sts(&self.store());
        self.web(reply);
        let found = self.find(&sts, Some("1")).await;
        assert_eq!(found.policy, None);
        found.failed.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn an_announced_policy_is_fetched_once_and_survives_a_restart() {
    let rig = Rig::new();
    let web = rig.web(Reply::text(&policy("enforce", "*.example.com")));
    let store = rig.store();
    let sts = rig.sts(&store);
    for _ in 0..3 {
        assert_eq!(rig.mode(&sts, Some("1")).await, Some(Mode::Enforce));
    }
    let requests = web.requests();
    assert_eq!((requests.len(), requests[0].body.len()), (1, 0));
    let head = requests[0].head.to_lowercase();
    assert!(head.starts_with("get /.well-known/mta-sts.txt http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: mta-sts.example.com\r\n"), "{head}");
    drop((sts, store));
    // No record, no answer of the DNS, no policy host: what is kept holds.
    rig.zones.remove("mta-sts.example.com");
    let store = rig.store();
    let sts = rig.sts(&store);
    for id in [None, Some("1"), Some("2")] {
        assert_eq!(rig.mode(&sts, id).await, Some(Mode::Enforce), "{id:?}");
    }
    tokio::time::advance(7 * DAY).await;
    assert_eq!(rig.mode(&sts, None).await, None);
}

#[tokio::test(start_paused = true)]
async fn another_id_brings_another_policy() {
    let rig = Rig::new();
    let sts = rig.sts(&rig.store());
    let web = rig.web(Reply::text(&policy("enforce", "mx.example.com")));
    assert_eq!(rig.mode(&sts, Some("1")).await, Some(Mode::Enforce));
    web.now_replies(Reply::text("version: STSv1\nmode: none\nmax_age: 86400\n"));
    assert_eq!(rig.mode(&sts, Some("1")).await, Some(Mode::Enforce));
    assert_eq!(rig.mode(&sts, Some("2")).await, Some(Mode::None));
}

#[tokio::test(start_paused = true)]
async fn a_failed_fetch_is_no_policy_and_not_repeated_at_once() {
    let rig = Rig::new();
    let sts = rig.sts(&rig.store());
    let web = rig.web(Reply::status("500 Oh", "text/plain", ""));
    let found = rig.find(&sts, Some("1")).await;
    assert_eq!((found.failed, found.holds), (Some(FetchError::Status(500)), Some(RETRY)));
    web.now_replies(Reply::text(&policy("enforce", "mx.example.com")));
    let found = rig.find(&sts, Some("1")).await;
    assert_eq!((found.policy, found.failed, web.requests().len()), (None, None, 1));
    tokio::time::advance(RETRY).await;
    assert_eq!(rig.mode(&sts, Some("1")).await, Some(Mode::Enforce));
    assert_eq!(rig.metrics.sts_fetches.of(StsFetch::Failed).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_policy_says_why() {
    let good = policy("enforce", "mx.example.com");
    let mut dripping = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{good}");
    dripping.push_str(&"x: y\n".repeat(20));
    let long = format!("{good}{}", "x: y\n".repeat(14_000));
    for (reply, expected) in [
        (Reply::status("200 OK", "text/html; charset=utf-8", &good), FetchError::MediaType),
        (Reply::Bytes(format!("HTTP/1.1 200 OK\r\n\r\n{good}").into_bytes()), FetchError::MediaType),
        (Reply::text("hello\n"), FetchError::Invalid(PolicyError::Syntax)),
        (Reply::text(&long), FetchError::Invalid(PolicyError::TooLong)),
        (
            Reply::Bytes(b"HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.example.com/x\r\n\r\n".to_vec()),
            FetchError::Status(301),
        ),
        (Reply::status("404 Not Found", "text/plain", &good), FetchError::Status(404)),
        (Reply::Drip(dripping.into_bytes()), FetchError::Https(HttpsError::TimedOut)),
        (Reply::Silence, FetchError::Https(HttpsError::TimedOut)),
    ] {
        let rig = Rig::new();
        let began = rig.clock.now();
        assert_eq!(rig.failure(reply.clone()).await, expected, "{reply:?}");
        assert!(rig.clock.now().saturating_since(began) <= Duration::from_secs(61));
    }
    for broken in
        [&b"SSH-2.0-x\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\nversion"]
    {
        let failure = Rig::new().failure(Reply::Bytes(broken.to_vec())).await;
        assert!(matches!(failure, FetchError::Https(HttpsError::Http(_))), "{failure:?}");
    }
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'y'; 100_000]].concat();
    let failure = Rig::new().failure(Reply::Bytes(endless)).await;
    assert!(matches!(failure, FetchError::Https(HttpsError::Http(_))), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_host_has_to_prove_its_name() {
    for host in ["example.com", "www.example.com"] {
        let rig = Rig::new();
        let sts = rig.sts(&rig.store());
        Web::start(&rig.net, WEB, rig.authority.acceptor(host), Reply::text(&policy("enforce", "mx.example.com")));
        let failed = rig.find(&sts, Some("1")).await.failed.unwrap();
        assert!(matches!(failed, FetchError::Https(HttpsError::Certificate(_))), "{failed:?}");
    }
    let (rig, other) = (Rig::new(), Authority::new());
    let sts = rig.sts(&rig.store());
    let web = Web::start(&rig.net, WEB, other.acceptor("mta-sts.example.com"), Reply::text("x"));
    let failed = rig.find(&sts, Some("1")).await.failed.unwrap();
    assert!(matches!(failed, FetchError::Https(HttpsError::Certificate(_))), "{failed:?}");
    assert!(web.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_policy_host_may_have_ipv6_alone() {
    let rig = Rig::new();
    rig.zones.remove("mta-sts.example.com").add_address("mta-sts.example.com", "2001:db8::80");
    let sts = rig.sts(&rig.store());
    let acceptor = rig.authority.acceptor("mta-sts.example.com");
    Web::start(&rig.net, "[2001:db8::80]:443", acceptor, Reply::text(&policy("enforce", "mx.example.com")));
    assert_eq!(rig.mode(&sts, Some("1")).await, Some(Mode::Enforce));
}

#[tokio::test(start_paused = true)]
async fn nobody_makes_us_dial_inside() {
    for inside in ["127.0.0.1", "10.0.0.1", "::1"] {
        let rig = Rig::new();
        rig.zones.remove("mta-sts.example.com").add_address("mta-sts.example.com", inside);
        let sts = rig.sts(&rig.store());
        let failed = rig.find(&sts, Some("1")).await.failed.unwrap();
        assert!(matches!(failed, FetchError::Https(HttpsError::Connect(_))), "{failed:?}");
        assert_eq!(rig.net.dials(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn policies_are_refreshed_every_day_and_keep_when_that_fails() {
    let rig = Rig::new();
    let sts = rig.sts(&rig.store());
    let web = rig.web(Reply::text(&policy("enforce", "mx.example.com")));
    rig.find(&sts, Some("1")).await;
    sts.refresh(&rig.config).await;
    assert_eq!(web.requests().len(), 1, "it is fresh");
    tokio::time::advance(DAY).await;
    sts.refresh(&rig.config).await;
    assert_eq!(web.requests().len(), 2);
    web.now_replies(Reply::status("500 Oh", "text/plain", ""));
    for _ in 0..6 {
        tokio::time::advance(DAY).await;
        sts.refresh(&rig.config).await;
    }
    assert_eq!(rig.mode(&sts, None).await, Some(Mode::Enforce), "six days after the last fetch");
    tokio::time::advance(DAY).await;
    sts.refresh(&rig.config).await;
    assert_eq!((rig.mode(&sts, None).await, rig.metrics.sts_policies.get()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_short_life_is_refreshed_before_its_end_and_an_unused_policy_not_at_all() {
    let rig = Rig::new();
    let sts = rig.sts(&rig.store());
    let web = rig.web(Reply::text("version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 7200\n"));
    rig.find(&sts, Some("1")).await;
    for _ in 0..3 {
        tokio::time::advance(HOUR).await;
        sts.refresh(&rig.config).await;
    }
    assert_eq!(web.requests().len(), 4);
    assert_eq!(rig.mode(&sts, None).await, Some(Mode::Enforce));
    tokio::time::advance(HOUR).await;
    web.now_replies(Reply::text("version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 31536000\n"));
    sts.refresh(&rig.config).await;
    let before = web.requests().len();
    tokio::time::advance(31 * DAY).await;
    sts.refresh(&rig.config).await;
    assert_eq!(web.requests().len(), before, "nobody has sent there for a month");
}

#[tokio::test(start_paused = true)]
async fn the_number_of_policies_is_bounded_and_the_used_ones_stay() {
    let rig = Rig::with(|settings| settings.limits.sts_policies = 3);
    let sts = rig.sts(&rig.store());
    for (n, name) in ["a.example", "b.example", "c.example", "d.example"].into_iter().enumerate() {
        let host = format!("mta-sts.{name}");
        rig.zones.add_address(&host, &format!("198.51.100.{n}"));
        let address = format!("198.51.100.{n}:443");
        Web::start(&rig.net, &address, rig.authority.acceptor(&host), Reply::text(&policy("enforce", "mx.example")));
        let domain = name.parse().unwrap();
        assert!(sts.find(&rig.config, &domain, Some("1")).await.unwrap().policy.is_some());
        tokio::time::advance(DAY).await;
        // Mail goes to the first all the time.
        assert!(sts.find(&rig.config, &"a.example".parse().unwrap(), Some("1")).await.unwrap().policy.is_some());
    }
    assert_eq!(rig.metrics.sts_policies.get(), 3);
    let kept = |name: &str| sts.kept(&name.parse().unwrap()).unwrap().is_some();
    assert_eq!(["a", "b", "c", "d"].map(|name| kept(&format!("{name}.example"))), [true, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn announcements_are_one_question_and_none_when_turned_off() {
    let rig = Rig::new();
    let sts = rig.sts(&rig.store());
    assert_eq!(sts.announced(&rig.config, &rig.domain).await, None);
    rig.zones.add_txt("_mta-sts.example.com", "v=STSv1; id=7;");
    assert_eq!(sts.announced(&rig.config, &rig.domain).await.as_deref(), Some("7"));
    rig.zones.fail("_mta-sts.example.com", postrider_dns::zones::Failure::Silence);
    assert_eq!(sts.announced(&rig.config, &rig.domain).await, None);
    let off = Rig::with(|settings| settings.tls.mta_sts = false);
    assert_eq!(off.sts(&off.store()).announced(&off.config, &off.domain).await, None);
    assert_eq!(off.zones.queries_total(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_cannot_say_is_not_no_policy() {
    let rig = Rig::new();
    let store = rig.store();
    let sts = rig.sts(&store);
    let damaged = store.table::<String, u8>("sts-policies");
    damaged.put(&"example.com".to_owned(), &0xff).await.unwrap();
    for id in [None, Some("1")] {
        // Nothing is announced, or the policy host is away.
        assert!(sts.find(&rig.config, &rig.domain, id).await.is_err(), "{id:?}");
    }
    tokio::time::advance(RETRY).await;
    rig.web(Reply::text(&policy("enforce", "mx.example.com")));
    assert_eq!(rig.mode(&sts, Some("1")).await, Some(Mode::Enforce));
    assert_eq!(rig.mode(&sts, None).await, Some(Mode::Enforce), "a new one takes its place");
}

#[tokio::test(start_paused = true)]
async fn what_came_meanwhile_is_not_forgotten() {
    let rig = Rig::new();
    let sts = rig.sts(&rig.store());
    let web = rig.web(Reply::text("version: STSv1\nmode: testing\nmx: mx.example.com\nmax_age: 60\n"));
    assert_eq!(rig.mode(&sts, Some("1")).await, Some(Mode::Testing));
    tokio::time::advance(HOUR).await;
    let expired = sts.rows(|_| true).await;
    assert_eq!((expired.len(), rig.mode(&sts, None).await), (1, None));
    web.now_replies(Reply::text(&policy("enforce", "mx.example.com")));
    assert_eq!(rig.mode(&sts, Some("1")).await, Some(Mode::Enforce));
    sts.forget(expired).await;
    assert_eq!(rig.mode(&sts, None).await, Some(Mode::Enforce));
    let unchanged = sts.rows(|_| true).await;
    sts.forget(unchanged).await;
    assert_eq!(rig.mode(&sts, None).await, None);
}
