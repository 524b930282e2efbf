//! What is known afterwards of an attempt.

use std::time::Duration;

use postrider_delivery::Settings;
use postrider_dns::zones::Failure;
use postrider_mail::{AttemptOutcome, AttemptRecord, HostRecord, SessionLevel, Stage, store_records};

use crate::rig::{HOST, Rig, is_delivered, routes};
use crate::server::{Say, Server};
use crate::tls::Certificate;

fn record(outcome: &AttemptOutcome) -> &AttemptRecord {
    outcome.record.as_deref().unwrap()
}

/// `command -> reply` of each exchange.
fn said(host: &HostRecord) -> Vec<String> {
    host.exchanges.iter().map(|it| format!("{} -> {}", it.command, it.reply)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_greylisted_message_says_what_was_said_and_a_delivery_little() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        line if line.starts_with("MAIL") => Say::After(Duration::from_secs(3), "250 2.1.0 ok"),
        line if line.starts_with("RCPT") && moment.connection == 0 => Say::Reply("450 4.2.0 greylisted"),
        _ => Say::Usual,
    });
    let began = rig.clock.now();
    rig.deliver(Settings { ehlo_name: Some("out.example.net".into()), ..Settings::default() });
    let id = rig.send(&["ann@example.com"]).await;
    let outcomes = rig.until_final(id).await;
    assert!(is_delivered(&outcomes[1]), "{outcomes:?}");
    let deferred = record(&outcomes[0]);
    assert_eq!((deferred.began, &*deferred.site, &*deferred.ehlo), (began, "mx.example.com", "out.example.net"));
    assert_eq!(deferred.level, Some(SessionLevel::default()));
    let [host] = &deferred.hosts[..] else { panic!("one host: {deferred:?}") };
    assert_eq!((&*host.host, host.port, host.reused, &host.failure), ("mx.example.com", 25, 0, &None));
    let said = said(host);
    assert!(said[1].starts_with("EHLO out.example.net -> 250"), "{said:?}");
    assert!(said[2].starts_with("MAIL FROM:<sender@example.net>"), "{said:?}");
    assert_eq!(said[3], "RCPT TO:<ann@example.com> -> 450 4.2.0 greylisted");
    assert_eq!((host.exchanges[2].ms, host.exchanges[3].ms), (3_000, 0));
    let mut stored = Vec::new();
    store_records(&outcomes[..1], &mut stored);
    assert!(stored.len() < 400, "{} bytes", stored.len());
    let delivered = record(&outcomes[1]);
    assert_eq!((&*delivered.site, delivered.hosts.len()), ("mx.example.com", 0));
    assert_eq!(outcomes[1].hosts()[0].exchanges[0].reply, outcomes[1].diagnostic);
    assert_eq!(server.seen().messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_fails_says_what_was_asked_and_answered() {
    let mut rig = Rig::new().await;
    rig.zones.fail("broken.example", Failure::ServFail);
    rig.zones.fail("silent.example", Failure::Silence);
    rig.zones.add_null_mx("none.example");
    rig.zones.add_mx("loop.example", 10, "relay.example.net");
    rig.deliver(Settings { ehlo_name: Some("out.example.net".into()), ..Settings::default() });
    let began = rig.clock.now();
    for (domain, answered) in [
        ("missing.example", "does not exist"),
        ("broken.example", "server"),
        ("silent.example", ""),
        ("none.example", "0 ."),
        ("loop.example", "10 relay.example.net"),
    ] {
        let id = rig.send(&[&format!("ann@{domain}")]).await;
        let outcome = rig.outcome(id).await;
        let record = record(&outcome);
        assert_eq!((&*record.site, &*record.ehlo), (domain, "out.example.net"));
        let [host] = &record.hosts[..] else { panic!("{record:?}") };
        let said = said(host);
        assert!(said.len() == 1 && said[0].starts_with(&format!("DNS MX {domain} -> ")), "{said:?}");
        assert!(said[0].contains(answered) && (!answered.is_empty() || host.exchanges[0].ms > 1_000), "{host:?}");
        assert!(record.began >= began && outcome.remote.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_domain_with_many_hosts_makes_no_long_record() {
    let mut rig = Rig::new().await;
    let labels = "a".repeat(60);
    for n in 10..20 {
        rig.mx("example.com", &format!("mx{n}.{labels}.{labels}.{labels}.example"), "198.51.100.1");
    }
    rig.deliver(Settings::default());
    let id = rig.send(&["ann@example.com"]).await;
    let site = record(&rig.outcome(id).await).site.clone();
    assert!(site.starts_with("mx1") && site.len() <= 512, "{} bytes", site.len());
}

#[tokio::test(start_paused = true)]
async fn hosts_that_cannot_be_reached_or_found_are_named() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx1.example.com", "198.51.100.7");
    rig.zones.add_mx("example.com", 20, "nowhere.example.com");
    rig.mx("two.example", "mx1.two.example", "198.51.100.8");
    rig.zones.add_mx("two.example", 20, "mx2.two.example").add_address("mx2.two.example", "198.51.100.1");
    let _server = Server::start(&rig.net, HOST);
    rig.deliver(Settings::default());
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    let hosts = &record(&outcome).hosts;
    let failures: Vec<_> = hosts.iter().map(|host| (&*host.host, host.failure.as_deref().unwrap())).collect();
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].0 == "mx1.example.com" && failures[0].1.starts_with("cannot connect: "), "{failures:?}");
    assert!(
        failures[1].0 == "nowhere.example.com" && failures[1].1.starts_with("cannot be looked up: "),
        "{failures:?}"
    );
    assert_eq!(record(&outcome).level, None);
    // Where the second host takes it, that is told as well.
    let id = rig.send(&["bob@two.example"]).await;
    let outcome = rig.outcome(id).await;
    let hosts = &record(&outcome).hosts;
    assert!(is_delivered(&outcome) && hosts.len() == 2 && hosts[0].failure.is_some(), "{hosts:?}");
    assert_eq!((&*hosts[1].host, &hosts[1].failure), ("mx2.two.example", &None));
    assert!(said(&hosts[1]).last().unwrap().contains("octets of content) -> 250"), "{hosts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_fails_says_why() {
    let mut rig = Rig::new().await;
    rig.zones.add_address("mx.example.com", "198.51.100.1");
    let certificate = Certificate::new("other.example.com");
    let _server = Server::with(&rig.net, HOST, certificate.setup(), |_| Say::Usual);
    let mut settings = routes(&[("*", "smtp+starttls://mx.example.com")]);
    settings.tls.ca_file = Some(certificate.authority());
    rig.deliver(settings);
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(outcome.remote.as_ref().map(|remote| remote.stage), Some(Stage::StartTls), "{outcome:?}");
    let [host] = &record(&outcome).hosts[..] else { panic!("one host: {outcome:?}") };
    assert!(host.failure.as_ref().unwrap().starts_with("TLS: "), "{host:?}");
    assert!(said(host).last().unwrap().starts_with("STARTTLS -> 220"), "{host:?}");
}

#[tokio::test(start_paused = true)]
async fn recipients_of_one_transaction_share_a_record_with_all_that_was_said() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let _server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        line if line.starts_with("RCPT TO:<bob") => Say::Reply("550 5.1.1 no such user"),
        _ => Say::Usual,
    });
    rig.deliver(Settings::default());
    let id = rig.send(&["ann@example.com", "bob@example.com"]).await;
    let outcomes = rig.outcomes(id, 2).await;
    assert!(is_delivered(&outcomes[0]) && !is_delivered(&outcomes[1]));
    assert_eq!(outcomes[0].record, outcomes[1].record);
    let said = said(&record(&outcomes[1]).hosts[0]);
    assert!(said.contains(&"RCPT TO:<bob@example.com> -> 550 5.1.1 no such user".to_owned()), "{said:?}");
    assert!(said.last().unwrap().contains("octets of content) -> 250"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_begins_with_the_message() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let _server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        line if line.starts_with("RCPT TO:<bob") => Say::Reply("550 5.1.1 no such user"),
        _ => Say::Usual,
    });
    rig.deliver(Settings::default());
    for expected in [0, 1] {
        let to = if expected == 0 { "ann@example.com" } else { "bob@example.com" };
        let id = rig.send(&[to]).await;
        let outcome = rig.outcome(id).await;
        let hosts = &record(&outcome).hosts;
        assert_eq!(hosts.len(), expected, "{hosts:?}");
        if let Some(host) = hosts.first() {
            assert_eq!(host.reused, 1);
            assert!(said(host)[0].starts_with("MAIL FROM"), "{host:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_a_host_says_can_do_harm_in_a_record() {
    const EVIL: &str = "550-5.1.1 \u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}\r\n550 Subject: \u{9b}31m injected";
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig.mx("long.example", "mx.long.example", "198.51.100.2");
    let _server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        line if line.starts_with("RCPT") => Say::Reply(EVIL),
        _ => Say::Usual,
    });
    let long: &'static str = Box::leak(format!("550 {}", "x".repeat(64 * 1024)).into_boxed_str());
    let _endless = Server::scripted(&rig.net, "198.51.100.2:25", move |moment| match moment.line.as_str() {
        line if line.starts_with("RCPT") => Say::Reply(long),
        _ => Say::Usual,
    });
    rig.deliver(Settings::default());
    for to in ["ann@example.com", "bob@long.example"] {
        let id = rig.send(&[to]).await;
        let outcome = rig.outcome(id).await;
        let record = record(&outcome);
        let host = &record.hosts[0];
        let texts = host.exchanges.iter().flat_map(|it| [&it.command, &it.reply]).chain(&host.failure);
        for text in texts {
            let is_harmless = |c: char| !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}');
            assert!(text.chars().all(is_harmless) && text.len() <= 512, "{text:?}");
        }
        assert!(host.exchanges.iter().any(|it| it.command.starts_with("RCPT")), "{host:?}");
    }
}
