//! What comes back after the dialogue, beside what the spool's feed says.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod relay;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Random, Scope, SimDisk, Size};
use postrider_events::{
    Affected, Error, Events, Kind, LifeEntry, Line, Reported, Returned, ReturnedBounce, ReturnedComplaint,
    ReturnedKind, ReturnedSource, Settings, Start,
};
use postrider_mail::dsn::Action;
use postrider_mail::{BounceKind, Disposition, EnhancedStatus, MessageId, SuppressionList, SuppressionReason};
use postrider_mail::{EmailAddress, SuppressionSource};
use postrider_spool::Spool;
use serde_json::{Value, json};

use relay::{Relay, START, all, commit, events_options, message, outcome, settings};

/// More than enough.
const PATIENCE: Duration = Duration::from_secs(30);

fn bounce(kind: BounceKind) -> ReturnedKind {
    ReturnedKind::Bounce(ReturnedBounce {
        kind,
        action: Some(Action::Failed),
        status: Some(EnhancedStatus::new(5, 1, 1)),
        diagnostic: Some("smtp; 550 5.1.1 user unknown".into()),
        reporting_mta: Some("dns; mx.example.net".into()),
    })
}

fn complaint(feedback_type: &str) -> ReturnedKind {
    ReturnedKind::Complaint(ReturnedComplaint {
        feedback_type: Some(feedback_type.into()),
        user_agent: Some("Loop/1.0".into()),
        arrival_date: Some(START),
    })
}

fn returned(id: MessageId, affected: Affected, what: ReturnedKind) -> Returned {
    let source = ReturnedSource {
        ip: Some("198.51.100.9".parse().unwrap()),
        domains: vec!["example.net".into()],
        session: "SESSION".into(),
    };
    Returned { id, at: START, affected, what, source, notice: Some(notice()) }
}

/// In which message who sent it is told.
fn notice() -> MessageId {
    MessageId::new(0x0100, START, 7)
}

fn addresses(texts: &[&str]) -> Vec<EmailAddress> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

async fn report(relay: &Relay, id: MessageId, affected: Affected, what: ReturnedKind) -> Reported {
    let told = tokio::time::timeout(PATIENCE, relay.events.report(returned(id, affected, what)));
    told.await.expect("nobody answers").unwrap()
}

/// A message to these recipients, delivered to all of them.
async fn delivered(relay: &Relay, random: &Random, recipients: &[&str]) -> MessageId {
    let sent = message(random, recipients);
    let id = sent.id;
    relay.spool.accept(sent).await.unwrap();
    let count = u16::try_from(recipients.len()).unwrap();
    let outcomes = (0..count).map(|recipient| outcome(recipient, 1, Disposition::Delivered)).collect();
    commit(&relay.spool, id, outcomes).await.unwrap();
    id
}

async fn open(disk: &SimDisk) -> Relay {
    let relay = Relay::open(disk, events_options(disk, settings())).await;
    relay.events.recovered().await.unwrap();
    relay
}

