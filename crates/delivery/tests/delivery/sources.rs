//! Which address mail leaves from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_account::ConfigurationOption;
use postrider_delivery::settings::{Excess, OnBlock, SourceSettings, WarmUpSettings};
use postrider_delivery::{Delivery, Settings, SourceCounts};
use postrider_mail::{AccountId, AttemptOutcome, Disposition, MessageId};

use crate::rig::{DAY, HOUR, Rig, is_delivered, routes};
use crate::server::{Moment, Say, Server};

/// Sources that need no warm-up, at these addresses.
fn sources(addresses: &[(&str, &str)]) -> Settings {
    let source = |(name, ip): &(&str, &str)| {
        let mut source = SourceSettings { warm_up_start: 100, ..SourceSettings::default() };
        match ip.parse().unwrap() {
            IpAddr::V4(ip) => source.ipv4 = Some(ip),
            IpAddr::V6(ip) => source.ipv6 = Some(ip),
        }
        ((*name).to_owned(), source)
    };
    Settings { sources: addresses.iter().map(source).collect(), ..routes(&[]) }
}

/// What a host says to a command from somewhere.
type Answer = fn(&Moment) -> Say;

/// A host for example.com.
fn host(rig: &Rig, answer: Answer) -> Server {
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    Server::scripted(&rig.net, "198.51.100.1:25", answer)
}

fn usual(_: &Moment) -> Say {
    Say::Usual
}

/// A configuration set that leaves from a pool with these sources.
async fn set(rig: &Rig, name: &str, members: &[(&str, u32)]) {
    let account = AccountId::default();
    rig.accounts.pools().create(account, name).await.unwrap();
    for (source, weight) in members {
        rig.accounts.pools().assign(account, name, source, *weight).await.unwrap();
    }
    let options = vec![ConfigurationOption::Pool(Some(name.to_owned()))];
    rig.accounts.configuration_sets().create(account, name, options).await.unwrap();
}

async fn send_with(rig: &Rig, set: &str, to: &str) -> MessageId {
    let mut message = rig.message(&[to]);
    message.origin.configuration_set = Some(set.to_owned());
    rig.accept(message).await
}

fn source_of(outcome: &AttemptOutcome) -> String {
    outcome.remote.as_ref().unwrap().source_ip.unwrap().to_string()
}

