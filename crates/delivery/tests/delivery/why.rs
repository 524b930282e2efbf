//! Why a message has not left: each answer that delivery gives.

use std::time::Duration;

use postrider_delivery::shaping::PauseRequest;
use postrider_delivery::why::{Wait, Why};
use postrider_delivery::{Delivery, Settings};
use postrider_mail::{MessageId, Stage};

use crate::rig::{Rig, is_delivered, routes};
use crate::server::{Say, Server};

const HOST: &str = "198.51.100.1:25";

async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig
}

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
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[site.\"mx.example.com\"]\nrate = \"1/h\"\n").unwrap();
    let mut settings = narrow();
    settings.shaping.file = Some(file.path().to_owned());
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
