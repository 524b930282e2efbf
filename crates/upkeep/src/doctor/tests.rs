//! What the doctor says of worlds that a test makes.

use std::time::Duration;

use postrider_account::{KeyState, MailFrom, MailFromFailure, VerificationStatus};
use postrider_base::{SimNet, Timestamp};
use postrider_dns::Zones;
use postrider_dns::zones::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const KEY: &str = "v=DKIM1; k=rsa; p=AAAA";
const SOURCE: &str = "198.51.100.7";
const NAME: &str = "k1._domainkey.example.com";

/// A domain with all that it can have.
fn facts() -> DomainFacts {
    let mail_from = MailFrom {
        status: VerificationStatus::Success,
        ..MailFrom::pending("bounce.example.com".parse().unwrap(), MailFromFailure::UseDefault, Timestamp::default())
    };
    DomainFacts {
        domain: "example.com".parse().unwrap(),
        identity: Some(("example.com".into(), true)),
        signs: true,
        key_domain: "example.com".parse().unwrap(),
        keys: vec![KeyFact { selector: "k1".into(), record: KEY.into(), state: KeyState::Current }],
        mail_from: Some(mail_from),
        envelope: "bounce.example.com".parse().unwrap(),
        bounce_host: "mx.relay.example".into(),
        bounces: Some(bounces("bounce.example.com")),
        sources: vec![source(SOURCE)],
    }
}

fn bounces(domain: &str) -> BounceFacts {
    let probe = format!("aaaa@{domain}").parse().unwrap();
    BounceFacts { domain: domain.parse().unwrap(), host: feedback::tests::HOST.into(), probe }
}

fn source(address: &str) -> SourceFact {
    let (address, host) = (address.parse().unwrap(), "out.relay.example".into());
    SourceFact { name: "out1".into(), address, host, ptr: None }
}

/// A world in which everything is right.
fn world() -> Zones {
    let zones = Zones::new();
    zones
        .add_txt(NAME, KEY)
        .add_mx("example.com", 10, "mx.example.com")
        .add_mx("bounce.example.com", 10, "mx.relay.example")
        .add_txt("bounce.example.com", "v=spf1 include:_spf.relay.example ~all")
        .add_txt("_spf.relay.example", "v=spf1 ip4:198.51.100.7 ~all")
        .add_txt("_dmarc.example.com", "v=DMARC1; p=reject")
        .add_ptr(SOURCE, "out.relay.example")
        .add_address("out.relay.example", SOURCE)
        .add_address(feedback::tests::HOST, feedback::tests::ADDRESS);
    zones
}

#[tokio::test]
async fn siblings_stand_for_each_other_under_one_policy() {
    let zones = world();
    let mut facts = facts();
    facts.domain = "news.example.com".parse().unwrap();
    let alignment = async |zones: &Zones, facts: &DomainFacts| {
        let findings = dmarc::examine(zones, facts, true, true).await;
        ["alignment-dkim", "alignment-spf"].map(|check| of(&findings, check).verdict)
    };
    assert_eq!(alignment(&zones, &facts).await, [Verdict::Pass, Verdict::Pass]);
    // A domain that lies within the other, and is of another organization.
    zones.add_txt("_dmarc.news.example.com", "v=DMARC1; p=none; psd=n");
    assert_eq!(alignment(&zones, &facts).await, [Verdict::Warn, Verdict::Warn]);
}

struct Office {
    net: SimNet,
    clock: Clock,
    settings: Settings,
}

impl Office {
    fn new() -> Office {
        let clock = Clock::simulated(Timestamp::from_millis(784_111_777_000));
        let net = SimNet::new();
        feedback::tests::host(&net, feedback::tests::ADDRESS, feedback::tests::GOOD);
        Office { net, clock, settings: Settings::default() }
    }

    fn doctor<'a>(&'a self, zones: &'a Zones) -> Doctor<'a> {
        Doctor { resolver: zones, dialer: &self.net, clock: &self.clock, settings: &self.settings }
    }
}

async fn examined(zones: &Zones, facts: &DomainFacts) -> Vec<Finding> {
    Office::new().doctor(zones).examine_domain(facts).await
}

fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.check == check);
    found.unwrap_or_else(|| panic!("{check} in {findings:#?}"))
}

#[tokio::test]
async fn a_good_world_passes() {
    let findings = examined(&world(), &facts()).await;
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Pass), "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.advice.is_none()), "{findings:#?}");
    let dmarc = of(&findings, "dmarc");
    assert!(dmarc.found.contains("policy reject") && dmarc.found.contains("_dmarc.example.com"), "{dmarc:?}");
    assert_eq!(of(&findings, "spf-lookups").found, "it takes 1 of 10 DNS lookups");
}

