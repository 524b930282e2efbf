//! Random lives on a disk that fails, against a model that knows what every
//! caller was told.

use postrider_base::sim_disk::{Fault, Operation};
use proptest::prelude::*;

use super::*;
use crate::Lsn;

#[derive(Clone, Debug)]
enum Op {
    /// Batches handed in together: entries' body sizes, and whether synced.
    Commit(Vec<(Vec<usize>, bool)>),
    Retire,
    /// Read everything synced from about here on.
    Follow(u64),
    /// The log ends, and is opened again.
    End(End),
    /// The next of these operations but so many fails.
    Fail(Operation, u64, Fault),
    /// No space is left, or there is some again.
    Full(bool),
    /// Nothing can be changed until the log is opened again.
    ReadOnly,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Orderly,
    /// The process dies, the machine does not.
    Killed,
    /// The power fails; what was not synced is kept, dropped and torn by this.
    PowerCut(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![4 => 0..200usize, 2 => 200..3000usize];
    let batch = (prop::collection::vec(size, 1..4), prop::bool::weighted(0.6));
    prop_oneof![
        24 => prop::collection::vec(batch, 1..6).prop_map(Op::Commit),
        6 => Just(Op::Retire),
        2 => (0..200u64).prop_map(Op::Follow),
        2 => Just(Op::End(End::Orderly)),
        2 => Just(Op::End(End::Killed)),
        4 => any::<u64>().prop_map(|seed| Op::End(End::PowerCut(seed))),
        5 => fail(),
        2 => any::<bool>().prop_map(Op::Full),
        1 => Just(Op::ReadOnly),
    ]
}

fn fail() -> impl Strategy<Value = Op> {
    use Operation::{Create, Read, Remove, Rename, Sync, SyncDirectory, Write};
    let operation = prop_oneof![
        3 => Just(Write),
        3 => Just(Sync),
        1 => prop::sample::select(vec![Read, SyncDirectory, Create, Rename, Remove]),
    ];
    let fault = prop::sample::select(vec![Fault::InputOutput, Fault::NoSpace, Fault::ReadOnly]);
    (operation, 1..6u64, fault).prop_map(|(operation, nth, fault)| Op::Fail(operation, nth, fault))
}

/// A batch that was handed in.
#[derive(Clone, Debug)]
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
    /// Of the last entry.
    seed: u64,
    /// Batches that each log takes before its old heads are read.
    early: usize,
}

