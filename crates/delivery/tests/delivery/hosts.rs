//! Which hosts are dialled, in which order, and what happens without any.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postrider_delivery::Settings;
use postrider_delivery::settings::SourceSettings;
use postrider_dns::zones::Failure;
use postrider_dns::{BoxFuture, Mx, Reply, Resolver, Zones};
use postrider_mail::{BounceKind, DelayType, Disposition, Domain};

use crate::rig::{Rig, is_delivered, routes};
use crate::server::{Say, Server};

#[tokio::test(start_paused = true)]
async fn the_next_host_is_tried_when_the_first_does_not_take_mail() {
    type Speech = fn() -> Say;
    let bad: [(&str, Speech); 5] = [
        ("", || Say::Reply("554 5.7.1 not you")),
        ("", || Say::Reply("421 4.3.2 busy")),
        ("EHLO", || Say::Reply("550 5.7.1 not you")),
        ("MAIL", || Say::Reply("550 5.7.1 not you")),
        ("MAIL", || Say::Close),
    ];
    for (at, say) in bad {
        let mut rig = Rig::new().await;
        rig.zones.add_mx("example.com", 10, "a.example").add_mx("example.com", 20, "b.example");
        rig.zones.add_address("a.example", "198.51.100.1").add_address("b.example", "198.51.100.2");
        let first = Server::scripted(&rig.net, "198.51.100.1:25", move |moment| {
            // A second EHLO does not come: HELO follows a refused one.
            let hit = if at.is_empty() { moment.line.is_empty() } else { moment.line.starts_with(at) };
            let helo = at == "EHLO" && moment.line.starts_with("HELO");
            if hit || helo { say() } else { Say::Usual }
        });
        Server::start(&rig.net, "198.51.100.2:25");
        rig.deliver(routes(&[]));
        let id = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(id).await;
        assert!(is_delivered(&outcome), "{at}: {outcome:?}");
        assert_eq!(outcome.remote.unwrap().host, "b.example");
        assert_eq!(first.seen().connections, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_4yz_at_rcpt_defers_and_does_not_go_on() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 10, "a.example").add_mx("example.com", 20, "b.example");
    rig.zones.add_address("a.example", "198.51.100.1").add_address("b.example", "198.51.100.2");
    Server::scripted(&rig.net, "198.51.100.1:25", |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("450 4.2.0 later"),
        false => Say::Usual,
    });
    let second = Server::start(&rig.net, "198.51.100.2:25");
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    assert_eq!(rig.outcome(id).await.disposition, Disposition::Deferred(DelayType::General));
    assert_eq!(second.seen().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn one_attempt_dials_five_addresses_at_most() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 10, "a.example");
    for n in 1..=8 {
        rig.zones.add_address("a.example", &format!("198.51.100.{n}"));
    }
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(outcome.diagnostic, "421 4.4.1 Failed to establish connection");
    assert_eq!(rig.net.dials(), 5);
}

