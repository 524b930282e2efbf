//! Real files, real threads, real time: many accept while many deliver.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, RealDisk, Size};
use postrider_mail::MessageId;
use postrider_spool::{Driver, Lsn, NewMessage, Spool, SpoolOptions};
use tokio::task::JoinSet;

use crate::rig::{Rig, assert_intact, deliver};

const SESSIONS: usize = 8;
/// Messages of a session.
const EACH: usize = 200;

fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.clock = Clock::system();
    rig.feeds = &["events"];
    rig.settings.segment_bytes = Size::from_mib(1);
    rig
}

fn options(rig: &Rig, dir: &Path) -> SpoolOptions {
    SpoolOptions {
        disk: Arc::new(RealDisk),
        dir: dir.join("spool"),
        index_dir: Some(dir.join("index")),
        driver: Driver::Thread,
        ..rig.options()
    }
}

async fn accept(spool: Spool, messages: Vec<NewMessage>) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for message in messages {
        ids.push(message.id);
        spool.accept(message).await.unwrap();
    }
    ids
}

/// Delivers until nothing has come for a while.
async fn deliver_all(spool: Spool) -> Vec<MessageId> {
    let mut ids = Vec::new();
    while let Ok(claims) = tokio::time::timeout(Duration::from_millis(500), spool.take_due(8)).await {
        for mut claim in claims {
            claim.register().await.unwrap();
            assert_intact(&claim).await;
            ids.push(claim.id);
            deliver(claim).await;
        }
    }
    ids
}

/// Two items of each message.
async fn read_feed(spool: &Spool) {
    let mut feed = spool.feed("events", Lsn::ZERO);
    let mut items = 0;
    while items < 2 * SESSIONS * EACH {
        let batch = feed.next().await.unwrap();
        items += batch.len();
        feed.ack(batch.last().unwrap().lsn);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_accept_and_many_deliver_at_once() {
    let dir = tempfile::TempDir::new().unwrap();
    let rig = rig();
    let spool = Spool::open(options(&rig, dir.path())).await.unwrap();
    let (mut accepting, mut delivering) = (JoinSet::new(), JoinSet::new());
    for session in 0..SESSIONS {
        let message = |n| rig.message(&[&format!("a@d{}.example", (n + session) % 7)]);
        accepting.spawn(accept(spool.clone(), (0..EACH).map(message).collect()));
    }
    for _ in 0..4 {
        delivering.spawn(deliver_all(spool.clone()));
    }
    let accepted: BTreeSet<_> = accepting.join_all().await.concat().into_iter().collect();
    let delivered = delivering.join_all().await.concat();
    assert_eq!(delivered.len(), SESSIONS * EACH, "each once");
    assert_eq!(delivered.into_iter().collect::<BTreeSet<_>>(), accepted);
    read_feed(&spool).await;
    spool.close().await.unwrap();
    drop(spool);
    let spool = Spool::open(options(&rig, dir.path())).await.unwrap();
    assert!(spool.report().unwrap().clean_stop);
    assert_eq!(spool.stat().messages, 0);
}
