use postrider_mail::{DelayType, Disposition};

use crate::rig::{BOUNCED, HOUR, Rig, assert_intact, body_of, defer, deliver, drain, due_now, outcomes};

#[tokio::test(start_paused = true)]
async fn everything_is_there_after_a_clean_stop() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    assert!(!spool.report().unwrap().clean_stop);
    let young = rig.accept(&spool, &["a@one.example"]).await;
    let deferred = rig.accept(&spool, &["a@two.example"]).await;
    let gone = rig.accept(&spool, &["a@three.example"]).await;
    for claim in spool.take_due(3).await {
        match claim.id {
            id if id == deferred => defer(claim, &rig.clock, 5 * HOUR).await,
            id if id == gone => deliver(claim).await,
            _ => drop(claim),
        }
    }
    spool.close().await.unwrap();
    drop(spool);
    let spool = rig.open().await;
    let report = spool.report().unwrap();
    assert!(report.clean_stop);
    assert_eq!((report.messages, report.quarantined), (2, 0));
    assert_eq!(report.index_rebuilt, None);
    assert_eq!(drain(&spool).await, [young]);
    tokio::time::sleep(5 * HOUR).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_eq!(claim.id, deferred);
    assert_eq!(claim.recipients[0].attempts, 1);
    assert_eq!(claim.recipients[0].last.as_ref().unwrap().diagnostic, "450 try 1");
    assert_intact(&claim).await;
}

#[tokio::test(start_paused = true)]
async fn an_index_that_was_closed_in_order_needs_no_repair() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    for _ in 0..10 {
        rig.accept(&spool, &["a@one.example", "b@two.example"]).await;
        let mut claims = spool.take_due(2).await;
        defer(claims.pop().unwrap(), &rig.clock, HOUR).await;
        deliver(claims.pop().unwrap()).await;
    }
    rig.grow_old(&spool).await;
    spool.close().await.unwrap();
    drop(spool);
    let spool = rig.open().await;
    assert_eq!((spool.report().unwrap().messages, spool.report().unwrap().index_repairs), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_survives_a_power_cut() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(rig.accept(&spool, &["a@one.example"]).await);
    }
    rig.disk.crash_dropping_all();
    drop(spool);
    let spool = rig.open().await;
    assert!(!spool.report().unwrap().clean_stop);
    let mut drained = drain(&spool).await;
    drained.sort();
    ids.sort();
    assert_eq!(drained, ids);
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_an_outcome_is_due_again_and_its_attempt_is_counted() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@one.example"]).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    defer(claim, &rig.clock, HOUR).await;
    let mut claim = spool.take_due(1).await.pop().unwrap();
    claim.register().await.unwrap();
    // The attempt is written, and synced within the time promised.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    rig.disk.crash_dropping_all();
    drop((claim, spool));
    let spool = rig.open().await;
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_eq!(claim.recipients[0].attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_bounce_and_its_notification_survive_together() {
    for synced in [false, true] {
        let rig = Rig::new();
        let spool = rig.open().await;
        let id = rig.accept(&spool, &["a@example.org"]).await;
        let claim = spool.take_due(1).await.pop().unwrap();
        let dsn = rig.message(&["sender@example.com"]);
        let dsn_id = dsn.id;
        let bounced = outcomes(&claim, BOUNCED, rig.clock.now());
        claim.finish(bounced, vec![dsn]).await.unwrap();
        if synced {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        rig.disk.crash_dropping_all();
        drop(spool);
        let spool = rig.open().await;
        assert_eq!(drain(&spool).await, [if synced { dsn_id } else { id }]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_partly_delivered_message_goes_on_where_it_was() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let id = rig.accept(&spool, &["a@example.org", "b@example.org", "c@example.org"]).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    let at = rig.clock.now();
    let mut all = outcomes(&claim, Disposition::Delivered, at);
    all[1].disposition = Disposition::Deferred(DelayType::MailboxFull);
    all[1].next_attempt = Some(at.saturating_add(HOUR));
    claim.finish(all, Vec::new()).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    let spool = rig.open().await;
    assert!(due_now(&spool, 1).await.is_empty());
    let view = spool.show(id).await.unwrap().unwrap();
    let done: Vec<bool> = view.recipients.iter().map(|recipient| recipient.done).collect();
    assert_eq!(done, [true, false, true]);
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_eq!(claim.recipients.len(), 1);
    assert_eq!(claim.recipients[0].index, 1);
    assert_eq!(claim.content().await.unwrap().to_bytes(), body_of(id).to_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_copied_spool_starts_held() {
    let mut rig = Rig::new();
    let spool = rig.open().await;
    let id = rig.accept(&spool, &["a@example.org"]).await;
    spool.close().await.unwrap();
    drop(spool);
    rig.start_held = true;
    let spool = rig.open().await;
    assert!(due_now(&spool, 1).await.is_empty());
    drop(spool);
    // Held until released, not only while the option is given.
    rig.start_held = false;
    let spool = rig.open().await;
    assert!(due_now(&spool, 1).await.is_empty());
    spool.release(&postrider_spool::Selector::All).await.unwrap();
    assert_eq!(drain(&spool).await, [id]);
}
