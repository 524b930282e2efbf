use std::fs;
use std::path::{Path, PathBuf};

use postrider_spool::{IndexKind, Spool};

use crate::rig::{HOUR, Rig, defer, drain};

/// A spool with 40 messages in the index, half of them deferred; closed.
async fn filled(rig: &Rig) {
    let spool = rig.open().await;
    fill(rig, &spool).await;
    spool.close().await.unwrap();
}

async fn fill(rig: &Rig, spool: &Spool) {
    for number in 0..40 {
        rig.accept(spool, &["a@one.example", "b@two.example"]).await;
        if number % 2 == 0 {
            for claim in spool.take_due(2).await {
                defer(claim, &rig.clock, HOUR).await;
            }
        }
    }
    rig.grow_old(spool).await;
}

async fn assert_all_there(rig: &Rig) {
    let spool = rig.open().await;
    assert_eq!(spool.report().unwrap().messages, 40);
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(drain(&spool).await.len(), 80);
    assert_eq!(spool.stat().messages, 0);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_deleted_index_is_made_anew() {
    let rig = Rig::with_sled();
    filled(&rig).await;
    fs::remove_dir_all(rig.index_dir().unwrap()).unwrap();
    assert_all_there(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_index_is_made_anew() {
    for step in [1, 7, 61, 509] {
        let rig = Rig::with_sled();
        filled(&rig).await;
        for path in files(&rig.index_dir().unwrap()) {
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().skip(step).step_by(step).for_each(|byte| *byte ^= 0x5a);
            fs::write(&path, bytes).unwrap();
        }
        assert_all_there(&rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_truncated_index_is_made_anew() {
    let rig = Rig::with_sled();
    filled(&rig).await;
    for path in files(&rig.index_dir().unwrap()) {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_all_there(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn an_index_of_another_time_is_corrected() {
    let rig = Rig::with_sled();
    let spool = rig.open().await;
    fill(&rig, &spool).await;
    spool.close().await.unwrap();
    drop(spool);
    // A copy from before everything was delivered comes back.
    let copy = tempfile::TempDir::new().unwrap();
    let dir = rig.index_dir().unwrap();
    for path in files(&dir) {
        let to = copy.path().join(path.strip_prefix(&dir).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, to).unwrap();
    }
    let spool = rig.open().await;
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(drain(&spool).await.len(), 80);
    let fresh = rig.accept(&spool, &["a@one.example"]).await;
    drop(spool);
    let rig = Rig { index: Some(copy), ..rig };
    let spool = rig.open().await;
    assert!(spool.report().unwrap().index_repairs > 0);
    assert_eq!(drain(&spool).await, [fresh]);
}

#[tokio::test(start_paused = true)]
async fn without_a_place_for_sled_the_index_stays_in_memory() {
    let rig = Rig::with_sled();
    let dir = rig.index_dir().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    fs::write(&dir, "not a directory").unwrap();
    let spool = rig.open().await;
    assert_eq!(spool.stat().index, IndexKind::Memory);
    assert!(spool.report().unwrap().index_rebuilt.is_some());
    fill(&rig, &spool).await;
    drop(spool);
    assert_all_there(&rig).await;
    fs::remove_file(&dir).unwrap();
}
