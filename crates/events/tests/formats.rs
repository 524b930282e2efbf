//! Journals that earlier versions wrote are read as they were meant.
//!
//! `tests/formats/v<version>` has the log of a journal, and in `lines` the
//! events that it says. When the format of records changes,
//! `write_a_journal_for_later` adds a directory; the old ones stay for ever,
//! and so does the test that reads them.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Disk, Metrics, OpenMode, Scope, SimDisk, Size, Timestamp};
use postrider_events::{
    Affected, Driver, Events, EventsOptions, Issuer, Kind, LifeEntry, Line, Reported, Returned, ReturnedBounce,
    ReturnedComplaint, ReturnedKind, ReturnedSource, Settings, Start, TracingSink, Wishes,
};
use postrider_mail::dsn::Action;
use postrider_mail::{
    AccountId, AttemptOutcome, BounceKind, DelayType, Delays, Disposition, EnhancedStatus, Envelope, MessageId, Notify,
    Recipient, Remote, Stage, TlsInfo,
};
use postrider_spool::{Content, Durability, NewMessage, Origin, OriginalHeaders, Record, Spool, SpoolOptions};

/// The version that is written now.
const CURRENT: u32 = 4;
const DIR: &str = "/journal";
const LINES: &str = "lines";
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// Messages that the journal knows.
const MESSAGES: u128 = 3;

fn files(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/v{version}"))
}

fn id(number: u128) -> MessageId {
    MessageId::new(0x0100, START, number)
}

async fn open(disk: &SimDisk) -> Events {
    let options = EventsOptions {
        disk: Arc::new(disk.clone()),
        dir: DIR.into(),
        view_dir: None,
        driver: Driver::Thread,
        clock: Clock::simulated(START),
        settings: Settings { segment_bytes: Size::from_kib(64), ..Settings::default() },
        metrics: Metrics::new(),
        issuer: Issuer {
            partition: "aws".into(),
            region: "us-east-1".into(),
            hostname: "mta.example.com".into(),
            operator_domain: "example.org".into(),
        },
        accept_loss: false,
    };
    Events::open(options).await.unwrap()
}

fn message(number: u128) -> NewMessage {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut recipients = ["a@example.net", "b@example.net"].map(|to| Recipient::new(to.parse().unwrap()));
    let asks = number == MESSAGES - 1;
    if asks {
        recipients[0].notify = Notify::NEVER;
        recipients[1].orcpt = Some("rfc822;Bob@example.net".into());
    }
    let sender = (number != 2).then(|| "bounces@example.com".parse().unwrap());
    NewMessage {
        id: id(number),
        account: AccountId::default(),
        accepted_at: START,
        expires_at: START.saturating_add(Duration::from_hours(96)),
        not_before: None,
        tls_optional: false,
        envelope: Envelope {
            sender,
            recipients: recipients.into(),
            envid: asks.then(|| "QQ314".into()),
            ..Envelope::default()
        },
        origin: Origin {
            credential: Some("AKIAEXAMPLE000000001".into()),
            client_ip: Some("192.0.2.10".parse().unwrap()),
            client_name: Some("client.example.com".into()),
            protocol: "ESMTPSA".into(),
            configuration_set: (number == 0).then(|| "set".into()),
            tags: vec![field("campaign", "book")],
            headers: OriginalHeaders {
                fields: vec![field("From", "Jane <jane@example.com>"), field("Subject", "\"Grüße\"\u{2028}")],
                truncated: false,
            },
            ..Origin::default()
        },
        content: Content::from(vec![b'x'; 100]),
    }
}

/// What the last message's sender wants to be told; journals of versions 1 and 2 do not know it.
fn asked(version: u32) -> Wishes {
    match version {
        1 | 2 => Wishes::default(),
        _ => Wishes::of(&message(MESSAGES - 1).envelope),
    }
}

/// What became of the recipients: put off, delivered, bounced, deleted.
fn attempts() -> [AttemptOutcome; 4] {
    let outcome = |recipient, attempt, disposition: Disposition| AttemptOutcome {
        recipient,
        at: START.saturating_add(Duration::from_secs(u64::from(attempt))),
        attempt,
        disposition,
        status: EnhancedStatus::new(4, 2, 2),
        diagnostic: format!("452 4.2.2 try {attempt}"),
        remote: Some(Remote {
            host: "mx.example.net".into(),
            ip: Some("198.51.100.7".parse().unwrap()),
            port: 25,
            source_ip: Some("192.0.2.1".parse().unwrap()),
            stage: Stage::EndOfData,
        }),
        tls: Some(TlsInfo { version: "TLSv1.3".into(), cipher: "C".into(), authenticated: true }),
        delays: Delays { before_queue_ms: 10, queue_ms: 20, connect_ms: 300, transmit_ms: 40 },
        next_attempt: (!disposition.is_terminal()).then(|| START.saturating_add(Duration::from_hours(1))),
        record: None,
    };
    [
        outcome(0, 1, Disposition::Deferred(DelayType::MailboxFull)),
        outcome(0, 2, Disposition::Delivered),
        outcome(1, 1, Disposition::Bounced(BounceKind::PermanentNoEmail)),
        outcome(1, 2, Disposition::Deleted),
    ]
}

/// All that happened to a message.
fn life(number: u128) -> Vec<AttemptOutcome> {
    let [deferred, delivered, bounced, deleted] = attempts();
    match number {
        0 => vec![deferred, delivered, bounced],
        1 => vec![delivered, deleted],
        _ => vec![deferred],
    }
}

