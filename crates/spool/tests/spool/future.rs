//! Messages that are not to be sent yet.

use postrider_base::Timestamp;
use postrider_mail::MessageId;
use postrider_spool::{Selector, Spool};

use crate::rig::{HOUR, Rig, assert_intact, defer, deliver, drain, due_now, within};

/// A message that is accepted now and due after so many hours.
async fn accept_for(rig: &Rig, spool: &Spool, hours: u32) -> (MessageId, Timestamp) {
    let mut message = rig.message(&["a@one.example", "b@two.example"]);
    let at = rig.clock.now().saturating_add(hours * HOUR);
    message.not_before = Some(at);
    let id = message.id;
    spool.accept(message).await.unwrap();
    (id, at)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_due_before_its_time() {
    for old in [false, true] {
        let rig = Rig::with_sled();
        let spool = rig.open().await;
        let (id, at) = accept_for(&rig, &spool, 50).await;
        if old {
            rig.grow_old(&spool).await;
        }
        let now = rig.accept(&spool, &["a@one.example"]).await;
        assert_eq!(drain(&spool).await, [now]);
        assert!(within(49 * HOUR, spool.take_due(1)).await.is_none());
        let claims = spool.take_due(5).await;
        assert!(rig.clock.now() >= at);
        assert_eq!(claims.iter().map(|claim| claim.id).collect::<Vec<_>>(), [id, id]);
        for claim in claims {
            assert_eq!((claim.message.released_at(), claim.recipients[0].attempts), (at, 0));
            assert_intact(&claim).await;
            deliver(claim).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_that_has_passed_means_at_once() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let mut message = rig.message(&["a@one.example"]);
    message.not_before = Some(Timestamp::from_millis(1));
    spool.accept(message).await.unwrap();
    let claim = due_now(&spool, 1).await.pop().unwrap();
    assert_eq!(claim.message.released_at(), claim.message.accepted_at);
}

#[tokio::test(start_paused = true)]
async fn the_time_survives_restarts_and_lost_indexes() {
    for old in [false, true] {
        let rig = Rig::with_sled();
        let spool = rig.open().await;
        let (id, at) = accept_for(&rig, &spool, 50).await;
        if old {
            rig.grow_old(&spool).await;
        }
        rig.disk.crash_dropping_all();
        drop(spool);
        if old {
            std::fs::remove_dir_all(rig.index_dir().unwrap()).unwrap();
        }
        let spool = rig.open().await;
        assert!(due_now(&spool, 1).await.is_empty());
        let view = spool.show(id).await.unwrap().unwrap();
        assert_eq!(view.recipients[0].next_attempt, Some(at));
        let listed = spool.list(&Selector::All, 9).await.unwrap();
        assert_eq!(listed.iter().map(|entry| entry.next_attempt).collect::<Vec<_>>(), [Some(at), Some(at)]);
        spool.close().await.unwrap();
        drop(spool);
        let spool = rig.open().await;
        assert!(within(49 * HOUR, spool.take_due(1)).await.is_none());
        let claim = spool.take_due(1).await.pop().unwrap();
        assert_eq!((claim.id, claim.message.not_before), (id, Some(at)));
        assert_intact(&claim).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_general_retry_does_not_send_early_and_a_name_does() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let (first, _) = accept_for(&rig, &spool, 50).await;
    rig.grow_old(&spool).await;
    let (second, _) = accept_for(&rig, &spool, 60).await;
    let deferred = rig.accept(&spool, &["a@one.example"]).await;
    defer(spool.take_due(1).await.pop().unwrap(), &rig.clock, HOUR).await;
    assert_eq!(spool.retry(&Selector::All).await.unwrap(), 1);
    assert_eq!(drain(&spool).await, [deferred]);
    assert_eq!(spool.retry(&Selector::Message(first)).await.unwrap(), 2);
    assert_eq!(drain(&spool).await, [first, first]);
    // What was due once is retried like everything else.
    assert!(within(61 * HOUR, spool.take_due(1)).await.is_some());
    for claim in spool.take_due(2).await {
        assert_eq!(claim.id, second);
        defer(claim, &rig.clock, HOUR).await;
    }
    assert_eq!(spool.retry(&Selector::All).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_taken_back() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let (id, _) = accept_for(&rig, &spool, 50).await;
    assert_eq!(spool.delete(&Selector::Message(id)).await.unwrap(), 2);
    assert!(within(60 * HOUR, spool.take_due(1)).await.is_none());
}
