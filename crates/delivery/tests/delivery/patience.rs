//! Hosts that are slow, or stop in the middle of something.

use std::time::Duration;

use postrider_mail::{BounceKind, DelayType, Disposition, MessageId};
use postrider_spool::Content;

use crate::rig::{HOST, HOUR, MINUTE, Rig, is_delivered, rig, routes};
use crate::server::{Say, Server};

const LOST: Disposition = Disposition::Deferred(DelayType::TransientCommunicationFailure);

/// More than the network holds on its way.
async fn send_much(rig: &Rig) -> MessageId {
    let mut message = rig.message(&["ann@example.com"]);
    message.content = Content::from(b"Subject: hello\r\n\r\nline\r\n".repeat(10_000));
    rig.accept(message).await
}

#[tokio::test(start_paused = true)]
async fn a_reply_in_drops_has_no_more_time_than_any_other() {
    for (at, most) in [("", 5), ("EHLO", 5), ("MAIL", 5), ("RCPT", 5), ("DATA", 5), (".", 10)] {
        let mut rig = rig().await;
        Server::scripted(&rig.net, HOST, move |moment| {
            let hit = if at.is_empty() { moment.line.is_empty() } else { moment.line.starts_with(at) };
            if hit { Say::Drip("250-a line of many\r\n") } else { Say::Usual }
        });
        rig.deliver(routes(&[]));
        let began = rig.clock.now();
        let id = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(id).await;
        assert_eq!((outcome.disposition, outcome.diagnostic.as_str()), (LOST, "421 4.4.2 Connection timed out"));
        let took = outcome.at.saturating_since(began);
        assert!(took < most * MINUTE + Duration::from_secs(5), "{at} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_reply_has_time_of_its_own() {
    let mut rig = rig().await;
    // 40 seconds for each whole reply: more than the limit for all of a group.
    Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT") {
        true => Say::Slow("250 2.1.5 after a while of thinking\r\n"),
        false => Say::Usual,
    });
    let mut settings = routes(&[]);
    settings.timeouts.rcpt = postrider_base::Period::from_mins(1);
    rig.deliver(settings);
    let id = rig.send(&["ann@example.com", "bob@example.com", "cid@example.com"]).await;
    assert!(rig.outcomes(id, 3).await.iter().all(is_delivered));
}

#[tokio::test(start_paused = true)]
async fn content_that_is_read_in_drops_is_given_up() {
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "content" => Say::Drip(""),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = send_much(&rig).await;
    let outcome = rig.outcome(id).await;
    assert_eq!((outcome.disposition, outcome.diagnostic.as_str()), (LOST, "421 4.4.2 Connection timed out"));
    let took = outcome.at.saturating_since(began);
    assert!(took < HOUR + MINUTE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_to_half_a_message_counts_only_when_it_is_a_refusal() {
    let too_large = Disposition::Bounced(BounceKind::TransientMessageTooLarge);
    let later = Disposition::Deferred(DelayType::RecipientServerError);
    for (said, expected) in [
        ("250 2.0.0 taken", LOST),
        ("354 go on", later),
        ("552 5.3.4 too large", too_large),
        ("421 4.3.2 going down", later),
    ] {
        let mut rig = rig().await;
        let server = Server::scripted(&rig.net, HOST, move |moment| match moment.line.as_str() {
            "content" if moment.connection == 0 => Say::Last(said),
            _ => Say::Usual,
        });
        rig.deliver(routes(&[]));
        let id = send_much(&rig).await;
        assert_eq!(rig.outcome(id).await.disposition, expected, "{said}");
        // Nothing more goes over that connection.
        let next = rig.send(&["bob@example.com"]).await;
        assert!(is_delivered(&rig.outcome(next).await), "{said}");
        assert_eq!(server.seen().connections, 2, "{said}");
    }
}
