//! Spools that earlier versions wrote are read as they were meant.
//!
//! `tests/formats/v<version>` has the log of a spool as a process left it
//! that was killed, with every kind of record in it. When the format of
//! records changes, `write_a_spool_for_later` adds a directory; the old ones
//! stay for ever, and so does the test that reads them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Disk, OpenMode, RealDisk, Size, Timestamp};
use postrider_mail::{
    AttemptOutcome, BodyType, DelayType, Delays, Disposition, MessageId, Notify, Recipient, Remote, Ret, Stage, TlsInfo,
};
use postrider_spool::{
    Claim, Driver, Durability, ExportOptions, FeedRecord, ImportOptions, Lsn, NewMessage, OriginKind, OriginalHeaders,
    Selector, Spool,
};

use postrider_wal::{Entry, Log};

use crate::feed::read_all;
use crate::rig::{BOUNCED, DIR, HOUR, Rig, assert_intact, body_of, due_now, outcomes, queue};

/// The version that is written now.
const CURRENT: u32 = 1;
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn files(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/v{version}"))
}

fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.settings.segment_bytes = Size::from_kib(16);
    rig
}

/// The messages, by number. Each has something that the others lack.
fn message(rig: &Rig, number: u128) -> NewMessage {
    let id = MessageId::new(1, START, number << 40 | 77 << 24 | number);
    let to = ["a@one.example", "b@two.example", "c@one.example"];
    let mut message = NewMessage { id, content: body_of(id), accepted_at: START, ..rig.message(&to) };
    message.expires_at = START.saturating_add(96 * HOUR);
    let (envelope, origin) = (&mut message.envelope, &mut message.origin);
    match number {
        0 => {
            envelope.body = BodyType::EightBitMime;
            envelope.ret = Some(Ret::Headers);
            envelope.envid = Some("id+of the sender".into());
            envelope.require_tls = true;
            envelope.recipients[1] = Recipient {
                notify: Notify::NEVER,
                orcpt: Some("rfc822;old@two.example".into()),
                ..envelope.recipients[1].clone()
            };
            origin.credential = Some("AKIAEXAMPLE000000001".into());
            origin.client_ip = Some("2001:db8::1".parse().unwrap());
            origin.client_name = Some("client.example".into());
            origin.configuration_set = Some("set".into());
            origin.tags = vec![("campaign".into(), "book".into())];
            let fields = vec![("Subject".into(), "Grüße".into()), ("X-Empty".into(), String::new())];
            origin.headers = OriginalHeaders { fields, truncated: true };
        }
        1 => message.not_before = Some(START.saturating_add(30 * HOUR)),
        2 => origin.hold = true,
        3 => {
            message.tls_optional = true;
            envelope.smtp_utf8 = true;
        }
        4 => {
            envelope.sender = None;
            origin.kind = OriginKind::Dsn { of: MessageId::new(1, START, 5) };
            origin.protocol = "HTTP".into();
        }
        _ => {}
    }
    message
}

/// Put off by an hour, with all that can be said of an attempt.
fn deferred(claim: &Claim) -> Vec<AttemptOutcome> {
    let mut all = outcomes(claim, Disposition::Deferred(DelayType::MailboxFull), START);
    for outcome in &mut all {
        outcome.next_attempt = Some(START.saturating_add(HOUR));
        outcome.diagnostic = "452 4.2.2 full".into();
        outcome.delays = Delays { before_queue_ms: 1, queue_ms: 2, connect_ms: 3, transmit_ms: 4 };
        outcome.tls = Some(TlsInfo { version: "TLSv1.3".into(), cipher: "C".into(), authenticated: true });
        outcome.remote = Some(Remote {
            host: "mx.example".into(),
            ip: Some("192.0.2.1".parse().unwrap()),
            port: 25,
            source_ip: None,
            stage: Stage::EndOfData,
        });
    }
    all
}

