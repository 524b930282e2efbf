//! What fails while space is given back: in the main log, in the cold one, in their directories.

use std::time::Duration;

use postrider_base::sim_disk::{Fault, Operation};
use postrider_base::{Random, SimDisk, Size};
use postrider_mail::MessageId;
use postrider_spool::{Error, Spool};

use crate::rig::{HOUR, Rig, assert_intact, defer, deliver, drain, due_now};

/// What waits in a log of which most is dead, and nothing was given back for the sake of a reader.
async fn mostly_dead() -> (SimDisk, Vec<MessageId>) {
    let mut rig = rig(SimDisk::new());
    rig.feeds = &["events"];
    let spool = rig.open().await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(rig.accept(&spool, &["a@slow.example"]).await);
        for claim in due_now(&spool, 9).await {
            defer(claim, &rig.clock, 10 * HOUR).await;
        }
        for _ in 0..9 {
            rig.accept(&spool, &["a@churn.example"]).await;
            for claim in due_now(&spool, 9).await {
                deliver(claim).await;
            }
        }
    }
    spool.close().await.unwrap();
    waiting.sort_unstable();
    (rig.disk, waiting)
}

fn rig(disk: SimDisk) -> Rig {
    let mut rig = Rig { disk, ..Rig::new() };
    rig.settings.segment_bytes = Size::from_kib(16);
    rig
}

/// Gives back what can be given back, with something that fails at it; whether anybody noticed.
async fn reclaim(spool: &Spool) -> bool {
    match spool.compact().await {
        Ok(_) => false,
        Err(Error::Poisoned) => {
            spool.failed().await;
            assert!(matches!(spool.admit(1), Err(Error::Poisoned)), "a log that failed takes no more");
            true
        }
        // Passes by itself.
        Err(Error::Full(_) | Error::NoFile | Error::Log(postrider_wal::Error::Io { .. })) => {
            spool.admit(1).unwrap();
            spool.compact().await.unwrap();
            true
        }
        Err(error) => panic!("{error}"),
    }
}

/// Everything waits as it did, and in little space.
async fn assert_well(rig: &Rig, waiting: &[MessageId]) {
    let spool = rig.open().await;
    assert_eq!(spool.report().unwrap().messages, waiting.len() as u64);
    spool.compact().await.unwrap();
    assert!(spool.stat().segments <= 4, "{:?}", spool.stat());
    tokio::time::sleep(11 * HOUR).await;
    let mut arrived = Vec::new();
    while let Some(claim) = due_now(&spool, 1).await.pop() {
        assert_eq!(claim.recipients[0].attempts, 1);
        assert_intact(&claim).await;
        arrived.push(claim.id);
        deliver(claim).await;
    }
    arrived.sort_unstable();
    assert_eq!(arrived, waiting);
    assert_eq!((spool.stat().messages, spool.stat().quarantined), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_while_space_is_given_back_costs_no_message() {
    use Operation::{Create, Remove, Rename, Sync, SyncDirectory, Write};
    let (disk, waiting) = mostly_dead().await;
    for operation in [Write, Sync, SyncDirectory, Create, Rename, Remove] {
        let mut noticed = 0;
        for nth in 1..=8 {
            let fault = if nth % 2 == 0 { Fault::InputOutput } else { Fault::NoSpace };
            let mut rig = rig(disk.fork());
            let spool = rig.open().await;
            rig.disk.fail(operation, nth, fault);
            noticed += u32::from(reclaim(&spool).await);
            match nth % 3 {
                0 => rig.disk = rig.disk.fork(),
                _ => rig.disk.crash(nth),
            }
            drop(spool);
            assert_well(&rig, &waiting).await;
        }
        // What fails where segments are made ahead nobody is told.
        assert!(noticed > 1 || !matches!(operation, Write | Sync), "{operation:?}: {noticed} failures");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_while_space_is_given_back_is_well_when_there_is_some() {
    let (disk, waiting) = mostly_dead().await;
    let rig = Rig { random: Random::seeded(2), ..rig(disk) };
    let spool = rig.open().await;
    rig.disk.set_capacity(Some(0));
    // Perhaps there is just enough room.
    let _ = spool.compact().await;
    assert!(spool.report().is_some());
    let mut taken = 0;
    let full = loop {
        match spool.accept(rig.message(&["a@churn.example"])).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full(_)), "{full}");
    rig.disk.set_capacity(None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.accept(&spool, &["a@churn.example"]).await;
    assert_eq!(drain(&spool).await.len(), taken + 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.disk.crash_dropping_all();
    drop(spool);
    assert_well(&rig, &waiting).await;
}
