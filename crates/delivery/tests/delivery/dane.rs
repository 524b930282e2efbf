//! Hosts whose own zone says what their certificate is (RFC 7672).

use postrider_base::SimNet;
use postrider_base::metrics::TlsLevel;
use postrider_dns::{Tlsa, Zones, zones::Failure};
use postrider_mail::{AttemptOutcome, DelayType, Disposition, Stage};

use crate::rig::{Rig, is_delivered, routes};
use crate::server::{Moment, Say, Server, Setup};
use crate::tls::Certificate;

const HOST: &str = "mx.example.com";
const ADDRESS: &str = "198.51.100.1:25";

/// A domain of which everything is proved, and its one host.
async fn signed() -> Rig {
    let rig = Rig::new().await;
    rig.zones.set_authenticated(true);
    rig.mx("example.com", HOST, "198.51.100.1");
    rig
}

/// DANE-EE(3) SPKI(1) Full(0)
fn tlsa(certificate: &Certificate) -> Tlsa {
    Tlsa { usage: 3, selector: 1, matching: 0, data: certificate.key.clone() }
}

fn publish(zones: &Zones, certificate: &Certificate) {
    zones.add_tlsa(HOST, 25, tlsa(certificate));
}

fn serve(net: &SimNet, certificate: &Certificate) -> Server {
    Server::with(net, ADDRESS, certificate.setup(), |_| Say::Usual)
}

/// It answers STARTTLS, and what follows is no handshake.
fn broken(moment: &Moment) -> Say {
    match moment.line.as_str() {
        "STARTTLS" => Say::Reply("220 go"),
        line if line.contains('\u{fffd}') || line.starts_with('\u{16}') => Say::Close,
        _ => Say::Usual,
    }
}

async fn deliver_one(rig: &mut Rig) -> AttemptOutcome {
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    rig.outcome(id).await
}