/// A check, what it says when one thing is spoilt and words of that, and what spoils it.
type Fault = (&'static str, Verdict, &'static str, fn(&Zones, &mut DomainFacts));

const FAULTS: &[Fault] = &[
    ("identity", Verdict::Fail, "no identity", |_, facts| facts.identity = None),
    ("identity", Verdict::Fail, "not verified", |_, facts| facts.identity = Some(("example.com".into(), false))),
    ("dkim", Verdict::Fail, "does not exist", |zones, _| {
        zones.remove(NAME);
    }),
    ("dkim", Verdict::Fail, "no TXT record", |zones, _| {
        zones.remove(NAME).add_address(NAME, "192.0.2.1");
    }),
    ("dkim", Verdict::Fail, "alias", |zones, _| {
        zones.remove(NAME).add_alias(NAME, "gone.example");
    }),
    ("dkim", Verdict::Fail, "revoked", |zones, _| {
        zones.remove(NAME).add_txt(NAME, "v=DKIM1; p=");
    }),
    ("dkim", Verdict::Fail, "another key", |zones, _| {
        zones.remove(NAME).add_txt(NAME, "v=DKIM1; p=AAAB");
    }),
    ("dkim", Verdict::Fail, "another kind", |zones, _| {
        zones.remove(NAME).add_txt(NAME, "v=DKIM1; k=ed25519; p=AAAA");
    }),
    ("dkim", Verdict::Fail, "SHA-256", |zones, _| {
        zones.remove(NAME).add_txt(NAME, "v=DKIM1; h=sha1; p=AAAA");
    }),
    ("dkim", Verdict::Warn, "only tries", |zones, _| {
        zones.remove(NAME).add_txt(NAME, "v=DKIM1; t=s:y; p=AAAA");
    }),
    ("dkim", Verdict::Fail, "there are 2 TXT records", |zones, _| {
        zones.add_txt(NAME, "v=DKIM1; p=AAAB");
    }),
    ("dkim", Verdict::Warn, "not known", |zones, _| {
        zones.fail(NAME, Failure::ServFail);
    }),
    ("dkim", Verdict::Warn, "not known", |zones, _| {
        zones.fail(NAME, Failure::Timeout);
    }),
    ("dkim", Verdict::Warn, "will not sign before", |zones, facts| {
        zones.remove(NAME).add_txt("k2._domainkey.example.com", KEY);
        facts.keys[0].state = KeyState::Next;
        let key = KeyFact { selector: "k2".into(), record: KEY.into(), state: KeyState::Current };
        facts.keys.push(key);
    }),
    ("dkim", Verdict::Fail, "no key that signs", |_, facts| facts.keys.clear()),
    ("dkim", Verdict::Fail, "no key signs yet", |_, facts| facts.keys[0].state = KeyState::Next),
    ("dmarc", Verdict::Warn, "DKIM does not pass", |_, facts| facts.keys[0].state = KeyState::Next),
    ("dkim", Verdict::Warn, "switched off", |_, facts| facts.signs = false),
    ("spf", Verdict::Warn, "198.51.100.7: softfail", |zones, _| {
        zones.remove("_spf.relay.example").add_txt("_spf.relay.example", "v=spf1 ip4:192.0.2.1 ~all");
    }),
    ("spf", Verdict::Fail, "198.51.100.7: fail", |zones, _| {
        zones.remove("bounce.example.com").add_txt("bounce.example.com", "v=spf1 -all");
    }),
    ("spf", Verdict::Fail, "permerror", |zones, _| {
        zones.add_txt("bounce.example.com", "v=spf1 -all");
    }),
    ("spf", Verdict::Warn, "none", |zones, _| {
        zones.remove("bounce.example.com").add_mx("bounce.example.com", 10, "mx.relay.example");
    }),
    ("spf", Verdict::Warn, "temperror", |zones, _| {
        zones.fail("_spf.relay.example", Failure::ServFail);
    }),
    ("mail-from", Verdict::Warn, "PENDING", |_, facts| {
        facts.mail_from.as_mut().unwrap().status = VerificationStatus::Pending;
    }),
    ("mail-from", Verdict::Fail, "is refused", |_, facts| {
        let mail_from = facts.mail_from.as_mut().unwrap();
        mail_from.status = VerificationStatus::Failed;
        mail_from.on_failure = MailFromFailure::Reject;
    }),
    ("mail-from", Verdict::Warn, "is of no effect", |_, facts| facts.bounces = None),
    ("mail-from-mx", Verdict::Fail, "2 MX records", |zones, _| {
        zones.add_mx("bounce.example.com", 20, "b.example");
    }),
    ("mail-from-mx", Verdict::Fail, "no MX record", |zones, _| {
        zones.remove("bounce.example.com");
    }),
    ("mail-from-mx", Verdict::Fail, "takes no mail", |zones, _| {
        zones.remove("bounce.example.com").add_null_mx("bounce.example.com");
    }),
    ("mail-from-mx", Verdict::Fail, "not us", |zones, _| {
        zones.remove("bounce.example.com").add_mx("bounce.example.com", 10, "b.example");
    }),
    ("return-path-mx", Verdict::Fail, "no MX record", |_, facts| {
        facts.mail_from = None;
        facts.bounces = Some(bounces("bounces.relay.example"));
    }),
    ("feedback", Verdict::Fail, "no address", |zones, _| {
        zones.remove("mx.relay.example");
    }),
    ("feedback", Verdict::Fail, "nobody answers", |zones, _| {
        zones.remove("mx.relay.example").add_address("mx.relay.example", "198.51.100.99");
    }),
    ("mx", Verdict::Warn, "takes no mail", |zones, _| {
        zones.remove("example.com").add_null_mx("example.com");
    }),
    ("mx", Verdict::Fail, "takes no mail", |zones, facts| {
        zones.remove("example.com").add_null_mx("example.com");
        facts.bounces = None;
    }),
    ("mx", Verdict::Fail, "neither", |zones, _| {
        zones.remove("example.com");
    }),
    ("alignment-spf", Verdict::Warn, "does not stand for", |_, facts| {
        facts.envelope = "relay.example".parse().unwrap();
    }),
    ("alignment-spf", Verdict::Warn, "not known", |zones, _| {
        zones.fail("_dmarc.bounce.example.com", Failure::ServFail);
    }),
    ("dmarc", Verdict::Warn, "large receivers ask", |zones, _| {
        zones.remove("_dmarc.example.com");
    }),
    ("dmarc", Verdict::Warn, "not known", |zones, _| {
        zones.fail("_dmarc.example.com", Failure::ServFail);
    }),
    ("dmarc", Verdict::Fail, "is refused", |zones, _| {
        zones.remove(NAME).remove("_spf.relay.example");
    }),
    ("dmarc", Verdict::Fail, "goes to junk", |zones, _| {
        zones.remove(NAME).remove("_spf.relay.example").remove("_dmarc.example.com");
        zones.add_txt("_dmarc.example.com", "v=DMARC1; p=reject; t=y");
    }),
    ("dmarc", Verdict::Warn, "is delivered for now", |zones, _| {
        zones.remove(NAME).remove("_spf.relay.example").remove("_dmarc.example.com");
        zones.add_txt("_dmarc.example.com", "v=DMARC1; p=none");
    }),
    ("dmarc", Verdict::Warn, "forwarded mail fails", |zones, _| {
        zones.remove(NAME);
    }),
    ("dmarc", Verdict::Fail, "strict alignment of SPF", |zones, _| {
        zones.remove(NAME).remove("_dmarc.example.com");
        zones.add_txt("_dmarc.example.com", "v=DMARC1; p=reject; aspf=s");
    }),
];

