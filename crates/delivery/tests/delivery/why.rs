//! Why a message has not left: each answer that delivery gives.

use std::time::Duration;

use postrider_account::ConfigurationOption;
use postrider_delivery::settings::SourceSettings;
use postrider_delivery::shaping::PauseRequest;
use postrider_delivery::why::{Wait, Why};
use postrider_delivery::{Delivery, Settings};
use postrider_mail::{AccountId, MessageId, Stage};

use crate::copies::shaped;
use crate::rig::{HOST, Rig, is_delivered, rig, routes};
use crate::server::{Say, Server};

/// A host that says nothing to MAIL.
fn hanging(rig: &Rig) -> Server {
    Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("MAIL") {
        true => Say::Silence,
        false => Say::Usual,
    })
}

async fn why(rig: &Rig, delivery: &Delivery, id: MessageId) -> Why {
    let view = rig.spool.show(id).await.unwrap().expect("it waits");
    delivery.why(&view, &"example.com".parse().unwrap())
}

async fn soon() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

fn narrow() -> Settings {
    let mut settings = routes(&[]);
    settings.limits.connections_per_site = 1;
    settings.limits.initial_connections_per_site = 1;
    settings
}

#[tokio::test(start_paused = true)]
async fn in_delivery_then_ready_then_parked() {
    let rig = rig().await;
    hanging(&rig);
    let mut settings = narrow();
    settings.limits.ready_per_site = 2;
    let delivery = rig.deliver(settings);
    let began = rig.clock.now();
    let first = rig.send(&["ann@example.com"]).await;
    soon().await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(rig.send(&["bob@example.com"]).await);
        soon().await;
    }
    let Why::InDelivery { site, host, stage, since } = why(&rig, &delivery, first).await else { panic!("in delivery") };
    assert_eq!((site.as_str(), stage), ("mx.example.com", Stage::MailFrom));
    assert_eq!(host.as_deref(), Some("mx.example.com[198.51.100.1]:25"));
    assert!(since.saturating_since(began) < Duration::from_secs(1), "{since:?}");
    for (before, id) in others[..2].iter().enumerate() {
        let expected = Why::Ready {
            site: "mx.example.com".to_owned(),
            before,
            others: 1,
            wait: Wait::Busy { connections: 1, limit: 1 },
        };
        assert_eq!(why(&rig, &delivery, *id).await, expected);
    }
    let parked = Why::Parked { site: "mx.example.com".to_owned(), ready: 2 };
    assert_eq!(why(&rig, &delivery, others[3]).await, parked);
}

#[tokio::test(start_paused = true)]
async fn behind_a_first_connection_that_is_not_there_yet() {
    let rig = rig().await;
    Server::scripted(&rig.net, HOST, |_| Say::Silence);
    let delivery = rig.deliver(routes(&[]));
    rig.send(&["ann@example.com"]).await;
    soon().await;
    let second = rig.send(&["bob@example.com"]).await;
    soon().await;
    let Why::Ready { wait: Wait::FirstConnection { host, stage, .. }, before: 0, others: 0, .. } =
        why(&rig, &delivery, second).await
    else {
        panic!("{:?}", why(&rig, &delivery, second).await)
    };
    assert_eq!((host.as_deref(), stage), (Some("mx.example.com[198.51.100.1]:25"), Stage::Banner));
}

