//! The end of a message's life, and what its sender is told.

use mail_parser::{MessageParser, MimeHeaders};
use postrider_mail::{BounceKind, Disposition, Notify};
use postrider_spool::OriginKind;

use crate::rig::{DAY, Rig, routes};
use crate::server::{Say, Server};

#[tokio::test(start_paused = true)]
async fn a_domain_that_does_not_exist_bounces_after_days_with_one_message() {
    let mut rig = Rig::new().await;
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    let senders = Server::start(&rig.net, "198.51.100.9:25");
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = rig.send(&["ann@missing.example"]).await;
    let outcomes = rig.until_final(id).await;
    let last = outcomes.last().unwrap();
    assert_eq!(last.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
    assert_eq!(last.status.to_string(), "4.4.7");
    assert_eq!(
        last.diagnostic,
        "550 4.4.7 Message expired: unable to deliver in 5760 minutes.\
         <421 4.4.0 Unable to lookup DNS for missing.example>"
    );
    assert_eq!(last.at.saturating_since(began).as_secs() / 3600, 96);
    // Seven growing waits within 4 hours, then every 4 hours.
    assert!((28..=34).contains(&outcomes.len()), "{}", outcomes.len());
    for (earlier, later) in outcomes.iter().zip(&outcomes[1..]) {
        assert_eq!(later.attempt, earlier.attempt + 1);
        assert!(earlier.next_attempt.unwrap() <= later.at);
    }
    senders.until(|seen| seen.messages.len() == 1).await;
    tokio::time::sleep(5 * DAY).await;
    assert_eq!(senders.seen().messages.len(), 1);
    assert_eq!(senders.seen().with("MAIL")[0].split(' ').nth(1), Some("FROM:<>"));
}

#[tokio::test(start_paused = true)]
async fn expiry_keeps_what_the_last_reply_said() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    Server::scripted(&rig.net, "198.51.100.1:25", |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("452 4.2.2 mailbox full"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let mut message = rig.message(&["ann@example.com"]);
    message.expires_at = message.accepted_at.saturating_add(DAY / 24);
    let id = rig.accept(message).await;
    let last = rig.until_final(id).await.pop().unwrap();
    assert_eq!(last.disposition, Disposition::Bounced(BounceKind::TransientMailboxFull));
    assert_eq!(last.diagnostic, "550 4.4.7 Message expired: unable to deliver in 60 minutes.<452 4.2.2 mailbox full>");
}

#[tokio::test(start_paused = true)]
async fn the_bounce_message_says_what_happened() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    Server::scripted(&rig.net, "198.51.100.1:25", |moment| match moment.line.starts_with("RCPT TO:<gone") {
        true => Say::Reply("550 5.1.1 user unknown"),
        false => Say::Usual,
    });
    let senders = Server::start(&rig.net, "198.51.100.9:25");
    rig.deliver(routes(&[]));
    let mut message = rig.message(&["gone1@example.com", "gone2@example.com", "ann@example.com"]);
    message.envelope.envid = Some("QQ314159".into());
    let id = rig.accept(message).await;
    rig.outcomes(id, 3).await;
    let own = rig.own_message().await;
    assert_eq!(own.origin.kind, OriginKind::Dsn { of: id });
    assert_eq!(own.envelope.recipients[0].address.as_str(), "sender@example.net");
    senders.until(|seen| seen.messages.len() == 1).await;
    let text = senders.seen().messages.remove(0);
    let bounce = MessageParser::default().parse(text.as_bytes()).unwrap();
    assert_eq!(bounce.header_raw("Auto-Submitted").map(str::trim), Some("auto-replied"));
    assert_eq!(bounce.content_type().unwrap().subtype(), Some("report"));
    let parts: Vec<_> = bounce.parts.iter().map(|part| String::from_utf8_lossy(part.contents()).into_owned()).collect();
    let status = parts.iter().find(|part| part.contains("Reporting-MTA")).unwrap();
    for line in [
        "Reporting-MTA: dns; relay.example.net",
        "Original-Envelope-Id: QQ314159",
        "Final-Recipient: rfc822; gone1@example.com",
        "Final-Recipient: rfc822; gone2@example.com",
        "Action: failed",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550 5.1.1 user unknown",
    ] {
        assert!(status.contains(line), "{line} not in {status}");
    }
    assert!(!status.contains("ann@example.com"));
    assert!(text.contains("Subject: hello") && !text.contains("First line."));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_be_told_is_not_told() {
    let mut rig = Rig::new().await;
    rig.zones.add_null_mx("example.com");
    rig.deliver(routes(&[]));
    let mut null = rig.message(&["ann@example.com"]);
    null.envelope.sender = None;
    let mut never = rig.message(&["ann@example.com"]);
    never.envelope.recipients[0].notify = Notify::NEVER;
    let mut only_success = rig.message(&["ann@example.com"]);
    only_success.envelope.recipients[0].notify = Notify::SUCCESS;
    let mut stranger = rig.message(&["ann@example.com"]);
    stranger.origin.credential = None;
    for message in [null, never, only_success, stranger] {
        let id = rig.accept(message).await;
        assert!(rig.outcome(id).await.disposition.is_terminal());
    }
    let told = rig.send(&["ann@example.com"]).await;
    rig.outcome(told).await;
    let own = rig.own_message().await;
    assert_eq!(own.origin.kind, OriginKind::Dsn { of: told });
    let others = rig.accepted.iter().filter(|record| matches!(record.origin.kind, OriginKind::Dsn { .. }));
    assert_eq!(others.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_feedback_forwarding_nobody_is_told() {
    let mut rig = Rig::new().await;
    rig.zones.add_null_mx("example.com");
    rig.deliver(postrider_delivery::Settings { feedback_forwarding: false, ..routes(&[]) });
    let id = rig.send(&["ann@example.com"]).await;
    rig.outcome(id).await;
    let barrier = rig.send(&["bob@example.com"]).await;
    rig.outcome(barrier).await;
    assert_eq!(rig.accepted.len(), 2);
}
