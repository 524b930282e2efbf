//! The log as it runs in production, on a real disk, and as a task.

use super::*;
use crate::{Driver, Lsn, Owner, Told};
use postrider_base::RealDisk;

fn open(dir: &Path) -> (Log, Vec<Replayed>) {
    open_with(dir, Options { segment_bytes: 64 << 10, ..Options::default() })
}

fn open_with(dir: &Path, options: Options) -> (Log, Vec<Replayed>) {
    let mut replayed = Vec::new();
    let disk = Arc::new(RealDisk);
    let opened = Log::open(disk, dir, options, &mut |it| replayed.push(it));
    (opened.unwrap().0, replayed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_groups() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let writers: Vec<_> = (0..20u64)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut last = Lsn::ZERO;
                for at in 0..20 {
                    let seed = writer * 1000 + at;
                    let durability = if at % 3 == 0 { Durability::Buffered } else { Durability::Synced };
                    let done = log.commit(vec![entry(seed, 300)], durability).await.unwrap();
                    assert!(done.lsn > last);
                    assert!(durability == Durability::Buffered || log.synced() >= done.lsn);
                    assert_eq!(log.read(done.locations[0]).unwrap(), joined(&entry(seed, 300)));
                    last = done.lsn;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let usage = log.usage();
    assert_eq!(usage.batches, 400);
    assert!(usage.groups < 400, "{usage:?}");
    let oldest = log.segments()[0].number;
    log.retire_oldest(oldest).await.unwrap();
    let first = log.segments()[0].first_lsn.unwrap();
    log.close().await.unwrap();
    let late = log.commit(vec![], Durability::Synced).await;
    assert!(matches!(late, Err(Error::Closed)));

    let (log, replayed) = open(dir.path());
    assert_eq!(replayed[0].lsn, first);
    // The mark of the retirement is a batch without entries.
    assert_eq!(replayed.len() as u64, 400 - (first.get() - 1));
    for it in &replayed {
        let seed: u64 = std::str::from_utf8(&it.head[5..]).unwrap().parse().unwrap();
        check(&log, it, &entry(seed, 300));
    }
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_more_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) =
        open_with(dir.path(), Options { adaptive_wait: true, segment_bytes: 64 << 10, ..Options::default() });
    let writers: Vec<_> = (0..10u64)
        .map(|writer| {
            let log = log.clone();
            // Uneven: near the end fewer come back than the writer hopes for.
            tokio::spawn(async move {
                for at in 0..2 * writer {
                    log.commit(vec![entry(at, 100)], Durability::Synced).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(log.usage().batches, 90);
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_log_lets_go_of_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let shared = log.inner_ended();
    let commit = log.submit(vec![entry(1, 10)], Durability::Buffered);
    drop(log);
    commit.await.unwrap();
    let mut ended = shared;
    ended.wait_for(|ended| *ended == 2).await.unwrap();
    assert_eq!(open(dir.path()).1.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn as_a_task_it_runs_in_simulated_time() {
    let clock = postrider_base::Clock::simulated(postrider_base::Timestamp::default());
    let options =
        Options { driver: Driver::Task, buffered_sync: Duration::from_millis(100), clock: clock.clone(), ..small() };
    let disk = SimDisk::new();
    let (log, _) = Log::open(Arc::new(disk.clone()), dir(), options.clone(), &mut |_| {}).unwrap();
    log.commit(vec![entry(1, 10)], Durability::Synced).await.unwrap();
    let started = clock.instant();
    let mut synced = log.committed();
    log.commit(vec![entry(2, 10)], Durability::Buffered).await.unwrap();
    assert_eq!(log.synced(), Lsn::new(1));
    synced.wait_for(|lsn| *lsn == Lsn::new(2)).await.unwrap();
    assert!(clock.instant() - started >= Duration::from_millis(100));
    for seed in 0..20 {
        log.commit(vec![entry(seed, 2000)], Durability::Synced).await.unwrap();
    }
    let oldest = log.segments()[0].number;
    log.retire_oldest(oldest).await.unwrap();
    log.close().await.unwrap();
    disk.crash_dropping_all();
    let mut count = 0;
    let reopened = Log::open(Arc::new(disk), dir(), options, &mut |_| count += 1);
    reopened.unwrap().0.close().await.unwrap();
    assert!(count > 10);
}

#[derive(Debug)]
struct Fragile;

impl Owner for Fragile {
    fn told(&self, _: Vec<Told>) {
        panic!("for the test");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_panics_ends_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let owner: Arc<dyn Owner> = Arc::new(Fragile);
    log.set_owner(Arc::downgrade(&owner));
    let batch = log.batch([entry(1, 10)]).unwrap();
    log.submit_for(batch, Durability::Synced, Box::new(())).unwrap();
    tokio::time::timeout(Duration::from_secs(60), log.poison_event()).await.unwrap();
    let late = log.commit(vec![], Durability::Synced).await;
    assert!(matches!(late, Err(Error::Poisoned(_))), "{late:?}");
    assert!(log.close().await.is_err());
    // What it did not take in is there.
    assert_eq!(open(dir.path()).1.len(), 1);
}
