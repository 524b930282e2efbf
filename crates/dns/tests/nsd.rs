//! The resolver against a real name server: NSD, with a zone written here.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod server;

use std::net::Ipv4Addr;
use std::net::UdpSocket;
use std::time::Duration;

use postrider_base::{Clock, Metrics, Period};
use postrider_dns::{Cached, DnsError, HickoryResolver, Resolver, Settings};
use postrider_mail::Domain;
use server::{Nsd, settings};

const ZONE: &str = "\
$ORIGIN example.com.
$TTL 300
@         IN SOA ns hostmaster 1 3600 600 86400 77
@         IN NS  ns
@         IN MX  20 Backup.example.com.
@         IN MX  10 mx
@         IN TXT \"v=spf1 \" \"-all\"
ns        IN A   192.0.2.53
mx        IN A   192.0.2.1
mx        IN AAAA 2001:db8::1
mx    60  IN A   192.0.2.2
v6only    IN AAAA 2001:db8::2
alias 30  IN CNAME mx
www       IN CNAME example.com.
dangling  IN CNAME gone
nomail    IN MX  0 .
many      IN TXT \"filler\"
";

const REVERSE_ZONE: &str = "\
$ORIGIN 2.0.192.in-addr.arpa.
$TTL 300
@ IN SOA ns.example.com. hostmaster.example.com. 1 3600 600 86400 77
@ IN NS  ns.example.com.
1 IN PTR MX.example.com.
";

fn start() -> Nsd {
    // Too long for UDP: the answer must come over TCP.
    let filler = "x".repeat(250);
    let many: String = (10..50).map(|n| format!("many IN TXT \"{n} {filler}\"\n")).collect();
    Nsd::start(&[("example.com", format!("{ZONE}{many}")), ("2.0.192.in-addr.arpa", REVERSE_ZONE.to_owned())])
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

#[tokio::test]
async fn every_kind_of_answer() {
    let nsd = start();
    let resolver = HickoryResolver::new(&nsd.settings(), &Metrics::new()).unwrap();

    let mx = resolver.mx(&domain("Example.COM")).await.unwrap();
    let hosts: Vec<_> = mx.value.iter().map(|mx| (mx.preference, mx.exchange.as_str())).collect();
    assert_eq!(hosts, [(10, "mx.example.com"), (20, "backup.example.com")]);
    assert_eq!(mx.ttl, Duration::from_secs(300));
    assert!(!mx.is_null_mx() && !mx.authenticated);

    let null = resolver.mx(&domain("nomail.example.com")).await.unwrap();
    assert!(null.is_null_mx());

    let addresses = resolver.addresses("mx.example.com").await.unwrap();
    assert_eq!(addresses.value.len(), 3);
    assert!(addresses.value[0].is_ipv4() && addresses.value[2].is_ipv6());
    let v6 = resolver.addresses("v6only.example.com").await.unwrap();
    assert_eq!(v6.value, ["2001:db8::2".parse::<std::net::IpAddr>().unwrap()]);
    let alias = resolver.addresses("alias.example.com").await.unwrap();
    assert_eq!((alias.value.len(), alias.ttl), (3, Duration::from_secs(30)));

    // RFC 5321 section 5.1: an alias is the name that it stands for.
    let www = resolver.mx(&domain("www.example.com")).await.unwrap();
    assert_eq!(www.value, mx.value);
    let dangling = resolver.mx(&domain("dangling.example.com")).await.unwrap_err();
    assert!(matches!(dangling, DnsError::NoSuchDomain { .. }), "{dangling}");

    let txt = resolver.txt("example.com").await.unwrap();
    assert_eq!(txt.value, ["v=spf1 -all"]);
    let ptr = resolver.ptr("192.0.2.1".parse().unwrap()).await.unwrap();
    assert_eq!(ptr.value, ["mx.example.com"]);
    let many = resolver.txt("many.example.com").await.unwrap();
    assert_eq!(many.value.len(), 41);
}

#[tokio::test]
async fn every_kind_of_absence() {
    let nsd = start();
    let resolver = HickoryResolver::new(&nsd.settings(), &Metrics::new()).unwrap();
    let ttl = Duration::from_secs(77);
    let absent = resolver.mx(&domain("absent.example.com")).await;
    assert_eq!(absent, Err(DnsError::NoSuchDomain { ttl, proved: false }));
    let absent = resolver.addresses("absent.example.com").await;
    assert_eq!(absent, Err(DnsError::NoSuchDomain { ttl, proved: false }));
    let other = resolver.mx(&domain("mx.example.com")).await;
    assert_eq!(other, Err(DnsError::NoRecords { ttl, proved: false }));
    let refused = resolver.txt("example.net").await.unwrap_err();
    assert!(refused.is_temporary(), "{refused}");
    assert_eq!(resolver.txt("").await, Err(DnsError::Invalid));
}

#[tokio::test]
async fn many_questions_at_a_time() {
    let nsd = start();
    let resolver = HickoryResolver::new(&nsd.settings(), &Metrics::new()).unwrap();
    let names: Vec<String> = (0..200).map(|n| format!("n{n}.example.com")).collect();
    let asks = names.iter().map(|name| resolver.txt(name));
    for reply in futures_util::future::join_all(asks).await {
        assert!(matches!(reply, Err(DnsError::NoSuchDomain { .. })), "{reply:?}");
    }
}

#[tokio::test]
async fn the_cache_answers_when_the_server_is_gone() {
    let nsd = start();
    let settings = nsd.settings();
    let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
    let cache = Cached::new(resolver, Clock::system(), Metrics::new(), &settings);
    let before = cache.mx(&domain("example.com")).await.unwrap();
    drop(nsd);
    let after = cache.mx(&domain("example.com")).await.unwrap();
    assert_eq!(after.value, before.value);
    assert!(after.ttl <= before.ttl);
}

#[tokio::test]
async fn a_silent_server_is_a_temporary_failure() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let settings =
        Settings { timeout: Period::from_millis(100), attempts: 1, ..settings(silent.local_addr().unwrap().port()) };
    let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
    let error = resolver.mx(&domain("example.com")).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
}
