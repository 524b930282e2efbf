use std::path::Path;
use std::time::Duration;

use postrider_base::sim_disk::{Fault, Operation};
use postrider_base::{Disk, OpenMode, Size};
use postrider_mail::{DelayType, Disposition, MessageId};
use postrider_spool::{Error, Lsn, Selector, Spool, SpoolOptions};

use crate::rig::{DIR, HOUR, Rig, assert_intact, defer, deliver, drain, due_now, outcomes, queue};

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

fn spare_files(rig: &Rig) -> usize {
    let files = rig.disk.read_dir(Path::new(DIR)).unwrap();
    files.iter().filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("spare-")).count()
}

#[tokio::test(start_paused = true)]
async fn files_of_a_rush_are_kept_up_to_the_bound_and_given_back() {
    for most in [3, 12] {
        let mut rig = Rig::new();
        rig.settings.segment_bytes = Size::from_kib(16);
        rig.settings.most_spare_files = most;
        let spool = rig.open().await;
        for _ in 0..200 {
            rig.accept(&spool, &["a@churn.example"]).await;
        }
        assert!(spool.stat().segments > 12, "{:?}", spool.stat());
        assert_eq!(drain(&spool).await.len(), 200);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(spare_files(&rig), most);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(spare_files(&rig), 2);
    }
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
    // Bodies are in the cold log, states in the main one, of some 600 bytes
    // with what two remotes said; each log has its four segments and the one
    // that it writes.
    let bound = 2 * (stat.bytes + 600 * stat.messages) + 2 * (4 + 1) * (64 << 10);
    assert!(stat.segments * (64 << 10) <= bound, "{stat:?}, {bound}");
    assert!(stat.cold_bytes <= 2 * stat.bytes + (4 + 1) * (64 << 10), "{stat:?}");
    tokio::time::sleep(11 * HOUR).await;
    assert_eq!(drain(&spool).await.len(), 300);
}

/// A spool with an old message that was deferred, whose segment is about to
/// be reclaimed, and its message.
async fn about_to_move(rig: &Rig) -> (Spool, MessageId) {
    let spool = rig.open().await;
    let id = deferred(rig, &spool).await;
    rig.grow_old(&spool).await;
    (spool, id)
}

