use std::time::Duration;

use postrider_mail::MessageId;
use postrider_spool::{Selector, Spool};

use crate::rig::{HOUR, Rig, assert_intact, defer, deliver, drain, due_now};

/// Messages come and go until the log has moved on by many segments.
async fn churn(rig: &Rig, spool: &Spool, messages: u32) {
    for _ in 0..messages {
        let id = rig.accept(spool, &["a@churn.example"]).await;
        for claim in due_now(spool, 4).await {
            assert_eq!(claim.id, id);
            deliver(claim).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
}

async fn deferred(rig: &Rig, spool: &Spool) -> MessageId {
    let id = rig.accept(spool, &["a@slow.example", "b@slower.example"]).await;
    for claim in spool.take_due(2).await {
        assert_eq!(claim.id, id);
        defer(claim, &rig.clock, 10 * HOUR).await;
    }
    id
}

#[tokio::test(start_paused = true)]
async fn dead_segments_go() {
    let rig = Rig::new();
    let spool = rig.open().await;
    churn(&rig, &spool, 1000).await;
    let stat = spool.stat();
    assert!(stat.segments <= 3, "{stat:?}");
    assert_eq!(stat.messages, 0);
    drop(spool);
    assert_eq!(rig.open().await.report().unwrap().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_messages_move_with_their_state() {
    for rig in [Rig::new(), Rig::with_sled()] {
        let spool = rig.open().await;
        let mut waiting = Vec::new();
        for _ in 0..5 {
            waiting.push(deferred(&rig, &spool).await);
            churn(&rig, &spool, 200).await;
        }
        let held = rig.accept(&spool, &["h@held.example"]).await;
        spool.hold(&Selector::Message(held)).await.unwrap();
        spool.hold(&Selector::Domain("slower.example".parse().unwrap())).await.unwrap();
        churn(&rig, &spool, 1000).await;
        assert!(spool.stat().segments <= 5, "{:?}", spool.stat());
        rig.disk.crash_dropping_all();
        drop(spool);
        let spool = rig.open().await;
        assert_eq!(spool.report().unwrap().messages, 6);
        assert!(due_now(&spool, 1).await.is_empty());
        tokio::time::sleep(11 * HOUR).await;
        let mut claims = spool.take_due(20).await;
        claims.extend(due_now(&spool, 20).await);
        assert!(due_now(&spool, 1).await.is_empty());
        let mut seen = Vec::new();
        for claim in claims {
            assert_eq!(claim.queue.domain.as_str(), "slow.example");
            assert_eq!(claim.recipients[0].attempts, 1);
            assert_eq!(claim.recipients[0].last.as_ref().unwrap().diagnostic, "450 try 1");
            assert_intact(&claim).await;
            seen.push(claim.id);
        }
        assert_eq!(seen, waiting);
        spool.release(&Selector::All).await.unwrap();
        assert_eq!(drain(&spool).await.len(), 11);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_keeps_its_message_while_it_moves() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    deferred(&rig, &spool).await;
    tokio::time::sleep(11 * HOUR).await;
    let mut claims = spool.take_due(2).await;
    claims.extend(due_now(&spool, 2).await);
    churn_beside(&rig, &spool, 1000).await;
    assert!(spool.stat().segments <= 4, "{:?}", spool.stat());
    for mut claim in claims {
        claim.register().await.unwrap();
        assert_intact(&claim).await;
        deliver(claim).await;
    }
    churn(&rig, &spool, 300).await;
    drop(spool);
    assert_eq!(rig.open().await.report().unwrap().messages, 0);
}

/// As `churn`, while others hold claims.
async fn churn_beside(rig: &Rig, spool: &Spool, messages: u32) {
    for _ in 0..messages {
        rig.accept(spool, &["a@churn.example"]).await;
        for claim in spool.take_due(4).await {
            deliver(claim).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_of_long_waiting_messages_stays_within_its_bound() {
    let rig = Rig::new();
    let spool = rig.open().await;
    for _ in 0..150 {
        deferred(&rig, &spool).await;
        rig.accept(&spool, &["a@churn.example"]).await;
        deliver(spool.take_due(1).await.pop().unwrap()).await;
    }
    churn(&rig, &spool, 2000).await;
    let stat = spool.stat();
    let bound = 2 * (stat.bytes + 256 * stat.messages) + (4 + 1) * (64 << 10);
    assert!(stat.segments * (64 << 10) <= bound, "{stat:?}, {bound}");
    tokio::time::sleep(11 * HOUR).await;
    assert_eq!(drain(&spool).await.len(), 300);
}
