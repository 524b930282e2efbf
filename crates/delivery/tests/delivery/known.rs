//! What the relay remembers of hosts.

use std::time::Duration;

use postrider_delivery::Settings;

use crate::rig::{Rig, is_delivered, routes};
use crate::server::Server;

/// A connection for each message.
fn one_each() -> Settings {
    let mut settings = routes(&[]);
    settings.limits.messages_per_connection = 1;
    settings
}

/// The address that took the next message.
async fn taken_by(rig: &mut Rig, to: &str) -> String {
    let id = rig.send(&[to]).await;
    let outcome = rig.outcome(id).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    outcome.remote.unwrap().ip.unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn the_address_that_answered_last_is_dialled_first() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 10, "mx.example");
    for n in 1..=3 {
        rig.zones.add_address("mx.example", &format!("198.51.100.{n}"));
    }
    Server::start(&rig.net, "198.51.100.2:25");
    Server::start(&rig.net, "198.51.100.3:25");
    rig.deliver(one_each());
    for dials in [2, 3] {
        assert_eq!(taken_by(&mut rig, "ann@example.com").await, "198.51.100.2");
        assert_eq!(rig.net.dials(), dials);
    }
    // Now it does not answer any more.
    rig.net.silence("198.51.100.2:25".parse().unwrap());
    for dials in [5, 6] {
        assert_eq!(taken_by(&mut rig, "ann@example.com").await, "198.51.100.3");
        assert_eq!(rig.net.dials(), dials);
    }
}

#[tokio::test(start_paused = true)]
async fn among_equals_a_host_that_did_not_answer_is_asked_last_for_a_while() {
    let mut rig = Rig::new().await;
    rig.zones.add_mx("example.com", 10, "dead.example").add_address("dead.example", "198.51.100.1");
    rig.zones.add_mx("example.com", 10, "live.example").add_address("live.example", "198.51.100.2");
    Server::start(&rig.net, "198.51.100.2:25");
    rig.deliver(one_each());
    for _ in 0..20 {
        taken_by(&mut rig, "ann@example.com").await;
    }
    assert_eq!(rig.net.dials(), 21);
    tokio::time::sleep(Duration::from_secs(301)).await;
    let revived = Server::start(&rig.net, "198.51.100.1:25");
    for _ in 0..20 {
        taken_by(&mut rig, "ann@example.com").await;
    }
    assert!(revived.seen().connections > 0);
}

#[tokio::test(start_paused = true)]
async fn no_family_keeps_the_other_from_being_tried() {
    for (prefer_ipv4, live) in [(true, "2001:db8::1"), (false, "198.51.100.9")] {
        let mut rig = Rig::new().await;
        rig.zones.add_mx("example.com", 10, "mx.example").add_address("mx.example", live);
        for n in 1..=8 {
            let dead = if prefer_ipv4 { format!("198.51.100.{n}") } else { format!("2001:db8::1:{n}") };
            rig.zones.add_address("mx.example", &dead);
        }
        Server::start(&rig.net, &std::net::SocketAddr::new(live.parse().unwrap(), 25).to_string());
        rig.deliver(Settings { prefer_ipv4, ..one_each() });
        assert_eq!(taken_by(&mut rig, "ann@example.com").await, live);
        assert_eq!(rig.net.dials(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_family_that_no_network_leads_to_is_tried_last_everywhere() {
    let mut rig = Rig::new().await;
    for n in 1..=3 {
        let (host, domain) = (format!("mx{n}.example"), format!("example{n}.com"));
        rig.mx(&domain, &host, &format!("2001:db8::{n}"));
        rig.zones.add_address(&host, &format!("198.51.100.{n}"));
        rig.net.cut_off(format!("[2001:db8::{n}]:25").parse().unwrap());
        Server::start(&rig.net, &format!("198.51.100.{n}:25"));
    }
    rig.deliver(Settings { prefer_ipv4: false, ..one_each() });
    for (n, dials) in [(1, 2), (2, 3), (3, 4)] {
        assert_eq!(taken_by(&mut rig, &format!("ann@example{n}.com")).await, format!("198.51.100.{n}"));
        assert_eq!(rig.net.dials(), dials);
    }
}