#[tokio::test(start_paused = true)]
async fn one_attempt_ends_after_two_hosts_that_greeted() {
    let mut rig = Rig::new().await;
    let mut servers = Vec::new();
    for n in 1..=4 {
        let (host, ip) = (format!("mx{n}.example"), format!("198.51.100.{n}"));
        rig.zones.add_mx("example.com", n, &host).add_address(&host, &ip);
        servers.push(Server::scripted(&rig.net, &format!("{ip}:25"), |moment| match moment.line.starts_with("MAIL") {
            true => Say::Reply("550 5.7.1 we do not like you"),
            false => Say::Usual,
        }));
    }
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    assert_eq!(rig.outcome(id).await.diagnostic, "550 5.7.1 we do not like you");
    let connections: Vec<_> = servers.iter().map(|server| server.seen().connections).collect();
    assert_eq!(connections, [1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_times_out_and_the_next_takes_over() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 10, "a.example").add_mx("example.com", 20, "b.example");
    rig.zones.add_address("a.example", "198.51.100.1").add_address("b.example", "198.51.100.2");
    rig.net.silence("198.51.100.1:25".parse().unwrap());
    Server::start(&rig.net, "198.51.100.2:25");
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert!(is_delivered(&outcome));
    assert!(outcome.delays.connect_ms >= 30_000);
}

#[tokio::test(start_paused = true)]
async fn without_mx_the_domain_itself_is_the_host() {
    let mut rig = Rig::new().await;
    rig.zones.add_address("example.com", "198.51.100.1");
    Server::start(&rig.net, "198.51.100.1:25");
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert!(is_delivered(&outcome));
    assert_eq!(outcome.remote.unwrap().host, "example.com");
}

#[tokio::test(start_paused = true)]
async fn an_address_literal_is_dialled() {
    let mut rig = Rig::new().await;
    Server::start(&rig.net, "198.51.100.9:25");
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@[198.51.100.9]"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    Server::start(&rig.net, "[2001:db8::9]:25");
    let id = rig.send(&["ann@[IPv6:2001:db8::9]"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    for inside in ["ann@[127.0.0.1]", "ann@[IPv6:::1]", "ann@[IPv6:fe80::1]"] {
        let id = rig.send(&[inside]).await;
        assert_eq!(rig.outcome(id).await.status.to_string(), "4.4.4", "{inside}");
    }
}

#[tokio::test(start_paused = true)]
async fn ipv4_comes_first_unless_told_otherwise() {
    for (prefer_ipv4, expected) in [(true, "198.51.100.1"), (false, "2001:db8::1")] {
        let mut rig = Rig::new().await;
        rig.zones.add_mx("example.com", 10, "mx.example");
        rig.zones.add_address("mx.example", "2001:db8::1").add_address("mx.example", "198.51.100.1");
        Server::start(&rig.net, "198.51.100.1:25");
        Server::start(&rig.net, "[2001:db8::1]:25");
        rig.deliver(Settings { prefer_ipv4, ..routes(&[]) });
        let id = rig.send(&["ann@example.com"]).await;
        assert_eq!(rig.outcome(id).await.remote.unwrap().ip.unwrap().to_string(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_of_a_family_that_mail_does_not_leave_from_are_passed_over() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 10, "six.example").add_mx("example.com", 20, "both.example");
    rig.zones.add_address("six.example", "2001:db8::1");
    rig.zones.add_address("both.example", "2001:db8::2").add_address("both.example", "198.51.100.2");
    rig.zones.add_mx("example.org", 10, "six.example");
    Server::start(&rig.net, "198.51.100.2:25");
    let source =
        SourceSettings { ipv4: Some("192.0.2.1".parse().unwrap()), warm_up_start: 100, ..SourceSettings::default() };
    let mut settings = Settings { prefer_ipv4: false, ..routes(&[]) };
    settings.sources.insert("out1".into(), source);
    rig.deliver(settings);
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    let remote = outcome.remote.unwrap();
    assert_eq!((remote.host.as_str(), remote.source_ip), ("both.example", Some("192.0.2.1".parse().unwrap())));
    for to in ["ann@example.org", "ann@[IPv6:2001:db8::9]"] {
        let id = rig.send(&[to]).await;
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.disposition, Disposition::Deferred(DelayType::InternalFailure));
        assert!(outcome.diagnostic.contains("family"), "{outcome:?}");
    }
    assert_eq!(rig.net.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_null_mx_ends_the_recipient_at_once() {
    let mut rig = Rig::new().await;
    rig.zones.add_null_mx("example.com");
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(outcome.disposition, Disposition::Bounced(BounceKind::PermanentNoEmail));
    assert_eq!(outcome.status.to_string(), "5.1.10");
    assert_eq!(rig.net.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_null_mx_beside_others_says_nothing() {
    // RFC 7505 section 3: it has to be alone.
    let mut rig = Rig::new().await;
    rig.zones.add_null_mx("example.com");
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    Server::start(&rig.net, "198.51.100.1:25");
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn a_host_of_several_names_or_places_is_dialled_once_in_an_attempt() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx1.example.com", "198.51.100.1");
    rig.mx("example.com", "mx2.example.com", "198.51.100.1");
    rig.zones.add_alias("mx3.example.com", "mx1.example.com").add_mx("example.com", 20, "mx3.example.com");
    rig.zones.add_mx("example.com", 30, "mx1.example.com").add_mx("example.com", 40, "mx4.example.com");
    rig.zones.add_address("mx4.example.com", "198.51.100.4");
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    assert!(matches!(rig.outcome(id).await.disposition, Disposition::Deferred(_)));
    assert_eq!(rig.net.dials(), 2);
    Server::start(&rig.net, "198.51.100.4:25");
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn a_missing_domain_and_a_failing_server_both_defer() {
    let mut rig = Rig::new().await;
    rig.zones.fail("broken.example", Failure::ServFail);
    rig.deliver(routes(&[]));
    for domain in ["missing.example", "broken.example"] {
        let id = rig.send(&[&format!("ann@{domain}")]).await;
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.disposition, Disposition::Deferred(DelayType::TransientCommunicationFailure));
        assert_eq!(outcome.diagnostic, format!("421 4.4.0 Unable to lookup DNS for {domain}"));
    }
    // The zone comes back.
    rig.mx("missing.example", "mx.example", "198.51.100.1");
    Server::start(&rig.net, "198.51.100.1:25");
    let id = rig.send(&["bob@missing.example"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn hosts_inside_are_not_dialled_because_the_dns_says_so() {
    let mut rig = Rig::new().await;
    rig.mx("loop.example", "a.example", "127.0.0.1");
    rig.mx("inside.example", "b.example", "10.0.0.1");
    Server::start(&rig.net, "10.0.0.1:25");
    let delivery = rig.deliver(routes(&[]));
    for domain in ["loop.example", "inside.example"] {
        let id = rig.send(&[&format!("ann@{domain}")]).await;
        assert_eq!(rig.outcome(id).await.status.to_string(), "4.4.4");
    }
    assert_eq!(rig.net.dials(), 0);
    delivery.reload(Settings { allow_private_mx: true, ..routes(&[]) }).unwrap();
    let id = rig.send(&["bob@inside.example"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn mail_that_leads_back_here_is_a_loop() {
    let mut rig = Rig::new().await;
    // By name, by address, and only behind a better host.
    rig.mx("name.example", "relay.example.net", "198.51.100.1");
    rig.mx("address.example", "other.example", "192.0.2.1");
    rig.zones.add_mx("backup.example", 5, "first.example").add_mx("backup.example", 10, "relay.example.net");
    rig.zones.add_address("first.example", "198.51.100.2");
    rig.mx("source.example", "third.example", "192.0.2.7");
    let mut settings = routes(&[]);
    settings.own_addresses = vec!["192.0.2.1".parse().unwrap()];
    let source =
        postrider_delivery::settings::SourceSettings { ipv4: Some("192.0.2.7".parse().unwrap()), ..Default::default() };
    settings.sources.insert("out1".into(), source);
    rig.deliver(settings);
    for domain in ["name.example", "address.example", "source.example"] {
        let id = rig.send(&[&format!("ann@{domain}")]).await;
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.status.to_string(), "5.4.6", "{domain}");
        assert!(outcome.disposition.is_terminal());
    }
    let id = rig.send(&["ann@backup.example"]).await;
    assert_eq!(rig.outcome(id).await.status.to_string(), "4.4.1");
    assert_eq!(rig.net.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_calls_itself_as_we_do_is_a_loop() {
    let greets = |name: &'static str| {
        move |moment: &crate::server::Moment| match moment.line.starts_with("EHLO") {
            true => Say::Reply(name),
            false => Say::Usual,
        }
    };
    for (greeting, is_loop) in [
        ("250 Relay.Example.NET at your service", true),
        ("250-relay.example.net\r\n250 SIZE", true),
        ("250 mx.example hello relay.example.net", false),
    ] {
        let mut rig = Rig::new().await;
        rig.mx("example.com", "mx.example", "198.51.100.1");
        rig.zones.add_mx("example.com", 20, "worse.example").add_address("worse.example", "198.51.100.2");
        let server = Server::scripted(&rig.net, "198.51.100.1:25", greets(greeting));
        let worse = Server::start(&rig.net, "198.51.100.2:25");
        rig.deliver(routes(&[]));
        let id = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.status.to_string() == "5.4.6", is_loop, "{greeting}: {outcome:?}");
        assert_eq!(server.seen().with("MAIL").is_empty(), is_loop, "{greeting}");
        assert_eq!(worse.seen().connections, 0, "{greeting}");
    }
    // A better host may come back; and the operator may know better.
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 5, "first.example").add_address("first.example", "198.51.100.2");
    rig.mx("example.com", "mx.example", "198.51.100.1");
    Server::scripted(&rig.net, "198.51.100.1:25", greets("250 relay.example.net"));
    rig.deliver(routes(&[("inside.example", "smtp://198.51.100.1")]));
    let id = rig.send(&["ann@example.com"]).await;
    assert_eq!(rig.outcome(id).await.status.to_string(), "4.4.1");
    let id = rig.send(&["ann@inside.example"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn equals_of_our_own_are_never_asked_whatever_their_order() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 10, "a.example").add_mx("example.com", 10, "z.example");
    rig.zones.add_mx("example.com", 10, "other.example").add_address("other.example", "192.0.2.1");
    rig.zones.add_address("a.example", "198.51.100.1").add_address("z.example", "198.51.100.2");
    let servers = ["198.51.100.1:25", "198.51.100.2:25"].map(|address| Server::start(&rig.net, address));
    rig.deliver(Settings { own_addresses: vec!["192.0.2.1".parse().unwrap()], ..routes(&[]) });
    for _ in 0..10 {
        let id = rig.send(&["ann@example.com"]).await;
        assert_eq!(rig.outcome(id).await.status.to_string(), "5.4.6");
    }
    assert!(servers.iter().all(|server| server.seen().connections == 0));
}

#[tokio::test(start_paused = true)]
async fn aliases_are_followed() {
    // RFC 5321 section 5.1 for the domain; for the MX, that it works all the same.
    let mut rig = Rig::new().await;
    rig.zones.add_alias("www.example.com", "example.com").add_alias("mx.example.com", "real.example.com");
    rig.zones.add_mx("example.com", 10, "mx.example.com").add_address("real.example.com", "198.51.100.1");
    rig.zones.add_alias("host.example.com", "real.example.com").add_alias("dangling.example.com", "gone.example.com");
    Server::start(&rig.net, "198.51.100.1:25");
    rig.deliver(routes(&[]));
    for domain in ["example.com", "www.example.com", "host.example.com"] {
        let id = rig.send(&[&format!("ann@{domain}")]).await;
        assert!(is_delivered(&rig.outcome(id).await), "{domain}");
    }
    rig.zones.add_alias("loop.example.com", "pool.example.com").add_alias("pool.example.com", "loop.example.com");
    for domain in ["dangling.example.com", "loop.example.com"] {
        let id = rig.send(&[&format!("ann@{domain}")]).await;
        assert_eq!(rig.outcome(id).await.status.to_string(), "4.4.0", "{domain}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_domain_costs_one_question_however_much_mail_there_is() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("homeless.example", 10, "mx.homeless.example");
    rig.zones.fail("broken.example", Failure::ServFail);
    let mut settings = routes(&[]);
    settings.limits.ready_per_site = 50;
    let mut deps = rig.deps(settings);
    let dns = postrider_dns::Settings::default();
    let cached = postrider_dns::Cached::new(rig.zones.clone(), rig.clock.clone(), rig.metrics.clone(), &dns);
    deps.resolver = Arc::new(cached);
    postrider_delivery::Delivery::start(deps, &rig.scope).unwrap();
    let names = ["missing.example", "homeless.example", "mx.homeless.example", "broken.example"];
    let mut ids = Vec::new();
    for _ in 0..500 {
        for domain in ["missing.example", "homeless.example", "broken.example"] {
            ids.push(rig.send(&[&format!("ann@{domain}")]).await);
        }
    }
    for id in ids {
        assert_eq!(rig.outcome(id).await.status.to_string(), "4.4.0");
    }
    for name in names {
        assert_eq!(rig.zones.queries(name), 1, "{name}");
    }
    assert_eq!(rig.net.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_loop_behind_a_better_host_without_address_is_waited_out() {
    for better in ["lost.example", "inside.example"] {
        let mut rig = Rig::new().await;
        rig.zones.add_mx("example.com", 5, better).add_mx("example.com", 10, "other.example");
        rig.zones.add_address("other.example", "192.0.2.1").add_address("inside.example", "10.0.0.1");
        rig.zones.fail("lost.example", Failure::ServFail);
        rig.deliver(Settings { own_addresses: vec!["192.0.2.1".parse().unwrap()], ..routes(&[]) });
        let id = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(id).await;
        assert_eq!(outcome.disposition, Disposition::Deferred(DelayType::TransientCommunicationFailure), "{better}");
        rig.zones.remove(better).add_address(better, "198.51.100.2");
        Server::start(&rig.net, "198.51.100.2:25");
        assert!(is_delivered(&rig.outcome(id).await), "{better}");
    }
    // One that is not better does not help.
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 10, "lost.example").add_mx("example.com", 10, "other.example");
    rig.zones.add_address("other.example", "192.0.2.1").fail("lost.example", Failure::ServFail);
    rig.deliver(Settings { own_addresses: vec!["192.0.2.1".parse().unwrap()], ..routes(&[]) });
    for _ in 0..5 {
        let id = rig.send(&["ann@example.com"]).await;
        assert_eq!(rig.outcome(id).await.status.to_string(), "5.4.6");
    }
}

/// Panics at the first question for mail exchangers.
struct Panics(Zones, AtomicBool);

impl Resolver for Panics {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Reply<Mx>> {
        assert!(self.1.swap(true, Ordering::Relaxed), "expected in this test");
        self.0.mx(domain)
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>> {
        self.0.addresses(host)
    }

    fn txt<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Reply<String>> {
        self.0.txt(name)
    }

    fn ptr<'a>(&'a self, ip: IpAddr) -> BoxFuture<'a, Reply<String>> {
        self.0.ptr(ip)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_panics_leaves_nobody_waiting() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example", "198.51.100.1");
    Server::start(&rig.net, "198.51.100.1:25");
    let mut deps = rig.deps(routes(&[]));
    deps.resolver = Arc::new(Panics(rig.zones.clone(), AtomicBool::new(false)));
    postrider_delivery::Delivery::start(deps, &rig.scope).unwrap();
    let id = rig.send(&["ann@example.com"]).await;
    assert_eq!(rig.outcome(id).await.disposition, Disposition::Deferred(DelayType::InternalFailure));
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn the_operators_routes_go_before_the_dns() {
    let mut rig = Rig::new().await;
    rig.zones.add_address("mail.inside", "10.0.0.2");
    Server::start(&rig.net, "10.0.0.1:2525");
    Server::start(&rig.net, "10.0.0.2:25");
    rig.deliver(routes(&[("example.com", "smtp://10.0.0.1:2525"), (".example.com", "smtp://mail.inside")]));
    for (to, port, ip) in [("ann@example.com", 2525, "10.0.0.1"), ("ann@a.example.com", 25, "10.0.0.2")] {
        let id = rig.send(&[to]).await;
        let outcome = rig.outcome(id).await;
        assert!(is_delivered(&outcome));
        let remote = outcome.remote.unwrap();
        assert_eq!((remote.port, remote.ip.unwrap().to_string().as_str()), (port, ip));
    }
    assert_eq!(rig.zones.queries("example.com"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_held_route_leaves_the_mail_in_the_queue_visibly() {
    let mut rig = Rig::new().await;
    let inbox = postrider_base::SimNet::new();
    Server::start(&inbox, "127.0.0.1:25");
    rig.built_in.insert("inbox".into(), std::sync::Arc::new(inbox));
    rig.deliver(routes(&[("*", "hold:"), ("inbox.example", "inbox:")]));
    rig.send(&["ann@example.com"]).await;
    let id = rig.send(&["ann@inbox.example"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    loop {
        let summary = rig.spool.summary().await.unwrap();
        if summary.iter().any(|queue| queue.held && queue.in_delivery == 0) {
            assert_eq!(summary.len(), 1);
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.net.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_built_in_route_is_refused_at_start() {
    let rig = Rig::new().await;
    let error = postrider_delivery::Delivery::start(rig.deps(routes(&[("*", "nowhere:")])), &rig.scope);
    assert!(error.err().unwrap().to_string().contains("\"nowhere:\""));
}
