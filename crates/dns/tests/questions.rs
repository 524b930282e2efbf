//! How many questions a message costs, with validation.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[allow(dead_code, reason = "another test uses all of it")]
#[path = "server/liar.rs"]
mod liar;
mod server;
#[allow(dead_code, reason = "another test uses all of it")]
#[path = "server/world.rs"]
mod world;

use std::sync::{Arc, Mutex};

use hickory_proto::rr::RecordType;
use liar::Liar;
use postrider_base::Metrics;
use postrider_dns::{HickoryResolver, Resolver};
use world::World;

/// What the delivery of a message asks of its domain; how many questions those were for the
/// servers, and how many of them for keys and delegations.
async fn ask(resolver: &HickoryResolver, asked: &Mutex<Vec<RecordType>>, domain: &str, host: &str) -> (usize, usize) {
    let mx = resolver.mx(&domain.parse().unwrap()).await.unwrap();
    let addresses = resolver.proved_addresses(host).await.unwrap();
    let tlsa = resolver.tlsa(host, 25).await;
    let proved = domain != "open.test";
    assert_eq!(
        (mx.authenticated, addresses.authenticated, tlsa.is_ok_and(|tlsa| tlsa.authenticated)),
        (proved, proved, proved)
    );
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let of_chain = [RecordType::DNSKEY, RecordType::DS, RecordType::NS];
    (asked.len(), asked.iter().filter(|kind| of_chain.contains(kind)).count())
}

#[tokio::test]
async fn the_second_message_to_a_zone_asks_for_nothing_but_its_records() {
    let world = World::new();
    for domain in ["secure.test", "nsec3.test", "open.test"] {
        let mut settings = world.settings();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let _counts = Liar::before(&mut settings, move |query, _| {
            heard.lock().unwrap().push(query.query_type());
            None
        });
        let metrics = Metrics::new();
        let resolver = HickoryResolver::new(&settings, &metrics).unwrap();
        let first = ask(&resolver, &asked, domain, &format!("mx.{domain}")).await;
        let second = ask(&resolver, &asked, domain, &format!("mx.{domain}")).await;
        assert_eq!(second, (4, 0), "{domain}: MX, A, AAAA and TLSA; the first took {first:?}");
        assert!(first.1 > 0);
        // The root, the zone `test`, and the domain's own if it is signed.
        assert_eq!(metrics.dnssec_zones.get(), if domain == "open.test" { 2 } else { 3 });
    }
}
