//! Messages that must not leave without TLS (RFC 8689).

use postrider_delivery::Settings;
use postrider_dns::Tlsa;
use postrider_mail::{AttemptOutcome, BounceKind, Disposition};
use postrider_spool::NewMessage;

use crate::rig::{Rig, is_delivered, routes};
use crate::server::{Say, Server, Setup};
use crate::tls::Certificate;

const OFFERS: [&str; 3] = ["PIPELINING", "8BITMIME", "REQUIRETLS"];

fn strict(rig: &Rig) -> NewMessage {
    let mut message = rig.message(&["ann@example.com"]);
    message.envelope.require_tls = true;
    message
}

/// Three hosts of one domain, the first preferred.
async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.zones.set_authenticated(true);
    for n in 1..=3 {
        let host = format!("mx{n}.example");
        rig.zones.add_mx("example.com", n, &host).add_address(&host, &format!("198.51.100.{n}"));
    }
    rig
}

fn trusting(certificate: &Certificate) -> Settings {
    let mut settings = routes(&[]);
    settings.tls.ca_file = Some(certificate.authority());
    settings
}

/// A host with this certificate and these extensions.
fn host(rig: &Rig, n: u8, certificate: Option<&Certificate>, extensions: &[&'static str]) -> Server {
    let setup = certificate.map(Certificate::setup).unwrap_or_default();
    let setup = Setup { extensions: extensions.to_vec(), ..setup };
    Server::with(&rig.net, &format!("198.51.100.{n}:25"), setup, |_| Say::Usual)
}

fn assert_bounced(outcome: &AttemptOutcome) {
    assert_eq!(outcome.disposition, Disposition::Bounced(BounceKind::TransientGeneral), "{outcome:?}");
    assert_eq!(outcome.status.to_string(), "5.7.30");
}

#[tokio::test(start_paused = true)]
async fn the_first_host_that_keeps_the_promise_gets_the_message() {
    let mut rig = rig().await;
    let (good, other) = (Certificate::new("mx3.example"), Certificate::new("mx2.example"));
    // Without TLS it may offer what it likes; without a good certificate too.
    let clear = host(&rig, 1, None, &OFFERS);
    let unproved = host(&rig, 2, Some(&other), &OFFERS);
    let taker = host(&rig, 3, Some(&good), &OFFERS);
    rig.deliver(trusting(&good));
    let id = rig.accept(strict(&rig)).await;
    let outcome = rig.outcome(id).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert!(outcome.tls.unwrap().authenticated);
    assert_eq!(taker.seen().with("MAIL"), ["MAIL FROM:<sender@example.net> REQUIRETLS"]);
    assert!(clear.seen().with("MAIL").is_empty() && unproved.seen().with("MAIL").is_empty());
}

#[tokio::test(start_paused = true)]
async fn when_no_host_keeps_the_promise_it_bounces_and_so_says_a_bounce_with_the_same_promise() {
    let mut rig = rig().await;
    let certificate = Certificate::new("mx1.example");
    let hosts =
        [host(&rig, 1, Some(&certificate), &["PIPELINING"]), host(&rig, 2, None, &[]), host(&rig, 3, None, &OFFERS)];
    rig.deliver(trusting(&certificate));
    let id = rig.accept(strict(&rig)).await;
    assert_bounced(&rig.outcome(id).await);
    assert!(hosts.iter().all(|host| host.seen().connections == 1 && host.seen().with("MAIL").is_empty()));
    assert!(rig.own_message().await.envelope.require_tls);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_nobody_proves_to_be_the_domains_is_not_good_enough() {
    // The MX record or the addresses may be forged.
    for proved in [(false, true), (true, false)] {
        let mut rig = Rig::new().await;
        rig.zones.set_authenticated(proved.0).add_mx("example.com", 1, "mx1.example");
        rig.zones.set_authenticated(proved.1).add_address("mx1.example", "198.51.100.1");
        let certificate = Certificate::new("mx1.example");
        let server = host(&rig, 1, Some(&certificate), &OFFERS);
        rig.deliver(trusting(&certificate));
        let id = rig.accept(strict(&rig)).await;
        let outcome = rig.outcome(id).await;
        assert_bounced(&outcome);
        assert!(outcome.diagnostic.contains("DNSSEC"), "{outcome:?}");
        assert!(server.seen().with("MAIL").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_the_hosts_zone_knows_is_good_enough() {
    let mut rig = rig().await;
    let certificate = Certificate::new("anything.example");
    let known = Tlsa { usage: 3, selector: 1, matching: 0, data: certificate.key.clone() };
    rig.zones.add_tlsa("mx1.example", 25, known);
    let server = host(&rig, 1, Some(&certificate), &OFFERS);
    rig.deliver(routes(&[]));
    let id = rig.accept(strict(&rig)).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!(server.seen().with("MAIL"), ["MAIL FROM:<sender@example.net> REQUIRETLS"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_the_operator_named_needs_no_other_proof() {
    let mut rig = Rig::new().await;
    let certificate = Certificate::new("mx1.example");
    rig.zones.add_address("mx1.example", "198.51.100.1");
    host(&rig, 1, Some(&certificate), &OFFERS);
    let settings = Settings { routes: routes(&[("*", "smtp://mx1.example")]).routes, ..trusting(&certificate) };
    rig.deliver(settings);
    let id = rig.accept(strict(&rig)).await;
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_may_come_back_is_waited_for() {
    for down in [1, 2, 3] {
        let mut rig = rig().await;
        for n in (1..=3).filter(|n| *n != down) {
            host(&rig, n, None, &[]);
        }
        rig.deliver(routes(&[]));
        let id = rig.accept(strict(&rig)).await;
        let outcome = rig.outcome(id).await;
        assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{down}: {outcome:?}");
        assert_eq!(outcome.status.to_string(), "4.4.1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_there_is_not_good_enough_by_that() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 1, "mx1.example").add_address("mx1.example", "198.51.100.1");
    let clear = host(&rig, 1, None, &["PIPELINING"]);
    rig.deliver(routes(&[]));
    let plain = rig.send(&["bob@example.com"]).await;
    assert!(is_delivered(&rig.outcome(plain).await));
    let id = rig.accept(strict(&rig)).await;
    assert_bounced(&rig.outcome(id).await);
    assert_eq!(clear.seen().with("MAIL").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bounce_goes_on_without_the_promise_and_with_it_where_it_can() {
    let certificate = Certificate::new("mx1.example");
    for (offers, expected) in [(&[][..], "MAIL FROM:<>"), (&OFFERS[2..], "MAIL FROM:<> REQUIRETLS")] {
        let mut rig = rig().await;
        let server = host(&rig, 1, Some(&certificate), offers);
        rig.deliver(trusting(&certificate));
        let mut bounce = strict(&rig);
        bounce.envelope.sender = None;
        let id = rig.accept(bounce).await;
        assert!(is_delivered(&rig.outcome(id).await));
        assert_eq!(server.seen().with("MAIL"), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_no_wire_inside_this_process() {
    let mut rig = Rig::new().await;
    let inside = postrider_base::SimNet::new();
    let inbox = Server::start(&inside, "127.0.0.1:25");
    rig.built_in.insert("inbox".into(), std::sync::Arc::new(inside));
    rig.deliver(routes(&[("*", "inbox:")]));
    let id = rig.accept(strict(&rig)).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert!(!inbox.seen().with("MAIL")[0].contains("REQUIRETLS"));
}
