//! Configuration sets that give each recipient a copy of its own.

use std::time::Duration;

use postrider_account::ConfigurationOption;
use postrider_delivery::Settings;
use postrider_delivery::shaping::PauseRequest;
use postrider_mail::{AccountId, Disposition, MessageId, Notify};

use crate::rig::{HOST, HOUR, MINUTE, Rig, is_delivered, routes};
use crate::server::{Say, Server, Setup};

const THREE: [&str; 3] = ["ann@example.com", "bob@example.com", "cem@example.com"];

async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let option = ConfigurationOption::PerRecipient(true);
    rig.accounts.configuration_sets().create(AccountId::default(), "copies", vec![option]).await.unwrap();
    rig
}

async fn send(rig: &Rig, recipients: &[&str]) -> MessageId {
    let mut message = rig.message(recipients);
    message.origin.configuration_set = Some("copies".to_owned());
    rig.accept(message).await
}

/// Settings with this file of shaping rules, which lives as long as what is returned beside.
pub(crate) fn shaped(rules: &str) -> (Settings, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    let mut settings = routes(&[]);
    settings.shaping.file = Some(file.path().to_owned());
    (settings, file)
}

/// With one connection to a site.
fn one_at_a_time(mut settings: Settings) -> Settings {
    (settings.limits.connections_per_site, settings.limits.initial_connections_per_site) = (1, 1);
    settings
}

#[tokio::test(start_paused = true)]
async fn each_recipient_gets_a_transaction_of_its_own() {
    let mut rig = rig().await;
    rig.mx("example.org", "mx.example.org", "198.51.100.2");
    let (host, other) = (Server::start(&rig.net, HOST), Server::start(&rig.net, "198.51.100.2:25"));
    rig.deliver(routes(&[]));
    let id = send(&rig, &[THREE[0], THREE[1], "dan@example.org", THREE[2]]).await;
    let outcomes = rig.outcomes(id, 4).await;
    assert!(outcomes.iter().all(|outcome| is_delivered(outcome) && outcome.attempt == 1), "{outcomes:?}");
    let seen = host.seen();
    assert_eq!((seen.messages.len(), seen.with("MAIL").len()), (3, 3));
    let mut named = seen.with("RCPT");
    named.sort_unstable();
    assert_eq!(named, THREE.map(|to| format!("RCPT TO:<{to}>")));
    assert_eq!(other.seen().messages.len(), 1);
    // One message, whatever becomes of it.
    assert_eq!((rig.accepted.len(), rig.accepted[0].id), (1, id));
}

