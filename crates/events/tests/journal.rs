//! The journal behind a real spool, on a disk that crashes.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod relay;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Period, Random, Scope, SimDisk, Size};
use postrider_events::{Error, Events, EventsOptions, Kind, LifeEntry, Line, Settings, Start};
use postrider_mail::{BounceKind, DelayType, Disposition, MessageId};
use postrider_spool::{OriginKind, Spool};

use relay::{Relay, START, all, commit, events_options, message, outcome, settings};

fn kinds(lines: &[Line]) -> Vec<Kind> {
    lines.iter().map(|line| line.kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_can_be_followed_and_looked_up() {
    let (disk, random) = (SimDisk::new(), Random::seeded(1));
    let relay = Relay::open(&disk, events_options(&disk, settings())).await;
    let mut tail = relay.events.tail();
    let sent = message(&random, &["a@example.net", "b@example.net"]);
    let id = sent.id;
    relay.spool.accept(sent).await.unwrap();
    let delay = Disposition::Deferred(DelayType::General);
    commit(&relay.spool, id, vec![outcome(0, 1, delay)]).await.unwrap();
    commit(&relay.spool, id, vec![outcome(0, 2, delay)]).await.unwrap();
    let kind = BounceKind::PermanentGeneral;
    let end = vec![outcome(0, 3, Disposition::Delivered), outcome(1, 1, Disposition::Bounced(kind))];
    commit(&relay.spool, id, end).await.unwrap();

    let expected = [Kind::Send, Kind::DeliveryDelay, Kind::Delivery, Kind::Bounce];
    let mut followed = Vec::new();
    while followed.len() < expected.len() {
        followed.extend(tail.follow().await.unwrap());
    }
    assert_eq!(kinds(&followed), expected);
    assert!(followed[2].json.starts_with(b"{\"eventType\":\"Delivery\",\"mail\":{\"timestamp\":"));

    let life = relay.events.message(id).await.unwrap();
    assert!(matches!(&life[0], LifeEntry::Accepted(a) if a.recipients.len() == 2));
    let attempts: Vec<(String, u32)> = life[1..].iter().map(attempt).collect();
    let expected = [("a", 1), ("a", 2), ("a", 3), ("b", 1)].map(|(r, n)| (format!("{r}@example.net"), n));
    assert_eq!(attempts, expected);
    assert!(relay.events.message(MessageId::new(1, START, 1)).await.unwrap().is_empty());

    let after_delay = relay.events.since(Start::After(followed[1].cursor));
    assert_eq!(kinds(&all(after_delay).await), [Kind::Delivery, Kind::Bounce]);
    let last_two = relay.events.since(Start::Time(START.saturating_add(Duration::from_secs(2))));
    assert_eq!(kinds(&all(last_two).await), [Kind::Delivery]);
    assert!(all(relay.events.tail()).await.is_empty());
    assert_eq!(relay.mail_log.0.lock().lines().count(), 5);
    relay.close().await;
}

fn attempt(entry: &LifeEntry) -> (String, u32) {
    match entry {
        LifeEntry::Attempt { recipient, outcome } => (recipient.as_ref().unwrap().to_string(), outcome.attempt),
        _ => panic!("no attempt"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_orderly_stop_nothing_is_rebuilt_or_repeated() {
    let (disk, random, dir) = (SimDisk::new(), Random::seeded(2), tempfile::tempdir().unwrap());
    let view_dir = Some(dir.path().join("view"));
    let options = || EventsOptions { view_dir: view_dir.clone(), ..events_options(&disk, settings()) };
    let relay = Relay::open(&disk, options()).await;
    assert!(relay.events.recovered().await.unwrap().view_rebuilt);
    let sent = message(&random, &["a@example.net"]);
    let id = sent.id;
    relay.spool.accept(sent).await.unwrap();
    let before = relay.catch_up(&random).await;
    relay.close().await;

    let relay = Relay::open(&disk, options()).await;
    assert!(!relay.events.recovered().await.unwrap().view_rebuilt);
    commit(&relay.spool, id, vec![outcome(0, 1, Disposition::Delivered)]).await.unwrap();
    let lines = relay.catch_up(&random).await;
    assert_eq!(lines[..2], before);
    assert_eq!(kinds(&lines[2..]), [Kind::Delivery, Kind::Send]);
    assert!(lines[2].json.windows(15).any(|w| w == b"\"a@example.net\""), "the recipient was forgotten");
    assert_eq!(relay.events.message(id).await.unwrap().len(), 2);
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_view_is_made_anew() {
    let (disk, random, dir) = (SimDisk::new(), Random::seeded(3), tempfile::tempdir().unwrap());
    let view_dir = dir.path().join("view");
    let options = || EventsOptions { view_dir: Some(view_dir.clone()), ..events_options(&disk, settings()) };
    let relay = Relay::open(&disk, options()).await;
    let sent = message(&random, &["a@example.net"]);
    let id = sent.id;
    relay.spool.accept(sent).await.unwrap();
    relay.catch_up(&random).await;
    relay.close().await;
    let damage: [fn(&std::path::Path); 3] = [
        |dir| std::fs::remove_dir_all(dir).unwrap(),
        |dir| {
            let mut bytes = std::fs::read(dir.join("db")).unwrap();
            bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::write(dir.join("db"), bytes).unwrap();
        },
        |dir| std::fs::write(dir.join("db"), "").unwrap(),
    ];
    for (which, damage) in damage.into_iter().enumerate() {
        damage(&view_dir);
        let events = Events::open(options()).await.unwrap();
        assert!(events.recovered().await.unwrap().view_rebuilt, "damage {which}");
        assert_eq!(events.message(id).await.unwrap().len(), 1);
        events.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_segments_go_and_the_rest_stays_readable() {
    let (disk, random) = (SimDisk::new(), Random::seeded(4));
    let few = Settings { max_bytes: Size::from_kib(64 * 6), retention: Period::from_days(36_500), ..settings() };
    let relay = Relay::open(&disk, events_options(&disk, few)).await;
    let mut ids = Vec::new();
    for _ in 0..1000 {
        let sent = message(&random, &["a@example.net"]);
        ids.push(sent.id);
        relay.spool.accept(sent).await.unwrap();
    }
    // What it reads goes while it reads.
    relay.catch_up(&random).await;
    let lines = all(relay.events.since(Start::Oldest)).await;
    assert!(lines.len() < 900 && lines.len() > 50, "{} lines are left", lines.len());
    assert!(relay.events.message(ids[0]).await.unwrap().is_empty());
    assert_eq!(relay.events.message(ids[999]).await.unwrap().len(), 1);
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relays_own_notifications_are_lives_without_events() {
    let (disk, random) = (SimDisk::new(), Random::seeded(5));
    let relay = Relay::open(&disk, events_options(&disk, settings())).await;
    let mut own = message(&random, &["a@example.net"]);
    let id = own.id;
    own.origin.kind = OriginKind::Dsn { of: MessageId::new(1, START, 1) };
    relay.spool.accept(own).await.unwrap();
    commit(&relay.spool, id, vec![outcome(0, 1, Disposition::Delivered)]).await.unwrap();
    let lines = relay.catch_up(&random).await;
    assert_eq!(kinds(&lines), [Kind::Send], "only the last message has an event");
    assert_eq!(relay.events.message(id).await.unwrap().len(), 2);
    relay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_is_reported() {
    let (disk, random) = (SimDisk::new(), Random::seeded(6));
    let other = SimDisk::new();
    let relay = Relay::open(&disk, events_options(&other, settings())).await;
    relay.catch_up(&random).await;
    other.halt();
    relay.spool.accept(message(&random, &["a@example.net"])).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), relay.events.failed()).await.expect("nobody noticed");
    relay.scope.close(Duration::from_secs(10)).await.unwrap();
    assert!(matches!(relay.events.close().await, Err(Error::Log(_))));
}

/// Accepts messages until `count` of them have an event; the lines of those.
async fn sends(relay: &Relay, random: &Random, count: usize) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let sent = message(random, &["a@example.net"]);
        ids.push(sent.id);
        relay.spool.accept(sent).await.unwrap();
    }
    relay.catch_up(random).await;
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_lost_batches_is_refused_or_gets_events_for_all_that_follows() {
    let (disk, random, dir) = (SimDisk::new(), Random::seeded(8), tempfile::tempdir().unwrap());
    let options = |accept_loss| EventsOptions {
        view_dir: Some(dir.path().join("view")),
        accept_loss,
        ..events_options(&disk, settings())
    };
    let relay = Relay::open(&SimDisk::new(), options(false)).await;
    let mut ids = sends(&relay, &random, 30).await;
    relay.close().await;

    let renewed = SimDisk::new();
    let refused = Relay::try_open(&renewed, options(false)).await;
    assert!(matches!(refused.err(), Some(Error::Ahead { .. })), "new mail would have no events");
    let relay = Relay::open(&renewed, options(true)).await;
    ids.extend(sends(&relay, &random, 3).await);
    relay.close().await;
    // Accepted once, for good.
    let relay = Relay::open(&renewed, options(false)).await;
    ids.extend(sends(&relay, &random, 30).await);
    let lines = relay.catch_up(&random).await;
    for id in ids {
        let events = lines.iter().filter(|line| line.id == id).count();
        assert_eq!(events, 1, "{id}");
    }
    relay.close().await;
}

/// What was promised of each message: outcomes by attempt, in order.
type Promises = HashMap<MessageId, Vec<u32>>;

/// Accepts and delivers until the disk halts, remembering what was synced.
async fn work(spool: Spool, random: Random, promised: Arc<Mutex<Promises>>) {
    loop {
        let new = message(&random, &["a@example.net", "b@example.org"]);
        let id = new.id;
        if spool.accept(new).await.is_err() {
            return;
        }
        promised.lock().insert(id, Vec::new());
        let last = 1 + u32::try_from(random.below(4)).unwrap();
        for attempt in 1..=last {
            let disposition = match attempt == last {
                true => Disposition::Delivered,
                false => Disposition::Deferred(DelayType::General),
            };
            let outcomes = vec![outcome(0, attempt, disposition)];
            if commit(&spool, id, outcomes).await.is_err() {
                return;
            }
            promised.lock().entry(id).or_default().push(attempt);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_leave_every_outcome_in_the_journal_exactly_once() {
    let (disk, random) = (SimDisk::new(), Random::seeded(7));
    let promised: Arc<Mutex<Promises>> = Arc::default();
    for round in 0..12 {
        let relay = Relay::open(&disk, events_options(&disk, settings())).await;
        let working = Scope::new("work");
        for _ in 0..4 {
            working.spawn("worker", work(relay.spool.clone(), random.clone(), promised.clone()));
        }
        tokio::time::sleep(Duration::from_millis(20 + random.below(60))).await;
        disk.halt();
        working.close(Duration::from_secs(20)).await.unwrap();
        relay.scope.close(Duration::from_secs(20)).await.unwrap();
        let _ = relay.events.close().await;
        let _ = relay.spool.close().await;
        disk.crash(round);
    }

    let relay = Relay::open(&disk, events_options(&disk, settings())).await;
    let lines = relay.catch_up(&random).await;
    let mut sends: HashMap<MessageId, u32> = HashMap::new();
    for line in lines.iter().filter(|line| line.kind == Kind::Send) {
        *sends.entry(line.id).or_default() += 1;
    }
    let promised = std::mem::take(&mut *promised.lock());
    assert!(promised.len() > 50, "only {} messages", promised.len());
    for (id, attempts) in promised {
        assert_eq!(sends.get(&id), Some(&1), "{id}");
        let life = relay.events.message(id).await.unwrap();
        assert!(matches!(life[0], LifeEntry::Accepted(_)), "{id}");
        let found: Vec<u32> = life[1..].iter().map(|entry| attempt(entry).1).collect();
        assert!(found.starts_with(&attempts) && found.len() <= attempts.len() + 1, "{id}: {found:?} of {attempts:?}");
        assert!(found.is_sorted_by(|a, b| a < b), "{id}: {found:?}");
    }
    relay.close().await;
}
