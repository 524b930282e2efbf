//! Tables of many rows, with few: runs begin at eight rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_base::sim_disk::{Fault, Operation};
use postrider_base::{Disk as _, OpenMode, SimDisk};
use proptest::prelude::*;

use super::hash::hash;
use super::merge::Entry;
use super::writer::Writer;
use crate::{Bulk, BulkOptions, Edit, Error, Options, Store};

const RECENT: usize = 8;

/// A disk and a directory that outlive a store.
struct World {
    disk: SimDisk,
    index: tempfile::TempDir,
}

type Rows = BTreeMap<String, u32>;

impl World {
    fn new() -> Self {
        Self { disk: SimDisk::new(), index: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> Store {
        let defaults = Options::default();
        let log = postrider_wal::Options { segment_bytes: 64 << 10, ..defaults.log };
        let options = Options { index_dir: Some(self.index.path().join("index")), log };
        Store::open_with(Arc::new(self.disk.clone()), Path::new("/store"), options).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.disk.read_dir(Path::new("/store/bulk")).unwrap()
    }
}

fn table(store: &Store) -> Bulk<String, u32> {
    try_table(store).unwrap()
}

fn try_table(store: &Store) -> Result<Bulk<String, u32>, Error> {
    store.bulk("test", BulkOptions { max_rows: 5_000, recent_rows: RECENT, seed: 42 })
}

fn name(number: u32) -> String {
    format!("user{number}@example.com")
}

async fn put(table: &Bulk<String, u32>, rows: &[(u32, u32)]) {
    let keys = rows.iter().map(|(key, _)| name(*key)).collect();
    table.edit(keys, |place, _| Edit::Put(rows[place].1)).await.unwrap();
}

async fn remove(table: &Bulk<String, u32>, key: u32) -> u64 {
    table.edit(vec![name(key)], |_, _| Edit::Remove).await.unwrap()
}

fn all(table: &Bulk<String, u32>) -> Rows {
    table.scan().collect::<Result<_, _>>().unwrap()
}

/// Until there is nothing to move or to merge.
async fn settled(table: &Bulk<String, u32>) {
    for _ in 0..2_000 {
        let usage = table.usage();
        let runs = table.inner.shown.load().runs.clone();
        if usage.recent < RECENT as u64 && super::tend::due(&runs).is_none() {
            // Rows are shown in a file before they leave the table.
            drop(table.inner.changing.lock().await);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("rows are not moved: {:?}", table.usage());
}

/// As a command does that somebody stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_nobody_waits_for_is_made_whole() {
    let world = World::new();
    let store = world.store();
    let table = table(&store);
    put(&table, &[(0, 1), (1, 1)]).await;
    world.disk.stall_syncs(true);
    let change = (0..10).map(|number| (number, 2)).collect::<Vec<_>>();
    let abandoned = tokio::time::timeout(std::time::Duration::from_millis(50), put(&table, &change)).await;
    assert!(abandoned.is_err(), "it waits for the disk");
    // Whatever comes next waits for it too.
    let mut moving = Box::pin(table.inner.move_recent());
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), &mut moving).await;
    assert!(waiting.is_err(), "the rows are not in the table yet");
    world.disk.stall_syncs(false);
    moving.await.unwrap();
    settled(&table).await;
    let expected: Rows = (0..10).map(|number| (name(number), 2)).collect();
    assert_eq!(all(&table), expected);
    assert_eq!(table.usage().rows, 10);
    for number in 0..10 {
        assert_eq!(table.get(&name(number)).unwrap(), Some(2));
        remove(&table, number).await;
    }
    assert_eq!((all(&table), table.usage().rows), (Rows::new(), 0));
    store.close().await.unwrap();
}

#[tokio::test]
async fn rows_move_into_files_and_are_found_there() {
    let world = World::new();
    let store = world.store();
    let table = table(&store);
    let mut expected = Rows::new();
    for number in 0..300u32 {
        put(&table, &[(number, number), (number / 2, number + 1_000)]).await;
        expected.insert(name(number), number);
        expected.insert(name(number / 2), number + 1_000);
    }
    for number in (0..300).step_by(3) {
        assert_eq!(remove(&table, number).await, 1);
        assert_eq!(remove(&table, number).await, 0);
        expected.remove(&name(number));
    }
    settled(&table).await;
    assert_eq!(all(&table), expected);
    let usage = table.usage();
    assert_eq!(usage.rows, 200);
    assert!((1..=5).contains(&usage.runs) && usage.run_bytes > 0, "{usage:?}");
    assert_eq!(world.files().len() as u64, usage.runs, "merged files are removed");
    for number in 0..310 {
        assert_eq!(table.get(&name(number)).unwrap(), expected.get(&name(number)).copied(), "{number}");
    }
    let from = table.scan_from(&name(200)).next().unwrap().unwrap();
    assert_eq!(Some((&from.0, &from.1)), expected.range(name(200)..).next());
}

#[tokio::test]
async fn a_decision_sees_what_is_there_and_in_its_own_batch() {
    let world = World::new();
    let store = world.store();
    let table = table(&store);
    let keys = vec![name(1), name(1), name(2)];
    let changed = table.edit(keys, |_, old| Edit::Put(old.unwrap_or(0) + 1)).await.unwrap();
    assert_eq!((changed, table.usage().rows), (2, 2));
    assert_eq!(all(&table), Rows::from([(name(1), 2), (name(2), 1)]));
    let kept = table.edit(vec![name(1), name(9)], |_, _| Edit::Keep).await.unwrap();
    assert_eq!((kept, table.usage().rows), (0, 2));
}

#[tokio::test]
async fn the_bound_holds_whatever_was_removed() {
    let world = World::new();
    let store = world.store();
    let table: Bulk<String, u32> =
        store.bulk("test", BulkOptions { max_rows: 20, recent_rows: RECENT, seed: 1 }).unwrap();
    for number in 0..20 {
        put(&table, &[(number, 1)]).await;
    }
    let full = table.edit(vec![name(20)], |_, _| Edit::Put(1)).await;
    assert!(matches!(full, Err(Error::Exceeded(20))), "{full:?}");
    put(&table, &[(3, 2)]).await;
    settled(&table).await;
    assert_eq!(remove(&table, 5).await, 1);
    put(&table, &[(20, 1)]).await;
    assert!(table.edit(vec![name(21)], |_, _| Edit::Put(1)).await.is_err());
}

#[tokio::test]
async fn it_is_as_it_was_after_a_restart_and_after_a_crash() {
    let world = World::new();
    let mut expected = Rows::new();
    for round in 0..6u32 {
        let store = world.store();
        let table = table(&store);
        assert_eq!((all(&table), table.usage().rows), (expected.clone(), expected.len() as u64));
        for number in 0..30 {
            let key = (round * 17 + number) % 70;
            put(&table, &[(key, round)]).await;
            expected.insert(name(key), round);
        }
        if round % 2 == 0 {
            store.close().await.unwrap();
        } else {
            world.disk.halt();
            let _ = store.close().await;
            world.disk.crash(u64::from(round));
        }
    }
}

#[tokio::test]
async fn rows_of_an_ordinary_table_are_taken_over() {
    let world = World::new();
    {
        let store = world.store();
        let ordinary: crate::Table<String, u32> = store.table("test");
        for number in 0..50 {
            ordinary.put(&name(number), &number).await.unwrap();
        }
        store.close().await.unwrap();
    }
    let store = world.store();
    let table = table(&store);
    assert_eq!(table.get(&name(7)).unwrap(), Some(7));
    settled(&table).await;
    assert_eq!((table.usage().rows, table.usage().recent, table.usage().runs), (50, 0, 1));
    assert_eq!(all(&table).len(), 50);
    assert!(store.table::<String, u32>("test").is_empty().unwrap());
}

#[tokio::test]
async fn strangers_are_removed_and_a_missing_file_is_named() {
    let world = World::new();
    {
        let store = world.store();
        let table = table(&store);
        for number in 0..10 {
            put(&table, &[(number, 1)]).await;
        }
        settled(&table).await;
        store.close().await.unwrap();
    }
    let stranger = Path::new("/store/bulk/test-99.run");
    world.disk.open(stranger, OpenMode::CreateNew).unwrap();
    {
        let store = world.store();
        drop(table(&store));
        assert!(!world.disk.exists(stranger));
        store.close().await.unwrap();
    }
    let file = world.files().remove(0);
    world.disk.remove_file(&file).unwrap();
    let store = world.store();
    let Err(Error::File { path, .. }) = try_table(&store) else { panic!("it opens without its file") };
    assert_eq!(Path::new(&path), file);
}

#[tokio::test]
async fn damage_is_an_error_and_not_an_absent_row() {
    let world = World::new();
    let store = world.store();
    let table = table(&store);
    put(&table, &(0..300).map(|number| (number, number)).collect::<Vec<_>>()).await;
    settled(&table).await;
    let file = world.files().remove(0);
    world.disk.damage(&file, 100, 0x10).unwrap();
    let failed = (0..300).filter(|number| table.get(&name(*number)).is_err()).count();
    assert!(failed > 50, "{failed}");
    assert!((0..300).all(|number| table.get(&name(number)).map_or(true, |found| found == Some(number))));
    assert!(matches!(table.scan().find_map(Result::err), Some(Error::Damaged { at: 0, .. })));
    store.close().await.unwrap();
    world.disk.damage(&file, 100, 0x10).unwrap();
    let length = world.disk.open(&file, OpenMode::Read).unwrap().len().unwrap();
    for offset in [length - 1, length - 60, length - 100] {
        world.disk.damage(&file, usize::try_from(offset).unwrap(), 1).unwrap();
        let store = world.store();
        assert!(matches!(try_table(&store), Err(Error::File { .. })), "{offset} of {length}");
        store.close().await.unwrap();
        world.disk.damage(&file, usize::try_from(offset).unwrap(), 1).unwrap();
    }
}

/// Of a file with two blocks and more, whose first is damaged then: which rows that has lost.
async fn damaged(world: &World, table: &Bulk<String, u32>) -> Vec<u32> {
    put(table, &(0..1_000).map(|number| (number, number)).collect::<Vec<_>>()).await;
    settled(table).await;
    world.disk.damage(&world.files()[0], 100, 0x10).unwrap();
    (0..1_000).filter(|number| table.get(&name(*number)).is_err()).collect()
}

#[tokio::test]
async fn a_damaged_block_stops_nothing_else() {
    let world = World::new();
    let mut store = world.store();
    let mut table = table(&store);
    assert_eq!(table.usage().damaged, 0);
    let lost = damaged(&world, &table).await;
    assert!((50..300).contains(&lost.len()), "{}", lost.len());
    for again in 0..2 {
        // Rows move and files are merged, but that one, whatever comes before and behind it.
        for number in 2_000..2_100 {
            put(&table, &[(number, number + again)]).await;
        }
        settled(&table).await;
        let (rows, errors): (Vec<_>, Vec<_>) = table.scan().partition(Result::is_ok);
        assert_eq!((rows.len(), errors.len()), (1_100 - lost.len(), 1));
        assert!(rows.into_iter().flatten().map(|(key, _)| key).is_sorted());
        assert_eq!(table.get(&name(2_000)).unwrap(), Some(2_000 + again));
        let usage = table.usage();
        assert!(usage.damaged == 1 && usage.runs < 5, "{usage:?}");
        store.close().await.unwrap();
        store = world.store();
        table = self::table(&store);
    }
    assert_eq!(table.usage().rows, 1_100);
}

#[tokio::test]
async fn what_a_damaged_block_has_lost_is_replaced_and_removed() {
    let world = World::new();
    let store = world.store();
    let table = table(&store);
    let lost = damaged(&world, &table).await;
    let seen = table.edit(vec![name(lost[0])], |_, old| old.map_or(Edit::Keep, Edit::Put)).await.unwrap();
    assert_eq!(seen, 0, "its value is not known");
    put(&table, &[(lost[0], 7)]).await;
    assert_eq!(remove(&table, lost[1]).await, 1);
    assert_eq!((table.get(&name(lost[0])).unwrap(), table.get(&name(lost[1])).unwrap()), (Some(7), None));
    assert!(table.get(&name(lost[2])).is_err());
    assert_eq!(table.usage().rows, 999);
    store.close().await.unwrap();
    let store = world.store();
    assert_eq!(self::table(&store).usage().rows, 999);
}

#[tokio::test]
async fn a_repair_gives_up_what_is_lost_and_keeps_the_file() {
    let world = World::new();
    let store = world.store();
    let table = table(&store);
    let lost = damaged(&world, &table).await;
    put(&table, &[(lost[0], 7), (3_000, 1)]).await;
    assert_eq!(table.repair().await.unwrap(), 1);
    let expected = 1_000 - lost.len() as u64 + 2;
    let usage = table.usage();
    assert_eq!((usage.rows, usage.runs, usage.damaged, usage.recent), (expected, 1, 0, 2));
    assert_eq!(all(&table).len() as u64, expected);
    assert_eq!((table.get(&name(lost[0])).unwrap(), table.get(&name(lost[1])).unwrap()), (Some(7), None));
    assert_eq!(table.repair().await.unwrap(), 0);
    let is_kept = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "damaged");
    let files = world.files();
    assert!(files.len() == 2 && files.iter().any(is_kept), "{files:?}");
    store.close().await.unwrap();
    let store = world.store();
    assert_eq!(self::table(&store).usage().rows, expected);
    assert!(world.files().iter().any(is_kept), "it stays after a start");
}

