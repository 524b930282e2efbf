//! An index that fails, or lies, while it is in use.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_base::{Clock, Metrics, Random, SimDisk, Size, Timestamp};
use postrider_mail::{AccountId, Delays, Disposition, EnhancedStatus, Recipient};
use postrider_wal::Driver;

use super::*;
use crate::claim::Claim;
use crate::message::{Content, NewMessage};
use crate::settings::Settings;
use crate::spool::{Spool, SpoolOptions};

fn outcomes(claim: &Claim, next: Option<Timestamp>) -> Vec<AttemptOutcome> {
    let disposition = match next {
        None => Disposition::Delivered,
        Some(_) => Disposition::Deferred(postrider_mail::DelayType::General),
    };
    let outcome = |due: &crate::claim::DueRecipient| AttemptOutcome {
        recipient: due.index,
        at: claim.ready_since,
        attempt: due.attempts + 1,
        disposition,
        status: EnhancedStatus::new(2, 0, 0),
        diagnostic: String::new(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: next,
        record: None,
    };
    claim.recipients.iter().map(outcome).collect()
}

fn options(dir: &tempfile::TempDir, clock: &Clock) -> SpoolOptions {
    SpoolOptions {
        disk: Arc::new(SimDisk::new()),
        dir: "/spool".into(),
        index_dir: Some(dir.path().to_owned()),
        clock: clock.clone(),
        settings: Settings {
            min_free_bytes: Size::from_bytes(0),
            segment_bytes: Size::from_kib(64),
            ..Settings::default()
        },
        metrics: Metrics::new(),
        feeds: &[],
        start_held: false,
        accept_loss: false,
        driver: Driver::Task,
    }
}

fn message(domain: &str, length: usize, clock: &Clock, random: &Random) -> NewMessage {
    let to: postrider_mail::EmailAddress = format!("a@{domain}").parse().unwrap();
    NewMessage {
        id: MessageId::new(1, clock.now(), random.uuid_v4()),
        account: AccountId::default(),
        accepted_at: clock.now(),
        expires_at: clock.now(),
        not_before: None,
        tls_optional: false,
        envelope: Envelope { recipients: vec![Recipient::new(to)], ..Envelope::default() },
        origin: Origin::default(),
        content: Content::from(vec![b'x'; length]),
    }
}

/// sled refuses every use of a tree that was dropped.
fn break_index(shared: &Shared) {
    let Index::Sled { db, .. } = shared.indexer.index.read().clone() else { panic!("not in sled") };
    for tree in ["messages", "queue"] {
        db.drop_tree(tree).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_that_breaks_while_in_use_is_made_anew() {
    let dir = tempfile::TempDir::new().unwrap();
    let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
    let spool = Spool::open(options(&dir, &clock)).await.unwrap();
    let random = Random::seeded(3);
    let mut expected = BTreeSet::new();
    for round in 0..5 {
        for number in 0..30u32 {
            let message = message("example.org", 100, &clock, &random);
            expected.insert(message.id);
            spool.accept(message).await.unwrap();
            if number % 3 == 0 {
                let claim = spool.take_due(1).await.pop().unwrap();
                let next = clock.now().saturating_add(Duration::from_secs(60));
                let outcomes = outcomes(&claim, Some(next));
                claim.finish(outcomes, Vec::new()).await.unwrap();
            }
        }
        // Old ones, young ones, claimed ones, ended ones.
        let mut claims = spool.take_due(5).await;
        let ended = claims.pop().unwrap();
        expected.remove(&ended.id);
        let outcomes = outcomes(&ended, None);
        ended.finish(outcomes, Vec::new()).await.unwrap();
        break_index(spool.shared());
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        drop(claims);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(spool.stat().index, IndexKind::Sled);
    assert_eq!(spool.stat().messages, expected.len() as u64);
    let mut delivered = BTreeSet::new();
    while delivered.len() < expected.len() {
        for claim in spool.take_due(50).await {
            assert!(delivered.insert(claim.id), "delivered twice");
            let outcomes = outcomes(&claim, None);
            claim.finish(outcomes, Vec::new()).await.unwrap();
        }
    }
    assert_eq!(delivered, expected);
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_for_those_who_have_gone() {
    let dir = tempfile::TempDir::new().unwrap();
    let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
    let disk = SimDisk::new();
    let options = SpoolOptions { disk: Arc::new(disk.clone()), ..options(&dir, &clock) };
    let spool = Spool::open(options).await.unwrap();
    let old = message("example.org", 100, &clock, &Random::seeded(3));
    let id = old.id;
    spool.accept(old).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let indexer = &spool.shared().indexer;
    indexer.settled().await.unwrap();
    let reads = || disk.stats().reads;
    let before = reads();
    for _ in 0..10 {
        tokio::select! {
            biased;
            _ = indexer.load(vec![id], What::Message) => panic!("it takes a moment"),
            () = std::future::ready(()) => {}
        }
    }
    indexer.settled().await.unwrap();
    assert_eq!(reads(), before);
    indexer.load(vec![id], What::Message).await.unwrap();
    assert!(reads() > before);
}

#[tokio::test(start_paused = true)]
async fn an_index_that_lies_destroys_nothing() {
    let dir = tempfile::TempDir::new().unwrap();
    let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
    let spool = Spool::open(options(&dir, &clock)).await.unwrap();
    let random = Random::seeded(3);
    let kept = message("kept.example", 9_000, &clock, &random);
    let id = kept.id;
    let queue = crate::message::QueueKey { account: kept.account, domain: "kept.example".parse().unwrap() };
    spool.park(&queue);
    spool.accept(kept).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // What the index says in the end of its message is nothing.
    let index = spool.shared().indexer.settled().await.unwrap();
    index.apply(&[Change::Remove { id, left: Vec::new() }]).unwrap();
    for _ in 0..500 {
        spool.accept(message("gone.example", 9_000, &clock, &random)).await.unwrap();
        for claim in spool.take_due(1).await {
            let outcomes = outcomes(&claim, None);
            claim.finish(outcomes, Vec::new()).await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(spool.stat().segments < 5, "{:?}", spool.stat());
    spool.unpark(&queue);
    let claims = spool.take_due(1).await;
    assert_eq!(claims[0].id, id);
    assert_eq!(claims[0].content().await.unwrap().len(), 9_000);
}