/// The events of a message after its Send and Delivery.
async fn late(relay: &Relay, id: MessageId) -> Vec<Value> {
    let lines = all(relay.events.since(Start::Oldest)).await;
    let late = lines.iter().filter(|line| line.id == id && matches!(line.kind, Kind::Bounce | Kind::Complaint));
    late.map(|line| serde_json::from_slice(&line.json).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_bounce_and_a_complaint_are_events_in_sess_shape() {
    let (disk, random) = (SimDisk::new(), Random::seeded(1));
    let relay = open(&disk).await;
    let id = delivered(&relay, &random, &["a@example.net", "b@example.net"]).await;
    let told = report(&relay, id, Affected::Index(1), bounce(BounceKind::PermanentGeneral)).await;
    assert_eq!(told, Reported::Journaled(addresses(&["b@example.net"])));
    let told = report(&relay, id, Affected::Address("A@Example.NET".parse().unwrap()), complaint("abuse")).await;
    assert_eq!(told, Reported::Journaled(addresses(&["a@example.net"])));

    let mut events = late(&relay, id).await;
    assert!(events.iter().all(|event| event["mail"]["messageId"] == json!(id.to_string())), "{events:#?}");
    let feedback_ids = without_feedback_ids(&mut events);
    assert!(feedback_ids.iter().all(|id| id.len() == 60 && id.ends_with("-000000")), "{feedback_ids:?}");
    assert_ne!(feedback_ids[0], feedback_ids[1]);
    assert_eq!((&events[0]["eventType"], &events[1]["eventType"]), (&json!("Bounce"), &json!("Complaint")));
    assert_eq!(
        events[0]["bounce"],
        json!({
            "bounceType": "Permanent",
            "bounceSubType": "General",
            "bouncedRecipients": [{
                "emailAddress": "b@example.net",
                "action": "failed",
                "status": "5.1.1",
                "diagnosticCode": "smtp; 550 5.1.1 user unknown",
            }],
            "timestamp": "2023-11-14T22:13:20.000Z",
            "reportingMTA": "dns; mx.example.net",
        })
    );
    assert_eq!(
        events[1]["complaint"],
        json!({
            "complainedRecipients": [{"emailAddress": "a@example.net"}],
            "timestamp": "2023-11-14T22:13:20.000Z",
            "complaintSubType": null,
            "userAgent": "Loop/1.0",
            "complaintFeedbackType": "abuse",
            "arrivalDate": "2023-11-14T22:13:20.000Z",
        })
    );
    relay.close().await;
}

/// Takes the ids of the feedback out of a bounce and a complaint, which are not known before.
fn without_feedback_ids(events: &mut [Value]) -> Vec<String> {
    let taken = ["bounce", "complaint"].iter().zip(events).map(|(key, event)| {
        let object = event[key].as_object_mut().unwrap();
        object.remove("feedbackId").unwrap().as_str().unwrap().to_owned()
    });
    taken.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_back_is_part_of_the_life_and_in_the_mail_log() {
    let (disk, random) = (SimDisk::new(), Random::seeded(10));
    let relay = open(&disk).await;
    let id = delivered(&relay, &random, &["a@example.net", "b@example.net"]).await;
    report(&relay, id, Affected::Index(1), bounce(BounceKind::PermanentGeneral)).await;
    report(&relay, id, Affected::Index(0), complaint("abuse")).await;
    let life = relay.events.message(id).await.unwrap();
    let back: Vec<_> = life
        .iter()
        .filter_map(|entry| match entry {
            LifeEntry::Returned { recipient, source, .. } => {
                Some((recipient.clone().unwrap(), source.session.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(back, [("b@example.net".parse().unwrap(), "SESSION"), ("a@example.net".parse().unwrap(), "SESSION")]);
    let log = relay.mail_log.0.lock().clone();
    assert!(
        log.contains(&format!(
            "{id}: to=<b@example.net>, reported_by=example.net[198.51.100.9], session=SESSION, dsn=5.1.1, \
         status=returned (smtp; 550 5.1.1 user unknown)\n"
        )),
        "{log}"
    );
    assert!(log.contains(
        "to=<a@example.net>, reported_by=example.net[198.51.100.9], session=SESSION, status=complained (abuse)\n"
    ));
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_report_for_programs_makes_nothing_up() {
    let (disk, random) = (SimDisk::new(), Random::seeded(2));
    let relay = open(&disk).await;
    let id = delivered(&relay, &random, &["a@example.net"]).await;
    let bare = ReturnedBounce {
        kind: BounceKind::Undetermined,
        action: None,
        status: None,
        diagnostic: None,
        reporting_mta: None,
    };
    report(&relay, id, Affected::All, ReturnedKind::Bounce(bare)).await;
    report(&relay, id, Affected::All, ReturnedKind::Complaint(ReturnedComplaint::default())).await;
    let events = late(&relay, id).await;
    let keys = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(events[0]["bounce"]["bouncedRecipients"], json!([{"emailAddress": "a@example.net"}]));
    assert_eq!(
        keys(&events[0]["bounce"]),
        ["bounceSubType", "bounceType", "bouncedRecipients", "feedbackId", "timestamp"]
    );
    assert_eq!(keys(&events[1]["complaint"]), ["complainedRecipients", "complaintSubType", "feedbackId", "timestamp"]);
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_again_is_known_also_after_a_restart() {
    let (disk, random) = (SimDisk::new(), Random::seeded(3));
    let relay = open(&disk).await;
    let id = delivered(&relay, &random, &["a@example.net", "b@example.net"]).await;
    let full = || bounce(BounceKind::TransientMailboxFull);
    let gone = || bounce(BounceKind::PermanentNoEmail);
    assert!(matches!(report(&relay, id, Affected::Index(0), full()).await, Reported::Journaled(_)));
    assert_eq!(report(&relay, id, Affected::Index(0), full()).await, Reported::Known(vec![notice()]));
    // It tells more, and after it nothing does.
    assert!(matches!(report(&relay, id, Affected::Index(0), gone()).await, Reported::Journaled(_)));
    relay.close().await;
    let relay = open(&disk).await;
    for what in [full(), gone(), bounce(BounceKind::PermanentGeneral)] {
        assert_eq!(report(&relay, id, Affected::Index(0), what).await, Reported::Known(vec![notice()]));
    }
    let rest = report(&relay, id, Affected::All, gone()).await;
    assert_eq!(rest, Reported::Journaled(addresses(&["b@example.net"])), "one of the two is news");
    // Who takes a message for no spam may still object to it; and that once.
    assert!(matches!(report(&relay, id, Affected::Index(1), complaint("not-spam")).await, Reported::Journaled(_)));
    assert!(matches!(report(&relay, id, Affected::Index(1), complaint("abuse")).await, Reported::Journaled(_)));
    assert_eq!(report(&relay, id, Affected::Index(1), complaint("fraud")).await, Reported::Known(vec![notice()]));
    assert_eq!(late(&relay, id).await.len(), 5);
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_that_came_back_for_good_does_not_bounce_once_more_in_the_dialogue() {
    for message_memory in [Size::from_mib(1), Size::from_bytes(1)] {
        let (disk, random) = (SimDisk::new(), Random::seeded(11));
        let options = events_options(&disk, Settings { message_memory, ..settings() });
        let relay = Relay::open(&disk, options).await;
        relay.events.recovered().await.unwrap();
        let sent = message(&random, &["gone@example.net", "full@example.net"]);
        let id = sent.id;
        relay.spool.accept(sent).await.unwrap();
        // Both had it, and the replies were lost.
        report(&relay, id, Affected::Index(0), bounce(BounceKind::PermanentNoEmail)).await;
        report(&relay, id, Affected::Index(1), bounce(BounceKind::TransientMailboxFull)).await;
        let refused = Disposition::Bounced(BounceKind::PermanentNoEmail);
        commit(&relay.spool, id, vec![outcome(0, 1, refused), outcome(1, 1, refused)]).await.unwrap();
        let lines = relay.catch_up(&random).await;
        let bounces: Vec<_> = lines.iter().filter(|line| line.id == id && line.kind == Kind::Bounce).collect();
        let of = |line: &&Line| String::from_utf8_lossy(&line.json).contains("[{\"emailAddress\":\"gone@");
        assert_eq!((bounces.len(), bounces.iter().filter(|line| of(line)).count()), (3, 1), "{bounces:#?}");
        let life = relay.events.message(id).await.unwrap();
        assert_eq!(life.len(), 5, "both attempts are in it");
        relay.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_say_the_same_at_once_make_one_event() {
    let (disk, random) = (SimDisk::new(), Random::seeded(4));
    let relay = open(&disk).await;
    let id = delivered(&relay, &random, &["a@example.net"]).await;
    let asked: Vec<_> = (0..200)
        .map(|_| {
            let (events, said) = (relay.events.clone(), returned(id, Affected::All, complaint("abuse")));
            tokio::spawn(async move { events.report(said).await.unwrap() })
        })
        .collect();
    let mut journaled = 0;
    for asked in asked {
        match tokio::time::timeout(PATIENCE, asked).await.expect("nobody answers").unwrap() {
            Reported::Journaled(_) => journaled += 1,
            told => assert_eq!(told, Reported::Known(vec![notice()])),
        }
    }
    assert_eq!((journaled, late(&relay, id).await.len()), (1, 1));
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_those_are_affected_who_were_written_to() {
    let (disk, random) = (SimDisk::new(), Random::seeded(5));
    let relay = open(&disk).await;
    let recipients = ["a@one.example", "b@one.example", "c@two.example", "d@two.example", "e@two.example"];
    let sent = message(&random, &recipients);
    let id = sent.id;
    relay.spool.accept(sent).await.unwrap();
    let listed = SuppressionSource { list: SuppressionList::Account, reason: SuppressionReason::Bounce };
    let ends = vec![
        outcome(0, 1, Disposition::Delivered),
        outcome(1, 1, Disposition::Suppressed(listed)),
        outcome(2, 1, Disposition::Delivered),
        outcome(3, 1, Disposition::Bounced(BounceKind::PermanentNoEmail)),
    ];
    commit(&relay.spool, id, ends).await.unwrap();
    relay.catch_up(&random).await;
    let full = || bounce(BounceKind::TransientMailboxFull);
    for nobody in [Affected::Index(1), Affected::Index(5), Affected::Address("x@one.example".parse().unwrap())] {
        assert_eq!(report(&relay, id, nobody, full()).await, Reported::Unknown);
    }
    assert_eq!(report(&relay, id, Affected::At("three.example".parse().unwrap()), full()).await, Reported::Unknown);
    assert_eq!(report(&relay, id, Affected::DomainOf(9), full()).await, Reported::Unknown);
    let unknown = MessageId::new(1, START, 77);
    assert_eq!(report(&relay, unknown, Affected::All, full()).await, Reported::Unknown);
    // The dialogue said it already.
    let gone = bounce(BounceKind::PermanentNoEmail);
    assert_eq!(report(&relay, id, Affected::Index(3), gone).await, Reported::Known(Vec::new()));
    let of_two = report(&relay, id, Affected::DomainOf(4), full()).await;
    assert_eq!(of_two, Reported::Journaled(addresses(&["c@two.example"])), "who got it, before who may have");
    let all = report(&relay, id, Affected::All, full()).await;
    assert_eq!(all, Reported::Journaled(addresses(&["a@one.example"])));
    let named = report(&relay, id, Affected::Index(4), full()).await;
    assert_eq!(named, Reported::Journaled(addresses(&["e@two.example"])), "the reply was lost");
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_texts_and_times_stay_in_their_place() {
    let (disk, random) = (SimDisk::new(), Random::seeded(6));
    let relay = open(&disk).await;
    let id = delivered(&relay, &random, &["a@example.net"]).await;
    let hostile = "x\r\nfake: line, status=sent \u{1b}[2J".repeat(1_000);
    let said = Returned {
        at: START.saturating_add(Duration::from_hours(24 * 365 * 100)),
        ..returned(
            id,
            Affected::All,
            ReturnedKind::Bounce(ReturnedBounce {
                kind: BounceKind::PermanentGeneral,
                action: None,
                status: None,
                diagnostic: Some(hostile.clone()),
                reporting_mta: Some(hostile.clone()),
            }),
        )
    };
    let said = Returned {
        source: ReturnedSource { domains: vec![hostile.clone(); 1000], session: hostile, ..said.source },
        ..said
    };
    relay.events.report(said).await.unwrap();
    let events = late(&relay, id).await;
    let timestamp = events[0]["bounce"]["timestamp"].as_str().unwrap();
    assert!(timestamp.starts_with("2023-11-14T22:"), "{timestamp} is in a hundred years");
    assert!(events[0].to_string().len() < 5_000);
    let log = relay.mail_log.0.lock().clone();
    assert!(log.lines().all(|line| line.contains("nrcpt=") || line.contains("to=<a@example.net>")), "{log}");
    assert!(log.len() < 10_000 && !log.contains('\u{1b}'));
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_waits_for_a_message_that_the_feed_has_not_brought() {
    let (disk, random) = (SimDisk::new(), Random::seeded(7));
    let relay = open(&disk).await;
    for _ in 0..50 {
        let sent = message(&random, &["a@example.net"]);
        let id = sent.id;
        relay.spool.accept(sent).await.unwrap();
        let told = report(&relay, id, Affected::All, bounce(BounceKind::PermanentGeneral)).await;
        assert!(matches!(told, Reported::Journaled(_)), "{told:?}");
    }
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_not_be_answered_is_told_so() {
    let (disk, random) = (SimDisk::new(), Random::seeded(8));
    let relay = open(&disk).await;
    let id = delivered(&relay, &random, &["a@example.net"]).await;
    relay.catch_up(&random).await;
    disk.halt();
    let said = || returned(id, Affected::All, complaint("abuse"));
    let refused = tokio::time::timeout(PATIENCE, relay.events.report(said())).await.expect("nobody answers");
    assert!(refused.is_err(), "{refused:?}");
    relay.scope.close(PATIENCE).await.unwrap();
    assert!(matches!(relay.events.report(said()).await, Err(Error::Log(_))), "nobody writes the journal any more");
    let _ = (relay.events.close().await, relay.spool.close().await);
}

/// What was answered with 250: recipients of messages that came back.
type Promises = HashMap<MessageId, u32>;

/// Delivers messages and reports bounces of them until the disk halts.
async fn work(spool: Spool, events: Events, random: Random, promised: Arc<Mutex<Promises>>) {
    loop {
        let sent = message(&random, &["a@example.net", "b@example.org"]);
        let id = sent.id;
        if spool.accept(sent).await.is_err() {
            return;
        }
        promised.lock().insert(id, 0);
        for recipient in 0..2 {
            if commit(&spool, id, vec![outcome(recipient, 1, Disposition::Delivered)]).await.is_err() {
                return;
            }
            if random.below(2) == 0 {
                continue;
            }
            let gone = bounce(BounceKind::PermanentNoEmail);
            match events.report(returned(id, Affected::Index(recipient), gone)).await {
                Ok(Reported::Journaled(_) | Reported::Known(_)) => *promised.lock().entry(id).or_default() += 1,
                Ok(Reported::Unknown) => panic!("the message was accepted"),
                Err(_) => return,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crashes_lose_no_report_and_repeat_nothing_of_the_feed() {
    let (disk, random) = (SimDisk::new(), Random::seeded(9));
    let promised: Arc<Mutex<Promises>> = Arc::default();
    for round in 0..10 {
        let relay = open(&disk).await;
        let working = Scope::new("work");
        for _ in 0..6 {
            let (spool, events) = (relay.spool.clone(), relay.events.clone());
            working.spawn("worker", work(spool, events, random.clone(), promised.clone()));
        }
        tokio::time::sleep(Duration::from_millis(150 + random.below(200))).await;
        disk.halt();
        relay.scope.close(PATIENCE).await.unwrap();
        working.close(PATIENCE).await.unwrap();
        let _ = relay.events.close().await;
        let _ = relay.spool.close().await;
        disk.crash(round);
    }
    let relay = open(&disk).await;
    let lines = relay.catch_up(&random).await;
    let mut counts: HashMap<(MessageId, Kind), u32> = HashMap::new();
    for line in &lines {
        *counts.entry((line.id, line.kind)).or_default() += 1;
    }
    let promised = std::mem::take(&mut *promised.lock());
    let back: u32 = promised.values().sum();
    assert!(promised.len() > 30 && back > 10, "only {} messages and {back} bounces", promised.len());
    for (id, bounces) in promised {
        assert_eq!(counts.get(&(id, Kind::Send)), Some(&1), "{id}");
        let found = counts.get(&(id, Kind::Bounce)).copied().unwrap_or_default();
        assert!((bounces..=bounces + 1).contains(&found), "{id}: {found} of {bounces}");
        assert_once(&relay, id).await;
    }
    relay.close().await;
}

/// That nothing in the life of a message is there twice: each recipient is delivered to once, and
/// bounces once.
async fn assert_once(relay: &Relay, id: MessageId) {
    let mut delivered: Vec<u16> = Vec::new();
    let mut came_back: Vec<EmailAddress> = Vec::new();
    for entry in relay.events.message(id).await.unwrap() {
        match entry {
            LifeEntry::Attempt { outcome, .. } => delivered.push(outcome.recipient),
            LifeEntry::Returned { recipient, .. } => came_back.extend(recipient),
            LifeEntry::Accepted(_) => {}
        }
    }
    assert!(delivered.is_sorted_by(|a, b| a < b), "{id}: {delivered:?}");
    assert!(came_back.is_sorted_by(|a, b| a.as_str() < b.as_str()), "{id}: {came_back:?}");
}