/// What came back for the first message after the dialogue; journals of version 1 do not know it.
fn returned(version: u32) -> Vec<ReturnedKind> {
    let bounce = ReturnedBounce {
        kind: BounceKind::TransientMailboxFull,
        action: Some(Action::Failed),
        status: Some(EnhancedStatus::new(5, 2, 2)),
        diagnostic: Some("smtp; 552 5.2.2 \"full\"".into()),
        reporting_mta: Some("dns; mx.example.net".into()),
    };
    let complaint = ReturnedComplaint {
        feedback_type: Some("abuse".into()),
        user_agent: Some("Loop/1.0".into()),
        arrival_date: Some(START),
    };
    match version {
        1 => Vec::new(),
        _ => vec![ReturnedKind::Bounce(bounce), ReturnedKind::Complaint(complaint)],
    }
}

/// In which message its sender is told of that; before version 4 it was not kept.
fn notice(version: u32) -> Option<MessageId> {
    (version >= 4).then(|| id(100))
}

fn source() -> ReturnedSource {
    ReturnedSource { ip: Some("192.0.2.20".parse().unwrap()), domains: vec!["example.net".into()], session: "S".into() }
}

async fn lines(events: &Events) -> String {
    let mut reader = events.since(Start::Oldest);
    let mut text = String::new();
    loop {
        let lines = reader.next().await.unwrap();
        if lines.is_empty() {
            return text;
        }
        for line in lines {
            let json = std::str::from_utf8(&line.json).unwrap();
            text.push_str(&format!(
                "{} {} {} {} {json}\n",
                line.cursor,
                line.at.as_millis(),
                line.kind.as_str(),
                line.id
            ));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journals_of_every_version_are_read() {
    for version in 1..=CURRENT {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        for file in fs::read_dir(files(version)).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap() != LINES {
                let copy = disk.open(&Path::new(DIR).join(path.file_name().unwrap()), OpenMode::CreateNew).unwrap();
                copy.write_all_at(&fs::read(path).unwrap(), 0).unwrap();
                copy.sync_all().unwrap();
            }
        }
        disk.sync_dir(Path::new(DIR)).unwrap();
        let events = open(&disk).await;
        assert_eq!(lines(&events).await, fs::read_to_string(files(version).join(LINES)).unwrap());
        for number in 0..MESSAGES {
            let found = events.message(id(number)).await.unwrap();
            let LifeEntry::Accepted(acceptance) = &found[0] else { panic!("not accepted") };
            let origin = message(number).origin;
            assert_eq!((acceptance.at, acceptance.size), (START, 100), "version {version}");
            assert_eq!((&acceptance.client_ip, &acceptance.protocol), (&origin.client_ip, &origin.protocol));
            assert_eq!(acceptance.recipients.len(), 2);
            let wishes = if number == MESSAGES - 1 { asked(version) } else { Wishes::default() };
            assert_eq!(acceptance.wishes, wishes, "version {version}");
            let (mut attempts, mut back) = (Vec::new(), Vec::new());
            for entry in &found[1..] {
                match entry {
                    LifeEntry::Attempt { outcome, .. } => attempts.push(outcome.clone()),
                    LifeEntry::Returned { what, source: said_by, recipient, notice: told, .. } => {
                        assert_eq!((said_by, recipient.is_some()), (&source(), true));
                        assert_eq!(*told, notice(version), "version {version}");
                        back.push(what.clone());
                    }
                    LifeEntry::Accepted(_) => panic!("accepted twice"),
                }
            }
            assert_eq!(attempts, life(number), "version {version}");
            let expected = if number == 0 { returned(version) } else { Vec::new() };
            assert_eq!(back, expected, "version {version}");
        }
        events.close().await.unwrap();
    }
}

/// `cargo test -p postrider-events --test formats -- --ignored`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the files that the other test reads, once for each version"]
async fn write_a_journal_for_later() {
    let to = files(CURRENT);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::create_dir(&to).expect("the files of a version are never written again");
    let disk = SimDisk::new();
    let spool = Spool::open(SpoolOptions {
        disk: Arc::new(SimDisk::new()),
        dir: "/spool".into(),
        index_dir: None,
        clock: Clock::simulated(START),
        settings: postrider_spool::Settings { min_free_bytes: Size::from_bytes(0), ..Default::default() },
        metrics: Metrics::new(),
        feeds: &[Events::FEED],
        start_held: false,
        accept_loss: false,
        driver: Driver::Thread,
    });
    let (spool, events, scope) = (spool.await.unwrap(), open(&disk).await, Scope::new("relay"));
    events.run(&spool, Arc::new(TracingSink), &scope).unwrap();
    for number in 0..MESSAGES {
        spool.accept(message(number)).await.unwrap();
        for outcome in life(number) {
            let record = Record::Outcomes { id: id(number), outcomes: vec![outcome] };
            spool.commit(vec![record], Durability::Synced).await.unwrap();
        }
    }
    let mut reader = events.since(Start::Oldest);
    let is_last = |line: &Line| line.id == id(MESSAGES - 1) && line.kind == Kind::DeliveryDelay;
    while !reader.follow().await.unwrap().iter().any(is_last) {}
    for what in returned(CURRENT) {
        let (affected, source, notice) = (Affected::Index(0), source(), notice(CURRENT));
        let returned = Returned { id: id(0), at: START, affected, what, source, notice };
        assert!(matches!(events.report(returned).await.unwrap(), Reported::Journaled(_)));
    }
    scope.close(Duration::from_secs(10)).await.unwrap();
    fs::write(to.join(LINES), lines(&events).await).unwrap();
    events.close().await.unwrap();
    drop(events);
    // What follows the last batch is empty: opening makes it short.
    open(&disk).await.close().await.unwrap();
    let path = Path::new(DIR).join("segment-0000000001.log");
    let file = disk.open(&path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
}
