//! Tests of the whole store: log on a simulated disk, view in a real directory.

mod checkpoint;
mod crash;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_base::{RealDisk, SimDisk};
use postrider_wal::{Durability, Entry, Log};
use serde::{Deserialize, Serialize};

use crate::{Batch, Change, Error, Options, Store, Table};

/// A disk and a directory that outlive a store.
struct World {
    disk: SimDisk,
    index: tempfile::TempDir,
    segment_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Person {
    name: String,
    age: u32,
    tags: Vec<(String, bool)>,
}

fn person(age: u32) -> Person {
    Person { name: format!("person {age}"), age, tags: vec![("tag".into(), age.is_multiple_of(2))] }
}

fn dir() -> &'static Path {
    Path::new("/state/store")
}

impl World {
    fn new() -> Self {
        Self { disk: SimDisk::new(), index: tempfile::tempdir().unwrap(), segment_bytes: 64 << 10 }
    }

    fn options(&self) -> Options {
        let defaults = Options::default();
        let log = postrider_wal::Options { segment_bytes: self.segment_bytes, ..defaults.log };
        Options { index_dir: Some(self.index.path().join("index")), log }
    }

    fn try_open(&self) -> Result<Store, Error> {
        Store::open_with(Arc::new(self.disk.clone()), dir(), self.options())
    }

    fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    fn index_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut dirs = vec![self.index.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { dirs.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

fn numbers(store: &Store) -> Table<u64, Person> {
    store.table("numbers")
}

fn rows(store: &Store) -> Vec<(u64, Person)> {
    numbers(store).scan().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn rows_round_trip() {
    let world = World::new();
    let store = world.open();
    assert!(!store.report().rebuilt);
    let table = numbers(&store);
    assert!(table.is_empty().unwrap());
    for age in [5, 1, 300, 2] {
        table.put(&u64::from(age), &person(age)).await.unwrap();
    }
    table.put(&1, &person(99)).await.unwrap();
    assert_eq!(table.get(&1).unwrap(), Some(person(99)));
    assert_eq!(table.get(&7).unwrap(), None);
    assert!(table.delete(&2).await.unwrap());
    assert!(!table.delete(&2).await.unwrap());
    assert_eq!(table.len().unwrap(), 3);
    assert_eq!(rows(&store), [(1, person(99)), (5, person(5)), (300, person(300))]);
    let from: Vec<u64> = table.scan_from(&2).map(|row| row.unwrap().0).collect();
    assert_eq!(from, [5, 300]);
    let names: Table<String, ()> = store.table("number");
    names.put(&"not a number".into(), &()).await.unwrap();
    assert_eq!((table.len().unwrap(), names.len().unwrap()), (3, 1));
}

#[tokio::test]
async fn a_batch_spans_tables() {
    let world = World::new();
    let store = world.open();
    let (a, b): (Table<u64, u8>, Table<[u8; 2], String>) = (store.table("a"), store.table("b"));
    a.put(&1, &1).await.unwrap();
    let mut batch = Batch::new();
    batch.put(&a, &2, &20).unwrap();
    batch.delete(&a, &1).unwrap();
    batch.put(&b, &[1, 2], &"x".into()).unwrap();
    batch.put(&b, &[1, 2], &"the later one".into()).unwrap();
    store.write(batch).await.unwrap();
    store.write(Batch::new()).await.unwrap();
    world.disk.crash_dropping_all();
    let store = world.open();
    let (a, b): (Table<u64, u8>, Table<[u8; 2], String>) = (store.table("a"), store.table("b"));
    assert_eq!((a.get(&1).unwrap(), a.get(&2).unwrap()), (None, Some(20)));
    assert_eq!(b.get(&[1, 2]).unwrap().unwrap(), "the later one");
}

#[tokio::test]
async fn an_orderly_close_keeps_the_view() {
    let world = World::new();
    for round in 0..3 {
        let store = world.open();
        assert!(!store.report().rebuilt, "round {round}");
        assert_eq!(rows(&store).len(), round);
        let key = round as u64;
        numbers(&store).put(&key, &person(1)).await.unwrap();
        store.close().await.unwrap();
        assert!(matches!(numbers(&store).get(&key), Err(Error::Log(_))));
        assert!(numbers(&store).put(&key, &person(1)).await.is_err());
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_view_that_sled_lets_go_of_late_is_waited_for() {
    let world = World::new();
    world.open().close().await.unwrap();
    let held = sled::open(world.index.path().join("index")).unwrap();
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(held);
    });
    assert!(!world.open().report().rebuilt);
    letting_go.join().unwrap();
}

#[tokio::test]
async fn a_deleted_view_is_rebuilt() {
    let world = World::new();
    let store = world.open();
    for key in 0..20 {
        numbers(&store).put(&key, &person(7)).await.unwrap();
    }
    numbers(&store).delete(&3).await.unwrap();
    let before = rows(&store);
    store.close().await.unwrap();
    std::fs::remove_dir_all(world.index.path().join("index")).unwrap();
    let store = world.open();
    assert!(store.report().rebuilt);
    assert_eq!(rows(&store), before);
    // So is one of another state of the store, and one of a crash.
    let other = World::new();
    let copy = World { index: other.index, disk: world.disk.fork(), ..world };
    drop(store);
    let store = copy.open();
    assert!(store.report().rebuilt);
    assert_eq!(rows(&store), before);
}

#[tokio::test]
async fn flipped_bytes_in_the_view_are_found() {
    let world = World::new();
    let store = world.open();
    for key in 0..50 {
        numbers(&store).put(&key, &person(9)).await.unwrap();
    }
    let before = rows(&store);
    store.close().await.unwrap();
    let files = world.index_files();
    let good: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut rebuilt = 0;
    for (path, bytes) in files.iter().zip(&good) {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in (0..used).step_by(1 + used / 8) {
            let copy = World { disk: world.disk.fork(), ..World::new() };
            for (path, bytes) in files.iter().zip(&good) {
                let to = copy.index.path().join(path.strip_prefix(world.index.path()).unwrap());
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::write(to, bytes).unwrap();
            }
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            let to = copy.index.path().join(path.strip_prefix(world.index.path()).unwrap());
            std::fs::write(to, bytes).unwrap();
            let store = copy.open();
            rebuilt += usize::from(store.report().rebuilt);
            assert_eq!(rows(&store), before, "{} at {at}", path.display());
            store.close().await.unwrap();
        }
    }
    assert!(rebuilt > 0, "no flip hit anything");
}

#[tokio::test]
async fn a_damaged_record_costs_its_rows_only() {
    let world = World::new();
    let store = world.open();
    for key in 0..3 {
        numbers(&store).put(&key, &person(1)).await.unwrap();
    }
    store.close().await.unwrap();
    let path = dir().join("segment-0000000001.log");
    // The first record's body: after segment header, batch header and table.
    world.disk.damage(&path, 4096 + 56 + 13 + 5, 1).unwrap();
    let store = world.open();
    assert_eq!(store.report().log.damage.len(), 1);
    assert_eq!(rows(&store).len(), 3, "the view had it still");
    store.close().await.unwrap();
    std::fs::remove_dir_all(world.index.path().join("index")).unwrap();
    let store = world.open();
    assert_eq!(store.report().lost, 1);
    assert_eq!(rows(&store).len(), 2);
}

#[tokio::test]
async fn space_stays_bounded() {
    let world = World { segment_bytes: 16 << 10, ..World::new() };
    let store = world.open();
    let mut model = BTreeMap::new();
    let mut largest = 0;
    for round in 0..1500u32 {
        let key = u64::from(round * 7 % 40);
        if round % 5 == 0 {
            numbers(&store).delete(&key).await.unwrap();
            model.remove(&key);
        } else {
            let value = Person { name: "x".repeat(200), ..person(round) };
            numbers(&store).put(&key, &value).await.unwrap();
            model.insert(key, value);
        }
        largest = largest.max(store.usage().bytes);
    }
    // 40 rows of about 250 bytes.
    assert!(largest <= 2 * 10_000 + 5 * (16 << 10), "{largest} bytes at most");
    assert!(store.usage().bytes_written > 300_000);
    let expected: Vec<_> = model.into_iter().collect();
    assert_eq!(rows(&store), expected);
    world.disk.crash_dropping_all();
    let store = world.open();
    assert!(store.report().rebuilt);
    assert_eq!(rows(&store), expected);
}

#[tokio::test]
async fn many_restarts_do_not_pile_up_segments() {
    let world = World { segment_bytes: 16 << 10, ..World::new() };
    for round in 0..100 {
        let store = world.open();
        numbers(&store).put(&(round % 3), &person(1)).await.unwrap();
        assert!(store.usage().segments <= 66);
        store.close().await.unwrap();
    }
    assert_eq!(rows(&world.open()).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_agrees_with_the_log_on_who_was_last() {
    let world = World::new();
    let store = world.open();
    let writers: Vec<_> = (0..20u32)
        .map(|writer| {
            let table = numbers(&store);
            tokio::spawn(async move {
                for at in 0..10 {
                    let key = u64::from(at % 3);
                    table.put(&key, &person(writer * 100 + at)).await.unwrap();
                    assert!(table.get(&key).unwrap().is_some());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let before = rows(&store);
    assert!(store.usage().groups < 200, "no group was shared");
    drop(store);
    world.disk.crash_dropping_all();
    assert_eq!(rows(&world.open()), before);
}

#[tokio::test]
async fn a_large_import_takes_little_time() {
    let index = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(RealDisk), index.path()).unwrap();
    let table: Table<String, u64> = store.table("addresses");
    let all: Vec<u64> = (0..20_000).collect();
    for chunk in all.chunks(2000) {
        let put = |at: &u64| Change::Put(format!("address-{at:08}@example.com"), *at);
        table.write(chunk.iter().map(put).collect()).await.unwrap();
    }
    assert_eq!(table.len().unwrap(), 20_000);
    assert!(store.usage().groups < 100);
    store.close().await.unwrap();
    let store = Store::open(Arc::new(RealDisk), index.path()).unwrap();
    assert!(!store.report().rebuilt);
    let table: Table<String, u64> = store.table("addresses");
    assert_eq!(table.get(&"address-00012345@example.com".into()).unwrap(), Some(12_345));
    store.close().await.unwrap();
}

#[tokio::test]
async fn other_types_and_formats_are_refused() {
    let world = World::new();
    let store = world.open();
    numbers(&store).put(&1, &person(1)).await.unwrap();
    let longer: Table<u64, (Person, u64, u64)> = store.table("numbers");
    assert!(matches!(longer.get(&1), Err(Error::Format { .. })));
    let shorter: Table<u64, String> = store.table("numbers");
    assert!(matches!(shorter.get(&1), Err(Error::Format { .. })));
    let other_key: Table<[u8; 3], Person> = store.table("numbers");
    assert!(matches!(other_key.scan().next(), Some(Err(Error::Format { .. }))));
    let huge = Person { name: "x".repeat(70_000), ..person(1) };
    assert!(matches!(numbers(&store).put(&1, &huge).await, Err(Error::TooLarge(_))));
    let many = (0..3000).map(|key| Change::Put(key, person(1))).collect();
    let too_many = numbers(&store).write(many).await;
    assert!(matches!(too_many, Err(Error::Log(postrider_wal::Error::TooLarge(_)))));
    store.close().await.unwrap();

    let disk = Arc::new(world.disk.clone());
    let (log, _) = Log::open(disk, dir(), world.options().log, &mut |_| {}).unwrap();
    log.commit(vec![Entry::head_only(77, "")], Durability::Synced).await.unwrap();
    log.close().await.unwrap();
    assert!(matches!(world.try_open(), Err(Error::Format { .. })));
}

#[tokio::test]
async fn a_failing_view_is_made_anew() {
    let world = World::new();
    let store = world.open();
    numbers(&store).put(&1, &person(1)).await.unwrap();
    let failed: Result<(), _> = store.view(|_| Err(Error::Index("a test".into())));
    failed.unwrap_err();
    numbers(&store).put(&2, &person(2)).await.unwrap();
    // The second round comes after the rebuild.
    numbers(&store).put(&3, &person(3)).await.unwrap();
    assert_eq!(rows(&store).len(), 3);
    let generations = std::fs::read_dir(world.index.path().join("index")).unwrap().count();
    assert_eq!(generations, 1);
    assert!(world.index.path().join("index/2").exists());
}

#[test]
fn without_a_runtime_it_is_an_error() {
    assert!(matches!(World::new().try_open(), Err(Error::NoRuntime)));
}
