//! Copies written, read back, and damaged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use postrider_base::{Disk, OpenMode, RealDisk, SimDisk};
use postrider_store::{Options, Store, Table};

use super::manifest::Sum;
use super::*;
use crate::Error;

fn whole() -> BackupItem {
    BackupItem::Whole(Manifest {
        format: FORMAT,
        version: "1.2.3".to_owned(),
        node: "0100".to_owned(),
        instance: "abc".to_owned(),
        made_at: "2026-01-31T12:00:00.000Z".to_owned(),
        files: Vec::new(),
    })
}

fn items(name: &str, data: &[u8]) -> Vec<BackupItem> {
    let mut sum = Sum::new();
    sum.update(data);
    let begin = BackupItem::File { name: name.to_owned() };
    let pieces = data.chunks(1_000).map(|piece| BackupItem::Data(STANDARD.encode(piece)));
    [begin].into_iter().chain(pieces).chain([BackupItem::End(sum.of(name))]).collect()
}

/// A copy of two files, and of a store with a row.
async fn write(disk: Arc<dyn Disk>, path: &Path) -> Result<Manifest, Error> {
    let place = tempfile::tempdir().unwrap();
    let options = Options { index_dir: Some(place.path().join("index")), ..Options::default() };
    let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/s"), options).unwrap();
    let table: Table<u64, String> = store.table("words");
    table.put(&7, &"seven".to_owned()).await.unwrap();
    let checkpoint = store.checkpoint().await.unwrap();
    let records: Vec<_> = checkpoint.records().map(Result::unwrap).collect();
    let framed = records.iter().flat_map(|record| rows::framed(record));
    let tables: Vec<u8> = rows::MARK.iter().copied().chain(framed).chain(rows::end(records.len() as u64)).collect();

    let mut writer = ArchiveWriter::create(disk, path)?;
    let files = [items(STORE, &tables), items("keys/mac.key", &[7; 32]), items("audit/audit.jsonl", &[b'x'; 3_000])];
    for item in files.into_iter().flatten() {
        assert_eq!(writer.take(item)?, None);
    }
    Ok(writer.take(whole())?.unwrap())
}

fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

#[tokio::test]
async fn both_forms_come_back_whole() {
    for name in ["copy", "copy.tar"] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(name);
        let manifest = write(real(), &path).await.unwrap();
        let archive = Archive::open(&RealDisk, &path).unwrap();
        assert_eq!(*archive.manifest(), manifest);
        archive.verify().unwrap();
        let state = place.path().join("state");
        RealDisk.create_dir_all(&state).unwrap();
        assert_eq!(restore(real(), &archive, &state).await.unwrap(), Restored { records: 1, files: 2 });
        assert_eq!(std::fs::read(state.join("keys/mac.key")).unwrap(), [7; 32]);
        let store = Store::open(real(), &state.join("store")).unwrap();
        let table: Table<u64, String> = store.table("words");
        assert_eq!(table.get(&7).unwrap().as_deref(), Some("seven"));
        assert!(!place.path().join(format!("{name}.partial")).exists());
    }
}

#[tokio::test]
async fn tar_reads_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("copy.tar");
    write(real(), &path).await.unwrap();
    let Ok(listed) = std::process::Command::new("tar").arg("tvf").arg(&path).output() else { return };
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("keys/mac.key") && listed.contains(Manifest::NAME), "{listed}");
}

#[tokio::test]
async fn damage_is_named() {
    for name in ["copy", "copy.tar"] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(name);
        write(real(), &path).await.unwrap();
        let file = if name == "copy" { path.join("keys/mac.key") } else { path.clone() };
        let bytes = std::fs::read(&file).unwrap();
        let at = bytes.windows(32).position(|window| window == [7; 32]).unwrap();
        RealDisk.open(&file, OpenMode::ReadWrite).unwrap().write_all_at(b"x", at as u64).unwrap();
        let archive = Archive::open(&RealDisk, &path).unwrap();
        let error = archive.verify().unwrap_err().to_string();
        assert!(error.contains("keys/mac.key is damaged"), "{error}");
        let state = place.path().join("state");
        RealDisk.create_dir_all(&state).unwrap();
        assert!(restore(real(), &archive, &state).await.is_err());
        assert!(RealDisk.read_dir(&state).unwrap().is_empty(), "nothing is written of a damaged copy");
    }
}

#[tokio::test]
async fn what_is_no_whole_copy_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let refusal = |path: PathBuf| Archive::open(&RealDisk, &path).unwrap_err().to_string();
    assert!(refusal(place.path().join("nothing")).contains("there is no"));
    assert!(refusal(place.path().to_owned()).contains("no backup, or not a whole one"));
    let text = place.path().join("text.tar");
    std::fs::write(&text, "hello").unwrap();
    assert!(Archive::open(&RealDisk, &text).is_err());
    let cut = place.path().join("cut.tar");
    write(real(), &cut).await.unwrap();
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(Archive::open(&RealDisk, &cut).is_err());
}

#[tokio::test]
async fn nothing_is_written_over_and_nothing_outside() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("copy.tar");
    write(real(), &path).await.unwrap();
    let error = write(real(), &path).await.unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    let mut writer = ArchiveWriter::create(real(), &place.path().join("other")).unwrap();
    for name in ["../escape", "/etc/passwd", "a//b", ".hidden", ""] {
        assert!(writer.take(BackupItem::File { name: name.to_owned() }).is_err(), "{name}");
    }
    let mut wrong = items("keys/a", b"abc");
    wrong[1] = BackupItem::Data(STANDARD.encode(b"abd"));
    let refused = wrong.into_iter().map(|item| writer.take(item)).find(Result::is_err);
    assert!(matches!(refused, Some(Err(Error::Protocol(_)))));
}

#[tokio::test]
async fn a_copy_that_is_not_finished_leaves_no_file() {
    for name in ["copy", "copy.tar"] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(name);
        let mut writer = ArchiveWriter::create(real(), &path).unwrap();
        for item in items("keys/mac.key", &[7; 32]) {
            writer.take(item).unwrap();
        }
        let partial = place.path().join(format!("{name}.partial"));
        let file = if name == "copy" { partial.join("keys/mac.key") } else { partial.clone() };
        assert!(file.exists());
        assert!(ArchiveWriter::create(real(), &path).is_err(), "somebody else makes it");
        assert!(file.exists(), "and their file stays");
        drop(writer);
        assert!(!file.exists());
        write(real(), &path).await.unwrap();
        assert!(!partial.exists() && path.exists());
    }
}