#[tokio::test]
async fn a_disk_that_fails_leaves_rows_where_they_are_and_no_file() {
    let world = World::new();
    let store = world.store();
    let table = table(&store);
    let rows: Vec<_> = (0..7).map(|number| (number, 1)).collect();
    put(&table, &rows).await;
    for (operation, fault) in
        [(Operation::Create, Fault::NoSpace), (Operation::Write, Fault::NoSpace), (Operation::Sync, Fault::InputOutput)]
    {
        world.disk.fail(operation, 1, fault);
        assert!(matches!(table.inner.move_recent().await, Err(Error::File { .. })), "{operation:?}");
        assert!(world.files().is_empty(), "{operation:?}");
        assert_eq!((table.usage().recent, all(&table).len()), (7, 7));
    }
    table.inner.move_recent().await.unwrap();
    assert_eq!((table.usage().recent, table.usage().runs, all(&table).len()), (0, 1, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nobody_misses_a_row_that_moves() {
    let world = World::new();
    let store = world.store();
    let table = table(&store);
    put(&table, &[(0, 7)]).await;
    let reader = {
        let table = table.clone();
        tokio::task::spawn_blocking(move || {
            while table.usage().rows < 400 {
                assert_eq!(table.get(&name(0)).unwrap(), Some(7));
                assert_eq!(table.scan().next().unwrap().unwrap(), (name(0), 7));
            }
        })
    };
    for number in 1..400 {
        put(&table, &[(number, number)]).await;
        if number % 50 == 0 {
            // A new row again, that will move again.
            put(&table, &[(0, 7)]).await;
        }
    }
    reader.await.unwrap();
}

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<(u32, u32)>),
    Remove(u32),
    Settle,
    Reopen,
    Crash(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop::collection::vec((0..60u32, any::<u32>()), 1..6).prop_map(Op::Put),
        6 => (0..60u32).prop_map(Op::Remove),
        2 => Just(Op::Settle),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_is_a_map(ops in prop::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut store = world.store();
            let mut open = table(&store);
            let mut expected = Rows::new();
            for op in ops {
                match op {
                    Op::Put(rows) => {
                        put(&open, &rows).await;
                        expected.extend(rows.iter().map(|(key, value)| (name(*key), *value)));
                    }
                    Op::Remove(key) => {
                        let removed = remove(&open, key).await;
                        assert_eq!(removed, u64::from(expected.remove(&name(key)).is_some()));
                    }
                    Op::Settle => settled(&open).await,
                    Op::Reopen | Op::Crash(_) => {
                        if let Op::Crash(_) = op {
                            world.disk.halt();
                        }
                        let _ = store.close().await;
                        if let Op::Crash(seed) = op {
                            world.disk.crash(seed);
                        }
                        store = world.store();
                        open = table(&store);
                    }
                }
                assert_eq!(all(&open), expected);
                assert_eq!(open.usage().rows, expected.len() as u64);
            }
        });
    }
}

/// A file of earlier versions must stay readable: whoever changes this writes another magic
/// and reads both.
#[test]
fn files_are_written_as_ever() {
    let disk = Arc::new(SimDisk::new());
    disk.create_dir_all(Path::new("/files")).unwrap();
    let path = Path::new("/files/test-1.run");
    let mut writer = Writer::new(disk.clone(), path, 500).unwrap();
    for number in 1_000..1_500u32 {
        let value = if number % 7 == 0 { Vec::new() } else { number.to_be_bytes().to_vec() };
        let entry = Entry { key: name(number).into_bytes(), value: value.into() };
        let hash = hash(42, &entry.key);
        writer.push(entry, hash).unwrap();
    }
    let run = Arc::new(writer.finish(1).unwrap().unwrap());
    assert_eq!((run.rows(), run.clone().rows_from(b"user1400").count()), (500, 100));
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes.len(), crc32fast::hash(&bytes)), (11_662, 2_728_937_823));
}
