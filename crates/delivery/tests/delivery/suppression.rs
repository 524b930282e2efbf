//! Suppressed recipients are never named to anybody.

use postrider_mail::{AccountId, Disposition, SuppressionReason};

use crate::rig::{Rig, is_delivered, routes};
use crate::server::{Say, Server};

async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig
}

async fn suppress(rig: &Rig, address: &str) {
    let (account, address) = (AccountId::default(), address.parse().unwrap());
    rig.accounts.suppression().put(account, &address, SuppressionReason::Complaint).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_others_of_the_message_are_delivered() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, "198.51.100.1:25");
    suppress(&rig, "Bob@example.com").await;
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com", "bob@example.com", "cat@example.com"]).await;
    let outcomes = rig.outcomes(id, 3).await;
    assert!(is_delivered(&outcomes[0]) && is_delivered(&outcomes[2]));
    let Disposition::Suppressed(source) = outcomes[1].disposition else { panic!("{:?}", outcomes[1]) };
    assert_eq!(source.reason, SuppressionReason::Complaint);
    assert!(outcomes[1].remote.is_none());
    let seen = server.seen();
    assert!(seen.lines.iter().all(|line| !line.contains("bob")), "{:?}", seen.lines);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_dialled_when_all_are_suppressed() {
    let mut rig = rig().await;
    suppress(&rig, "ann@example.com").await;
    suppress(&rig, "bob@missing.example").await;
    rig.deliver(routes(&[]));
    for to in ["ann@example.com", "bob@missing.example"] {
        let id = rig.send(&[to]).await;
        assert!(matches!(rig.outcome(id).await.disposition, Disposition::Suppressed(_)));
    }
    assert_eq!(rig.net.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_looks_again() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, "198.51.100.1:25", |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("450 4.2.0 later"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    assert!(!rig.outcome(id).await.disposition.is_terminal());
    suppress(&rig, "ann@example.com").await;
    let outcomes = rig.until_final(id).await;
    assert!(matches!(outcomes.last().unwrap().disposition, Disposition::Suppressed(_)));
    let named = server.seen().with("RCPT").len();
    assert_eq!(named, outcomes.len());
}
