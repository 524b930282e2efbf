//! What hosts answer, and what becomes of the recipients.

use postrider_mail::{BounceKind, DelayType, Disposition, Stage};

use crate::rig::{HOST, HOUR, is_delivered, rig, routes};
use crate::server::{Say, Server, Setup};

#[tokio::test(start_paused = true)]
async fn a_message_arrives_as_it_was_accepted() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com", "bob@example.com"]).await;
    let outcomes = rig.outcomes(id, 2).await;
    assert!(outcomes.iter().all(is_delivered));
    let one = &outcomes[0];
    let remote = one.remote.as_ref().unwrap();
    assert_eq!((one.attempt, one.diagnostic.as_str(), remote.stage), (1, "250 2.0.0 taken", Stage::EndOfData));
    assert_eq!(remote.to_string(), "mx.example.com[198.51.100.1]:25");
    let seen = server.seen();
    assert_eq!(seen.messages, ["Subject: hello\r\n\r\nFirst line.\r\n.second line\r\n"]);
    assert_eq!(seen.with("EHLO"), ["EHLO relay.example.net"]);
    assert_eq!(seen.with("MAIL"), ["MAIL FROM:<sender@example.net> SIZE=45"]);
    assert_eq!(seen.with("RCPT"), ["RCPT TO:<ann@example.com>", "RCPT TO:<bob@example.com>"]);
}