/// Every kind of record: 0 has one domain put off and the other delivered, 5
/// bounced, with 4 for its notification, 6 had an attempt begun, 7 was
/// deleted, 3 is held, and so is a queue. 0 to 2 were copied to the end of
/// the log. There is one orderly stop.
async fn fill(rig: &Rig) -> Spool {
    let spool = rig.open().await;
    for number in 0..3 {
        spool.accept(message(rig, number)).await.unwrap();
    }
    for claim in due_now(&spool, 9).await {
        let outcomes = match claim.queue.domain.as_str() {
            "one.example" => deferred(&claim),
            _ => outcomes(&claim, Disposition::Delivered, START),
        };
        claim.finish(outcomes, Vec::new()).await.unwrap();
    }
    // Until the log has moved on.
    for number in 100..220 {
        spool.accept(message(rig, number)).await.unwrap();
        spool.delete(&Selector::Message(message(rig, number).id)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!rig.disk.exists(&Path::new(DIR).join("segment-0000000001.log")), "nothing was copied");
    for number in [3, 5, 6, 7] {
        spool.accept(message(rig, number)).await.unwrap();
    }
    for claim in due_now(&spool, 20).await {
        if claim.id == message(rig, 5).id {
            let last = claim.queue.domain.as_str() == "one.example";
            let dsns = if last { vec![message(rig, 4)] } else { Vec::new() };
            let bounced = outcomes(&claim, BOUNCED, START);
            claim.finish(bounced, dsns).await.unwrap();
        }
    }
    spool.delete(&Selector::Message(message(rig, 7).id)).await.unwrap();
    spool.hold(&Selector::Message(message(rig, 3).id)).await.unwrap();
    spool.close().await.unwrap();
    // No longer fresh, so that an attempt is registered.
    let spool = rig.open().await;
    let mut claims = Vec::new();
    while let Some(mut claim) = due_now(&spool, 1).await.pop() {
        if claim.id == message(rig, 6).id {
            claim.register().await.unwrap();
        }
        claims.push(claim);
    }
    drop(claims);
    spool.hold(&Selector::Queue(queue("two.example"))).await.unwrap();
    spool
}

fn load(rig: &Rig, version: u32) {
    let disk = &rig.disk;
    disk.create_dir_all(Path::new(DIR)).unwrap();
    for file in fs::read_dir(files(version)).unwrap() {
        let path = file.unwrap().path();
        let copy = disk.open(&Path::new(DIR).join(path.file_name().unwrap()), OpenMode::CreateNew).unwrap();
        copy.write_all_at(&fs::read(path).unwrap(), 0).unwrap();
        copy.sync_all().unwrap();
    }
    disk.sync_dir(Path::new(DIR)).unwrap();
}

/// The state of each recipient: whether it is done, its attempts, and when
/// the next one is due.
async fn state(spool: &Spool, id: MessageId) -> Vec<(bool, u32, Option<Timestamp>)> {
    let view = spool.show(id).await.unwrap().unwrap();
    view.recipients.iter().map(|it| (it.done, it.attempts, it.next_attempt)).collect()
}

#[tokio::test(start_paused = true)]
async fn spools_of_every_version_are_read() {
    for version in 1..=CURRENT {
        let rig = rig();
        load(&rig, version);
        let spool = rig.open().await;
        let id = |number| message(&rig, number).id;
        for number in [0, 1, 2, 3, 4, 6] {
            let view = spool.show(id(number)).await.unwrap().unwrap();
            let (record, _) = message(&rig, number).into_parts();
            assert_eq!(*view.message, record, "version {version}, message {number}");
            assert_eq!(view.held, [2, 3].contains(&number), "message {number}");
        }
        let (hour, later) = (Some(START.saturating_add(HOUR)), Some(START.saturating_add(30 * HOUR)));
        let now = Some(START);
        assert_eq!(state(&spool, id(0)).await, [(false, 1, hour), (true, 0, None), (false, 1, hour)]);
        assert_eq!(state(&spool, id(1)).await, [(false, 0, later); 3]);
        assert_eq!(state(&spool, id(2)).await, [(false, 0, None); 3]);
        assert_eq!(state(&spool, id(3)).await, [(false, 0, None); 3]);
        assert_eq!(state(&spool, id(4)).await, [(false, 0, now); 3]);
        assert_eq!(state(&spool, id(6)).await, [(false, 1, now); 3]);
        for gone in [5, 7, 100, 219] {
            assert_eq!(spool.show(id(gone)).await.unwrap(), None, "message {gone}");
        }
        let last = spool.show(id(0)).await.unwrap().unwrap().recipients[2].last.clone().unwrap();
        assert_eq!((last.recipient, &*last.diagnostic), (2, "452 4.2.2 full"));
        // That was before attempts had records, which stand behind the outcomes.
        assert_eq!(last.record, None);
        assert_eq!((last.delays.transmit_ms, last.tls.unwrap().authenticated), (4, true));
        assert_eq!(last.remote.unwrap().to_string(), "mx.example[192.0.2.1]:25");
        assert_feed(&spool, &rig, version).await;
        assert_delivered(&spool, &rig).await;
        let stat = spool.stat();
        assert_eq!((stat.messages, stat.quarantined), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_later_version_is_refused_and_named() {
    const LATER: u8 = 2;
    let rig = rig();
    load(&rig, CURRENT);
    let options = postrider_wal::Options {
        segment_bytes: rig.settings.segment_bytes.bytes(),
        driver: Driver::Task,
        ..postrider_wal::Options::default()
    };
    let disk = Arc::new(rig.disk.for_process());
    let (log, _) = Log::open(disk, Path::new(DIR), options, &mut drop).unwrap();
    let committed = log.commit(vec![Entry::head_only(1, vec![LATER, 1, 2, 3])], Durability::Synced).await.unwrap();
    log.close().await.unwrap();
    let error = Spool::open(rig.options()).await.unwrap_err();
    let segment = committed.locations[0].segment;
    let said = format!("segment {segment} of the spool has a record of version {LATER}, known is {CURRENT}");
    assert!(error.to_string().contains(&said), "{error}");
}

async fn assert_feed(spool: &Spool, rig: &Rig, version: u32) {
    let mut ended = Vec::new();
    let mut accepted = Vec::new();
    for item in read_all(&mut spool.feed("events", Lsn::ZERO)).await {
        match item.record {
            FeedRecord::Accepted(record) => accepted.push(record.id),
            FeedRecord::Outcomes { id, .. } => ended.push(id),
            _ => panic!("no other records"),
        }
    }
    for number in [3, 4, 5, 6, 7] {
        let id = message(rig, number).id;
        assert!(accepted.contains(&id), "version {version}, message {number}");
        assert_eq!(ended.contains(&id), [5, 7].contains(&number), "version {version}, message {number}");
    }
}

/// What waits comes out, byte for byte.
async fn assert_delivered(spool: &Spool, rig: &Rig) {
    let two = queue("two.example");
    let summary = spool.summary().await.unwrap();
    assert!(summary.iter().all(|it| it.held == (it.domain == two.domain)));
    spool.release(&Selector::All).await.unwrap();
    tokio::time::sleep(31 * HOUR).await;
    let mut count = 0;
    loop {
        let claims = due_now(spool, 20).await;
        if claims.is_empty() {
            break;
        }
        for claim in claims {
            assert_intact(&claim).await;
            let delivered = outcomes(&claim, Disposition::Delivered, rig.clock.now());
            count += delivered.len();
            claim.finish(delivered, Vec::new()).await.unwrap();
        }
    }
    assert_eq!(count, 2 + 5 * 3);
}

/// The version of exports that is written now.
const CURRENT_EXPORT: u32 = 2;

fn export(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/export-v{version}"))
}

#[tokio::test(start_paused = true)]
async fn exports_of_every_version_are_imported_once() {
    for version in 1..=CURRENT_EXPORT {
        let rig = rig();
        let spool = rig.open().await;
        let options = ImportOptions { disk: Arc::new(RealDisk), path: export(version), again: false };
        let imported = spool.import(options.clone()).await.unwrap();
        assert_eq!((imported.messages, &*imported.from, imported.held), (3, "an instance", false));
        for number in [0, 2, 3] {
            let view = spool.show(message(&rig, number).id).await.unwrap().unwrap();
            let (record, _) = message(&rig, number).into_parts();
            assert_eq!(*view.message, record, "version {version}, message {number}");
            assert_eq!(view.held, number == 2, "message {number}");
        }
        let (id, hour) = (message(&rig, 0).id, Some(START.saturating_add(HOUR)));
        assert_eq!(state(&spool, id).await, [(false, 1, hour), (true, 0, None), (false, 1, hour)]);
        let last = spool.show(id).await.unwrap().unwrap().recipients[2].last.clone().unwrap();
        assert_eq!((last.recipient, &*last.diagnostic), (2, "452 4.2.2 full"));
        spool.delete(&Selector::All).await.unwrap();
        let again = spool.import(options).await.unwrap();
        assert_eq!((again.messages, again.taken_before), (0, 3), "version {version}");
    }
}

/// One domain of a message put off and the other delivered, one that is held,
/// and one as it was accepted.
#[tokio::test(start_paused = true)]
#[ignore = "writes a file that the other tests read, once for each version"]
async fn write_an_export_for_later() {
    let rig = rig();
    let spool = rig.open().await;
    spool.accept(message(&rig, 0)).await.unwrap();
    for claim in due_now(&spool, 9).await {
        let outcomes = match claim.queue.domain.as_str() {
            "one.example" => deferred(&claim),
            _ => outcomes(&claim, Disposition::Delivered, START),
        };
        claim.finish(outcomes, Vec::new()).await.unwrap();
    }
    spool.accept(message(&rig, 2)).await.unwrap();
    spool.accept(message(&rig, 3)).await.unwrap();
    let path = export(CURRENT_EXPORT);
    let options = ExportOptions {
        disk: Arc::new(RealDisk),
        path,
        selector: Selector::All,
        from: "an instance".into(),
        id: rig.random.uuid_v4(),
        keep: false,
    };
    assert_eq!(spool.export(options).await.unwrap().moved, 3);
}

/// `cargo test -p postrider-spool --test spool -- --ignored`
#[tokio::test(start_paused = true)]
#[ignore = "writes the files that the other tests read, once for each version"]
async fn write_a_spool_for_later() {
    let to = files(CURRENT);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::create_dir(&to).expect("the files of a version are never written again");
    let rig = rig();
    let spool = fill(&rig).await;
    let used = spool.stat().segments;
    let left = rig.disk.fork();
    drop(spool);
    let paths = left.read_dir(Path::new(DIR)).unwrap();
    let named = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("segment-");
    for path in paths.iter().filter(named).take(usize::try_from(used).unwrap()) {
        let file = left.open(path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}
