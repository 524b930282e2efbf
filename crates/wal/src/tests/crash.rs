//! Random histories with crashes against a model.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// Batches handed in together: entries' body sizes, and whether synced.
    Commit(Vec<(Vec<usize>, bool)>),
    Retire,
    /// An orderly end and a start.
    Close,
    /// The process dies, the machine does not.
    Kill,
    /// The power fails.
    Crash(u64),
    FailWrite(u64),
    FailSync(u64),
    Full(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![4 => 0..200usize, 2 => 200..3000usize];
    let batch = (prop::collection::vec(size, 1..4), prop::bool::weighted(0.6));
    prop_oneof![
        12 => prop::collection::vec(batch, 1..6).prop_map(Op::Commit),
        3 => Just(Op::Retire),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        2 => any::<u64>().prop_map(Op::Crash),
        1 => (1..6u64).prop_map(Op::FailWrite),
        1 => (1..6u64).prop_map(Op::FailSync),
        1 => any::<bool>().prop_map(Op::Full),
    ]
}

/// A batch that was handed in.
#[derive(Debug)]
struct Known {
    entries: Vec<Entry>,
    /// None: nobody knows whether it was written.
    lsn: Option<u64>,
    synced: bool,
}

struct Model {
    rig: Option<Rig>,
    disk: SimDisk,
    options: Options,
    batches: Vec<Known>,
    seed: u64,
}

impl Model {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Commit(batches) => self.commit(batches),
            Op::Retire => self.retire(),
            Op::Close => {
                let rig = self.rig.as_mut().unwrap();
                rig.close();
                if !rig.log.poisoned() {
                    self.batches.iter_mut().for_each(|it| it.synced |= it.lsn.is_some());
                }
                self.reopen(false);
            }
            Op::Kill => self.reopen(false),
            Op::Crash(seed) => {
                self.disk.crash(*seed);
                self.reopen(true);
            }
            Op::FailWrite(nth) => self.disk.fail_write(*nth),
            Op::FailSync(nth) => self.disk.fail_sync(*nth),
            Op::Full(full) => self.disk.set_capacity(full.then_some(0)),
        }
        self.note_synced();
    }

    fn commit(&mut self, batches: &[(Vec<usize>, bool)]) {
        let rig = self.rig.as_mut().unwrap();
        let mut commits = Vec::new();
        for (sizes, synced) in batches {
            let entries: Vec<Entry> = sizes
                .iter()
                .map(|size| {
                    self.seed += 1;
                    entry(self.seed, *size)
                })
                .collect();
            let durability = if *synced { Durability::Synced } else { Durability::Buffered };
            commits.push((entries.clone(), *synced, rig.log.submit(entries, durability)));
        }
        for (entries, synced, commit) in commits {
            let lsn = match rig.run(commit) {
                Ok(committed) => Some(committed.lsn.get()),
                Err(Error::Poisoned(_)) => None,
                Err(Error::Full(_)) => continue,
                Err(error) => panic!("{error}"),
            };
            let synced = synced && lsn.is_some();
            self.batches.push(Known { entries, lsn, synced });
        }
    }

    fn retire(&mut self) {
        let rig = self.rig.as_mut().unwrap();
        let Some(oldest) = rig.log.segments().first().copied().filter(|it| it.sealed) else {
            return;
        };
        // The retired are durable: a sealed segment is synced.
        let gone = oldest.last_lsn.map_or(0, |last| last.get());
        match rig.retire(oldest.number) {
            Ok(()) => self.batches.retain(|it| it.lsn.is_none_or(|lsn| lsn > gone)),
            Err(Error::Full(_)) => {}
            // Gone or not: what comes back decides.
            Err(Error::Poisoned(_) | Error::Io { .. }) => {
                for batch in &mut self.batches {
                    if batch.lsn.is_some_and(|lsn| lsn <= gone) {
                        (batch.lsn, batch.synced) = (None, false);
                    }
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn note_synced(&mut self) {
        let Some(rig) = &self.rig else { return };
        let synced = rig.log.synced().get();
        for batch in &mut self.batches {
            batch.synced |= batch.lsn.is_some_and(|lsn| lsn <= synced);
        }
    }

    /// Opens the log and compares. `power` says that the power had failed.
    fn reopen(&mut self, power: bool) {
        self.rig = None;
        let mut rig = loop {
            match Rig::open(&self.disk, &self.options) {
                Ok(rig) => break rig,
                // An armed fault, or the full disk; both pass.
                Err(Error::Io { .. }) => self.disk.set_capacity(None),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(rig.report.damage, [], "a crash is no damage");
        let mut replayed = rig.replayed.iter().peekable();
        let mut left = Vec::new();
        for batch in std::mem::take(&mut self.batches) {
            let first = &batch.entries[0];
            if replayed.peek().is_some_and(|it| it.head == first.head) {
                let lsn = replayed.peek().unwrap().lsn;
                assert!(batch.lsn.is_none_or(|known| known == lsn.get()), "another number");
                for (index, entry) in batch.entries.iter().enumerate() {
                    let it = replayed.next().expect("half a batch");
                    assert_eq!((it.lsn, usize::from(it.index)), (lsn, index));
                    check(&rig.log, it, entry);
                }
                left.push(Known { lsn: Some(lsn.get()), synced: true, ..batch });
            } else {
                assert!(!batch.synced, "lost: {:?}", batch.lsn);
                assert!(power || batch.lsn.is_none(), "a written batch was lost");
            }
        }
        assert_eq!(replayed.next(), None, "made up, or out of order");
        self.batches = left;
        rig.replayed.clear();
        self.rig = Some(rig);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_synced_batch_survives_and_nothing_is_made_up(
        ops in prop::collection::vec(op(), 1..60),
        spare_segments in 0..3usize,
        seed: u64,
    ) {
        let disk = SimDisk::new();
        let options = Options { spare_segments, random: Random::seeded(seed), ..small() };
        let rig = Rig::open(&disk, &options).unwrap();
        let mut model = Model { rig: Some(rig), disk, options, batches: Vec::new(), seed: 0 };
        for op in &ops {
            model.apply(op);
        }
        model.apply(&Op::Crash(seed));
    }
}
