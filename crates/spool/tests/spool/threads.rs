use std::collections::BTreeSet;
use std::sync::Arc;

use postrider_base::{Clock, RealDisk, Size};
use postrider_spool::{Driver, Lsn, Spool, SpoolOptions};

use crate::rig::{Rig, assert_intact, deliver};

/// Real files, real threads, real time: many accept while many deliver.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_accept_and_many_deliver_at_once() {
    const EACH: usize = 200;
    let dir = tempfile::TempDir::new().unwrap();
    let mut rig = Rig::new();
    rig.clock = Clock::system();
    rig.feeds = &["events"];
    rig.settings.segment_bytes = Size::from_mib(1);
    let options = || SpoolOptions {
        disk: Arc::new(RealDisk),
        dir: dir.path().join("spool"),
        index_dir: Some(dir.path().join("index")),
        driver: Driver::Thread,
        ..rig.options()
    };
    let spool = Spool::open(options()).await.unwrap();
    let mut accepting = Vec::new();
    for session in 0..8 {
        let messages: Vec<_> =
            (0..EACH).map(|n| rig.message(&[&format!("a@d{}.example", (n + session) % 7)])).collect();
        let spool = spool.clone();
        accepting.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for message in messages {
                ids.push(message.id);
                spool.accept(message).await.unwrap();
            }
            ids
        }));
    }
    let delivering: Vec<_> = (0..4)
        .map(|_| {
            let spool = spool.clone();
            tokio::spawn(async move {
                let mut ids = Vec::new();
                while let Ok(claims) =
                    tokio::time::timeout(std::time::Duration::from_millis(500), spool.take_due(8)).await
                {
                    for mut claim in claims {
                        claim.register().await.unwrap();
                        assert_intact(&claim).await;
                        ids.push(claim.id);
                        deliver(claim).await;
                    }
                }
                ids
            })
        })
        .collect();
    let mut accepted = BTreeSet::new();
    for task in accepting {
        accepted.extend(task.await.unwrap());
    }
    let mut delivered = Vec::new();
    for task in delivering {
        delivered.extend(task.await.unwrap());
    }
    assert_eq!(delivered.len(), 8 * EACH, "each once");
    assert_eq!(delivered.into_iter().collect::<BTreeSet<_>>(), accepted);
    let mut feed = spool.feed("events", Lsn::ZERO);
    let mut items = 0;
    while items < 16 * EACH {
        let batch = feed.next().await.unwrap();
        items += batch.len();
        feed.ack(batch.last().unwrap().lsn);
    }
    spool.close().await.unwrap();
    drop((spool, feed));
    let spool = Spool::open(options()).await.unwrap();
    assert!(spool.report().unwrap().clean_stop);
    assert_eq!(spool.stat().messages, 0);
}
