//! Waiting messages on their way from one machine to another.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use postrider_base::{Disk, OpenMode, Random, SimDisk, Size};
use postrider_mail::{Disposition, MessageId};
use postrider_spool::{
    Error, ExportOptions, Exported, FeedRecord, ImportOptions, Imported, MessageView, Selector, Settings, Spool,
};

use crate::rig::{DIR, HOUR, Rig, defer, deliver, drain, due_now};

const FILE: &str = "/carried/mail";

/// What carries the file.
fn carrier() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/carried")).unwrap();
    disk
}

fn options(disk: &SimDisk) -> ExportOptions {
    ExportOptions {
        disk: Arc::new(disk.clone()),
        path: FILE.into(),
        selector: Selector::All,
        from: "here".into(),
        id: Random::system().uuid_v4(),
        keep: false,
    }
}

async fn export(spool: &Spool, disk: &SimDisk) -> Exported {
    spool.export(options(disk)).await.unwrap()
}

async fn import(spool: &Spool, disk: &SimDisk) -> Result<Imported, Error> {
    spool.import(ImportOptions { disk: Arc::new(disk.clone()), path: FILE.into(), again: false }).await
}

async fn import_again(spool: &Spool, disk: &SimDisk) -> Imported {
    spool.import(ImportOptions { disk: Arc::new(disk.clone()), path: FILE.into(), again: true }).await.unwrap()
}

/// Messages in every state; what operators see of each.
async fn fill(rig: &Rig, spool: &Spool) -> BTreeMap<MessageId, MessageView> {
    let mut ids = vec![rig.accept(spool, &["a@one.example", "b@two.example", "c@one.example"]).await];
    defer(due_now(spool, 1).await.pop().unwrap(), &rig.clock, HOUR).await;
    deliver(due_now(spool, 1).await.pop().unwrap()).await;
    ids.push(rig.accept(spool, &["a@three.example"]).await);
    defer(due_now(spool, 1).await.pop().unwrap(), &rig.clock, 2 * HOUR).await;
    ids.push(rig.accept(spool, &["held@one.example"]).await);
    spool.hold(&Selector::Message(ids[2])).await.unwrap();
    rig.grow_old(spool).await;
    ids.push(rig.accept(spool, &["young@one.example"]).await);
    views(spool, &ids).await
}

async fn views(spool: &Spool, ids: &[MessageId]) -> BTreeMap<MessageId, MessageView> {
    let mut views = BTreeMap::new();
    for id in ids {
        views.insert(*id, spool.show(*id).await.unwrap().unwrap());
    }
    views
}

