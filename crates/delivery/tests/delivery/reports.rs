//! What senders are told because they asked for it (RFC 3461).

use std::sync::Arc;

use postrider_account::{Pause, PausedBy, Sending};
use postrider_base::SimNet;
use postrider_delivery::Settings;
use postrider_delivery::shaping::PauseRequest;
use postrider_mail::{AccountId, BodyType, BounceKind, Disposition, Notify, Ret};
use postrider_spool::{AcceptedRecord, Content, NewMessage, OriginKind};

use crate::rig::{DAY, HOST, HOUR, Rig, is_delivered, routes};
use crate::server::{Moment, Say, Server, Setup};

const SENDERS: &str = "198.51.100.9:25";

/// A relay that knows the recipients' and the sender's hosts.
async fn rig() -> (Rig, Server) {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    let senders = Server::start(&rig.net, SENDERS);
    (rig, senders)
}

/// The recipients' host, without DSN.
fn plain_host(rig: &Rig, script: impl Fn(&Moment) -> Say + Send + Sync + 'static) -> Server {
    Server::with(&rig.net, HOST, Setup { extensions: vec!["PIPELINING", "8BITMIME"], ..Setup::default() }, script)
}

fn asking(rig: &Rig, recipients: &[(&str, Notify)]) -> NewMessage {
    let addresses: Vec<_> = recipients.iter().map(|(address, _)| *address).collect();
    let mut message = rig.message(&addresses);
    for (recipient, (_, notify)) in message.envelope.recipients.iter_mut().zip(recipients) {
        recipient.notify = *notify;
    }
    message
}

/// The next message that arrives at the sender's host.
async fn report(senders: &Server, nth: usize) -> String {
    let arrival = senders.until(|seen| seen.messages.len() > nth);
    tokio::time::timeout(30 * DAY, arrival).await.expect("a report comes within a month");
    senders.seen().messages.remove(nth)
}

fn own_messages(rig: &Rig) -> Vec<Arc<AcceptedRecord>> {
    let own = |record: &&Arc<AcceptedRecord>| matches!(record.origin.kind, OriginKind::Dsn { .. });
    rig.accepted.iter().filter(own).cloned().collect()
}