#[tokio::test]
async fn each_fault_is_found() {
    for (check, verdict, words, spoil) in FAULTS {
        let (zones, mut facts) = (world(), facts());
        spoil(&zones, &mut facts);
        let findings = examined(&zones, &facts).await;
        let finding = of(&findings, check);
        assert_eq!(finding.verdict, *verdict, "{words}: {finding:?}");
        assert!(finding.found.contains(words), "{words}: {finding:?}");
        assert!(finding.advice.as_ref().is_some_and(|advice| !advice.is_empty()), "{finding:?}");
        assert!(worst(&findings) >= *verdict);
    }
}

#[tokio::test]
async fn too_many_lookups_are_counted() {
    let (zones, facts) = (world(), facts());
    zones.remove("bounce.example.com").add_mx("bounce.example.com", 10, "mx.relay.example");
    let includes: String = (1..=10).map(|n| format!(" include:s{n}.example")).collect();
    zones.add_txt("bounce.example.com", &format!("v=spf1{includes} include:_spf.relay.example -all"));
    for n in 1..=10 {
        zones.add_txt(&format!("s{n}.example"), "v=spf1 ip4:192.0.2.9 -all");
    }
    let findings = examined(&zones, &facts).await;
    let lookups = of(&findings, "spf-lookups");
    assert_eq!(lookups.verdict, Verdict::Fail);
    assert!(lookups.found.contains("11 of 10") && lookups.found.contains("include:_spf.relay.example"), "{lookups:?}");
    assert_eq!(of(&findings, "spf").verdict, Verdict::Fail, "a receiver stops before our include");

    zones.remove("bounce.example.com").add_txt("bounce.example.com", "v=spf1 a:a.x mx:b.x a:c.x ip4:198.51.100.7 -all");
    let findings = examined(&zones, &facts).await;
    let lookups = of(&findings, "spf-lookups");
    assert!(lookups.found.starts_with("3 terms lead to nothing"), "{lookups:?}");
}

