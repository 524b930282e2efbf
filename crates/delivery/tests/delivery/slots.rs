//! Connections that the relay may have in all: who has one in vain leaves it to others.

use std::time::Duration;

use postrider_delivery::Settings;

use crate::rig::{Rig, is_delivered};
use crate::server::{Say, Server};

const HOSTS: [&str; 3] = ["one", "two", "three"];

/// Three domains with a host each, and one connection for all.
async fn rig() -> (Rig, Vec<Server>, Settings) {
    let rig = Rig::new().await;
    let mut servers = Vec::new();
    for (number, name) in HOSTS.iter().enumerate() {
        let ip = format!("198.51.100.{}", number + 1);
        rig.mx(&format!("{name}.example"), &format!("mx.{name}.example"), &ip);
        servers.push(Server::scripted(&rig.net, &format!("{ip}:25"), |moment| match moment.line.as_str() {
            line if line.starts_with("MAIL") => Say::After(Duration::from_millis(100), "250 ok"),
            _ => Say::Usual,
        }));
    }
    let mut settings = Settings::default();
    settings.limits.connections = 1;
    (rig, servers, settings)
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_makes_room_for_another_site() {
    let (mut rig, servers, settings) = rig().await;
    rig.deliver(settings);
    for name in HOSTS {
        let id = rig.send(&[&format!("ann@{name}.example")]).await;
        let outcome = rig.outcome(id).await;
        let waited = outcome.at.saturating_since(id.timestamp());
        // An idle connection is kept for ten seconds otherwise.
        assert!(is_delivered(&outcome) && waited < Duration::from_secs(1), "{name} {waited:?}");
    }
    assert!(servers.iter().all(|server| server.seen().open.1 == 1));
}

#[tokio::test(start_paused = true)]
async fn a_backlog_leaves_the_last_place_to_others_from_time_to_time() {
    let (mut rig, servers, settings) = rig().await;
    rig.deliver(settings);
    for _ in 0..200 {
        rig.send(&["ann@one.example"]).await;
    }
    servers[0].until(|seen| !seen.messages.is_empty()).await;
    let others = [rig.send(&["bob@two.example"]).await, rig.send(&["cat@three.example"]).await];
    for id in others {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    // The backlog asks for no second connection, whose turn would come before theirs.
    let taken = servers[0].seen().messages.len();
    assert!(taken <= 30, "{taken}");
    servers[0].until(|seen| seen.messages.len() == 200).await;
}
