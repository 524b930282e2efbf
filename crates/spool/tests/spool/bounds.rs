use std::path::Path;
use std::time::Duration;

use postrider_base::{Disk, Size};
use postrider_mail::AccountId;
use postrider_spool::{Error, Selector};

use crate::rig::{
    BOUNCED, DIR, HOUR, Rig, assert_intact, body_of, defer, deliver, drain, due_now, outcomes, queue, within,
};

#[tokio::test(start_paused = true)]
async fn a_full_spool_refuses_and_takes_again() {
    let mut rig = Rig::new();
    rig.settings.max_messages = 2;
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    let room = spool.admit(100).unwrap();
    assert!(matches!(spool.admit(100), Err(Error::Full("max_messages"))));
    let refused = spool.accept(rig.message(&["a@example.org"])).await;
    assert!(matches!(refused, Err(Error::Full("max_messages"))));
    drop(room);
    rig.accept(&spool, &["a@example.org"]).await;
    drain(&spool).await;
    rig.accept(&spool, &["a@example.org"]).await;
    // The bounds count what a restart finds.
    rig.accept(&spool, &["a@example.org"]).await;
    drop(spool);
    let spool = rig.open().await;
    assert!(matches!(spool.admit(1), Err(Error::Full("max_messages"))));
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_and_given_back() {
    let mut rig = Rig::new();
    rig.settings.max_bytes = Size::from_bytes(20_000);
    let spool = rig.open().await;
    assert!(matches!(spool.admit(20_001), Err(Error::Full("max_bytes"))));
    let mut accepted = 0;
    while spool.accept(rig.message(&["a@example.org"])).await.is_ok() {
        accepted += 1;
    }
    assert!(accepted > 10);
    assert_eq!(drain(&spool).await.len(), accepted);
    assert_eq!(spool.stat().bytes, 0);
    drop(spool.admit(20_000).unwrap());
}

#[tokio::test(start_paused = true)]
async fn little_free_space_refuses_before_the_log_is_full() {
    let mut rig = Rig::new();
    rig.settings.min_free_bytes = Size::from_bytes(500_000);
    rig.disk.set_capacity(Some(1_500_000));
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    let used = 1_500_000 - rig.disk.available_bytes(Path::new(DIR)).unwrap();
    rig.disk.set_capacity(Some(used + 100_000));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(matches!(spool.admit(1), Err(Error::Full("min_free_bytes"))));
    // Outcomes still find their place.
    assert_eq!(drain(&spool).await.len(), 1);
    rig.disk.set_capacity(None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.accept(&spool, &["a@example.org"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_and_recovers_without_a_restart() {
    let mut rig = Rig::new();
    rig.settings.min_free_bytes = Size::from_bytes(200_000);
    rig.disk.set_capacity(Some(900_000));
    let spool = rig.open().await;
    let mut accepted = 0;
    let refused = loop {
        match spool.accept(rig.message(&["a@example.org"])).await {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(matches!(refused, Error::Full(_)), "{refused}");
    assert!(accepted > 100);
    assert_eq!(drain(&spool).await.len(), accepted);
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.accept(&spool, &["a@example.org"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_outcome_waits_for_space() {
    let rig = Rig::new();
    rig.disk.set_capacity(Some(500_000));
    let spool = rig.open().await;
    while spool.accept(rig.message(&["a@example.org"])).await.is_ok() {}
    // What is left of the log fills up with what becomes of them.
    let mut work = Vec::new();
    for claim in spool.take_due(1000).await {
        let mut dsn = rig.message(&["sender@example.com"]);
        dsn.content = vec![b'x'; 20_000].into();
        let bounced = outcomes(&claim, BOUNCED, rig.clock.now());
        work.push(tokio::spawn(claim.finish(bounced, vec![dsn])));
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let waiting = work.iter().filter(|work| !work.is_finished()).count();
    assert!(waiting > 0);
    rig.disk.set_capacity(None);
    let all = work.len();
    for work in work {
        work.await.unwrap().unwrap();
    }
    assert_eq!(spool.stat().messages, all as u64, "only their notifications are left");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_ends_everything_until_the_restart() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let kept = rig.accept(&spool, &["a@example.org"]).await;
    rig.disk.fail_sync(1);
    let failed = spool.accept(rig.message(&["b@example.org"])).await;
    assert!(matches!(failed, Err(Error::Poisoned)), "{failed:?}");
    spool.failed().await;
    assert!(matches!(spool.admit(1), Err(Error::Poisoned)));
    let refused = spool.accept(rig.message(&["b@example.org"])).await;
    assert!(matches!(refused, Err(Error::Poisoned)));
    assert!(due_now(&spool, 5).await.is_empty(), "no new delivery starts");
    assert!(matches!(spool.close().await, Err(Error::Poisoned)));
    rig.disk.crash_dropping_all();
    drop(spool);
    let spool = rig.open().await;
    assert_eq!(drain(&spool).await, [kept]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_cannot_be_finished_in_a_failed_log() {
    let rig = Rig::new();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    let mut claim = spool.take_due(1).await.pop().unwrap();
    rig.disk.halt();
    assert!(spool.accept(rig.message(&["b@example.org"])).await.is_err());
    assert!(matches!(claim.register().await, Err(Error::Poisoned)));
    assert!(matches!(claim.finish(Vec::new(), vec![rig.message(&["c@d.e"])]).await, Err(Error::Poisoned)));
}

#[tokio::test(start_paused = true)]
async fn a_closed_spool_refuses() {
    let rig = Rig::new();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    spool.close().await.unwrap();
    assert!(matches!(spool.admit(1), Err(Error::Closed)));
    assert!(matches!(spool.accept(rig.message(&["a@b.c"])).await, Err(Error::Closed)));
    assert!(within(Duration::from_secs(5), spool.take_due(1)).await.is_none());
    assert!(matches!(spool.summary().await, Err(Error::Closed)));
    assert!(matches!(spool.close().await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_body_is_held_and_noted_and_nothing_else_is_lost() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let bad = rig.accept(&spool, &["a@example.org"]).await;
    let good = rig.accept(&spool, &["a@example.org"]).await;
    for claim in spool.take_due(2).await {
        drop(claim);
    }
    rig.grow_old(&spool).await;
    damage(&rig, &body_of(bad).chunks()[0]);
    assert_eq!(drain(&spool).await, [good]);
    assert_eq!(rig.quarantined(), 1);
    assert_eq!(spool.stat().quarantined, 1);
    assert!(spool.show(bad).await.unwrap().unwrap().held);
    assert!(within(Duration::from_secs(9999), spool.take_due(1)).await.is_none());
    assert_eq!(spool.delete(&Selector::Message(bad)).await.unwrap(), 1);
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn damage_under_a_claim_is_told_to_its_owner() {
    let mut rig = Rig::with_sled();
    rig.settings.body_memory = Size::from_bytes(0);
    let spool = rig.open().await;
    let bad = rig.accept(&spool, &["a@example.org"]).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_intact(&claim).await;
    damage(&rig, &body_of(bad).chunks()[0]);
    let error = claim.content().await.unwrap_err();
    assert!(matches!(error, Error::Damaged(id) if id == bad), "{error}");
    drop(claim);
    assert!(due_now(&spool, 1).await.is_empty());
    assert_eq!(rig.quarantined(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_found_at_the_start() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(rig.accept(&spool, &["a@example.org"]).await);
    }
    let claim = spool.take_due(1).await.pop().unwrap();
    defer(claim, &rig.clock, Duration::from_secs(1)).await;
    spool.close().await.unwrap();
    drop(spool);
    let bad = ids.remove(7);
    damage(&rig, &body_of(bad).chunks()[0]);
    let spool = rig.open().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut drained = drain(&spool).await;
    drained.sort();
    ids.sort();
    assert_eq!(drained, ids);
    assert!(spool.stat().quarantined >= 1);
}

#[tokio::test(start_paused = true)]
async fn who_hands_in_too_much_at_once_waits_for_the_index() {
    let mut rig = Rig::with_sled();
    rig.settings.max_young = 3;
    let spool = rig.open().await;
    let queue = crate::rig::queue("one.example");
    spool.park(&queue);
    for _ in 0..3 {
        rig.accept(&spool, &["a@one.example"]).await;
    }
    let began = rig.clock.now();
    rig.accept(&spool, &["a@one.example"]).await;
    let waited = rig.clock.now().saturating_since(began);
    assert!(waited >= Duration::from_millis(1900) && waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(spool.stat().young, 1);
    // An index that takes nothing: refused after a while.
    drop(spool);
    rig.settings.index_after = postrider_base::Period::from_secs(3600);
    let spool = rig.open().await;
    spool.park(&queue);
    for _ in 0..3 {
        rig.accept(&spool, &["a@one.example"]).await;
    }
    let began = rig.clock.now();
    let refused = spool.accept(rig.message(&["a@one.example"])).await;
    assert!(matches!(refused, Err(Error::Full("max_young"))), "{refused:?}");
    assert_eq!(rig.clock.now().saturating_since(began), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn who_hands_in_much_is_slowed_down_before_there_is_no_room() {
    let mut rig = Rig::with_sled();
    rig.settings.max_young = 20;
    rig.settings.young_high_water = 10;
    rig.settings.index_after = postrider_base::Period::from_secs(3600);
    let spool = rig.open().await;
    let queue = crate::rig::queue("one.example");
    spool.park(&queue);
    let mut waits = Vec::new();
    for _ in 0..20 {
        let began = rig.clock.now();
        rig.accept(&spool, &["a@one.example"]).await;
        waits.push(rig.clock.now().saturating_since(began));
    }
    let (quick, slow) = waits.split_at(11);
    assert!(quick.iter().all(Duration::is_zero), "{quick:?}");
    // A tenth of a second more with each, and no cliff.
    for (n, wait) in (1..).zip(slow) {
        assert!(wait.as_millis().abs_diff(n * 100) <= 5, "{slow:?}");
    }
    let refused = spool.accept(rig.message(&["a@one.example"])).await;
    assert!(matches!(refused, Err(Error::Full("max_young"))), "{refused:?}");
    // What is delivered makes room, and nobody is slowed down any more.
    spool.unpark(&queue);
    drop(spool.take_due(1).await.pop());
    drain(&spool).await;
    let began = rig.clock.now();
    rig.accept(&spool, &["a@one.example"]).await;
    assert_eq!(rig.clock.now(), began);
}

#[tokio::test(start_paused = true)]
async fn who_hands_in_more_than_is_taken_is_slowed_down_though_it_is_in_the_index() {
    let mut rig = Rig::with_sled();
    rig.settings.pace_after = postrider_base::Period::from_mins(1);
    let spool = rig.open().await;
    let pace = async || {
        let began = rig.clock.now();
        let id = rig.accept(&spool, &["new@new.example"]).await;
        spool.delete(&Selector::Message(id)).await.unwrap();
        rig.clock.now().saturating_since(began).as_millis()
    };
    spool.park(&queue("parked.example"));
    for _ in 0..500 {
        rig.accept(&spool, &["a@one.example"]).await;
        rig.accept(&spool, &["a@parked.example"]).await;
    }
    rig.grow_old(&spool).await;
    assert_eq!(spool.stat().young, 0);
    tokio::time::sleep(HOUR).await;
    assert_eq!(pace().await, 0, "nobody takes anything");
    // From now on a delivery that is too slow: a message every ten seconds.
    let mut waits = Vec::new();
    for _ in 0..80 {
        for claim in spool.take_due(1).await {
            deliver(claim).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        waits.push(pace().await);
    }
    // Over an hour behind, since the spool was opened.
    assert!(waits.iter().all(|wait| *wait == 1_000), "{waits:?}");
    // Once it has caught up, what is parked slows down nobody.
    drain(&spool).await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(pace().await, 0);
    // Behind by more and more.
    rig.accept(&spool, &["a@one.example"]).await;
    let mut waits = Vec::new();
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        waits.push(pace().await);
    }
    assert!(waits[0] <= 5 && waits.is_sorted() && waits[5].abs_diff(550) < 60 && waits[11] == 1_000, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_floods_is_slowed_down_and_the_others_are_not() {
    let mut rig = Rig::with_sled();
    rig.settings.pace_after = postrider_base::Period::from_mins(1);
    let spool = rig.open().await;
    for _ in 0..300 {
        rig.accept(&spool, &["a@one.example"]).await;
    }
    let pace = async |account: u64| {
        let began = rig.clock.now();
        let mut message = rig.message(&["new@one.example"]);
        message.account = AccountId::new(account).unwrap();
        spool.accept(message).await.unwrap();
        rig.clock.now().saturating_since(began).as_millis()
    };
    let flooding: u64 = AccountId::default().get();
    // A delivery that is far too slow for the one, and not for the other.
    for _ in 0..60 {
        for claim in spool.take_due(3).await {
            deliver(claim).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(pace(7).await, 0);
    }
    assert_eq!(pace(flooding).await, 1_000);
}

/// Flips a bit in the one place of the log that has these bytes.
fn damage(rig: &Rig, bytes: &[u8]) {
    for path in rig.disk.read_dir(Path::new(DIR)).unwrap() {
        let Ok(file) = rig.disk.open(&path, postrider_base::OpenMode::Read) else { continue };
        let mut content = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut content, 0).unwrap();
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            rig.disk.damage(&path, at, 1).unwrap();
            return;
        }
    }
    panic!("not found in the log");
}
