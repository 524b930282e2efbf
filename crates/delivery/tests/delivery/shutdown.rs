//! What a stop waits for, and what it does not.

use std::time::Duration;

use crate::rig::{HOST, is_delivered, rig, routes};
use crate::server::{Say, Server};

#[tokio::test(start_paused = true)]
async fn before_the_final_dot_the_claim_goes_back_at_once() {
    for at in ["", "EHLO", "MAIL", "RCPT", "DATA"] {
        let rig = rig().await;
        let server = Server::scripted(&rig.net, HOST, move |moment| {
            let hit = if at.is_empty() { moment.line.is_empty() } else { moment.line.starts_with(at) };
            if hit { Say::Silence } else { Say::Usual }
        });
        rig.deliver(routes(&[]));
        let id = rig.send(&["ann@example.com"]).await;
        server.until(|seen| if at.is_empty() { seen.connections == 1 } else { !seen.with(at).is_empty() }).await;
        let began = rig.clock.now();
        rig.scope.clone().close(Duration::from_secs(60)).await.unwrap();
        assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(10), "{at}");
        let view = rig.spool.show(id).await.unwrap().unwrap();
        assert!(!view.recipients[0].done && !view.recipients[0].in_delivery, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn past_the_final_dot_the_reply_is_waited_for() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |_| Say::Usual);
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    server.until(|seen| seen.messages.len() == 1).await;
    rig.scope.clone().close(Duration::from_secs(60)).await.unwrap();
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_waiting() {
    let rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "." => Say::Silence,
        _ => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    server.until(|seen| !seen.with(".").is_empty()).await;
    let began = rig.clock.now();
    let late = rig.scope.clone().close(Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(late.names, ["test/delivery/connection"]);
    assert_eq!(rig.clock.now().saturating_since(began).as_secs(), 30);
    tokio::task::yield_now().await;
    let view = rig.spool.show(id).await.unwrap().unwrap();
    assert!(!view.recipients[0].done);
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_goes_back() {
    let rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("MAIL") {
        true => Say::Silence,
        false => Say::Usual,
    });
    for _ in 0..20 {
        rig.send(&["ann@example.com"]).await;
    }
    rig.deliver(routes(&[]));
    server.until(|seen| seen.with("MAIL").len() == 5).await;
    rig.scope.clone().close(Duration::from_secs(60)).await.unwrap();
    assert_eq!(rig.spool.stat().in_delivery, 0);
    assert_eq!(rig.spool.stat().messages, 20);
}
