//! Random lives on a disk that fails, against what was promised.
//!
//! The model knows what every caller was told. After each restart: nobody who
//! was told yes is missing or changed, nobody who was told no is there; what
//! ended, and when it is known to be synced, stays ended; a bounce and its
//! notification are there together; holds hold; and the feed says it all
//! exactly once. Whatever the index on disk says. Files of another machine bring each message
//! once, however often they are imported. A disk that was full takes messages again by itself.

mod index;
mod life;
mod model;
mod reclaim;
mod steps;
mod tally;

use postrider_base::{Period, Size};

use self::life::Life;
use self::steps::{Step, steps};
use self::tally::Tally;
use crate::rig::{HOUR, Rig, defer, deliver, drain, due_now};

fn live(mut rig: Rig, steps: &[Step], tally: &Tally) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        rig.feeds = &["events"];
        rig.settings.ready_batch = 2;
        rig.settings.segment_bytes = Size::from_kib(16);
        let mut life = Life::begin(rig, tally).await;
        for step in steps {
            life.take(step).await;
        }
        life.finish().await;
    });
}

#[test]
fn nothing_is_lost_with_the_index_in_memory() {
    let tally = Tally::default();
    let cases = postrider_cases::each(400, 1, &steps(), |steps| live(Rig::new(), &steps, &tally));
    tally.say();
    if cases >= 200 {
        tally.expect(&["stopped", "killed", "power cut", "did not open", "refused: full"]);
        tally.expect(&["the log failed: Write", "the log failed: Sync", "bodies in the cold log"]);
    }
    if cases >= 2_000 {
        tally.expect(&["reclaim failed: Some(Write)", "reclaim failed: Some(Sync)"]);
        tally.expect(&["imported in part", "imported again after a part"]);
    }
}

#[test]
fn nothing_is_lost_with_the_index_in_sled() {
    let tally = Tally::default();
    let cases = postrider_cases::each(20, 50, &steps(), |steps| live(Rig::with_sled(), &steps, &tally));
    tally.say();
    if cases >= 200 {
        tally.expect(&["the index stays in memory", "the index is made anew", "the index is corrected"]);
    }
}

/// The cold log has no order with the main one: what says that a body is dead
/// must be safe before the body goes.
#[tokio::test(start_paused = true)]
async fn a_power_cut_takes_no_body_whose_end_it_takes_back() {
    let mut rig = Rig::new();
    rig.settings.segment_bytes = Size::from_kib(16);
    rig.settings.outcome_sync = Period::from_secs(9);
    let spool = rig.open().await;
    let id = rig.accept(&spool, &["a@slow.example"]).await;
    defer(spool.take_due(1).await.pop().unwrap(), &rig.clock, 10 * HOUR).await;
    for _ in 0..200 {
        rig.accept(&spool, &["a@churn.example"]).await;
        for claim in due_now(&spool, 4).await {
            deliver(claim).await;
        }
    }
    tokio::time::sleep(HOUR).await;
    // The restart seals the segment that the body lies in now; for the sake
    // of a reader the main log keeps all of its own.
    rig.disk.crash_dropping_all();
    drop(spool);
    rig.feeds = &["events"];
    let spool = rig.open().await;
    tokio::time::sleep(10 * HOUR).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_eq!(claim.id, id);
    deliver(claim).await;
    // The outcome is not synced for its own sake yet.
    spool.compact().await.unwrap();
    rig.disk.crash_dropping_all();
    drop(spool);
    let spool = rig.open().await;
    let left = spool.stat().messages;
    assert_eq!(drain(&spool).await.len() as u64, left);
    assert_eq!((spool.stat().messages, spool.stat().quarantined), (0, 0));
}
