//! What waits inside delivery: for how long, and in which order.

use std::time::Duration;

use postrider_delivery::shaping::PauseRequest;
use postrider_mail::{AccountId, BounceKind, Disposition, MessageId};
use postrider_spool::{Durability, OriginKind, QueueKey, Record, Selector};

use crate::rig::{DAY, HOST, HOUR, Rig, is_delivered, rig, routes};
use crate::server::{Say, Server};

/// A host that is silent after MAIL, so that each connection is held for five
/// minutes with each message.
fn hanging(rig: &Rig) -> Server {
    Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("MAIL") {
        true => Say::Silence,
        false => Say::Usual,
    })
}

async fn send_for(rig: &Rig, recipient: &str, life: Duration) -> MessageId {
    let mut message = rig.message(&[recipient]);
    message.expires_at = message.accepted_at.saturating_add(life);
    rig.accept(message).await
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_it_waits_bounces_in_time_and_once() {
    let mut rig = rig().await;
    hanging(&rig);
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    let senders = Server::start(&rig.net, "198.51.100.9:25");
    let mut settings = routes(&[]);
    settings.limits.connections_per_site = 1;
    settings.limits.initial_connections_per_site = 1;
    settings.limits.ready_per_site = 5;
    let began = rig.clock.now();
    // One is in delivery, five are ready, and the rest is parked.
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(send_for(&rig, "ann@example.com", HOUR / 20).await);
    }
    rig.deliver(settings);
    let mut tried = 0;
    for id in ids {
        let outcomes = rig.until_final(id).await;
        let last = outcomes.last().unwrap();
        assert_eq!(last.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
        assert_eq!(last.status.to_string(), "4.4.7");
        if outcomes.len() == 1 && last.remote.is_none() {
            assert_eq!(
                last.diagnostic,
                "550 4.4.7 Message expired: unable to deliver in 3 minutes.<421 4.4.5 The message waited for its turn>"
            );
            assert_eq!(last.at.saturating_since(began).as_secs(), 180);
        } else {
            tried += 1;
        }
    }
    assert!(tried <= 2, "{tried}");
    senders.until(|seen| seen.messages.len() == 50).await;
    tokio::time::sleep(DAY).await;
    assert_eq!((senders.seen().messages.len(), rig.spool.stat().messages), (50, 0));
}

#[tokio::test(start_paused = true)]
async fn what_expires_behind_a_pause_without_end_leaves_the_others_where_they_are() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    let delivery = rig.deliver(routes(&[]));
    let pause = PauseRequest { name: "example.com".into(), source: None, time: None, reason: None };
    delivery.pause(pause).await.unwrap();
    let began = rig.clock.now();
    let (mut long, mut short) = (Vec::new(), Vec::new());
    for n in 0..320u32 {
        match n % 16 {
            0 => short.push((n, send_for(&rig, "ann@example.com", HOUR + n * Duration::from_secs(60)).await)),
            _ => long.push(rig.send(&["bob@example.com"]).await),
        }
    }
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(rig.spool.stat().young, 0);
    let before = rig.disk.stats().reads;
    for (n, id) in short {
        let outcome = rig.outcome(id).await;
        assert!(matches!(outcome.disposition, Disposition::Bounced(_)), "{outcome:?}");
        assert_eq!(outcome.at.saturating_since(began), HOUR + n * Duration::from_secs(60));
    }
    // Those that expire are read, and a few of the feed's and the notifications'.
    let reads = rig.disk.stats().reads - before;
    assert!(reads < 300, "{reads}");
    assert_eq!(delivery.resume("example.com", None).await.unwrap(), 1);
    for id in long {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    assert_eq!(server.seen().messages.len(), 300);
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_before_expires_with_what_was_said_then() {
    let mut rig = rig().await;
    // The first message is deferred; then the host hangs.
    Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "RCPT TO:<ann@example.com>" => Say::Reply("452 4.2.2 mailbox full"),
        "RCPT TO:<bob@example.com>" => Say::Silence,
        _ => Say::Usual,
    });
    let mut settings = routes(&[]);
    settings.limits.connections_per_site = 1;
    settings.limits.initial_connections_per_site = 1;
    settings.timeouts.rcpt = postrider_base::Period::from_hours(1);
    settings.timeouts.transaction = postrider_base::Period::from_hours(1);
    rig.deliver(settings);
    let id = send_for(&rig, "ann@example.com", Duration::from_secs(600)).await;
    assert!(!rig.outcome(id).await.disposition.is_terminal());
    rig.send(&["bob@example.com"]).await;
    let last = rig.outcome(id).await;
    assert_eq!(last.disposition, Disposition::Bounced(BounceKind::TransientMailboxFull));
    assert_eq!(last.diagnostic, "550 4.4.7 Message expired: unable to deliver in 10 minutes.<452 4.2.2 mailbox full>");
    assert_eq!(last.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn the_attempt_that_is_due_at_the_very_end_is_made() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.connection {
        0 if moment.line.starts_with("RCPT") => Say::Reply("450 4.2.0 greylisted"),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[]));
    // The first retry would be after two minutes.
    let id = send_for(&rig, "ann@example.com", Duration::from_secs(60)).await;
    let outcomes = rig.until_final(id).await;
    assert!(outcomes.len() == 2 && is_delivered(&outcomes[1]), "{outcomes:?}");
    assert_eq!(server.seen().messages.len(), 1);
}

