//! Domains whose name servers hang, and everybody else.

use std::time::Duration;

use crate::rig::{HOUR, Rig, is_delivered, routes};
use crate::server::Server;

/// A relay with little room, and domains whose DNS takes an hour to answer.
async fn rig(hanging: usize, messages: usize) -> Rig {
    let rig = Rig::new().await;
    for n in 0..hanging {
        let domain = format!("slow{n}.example");
        rig.mx(&domain, &format!("mx.{domain}"), "198.51.100.7");
        rig.zones.delay(&domain, HOUR);
        for _ in 0..messages {
            rig.send(&[&format!("ann@{domain}")]).await;
        }
    }
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig
}

fn settings() -> postrider_delivery::Settings {
    let mut settings = routes(&[("static.example", "smtp://198.51.100.1")]);
    settings.limits.ready = 300;
    settings.limits.lookups = 4;
    settings
}

#[tokio::test(start_paused = true)]
async fn domains_whose_dns_hangs_leave_room_for_those_with_a_way() {
    for (domains, messages) in [(2, 500), (400, 1)] {
        let mut rig = rig(domains, messages).await;
        Server::start(&rig.net, "198.51.100.1:25");
        rig.deliver(settings());
        let began = rig.clock.now();
        for _ in 0..3 {
            let id = rig.send(&["bob@static.example"]).await;
            assert!(is_delivered(&rig.outcome(id).await));
        }
        assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_lookup_beyond_the_bounds_comes_after_it() {
    let mut rig = rig(20, 50).await;
    let server = Server::start(&rig.net, "198.51.100.1:25");
    rig.deliver(settings());
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(rig.send(&["bob@example.com"]).await);
    }
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    // All of the slow ones are deferred in their turn.
    server.until(|seen| seen.messages.len() == 100).await;
    let others = rig.spool.list(&postrider_spool::Selector::All, 2_000).await.unwrap();
    assert_eq!(others.len(), 1_000);
    tokio::time::sleep(HOUR / 4).await;
    let others = rig.spool.list(&postrider_spool::Selector::All, 2_000).await.unwrap();
    assert!(others.iter().all(|entry| entry.attempts > 0), "{:?}", others.iter().filter(|e| e.attempts == 0).count());
}

#[tokio::test(start_paused = true)]
async fn what_is_read_from_the_index_is_read_once_whatever_comes_in_between() {
    let mut rig = Rig::new().await;
    let server = Server::start(&rig.net, "198.51.100.1:25");
    let mut ids = Vec::new();
    for n in 0..300 {
        // Each answer of the DNS is news while others are read.
        let domain = format!("d{n}.example");
        rig.mx(&domain, "mx.example.com", "198.51.100.1");
        rig.zones.delay(&domain, Duration::from_millis(n));
        ids.push(rig.send(&[&format!("ann@{domain}")]).await);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(rig.spool.stat().young, 0);
    let before = rig.disk.stats().reads;
    rig.deliver(routes(&[]));
    for id in ids {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    assert_eq!(server.seen().messages.len(), 300);
    // The message for its claim, and its content; a few of the feed's.
    let reads = rig.disk.stats().reads - before;
    assert!(reads <= 2 * 300 + 100, "{reads}");
}