#[tokio::test(start_paused = true)]
async fn without_the_option_they_share_one() {
    let mut rig = rig().await;
    let host = Server::start(&rig.net, HOST);
    rig.deliver(routes(&[]));
    let id = rig.send(&THREE).await;
    assert!(rig.outcomes(id, 3).await.iter().all(is_delivered));
    assert_eq!((host.seen().messages.len(), host.seen().with("RCPT").len()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn copies_are_messages_to_the_limits_of_a_site() {
    let mut rig = rig().await;
    let host = Server::start(&rig.net, HOST);
    let (settings, _file) = shaped("[site.\"mx.example.com\"]\nrate = \"1/h\"\nmessages_per_connection = 1\n");
    rig.deliver(settings);
    let began = rig.clock.now();
    let id = send(&rig, &THREE).await;
    assert!(rig.outcomes(id, 3).await.iter().all(is_delivered));
    let took = rig.clock.now().saturating_since(began);
    assert!(took >= 2 * HOUR - Duration::from_secs(60), "{took:?}");
    assert_eq!((host.seen().connections, host.seen().messages.len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn another_sender_is_not_kept_waiting_by_many_copies() {
    let mut rig = rig().await;
    let host = Server::start(&rig.net, HOST);
    let (settings, _file) = shaped("[site.\"mx.example.com\"]\nrate = \"1/m\"\n");
    let copies = send(&rig, &THREE).await;
    let mut other = rig.message(&["zoe@example.com"]);
    other.account = AccountId::new(7).unwrap();
    let other = rig.accept(other).await;
    rig.deliver(settings);
    assert!(is_delivered(&rig.outcome(other).await));
    assert!(host.seen().with("RCPT").len() <= 2, "{:?}", host.seen().with("RCPT"));
    assert!(rig.outcomes(copies, 3).await.iter().all(is_delivered));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_put_off_counts_no_attempt_of_another() {
    let mut rig = rig().await;
    // Everybody is asked to come back once.
    let host =
        Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT") && moment.connection == 0 {
            true => Say::Reply("450 4.2.0 greylisted"),
            false => Say::Usual,
        });
    rig.deliver(one_at_a_time(routes(&[])));
    let id = send(&rig, &THREE).await;
    let first = rig.outcomes(id, 3).await;
    assert!(first.iter().all(|outcome| outcome.attempt == 1 && outcome.next_attempt.is_some()), "{first:?}");
    let second = rig.outcomes(id, 3).await;
    assert!(second.iter().all(|outcome| is_delivered(outcome) && outcome.attempt == 2), "{second:?}");
    assert_eq!((host.seen().messages.len(), host.seen().with("RCPT").len()), (3, 6));
}

#[tokio::test(start_paused = true)]
async fn copies_that_were_put_off_are_read_back_once_for_all() {
    let mut rig = rig().await;
    let host = Server::scripted(&rig.net, HOST, |moment| match moment.line.starts_with("RCPT") {
        true => Say::Reply("450 4.2.0 greylisted"),
        false => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let recipients: Vec<_> = (0..40).map(|number| format!("u{number}@example.com")).collect();
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    let id = send(&rig, &recipients).await;
    rig.outcomes(id, 40).await;
    for round in 2..4 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = rig.disk.stats().reads;
        let outcomes = rig.outcomes(id, 40).await;
        assert!(outcomes.iter().all(|outcome| outcome.attempt == round), "{outcomes:?}");
        // The message, what was said to each, and what the feed reads.
        let reads = rig.disk.stats().reads - before;
        assert!(reads < 10 * 40, "round {round}: {reads} reads");
    }
    assert_eq!(host.seen().with("RCPT").len(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_one_copy_causes_holds_for_the_next() {
    let mut rig = rig().await;
    let host = Server::scripted(&rig.net, HOST, |moment| match moment.line.as_str() {
        "RCPT TO:<ann@example.com>" if moment.connection == 0 => Say::Reply("450 4.7.1 not so fast"),
        _ => Say::Usual,
    });
    let rules = "[[feedback]]\nname = \"not-so-fast\"\ntext = [\"not so fast\"]\n\
        action = \"pause-source\"\nfor = \"30m\"\nexample = \"450 4.7.1 not so fast\"\n";
    let (settings, _file) = shaped(rules);
    rig.deliver(one_at_a_time(settings));
    let began = rig.clock.now();
    let id = send(&rig, &THREE).await;
    assert!(rig.outcome(id).await.next_attempt.is_some());
    for _ in 0..3 {
        assert!(is_delivered(&rig.outcome(id).await));
        assert!(rig.clock.now().saturating_since(began) >= HOUR / 2);
    }
    assert_eq!(host.seen().messages.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_ends_while_a_copy_is_under_way_lets_the_others_go() {
    let mut rig = rig().await;
    // Two are under way when the pause comes, and one of them still is when it ends.
    let host = Server::scripted(&rig.net, HOST, |moment| match (moment.line.as_str(), moment.connection) {
        (".", 0) => Say::After(5 * MINUTE, "250 2.0.0 taken"),
        (".", 1) => Say::After(MINUTE, "250 2.0.0 taken"),
        _ => Say::Usual,
    });
    let mut settings = routes(&[]);
    (settings.limits.connections_per_site, settings.limits.initial_connections_per_site) = (2, 2);
    let delivery = rig.deliver(settings);
    let began = rig.clock.now();
    let id = send(&rig, &THREE).await;
    host.until(|seen| seen.with("DATA").len() == 2).await;
    let pause = PauseRequest { name: "example.com".into(), source: None, time: None, reason: None };
    delivery.pause(pause).await.unwrap();
    tokio::time::sleep(3 * MINUTE).await;
    let site = &delivery.sites()[0];
    assert_eq!((site.paused, site.delivered), (1, 1));
    delivery.resume("example.com", None).await.unwrap();
    assert!(rig.outcomes(id, 3).await.iter().all(is_delivered));
    let took = rig.clock.now().saturating_since(began);
    // Over the slow connection again.
    assert!(took < 11 * MINUTE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_site_that_cannot_be_reached_is_asked_once_for_all() {
    let mut rig = rig().await;
    rig.net.silence(HOST.parse().unwrap());
    rig.deliver(routes(&[]));
    let began = rig.clock.now();
    let id = send(&rig, &THREE).await;
    for outcome in rig.outcomes(id, 3).await {
        assert_eq!((outcome.attempt, outcome.diagnostic.as_str()), (1, "421 4.4.2 Connection timed out"));
    }
    assert!(rig.clock.now().saturating_since(began) < Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn each_copy_is_reported_by_itself() {
    let mut rig = rig().await;
    rig.mx("example.net", "mx.example.net", "198.51.100.9");
    let senders = Server::start(&rig.net, "198.51.100.9:25");
    let setup = Setup { extensions: vec!["PIPELINING"], ..Setup::default() };
    Server::with(&rig.net, HOST, setup, |moment| match moment.line.as_str() {
        "RCPT TO:<bob@example.com>" => Say::Reply("550 5.1.1 user unknown"),
        _ => Say::Usual,
    });
    rig.deliver(routes(&[]));
    let mut message = rig.message(&THREE);
    message.origin.configuration_set = Some("copies".to_owned());
    message.envelope.recipients.iter_mut().for_each(|to| to.notify = Notify::SUCCESS | Notify::FAILURE);
    let id = rig.accept(message).await;
    let dispositions: Vec<_> = rig.outcomes(id, 3).await.into_iter().map(|outcome| outcome.disposition).collect();
    assert!(matches!(dispositions[..], [Disposition::Delivered, Disposition::Bounced(_), Disposition::Delivered]));
    senders.until(|seen| seen.messages.len() == 3).await;
    let told = |to: &str, action: &str| {
        let wanted = [format!("Final-Recipient: rfc822; {to}\r\n"), format!("Action: {action}\r\n")];
        senders.seen().messages.iter().filter(|text| wanted.iter().all(|line| text.contains(line))).count()
    };
    assert_eq!([told(THREE[0], "relayed"), told(THREE[1], "failed"), told(THREE[2], "relayed")], [1, 1, 1]);
}
