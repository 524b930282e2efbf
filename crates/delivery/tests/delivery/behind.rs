//! What is behind the first thousand of a queue that does not move.

use std::time::Duration;

use futures_util::future::join_all;
use postrider_delivery::shaping::PauseRequest;
use postrider_mail::{Disposition, MessageId, Notify};
use postrider_spool::NewMessage;

use crate::rig::{HOUR, MINUTE, Rig, is_delivered, routes};
use crate::server::Server;
use crate::shaped::shaped;

/// A queue is looked through after ten minutes, and not sooner again; and it takes a while.
const LATE: Duration = Duration::from_secs(21 * 60);

async fn rig() -> (Rig, Server) {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let server = Server::start(&rig.net, "198.51.100.1:25");
    (rig, server)
}

fn living(rig: &Rig, life: Duration) -> NewMessage {
    let mut message = rig.message(&["ann@example.com"]);
    message.expires_at = message.accepted_at.saturating_add(life);
    message.envelope.recipients[0].notify = Notify::NEVER;
    message
}

async fn accept(rig: &Rig, messages: Vec<NewMessage>) -> Vec<MessageId> {
    join_all(messages.into_iter().map(|message| rig.accept(message))).await
}

#[tokio::test(start_paused = true)]
async fn five_thousand_behind_a_pause_expire_in_time_and_the_first_go_when_it_ends() {
    let (mut rig, server) = rig().await;
    let delivery = rig.deliver(routes(&[]));
    let pause = PauseRequest { name: "example.com".into(), source: None, time: None, reason: None };
    delivery.pause(pause).await.unwrap();
    let first = accept(&rig, (0..1_100).map(|_| living(&rig, 96 * HOUR)).collect()).await;
    tokio::time::sleep(MINUTE).await;
    let lives = (0..5_000_u32).map(|n| HOUR + Duration::from_millis(360) * n);
    let behind: Vec<_> = lives.map(|life| living(&rig, life)).collect();
    let ends: Vec<_> = behind.iter().map(|message| message.expires_at).collect();
    for (id, expires_at) in accept(&rig, behind).await.into_iter().zip(ends) {
        let outcome = rig.outcome(id).await;
        assert!(matches!(outcome.disposition, Disposition::Bounced(_)), "{outcome:?}");
        assert!(outcome.at >= expires_at, "too early: {outcome:?}");
        let late = outcome.at.saturating_since(expires_at);
        assert!(late < LATE, "{late:?}");
    }
    assert_eq!(server.seen().messages.len(), 0);
    delivery.resume("example.com", None).await.unwrap();
    let began = rig.clock.now();
    for id in first {
        assert!(is_delivered(&rig.outcome(id).await));
    }
    let took = rig.clock.now().saturating_since(began);
    assert!(took < 5 * MINUTE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_lane_without_room_expires_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rig, server) = rig().await;
    rig.deliver(shaped(&dir, "[site.\"mx.example.com\"]\nrate = \"1/h\"\n"));
    let first = accept(&rig, (0..20).map(|_| living(&rig, 96 * HOUR)).collect()).await;
    tokio::time::sleep(MINUTE).await;
    let behind = accept(&rig, (0..600).map(|_| living(&rig, HOUR)).collect()).await;
    for id in behind {
        let outcome = rig.outcome(id).await;
        assert!(matches!(outcome.disposition, Disposition::Bounced(_)), "{outcome:?}");
        let life = outcome.at.saturating_since(id.timestamp());
        assert!(life < HOUR + LATE, "{life:?}");
    }
    assert!(server.seen().messages.len() <= 3);
    for id in first {
        assert!(is_delivered(&rig.outcome(id).await));
    }
}

#[tokio::test(start_paused = true)]
async fn senders_of_what_is_behind_are_told_that_it_is_late() {
    let (mut rig, _server) = rig().await;
    let mut settings = routes(&[]);
    settings.delay_notice = postrider_base::Period::from_hours(4);
    let delivery = rig.deliver(settings);
    let pause = PauseRequest { name: "example.com".into(), source: None, time: None, reason: None };
    delivery.pause(pause).await.unwrap();
    accept(&rig, (0..1_100).map(|_| living(&rig, 96 * HOUR)).collect()).await;
    tokio::time::sleep(MINUTE).await;
    let mut message = living(&rig, 96 * HOUR);
    message.envelope.recipients[0].notify = "DELAY".parse::<Notify>().unwrap();
    let accepted = message.accepted_at;
    rig.accept(message).await;
    let notice = rig.own_message().await;
    let waited = notice.accepted_at.saturating_since(accepted);
    assert!(waited >= 4 * HOUR && waited < 4 * HOUR + LATE, "{waited:?}");
}
