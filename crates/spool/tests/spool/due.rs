use std::time::Duration;

use postrider_mail::AccountId;

use crate::rig::{HOUR, Rig, defer, deliver, drain, due_now, queue, within};

#[tokio::test(start_paused = true)]
async fn queues_take_turns() {
    let rig = Rig::new();
    let spool = rig.open().await;
    for _ in 0..20 {
        rig.accept(&spool, &["a@busy.example"]).await;
    }
    for domain in ["b@two.example", "c@three.example"] {
        rig.accept(&spool, &[domain]).await;
    }
    let mut message = rig.message(&["d@busy.example"]);
    message.account = AccountId::new(2).unwrap();
    spool.accept(message).await.unwrap();
    let claims = spool.take_due(4).await;
    let mut queues: Vec<_> = claims.iter().map(|claim| claim.queue.clone()).collect();
    queues.sort();
    queues.dedup();
    assert_eq!(queues.len(), 4, "one of each queue before the second of any");
}

#[tokio::test(start_paused = true)]
async fn first_in_is_first_out_within_a_queue() {
    for rig in [Rig::new(), Rig::with_sled()] {
        let spool = rig.open().await;
        let mut ids = Vec::new();
        for _ in 0..300 {
            ids.push(rig.accept(&spool, &["a@example.org"]).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        rig.grow_old(&spool).await;
        assert_eq!(drain(&spool).await, ids);
    }
}

#[tokio::test(start_paused = true)]
async fn due_times_of_days_are_kept_to_the_millisecond() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    for hours in [70, 1, 24] {
        rig.accept(&spool, &["a@example.org"]).await;
        let claim = spool.take_due(1).await.pop().unwrap();
        defer(claim, &rig.clock, hours * HOUR).await;
    }
    let start = rig.clock.now();
    for hours in [1, 24, 70] {
        let claim = spool.take_due(5).await.pop().unwrap();
        let waited = rig.clock.now().saturating_since(start);
        let wanted = hours * HOUR;
        assert!(waited >= wanted - Duration::from_secs(1), "{waited:?}");
        assert!(waited <= wanted + Duration::from_millis(5), "{waited:?}");
        assert!(claim.ready_since <= rig.clock.now());
        deliver(claim).await;
    }
    assert!(within(1000 * HOUR, spool.take_due(1)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_taker_is_woken_by_fresh_mail_and_by_nearer_times() {
    let rig = Rig::new();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    defer(claim, &rig.clock, 48 * HOUR).await;
    let taker = tokio::spawn({
        let spool = spool.clone();
        async move { spool.take_due(1).await.pop().unwrap().id }
    });
    tokio::time::sleep(HOUR).await;
    assert!(!taker.is_finished());
    let fresh = rig.accept(&spool, &["b@example.org"]).await;
    assert_eq!(taker.await.unwrap(), fresh);
    // The claim above was dropped: due again at once.
    assert_eq!(drain(&spool).await, [fresh]);
}

#[tokio::test(start_paused = true)]
async fn a_parked_queue_hides_nobody_and_costs_no_memory() {
    let mut rig = Rig::with_sled();
    rig.settings.ready_batch = 4;
    let spool = rig.open().await;
    spool.park(&queue("slow.example"));
    for _ in 0..500 {
        rig.accept(&spool, &["a@slow.example"]).await;
    }
    rig.grow_old(&spool).await;
    let quick = rig.accept(&spool, &["a@quick.example"]).await;
    assert_eq!(drain(&spool).await, [quick]);
    assert!(within(HOUR, spool.take_due(1)).await.is_none());
    spool.unpark(&queue("slow.example"));
    assert_eq!(drain(&spool).await.len(), 500);
    assert_eq!(spool.stat().queues, 0);
}

#[tokio::test(start_paused = true)]
async fn deferrals_of_a_large_queue_all_come_back_in_order() {
    let mut rig = Rig::with_sled();
    rig.settings.ready_batch = 8;
    let spool = rig.open().await;
    let mut expected = Vec::new();
    for step in 0..200u32 {
        let id = rig.accept(&spool, &["a@example.org"]).await;
        let claim = spool.take_due(1).await.pop().unwrap();
        // Neither ascending nor descending.
        let delay = HOUR + Duration::from_secs(u64::from(step * 7919 % 200) * 30);
        expected.push((rig.clock.now().saturating_add(delay), id));
        defer(claim, &rig.clock, delay).await;
    }
    expected.sort();
    tokio::time::sleep(10 * HOUR).await;
    let drained = drain(&spool).await;
    assert_eq!(drained, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
    assert!(due_now(&spool, 1).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_takers_share_the_work() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let takers: Vec<_> = (0..2)
        .map(|_| {
            let spool = spool.clone();
            tokio::spawn(async move {
                let claim = spool.take_due(1).await.pop().unwrap();
                let id = claim.id;
                deliver(claim).await;
                id
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let mut ids = Vec::new();
    for domain in ["a@one.example", "a@two.example"] {
        ids.push(rig.accept(&spool, &[domain]).await);
    }
    let mut taken = Vec::new();
    for taker in takers {
        taken.push(taker.await.unwrap());
    }
    taken.sort();
    ids.sort();
    assert_eq!(taken, ids);
}
