//! Validation against really signed zones.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod server;
#[path = "server/world.rs"]
mod world;

use std::path::Path;
use std::time::Duration;

use postrider_base::Metrics;
use postrider_dns::{Answer, DnsError, HickoryResolver, Resolver, Settings, Tlsa, Validation};
use postrider_mail::Domain;
use server::Nsd;
use world::{HEAD, RECORDS, Signer, World};

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn tlsa() -> Tlsa {
    Tlsa { usage: 3, selector: 1, matching: 1, data: vec![1; 32] }
}

#[tokio::test]
async fn what_is_signed_is_proved() {
    let world = World::new();
    let resolver = world.resolver();
    for zone in ["secure.test", "nsec3.test"] {
        let mx = resolver.mx(&domain(zone)).await.unwrap();
        assert!(mx.authenticated && mx.alias.is_none(), "{mx:?}");
        assert_eq!(mx.value[0].exchange, format!("mx.{zone}"));
        let addresses = resolver.proved_addresses(&format!("mx.{zone}")).await.unwrap();
        assert_eq!((addresses.value.len(), addresses.authenticated), (2, true));
        let one = resolver.proved_addresses(&format!("v4.{zone}")).await.unwrap();
        assert_eq!((one.value.len(), one.authenticated), (1, true));
        // The record itself, one for all ports, and one that is elsewhere.
        for host in ["mx", "star", "linked"] {
            let records = resolver.tlsa(&format!("{host}.{zone}"), 25).await.unwrap();
            assert_eq!((records.value, records.authenticated), (vec![tlsa()], true), "{host}");
            assert_eq!(records.ttl, Duration::from_secs(300));
        }
        let wild = resolver.mx(&domain(&format!("any.wild.{zone}"))).await.unwrap();
        assert!(wild.authenticated, "{wild:?}");
    }
    assert_eq!(resolver.validation(), Validation::Works);
}

#[tokio::test]
async fn absence_is_proved_where_the_zone_is_signed() {
    let world = World::new();
    let resolver = world.resolver();
    let ttl = Duration::from_secs(77);
    for (zone, proved) in [("secure.test", true), ("nsec3.test", true), ("open.test", false)] {
        let absent = resolver.mx(&domain(&format!("absent.{zone}"))).await;
        assert_eq!(absent, Err(DnsError::NoSuchDomain { ttl, proved }), "{zone}");
        let other = resolver.mx(&domain(&format!("mx.{zone}"))).await;
        assert_eq!(other, Err(DnsError::NoRecords { ttl, proved }), "{zone}");
        let other = resolver.tlsa(&format!("v4.{zone}"), 25).await;
        assert_eq!(other, Err(DnsError::NoSuchDomain { ttl, proved }), "{zone}");
        // Through an alias too.
        let other = resolver.mx(&domain(&format!("inside.{zone}"))).await;
        assert_eq!(other, Err(DnsError::NoRecords { ttl, proved }), "{zone}");
        let absent = resolver.mx(&domain(&format!("away.{zone}"))).await;
        assert_eq!(absent, Err(DnsError::NoSuchDomain { ttl, proved }), "{zone}");
    }
}

#[tokio::test]
async fn what_is_not_signed_is_answered_all_the_same() {
    let world = World::new();
    let resolver = world.resolver();
    // The second one's parent has nothing but an opted-out zone below.
    for zone in ["open.test", "inner.low.test"] {
        let mx = resolver.mx(&domain(zone)).await.unwrap();
        assert!(!mx.authenticated);
        let addresses = resolver.proved_addresses(&format!("mx.{zone}")).await.unwrap();
        assert_eq!((addresses.value.len(), addresses.authenticated), (2, false));
        assert!(!resolver.tlsa(&format!("mx.{zone}"), 25).await.unwrap().authenticated);
        let absent = resolver.tlsa(&format!("v4.{zone}"), 25).await;
        assert!(matches!(absent, Err(DnsError::NoSuchDomain { proved: false, .. })), "{absent:?}");
    }
    // What an opt-out record covers may be there.
    let absent = resolver.mx(&domain("absent.test")).await;
    assert!(matches!(absent, Err(DnsError::NoSuchDomain { proved: false, .. })), "{absent:?}");
}

