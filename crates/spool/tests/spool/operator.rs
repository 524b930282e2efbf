use postrider_spool::{Claim, Error, Selector, Spool};

use crate::rig::{HOUR, Rig, defer, drain, due_now, queue};

#[tokio::test(start_paused = true)]
async fn one_message_is_held_and_released_across_restarts() {
    for old in [false, true] {
        let rig = Rig::with_sled();
        let spool = rig.open().await;
        let id = rig.accept(&spool, &["a@one.example", "b@two.example"]).await;
        if old {
            rig.grow_old(&spool).await;
        }
        spool.hold(&Selector::Message(id)).await.unwrap();
        let other = rig.accept(&spool, &["a@one.example"]).await;
        assert_eq!(drain(&spool).await, [other]);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        rig.disk.crash_dropping_all();
        drop(spool);
        let spool = rig.open().await;
        assert!(due_now(&spool, 1).await.is_empty());
        let view = spool.show(id).await.unwrap().unwrap();
        assert!(view.held);
        assert_eq!(view.recipients[0].next_attempt, None);
        assert_eq!(spool.retry(&Selector::All).await.unwrap(), 0);
        spool.release(&Selector::Message(id)).await.unwrap();
        assert_eq!(drain(&spool).await, [id, id]);
        let unknown = spool.hold(&Selector::Message(id)).await;
        assert!(matches!(unknown, Err(Error::Unknown(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_while_old_mail_is_recovered_is_about_all_of_it() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    rig.accept(&spool, &["a@one.example"]).await;
    rig.accept(&spool, &["a@two.example"]).await;
    spool.hold(&Selector::Domain("one.example".parse().unwrap())).await.unwrap();
    spool.close().await.unwrap();
    for ask in 0..3 {
        let spool = Spool::open_behind(rig.options()).await.unwrap();
        match ask {
            0 => assert_eq!(spool.summary().await.unwrap().len(), 2),
            1 => assert_eq!(spool.retry(&Selector::All).await.unwrap(), 0),
            // What is held already stays so.
            _ => spool.hold(&Selector::Domain("two.example".parse().unwrap())).await.unwrap(),
        }
        spool.close().await.unwrap();
    }
    let held = rig.open().await.summary().await.unwrap();
    assert!(held.iter().all(|queue| queue.held), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_to_the_log_happens_though_nobody_waits_for_it() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let id = rig.accept(&spool, &["a@one.example"]).await;
    rig.grow_old(&spool).await;
    let written = spool.stat().synced;
    {
        // An operator's command that is broken off while the disk syncs.
        let selector = Selector::Message(id);
        let mut delete = Box::pin(spool.delete(&selector));
        while spool.stat().synced == written {
            let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(delete.as_mut().poll(cx).is_pending()));
            assert!(poll.await, "the log was faster than this test");
            tokio::task::yield_now().await;
        }
    }
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(spool.stat().messages, 0);
    assert!(due_now(&spool, 1).await.is_empty(), "a deleted message is delivered");
}

#[tokio::test(start_paused = true)]
async fn a_held_domain_waits_and_what_comes_later_too() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let domain = Selector::Domain("one.example".parse().unwrap());
    let first = rig.accept(&spool, &["a@one.example"]).await;
    spool.hold(&domain).await.unwrap();
    rig.grow_old(&spool).await;
    let second = rig.accept(&spool, &["a@one.example"]).await;
    let other = rig.accept(&spool, &["a@two.example"]).await;
    assert_eq!(drain(&spool).await, [other]);
    drop(spool);
    let spool = rig.open().await;
    assert!(due_now(&spool, 5).await.is_empty());
    let held: Vec<bool> = spool.summary().await.unwrap().iter().map(|q| q.held).collect();
    assert_eq!(held, [true]);
    // A narrower release leaves the wider hold; a wider one ends it.
    spool.release(&Selector::Queue(queue("one.example"))).await.unwrap();
    assert!(due_now(&spool, 5).await.is_empty());
    spool.release(&Selector::All).await.unwrap();
    assert_eq!(drain(&spool).await, [first, second]);
}

#[tokio::test(start_paused = true)]
async fn a_release_of_all_also_frees_single_messages() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let mut message = rig.message(&["a@one.example"]);
    message.origin.hold = true;
    let id = message.id;
    spool.accept(message).await.unwrap();
    assert!(due_now(&spool, 5).await.is_empty());
    rig.grow_old(&spool).await;
    spool.release(&Selector::All).await.unwrap();
    assert_eq!(drain(&spool).await, [id]);
}

#[tokio::test(start_paused = true)]
async fn retry_makes_the_selected_due_now() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    for number in 0..300 {
        let to = if number % 3 == 0 { "a@one.example" } else { "a@two.example" };
        rig.accept(&spool, &[to]).await;
        defer(spool.take_due(1).await.pop().unwrap(), &rig.clock, 9 * HOUR).await;
    }
    let queue = Selector::Queue(queue("one.example"));
    assert_eq!(spool.retry(&queue).await.unwrap(), 100);
    assert_eq!(spool.retry(&queue).await.unwrap(), 0);
    drop(spool);
    let spool = rig.open().await;
    assert_eq!(drain(&spool).await.len(), 100);
    assert_eq!(spool.retry(&Selector::All).await.unwrap(), 200);
    assert_eq!(drain(&spool).await.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn retry_lets_in_what_is_set_aside_but_not_what_is_held() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let mut ids = Vec::new();
    for to in ["a@one.example", "b@one.example", "a@two.example", "a@held.example"] {
        ids.push(rig.accept(&spool, &[to]).await);
    }
    let until = rig.clock.now().saturating_add(9 * HOUR);
    let set_aside = |claims: Vec<Claim>| claims.into_iter().for_each(|claim| claim.set_aside(until));
    set_aside(spool.take_due(9).await);
    spool.hold(&Selector::Queue(queue("held.example"))).await.unwrap();
    assert!(due_now(&spool, 9).await.is_empty());
    assert_eq!(spool.retry(&Selector::Message(ids[0])).await.unwrap(), 1);
    let claims = due_now(&spool, 9).await;
    assert_eq!(claims.iter().map(|claim| claim.id).collect::<Vec<_>>(), ids[..1]);
    set_aside(claims);
    assert_eq!(spool.retry(&Selector::Queue(queue("one.example"))).await.unwrap(), 2);
    assert_eq!(spool.retry(&Selector::All).await.unwrap(), 1);
    let claims = due_now(&spool, 9).await;
    assert!(claims.len() == 3 && claims.iter().all(|claim| ids[..3].contains(&claim.id)));
}

#[tokio::test(start_paused = true)]
async fn delete_ends_the_selected_for_good() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let mixed = rig.accept(&spool, &["a@one.example", "b@two.example"]).await;
    for _ in 0..200 {
        rig.accept(&spool, &["a@one.example"]).await;
    }
    rig.grow_old(&spool).await;
    let young = rig.accept(&spool, &["a@one.example"]).await;
    let claim = spool.take_due(1).await;
    let domain = Selector::Domain("one.example".parse().unwrap());
    assert_eq!(spool.delete(&domain).await.unwrap(), 202);
    drop(claim);
    assert_eq!(spool.show(young).await.unwrap(), None);
    assert_eq!(spool.stat().messages, 1);
    drop(spool);
    let spool = rig.open().await;
    assert_eq!(spool.stat().messages, 1);
    assert_eq!(spool.delete(&Selector::Message(young)).await.unwrap(), 0);
    assert_eq!(drain(&spool).await, [mixed]);
}

#[tokio::test(start_paused = true)]
async fn summary_and_list_see_young_old_and_claimed() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let start = rig.clock.now();
    let old = rig.accept(&spool, &["a@one.example"]).await;
    let deferred = rig.accept(&spool, &["b@one.example"]).await;
    let claims = spool.take_due(2).await;
    let mut kept = Vec::new();
    for claim in claims {
        match claim.id == deferred {
            true => defer(claim, &rig.clock, HOUR).await,
            false => kept.push(claim),
        }
    }
    rig.grow_old(&spool).await;
    let young = rig.accept(&spool, &["c@one.example"]).await;
    let summary = spool.summary().await.unwrap();
    assert_eq!(summary.len(), 1);
    let one = &summary[0];
    assert_eq!((one.messages, one.due_now), (3, 2));
    assert_eq!(one.oldest, Some(start));
    assert_eq!(one.next_due, Some(start));
    assert_eq!((one.held, one.parked), (false, false));
    let list = spool.list(&Selector::All, 10).await.unwrap();
    let ids: Vec<_> = list.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [old, young, deferred]);
    assert_eq!(list[2].last.as_ref().unwrap().diagnostic, "450 try 1");
    assert_eq!(list[2].attempts, 1);
    assert_eq!(list[0].recipients[0].as_str(), "a@one.example");
    assert_eq!(spool.list(&Selector::All, 2).await.unwrap().len(), 2);
    let none = Selector::Domain("none.example".parse().unwrap());
    assert!(spool.list(&none, 9).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hold_whose_caller_goes_away_is_kept_by_the_next() {
    let rig = Rig::new();
    let spool = rig.open().await;
    let of = |domain: &str| Selector::Domain(domain.parse().unwrap());
    let one = of("one.example");
    tokio::select! {
        biased;
        held = spool.hold(&one) => panic!("{held:?} at once"),
        () = std::future::ready(()) => {}
    }
    spool.hold(&of("two.example")).await.unwrap();
    for domain in ["one.example", "two.example"] {
        assert_eq!(spool.hold_of(&queue(domain)), Some(of(domain)));
    }
}
