//! Somebody who sits between the relay and its name server and can forge what he
//! likes, but no signature.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "server/liar.rs"]
mod liar;
mod server;
#[allow(dead_code, reason = "another test uses all of it")]
#[path = "server/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::dnssec::Nsec3HashAlgorithm;
use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC3};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, NS};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use liar::{Honest, Liar};
use postrider_base::{Metrics, Period};
use postrider_dns::{DnsError, HickoryResolver, Resolver, Validation};
use world::World;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// The NSEC3 record of `test.` that covers a name, with its signature and the
/// zone's SOA record.
fn opted_out(honest: &Honest, covered: &str) -> Message {
    let hash = Nsec3HashAlgorithm::SHA1.hash(&[], &name(covered), 0).unwrap();
    (0..1000)
        .map(|n| honest.ask(&format!("x{n}.test."), RecordType::DS))
        .find_map(|mut answer| {
            let covers = |record: &&Record| match &record.data {
                RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => nsec3.opt_out() && is_between(record, nsec3, hash.as_ref()),
                _ => false,
            };
            let owner = answer.authorities.iter().find(covers)?.name.clone();
            answer.authorities.retain(|record| record.name == owner || record.name == name("test."));
            answer.metadata.response_code = ResponseCode::NoError;
            Some(answer)
        })
        .unwrap()
}

fn is_between(record: &Record, nsec3: &NSEC3, hash: &[u8]) -> bool {
    let next = nsec3.next_hashed_owner_name();
    let owner = record.name.iter().next().unwrap();
    let previous: Vec<u8> = (0..20).map(|n| byte_of(owner, n)).collect();
    if previous.as_slice() < next {
        previous.as_slice() < hash && hash < next
    } else {
        previous.as_slice() < hash || hash < next
    }
}

/// A byte of a text in base32 with the extended alphabet (RFC 4648 section 7).
fn byte_of(text: &[u8], n: usize) -> u8 {
    let digit = |at: usize| char::from(text[at]).to_digit(32).unwrap();
    let bit = |at: usize| digit(at / 5) >> (4 - at % 5) & 1;
    (n * 8..n * 8 + 8).fold(0, |byte, at| byte << 1 | u8::try_from(bit(at)).unwrap())
}

#[tokio::test]
async fn an_opt_out_of_the_parent_says_nothing_of_names_in_a_signed_zone() {
    let world = World::new();
    for zone in ["secure", "nsec3"] {
        let host = format!("mx.{zone}.test.");
        let mut settings = world.settings();
        let _liar = Liar::before(&mut settings, move |query, honest| {
            let (asked, cut) = (query.name(), name(&host));
            match query.query_type() {
                _ if !cut.zone_of(asked) => None,
                RecordType::NS if *asked == cut => {
                    let mut lie = Message::query();
                    lie.add_answer(Record::from_rdata(cut, 300, RData::NS(NS(name("ns.test.")))));
                    Some(lie)
                }
                RecordType::DS if *asked == cut => Some(opted_out(honest, &host)),
                RecordType::A => {
                    let mut lie = Message::query();
                    lie.add_answer(Record::from_rdata(cut, 300, RData::A(A::new(192, 0, 2, 66))));
                    Some(lie)
                }
                RecordType::TLSA | RecordType::AAAA => Some(Message::query()),
                _ => None,
            }
        });
        let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
        let host = format!("mx.{zone}.test");
        assert!(resolver.mx(&format!("{zone}.test").parse().unwrap()).await.unwrap().authenticated);
        let hidden = resolver.tlsa(&host, 25).await;
        assert!(matches!(hidden, Err(DnsError::Bogus { .. })), "{zone}: {hidden:?}");
        let hidden = resolver.proved_addresses(&host).await;
        assert!(matches!(hidden, Err(DnsError::Bogus { .. })), "{zone}: {hidden:?}");
    }
}

#[tokio::test]
async fn what_a_wildcard_has_is_not_hidden_by_its_own_denial() {
    let world = World::new();
    let mut settings = world.settings();
    let _liar = Liar::before(&mut settings, |query, honest| {
        (*query.name() == name("a.b.wild.secure.test.")).then(|| {
            let mut lie = honest.ask("*.wild.secure.test.", RecordType::TXT);
            lie.authorities.retain(|record| record.name != name("secure.test."));
            lie.metadata.response_code = ResponseCode::NXDomain;
            lie
        })
    });
    let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
    let hidden = resolver.mx(&"a.b.wild.secure.test".parse().unwrap()).await;
    assert!(matches!(hidden, Err(DnsError::Bogus { .. })), "{hidden:?}");
}