fn counts(delivery: &Delivery, name: &str) -> SourceCounts {
    let view = delivery.sources().into_iter().find(|source| source.name == name).unwrap();
    view.days.last().map(|(_, counts)| *counts).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn mail_leaves_from_the_source_under_its_own_name() {
    let mut rig = Rig::new().await;
    let server = host(&rig, usual);
    let mut settings = sources(&[("out1", "192.0.2.1")]);
    settings.sources.get_mut("out1").unwrap().ehlo_name = Some("out1.example.net".into());
    rig.deliver(settings);
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert_eq!(source_of(&outcome), "192.0.2.1");
    assert_eq!(server.seen().with("EHLO"), ["EHLO out1.example.net"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_serves_its_sets_by_weight_and_nobody_else() {
    let mut rig = Rig::new().await;
    host(&rig, usual);
    set(&rig, "news", &[("out2", 3), ("out3", 1)]).await;
    rig.deliver(sources(&[("out1", "192.0.2.1"), ("out2", "192.0.2.2"), ("out3", "192.0.2.3")]));
    for _ in 0..5 {
        let id = rig.send(&["ann@example.com"]).await;
        assert_eq!(source_of(&rig.outcome(id).await), "192.0.2.1");
    }
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..40 {
        let id = send_with(&rig, "news", "ann@example.com").await;
        let outcome = rig.outcome(id).await;
        assert!(is_delivered(&outcome));
        *tally.entry(source_of(&outcome)).or_default() += 1;
    }
    assert!(tally["192.0.2.2"].abs_diff(30) <= 3 && tally["192.0.2.3"].abs_diff(10) <= 3, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn greylisting_ends_with_the_second_attempt() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let known = Mutex::new(Vec::new());
    Server::scripted(&rig.net, "198.51.100.1:25", move |moment| {
        let key = (moment.from, moment.line.clone());
        if !moment.line.starts_with("RCPT") || known.lock().contains(&key) {
            return Say::Usual;
        }
        known.lock().push(key);
        Say::Reply("450 4.7.1 greylisted, come back")
    });
    rig.deliver(sources(&[("a", "192.0.2.1"), ("b", "192.0.2.2"), ("c", "192.0.2.3"), ("d", "192.0.2.4")]));
    for n in 0..8 {
        let id = rig.send(&[&format!("user{n}@example.com")]).await;
        let first = rig.outcome(id).await;
        assert!(matches!(first.disposition, Disposition::Deferred(_)), "{first:?}");
        let second = rig.outcome(id).await;
        assert!(is_delivered(&second), "{second:?}");
        assert_eq!(source_of(&first), source_of(&second));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_addresses_holds_its_mail_until_it_has_one() {
    let mut rig = Rig::new().await;
    let server = host(&rig, usual);
    set(&rig, "news", &[]).await;
    rig.deliver(sources(&[("out1", "192.0.2.1"), ("out2", "192.0.2.2")]));
    let id = send_with(&rig, "news", "ann@example.com").await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(server.seen().connections, 0);
    rig.accounts.pools().assign(AccountId::default(), "news", "out2", 1).await.unwrap();
    let outcomes = rig.until_final(id).await;
    assert!(is_delivered(outcomes.last().unwrap()));
    assert_eq!(source_of(outcomes.last().unwrap()), "192.0.2.2");
}

#[tokio::test(start_paused = true)]
async fn a_new_address_sends_its_plan_and_the_rest_leaves_from_the_others() {
    let mut rig = Rig::new().await;
    host(&rig, usual);
    let mut settings = sources(&[("new", "192.0.2.1"), ("old", "192.0.2.2")]);
    settings.sources.get_mut("new").unwrap().warm_up_start = 90;
    settings.warm_up = WarmUpSettings { daily: vec![10], ..WarmUpSettings::default() };
    let delivery = rig.deliver(settings);
    for day in 0..2 {
        let mut new = 0;
        for _ in 0..40 {
            let id = rig.send(&["ann@example.com"]).await;
            let outcome = rig.outcome(id).await;
            assert!(is_delivered(&outcome));
            new += usize::from(source_of(&outcome) == "192.0.2.1");
        }
        assert_eq!(new, 10, "day {day}");
        assert_eq!(counts(&delivery, "new").delivered, 10);
        assert_eq!(counts(&delivery, "old").delivered, 30);
        tokio::time::sleep(DAY).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_new_address_alone_may_not_send_today_is_sent_tomorrow() {
    let mut rig = Rig::new().await;
    host(&rig, usual);
    let mut settings = sources(&[("new", "192.0.2.1")]);
    settings.sources.get_mut("new").unwrap().warm_up_start = 0;
    settings.warm_up = WarmUpSettings { daily: vec![3], excess: Excess::Wait, ..WarmUpSettings::default() };
    rig.deliver(settings);
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.push(rig.send(&["ann@example.com"]).await);
    }
    let began = rig.clock.now();
    let mut days = Vec::new();
    for id in sent {
        let outcomes = rig.until_final(id).await;
        let last = outcomes.last().unwrap();
        assert!(is_delivered(last), "{last:?}");
        days.push(last.at.as_millis() / 86_400_000 - began.as_millis() / 86_400_000);
    }
    days.sort_unstable();
    assert_eq!(days, [0, 0, 0, 1, 1]);
}

/// A relay whose one new address has sent today's mail: the message that waits, and
/// the settings.
async fn one_that_waits(rig: &mut Rig) -> (Delivery, MessageId, Settings) {
    host(rig, usual);
    let mut settings = sources(&[("new", "192.0.2.1")]);
    settings.sources.get_mut("new").unwrap().warm_up_start = 0;
    settings.warm_up = WarmUpSettings { daily: vec![1], excess: Excess::Wait, ..WarmUpSettings::default() };
    let delivery = rig.deliver(settings.clone());
    let first = rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&rig.outcome(first).await));
    let second = rig.send(&["ann@example.com"]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.spool.stat().messages, 1);
    (delivery, second, settings)
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_warm_up_leaves_when_its_operator_ends_it() {
    let mut rig = Rig::new().await;
    let (delivery, waiting, _) = one_that_waits(&mut rig).await;
    let began = rig.clock.now();
    delivery.warm_up("new", 100).await.unwrap();
    assert!(is_delivered(&rig.outcome(waiting).await));
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_warm_up_leaves_from_a_source_that_is_added() {
    let mut rig = Rig::new().await;
    let (delivery, waiting, mut settings) = one_that_waits(&mut rig).await;
    let began = rig.clock.now();
    settings.sources.extend(sources(&[("old", "192.0.2.2")]).sources);
    delivery.reload(settings).unwrap();
    let outcome = rig.outcome(waiting).await;
    assert!(is_delivered(&outcome) && source_of(&outcome) == "192.0.2.2", "{outcome:?}");
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_address_of_its_pool_leaves_when_the_pool_gets_one() {
    let mut rig = Rig::new().await;
    host(&rig, usual);
    set(&rig, "codes", &[]).await;
    rig.deliver(sources(&[("out1", "192.0.2.1")]));
    let id = send_with(&rig, "codes", "ann@example.com").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = rig.clock.now();
    rig.accounts.pools().assign(AccountId::default(), "codes", "out1", 1).await.unwrap();
    assert!(is_delivered(&rig.outcome(id).await));
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn ipv6_leaves_only_from_an_address_whose_name_is_confirmed() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "2001:db8::1");
    Server::start(&rig.net, "[2001:db8::1]:25");
    let mut settings = sources(&[("out1", "192.0.2.1")]);
    settings.sources.get_mut("out1").unwrap().ipv6 = Some("2001:db8:1::25".parse().unwrap());
    rig.deliver(settings);
    let id = rig.send(&["ann@example.com"]).await;
    assert!(matches!(rig.outcome(id).await.disposition, Disposition::Deferred(_)), "there is no way over IPv4");
    rig.zones.add_ptr("2001:db8:1::25", "out1.example.net").add_address("out1.example.net", "2001:db8:1::25");
    let outcomes = rig.until_final(id).await;
    assert!(is_delivered(outcomes.last().unwrap()));
    assert_eq!(source_of(outcomes.last().unwrap()), "2001:db8:1::25");
}

#[tokio::test(start_paused = true)]
async fn what_became_of_its_mail_is_counted_for_each_address() {
    let mut rig = Rig::new().await;
    host(&rig, |moment| match moment.line.as_str() {
        line if line.contains("<gone@") => Say::Reply("550 5.1.1 no such user"),
        line if line.contains("<late@") && moment.connection == 0 => Say::Reply("450 4.2.1 later"),
        _ => Say::Usual,
    });
    let delivery = rig.deliver(sources(&[("out1", "192.0.2.1")]));
    let id = rig.send(&["ann@example.com", "gone@example.com", "late@example.com"]).await;
    rig.outcomes(id, 3).await;
    let now = counts(&delivery, "out1");
    assert_eq!((now.attempts, now.delivered, now.deferred, now.bounced, now.blocked), (1, 1, 1, 1, 0));
    assert!(rig.metrics.encode().contains("postrider_source_delivered_total{source=\"out1\"} 1"));
}

/// A host that has the first source on a list for so long.
fn lists_the_first(rig: &Rig, time: Duration) {
    let until = rig.clock.now().saturating_add(time);
    let clock = rig.clock.clone();
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    Server::scripted(&rig.net, "198.51.100.1:25", move |moment| {
        let is_listed = moment.from.to_string() == "192.0.2.1" && clock.now() < until;
        match moment.line.starts_with("RCPT") && is_listed {
            true => Say::Reply("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"),
            false => Say::Usual,
        }
    });
}

/// So many messages, one after the other; where each left from, if it did.
async fn send_one_by_one(rig: &mut Rig, count: usize) -> Vec<Option<String>> {
    let mut from = Vec::new();
    for _ in 0..count {
        let id = rig.send(&["ann@example.com"]).await;
        let outcomes = rig.until_final(id).await;
        let last = outcomes.last().unwrap();
        from.push(is_delivered(last).then(|| source_of(last)));
    }
    from
}

#[tokio::test(start_paused = true)]
async fn mail_moves_away_from_a_blocked_address_where_it_may() {
    let mut rig = Rig::new().await;
    lists_the_first(&rig, DAY);
    let mut settings = sources(&[("a", "192.0.2.1"), ("b", "192.0.2.2")]);
    settings.sources.values_mut().for_each(|source| source.on_block = OnBlock::Move);
    let delivery = rig.deliver(settings);
    let began = rig.clock.now();
    let from = send_one_by_one(&mut rig, 20).await;
    let b = from.iter().flatten().filter(|from| *from == "192.0.2.2").count();
    assert_eq!(b, 20, "the message that heard of it, too: {from:?}");
    assert_eq!(counts(&delivery, "a").blocked, 1, "it was not asked again");
    assert!(rig.clock.now().saturating_since(began) < HOUR, "nothing waited for the pause");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_lane_of_a_blocked_address_moves_too() {
    let mut rig = Rig::new().await;
    lists_the_first(&rig, DAY);
    let mut settings = sources(&[("a", "192.0.2.1"), ("b", "192.0.2.2")]);
    settings.sources.values_mut().for_each(|source| source.on_block = OnBlock::Move);
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(rig.send(&["ann@example.com"]).await);
    }
    let began = rig.clock.now();
    rig.deliver(settings);
    for id in ids {
        let outcomes = rig.until_final(id).await;
        assert!(is_delivered(outcomes.last().unwrap()), "{outcomes:?}");
    }
    let waited = rig.clock.now().saturating_since(began);
    assert!(waited < HOUR / 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn where_all_addresses_are_blocked_mail_waits_for_the_first_that_is_free() {
    let mut rig = Rig::new().await;
    let (clock, until) = (rig.clock.clone(), rig.clock.now().saturating_add(HOUR / 2));
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    Server::scripted(&rig.net, "198.51.100.1:25", move |moment| match moment.from.to_string().as_str() {
        "192.0.2.1" if moment.line.starts_with("RCPT") => {
            Say::Reply("554 5.7.1 blocked using zen.spamhaus.org, try again in 4 hours")
        }
        _ if moment.line.starts_with("RCPT") && clock.now() < until => {
            Say::Reply("554 5.7.1 blocked using zen.spamhaus.org, try again in 1 hour")
        }
        _ => Say::Usual,
    });
    let mut settings = sources(&[("a", "192.0.2.1"), ("b", "192.0.2.2")]);
    settings.sources.values_mut().for_each(|source| source.on_block = OnBlock::Move);
    let delivery = rig.deliver(settings);
    let first = rig.send(&["ann@example.com"]).await;
    for _ in 0..2 {
        assert!(matches!(rig.outcome(first).await.disposition, Disposition::Deferred(_)));
    }
    assert_eq!((counts(&delivery, "a").blocked, counts(&delivery, "b").blocked), (1, 1));
    let began = rig.clock.now();
    let mut ids = vec![first];
    for n in 0..20 {
        let domain = format!("d{n}.example");
        rig.zones.add_mx(&domain, 10, "mx.example.com");
        ids.push(rig.send(&[&format!("ann@{domain}")]).await);
    }
    for id in ids {
        let outcomes = rig.until_final(id).await;
        assert!(is_delivered(outcomes.last().unwrap()), "{outcomes:?}");
    }
    let waited = rig.clock.now().saturating_since(began);
    assert!(waited < 2 * HOUR, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn mail_waits_at_a_blocked_address_where_it_may_not_move() {
    let mut rig = Rig::new().await;
    lists_the_first(&rig, HOUR * 5 / 2);
    let delivery = rig.deliver(sources(&[("a", "192.0.2.1"), ("b", "192.0.2.2")]));
    let began = rig.clock.now();
    let from = send_one_by_one(&mut rig, 20).await;
    let a = from.iter().flatten().filter(|from| *from == "192.0.2.1").count();
    assert!(from.iter().all(Option::is_some), "{from:?}");
    assert!(a >= 4, "those that waited until the list forgot: {from:?}");
    assert!(rig.clock.now().saturating_since(began) >= HOUR * 5 / 2);
    let blocked: u64 = delivery.sources()[0].days.iter().map(|(_, counts)| counts.blocked).sum();
    assert!((2..=4).contains(&blocked), "one after each pause: {blocked}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_where_mail_leaves_from() {
    let mut rig = Rig::new().await;
    host(&rig, usual);
    let delivery = rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    assert_eq!(source_of(&rig.outcome(id).await), "127.0.0.1", "the system's choice");
    delivery.reload(sources(&[("out1", "192.0.2.1")])).unwrap();
    let id = rig.send(&["ann@example.com"]).await;
    assert_eq!(source_of(&rig.outcome(id).await), "192.0.2.1");
}