/// The order in which a host with one connection takes messages, by the first
/// letter of the recipients.
async fn order(rig: &mut Rig, messages: &[(u64, &str, usize)]) -> String {
    let server = Server::start(&rig.net, HOST);
    let mut settings = routes(&[]);
    settings.limits.connections_per_site = 1;
    settings.limits.initial_connections_per_site = 1;
    let mut ids = Vec::new();
    for (account, recipient, count) in messages {
        for _ in 0..*count {
            let mut message = rig.message(&[recipient]);
            message.account = AccountId::new(*account).unwrap();
            message.origin.kind = OriginKind::Operator;
            ids.push(rig.accept(message).await);
        }
    }
    rig.deliver(settings);
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    let seen = server.seen();
    let letters = seen.with("RCPT").into_iter().map(|line| line.chars().nth("RCPT TO:<".len()).unwrap());
    letters.collect()
}

#[tokio::test(start_paused = true)]
async fn accounts_and_their_domains_share_a_site_in_turn() {
    let mut rig = rig().await;
    for domain in ["b.example", "c.example"] {
        rig.zones.add_mx(domain, 10, "mx.example.com");
    }
    // 'a' came first, and in hundreds.
    let order = order(
        &mut rig,
        &[(1, "a@example.com", 300), (1, "b@b.example", 3), (2, "x@example.com", 3), (3, "z@c.example", 1)],
    )
    .await;
    assert_eq!(order.len(), 307);
    let last = |letter| order.rfind(letter).unwrap();
    // The lookups of the other domains end a little later than the first one.
    assert!(last('x') < 10, "{}", &order[..30]);
    assert!(last('z') < 20, "{}", &order[..30]);
    assert!(last('b') < 30, "{}", &order[..40]);
}

#[tokio::test(start_paused = true)]
async fn dead_and_hanging_sites_leave_room_for_the_living() {
    let mut rig = Rig::new().await;
    let mut settings = routes(&[]);
    settings.limits.connections = 100;
    settings.limits.ready = 2_000;
    // More dead sites than half the connections, with more mail than delivery holds.
    for n in 0..60 {
        let (domain, host, ip) =
            (format!("dead{n}.example"), format!("mx.dead{n}.example"), format!("198.51.100.{}", n + 20));
        rig.mx(&domain, &host, &ip);
        rig.net.silence(format!("{ip}:25").parse().unwrap());
        for _ in 0..100 {
            rig.send(&[&format!("ann@{domain}")]).await;
        }
    }
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let server = Server::start(&rig.net, HOST);
    let began = rig.clock.now();
    rig.deliver(settings);
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(rig.send(&["bob@example.com"]).await);
    }
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    assert_eq!(server.seen().messages.len(), 200);
    // Before any of the dead had its time.
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(30));
}

/// Leaves no room on the disk, not even for what follows from messages.
async fn fill(rig: &Rig) {
    rig.disk.set_capacity(Some(0));
    for size in [100_000, 1_000] {
        let write = || async {
            let mut message = rig.message(&["full@example.org"]);
            message.content = vec![b'x'; size].into();
            rig.spool.commit(vec![Record::Message(message)], Durability::Synced).await
        };
        while write().await.is_ok() {}
    }
    let last = Selector::Domain("full.example".parse().unwrap());
    while rig.spool.hold(&last).await.is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_held_while_the_disk_is_full_is_held_when_there_is_room() {
    let rig = Rig::new().await;
    let ids = [rig.send(&["ann@example.com"]).await, rig.send(&["bob@example.net"]).await];
    fill(&rig).await;
    rig.deliver(routes(&[("*", "hold:")]));
    tokio::time::sleep(HOUR).await;
    let held = |domain: &str| {
        let queue = QueueKey { account: AccountId::default(), domain: domain.parse().unwrap() };
        rig.spool.hold_of(&queue).is_some()
    };
    assert!(!held("example.com") && !held("example.net"));
    rig.disk.set_capacity(None);
    tokio::time::sleep(HOUR / 60).await;
    assert!(held("example.com") && held("example.net"));
    let waiting = rig.spool.list(&Selector::All, 1_000).await.unwrap();
    assert!(ids.iter().all(|id| waiting.iter().any(|entry| entry.id == *id)));
}
