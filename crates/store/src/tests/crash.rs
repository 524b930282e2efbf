//! Random histories with crashes against a map.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// One atomic write: keys with a value's length, or none to remove it.
    Write(Vec<(u64, Option<usize>)>),
    Close,
    Crash(u64),
    FailSync(u64),
    DropView,
}

fn op() -> impl Strategy<Value = Op> {
    let change = (0..12u64, prop::option::weighted(0.7, 0..2000usize));
    prop_oneof![
        20 => prop::collection::vec(change, 1..5).prop_map(Op::Write),
        1 => Just(Op::Close),
        2 => any::<u64>().prop_map(Op::Crash),
        1 => (1..5u64).prop_map(Op::FailSync),
        1 => Just(Op::DropView),
    ]
}

type Map = BTreeMap<u64, String>;

struct Model {
    world: World,
    store: Option<Store>,
    /// What must be there.
    rows: Map,
    /// What may be there instead: a write that failed half way.
    or: Option<Map>,
    count: usize,
}

impl Model {
    fn table(&self) -> Table<u64, String> {
        self.store.as_ref().unwrap().table("model")
    }

    async fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(changes) => self.write(changes).await,
            Op::Close => {
                let store = self.store.take().unwrap();
                let _ = store.close().await;
                self.reopen().await;
            }
            Op::Crash(seed) => {
                self.world.disk.halt();
                // What still runs finds a dead disk.
                let _ = self.store.take().unwrap().close().await;
                self.world.disk.crash(*seed);
                self.reopen().await;
            }
            Op::FailSync(nth) => self.world.disk.fail_sync(*nth),
            Op::DropView => {
                let _ = std::fs::remove_dir_all(self.world.index.path().join("index"));
            }
        }
    }

    async fn write(&mut self, changes: &[(u64, Option<usize>)]) {
        let mut after = self.rows.clone();
        let mut batch = Vec::new();
        for (key, value) in changes {
            self.count += 1;
            match value {
                Some(len) => {
                    let value = format!("{}-{}", self.count, "x".repeat(*len));
                    after.insert(*key, value.clone());
                    batch.push(Change::Put(*key, value));
                }
                None => {
                    after.remove(key);
                    batch.push(Change::Delete(*key));
                }
            }
        }
        match self.table().write(batch).await {
            Ok(()) => self.rows = after,
            Err(Error::Log(postrider_wal::Error::Poisoned(_))) => self.or = self.or.take().or(Some(after)),
            Err(Error::Log(postrider_wal::Error::Full(_))) => {}
            // The view was deleted under it: the rows are in the log.
            Err(Error::Index(_)) => self.rows = after,
            Err(error) => panic!("{error}"),
        }
    }

    async fn reopen(&mut self) {
        let store = loop {
            match self.world.try_open() {
                Ok(store) => break store,
                // An armed fault.
                Err(Error::Log(postrider_wal::Error::Io { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        };
        self.store = Some(store);
        let rows: Map = self.table().scan().collect::<Result<_, _>>().unwrap();
        if self.or.take().as_ref() == Some(&rows) {
            self.rows = rows;
        } else {
            assert!(rows == self.rows, "{:?} and not {:?}", rows.keys(), self.rows.keys());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_synced_write_survives(ops in prop::collection::vec(op(), 1..60), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World { segment_bytes: 16 << 10, ..World::new() };
            let store = Some(world.open());
            let mut model = Model { world, store, rows: Map::new(), or: None, count: 0 };
            for op in &ops {
                model.apply(op).await;
            }
            model.apply(&Op::Crash(seed)).await;
        });
    }
}