/// Whatever was written has been read from the feed.
async fn settle(rig: &mut Rig) {
    let barrier = rig.send(&["barrier@example.net"]).await;
    rig.outcome(barrier).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_without_dsn_takes_the_message_and_we_tell_of_it() {
    let (mut rig, senders) = rig().await;
    plain_host(&rig, |_| Say::Usual);
    rig.deliver(routes(&[]));
    let mut message = asking(
        &rig,
        &[
            ("ann@example.com", Notify::SUCCESS | Notify::FAILURE),
            ("bob@example.com", Notify::SUCCESS),
            ("cem@example.com", Notify::default()),
            ("dan@example.com", Notify::FAILURE),
        ],
    );
    message.envelope.envid = Some("QQ314159".into());
    message.envelope.ret = Some(Ret::Full);
    message.envelope.recipients[0].orcpt = Some("rfc822;Ann@example.com".into());
    let id = rig.accept(message).await;
    assert!(rig.outcomes(id, 4).await.iter().all(is_delivered));
    let text = report(&senders, 0).await;
    for line in [
        "Auto-Submitted: auto-replied",
        "Original-Envelope-Id: QQ314159",
        "Original-Recipient: rfc822;Ann@example.com",
        "Final-Recipient: rfc822; ann@example.com",
        "Final-Recipient: rfc822; bob@example.com",
        "Action: relayed",
        "Status: 2.0.0",
        "Remote-MTA: dns; mx.example.com",
        "Diagnostic-Code: smtp; 250 2.0.0 taken",
        "Content-Type: text/rfc822-headers",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} not in {text}");
    }
    assert!(!text.contains("cem@") && !text.contains("dan@") && !text.contains("First line."));
    assert_eq!(senders.seen().with("MAIL")[0].split(' ').nth(1), Some("FROM:<>"));
    assert_eq!(senders.seen().with("RCPT"), ["RCPT TO:<sender@example.net> NOTIFY=NEVER"]);
    settle(&mut rig).await;
    assert_eq!(own_messages(&rig).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_with_dsn_is_told_and_tells() {
    let (mut rig, _senders) = rig().await;
    let host = Server::start(&rig.net, HOST);
    rig.deliver(routes(&[]));
    let mut message = asking(&rig, &[("ann@example.com", Notify::SUCCESS | Notify::DELAY)]);
    message.envelope.envid = Some("QQ314159".into());
    message.envelope.ret = Some(Ret::Headers);
    message.envelope.recipients[0].orcpt = Some("rfc822;Ann+x@example.com".into());
    let id = rig.accept(message).await;
    assert!(is_delivered(&rig.outcome(id).await));
    let seen = host.seen();
    assert_eq!(seen.with("MAIL"), ["MAIL FROM:<sender@example.net> SIZE=45 RET=HDRS ENVID=QQ314159"]);
    let rcpt = "RCPT TO:<ann@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Ann+2Bx@example.com";
    assert_eq!(seen.with("RCPT"), [rcpt]);
    settle(&mut rig).await;
    assert!(own_messages(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_delivery_inside_this_process_is_final() {
    let (mut rig, senders) = rig().await;
    let inside = SimNet::new();
    Server::start(&inside, "127.0.0.1:25");
    rig.built_in.insert("inbox".into(), Arc::new(inside));
    rig.deliver(routes(&[("inbox.example", "inbox:")]));
    let message = asking(&rig, &[("ann@inbox.example", Notify::SUCCESS)]);
    let id = rig.accept(message).await;
    assert!(is_delivered(&rig.outcome(id).await));
    assert!(report(&senders, 0).await.contains("\r\nAction: delivered\r\n"));
}

#[tokio::test(start_paused = true)]
async fn each_thing_that_happened_is_told_once() {
    let (mut rig, senders) = rig().await;
    plain_host(&rig, |moment| match moment.line.starts_with("RCPT TO:<gone") {
        true => Say::Reply("550 5.1.1 user unknown"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let all = Notify::SUCCESS | Notify::FAILURE;
    let message = asking(
        &rig,
        &[
            ("gone1@example.com", all),
            ("ann@example.com", all),
            ("gone2@example.com", Notify::default()),
            ("gone3@example.com", Notify::SUCCESS),
            ("bob@example.com", Notify::NEVER),
        ],
    );
    let id = rig.accept(message).await;
    rig.outcomes(id, 5).await;
    let mut texts = [report(&senders, 0).await, report(&senders, 1).await];
    texts.sort_by_key(|text| text.contains("Action: relayed"));
    let [failed, relayed] = texts;
    assert!(failed.contains("gone1@example.com") && failed.contains("gone2@example.com"));
    assert!(!failed.contains("gone3@") && !failed.contains("<ann@") && !failed.contains("Action: relayed"));
    assert!(relayed.contains("ann@example.com") && !relayed.contains("gone") && !relayed.contains("bob@"));
    settle(&mut rig).await;
    assert_eq!(own_messages(&rig).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_be_told_is_not_told_of_success_either() {
    let (mut rig, _senders) = rig().await;
    plain_host(&rig, |_| Say::Usual);
    rig.deliver(routes(&[]));
    let mut null = asking(&rig, &[("ann@example.com", Notify::SUCCESS)]);
    null.envelope.sender = None;
    let mut stranger = asking(&rig, &[("ann@example.com", Notify::SUCCESS)]);
    stranger.origin.credential = None;
    for message in [null, stranger, asking(&rig, &[("ann@example.com", Notify::NEVER)])] {
        let id = rig.accept(message).await;
        assert!(is_delivered(&rig.outcome(id).await));
    }
    settle(&mut rig).await;
    assert!(own_messages(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_feedback_forwarding_only_those_are_told_who_asked() {
    let (mut rig, senders) = rig().await;
    rig.zones.add_null_mx("closed.example");
    rig.deliver(Settings { feedback_forwarding: false, ..routes(&[]) });
    let id = rig.accept(asking(&rig, &[("ann@closed.example", Notify::default())])).await;
    rig.outcome(id).await;
    let id = rig.accept(asking(&rig, &[("bob@closed.example", Notify::FAILURE)])).await;
    rig.outcome(id).await;
    assert!(report(&senders, 0).await.contains("bob@closed.example"));
    settle(&mut rig).await;
    assert_eq!(own_messages(&rig).len(), 1);
}

/// A host that puts everything off.
fn busy(moment: &Moment) -> Say {
    if moment.line.starts_with("RCPT") { Say::Reply("451 4.3.0 busy") } else { Say::Usual }
}

#[tokio::test(start_paused = true)]
async fn who_asked_is_told_once_that_it_is_late() {
    let (mut rig, senders) = rig().await;
    Server::scripted(&rig.net, HOST, busy);
    rig.deliver(routes(&[]));
    let message = asking(
        &rig,
        &[
            ("ann@example.com", Notify::DELAY),
            ("bob@example.com", Notify::DELAY | Notify::FAILURE),
            ("cem@example.com", Notify::default()),
            ("dan@example.com", Notify::SUCCESS | Notify::FAILURE),
        ],
    );
    let (began, expires) = (message.accepted_at, message.expires_at);
    let id = rig.accept(message).await;
    let text = report(&senders, 0).await;
    let waited = rig.clock.now().saturating_since(began);
    assert!(waited >= 4 * HOUR && waited < 5 * HOUR, "{waited:?}");
    for line in ["Action: delayed", "Status: 4.3.0", &format!("Will-Retry-Until: {}", expires.rfc5322())] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} not in {text}");
    }
    assert!(text.contains("ann@") && text.contains("bob@") && !text.contains("cem@") && !text.contains("dan@"));
    // Everything else that it gets is the one report of failure, days later.
    let failed = report(&senders, 1).await;
    assert!(failed.contains("Action: failed") && !failed.contains("ann@"));
    assert!(rig.clock.now() >= expires);
    for _ in 0..4 {
        rig.until_final(id).await;
    }
    settle(&mut rig).await;
    assert_eq!(own_messages(&rig).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_late_is_not_said_to_have_failed() {
    let (rig, senders) = rig().await;
    Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("MAIL") {
        true => Say::Reply("550 5.7.1 we do not like you today"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let mut message = asking(&rig, &[("ann@example.com", Notify::DELAY)]);
    // As a host without SMTPUTF8 is told of it (RFC 6533 section 3).
    message.envelope.recipients[0].orcpt = Some("utf-8;J\\x{FC}rgen@example.com".into());
    rig.accept(message).await;
    let text = report(&senders, 0).await;
    for line in [
        "Action: delayed",
        "Status: 4.7.1",
        "Diagnostic-Code: smtp; 550 5.7.1 we do not like you today",
        "Content-Type: message/delivery-status",
        "Original-Recipient: utf-8;J\\x{FC}rgen@example.com",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} not in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_cannot_be_delivered_causes_no_other() {
    let mut rig = Rig::new().await;
    rig.zones.add_null_mx("example.com").add_null_mx("example.net");
    rig.deliver(routes(&[]));
    let id = rig.accept(asking(&rig, &[("ann@example.com", Notify::FAILURE)])).await;
    assert!(rig.outcome(id).await.disposition.is_terminal());
    let notice = rig.own_message().await;
    assert!(rig.outcome(notice.id).await.disposition.is_terminal());
    tokio::time::sleep(20 * DAY).await;
    assert_eq!(rig.spool.stat().messages, 0);
    rig.zones.add_mx("other.example", 10, "mx.other.example").add_address("mx.other.example", "198.51.100.3");
    Server::start(&rig.net, "198.51.100.3:25");
    let barrier = rig.send(&["barrier@other.example"]).await;
    rig.outcome(barrier).await;
    assert!(own_messages(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn expiry_is_one_failure_for_all_who_waited_together() {
    let (mut rig, senders) = rig().await;
    Server::scripted(&rig.net, HOST, busy);
    rig.deliver(routes(&[]));
    let id = rig.send(&["ann@example.com", "bob@example.com"]).await;
    for _ in 0..2 {
        let last = rig.until_final(id).await.pop().unwrap();
        assert_eq!(last.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
    }
    let text = report(&senders, 0).await;
    assert_eq!((text.matches("Action: failed").count(), text.matches("Status: 4.4.7").count()), (2, 2));
    settle(&mut rig).await;
    assert_eq!(own_messages(&rig).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_neither_loses_nor_repeats_a_notice() {
    for hours in [1, 5, 20] {
        let (mut rig, senders) = rig().await;
        Server::scripted(&rig.net, HOST, busy);
        rig.deliver(routes(&[]));
        let message = asking(&rig, &[("ann@example.com", Notify::DELAY)]);
        let expires = message.expires_at;
        rig.accept(message).await;
        tokio::time::sleep(hours * HOUR).await;
        assert_eq!(senders.seen().messages.len(), usize::from(hours > 4));
        rig.power_cut().await;
        rig.deliver(routes(&[]));
        tokio::time::sleep(expires.saturating_since(rig.clock.now()) + HOUR).await;
        assert_eq!(senders.seen().messages.len(), 1);
    }
}

/// What keeps mail from being tried at all.
enum Kept {
    /// The operator has paused its site.
    Paused,
    /// Its sender is paused.
    Sender,
    /// The only connection that its site may have is held by another message.
    Crowd,
}

#[tokio::test(start_paused = true)]
async fn mail_that_was_never_tried_is_late_and_expires_by_time_alone() {
    for kept in [Kept::Paused, Kept::Sender, Kept::Crowd] {
        let (mut rig, senders) = rig().await;
        let host = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
            "RCPT TO:<first@example.com>" => Say::Silence,
            _ => Say::Usual,
        });
        let mut settings = routes(&[]);
        settings.limits.connections_per_site = 1;
        settings.limits.initial_connections_per_site = 1;
        let week = postrider_base::Period::from_hours(7 * 24);
        (settings.timeouts.rcpt, settings.timeouts.transaction) = (week, week);
        let delivery = rig.deliver(settings);
        match kept {
            Kept::Paused => {
                let pause = PauseRequest { name: "example.com".into(), source: None, time: None, reason: None };
                delivery.pause(pause).await.unwrap();
            }
            Kept::Sender => {
                let account = AccountId::default();
                let pause = Pause { by: PausedBy::Operator, at: rig.clock.now(), reason: "look".into(), hold: true };
                rig.accounts.configuration_sets().create(account, "held", Vec::new()).await.unwrap();
                rig.accounts.configuration_sets().set_sending(account, "held", Sending::Paused(pause)).await.unwrap();
            }
            Kept::Crowd => {
                rig.send(&["first@example.com"]).await;
                host.until(|seen| seen.with("RCPT").len() == 1).await;
            }
        }
        let wanted = Notify::DELAY | Notify::FAILURE;
        let mut message = asking(&rig, &[("ann@example.com", wanted), ("bob@example.com", Notify::default())]);
        message.origin.configuration_set = matches!(kept, Kept::Sender).then(|| "held".to_owned());
        let (began, expires) = (message.accepted_at, message.expires_at);
        let id = rig.accept(message).await;
        let late = rig.outcome(id).await;
        assert!(matches!(late.disposition, Disposition::Deferred(_)), "{late:?}");
        assert_eq!((late.recipient, late.attempt, late.at), (0, 0, began.saturating_add(4 * HOUR)));
        assert!(late.diagnostic.starts_with("421 4.4.5 The message waited"), "{}", late.diagnostic);
        let text = report(&senders, 0).await;
        assert!(text.contains("Action: delayed\r\n") && !text.contains("bob@"), "{text}");
        for outcome in rig.outcomes(id, 2).await {
            assert_eq!(outcome.disposition, Disposition::Bounced(BounceKind::TransientGeneral));
            assert_eq!((outcome.at, outcome.attempt), (expires, 1));
            assert!(outcome.diagnostic.contains("<421 4.4.5 The message waited"), "{}", outcome.diagnostic);
        }
        assert!(report(&senders, 1).await.contains("Action: failed\r\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_late_leaves_when_it_may() {
    let (mut rig, senders) = rig().await;
    let host = Server::start(&rig.net, HOST);
    let delivery = rig.deliver(routes(&[]));
    let pause = PauseRequest { name: "example.com".into(), source: None, time: None, reason: None };
    delivery.pause(pause).await.unwrap();
    let id = rig.accept(asking(&rig, &[("ann@example.com", Notify::DELAY)])).await;
    let late = rig.outcome(id).await;
    assert!(report(&senders, 0).await.contains("Action: delayed\r\n"));
    tokio::time::sleep(6 * HOUR).await;
    delivery.resume("example.com", None).await.unwrap();
    let outcome = rig.outcome(id).await;
    assert!(is_delivered(&outcome) && outcome.attempt == 1 && late.attempt == 0);
    assert_eq!((host.seen().messages.len(), senders.seen().messages.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_report_that_was_not_sent_yet_survives_a_power_cut() {
    let mut rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    let host = plain_host(&rig, |_| Say::Usual);
    rig.deliver(routes(&[]));
    let id = rig.accept(asking(&rig, &[("ann@example.com", Notify::SUCCESS)])).await;
    assert!(is_delivered(&rig.outcome(id).await));
    rig.power_cut().await;
    let senders = Server::start(&rig.net, SENDERS);
    rig.deliver(routes(&[]));
    assert!(report(&senders, 0).await.contains("Action: relayed"));
    tokio::time::sleep(20 * HOUR).await;
    assert_eq!((senders.seen().messages.len(), host.seen().messages.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn lateness_and_life_count_from_the_release() {
    let (mut rig, senders) = rig().await;
    Server::scripted(&rig.net, HOST, busy);
    rig.deliver(Settings { delay_notice: postrider_base::Period::from_hours(1), ..routes(&[]) });
    let mut message = asking(&rig, &[("ann@example.com", Notify::DELAY)]);
    let release = message.accepted_at.saturating_add(100 * HOUR);
    message.not_before = Some(release);
    message.expires_at = release.saturating_add(3 * HOUR);
    let id = rig.accept(message).await;
    let outcomes = rig.until_final(id).await;
    assert!(outcomes[0].at >= release && outcomes[0].at.saturating_since(release) < HOUR / 60);
    assert!(outcomes[0].delays.queue_ms < 60_000);
    let last = outcomes.last().unwrap();
    let words = "550 4.4.7 Message expired: unable to deliver in 180 minutes.<451 4.3.0 busy>";
    assert_eq!(last.diagnostic, words);
    let text = report(&senders, 0).await;
    let attempts_before = outcomes.iter().filter(|outcome| outcome.at < release.saturating_add(HOUR)).count();
    assert!(attempts_before > 2, "the first deferrals were not late");
    assert!(text.contains("Action: delayed"));
    settle(&mut rig).await;
    let own = own_messages(&rig);
    assert_eq!(own.len(), 1);
    assert!(own[0].accepted_at >= release.saturating_add(HOUR));
}

#[tokio::test(start_paused = true)]
async fn the_whole_message_goes_back_only_when_it_may() {
    let long = format!("Subject: hello\r\n\r\nFirst line.\r\n{}", "0123456789\r\n".repeat(100));
    type Change = fn(&mut NewMessage);
    let cases: [(Change, bool); 6] = [
        (|m| m.envelope.ret = Some(Ret::Full), true),
        (|m| m.envelope.ret = Some(Ret::Headers), false),
        (|_| {}, false),
        (
            |m| {
                m.envelope.ret = Some(Ret::Full);
                m.envelope.body = BodyType::BinaryMime;
            },
            false,
        ),
        (
            |m| {
                m.envelope.ret = Some(Ret::Full);
                m.envelope.require_tls = true;
            },
            false,
        ),
        (
            |m| {
                m.envelope.ret = Some(Ret::Full);
                let twice = m.content.to_bytes().repeat(2);
                m.content = Content::from(twice);
            },
            false,
        ),
    ];
    for (change, whole) in cases {
        let (mut rig, senders) = rig().await;
        rig.zones.add_null_mx("closed.example");
        rig.deliver(Settings { max_returned_bytes: postrider_base::Size::from_bytes(2_000), ..routes(&[]) });
        let mut message = asking(&rig, &[("ann@closed.example", Notify::FAILURE)]);
        message.content = Content::from(long.clone().into_bytes());
        change(&mut message);
        let id = rig.accept(message).await;
        rig.outcome(id).await;
        let text = report(&senders, 0).await;
        assert_eq!(text.contains("First line."), whole, "{text}");
        assert!(text.contains("Subject: hello"));
    }
}

#[tokio::test(start_paused = true)]
async fn international_addresses_are_reported_as_such() {
    let (mut rig, senders) = rig().await;
    rig.zones.add_null_mx("xn--bcher-kva.example");
    rig.deliver(routes(&[]));
    let mut message = asking(&rig, &[("j\u{fc}rgen@b\u{fc}cher.example", Notify::FAILURE)]);
    message.envelope.smtp_utf8 = true;
    message.envelope.recipients[0].orcpt = Some("utf-8;J\u{fc}rgen@b\u{fc}cher.example".into());
    let id = rig.accept(message).await;
    rig.outcome(id).await;
    let text = report(&senders, 0).await;
    for line in [
        "Content-Type: message/global-delivery-status",
        "Original-Recipient: utf-8;J=C3=BCrgen@b=C3=BCcher.example",
        "Final-Recipient: utf-8; j=C3=BCrgen@xn--bcher-kva.example",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} not in {text}");
    }
    // Only its sender's address decides what the report itself needs: any host can take this one.
    let own = own_messages(&rig).remove(0);
    assert_eq!((own.envelope.smtp_utf8, own.envelope.body), (false, BodyType::SevenBit));
    assert!(text.is_ascii() && !senders.seen().with("MAIL")[0].contains("BODY"));
}
