//! Mail of senders that are paused and want what is queued to wait.

use std::time::Duration;

use postrider_account::{Pause, PausedBy, Sending};
use postrider_mail::{AccountId, Disposition, MessageId};

use crate::rig::{Rig, is_delivered, routes};
use crate::server::Server;

async fn rig() -> (Rig, Server) {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let server = Server::start(&rig.net, "198.51.100.1:25");
    for set in ["news", "receipts"] {
        rig.accounts.configuration_sets().create(AccountId::default(), set, Vec::new()).await.unwrap();
    }
    (rig, server)
}

async fn hold(rig: &Rig, set: &str, hold: bool) {
    let pause = Pause { by: PausedBy::Operator, at: rig.clock.now(), reason: "why not".into(), hold };
    let sending = if hold { Sending::Paused(pause) } else { Sending::Enabled };
    rig.accounts.configuration_sets().set_sending(AccountId::default(), set, sending).await.unwrap();
}

async fn send(rig: &Rig, set: &str, life: Duration) -> MessageId {
    let mut message = rig.message(&["ann@example.com"]);
    message.origin.configuration_set = Some(set.to_owned());
    message.expires_at = message.accepted_at.saturating_add(life);
    rig.accept(message).await
}

#[tokio::test(start_paused = true)]
async fn any_number_of_held_messages_keeps_none_of_another_set_from_leaving() {
    let (mut rig, server) = rig().await;
    hold(&rig, "news", true).await;
    let delivery = rig.deliver(routes(&[]));
    let mut held = Vec::new();
    for _ in 0..1_100 {
        held.push(send(&rig, "news", Duration::from_secs(40_000)).await);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let receipt = send(&rig, "receipts", Duration::from_secs(20)).await;
    assert!(is_delivered(&rig.outcome(receipt).await));
    assert_eq!(server.seen().messages.len(), 1);
    assert!(delivery.sites().iter().all(|site| site.pause.is_none()), "the site is not paused");
    // By now they are in the index. What changes of others is no news for them.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let recalled = rig.metrics.outbound_recalled.get();
    hold(&rig, "receipts", true).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.metrics.outbound_recalled.get(), recalled);
    hold(&rig, "news", false).await;
    for id in held {
        assert!(is_delivered(&rig.outcome(id).await));
    }
}

#[tokio::test(start_paused = true)]
async fn held_messages_expire_though_there_are_many() {
    let (mut rig, _) = rig().await;
    hold(&rig, "news", true).await;
    rig.deliver(routes(&[]));
    let mut held = Vec::new();
    for _ in 0..700 {
        held.push(send(&rig, "news", Duration::from_secs(3_600)).await);
    }
    let began = rig.clock.now();
    for id in held {
        let outcome = rig.outcome(id).await;
        assert!(matches!(outcome.disposition, Disposition::Bounced(_)), "{outcome:?}");
    }
    let waited = rig.clock.now().saturating_since(began);
    assert!(waited <= Duration::from_secs(3_600 + 700), "{waited:?}");
}
