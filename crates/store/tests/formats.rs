//! Stores that earlier versions wrote are read as they were meant.
//!
//! `tests/formats/v<version>` has the log of a store as a process left it
//! that was killed. When the format of records changes,
//! `write_a_store_for_later` adds a directory; the old ones stay for ever, and
//! so does the test that reads them.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_base::{Disk, OpenMode, Random, SimDisk};
use postrider_store::{Batch, Change, Error, Options, Store, Table};
use postrider_wal::{Durability, Entry, Log};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// The version that is written now.
const CURRENT: u32 = 1;
const DIR: &str = "/store";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Value {
    name: String,
    number: u64,
    list: Vec<Option<u16>>,
}

fn files(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/v{version}"))
}

fn options(view: &TempDir) -> Options {
    let defaults = Options::default();
    let log = postrider_wal::Options { segment_bytes: 16 << 10, random: Random::seeded(1), ..defaults.log };
    Options { index_dir: Some(view.path().join("index")), log }
}

fn open(disk: &SimDisk, view: &TempDir) -> Result<Store, Error> {
    Store::open_with(Arc::new(disk.clone()), Path::new(DIR), options(view))
}

fn numbers(store: &Store) -> Table<u64, Value> {
    store.table("numbers")
}

fn names(store: &Store) -> Table<String, u8> {
    store.table("names")
}

fn value(number: u64) -> Value {
    let list = (0..number % 5).map(|n| (n != 1).then_some(u16::try_from(number * n).unwrap()));
    Value { name: "x".repeat(usize::try_from(number % 7).unwrap() * 100), number, list: list.collect() }
}

/// Rows written, written again and removed, in one table and in two at once.
async fn fill(store: &Store) {
    let (numbers, names) = (numbers(store), names(store));
    for number in 0..40 {
        numbers.put(&number, &value(number + 1)).await.unwrap();
    }
    let changes = (0..40).map(|number| match number % 4 {
        0 => Change::Delete(number),
        _ => Change::Put(number, value(number)),
    });
    numbers.write(changes.collect()).await.unwrap();
    let mut batch = Batch::new();
    batch.put(&names, &"one".into(), &1).unwrap();
    batch.put(&names, &String::new(), &0).unwrap();
    batch.put(&numbers, &u64::MAX, &value(8)).unwrap();
    batch.delete(&numbers, &7).unwrap();
    store.write(batch).await.unwrap();
    assert!(names.delete(&String::new()).await.unwrap());
}

fn assert_filled(store: &Store, version: u32) {
    let mut expected: Vec<_> = (0..40).filter(|n| n % 4 != 0 && *n != 7).map(|n| (n, value(n))).collect();
    expected.push((u64::MAX, value(8)));
    let rows: Vec<_> = numbers(store).scan().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows, expected, "version {version}");
    let rows: Vec<_> = names(store).scan().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows, [("one".to_owned(), 1)], "version {version}");
}

fn load(version: u32) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    for file in fs::read_dir(files(version)).unwrap() {
        let path = file.unwrap().path();
        let copy = disk.open(&Path::new(DIR).join(path.file_name().unwrap()), OpenMode::CreateNew).unwrap();
        copy.write_all_at(&fs::read(path).unwrap(), 0).unwrap();
        copy.sync_all().unwrap();
    }
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk
}

#[tokio::test]
async fn stores_of_every_version_are_read() {
    for version in 1..=CURRENT {
        let (disk, view) = (load(version), TempDir::new().unwrap());
        let store = open(&disk, &view).unwrap();
        assert_filled(&store, version);
        numbers(&store).put(&1000, &value(3)).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let store = open(&disk, &view).unwrap();
        assert!(numbers(&store).delete(&1000).await.unwrap());
        assert_filled(&store, version);
    }
}

#[tokio::test]
async fn a_record_of_a_later_version_is_refused_and_named() {
    let (disk, view) = (load(CURRENT), TempDir::new().unwrap());
    let later = u8::try_from(CURRENT + 1).unwrap();
    let log_options = options(&view).log;
    let (log, _) = Log::open(Arc::new(disk.clone()), Path::new(DIR), log_options, &mut drop).unwrap();
    let record = Entry { kind: 1, head: vec![].into(), body: vec![vec![later, 1, 2, 3].into()] };
    let committed = log.commit(vec![record], Durability::Synced).await.unwrap();
    log.close().await.unwrap();
    let error = open(&disk, &view).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
    let segment = committed.locations[0].segment;
    let said = format!("segment {segment} has a record of version {later}, known is {CURRENT}");
    assert!(error.to_string().contains(&said), "{error}");
}

/// `cargo test -p postrider-store --test formats -- --ignored`
#[tokio::test]
#[ignore = "writes the files that the other tests read, once for each version"]
async fn write_a_store_for_later() {
    let to = files(CURRENT);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::create_dir(&to).expect("the files of a version are never written again");
    let (disk, view) = (SimDisk::new(), TempDir::new().unwrap());
    let store = open(&disk, &view).unwrap();
    fill(&store).await;
    disk.halt();
    drop(store);
    let left = disk.fork();
    for path in left.read_dir(Path::new(DIR)).unwrap() {
        let file = left.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        // Files that were only made ahead are not worth keeping.
        if bytes[4096..].iter().any(|byte| *byte != 0) {
            fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
}