#[tokio::test]
async fn a_forged_link_spoils_one_answer() {
    let world = World::new();
    let mut settings = world.settings();
    let forged = AtomicUsize::new(0);
    let _liar = Liar::before(&mut settings, move |query, honest| {
        let is_link = query.query_type() == RecordType::DNSKEY && *query.name() == name("test.");
        if !is_link || forged.fetch_add(1, Ordering::Relaxed) > 0 {
            return None;
        }
        let mut lie = honest.ask("secure.test.", RecordType::DNSKEY);
        lie.answers.iter_mut().for_each(|record| record.name = name("test."));
        Some(lie)
    });
    let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
    let mx = resolver.mx(&"secure.test".parse().unwrap()).await;
    assert!(matches!(mx, Err(DnsError::Bogus { .. })), "{mx:?}");
    assert!(resolver.mx(&"secure.test".parse().unwrap()).await.unwrap().authenticated);
}

#[tokio::test]
async fn a_forged_link_of_what_an_alias_leads_to_spoils_one_answer() {
    let world = World::new();
    let mut settings = world.settings();
    let forged = AtomicUsize::new(0);
    let _liar = Liar::before(&mut settings, move |query, honest| {
        let is_link = query.query_type() == RecordType::DNSKEY && *query.name() == name("nsec3.test.");
        if !is_link || forged.fetch_add(1, Ordering::Relaxed) > 0 {
            return None;
        }
        let mut lie = honest.ask("secure.test.", RecordType::DNSKEY);
        lie.answers.iter_mut().for_each(|record| record.name = name("nsec3.test."));
        Some(lie)
    });
    let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
    let spoiled = resolver.proved_addresses("across.secure.test").await;
    assert!(matches!(spoiled, Err(DnsError::Bogus { .. })), "{spoiled:?}");
    assert!(resolver.proved_addresses("across.secure.test").await.unwrap().authenticated);
}

/// Forges the root's keys as often as told.
fn forges_probes(settings: &mut postrider_dns::Settings, times: usize) -> (Liar, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(times));
    let counter = left.clone();
    let liar = Liar::before(settings, move |query, honest| {
        let is_probe = query.query_type() == RecordType::DNSKEY && query.name().is_root();
        let take = |left: usize| left.checked_sub(1);
        if !is_probe || counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return None;
        }
        let mut lie = honest.ask(".", RecordType::DNSKEY);
        lie.answers.retain(|record| record.record_type() != RecordType::RRSIG);
        lie.answers.truncate(1);
        let forged = honest.ask("secure.test.", RecordType::DNSKEY).answers.remove(0).data;
        lie.answers[0].data = forged;
        Some(lie)
    });
    (liar, left)
}

#[tokio::test]
async fn one_forged_answer_to_the_probe_does_not_turn_validation_off() {
    let world = World::new();
    let mut settings = world.settings();
    settings.dnssec.probe = Period::from_millis(50);
    // One at start, and others later.
    for times in [1, 2] {
        let mut settings = settings.clone();
        let (_liar, left) = forges_probes(&mut settings, times);
        let resolver = HickoryResolver::new(&settings, &Metrics::new()).unwrap();
        assert!(resolver.mx(&"secure.test".parse().unwrap()).await.unwrap().authenticated);
        let probing = async {
            while left.load(Ordering::Relaxed) > 0 {
                assert_eq!(resolver.validation(), Validation::Works);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = probing => {}
            () = resolver.keep_probing() => {}
        }
        assert_eq!(resolver.validation(), Validation::Works);
        assert!(resolver.mx(&"secure.test".parse().unwrap()).await.unwrap().authenticated);
    }
}

#[tokio::test]
async fn probes_that_go_on_failing_turn_validation_off_until_one_succeeds() {
    let world = World::new();
    let mut settings = world.settings();
    settings.dnssec.probe = Period::from_millis(10);
    let (_liar, left) = forges_probes(&mut settings, 10_000);
    let metrics = Metrics::new();
    let resolver = HickoryResolver::new(&settings, &metrics).unwrap();
    assert!(!resolver.mx(&"secure.test".parse().unwrap()).await.unwrap().authenticated);
    assert!(matches!(resolver.validation(), Validation::Broken { .. }));
    left.store(0, Ordering::Relaxed);
    let works = async {
        while metrics.dnssec.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = works => {}
        () = resolver.keep_probing() => {}
    }
    assert!(resolver.mx(&"secure.test".parse().unwrap()).await.unwrap().authenticated);
    left.store(10_000, Ordering::Relaxed);
    let off = async {
        while metrics.dnssec.get() == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = off => {}
        () = resolver.keep_probing() => {}
    }
    assert!(10_000 - left.load(Ordering::Relaxed) >= 5);
}
