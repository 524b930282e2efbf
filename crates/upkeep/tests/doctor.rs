//! The doctor against real name servers: NSD, asked through the relay's own resolver.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::net::SocketAddr;
use std::time::Duration;

use postrider_account::KeyState;
use postrider_base::{Clock, Metrics, Period, SimNet};
use postrider_dns::{HickoryResolver, NameServer};
use postrider_testkit::nsd::{Nsd, Zone};
use postrider_testkit::ports::free_address;
use postrider_upkeep::doctor::{Doctor, DomainFacts, Finding, KeyFact, Settings, Verdict};

/// The public part of a key of 4,096 bits is this long in base64.
const LONG: usize = 736;

fn key(selector: &str, data: &str) -> KeyFact {
    KeyFact { selector: selector.into(), record: format!("v=DKIM1; k=rsa; p={data}"), state: KeyState::Current }
}

fn facts(keys: Vec<KeyFact>) -> DomainFacts {
    DomainFacts {
        domain: "example.com".parse().unwrap(),
        identity: Some(("example.com".into(), true)),
        signs: true,
        key_domain: "example.com".parse().unwrap(),
        keys,
        mail_from: None,
        envelope: "example.com".parse().unwrap(),
        bounce_host: "mx.relay.example".into(),
        bounces: None,
        sources: vec![],
    }
}

/// One is a key of 4,096 bits, with a note beside it (`n=`): no datagram holds that.
fn zone() -> Zone {
    let long = format!("v=DKIM1; k=rsa; n={}; p={}", "n".repeat(1_000), "L".repeat(LONG));
    let chunks = long.as_bytes().chunks(255).map(|chunk| format!("\"{}\"", String::from_utf8_lossy(chunk)));
    let strings: Vec<String> = chunks.collect();
    let mut zone = Zone::new("example.com");
    zone.line("@ IN MX 10 mx");
    zone.line(&format!("long._domainkey IN TXT {}", strings.join(" ")));
    zone.line("split._domainkey IN TXT \"v=DKIM1; k=rsa; \" \"p=AA\" \"AA\"");
    zone.line("wrong._domainkey IN TXT \"v=DKIM1; k=rsa; p=BBBB\"");
    zone.line("revoked._domainkey IN TXT \"v=DKIM1; k=rsa; p=\"");
    zone.line("chain._domainkey IN CNAME one._domainkey");
    zone.line("one._domainkey IN CNAME two._domainkey");
    zone.line("two._domainkey IN CNAME split._domainkey");
    zone.line("nowhere._domainkey IN CNAME gone");
    zone.line("empty._domainkey IN A 192.0.2.1");
    zone
}

async fn keys(server: SocketAddr, keys: Vec<KeyFact>) -> Vec<Finding> {
    let mut dns = postrider_dns::Settings {
        servers: vec![NameServer(server)],
        timeout: Period::from_millis(500),
        attempts: 1,
        ..Default::default()
    };
    dns.dnssec.validate = false;
    let resolver = HickoryResolver::new(&dns, &Metrics::new()).unwrap();
    let (net, clock, settings) = (SimNet::new(), Clock::system(), Settings::default());
    let doctor = Doctor { resolver: &resolver, dialer: &net, clock: &clock, settings: &settings };
    let mut findings = doctor.examine_domain(&facts(keys)).await;
    findings.retain(|finding| finding.check == "dkim");
    findings
}

#[tokio::test]
async fn keys_are_found_as_they_are() {
    let address = free_address().unwrap();
    let mut nsd = Nsd::start(address, &[zone()], Duration::from_secs(5)).unwrap();
    let cases = [
        ("long", "L".repeat(LONG), Verdict::Pass, "is published"),
        ("split", "AAAA".into(), Verdict::Pass, "is published"),
        ("chain", "AAAA".into(), Verdict::Pass, "is published"),
        ("wrong", "AAAA".into(), Verdict::Fail, "another key"),
        ("revoked", "AAAA".into(), Verdict::Fail, "revoked"),
        ("nowhere", "AAAA".into(), Verdict::Fail, "does not exist"),
        ("absent", "AAAA".into(), Verdict::Fail, "does not exist"),
        ("empty", "AAAA".into(), Verdict::Fail, "no TXT record"),
    ];
    let facts = cases.iter().map(|(selector, data, ..)| key(selector, data)).collect();
    let findings = keys(address, facts).await;
    for ((selector, _, verdict, words), finding) in cases.iter().zip(&findings) {
        assert_eq!(finding.subject, format!("{selector}._domainkey.example.com"));
        assert_eq!(finding.verdict, *verdict, "{finding:?}");
        assert!(finding.found.contains(words), "{finding:?}");
        assert_eq!(finding.advice.is_some(), *verdict != Verdict::Pass, "{finding:?}");
    }

    // A server that is there and does not answer, then one that is not there.
    nsd.freeze().unwrap();
    let silent = keys(address, vec![key("split", "AAAA")]).await;
    assert!(silent[0].verdict == Verdict::Warn && silent[0].found.starts_with("not known"), "{silent:?}");
    nsd.thaw().unwrap();
    nsd.kill().unwrap();
    let gone = keys(address, vec![key("split", "AAAA")]).await;
    assert!(gone[0].verdict == Verdict::Warn && gone[0].found.starts_with("not known"), "{gone:?}");
}

#[tokio::test]
async fn a_server_that_fails_is_no_missing_key() {
    let address = free_address().unwrap();
    // It keeps the zone by name, and has no file of it: SERVFAIL.
    let mut broken = Zone::new("example.com");
    broken.line("this is no line of a zone");
    let started = Nsd::start(address, &[broken], Duration::from_secs(5));
    let _nsd = started.unwrap();
    let findings = keys(address, vec![key("k1", "AAAA")]).await;
    assert!(findings[0].verdict == Verdict::Warn && findings[0].found.starts_with("not known"), "{findings:?}");
}
