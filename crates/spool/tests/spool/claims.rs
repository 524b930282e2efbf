use std::time::Duration;

use postrider_base::sim_disk::{Fault, Operation};

use postrider_mail::{DelayType, Disposition};
use postrider_spool::{Durability, Error, QueueKey, Record, Spool};

use crate::rig::{BOUNCED, HOUR, Rig, assert_intact, defer, deliver, drain, due_now, outcome, outcomes, queue};

#[tokio::test(start_paused = true)]
async fn a_message_is_accepted_claimed_delivered_and_gone() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let id = rig.accept(&spool, &["a@example.org", "b@example.org"]).await;
    let mut claims = spool.take_due(10).await;
    assert_eq!(claims.len(), 1);
    let mut claim = claims.pop().unwrap();
    assert_eq!(claim.id, id);
    assert_eq!(claim.recipients.len(), 2);
    assert_eq!(claim.recipients[0].attempts, 0);
    assert!(claim.recipients[0].last.is_none());
    assert_intact(&claim).await;
    claim.register().await.unwrap();
    assert!(due_now(&spool, 10).await.is_empty());
    deliver(claim).await;
    assert!(due_now(&spool, 10).await.is_empty());
    let stat = spool.stat();
    assert_eq!((stat.messages, stat.bytes, stat.in_delivery, stat.body_memory), (0, 0, 0, 0));
    assert_eq!((stat.queues, stat.young), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn each_domain_is_a_claim_of_its_own() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let to = ["a@one.example", "b@two.example", "c@one.example"];
    rig.accept(&spool, &to).await;
    let mut claims = spool.take_due(10).await;
    claims.sort_by_key(|claim| claim.queue.clone());
    let found: Vec<Vec<u16>> =
        claims.iter().map(|claim| claim.recipients.iter().map(|due| due.index).collect()).collect();
    assert_eq!(found, [vec![0, 2], vec![1]]);
    let two = claims.pop().unwrap();
    deliver(two).await;
    assert_eq!(spool.stat().messages, 1);
    defer(claims.pop().unwrap(), &rig.clock, HOUR).await;
    tokio::time::sleep(HOUR).await;
    let claim = spool.take_due(10).await.pop().unwrap();
    assert_eq!(claim.queue.domain.as_str(), "one.example");
    assert_eq!(claim.recipients.len(), 2);
    deliver(claim).await;
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_claim_is_due_again_at_its_old_place() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let first = rig.accept(&spool, &["a@example.org"]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = rig.accept(&spool, &["a@example.org"]).await;
    let claims = spool.take_due(1).await;
    assert_eq!(claims[0].id, first);
    drop(claims);
    assert_eq!(drain(&spool).await, [first, second]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_can_be_split_and_is_given_back_with_its_last_part() {
    let rig = Rig::new();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org", "b@example.org", "c@example.org"]).await;
    let mut rest = spool.take_due(1).await.pop().unwrap();
    let (first, second) = (rest.split_first().unwrap(), rest.split_first().unwrap());
    assert!(rest.split_first().is_none());
    let whom = [&first, &second, &rest].map(|part| part.recipients[0].index);
    assert_eq!((whom, rest.recipients.len()), ([0, 1, 2], 1));
    deliver(first).await;
    drop(second);
    assert!(due_now(&spool, 10).await.is_empty(), "a part is still out");
    assert_intact(&rest).await;
    let until = rig.clock.now().saturating_add(HOUR);
    rest.set_aside(until);
    assert!(due_now(&spool, 10).await.is_empty());
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_eq!(rig.clock.now(), until);
    assert_eq!(claim.recipients.iter().map(|due| due.index).collect::<Vec<_>>(), [1, 2]);
    deliver(claim).await;
    assert_eq!((spool.stat().messages, spool.stat().in_delivery), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_was_set_aside_is_called_back_though_another_is_still_out() {
    let rig = Rig::new();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org", "b@example.org", "c@example.org"]).await;
    let until = rig.clock.now().saturating_add(24 * HOUR);
    let calls: [fn(&Spool, &QueueKey); 3] = [
        |spool, queue| spool.recall(queue),
        |spool, queue| spool.read_again(queue),
        |spool, queue| assert_eq!(spool.let_on(queue), None),
    ];
    for call in calls {
        let mut rest = spool.take_due(1).await.pop().unwrap();
        let (first, second) = (rest.split_first().unwrap(), rest.split_first().unwrap());
        let queue = first.queue.clone();
        second.set_aside(until);
        call(&spool, &queue);
        // What is set aside after that does not undo it.
        first.pass_over(until);
        drop(rest);
        let claims = due_now(&spool, 1).await;
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0].recipients.len(), 3);
    }
    let mut rest = spool.take_due(1).await.pop().unwrap();
    rest.split_first().unwrap().set_aside(until);
    drop(rest);
    assert!(due_now(&spool, 1).await.is_empty(), "nobody has called it back");
}

#[tokio::test(start_paused = true)]
async fn recipients_without_an_outcome_stay_due() {
    let rig = Rig::new();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org", "b@example.org"]).await;
    let mut claim = spool.take_due(1).await.pop().unwrap();
    let at = rig.clock.now();
    let first = outcome(&claim, 0, Disposition::Delivered, at);
    claim.record(vec![first], Vec::new()).await.unwrap();
    assert_eq!(claim.recipients.len(), 1);
    drop(claim);
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_eq!(claim.recipients.len(), 1);
    assert_eq!(claim.recipients[0].index, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deferred_recipient_remembers_its_last_attempt() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    for attempts in 0..3u32 {
        let mut claim = spool.take_due(1).await.pop().unwrap();
        assert_eq!(claim.recipients[0].attempts, attempts);
        let last = claim.recipients[0].last.as_ref();
        let said = last.map(|last| last.diagnostic.clone());
        let expected = (attempts > 0).then(|| format!("450 try {attempts}"));
        assert_eq!(said, expected);
        assert_intact(&claim).await;
        claim.register().await.unwrap();
        defer(claim, &rig.clock, 5 * HOUR).await;
        assert!(due_now(&spool, 1).await.is_empty());
        assert_eq!(spool.stat().body_memory, 0);
    }
    assert_eq!(spool.stat().young, 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_began_counts_though_its_claim_was_dropped() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    rig.grow_old(&spool).await;
    for attempts in 0..3 {
        let mut claim = spool.take_due(1).await.pop().unwrap();
        assert_eq!(claim.recipients[0].attempts, attempts);
        claim.register().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bounce_and_its_notification_are_one_batch() {
    let rig = Rig::new();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    let dsn = rig.message(&["sender@example.com"]);
    let id = dsn.id;
    let bounced = outcomes(&claim, BOUNCED, rig.clock.now());
    claim.finish(bounced, vec![dsn]).await.unwrap();
    assert_eq!(drain(&spool).await, [id]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_waits_for_is_not_handed_out_again() {
    let rig = Rig::new();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    let delivered = outcomes(&claim, Disposition::Delivered, rig.clock.now());
    begin(claim.finish(delivered, Vec::new())).await;
    assert!(due_now(&spool, 1).await.is_empty());
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn an_accept_that_nobody_waits_for_still_counts() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let message = rig.message(&["a@example.org"]);
    let id = message.id;
    begin(spool.accept(message)).await;
    assert_eq!(spool.take_due(1).await[0].id, id);
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_a_claim() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let id = rig.accept(&spool, &["a@example.org"]).await;
    let claim = spool.take_due(1).await.pop().unwrap();
    let delivered = outcomes(&claim, Disposition::Delivered, rig.clock.now());
    drop(claim);
    rig.grow_old(&spool).await;
    let record = || Record::Outcomes { id, outcomes: delivered.clone() };
    let other = rig.message(&["b@example.org"]);
    let batch = vec![record(), Record::Message(other.clone())];
    spool.commit(batch, Durability::Synced).await.unwrap();
    assert_eq!(drain(&spool).await, [other.id]);
    let again = spool.commit(vec![record()], Durability::Synced).await;
    assert!(matches!(again, Err(Error::Unknown(unknown)) if unknown == id));
}

#[tokio::test(start_paused = true)]
async fn bodies_beyond_the_memory_are_read_back() {
    let mut rig = Rig::new();
    rig.settings.body_memory = postrider_base::Size::from_bytes(1);
    let spool = rig.open().await;
    rig.accept(&spool, &["a@example.org"]).await;
    assert_eq!(spool.stat().body_memory, 0);
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_intact(&claim).await;
}

#[tokio::test(start_paused = true)]
async fn a_taken_claim_survives_the_end_of_its_youth() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@one.example", "b@two.example"]).await;
    let mut claims = spool.take_due(2).await;
    rig.grow_old(&spool).await;
    let at = rig.clock.now();
    let claim = claims.pop().unwrap();
    assert_intact(&claim).await;
    let mut deferred = outcomes(&claim, Disposition::Deferred(DelayType::General), at);
    deferred[0].next_attempt = Some(at.saturating_add(HOUR));
    claim.finish(deferred, Vec::new()).await.unwrap();
    drop(claims);
    assert_eq!(drain(&spool).await.len(), 1);
    tokio::time::sleep(HOUR).await;
    assert_eq!(drain(&spool).await.len(), 1);
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_answer_once_stops_no_message() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let id = rig.accept(&spool, &["a@one.example"]).await;
    let queue = queue("one.example");
    spool.park(&queue);
    rig.grow_old(&spool).await;
    rig.disk.fail(Operation::Read, 1, Fault::InputOutput);
    spool.unpark(&queue);
    let claim = spool.take_due(1).await.pop().unwrap();
    assert_eq!(claim.id, id);
    assert_intact(&claim).await;
    assert_eq!(rig.quarantined(), 0);
}

/// Begins something and does not wait for it.
async fn begin(work: impl Future) {
    let mut work = std::pin::pin!(work);
    let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(work.as_mut().poll(cx).is_pending()));
    assert!(poll.await, "it was done at once");
}