#[tokio::test(start_paused = true)]
async fn messages_move_with_all_of_their_state() {
    let (here, there, disk) = (Rig::with_sled(), Rig::with_sled(), carrier());
    let spool = here.open().await;
    let mut feed = spool.feed("reader", spool.stat().synced.next());
    let before = fill(&here, &spool).await;
    let ids: Vec<_> = before.keys().copied().collect();
    let exported = export(&spool, &disk).await;
    assert_eq!((exported.messages, exported.moved, exported.ended, exported.damaged), (4, 4, 0, 0));
    assert_eq!(spool.stat().messages, 0);
    let mut moved = 0;
    while moved < 5 {
        for item in feed.next().await.unwrap() {
            if let FeedRecord::Outcomes { outcomes, .. } = item.record {
                let gone = outcomes.iter().filter(|outcome| outcome.disposition == Disposition::Deleted);
                moved += gone.inspect(|outcome| assert!(outcome.diagnostic.contains("file mail"))).count();
            }
        }
    }
    here.disk.crash_dropping_all();
    drop(spool);
    assert_eq!(here.open().await.stat().messages, 0);

    let spool = there.open().await;
    let mut feed = spool.feed("reader", spool.stat().synced.next());
    let imported = import(&spool, &disk).await.unwrap();
    assert_eq!((imported.messages, imported.bytes, imported.skipped), (4, exported.bytes, 0));
    assert_eq!((imported.from.as_str(), imported.held), ("here", false));
    assert_eq!(views(&spool, &ids).await, before);
    let told = feed.next().await.unwrap();
    assert!(told.iter().all(|item| matches!(&item.record, FeedRecord::Imported(record) if ids.contains(&record.id))));
    assert_eq!(told.len(), 4);
    there.disk.crash_dropping_all();
    drop(spool);
    let spool = there.open().await;
    assert_eq!(views(&spool, &ids).await, before);
    spool.release(&Selector::All).await.unwrap();
    assert_eq!(drain(&spool).await.len(), 2);
    tokio::time::sleep(3 * HOUR).await;
    assert_eq!(drain(&spool).await.len(), 2);
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_waits_again_and_twice_is_once() {
    let (rig, disk) = (Rig::with_sled(), carrier());
    let spool = rig.open().await;
    let before = fill(&rig, &spool).await;
    let ids: Vec<_> = before.keys().copied().collect();
    export(&spool, &disk).await;
    import(&spool, &disk).await.unwrap();
    let again = import(&spool, &disk).await.unwrap();
    assert_eq!((again.messages, again.taken_before, again.skipped), (0, 4, 0));
    let again = import_again(&spool, &disk).await;
    assert_eq!((again.messages, again.taken_before, again.skipped), (0, 0, 4));
    assert_eq!(again.skipped_ids.len(), 4);
    rig.disk.crash_dropping_all();
    drop(spool);
    // The log says of each that it has ended, and then that it waits.
    let spool = rig.open().await;
    assert_eq!(views(&spool, &ids).await, before);
    assert_eq!(spool.stat().messages, 4);
}

#[tokio::test(start_paused = true)]
async fn a_long_queue_goes_in_steps_and_a_selection_takes_whole_messages() {
    let (here, there, disk) = (Rig::with_sled(), Rig::new(), carrier());
    let spool = here.open().await;
    for number in 0..300 {
        let to: &[&str] = if number % 3 == 0 { &["a@one.example", "b@two.example"] } else { &["a@two.example"] };
        here.accept(&spool, to).await;
    }
    here.grow_old(&spool).await;
    let selector = Selector::Domain("one.example".parse().unwrap());
    let exported = spool.export(ExportOptions { selector, ..options(&disk) }).await.unwrap();
    assert_eq!((exported.messages, exported.moved), (100, 100));
    assert_eq!(spool.stat().messages, 200);
    let target = there.open().await;
    assert_eq!(import(&target, &disk).await.unwrap().messages, 100);
    assert_eq!(drain(&target).await.len(), 200);

    disk.remove_file(Path::new(FILE)).unwrap();
    assert_eq!(export(&spool, &disk).await.moved, 200);
    assert_eq!(import(&target, &disk).await.unwrap().messages, 200);
    assert_eq!(drain(&target).await.len(), 200);
    assert_eq!(spool.stat().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_leaves_everything_and_arrives_held() {
    let (here, there, disk) = (Rig::with_sled(), Rig::with_sled(), carrier());
    let spool = here.open().await;
    let before = fill(&here, &spool).await;
    let exported = spool.export(ExportOptions { keep: true, ..options(&disk) }).await.unwrap();
    assert_eq!((exported.messages, exported.moved), (4, 0));
    assert_eq!(views(&spool, &before.keys().copied().collect::<Vec<_>>()).await, before);
    let refused = spool.finish_export(Arc::new(disk.clone()), Path::new(FILE)).await;
    assert!(refused.unwrap_err().to_string().contains("it is a copy"));
    let spool = there.open().await;
    assert!(import(&spool, &disk).await.unwrap().held);
    tokio::time::sleep(5 * HOUR).await;
    assert!(due_now(&spool, 9).await.is_empty());
    spool.release(&Selector::All).await.unwrap();
    assert_eq!(drain(&spool).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_selected_no_file_is_left() {
    let (rig, disk) = (Rig::with_sled(), carrier());
    let spool = rig.open().await;
    let nowhere = Selector::Domain("nowhere.example".parse().unwrap());
    for keep in [false, true] {
        let none = spool.export(ExportOptions { keep, ..options(&disk) }).await.unwrap();
        assert_eq!(none, Exported::default());
        fill(&rig, &spool).await;
        let selector = nowhere.clone();
        let none = spool.export(ExportOptions { selector, keep, ..options(&disk) }).await.unwrap();
        assert_eq!(none, Exported::default());
        let id = rig.message(&["a@one.example"]).id;
        let selector = Selector::Message(id);
        let unknown = spool.export(ExportOptions { selector, keep, ..options(&disk) }).await;
        assert!(matches!(unknown, Err(Error::Unknown(unknown)) if unknown == id), "{unknown:?}");
        assert!(!disk.exists(Path::new(FILE)));
        spool.delete(&Selector::All).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_hold_keeps_back_stays_held() {
    let (here, there, disk) = (Rig::with_sled(), Rig::with_sled(), carrier());
    let spool = here.open().await;
    spool.hold(&Selector::Domain("one.example".parse().unwrap())).await.unwrap();
    let held = here.accept(&spool, &["a@one.example"]).await;
    let free = here.accept(&spool, &["a@two.example"]).await;
    export(&spool, &disk).await;
    let spool = there.open().await;
    import(&spool, &disk).await.unwrap();
    assert_eq!(drain(&spool).await, [free]);
    assert!(spool.show(held).await.unwrap().unwrap().held);
}

#[tokio::test(start_paused = true)]
async fn a_file_with_any_damage_is_refused_before_anything_is_taken() {
    let (here, there, disk) = (Rig::new(), Rig::new(), carrier());
    let spool = here.open().await;
    fill(&here, &spool).await;
    export(&spool, &disk).await;
    let spool = there.open().await;
    let file = disk.open(Path::new(FILE), OpenMode::Read).unwrap();
    let length = usize::try_from(file.len().unwrap()).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).unwrap();
    for at in (0..length).step_by(3) {
        let disk = disk.fork();
        disk.damage(Path::new(FILE), at, 1 << (at % 8)).unwrap();
        let error = import(&spool, &disk).await.unwrap_err();
        assert!(matches!(error, Error::File { .. }), "at {at}: {error}");
    }
    for cut in (0..length).step_by(5) {
        let disk = disk.fork();
        disk.open(Path::new(FILE), OpenMode::ReadWrite).unwrap().set_len(cut as u64).unwrap();
        let error = import(&spool, &disk).await.unwrap_err();
        assert!(matches!(error, Error::File { .. }), "cut at {cut}: {error}");
    }
    let longer = disk.fork();
    longer.open(Path::new(FILE), OpenMode::ReadWrite).unwrap().write_all_at(b"x", length as u64).unwrap();
    assert!(import(&spool, &longer).await.unwrap_err().to_string().contains("something follows the end"));
    assert_eq!(spool.stat().messages, 0);
    assert_eq!(import(&spool, &disk).await.unwrap().messages, 4);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bounds_nothing_is_taken_and_a_file_that_is_there_stays() {
    let (here, disk) = (Rig::new(), carrier());
    let spool = here.open().await;
    fill(&here, &spool).await;
    export(&spool, &disk).await;
    let there = Rig { settings: Settings { max_messages: 3, ..here.settings.clone() }, ..Rig::new() };
    let target = there.open().await;
    assert!(matches!(import(&target, &disk).await, Err(Error::Full("max_messages"))));
    assert_eq!(target.stat().messages, 0);

    here.accept(&spool, &["a@one.example"]).await;
    let error = spool.export(options(&disk)).await.unwrap_err();
    assert!(matches!(&error, Error::Io(error) if error.kind() == std::io::ErrorKind::AlreadyExists), "{error}");
    assert_eq!(spool.stat().messages, 1);
    import(&Rig::new().open().await, &disk).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_is_taken_away_and_nothing_has_left() {
    let (rig, disk) = (Rig::with_sled(), carrier());
    let spool = rig.open().await;
    fill(&rig, &spool).await;
    // Start, four messages and the end; the file's sync and its directory's.
    for nth in 1..=8 {
        let faulty = disk.fork();
        match nth {
            1..=6 => faulty.fail_write(nth),
            _ => faulty.fail_sync(nth - 6),
        }
        let error = spool.export(options(&faulty)).await.unwrap_err();
        assert!(matches!(error, Error::Io(_)), "{error}");
        assert!(!faulty.exists(Path::new(FILE)), "step {nth}");
        assert_eq!(spool.stat().messages, 4);
    }
    assert_eq!(export(&spool, &disk).await.moved, 4);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_move_leaves_no_message_in_neither_place_and_goes_on() {
    let (rig, disk) = (Rig::with_sled(), carrier());
    let spool = rig.open().await;
    for _ in 0..300 {
        rig.accept(&spool, &["a@one.example"]).await;
    }
    rig.grow_old(&spool).await;
    // The second step of outcomes does not reach the disk any more.
    rig.disk.fail_write(2);
    let error = spool.export(options(&disk)).await.unwrap_err();
    assert!(matches!(error, Error::Poisoned), "{error}");
    rig.disk.crash_dropping_all();
    drop(spool);
    let spool = rig.open().await;
    let left = spool.stat().messages;
    assert!((1..300).contains(&left), "{left}");
    let target = Rig::new().open().await;
    assert_eq!(import(&target, &disk).await.unwrap().messages, 300);
    let finished = spool.finish_export(Arc::new(disk.clone()), Path::new(FILE)).await.unwrap();
    assert_eq!((finished.moved, finished.ended), (left, 300 - left));
    assert_eq!(spool.stat().messages, 0);
}

/// Other mail comes and goes until nothing of before is in the log.
async fn let_the_log_move_on(rig: &Rig, spool: &Spool) {
    let first = rig.disk.read_dir(Path::new(DIR)).unwrap();
    let first = first.iter().rfind(|path| path.to_str().unwrap().contains("/segment-")).unwrap();
    while rig.disk.exists(first) {
        rig.accept(spool, &["a@churn.example"]).await;
        drain(spool).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_file_brought_and_was_delivered_it_does_not_bring_again() {
    let (here, mut there, disk) = (Rig::new(), Rig::with_sled(), carrier());
    there.settings.segment_bytes = Size::from_kib(16);
    let spool = here.open().await;
    for _ in 0..20 {
        here.accept(&spool, &["a@one.example", "b@two.example"]).await;
    }
    export(&spool, &disk).await;
    let mut spool = there.open().await;
    assert_eq!(import(&spool, &disk).await.unwrap().messages, 20);
    assert_eq!(drain(&spool).await.len(), 40);
    for round in 0..3 {
        let again = import(&spool, &disk).await.unwrap();
        assert_eq!((again.messages, again.taken_before, again.skipped), (0, 20, 0), "round {round}");
        assert_eq!((spool.stat().messages, again.bytes), (0, 0));
        match round {
            0 => let_the_log_move_on(&there, &spool).await,
            _ => {
                there.disk.crash_dropping_all();
                drop(spool);
                spool = there.open().await;
            }
        }
    }
    // Who insists is served, once.
    assert_eq!(import_again(&spool, &disk).await.messages, 20);
    assert_eq!(drain(&spool).await.len(), 40);
    assert_eq!(import(&spool, &disk).await.unwrap().taken_before, 20);
}

#[tokio::test(start_paused = true)]
async fn mail_moves_there_and_back_and_there_again() {
    let (here, there) = (Rig::with_sled(), Rig::with_sled());
    let spools = [here.open().await, there.open().await];
    let before = fill(&here, &spools[0]).await;
    let ids: Vec<_> = before.keys().copied().collect();
    let mut former: Option<SimDisk> = None;
    for turn in 0..4 {
        let (from, to) = (&spools[turn % 2], &spools[(turn + 1) % 2]);
        let disk = carrier();
        assert_eq!(export(from, &disk).await.moved, 4);
        assert_eq!(import(to, &disk).await.unwrap().messages, 4);
        assert_eq!(views(to, &ids).await, before);
        // What came to the machine that it has left since stays away.
        if let Some(former) = former.replace(disk) {
            assert_eq!(import(from, &former).await.unwrap().taken_before, 4);
            assert_eq!(from.stat().messages, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_import_that_is_broken_off_goes_on_and_delivers_once() {
    let (here, disk) = (Rig::new(), carrier());
    let spool = here.open().await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(here.accept(&spool, &["a@one.example"]).await);
    }
    ids.sort_unstable();
    export(&spool, &disk).await;
    let mut in_between = 0;
    for nth in 1..=12 {
        for seed in 0..3 {
            let there = Rig::new();
            let spool = there.open().await;
            match nth % 2 {
                0 => there.disk.fail_write(nth),
                _ => there.disk.fail_sync(nth),
            }
            let broken_off = import(&spool, &disk).await;
            assert!(matches!(broken_off, Err(Error::Poisoned | Error::Io(_))) || broken_off.is_ok());
            there.disk.crash(seed);
            drop(spool);
            let spool = there.open().await;
            // What is there is delivered before somebody tries again.
            let mut delivered = drain(&spool).await;
            let first = delivered.len() as u64;
            in_between += u64::from((1..40).contains(&first));
            let rest = import(&spool, &disk).await.unwrap();
            assert_eq!((rest.taken_before, rest.messages, rest.skipped), (first, 40 - first, 0), "{nth} {seed}");
            delivered.extend(drain(&spool).await);
            delivered.sort_unstable();
            assert_eq!(delivered, ids, "{nth} {seed}");
        }
    }
    assert!(in_between > 5, "{in_between} imports were broken off in the middle");
}

#[tokio::test(start_paused = true)]
async fn to_take_again_goes_on_where_it_was_broken_off() {
    let (here, mut there, disk) = (Rig::new(), Rig::with_sled(), carrier());
    there.settings.segment_bytes = Size::from_kib(16);
    let spool = here.open().await;
    for _ in 0..40 {
        here.accept(&spool, &["a@one.example"]).await;
    }
    export(&spool, &disk).await;
    let spool = there.open().await;
    import(&spool, &disk).await.unwrap();
    assert_eq!(drain(&spool).await.len(), 40);
    let some = async {
        while spool.stat().young + spool.stat().queues == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = some => {}
        _ = import_again(&spool, &disk) => panic!("not broken off"),
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let rest = import(&spool, &disk).await.unwrap();
    assert!(rest.taken_before > 0 && rest.messages > 0, "{rest:?}");
    assert_eq!((rest.taken_before + rest.messages, rest.skipped), (40, 0));
    assert_eq!(drain(&spool).await.len(), 40);
}