/// Put off for want of TLS that is good enough, and nothing was sent.
fn assert_kept(outcome: &AttemptOutcome, server: &Server) {
    assert_eq!(outcome.disposition, Disposition::Deferred(DelayType::General), "{outcome:?}");
    assert_eq!(outcome.status.to_string(), "4.7.5");
    assert_eq!(outcome.remote.as_ref().unwrap().stage, Stage::StartTls);
    assert!(server.seen().with("MAIL").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_the_zone_knows_proves_the_host() {
    // Nobody else knows it, and its name is another.
    let certificate = Certificate::new("anything.example");
    let mut rig = signed().await;
    publish(&rig.zones, &certificate);
    serve(&rig.net, &certificate);
    let outcome = deliver_one(&mut rig).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert!(outcome.tls.unwrap().authenticated);
    assert_eq!(rig.metrics.attempt_levels.of(TlsLevel::DnssecAuthenticated).get(), 1);
    assert_eq!(rig.metrics.tls_enforced.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_certificate_gets_nothing_and_nothing_goes_in_clear() {
    let (certificate, other) = (Certificate::new(HOST), Certificate::new(HOST));
    let mut rig = signed().await;
    publish(&rig.zones, &other);
    let server = serve(&rig.net, &certificate);
    let outcome = deliver_one(&mut rig).await;
    assert_kept(&outcome, &server);
    assert_eq!((server.seen().connections, rig.metrics.tls_enforced.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn starttls_that_is_stripped_or_broken_gets_nothing() {
    let certificate = Certificate::new(HOST);
    for setup in [Setup::default(), certificate.setup()] {
        let mut rig = signed().await;
        publish(&rig.zones, &certificate);
        let server = Server::with(&rig.net, ADDRESS, setup, broken);
        let outcome = deliver_one(&mut rig).await;
        assert_kept(&outcome, &server);
        assert_eq!((server.seen().connections, rig.metrics.tls_enforced.get()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_mail_cannot_use_ask_for_encryption_only() {
    let certificate = Certificate::new("anything.example");
    let mut rig = signed().await;
    rig.zones.add_tlsa(HOST, 25, Tlsa { usage: 1, ..tlsa(&certificate) });
    serve(&rig.net, &certificate);
    let outcome = deliver_one(&mut rig).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert!(!outcome.tls.unwrap().authenticated);
    assert_eq!(rig.metrics.attempt_levels.of(TlsLevel::DnssecEncrypted).get(), 1);

    let mut rig = signed().await;
    rig.zones.add_tlsa(HOST, 25, Tlsa { usage: 1, ..tlsa(&certificate) });
    let server = Server::start(&rig.net, ADDRESS);
    let outcome = deliver_one(&mut rig).await;
    assert_kept(&outcome, &server);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_proves_binds_nobody() {
    let other = Certificate::new(HOST);
    // Not the MX record, then not the records themselves.
    for proved in [(false, true), (true, false)] {
        let mut rig = Rig::new().await;
        rig.zones.set_authenticated(proved.0).add_mx("example.com", 10, HOST);
        rig.zones.set_authenticated(true).add_address(HOST, "198.51.100.1");
        rig.zones.set_authenticated(proved.1);
        publish(&rig.zones, &other);
        Server::start(&rig.net, ADDRESS);
        let outcome = deliver_one(&mut rig).await;
        assert!(is_delivered(&outcome), "{outcome:?}");
        assert!(outcome.tls.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_looked_up_are_not_absent() {
    for failure in [Failure::ServFail, Failure::Timeout, Failure::Bogus, Failure::Silence] {
        let mut rig = signed().await;
        rig.zones.fail(&format!("_25._tcp.{HOST}"), failure);
        let server = Server::start(&rig.net, ADDRESS);
        let outcome = deliver_one(&mut rig).await;
        assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
        assert_eq!(server.seen().connections, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn forged_mx_records_and_addresses_are_waited_out() {
    for name in ["example.com", HOST] {
        let mut rig = signed().await;
        rig.zones.fail(name, Failure::Bogus);
        let server = Server::start(&rig.net, ADDRESS);
        let outcome = deliver_one(&mut rig).await;
        assert!(matches!(outcome.disposition, Disposition::Deferred(_)), "{outcome:?}");
        assert_eq!((outcome.status.to_string().as_str(), server.seen().connections), ("4.4.0", 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_falls_short_gives_way_to_the_next() {
    let (certificate, other) = (Certificate::new(HOST), Certificate::new(HOST));
    let mut rig = signed().await;
    publish(&rig.zones, &other);
    let server = serve(&rig.net, &certificate);
    rig.zones.add_mx("example.com", 20, "mx2.example.com").add_address("mx2.example.com", "198.51.100.2");
    rig.zones.add_tlsa("mx2.example.com", 25, tlsa(&certificate));
    let second = Server::with(&rig.net, "198.51.100.2:25", certificate.setup(), |_| Say::Usual);
    let outcome = deliver_one(&mut rig).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert!(server.seen().with("MAIL").is_empty());
    assert_eq!(second.seen().messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn that_tls_was_broken_before_lowers_nothing() {
    let certificate = Certificate::new(HOST);
    let mut rig = signed().await;
    rig.zones.set_authenticated(false).add_mx("open.example", 10, HOST).set_authenticated(true);
    publish(&rig.zones, &certificate);
    let server = Server::with(&rig.net, ADDRESS, certificate.setup(), broken);
    rig.deliver(routes(&[]));
    let open = rig.send(&["bob@open.example"]).await;
    let outcome = rig.outcome(open).await;
    assert!(is_delivered(&outcome) && outcome.tls.is_none(), "{outcome:?}");
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(outcome.status.to_string(), "4.7.5", "{outcome:?}");
    assert_eq!(server.seen().messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn domains_that_nobody_vouches_for_do_not_share_connections_with_others() {
    let certificate = Certificate::new(HOST);
    let mut rig = signed().await;
    rig.zones.set_authenticated(false).add_mx("open.example", 10, HOST).set_authenticated(true);
    publish(&rig.zones, &certificate);
    let server = serve(&rig.net, &certificate);
    rig.deliver(routes(&[]));
    for (to, authenticated) in [("bob@open.example", false), ("ann@example.com", true)] {
        let id = rig.send(&[to]).await;
        assert_eq!(rig.outcome(id).await.tls.unwrap().authenticated, authenticated, "{to}");
    }
    assert_eq!(server.seen().connections, 2);
}

#[tokio::test(start_paused = true)]
async fn tls_required_no_goes_on_all_the_same() {
    let (certificate, other) = (Certificate::new(HOST), Certificate::new(HOST));
    for (setup, encrypted) in [(certificate.setup(), true), (Setup::default(), false)] {
        let mut rig = signed().await;
        publish(&rig.zones, &other);
        Server::with(&rig.net, ADDRESS, setup, |_| Say::Usual);
        rig.deliver(routes(&[]));
        let mut message = rig.message(&["ann@example.com"]);
        message.tls_optional = true;
        let id = rig.accept(message).await;
        let outcome = rig.outcome(id).await;
        assert!(is_delivered(&outcome), "{outcome:?}");
        assert_eq!(outcome.tls.is_some(), encrypted);
        // Trouble with what the domain says keeps it no more than that does.
        rig.zones.fail(&format!("_25._tcp.{HOST}"), Failure::ServFail);
        let mut message = rig.message(&["ann@example.com"]);
        message.tls_optional = true;
        let id = rig.accept(message).await;
        assert!(is_delivered(&rig.outcome(id).await));
        rig.zones.remove(&format!("_25._tcp.{HOST}"));
        publish(&rig.zones, &other);
        // The next one is held to what the domain says.
        let id = rig.send(&["ann@example.com"]).await;
        assert_eq!(rig.outcome(id).await.status.to_string(), "4.7.5");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_names_is_not_looked_up_for_proofs() {
    let certificate = Certificate::new("anything.example");
    let mut rig = signed().await;
    rig.zones.fail(HOST, Failure::Bogus);
    serve(&rig.net, &certificate);
    rig.deliver(routes(&[("*", &format!("smtp://{HOST}"))]));
    let id = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!(rig.zones.queries(&format!("_25._tcp.{HOST}")), 0);
}