impl Model {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Commit(batches) => self.commit(batches),
            Op::Retire => self.retire(),
            Op::Follow(from) => self.follow(*from),
            Op::End(end) => self.end(*end),
            Op::Fail(operation, nth, fault) => self.disk.fail(*operation, *nth, *fault),
            Op::Full(full) => self.disk.set_capacity(full.then_some(0)),
            Op::ReadOnly => self.disk.set_read_only(true),
        }
        self.note_synced();
    }

    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().unwrap()
    }

    fn commit(&mut self, batches: &[(Vec<usize>, bool)]) {
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
            commits.push((entries.clone(), *synced, self.rig().log.submit(entries, durability)));
        }
        for (entries, synced, commit) in commits {
            let lsn = match self.rig().run(commit) {
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
        let Some(oldest) = self.rig().log.segments().first().copied().filter(|it| it.sealed) else {
            return;
        };
        // The retired are durable: a sealed segment is synced.
        let gone = oldest.last_lsn.map_or(0, |last| last.get());
        match self.rig().retire(oldest.number) {
            // Given up for good, be the file there or not.
            Ok(()) | Err(Error::Io { .. }) => self.batches.retain(|it| it.lsn.is_none_or(|lsn| lsn > gone)),
            Err(Error::Full(_)) => {}
            // Gone or not: what comes back decides.
            Err(Error::Poisoned(_)) => {
                for batch in &mut self.batches {
                    if batch.lsn.is_some_and(|lsn| lsn <= gone) {
                        (batch.lsn, batch.synced) = (None, false);
                    }
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn follow(&mut self, from: u64) {
        let log = self.rig().log.clone();
        if log.poisoned() {
            // It may say what nobody was told.
            return;
        }
        let first = log.segments().iter().find_map(|segment| segment.first_lsn);
        let mut next = Lsn::new(from).max(first.unwrap_or_default());
        let from = next.get();
        let expected = self.batches.iter().filter(|it| it.lsn.is_some_and(|lsn| lsn >= from) && it.synced);
        let mut expected = expected.flat_map(|it| it.entries.iter().map(|entry| (it.lsn, entry)));
        while next <= log.synced() {
            let read = match log.read_from(next, 100) {
                Err(Error::Io { .. }) => continue,
                read => read.unwrap(),
            };
            for it in &read {
                let (lsn, entry) = expected.next().expect("an entry that nobody knows");
                assert_eq!((Some(it.lsn.get()), it.kind, &it.head), (lsn, entry.kind, &entry.head));
            }
            // Only batches without entries are left.
            let Some(last) = read.last() else { break };
            next = last.lsn.next();
        }
        assert!(expected.next().is_none(), "the feed misses a batch");
    }

    fn note_synced(&mut self) {
        let Some(rig) = &self.rig else { return };
        let synced = rig.log.synced().get();
        for batch in &mut self.batches {
            batch.synced |= batch.lsn.is_some_and(|lsn| lsn <= synced);
        }
    }

    fn end(&mut self, end: End) {
        match end {
            End::Orderly => {
                self.rig().close();
                if !self.rig().log.poisoned() {
                    self.batches.iter_mut().for_each(|it| it.synced |= it.lsn.is_some());
                }
            }
            End::Killed => {}
            End::PowerCut(seed) => self.disk.crash(seed),
        }
        self.rig = None;
        let power = matches!(end, End::PowerCut(_));
        while !self.opened(power) {
            // An armed fault; or the operator helps.
            self.disk.set_capacity(None);
            self.disk.set_read_only(false);
        }
    }

    /// Opens the log, if the disk lets it, and compares; `power` says that it
    /// had failed. An opening that fails changes nothing of what is there.
    fn opened(&mut self, power: bool) -> bool {
        let (rig, backlog) = match Rig::open_behind(&self.disk, &self.options) {
            Ok(opened) => opened,
            Err(Error::Io { .. }) => return false,
            Err(error) => panic!("{error}"),
        };
        self.rig = Some(rig);
        let known = self.batches.len();
        for _ in 0..self.early {
            self.commit(&[(vec![700], true)]);
        }
        match self.rig().read(backlog) {
            Ok(()) => {}
            Err(Error::Io { .. }) => {
                self.rig = None;
                return false;
            }
            Err(error) => panic!("{error}"),
        }
        let early = self.batches.split_off(known);
        self.compare(power);
        self.batches.extend(early);
        true
    }

    fn compare(&mut self, power: bool) {
        let rig = self.rig.as_mut().unwrap();
        assert_eq!(rig.report.damage, [], "a crash is no damage");
        assert_eq!(rig.report.lost, [], "a segment was lost");
        let replayed = std::mem::take(&mut rig.replayed);
        let mut replayed = replayed.iter().peekable();
        let mut left = Vec::new();
        for batch in std::mem::take(&mut self.batches) {
            let next = replayed.peek().filter(|it| it.head == batch.entries[0].head);
            let Some(lsn) = next.map(|it| it.lsn) else {
                assert!(!batch.synced, "lost: {:?}", batch.lsn);
                assert!(power || batch.lsn.is_none(), "a written batch was lost");
                continue;
            };
            assert!(batch.lsn.is_none_or(|known| known == lsn.get()), "another number");
            for (index, entry) in batch.entries.iter().enumerate() {
                let it = replayed.next().expect("half a batch");
                assert_eq!((it.lsn, usize::from(it.index)), (lsn, index));
                assert_eq!((it.kind, &it.head), (entry.kind, &entry.head));
                assert_eq!(body(&rig.log, it), joined(entry));
            }
            left.push(Known { lsn: Some(lsn.get()), synced: true, ..batch });
        }
        assert_eq!(replayed.next(), None, "made up, or out of order");
        self.batches = left;
    }
}

/// Reads a body; an armed fault passes, and never gives wrong bytes.
fn body(log: &Log, replayed: &Replayed) -> Bytes {
    loop {
        match log.read(replayed.location) {
            Err(Error::Io { .. }) => {}
            read => return read.unwrap(),
        }
    }
}

#[test]
fn every_synced_batch_survives_and_nothing_is_made_up() {
    let ops = prop::collection::vec(op(), 1..60);
    let case = (ops, 0..3usize, 0..3usize, any::<u64>());
    postrider_cases::each(10_000, 1, &case, |(ops, spare_segments, early, seed)| {
        let disk = SimDisk::new();
        let options = Options { spare_segments, random: Random::seeded(seed), ..small() };
        let rig = Rig::open(&disk, &options).unwrap();
        let mut model = Model { rig: Some(rig), disk, options, batches: Vec::new(), seed: 0, early };
        for op in &ops {
            model.apply(op);
        }
        model.apply(&Op::End(End::PowerCut(seed)));
    });
}