#[tokio::test]
async fn what_should_be_proved_and_is_not_is_never_believed() {
    let world = World::new();
    let resolver = world.resolver();
    for zone in ["forged.test", "expired.test", "stripped.test"] {
        let mx = resolver.mx(&domain(zone)).await.unwrap_err();
        assert!(matches!(mx, DnsError::Bogus { .. }) && mx.is_temporary(), "{zone}: {mx:?}");
        // Nobody asked for a proof.
        assert!(resolver.addresses(&format!("mx.{zone}")).await.is_ok());
    }
    for zone in ["expired.test", "stripped.test", "vanished.test"] {
        let records = resolver.tlsa(&format!("mx.{zone}"), 25).await.unwrap_err();
        assert!(matches!(records, DnsError::Bogus { .. }), "{zone}: {records:?}");
    }
    assert!(resolver.mx(&domain("vanished.test")).await.unwrap().authenticated);
    assert_eq!(resolver.validation(), Validation::Works);
}

#[tokio::test]
async fn aliases_are_as_sure_as_their_weakest_step() {
    let world = World::new();
    let resolver = world.resolver();
    let facts = |answer: Answer<_>| {
        let alias = answer.alias.unwrap();
        let addresses: Vec<std::net::IpAddr> = answer.value;
        (addresses.len(), answer.authenticated, alias.target.to_string(), alias.first_proved)
    };
    for zone in ["secure.test", "nsec3.test"] {
        let inside = resolver.proved_addresses(&format!("inside.{zone}")).await.unwrap();
        assert_eq!(facts(inside), (2, true, format!("mx.{zone}"), true));
        let one = resolver.proved_addresses(&format!("v4alias.{zone}")).await.unwrap();
        assert_eq!(facts(one), (1, true, format!("v4.{zone}"), true));
        let outside = resolver.proved_addresses(&format!("outside.{zone}")).await.unwrap();
        assert_eq!(facts(outside), (2, false, "mx.open.test".to_owned(), true));
    }
    let open = resolver.proved_addresses("inside.open.test").await.unwrap();
    assert_eq!(facts(open), (2, false, "mx.open.test".to_owned(), false));
}

#[tokio::test]
async fn the_operator_may_leave_out_a_domain_or_everything() {
    let world = World::new();
    let mut settings = world.settings();
    settings.dnssec.insecure = vec!["Expired.test".to_owned()];
    let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
    assert!(!resolver.mx(&domain("expired.test")).await.unwrap().authenticated);
    assert!(resolver.mx(&domain("forged.test")).await.is_err());
    settings.dnssec.validate = false;
    let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
    assert!(!resolver.mx(&domain("forged.test")).await.unwrap().authenticated);
    assert_eq!(resolver.validation(), Validation::Off);
}

#[tokio::test]
async fn servers_that_prove_nothing_turn_validation_off_and_nothing_else() {
    let world = World::new();
    // Another root's keys: nothing that these servers say can be proved.
    let stranger = world.signer.key(".");
    let mut settings = world.settings();
    settings.dnssec.trust_anchor_file = Some(world.signer.path(&format!("{stranger}.key")));
    let metrics = Metrics::new();
    let resolver = HickoryResolver::new(&settings, &metrics).unwrap();
    for zone in ["secure.test", "forged.test", "open.test"] {
        assert!(!resolver.mx(&domain(zone)).await.unwrap().authenticated, "{zone}");
        assert!(resolver.proved_addresses(&format!("mx.{zone}")).await.is_ok());
    }
    assert!(matches!(resolver.validation(), Validation::Broken { .. }));
    metrics.dnssec.set(1);
    let probing = resolver.keep_probing();
    assert!(tokio::time::timeout(Duration::from_millis(100), probing).await.is_err());
    assert_eq!(metrics.dnssec.get(), 0);
}

#[tokio::test]
async fn servers_that_only_cannot_answer_for_the_root_do_no_harm() {
    let nsd = Nsd::start(&[("example.com", format!("$ORIGIN example.com.\n{HEAD}{RECORDS}"))]);
    let resolver = HickoryResolver::new(&nsd.settings(), &Metrics::new()).unwrap();
    assert!(!resolver.mx(&domain("example.com")).await.unwrap().authenticated);
    assert!(matches!(resolver.validation(), Validation::Broken { .. }));
}

#[test]
fn a_bad_trust_anchor_is_named() {
    let signer = Signer::new();
    let island = signer.key("island.test.");
    let files: [&Path; 3] =
        [Path::new("/nowhere"), &signer.path(&format!("{island}.key")), &signer.path(&format!("{island}.ds"))];
    for file in files {
        let mut settings = Settings::default();
        settings.dnssec.trust_anchor_file = Some(file.to_owned());
        let error = HickoryResolver::new(&settings, &Metrics::new()).err().unwrap().to_string();
        assert!(error.contains("dnssec.trust_anchor_file: "), "{error}");
    }
}