#[tokio::test]
async fn private_and_absent_sources_are_no_fault() {
    for sources in [vec![], vec![source("10.0.0.1"), source("100.64.0.1")]] {
        let facts = DomainFacts { sources, ..facts() };
        let findings = examined(&world(), &facts).await;
        assert_eq!(of(&findings, "spf").verdict, Verdict::Skip);
        assert_eq!(worst(&findings), Verdict::Pass, "DKIM is enough: {findings:#?}");
    }
}

#[tokio::test]
async fn what_strangers_write_is_one_printable_line() {
    let zones = world();
    zones.remove("example.com").add_mx("example.com", 10, "evil\r\nname");
    zones.remove("_dmarc.example.com").add_txt("_dmarc.example.com", "v=DMARC1; p=none; rua=mailto:a\u{1b}[31m@b");
    for finding in examined(&zones, &facts()).await {
        assert!(!finding.found.contains(char::is_control), "{finding:?}");
    }
}

#[tokio::test]
async fn reverse_dns_leads_back() {
    let judged = async |zones: &Zones, change: fn(&mut SourceFact)| {
        let mut source = source(SOURCE);
        change(&mut source);
        source::reverse(zones, &source).await
    };
    let zones = world();
    assert_eq!(judged(&zones, |_| {}).await.verdict, Verdict::Pass);
    assert_eq!(judged(&zones, |s| s.address = "10.0.0.1".parse().unwrap()).await.verdict, Verdict::Skip);
    let other = judged(&zones, |s| s.host = "relay.example".into()).await;
    assert!(other.verdict == Verdict::Warn && other.found.contains("EHLO says relay.example"), "{other:?}");
    let wanted = judged(&zones, |s| s.ptr = Some("mx.relay.example".into())).await;
    assert!(wanted.verdict == Verdict::Fail && wanted.found.contains("wants mx.relay.example"), "{wanted:?}");
    zones.remove("out.relay.example").add_address("out.relay.example", "192.0.2.1");
    let astray = judged(&zones, |_| {}).await;
    assert!(astray.verdict == Verdict::Fail && astray.found.contains("does not have that address"), "{astray:?}");
    zones.remove("out.relay.example").add_address("out.relay.example", "2001:db8::1");
    zones.fail("out.relay.example", Failure::OtherFamily);
    assert_eq!(judged(&zones, |_| {}).await.verdict, Verdict::Warn);
    zones.fail("out.relay.example", Failure::Timeout);
    assert_eq!(judged(&zones, |_| {}).await.verdict, Verdict::Warn);
    zones.remove(SOURCE);
    let none = judged(&zones, |_| {}).await;
    assert!(none.advice.unwrap().contains("7.100.51.198.in-addr.arpa. PTR out.relay.example."));
}

#[tokio::test]
async fn block_lists_are_understood() {
    let lists = ["bl.example".to_owned()];
    let zones = Zones::new();
    let source = source(SOURCE);
    let judged = async || source::listed(&zones, &lists, &source).await.remove(0);
    let ended = judged().await;
    assert!(ended.verdict == Verdict::Warn && ended.found.contains("every list has"), "{ended:?}");
    zones.add_address("2.0.0.127.bl.example", "127.0.0.2");
    assert_eq!(judged().await.verdict, Verdict::Pass);
    let name = "7.100.51.198.bl.example";
    zones.add_address(name, "192.0.2.1");
    assert_eq!(judged().await.verdict, Verdict::Pass, "an address that no list gives is of a catch-all");
    zones.add_address(name, "127.0.0.4").add_txt(name, "see https://bl.example/?ip=198.51.100.7");
    let listed = judged().await;
    assert!(listed.verdict == Verdict::Fail && listed.found.contains("(127.0.0.4): see https://"), "{listed:?}");
    zones.remove(name).add_address(name, "127.255.255.254");
    assert!(judged().await.found.contains("does not answer questions"));
    zones.fail(name, Failure::ServFail);
    assert_eq!(judged().await.verdict, Verdict::Warn);
    assert!(source::listed(&zones, &lists, &self::source("10.0.0.1")).await.is_empty());
}

