//! Connections and ready queues.

use std::time::Duration;

use crate::rig::{HOST, HOUR, Rig, is_delivered, rig, routes};
use crate::server::{Say, Server};

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_the_next_message_and_closed_when_idle() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    let delivery = rig.deliver(routes(&[]));
    for _ in 0..3 {
        let id = rig.send(&["ann@example.com"]).await;
        assert!(is_delivered(&rig.outcome(id).await));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(server.seen().connections, 1);
    let sites = delivery.sites();
    assert_eq!(sites.len(), 1);
    assert_eq!((sites[0].name.as_str(), sites[0].connections, sites[0].idle), ("mx.example.com", 1, 1));
    server.until(|seen| seen.open.0 == 0).await;
    assert_eq!(server.seen().with("QUIT").len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(delivery.sites(), []);
    assert_eq!(rig.metrics.outbound_open.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_site_said_last_is_known_for_an_hour_after_its_last_message() {
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("550 5.1.1 nobody here"),
        false => Say::Usual,
    });
    let delivery = rig.deliver(routes(&[]));
    for count in 1..3 {
        let id = rig.send(&["ann@example.com"]).await;
        rig.outcome(id).await;
        tokio::time::sleep(50 * HOUR / 60).await;
        let sites = delivery.sites();
        assert_eq!((sites.len(), sites[0].connections, sites[0].trouble()), (1, 0, 1));
        assert_eq!((sites[0].refusals[0].text.as_str(), sites[0].refusals[0].count), ("550 5.1.1 nobody here", count));
    }
    tokio::time::sleep(20 * HOUR / 60).await;
    assert_eq!(delivery.sites(), []);
}

/// A host that knows nobody, and is silent from its second connection on.
fn ever_silent(rig: &Rig) -> Server {
    Server::scripted(&rig.net, HOST, |moment| match moment.connection {
        0 if moment.line.starts_with("RCPT") => Say::Reply("550 5.1.1 nobody here"),
        0 => Say::Usual,
        _ => Say::Silence,
    })
}

#[tokio::test(start_paused = true)]
async fn what_a_site_said_too_long_ago_is_not_what_it_says_now() {
    let mut rig = rig().await;
    ever_silent(&rig);
    let delivery = rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    rig.outcome(id).await;
    tokio::time::sleep(2 * HOUR).await;
    rig.send(&["ann@example.com"]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let sites = delivery.sites();
    assert_eq!((sites.len(), sites[0].connections), (1, 1));
    assert_eq!(sites[0].refusals, []);
}

#[tokio::test(start_paused = true)]
async fn what_a_site_said_before_a_message_came_is_not_said_of_it() {
    let mut rig = rig().await;
    ever_silent(&rig);
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    rig.outcome(id).await;
    tokio::time::sleep(HOUR / 2).await;
    rig.send(&["ann@example.com"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut short = rig.message(&["bob@example.com"]);
    short.expires_at = short.accepted_at.saturating_add(Duration::from_secs(1));
    let short = rig.accept(short).await;
    let outcome = rig.outcome(short).await;
    assert!(outcome.diagnostic.contains("waited for its turn"), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_listed_once_after_new_settings_and_keeps_what_was_said() {
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match (moment.line.as_str(), moment.connection) {
        ("RCPT TO:<gone@example.com>", _) => Say::Reply("550 5.1.1 nobody here"),
        (".", 1) => Say::After(Duration::from_secs(120), "250 2.0.0 taken"),
        _ => Say::Usual,
    });
    let delivery = rig.deliver(routes(&[]));
    let id = rig.send(&["gone@example.com"]).await;
    rig.outcome(id).await;
    delivery.reload(routes(&[])).unwrap();
    let slow = rig.send(&["ann@example.com"]).await;
    // The connection of the old settings idles out meanwhile.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let sites = delivery.sites();
    assert_eq!((sites.len(), sites[0].connections), (1, 1), "{sites:?}");
    assert_eq!(sites[0].refusals[0].text, "550 5.1.1 nobody here");
    assert!(is_delivered(&rig.outcome(slow).await));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_sites_that_said_something_is_bounded() {
    let mut rig = Rig::new().await;
    let mut ids = Vec::new();
    for number in 0..1_100 {
        let (domain, host) = (format!("d{number}.example"), format!("mx.d{number}.example"));
        rig.mx(&domain, &host, "198.51.100.1");
        ids.push(rig.send(&[&format!("ann@{domain}")]).await);
    }
    Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("550 5.1.1 nobody here"),
        false => Say::Usual,
    });
    let delivery = rig.deliver(routes(&[]));
    for id in ids {
        rig.outcome(id).await;
    }
    tokio::time::sleep(HOUR / 12).await;
    assert_eq!(delivery.sites().len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_connection_takes_only_so_many_messages() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    let mut settings = routes(&[]);
    settings.limits.messages_per_connection = 2;
    rig.deliver(settings);
    for _ in 0..5 {
        let id = rig.send(&["ann@example.com"]).await;
        assert!(is_delivered(&rig.outcome(id).await));
    }
    assert_eq!(server.seen().connections, 3);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_connection_is_idle_is_no_reply_to_the_next_message() {
    let mut rig = rig().await;
    // Both recipients of the second message are refused, each in its own way.
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "." if moment.connection == 0 => Say::Slow("250 taken\r\n250 surplus\r\n"),
        "RCPT TO:<gone@example.com>" => Say::Reply("550 5.1.1 user unknown"),
        "RCPT TO:<full@example.com>" => Say::Reply("452 4.2.2 mailbox full"),
        _ => Say::Usual,
    });
    let mut settings = routes(&[]);
    settings.limits.connection_idle = postrider_base::Period::from_mins(5);
    rig.deliver(settings);
    let first = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(first).await));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let second = rig.send(&["gone@example.com", "full@example.com"]).await;
    let outcomes = rig.outcomes(second, 2).await;
    let said: Vec<_> = outcomes.iter().map(|outcome| outcome.diagnostic.as_str()).collect();
    assert_eq!(said, ["550 5.1.1 user unknown", "452 4.2.2 mailbox full"]);
    assert_eq!((server.seen().connections, server.seen().with("MAIL").len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_died_costs_nothing() {
    for goodbye in [Say::Close, Say::Last("421 4.4.2 idle for too long")] {
        let mut rig = rig().await;
        let server = Server::scripted(&rig.net, HOST, move |moment| {
            let again = moment.taken > 0 && moment.line.starts_with("MAIL");
            if again { goodbye.clone() } else { Say::Usual }
        });
        rig.deliver(routes(&[]));
        for _ in 0..2 {
            let id = rig.send(&["ann@example.com"]).await;
            let outcome = rig.outcome(id).await;
            assert!(is_delivered(&outcome), "{outcome:?}");
        }
        assert_eq!(server.seen().connections, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_grow_with_success_up_to_the_limit() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    let mut settings = routes(&[]);
    settings.limits.initial_connections_per_site = 2;
    settings.limits.connections_per_site = 4;
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(rig.send(&["ann@example.com"]).await);
    }
    rig.deliver(settings);
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    let seen = server.seen();
    assert_eq!(seen.messages.len(), 200);
    assert!((2..=4).contains(&seen.open.1), "{:?}", seen.open);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_few_connections_gets_few() {
    let mut rig = rig().await;
    // The third connection and later ones are turned away.
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "" if moment.connection >= 2 => Say::Last("421 4.7.0 too many connections"),
        _ => Say::Usual,
    });
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(rig.send(&["ann@example.com"]).await);
    }
    rig.deliver(routes(&[]));
    for id in ids {
        let outcome = rig.outcome(id).await;
        assert!(is_delivered(&outcome), "{outcome:?}");
    }
    assert_eq!(server.seen().messages.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_dead_site_defers_what_is_ready_at_once() {
    let mut rig = rig().await;
    rig.net.silence(HOST.parse().unwrap());
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(rig.send(&["ann@example.com"]).await);
    }
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    for id in ids {
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.diagnostic, "421 4.4.2 Connection timed out");
        assert_eq!(outcome.attempt, 1);
    }
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn a_slow_site_parks_its_queues_and_nobody_elses() {
    let mut rig = rig().await;
    rig.mx("other.example", "mx.other.example", "198.51.100.2");
    let slow = Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("MAIL") {
        true => Say::Silence,
        false => Say::Usual,
    });
    Server::start(&rig.net, "198.51.100.2:25");
    let mut settings = routes(&[]);
    settings.limits.ready_per_site = 10;
    for _ in 0..500 {
        rig.send(&["ann@example.com"]).await;
    }
    let delivery = rig.deliver(settings);
    slow.until(|seen| seen.with("MAIL").len() == 5).await;
    let id = rig.send(&["bob@other.example"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    let site = delivery.sites().into_iter().find(|site| site.name == "mx.example.com").unwrap();
    assert_eq!((site.ready, site.parked, site.connections), (10, 1, 5));
}

#[tokio::test(start_paused = true)]
async fn parked_queues_go_on_when_there_is_room() {
    let mut rig = rig().await;
    for n in 0..20 {
        rig.zones.add_mx(&format!("d{n}.example"), 10, "mx.example.com");
    }
    let server = Server::start(&rig.net, HOST);
    let mut settings = routes(&[]);
    settings.limits.ready_per_site = 3;
    let mut ids = Vec::new();
    for n in 0..400 {
        ids.push(rig.send(&[&format!("ann@d{}.example", n % 20)]).await);
    }
    rig.deliver(settings);
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    assert_eq!(server.seen().messages.len(), 400);
}

#[tokio::test(start_paused = true)]
async fn new_routes_hold_from_the_next_message_on() {
    let mut rig = rig().await;
    let (first, second) = (Server::start(&rig.net, HOST), Server::start(&rig.net, "10.0.0.1:25"));
    let delivery = rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert!(delivery.reload(routes(&[("*", "bad route")])).is_err());
    delivery.reload(routes(&[("*", "smtp://10.0.0.1")])).unwrap();
    let id = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!((first.seen().messages.len(), second.seen().messages.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_route_changed_during_a_lookup_holds_for_who_waited() {
    let mut rig = rig().await;
    rig.zones.delay("example.com", Duration::from_secs(5));
    let (found, routed) = (Server::start(&rig.net, HOST), Server::start(&rig.net, "10.0.0.1:25"));
    let delivery = rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    while rig.zones.queries("example.com") == 0 {
        tokio::task::yield_now().await;
    }
    delivery.reload(routes(&[("*", "smtp://10.0.0.1")])).unwrap();
    assert!(is_delivered(&rig.outcome(id).await));
    assert_eq!((found.seen().connections, routed.seen().messages.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_connections_can_be_changed_while_they_are_open() {
    let mut rig = rig().await;
    // Each message takes a while: eighteen octets, one a second.
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "." => Say::Slow("250 2.0.0 taken ok\r\n"),
        _ => Say::Usual,
    });
    let with = |connections| {
        let mut settings = routes(&[]);
        settings.limits.connections = connections;
        settings
    };
    let delivery = rig.deliver(with(2));
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(rig.send(&["ann@example.com"]).await);
    }
    server.until(|seen| seen.open.0 == 2).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(server.seen().open.1, 2);
    delivery.reload(with(4)).unwrap();
    server.until(|seen| seen.open.0 == 4).await;
    delivery.reload(with(1)).unwrap();
    // Those that are open stay as long as they have work; then there is one.
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(server.seen().open.1, 4);
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    for _ in 0..20 {
        rig.send(&["ann@example.com"]).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.seen().open.0, 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_between_acceptance_and_the_first_attempt() {
    let rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    // The first one looks up, dials and greets; the others find all that. Simulated time
    // goes on only when everybody waits for it.
    for count in 1..=3 {
        rig.send(&["ann@example.com"]).await;
        server.until(|seen| seen.messages.len() == count).await;
        assert_eq!(rig.clock.now(), began, "message {count}");
    }
    assert_eq!(server.seen().connections, 1);
}
