//! Local delivery (RFC 2033).

use postrider_mail::{BounceKind, DelayType, Disposition};

use crate::rig::{Rig, is_delivered, routes};
use crate::server::{Say, Server, Setup};

#[tokio::test(start_paused = true)]
async fn each_recipient_has_an_outcome_of_its_own() {
    let mut rig = Rig::new().await;
    let server = Server::scripted(&rig.net, "10.0.0.1:24", |moment| match moment.line.as_str() {
        "RCPT TO:<bob@example.com>" => Say::Reply("550 5.1.1 no such user"),
        "." => Say::Reply("250 2.1.5 saved\r\n452 4.2.2 mailbox full\r\n552 5.3.4 too large for it"),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[("*", "lmtp://10.0.0.1")]));
    let id = rig.send(&["ann@example.com", "bob@example.com", "cid@example.com", "dan@example.com"]).await;
    let outcomes = rig.outcomes(id, 4).await;
    let dispositions: Vec<_> = outcomes.iter().map(|outcome| outcome.disposition).collect();
    assert_eq!(
        dispositions,
        [
            Disposition::Delivered,
            Disposition::Bounced(BounceKind::PermanentNoEmail),
            Disposition::Deferred(DelayType::MailboxFull),
            Disposition::Bounced(BounceKind::TransientMessageTooLarge),
        ]
    );
    assert_eq!(outcomes[0].diagnostic, "250 2.1.5 saved");
    let seen = server.seen();
    assert_eq!((seen.with("LHLO").len(), seen.with("EHLO").len()), (1, 0));
    // Only who has not got it is named again.
    rig.outcome(id).await;
    assert_eq!(server.seen().with("RCPT").last(), Some(&"RCPT TO:<cid@example.com>"));
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_before_the_connection_broke_is_delivered() {
    let mut rig = Rig::new().await;
    Server::scripted(&rig.net, "10.0.0.1:24", |moment| match (moment.line.as_str(), moment.connection) {
        (".", 0) => Say::Last("250 2.1.5 saved"),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[("*", "lmtp://10.0.0.1")]));
    let id = rig.send(&["ann@example.com", "bob@example.com"]).await;
    let outcomes = rig.outcomes(id, 2).await;
    assert!(is_delivered(&outcomes[0]));
    assert_eq!(outcomes[1].disposition, Disposition::Deferred(DelayType::TransientCommunicationFailure));
    assert!(is_delivered(&rig.outcome(id).await));
}

#[tokio::test(start_paused = true)]
async fn a_socket_of_this_machine_is_a_host() {
    let mut rig = Rig::new().await;
    let server = Server::behind(rig.net.listen_path("/run/dovecot/lmtp"), Setup::default(), |_| Say::Usual);
    let delivery = rig.deliver(routes(&[("example.com", "lmtp+unix:///run/dovecot/lmtp"), ("*", "lmtp+unix:///no")]));
    for _ in 0..2 {
        let id = rig.send(&["ann@example.com"]).await;
        let outcome = rig.outcome(id).await;
        assert!(is_delivered(&outcome), "{outcome:?}");
        let remote = outcome.remote.unwrap();
        assert_eq!((remote.host.as_str(), remote.ip, remote.source_ip), ("/run/dovecot/lmtp", None, None));
    }
    assert_eq!((server.seen().connections, server.seen().messages.len()), (1, 2));
    assert_eq!(delivery.sites()[0].name, "lmtp+unix:///run/dovecot/lmtp");
    let id = rig.send(&["ann@example.org"]).await;
    assert_eq!(rig.outcome(id).await.diagnostic, "421 4.4.1 Failed to establish connection");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_only_speaks_smtp_takes_nothing() {
    let mut rig = Rig::new().await;
    let server = Server::scripted(&rig.net, "10.0.0.1:24", |moment| match moment.line.starts_with("LHLO") {
        true => Say::Reply("500 5.5.1 what?"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[("*", "lmtp://10.0.0.1")]));
    let id = rig.send(&["ann@example.com"]).await;
    assert!(!rig.outcome(id).await.disposition.is_terminal());
    assert!(server.seen().with("HELO").is_empty() && server.seen().with("MAIL").is_empty());
}