/// Says `greeting` to each who connects, after what they say where that is waited for.
fn speak(office: &Office, address: &str, hears: bool, greeting: &'static str) {
    let mut listener = office.net.listen(address.parse().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await;
            if hears {
                let _ = stream.read(&mut [0; 1024]).await;
            }
            let _ = stream.write_all(greeting.as_bytes()).await;
        }
    });
}

#[tokio::test]
async fn the_way_out_is_tried() {
    let mut office = Office::new();
    let zones = Zones::new();
    let sources = [source(SOURCE)];
    assert_eq!(source::outbound(&office.doctor(&zones), &sources).await[0].verdict, Verdict::Skip);
    office.settings.probe = Some("mx.example.net".into());
    assert_eq!(source::outbound(&office.doctor(&zones), &sources).await[0].verdict, Verdict::Warn);
    zones.add_address("mx.example.net", "192.0.2.25");
    let closed = &source::outbound(&office.doctor(&zones), &sources).await[0];
    assert!(closed.verdict == Verdict::Fail && closed.subject == "198.51.100.7 to mx.example.net:25", "{closed:?}");
    speak(&office, "192.0.2.25:25", false, "220 mx.example.net\r\n");
    let open = &source::outbound(&office.doctor(&zones), &sources).await[0];
    assert!(open.verdict == Verdict::Pass && open.found.ends_with("220 mx.example.net"), "{open:?}");
    assert_eq!(source::outbound(&office.doctor(&zones), &[source("2001:db8::7")]).await[0].verdict, Verdict::Skip);
    speak(&office, "192.0.2.25:26", false, "SSH-2.0-x\r\n");
    office.settings.probe = Some("mx.example.net:26".into());
    assert_eq!(source::outbound(&office.doctor(&zones), &sources).await[0].verdict, Verdict::Warn);
}

#[tokio::test(start_paused = true)]
async fn a_way_out_that_swallows_everything_is_closed() {
    let mut office = Office::new();
    office.settings.probe = Some("192.0.2.25".into());
    let _silent = office.net.listen("192.0.2.25:25".parse().unwrap());
    let zones = Zones::new();
    let closed = &source::outbound(&office.doctor(&zones), &[]).await[0];
    assert_eq!(closed.verdict, Verdict::Fail, "{closed:?}");
}

#[tokio::test]
async fn the_clock_is_compared() {
    let mut office = Office::new();
    let zones = Zones::new();
    assert_eq!(clock::examine(&office.doctor(&zones)).await.verdict, Verdict::Skip);
    office.settings.time = Some("192.0.2.80".into());
    assert_eq!(clock::examine(&office.doctor(&zones)).await.verdict, Verdict::Warn);
    speak(&office, "192.0.2.80:80", true, "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n");
    let right = clock::examine(&office.doctor(&zones)).await;
    assert_eq!(right.verdict, Verdict::Pass, "{right:?}");
    office.clock = Clock::simulated(Timestamp::from_millis(784_111_777_000).saturating_add(Duration::from_secs(600)));
    let wrong = clock::examine(&office.doctor(&zones)).await;
    assert!(wrong.verdict == Verdict::Fail && wrong.found.contains("600 s ahead"), "{wrong:?}");
}

#[tokio::test]
async fn a_machine_is_examined_whole() {
    let office = Office::new();
    let facts = HostFacts {
        hostname: "mx.relay.example".into(),
        sources: vec![source(SOURCE)],
        bounces: Some(bounces("bounce.example.com")),
        certificates: vec![],
        disks: vec![DiskFact { path: "/state".into(), free: Ok(30), reserve: 10 }],
        sealing: Some(Err("the key is not there".into())),
    };
    let findings = office.doctor(&world()).examine_host(&facts).await;
    let checks: Vec<_> = findings.iter().map(|finding| (finding.check.as_str(), finding.verdict.as_str())).collect();
    assert_eq!(
        checks,
        [
            ("ptr", "pass"),
            ("outbound", "skip"),
            ("return-path-mx", "pass"),
            ("feedback", "pass"),
            ("dnssec", "skip"),
            ("clock", "skip"),
            ("disk", "pass"),
            ("sealing-key", "fail")
        ]
    );
    assert_eq!(worst(&findings), Verdict::Fail);
}
