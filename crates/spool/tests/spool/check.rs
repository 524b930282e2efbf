//! Verifying a spool that is closed.

use std::path::{Path, PathBuf};

use postrider_base::{Disk, OpenMode};
use postrider_mail::MessageId;
use postrider_spool::{Check, IndexCheck, Selector, check};

use crate::rig::{DIR, HOUR, Rig, defer, deliver};

fn checked(rig: &Rig) -> Check {
    let before = rig.disk.stats();
    let found = check(&rig.disk, Path::new(DIR), rig.index_dir().as_deref()).unwrap();
    let after = rig.disk.stats();
    assert_eq!((after.writes, after.syncs), (before.writes, before.syncs), "something was written");
    found
}

/// Two messages that wait, one of them deferred, and one that is delivered.
async fn closed(rig: &Rig) -> [MessageId; 2] {
    let spool = rig.open().await;
    let deferred = rig.accept(&spool, &["a@one.example"]).await;
    defer(spool.take_due(1).await.pop().unwrap(), &rig.clock, HOUR).await;
    rig.accept(&spool, &["a@two.example"]).await;
    deliver(spool.take_due(1).await.pop().unwrap()).await;
    let waiting = rig.accept(&spool, &["a@three.example"]).await;
    rig.grow_old(&spool).await;
    spool.close().await.unwrap();
    [deferred, waiting]
}

/// Where a message's content is in the segments of a directory.
fn place_of(rig: &Rig, dir: &Path, id: MessageId) -> Option<(PathBuf, usize)> {
    let subject = format!("Subject: {id}");
    for path in rig.disk.read_dir(dir).unwrap() {
        let Ok(file) = rig.disk.open(&path, OpenMode::Read) else { continue };
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        if let Some(at) = bytes.windows(subject.len()).position(|window| window == subject.as_bytes()) {
            return Some((path, at));
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_was_closed_in_order_is_sound_and_its_index_agrees() {
    let rig = Rig::with_sled();
    closed(&rig).await;
    let found = checked(&rig);
    assert!(found.is_sound() && found.clean_stop, "{found:?}");
    let cold = found.cold.map(|cold| cold.segments);
    assert_eq!((found.messages, found.index, cold), (2, IndexCheck::Agrees, Some(0)));
    assert_eq!((found.log.fault_count, found.quarantine.files), (0, 0));
    assert!(found.log.segments > 0 && found.log.batches > 0);
    assert_eq!(checked(&Rig::new()).messages, 0);
}

#[tokio::test(start_paused = true)]
async fn an_index_that_is_behind_is_told_and_is_no_damage() {
    let rig = Rig::with_sled();
    let [deferred, _] = closed(&rig).await;
    let spool = rig.open().await;
    let young = rig.accept(&spool, &["a@four.example"]).await;
    spool.close().await.unwrap();
    drop(spool);
    let found = checked(&rig);
    assert!(found.is_sound());
    let IndexCheck::Behind(behind) = found.index else { panic!("{:?}", found.index) };
    assert_eq!((behind.missing, behind.missing_places, behind.stale, behind.ended), (1, 1, 0, 0));
    assert_eq!(behind.examples, [young]);

    // The index of a while ago: what has ended since is still in it.
    rig.open().await.close().await.unwrap();
    let index = rig.index_dir().unwrap();
    copy(&index, &index.with_extension("old"));
    let spool = rig.open().await;
    tokio::time::sleep(HOUR).await;
    let claims = spool.take_due(9).await;
    assert_eq!(claims.len(), 3);
    for claim in claims {
        match claim.id == deferred {
            true => defer(claim, &rig.clock, HOUR).await,
            false => deliver(claim).await,
        }
    }
    spool.close().await.unwrap();
    drop(spool);
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::rename(index.with_extension("old"), &index).unwrap();
    let IndexCheck::Behind(behind) = checked(&rig).index else { panic!("it agrees") };
    assert_eq!((behind.missing, behind.stale, behind.ended), (0, 1, 2));
    assert_eq!((behind.missing_places, behind.wrong_places), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_read_back_is_named() {
    let rig = Rig::with_sled();
    let [deferred, waiting] = closed(&rig).await;
    let (path, at) = place_of(&rig, Path::new(DIR), waiting).unwrap();
    rig.disk.damage(&path, at, 1).unwrap();
    let found = checked(&rig);
    assert!(!found.is_sound());
    assert_eq!((&found.damaged[..], found.damaged_count), (&[waiting][..], 1));
    assert_eq!((found.log.fault_count, found.log.faults[0].part.as_str()), (1, "body"));
    rig.disk.damage(&path, at, 1).unwrap();
    assert!(checked(&rig).is_sound());
    // The record in front of the content, too.
    let (path, at) = place_of(&rig, Path::new(DIR), deferred).unwrap();
    rig.disk.damage(&path, at - 20, 1).unwrap();
    assert_eq!(checked(&rig).damaged, [deferred]);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_wait_in_the_cold_log_are_verified_too() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    let (mut waiting, mut ending) = (Vec::new(), Vec::new());
    for round in 0..400 {
        let id = rig.accept(&spool, &["a@one.example"]).await;
        let claim = spool.take_due(1).await.pop().unwrap();
        match round % 10 {
            0 => waiting.push(id),
            1 => ending.push(id),
            _ => {
                deliver(claim).await;
                continue;
            }
        }
        defer(claim, &rig.clock, HOUR).await;
    }
    rig.grow_old(&spool).await;
    spool.compact().await.unwrap();
    // What ends there leaves holes.
    for id in ending {
        spool.delete(&Selector::Message(id)).await.unwrap();
    }
    spool.compact().await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    let found = checked(&rig);
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.messages, found.index), (40, IndexCheck::Agrees));
    assert!(found.cold.unwrap().batches > 0);

    let cold = Path::new(DIR).join("cold");
    let moved = waiting.iter().find_map(|id| Some((*id, place_of(&rig, &cold, *id)?)));
    let (id, (path, at)) = moved.unwrap();
    rig.disk.damage(&path, at, 1).unwrap();
    let found = checked(&rig);
    assert_eq!((found.is_sound(), &found.damaged[..], found.log.fault_count), (false, &[id][..], 0));
    assert_eq!(found.cold.unwrap().faults[0].part, "body");
    // A hole where a message waits.
    let file = rig.disk.open(&path, OpenMode::ReadWrite).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap() - 4096];
    file.read_exact_at(&mut bytes, 4096).unwrap();
    bytes.fill(0);
    file.write_all_at(&bytes[..bytes.len() / 2], 4096).unwrap();
    assert!(checked(&rig).damaged.contains(&id));
}

#[tokio::test(start_paused = true)]
async fn an_index_that_does_not_read_is_damage_and_none_is_not() {
    let rig = Rig::with_sled();
    closed(&rig).await;
    let index = rig.index_dir().unwrap();
    for entry in std::fs::read_dir(index.join("0")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, "not a database").unwrap();
        }
    }
    let found = checked(&rig);
    assert!(matches!(found.index, IndexCheck::Broken { .. }), "{:?}", found.index);
    assert!(!found.is_sound());
    std::fs::remove_dir_all(index.join("0")).unwrap();
    let found = checked(&rig);
    assert_eq!((found.is_sound(), found.index), (true, IndexCheck::Absent));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}