#[tokio::test(start_paused = true)]
async fn domains_of_one_message_go_in_transactions_of_their_own() {
    let mut rig = rig().await;
    rig.mx("example.org", "mx.example.com", "198.51.100.1");
    let server = Server::start(&rig.net, HOST);
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com", "bob@example.org"]).await;
    assert!(rig.outcomes(id, 2).await.iter().all(is_delivered));
    assert_eq!(server.seen().messages.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn greylisting_is_waited_out() {
    let mut rig = rig().await;
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT") {
        true if moment.connection == 0 => Say::Reply("451 4.7.1 Greylisted, please come back"),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = rig.send(&["ann@example.com"]).await;
    let first = rig.outcome(id).await;
    assert_eq!(first.disposition, Disposition::Deferred(DelayType::General));
    let wait = first.next_attempt.unwrap().saturating_since(first.at).as_secs();
    assert!((108..=132).contains(&wait), "{wait}");
    let second = rig.outcome(id).await;
    assert!(is_delivered(&second));
    assert_eq!(second.attempt, 2);
    assert!(rig.clock.now().saturating_since(began) < HOUR);
    assert_eq!(server.seen().messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn recipients_of_one_transaction_have_outcomes_of_their_own() {
    let mut rig = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "RCPT TO:<full@example.com>" => Say::Reply("452 4.2.2 mailbox full"),
        "RCPT TO:<gone@example.com>" => Say::Reply("550 5.1.1 user unknown"),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let id = rig.send(&["full@example.com", "ann@example.com", "gone@example.com"]).await;
    let outcomes = rig.outcomes(id, 3).await;
    assert_eq!(outcomes[0].disposition, Disposition::Deferred(DelayType::MailboxFull));
    assert_eq!(outcomes[1].disposition, Disposition::Delivered);
    assert_eq!(outcomes[2].disposition, Disposition::Bounced(BounceKind::PermanentNoEmail));
    assert_eq!(outcomes[2].diagnostic, "550 5.1.1 user unknown");
    assert_eq!(outcomes[2].remote.as_ref().unwrap().stage, Stage::RcptTo);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_a_recipient_only_where_it_is_about_it() {
    let soft = |delay| Disposition::Deferred(delay);
    let hard = |kind| Disposition::Bounced(kind);
    let cases = [
        ("", "554 5.7.1 go away", Stage::Banner, soft(DelayType::General)),
        ("EHLO", "421 4.3.2 busy", Stage::Ehlo, soft(DelayType::RecipientServerError)),
        ("MAIL", "550 5.7.1 sender not wanted", Stage::MailFrom, soft(DelayType::General)),
        ("MAIL", "552 5.3.4 too big", Stage::MailFrom, hard(BounceKind::TransientMessageTooLarge)),
        ("RCPT", "550 5.1.1 unknown", Stage::RcptTo, hard(BounceKind::PermanentNoEmail)),
        ("RCPT", "421 4.3.0 bye", Stage::RcptTo, soft(DelayType::RecipientServerError)),
        ("DATA", "554 5.5.0 no", Stage::Data, hard(BounceKind::TransientGeneral)),
        (".", "550 5.7.1 spam", Stage::EndOfData, hard(BounceKind::TransientContentRejected)),
        (".", "451 4.3.0 later", Stage::EndOfData, soft(DelayType::RecipientServerError)),
    ];
    for pipelining in [true, false] {
        for (at, reply, stage, expected) in cases {
            let mut rig = rig().await;
            let extensions = if pipelining { vec!["PIPELINING"] } else { vec![] };
            let setup = Setup { extensions, ..Setup::default() };
            Server::with(&rig.net, HOST, setup, move |moment| {
                let hit = if at.is_empty() { moment.line.is_empty() } else { moment.line.starts_with(at) };
                if hit { Say::Reply(reply) } else { Say::Usual }
            });
            rig.deliver(routes(&[]));
            let id = rig.send(&["ann@example.com"]).await;
            let outcome = rig.outcome(id).await;
            assert_eq!(outcome.disposition, expected, "{at} {reply}");
            assert_eq!(outcome.remote.unwrap().stage, stage, "{at} {reply}");
            assert_eq!(outcome.diagnostic, reply);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connection_defers_at_every_stage() {
    for at in ["", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        for (say, words) in
            [(Say::Close, "421 4.4.2 Connection lost"), (Say::Silence, "421 4.4.2 Connection timed out")]
        {
            let mut rig = rig().await;
            let said = say.clone();
            Server::scripted(&rig.net, HOST, move |moment| {
                let hit = if at.is_empty() { moment.line.is_empty() } else { moment.line.starts_with(at) };
                if hit { said.clone() } else { Say::Usual }
            });
            rig.deliver(routes(&[]));
            let id = rig.send(&["ann@example.com"]).await;
            let outcome = rig.outcome(id).await;
            let expected = Disposition::Deferred(DelayType::TransientCommunicationFailure);
            assert_eq!(outcome.disposition, expected, "{at} {say:?}");
            assert_eq!(outcome.diagnostic, words, "{at} {say:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_out_of_step_has_taken_nothing() {
    let cases = [("", "220 mx\r\n220 mx again"), ("EHLO", "250 mx\r\n250 Ok"), ("DATA", "250 2.0.0 Ok")];
    for pipelining in [true, false] {
        for (at, said) in cases {
            let mut rig = rig().await;
            let extensions = if pipelining { vec!["PIPELINING"] } else { vec![] };
            let setup = Setup { extensions, ..Setup::default() };
            let server = Server::with(&rig.net, HOST, setup, move |moment| {
                let hit = if at.is_empty() { moment.line.is_empty() } else { moment.line.starts_with(at) };
                if hit && moment.connection == 0 { Say::Reply(said) } else { Say::Usual }
            });
            rig.deliver(routes(&[]));
            let id = rig.send(&["ann@example.com"]).await;
            let first = rig.outcome(id).await;
            assert_eq!(first.disposition, Disposition::Deferred(DelayType::RecipientServerError), "{at}");
            assert_eq!(first.diagnostic, "421 4.5.0 The host does not speak SMTP", "{at}");
            assert!(is_delivered(&rig.outcome(id).await), "{at}");
            let seen = server.seen();
            assert_eq!((seen.messages.len(), seen.connections), (1, 2), "{at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_surplus_reply_to_an_idle_connection_delivers_nothing() {
    let mut rig = rig().await;
    // The surplus lies in the socket when the next message comes.
    let server = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "." if moment.connection == 0 => Say::Reply("250 2.0.0 taken\r\n250 2.0.0 surplus"),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[]));
    for _ in 0..2 {
        let id = rig.send(&["ann@example.com"]).await;
        assert!(is_delivered(&rig.outcome(id).await));
    }
    // The script's words do not count as taking.
    assert_eq!((server.seen().messages.len(), server.seen().connections), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn too_many_recipients_for_one_transaction_make_several() {
    let mut rig = rig().await;
    let server = Server::start(&rig.net, HOST);
    let mut settings = routes(&[]);
    settings.limits.recipients_per_transaction = 2;
    rig.deliver(settings);
    let recipients: Vec<_> = (0..5).map(|n| format!("user{n}@example.com")).collect();
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    let id = rig.send(&recipients).await;
    assert!(rig.outcomes(id, 5).await.iter().all(is_delivered));
    let seen = server.seen();
    assert_eq!((seen.messages.len(), seen.connections, seen.with("RCPT").len()), (3, 1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_the_host_is_not_sent() {
    let mut rig = rig().await;
    let setup = Setup { extensions: vec!["SIZE 10"], ..Setup::default() };
    let server = Server::with(&rig.net, HOST, setup, |_| Say::Usual);
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com"]).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(outcome.disposition, Disposition::Bounced(BounceKind::TransientMessageTooLarge));
    assert_eq!(outcome.status.to_string(), "5.3.4");
    assert!(server.seen().with("MAIL").is_empty());
}

#[tokio::test(start_paused = true)]
async fn eight_bit_content_goes_out_as_it_is_unless_told_otherwise() {
    for (strict, expected) in
        [(false, Disposition::Delivered), (true, Disposition::Bounced(BounceKind::TransientContentRejected))]
    {
        let mut rig = rig().await;
        Server::with(&rig.net, HOST, Setup { extensions: vec![], ..Setup::default() }, |_| Say::Usual);
        rig.deliver(postrider_delivery::Settings { strict_8bitmime: strict, ..routes(&[]) });
        let mut message = rig.message(&["ann@example.com"]);
        message.envelope.body = postrider_mail::BodyType::EightBitMime;
        let id = rig.accept(message).await;
        assert_eq!(rig.outcome(id).await.disposition, expected);
    }
}