/// Delivers what is due after the deferral, which is this message and whole.
async fn arrives(spool: &Spool, id: MessageId) {
    tokio::time::sleep(11 * HOUR).await;
    let mut claims = spool.take_due(2).await;
    claims.extend(due_now(spool, 2).await);
    assert_eq!(claims.len(), 2);
    for claim in claims {
        assert_eq!(claim.id, id);
        assert_intact(&claim).await;
        deliver(claim).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_once_costs_no_message() {
    for nth in 1..5 {
        let rig = Rig::with_sled();
        let (spool, id) = about_to_move(&rig).await;
        rig.disk.fail(Operation::Read, nth, Fault::InputOutput);
        churn(&rig, &spool, 400).await;
        assert!(spool.stat().segments <= 3, "{:?}", spool.stat());
        assert_eq!(rig.quarantined(), 0);
        arrives(&spool, id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_damaged_body_the_bytes_are_kept_and_the_message_is_held() {
    let rig = Rig::with_sled();
    let (spool, id) = about_to_move(&rig).await;
    let first = Path::new(DIR).join("segment-0000000001.log");
    let file = rig.disk.open(&first, OpenMode::Read).unwrap();
    let mut bytes = vec![0; 64 << 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let text = format!("Subject: {id}");
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    rig.disk.damage(&first, at, 1).unwrap();
    churn(&rig, &spool, 300).await;
    assert!(!rig.disk.exists(&first), "the segment was reclaimed");
    let kept = rig.disk.open(Path::new(&format!("{}/quarantine/message-{id}-body.bin", DIR)), OpenMode::Read);
    let kept = kept.unwrap();
    let mut bytes = vec![0; usize::try_from(kept.len().unwrap()).unwrap()];
    kept.read_exact_at(&mut bytes, 0).unwrap();
    let rest = &text.as_bytes()[1..];
    assert!(bytes.windows(rest.len()).any(|window| window == rest));
    tokio::time::sleep(11 * HOUR).await;
    let due = async {
        while spool.stat().quarantined < 2 {
            let claims = tokio::time::timeout(HOUR, spool.take_due(2)).await;
            assert!(claims.is_err(), "{claims:?}");
        }
    };
    due.await;
    assert!(spool.show(id).await.unwrap().unwrap().held);
    let stat = spool.stat();
    assert_eq!((stat.messages, stat.bytes), (1, 0));
    assert_eq!(spool.delete(&Selector::Message(id)).await.unwrap(), 2);
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_copied_once_however_long_its_message_waits() {
    let rig = Rig::with_sled();
    let (spool, id) = about_to_move(&rig).await;
    churn(&rig, &spool, 400).await;
    let cold = Path::new(DIR).join("cold");
    let copied = rig.disk.read_dir(&cold).unwrap();
    assert_eq!(copied.len(), 1, "{copied:?}");
    let file = rig.disk.open(&copied[0], OpenMode::Read).unwrap();
    let once = file.allocated_bytes().unwrap();
    for _ in 0..5 {
        churn(&rig, &spool, 400).await;
    }
    assert_eq!(file.allocated_bytes().unwrap(), once);
    drop(spool);
    let spool = rig.open().await;
    arrives(&spool, id).await;
}

#[tokio::test(start_paused = true)]
async fn the_cold_log_gives_back_what_is_dead_in_the_middle() {
    let mut rig = Rig::with_sled();
    rig.settings.index_after = postrider_base::Period::from_millis(1);
    let spool = rig.open().await;
    let mut waiting = Vec::new();
    for _ in 0..400 {
        waiting.push(deferred(&rig, &spool).await);
    }
    spool.compact().await.unwrap();
    churn(&rig, &spool, 600).await;
    let full = spool.stat();
    let cold = rig.disk.read_dir(&Path::new(DIR).join("cold")).unwrap();
    assert!(cold.len() > 3, "{cold:?}");
    // The oldest stays: no whole segment can go before it.
    for id in &waiting[1..] {
        if id != waiting.last().unwrap() {
            spool.delete(&Selector::Message(*id)).await.unwrap();
        }
    }
    churn(&rig, &spool, 600).await;
    let left = spool.stat();
    assert!(left.disk_bytes < full.disk_bytes / 2, "{left:?} {full:?}");
    let still = rig.disk.read_dir(&Path::new(DIR).join("cold")).unwrap();
    assert!(still.len() <= cold.len());
    rig.disk.crash_dropping_all();
    drop(spool);
    let spool = rig.open().await;
    assert_eq!(spool.report().unwrap().messages, 2);
    tokio::time::sleep(11 * HOUR).await;
    let mut claims = Vec::new();
    while claims.len() < 4 {
        claims.extend(spool.take_due(4).await);
    }
    for claim in claims {
        assert_intact(&claim).await;
        deliver(claim).await;
    }
    spool.compact().await.unwrap();
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_last_outlives_every_segment() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let id = rig.accept(&spool, &["a@slow.example"]).await;
    let queue = queue("slow.example");
    spool.park(&queue);
    churn(&rig, &spool, 400).await;
    // Moved once; the outcome lies behind its state.
    churn(&rig, &spool, 50).await;
    spool.unpark(&queue);
    let claim = spool.take_due(1).await.pop().unwrap();
    defer(claim, &rig.clock, 1000 * HOUR).await;
    for _ in 0..4 {
        churn(&rig, &spool, 300).await;
        let view = spool.show(id).await.unwrap().unwrap();
        let last = view.recipients[0].last.as_ref().unwrap();
        assert_eq!((&*last.diagnostic, &*last.record.as_ref().unwrap().site), ("450 try 1", "site"));
    }
    rig.disk.crash_dropping_all();
    drop(spool);
    let spool = rig.open().await;
    let view = spool.show(id).await.unwrap().unwrap();
    let last = view.recipients[0].last.as_ref().unwrap();
    assert_eq!((&*last.diagnostic, &*last.record.as_ref().unwrap().site), ("450 try 1", "site"));
}

#[tokio::test(start_paused = true)]
async fn states_that_are_long_are_not_moved_again_and_again() {
    let rig = Rig::new();
    let spool = rig.open().await;
    for _ in 0..400 {
        rig.accept(&spool, &["a@slow.example"]).await;
        let claim = spool.take_due(1).await.pop().unwrap();
        let at = rig.clock.now();
        let mut deferred = outcomes(&claim, Disposition::Deferred(DelayType::General), at);
        deferred[0].next_attempt = Some(at.saturating_add(1000 * HOUR));
        deferred[0].diagnostic = "450 ".to_owned() + &"later ".repeat(160);
        claim.finish(deferred, Vec::new()).await.unwrap();
    }
    spool.compact().await.unwrap();
    churn(&rig, &spool, 1000).await;
    let before = spool.stat();
    tokio::time::sleep(10 * HOUR).await;
    let after = spool.stat();
    assert_eq!(after.written_bytes, before.written_bytes, "it works without a reason");
    // Every byte that came was moved a few times at most.
    assert!(after.written_bytes < 6 * after.accepted_bytes.max(400 * 1200), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_cold_log_is_noticed() {
    let rig = Rig::with_sled();
    let (spool, id) = about_to_move(&rig).await;
    churn(&rig, &spool, 400).await;
    spool.close().await.unwrap();
    drop(spool);
    for path in rig.disk.read_dir(&Path::new(DIR).join("cold")).unwrap() {
        rig.disk.remove_file(&path).unwrap();
    }
    match Spool::open(rig.options()).await {
        Err(Error::Unrecovered(reason)) => {
            let reason = reason.to_string();
            assert!(reason.contains("segments 1099511627776 to 1099511627776 are missing in cold"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let spool = Spool::open(SpoolOptions { accept_loss: true, ..rig.options() }).await.unwrap();
    tokio::time::sleep(11 * HOUR).await;
    assert!(tokio::time::timeout(HOUR, spool.take_due(1)).await.is_err());
    assert!(spool.show(id).await.unwrap().unwrap().held);
    churn(&rig, &spool, 400).await;
}

#[tokio::test(start_paused = true)]
async fn who_stops_or_compacts_does_not_wait_for_messages_that_leave() {
    for stop in [true, false] {
        let mut rig = Rig::new();
        // Nothing is given back before it has read.
        rig.feeds = &["events"];
        let spool = rig.open().await;
        let feed = spool.feed("events", Lsn::ZERO);
        let mut leaving = Vec::new();
        for number in 0..1600 {
            rig.accept(&spool, &["a@leaving.example"]).await;
            let claim = spool.take_due(1).await.pop().unwrap();
            match number % 8 {
                0 => leaving.push(claim),
                _ => deliver(claim).await,
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(spool.stat().segments > 20, "{:?}", spool.stat());
        feed.ack(spool.stat().synced);
        let leaving = tokio::spawn(async move {
            for claim in leaving {
                tokio::time::sleep(Duration::from_millis(15)).await;
                let delivered = outcomes(&claim, Disposition::Delivered, claim.ready_since);
                // Refused once the spool is closed.
                let _ = claim.finish(delivered, Vec::new()).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = rig.clock.now();
        match stop {
            true => spool.close().await.unwrap(),
            false => drop(spool.compact().await.unwrap()),
        }
        let took = rig.clock.now().saturating_since(began);
        assert!(took < Duration::from_millis(200), "{stop}: {took:?}");
        leaving.abort();
    }
}