#[tokio::test(start_paused = true)]
async fn while_its_hosts_are_looked_up() {
    let rig = rig().await;
    rig.zones.delay("example.com", Duration::from_secs(20));
    let delivery = rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = rig.send(&["ann@example.com"]).await;
    soon().await;
    let Why::LookingUp { since } = why(&rig, &delivery, id).await else { panic!("looked up") };
    assert!(since.saturating_since(began) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn paused_by_an_operator_until_it_is_lifted() {
    let mut rig = rig().await;
    Server::start(&rig.net, HOST);
    let delivery = rig.deliver(routes(&[]));
    let reason = Some("they asked for it".to_owned());
    let request = PauseRequest { name: "mx.example.com".to_owned(), source: None, time: None, reason };
    let sent = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(sent).await));
    delivery.pause(request).await.unwrap();
    let id = rig.send(&["ann@example.com"]).await;
    soon().await;
    let Why::Paused { name, by, until: None, why: reason, .. } = why(&rig, &delivery, id).await else {
        panic!("{:?}", why(&rig, &delivery, id).await)
    };
    assert_eq!((name.as_str(), by.as_str()), ("mx.example.com", "operator"));
    assert!(reason.contains("they asked for it"), "{reason}");
    assert_eq!(delivery.sites()[0].trouble(), 3);
    assert_eq!(delivery.resume(&name, None).await.unwrap(), 1);
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_and_when_the_next_one_goes() {
    let mut rig = rig().await;
    Server::start(&rig.net, HOST);
    let (settings, _file) = shaped("[site.\"mx.example.com\"]\nrate = \"1/h\"\n");
    let delivery = rig.deliver(settings);
    let first = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(first).await));
    let second = rig.send(&["ann@example.com"]).await;
    soon().await;
    let found = why(&rig, &delivery, second).await;
    let Why::Ready { wait: Wait::Rate { of, rate, next: Some(next) }, .. } = found else { panic!("{found:?}") };
    assert_eq!((of.as_str(), rate.as_str()), ("mx.example.com", "1/h"));
    let wait = next.saturating_since(rig.clock.now());
    assert!(wait > Duration::from_secs(3_500) && wait <= Duration::from_secs(3_600), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn no_connection_left_in_the_relay() {
    let rig = rig().await;
    hanging(&rig);
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    Server::scripted(&rig.net, "198.51.100.9:25", |_| Say::Silence);
    let mut settings = narrow();
    settings.limits.connections = 1;
    let delivery = rig.deliver(settings);
    rig.send(&["ann@example.net"]).await;
    soon().await;
    let id = rig.send(&["ann@example.com"]).await;
    soon().await;
    let found = why(&rig, &delivery, id).await;
    assert!(matches!(found, Why::NoConnection { limit: 1, .. }), "{found:?}");
}

/// A host that hangs at MAIL, of a domain of its own.
fn hanging_elsewhere(rig: &Rig) {
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    Server::scripted(&rig.net, "198.51.100.9:25", |moment| match moment.line.starts_with("MAIL") {
        true => Say::Silence,
        false => Say::Usual,
    });
}

#[tokio::test(start_paused = true)]
async fn ready_while_the_relay_has_no_connection_left() {
    let rig = rig().await;
    hanging_elsewhere(&rig);
    let mut settings = narrow();
    settings.limits.connections = 1;
    let delivery = rig.deliver(settings);
    rig.send(&["ann@example.net"]).await;
    soon().await;
    rig.send(&["ann@example.com"]).await;
    soon().await;
    let id = rig.send(&["bob@example.com"]).await;
    soon().await;
    let found = why(&rig, &delivery, id).await;
    assert!(matches!(found, Why::Ready { before: 0, wait: Wait::TotalLimit { limit: 1 }, .. }), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn another_lane_has_the_connections_of_the_site() {
    let rig = rig().await;
    hanging(&rig);
    let delivery = rig.deliver(narrow());
    rig.send(&["ann@example.com"]).await;
    soon().await;
    // Asks something else of TLS, and so for a connection of its own.
    let mut waived = rig.message(&["bob@example.com"]);
    waived.tls_optional = true;
    let id = rig.accept(waived).await;
    soon().await;
    let found = why(&rig, &delivery, id).await;
    assert!(matches!(found, Why::Ready { wait: Wait::SiteLimit { open: 1, limit: 1 }, .. }), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn another_site_has_the_connections_of_the_provider() {
    let rig = rig().await;
    hanging_elsewhere(&rig);
    Server::start(&rig.net, HOST);
    let rules = "[provider.big]\nmx = [\".example.com\", \".example.net\"]\nconnections = 1\n";
    let (settings, _file) = shaped(rules);
    let delivery = rig.deliver(settings);
    rig.send(&["ann@example.net"]).await;
    soon().await;
    let id = rig.send(&["ann@example.com"]).await;
    soon().await;
    let found = why(&rig, &delivery, id).await;
    let Why::Ready { wait: Wait::ProviderLimit { provider, open: 1, limit: 1 }, .. } = found else {
        panic!("{found:?}")
    };
    assert_eq!(provider, "big");
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_of_the_provider() {
    let mut rig = rig().await;
    Server::start(&rig.net, HOST);
    let (settings, _file) = shaped("[provider.big]\nmx = [\".example.com\"]\nrate = \"1/h\"\n");
    let delivery = rig.deliver(settings);
    let first = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(first).await));
    let second = rig.send(&["ann@example.com"]).await;
    soon().await;
    let found = why(&rig, &delivery, second).await;
    let Why::Ready { wait: Wait::Rate { of, rate, next: Some(_) }, .. } = found else { panic!("{found:?}") };
    assert_eq!((of.as_str(), rate.as_str()), ("big", "1/h"));
}

/// What is told of the second message, after the host has led to a pause by refusing the
/// first one. Both are from `news.example`.
async fn paused_by_a_reply(action: &str) -> Why {
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("451 4.7.0 enough for today"),
        false => Say::Usual,
    });
    let rule = format!(
        "[[feedback]]\nname = \"enough\"\ntext = [\"enough for today\"]\naction = \"{action}\"\nfor = \"1h\"\n\
         example = \"451 4.7.0 enough for today\"\n"
    );
    let (settings, _file) = shaped(&rule);
    let delivery = rig.deliver(settings);
    let news = |rig: &Rig| {
        let mut message = rig.message(&["ann@example.com"]);
        message.origin.headers.fields.push(("From".to_owned(), "News <daily@news.example>".to_owned()));
        message
    };
    let first = rig.accept(news(&rig)).await;
    assert!(rig.outcome(first).await.next_attempt.is_some());
    let second = rig.accept(news(&rig)).await;
    soon().await;
    let found = why(&rig, &delivery, second).await;
    let Why::Paused { name, until: Some(until), why: reply, .. } = &found else { panic!("{found:?}") };
    assert!(name == "mx.example.com" && reply == "enough: 451 4.7.0 enough for today", "{found:?}");
    assert!(until.saturating_since(rig.clock.now()) > Duration::from_secs(3_500));
    assert!(delivery.resume(name, None).await.unwrap() > 0, "the name is the one to lift it by");
    found
}

#[tokio::test(start_paused = true)]
async fn paused_because_of_a_reply() {
    for (action, kind) in [("pause-source", "source"), ("block-source", "block")] {
        let Why::Paused { by, source, signing_domain: None, .. } = paused_by_a_reply(action).await else {
            panic!("{action}")
        };
        assert_eq!((by.as_str(), source.as_deref()), (kind, Some("system")));
    }
    let found = paused_by_a_reply("pause-signing-domain").await;
    let Why::Paused { by, source: None, signing_domain: Some(domain), .. } = found else { panic!("{found:?}") };
    assert_eq!((by.as_str(), domain.as_str()), ("signing_domain", "news.example"));
}

#[tokio::test(start_paused = true)]
async fn no_source_address_may_be_used() {
    let rig = rig().await;
    Server::start(&rig.net, HOST);
    let account = AccountId::default();
    rig.accounts.pools().create(account, "empty").await.unwrap();
    let option = ConfigurationOption::Pool(Some("empty".to_owned()));
    rig.accounts.configuration_sets().create(account, "news", vec![option]).await.unwrap();
    let source = SourceSettings { ipv4: Some("192.0.2.1".parse().unwrap()), ..SourceSettings::default() };
    let delivery = rig.deliver(Settings { sources: [("out1".to_owned(), source)].into(), ..routes(&[]) });
    let mut message = rig.message(&["ann@example.com"]);
    message.origin.configuration_set = Some("news".to_owned());
    let id = rig.accept(message).await;
    soon().await;
    let found = why(&rig, &delivery, id).await;
    let Why::NoSource { until: Some(until), why, .. } = found else { panic!("{found:?}") };
    assert_eq!(why, "pool empty has no address that may be used");
    assert!(until > rig.clock.now());
}

#[tokio::test(start_paused = true)]
async fn its_turn_comes_when_delivery_takes_more() {
    let rig = rig().await;
    hanging_elsewhere(&rig);
    let mut settings = narrow();
    settings.limits.ready = 1;
    let delivery = rig.deliver(settings);
    rig.send(&["ann@example.net"]).await;
    soon().await;
    let id = rig.send(&["ann@example.com"]).await;
    soon().await;
    assert_eq!(why(&rig, &delivery, id).await, Why::Turn);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_has_ended_is_being_written_down() {
    let mut rig = rig().await;
    let host = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "." => Say::After(Duration::from_secs(10), "250 taken"),
        _ => Say::Usual,
    });
    let delivery = rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    host.until(|seen| seen.lines.iter().any(|line| line == "DATA")).await;
    // As the spool sees it until the outcome is written.
    let view = rig.spool.show(id).await.unwrap().expect("it waits");
    assert!(view.recipients[0].in_delivery);
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!(delivery.why(&view, &"example.com".parse().unwrap()), Why::Settling);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_holds() {
    let rig = rig().await;
    let delivery = rig.deliver(routes(&[("example.com", "hold:")]));
    let id = rig.send(&["ann@example.com"]).await;
    soon().await;
    assert_eq!(why(&rig, &delivery, id).await, Why::RouteHolds);
    assert!(delivery.is_held_by_route(&"example.com".parse().unwrap()));
    assert!(!delivery.is_held_by_route(&"example.net".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn different_refusals_are_counted_and_few_are_kept() {
    let mut rig = rig().await;
    let texts =
        ["550 5.1.1 one", "550 5.1.1 two", "550 5.1.1 three", "550 5.1.1 four", "550 5.1.1 five", "550 5.1.1 six"];
    Server::scripted(&rig.net, HOST, move |moment| {
        let number = moment.line.strip_prefix("RCPT TO:<").and_then(|rest| rest[..1].parse::<usize>().ok());
        number.map_or(Say::Usual, |number| Say::Reply(texts[number]))
    });
    let delivery = rig.deliver(routes(&[]));
    for to in [
        "0@example.com",
        "1@example.com",
        "2@example.com",
        "3@example.com",
        "4@example.com",
        "5@example.com",
        "1@example.com",
    ] {
        let id = rig.send(&[to]).await;
        rig.outcome(id).await;
    }
    let refusals = delivery.sites()[0].refusals.clone();
    let seen: Vec<_> = refusals.iter().map(|refusal| (refusal.text.as_str(), refusal.count)).collect();
    let expected = [
        ("550 5.1.1 three", 1),
        ("550 5.1.1 four", 1),
        ("550 5.1.1 five", 1),
        ("550 5.1.1 six", 1),
        ("550 5.1.1 two", 2),
    ];
    assert_eq!(seen, expected);
}
