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

/// Domains that announce a policy which a silent host has.
fn add_domains_with_a_silent_policy_host(rig: &Rig, name: &str, count: usize) -> Vec<String> {
    rig.net.silence("198.51.100.80:443".parse().unwrap());
    let domains: Vec<_> = (0..count).map(|n| format!("{name}{n}.example")).collect();
    for domain in &domains {
        rig.mx(domain, "mx.example.com", "198.51.100.1");
        rig.zones.add_txt(&format!("_mta-sts.{domain}"), "v=STSv1; id=1;");
        rig.zones.add_address(&format!("mta-sts.{domain}"), "198.51.100.80");
    }
    domains
}

#[tokio::test(start_paused = true)]
async fn domains_whose_policy_hosts_hang_leave_room_for_all_others() {
    let mut rig = rig(0, 0).await;
    let server = Server::start(&rig.net, "198.51.100.1:25");
    let mut settings = settings();
    settings.limits.sts_fetches = 2;
    settings.limits.ready_per_lookup = 3;
    let authority = crate::web::Authority::new();
    settings.tls.ca_file = Some(authority.file());
    let mut hanging = Vec::new();
    for domain in add_domains_with_a_silent_policy_host(&rig, "slow", 40) {
        for _ in 0..10 {
            hanging.push(rig.send(&[&format!("ann@{domain}")]).await);
        }
    }
    rig.deliver(settings);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Others have their hosts looked up as ever.
    let began = rig.clock.now();
    for _ in 0..3 {
        let id = rig.send(&["bob@example.com"]).await;
        assert!(is_delivered(&rig.outcome(id).await));
    }
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(1));
    // Another account's domain is not behind all of them.
    let other = add_domains_with_a_silent_policy_host(&rig, "other", 1);
    let mut message = rig.message(&[&format!("ann@{}", other[0])]);
    message.account = postrider_mail::AccountId::new(2).unwrap();
    let id = rig.accept(message).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(5 * 60));
    assert!(server.seen().messages.len() < 100);
    // And these have their turns.
    for id in hanging {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    assert!(rig.clock.now().saturating_since(began) < HOUR);
    assert_eq!(rig.metrics.outbound_sought.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_lookup_that_is_not_needed_any_more_leaves() {
    let mut rig = rig(100, 1).await;
    let server = Server::start(&rig.net, "198.51.100.1:25");
    let delivery = rig.deliver(settings());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut settings = settings();
    settings.routes = routes(&[("*", "smtp://198.51.100.1")]).routes;
    delivery.reload(settings).unwrap();
    // One that comes says that the settings have changed.
    let id = rig.send(&["bob@example.com"]).await;
    assert!(is_delivered(&rig.outcome(id).await));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Those that are being looked up wait for that.
    assert_eq!(server.seen().messages.len(), 1 + 92);
    tokio::time::sleep(HOUR).await;
    assert_eq!(server.seen().messages.len(), 1 + 100);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_lookups_that_all_end_together_leaves() {
    let rig = rig(100, 1).await;
    let server = Server::start(&rig.net, "198.51.100.1:25");
    let delivery = rig.deliver(settings());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut settings = settings();
    settings.routes = routes(&[("*", "smtp://198.51.100.1")]).routes;
    delivery.reload(settings).unwrap();
    // Nothing comes until then.
    tokio::time::sleep(HOUR).await;
    assert_eq!(server.seen().messages.len(), 100);
}
