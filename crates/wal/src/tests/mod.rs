//! Tests of the whole log over a simulated disk.

mod commit;
mod crash;
mod damage;
mod faults;
mod full;
mod inspect;
mod threads;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use postrider_base::{Random, SimDisk};

use crate::keeper::Step;
use crate::writer::{Turn, Writer};
use crate::{Backlog, Committed, Durability, Entry, Error, Log, OpenReport, Options, Replayed};

/// A log that moves only when told to.
struct Rig {
    disk: SimDisk,
    options: Options,
    log: Log,
    writer: Writer,
    replayed: Vec<Replayed>,
    report: OpenReport,
}

fn dir() -> &'static Path {
    Path::new("/state/log")
}

fn small() -> Options {
    Options {
        segment_bytes: 16 << 10,
        random: Random::seeded(7),
        buffered_sync: Duration::from_secs(3600),
        ..Options::default()
    }
}

fn segment_path(number: u64) -> PathBuf {
    crate::segment::path(dir(), number)
}

impl Rig {
    fn new() -> Self {
        Self::open(&SimDisk::new(), &small()).unwrap()
    }

    fn open(disk: &SimDisk, options: &Options) -> Result<Self, Error> {
        let (mut rig, backlog) = Self::open_behind(disk, options)?;
        rig.read(backlog)?;
        Ok(rig)
    }

    /// A log whose old heads are not read yet.
    fn open_behind(disk: &SimDisk, options: &Options) -> Result<(Self, Backlog), Error> {
        let (log, writer, backlog, report) = Log::open_idle(Arc::new(disk.clone()), dir(), options.clone())?;
        let (disk, options, replayed) = (disk.clone(), options.clone(), Vec::new());
        Ok((Self { disk, options, log, writer, replayed, report }, backlog))
    }

    fn read(&mut self, backlog: Backlog) -> Result<(), Error> {
        let replayed = &mut self.replayed;
        backlog.replay(&mut self.report, &mut |entry| replayed.push(entry))
    }

    /// Opens the log again; the old one is simply gone.
    fn reopen(self) -> Result<Self, Error> {
        Self::open(&self.disk, &self.options)
    }

    /// Turns until there is nothing to do.
    fn settle(&mut self) {
        while self.writer.turn() == Turn::Worked {}
        while matches!(self.log.inner_keeper().step(), Step::Worked) {}
    }

    fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..100 {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
                return done;
            }
            self.settle();
        }
        panic!("never done");
    }

    fn commit(&mut self, batch: Vec<Entry>, durability: Durability) -> Result<Committed, Error> {
        let commit = self.log.submit(batch, durability);
        self.run(commit)
    }

    fn synced(&mut self, batch: Vec<Entry>) -> Committed {
        self.commit(batch, Durability::Synced).unwrap()
    }

    fn retire(&mut self, segment: u64) -> Result<(), Error> {
        let log = self.log.clone();
        self.run(async move { log.retire_oldest(segment).await })
    }

    fn close(&mut self) {
        let commit = self.log.clone();
        // The drivers are not running: end as they would.
        commit.inner_end();
        while self.writer.turn() != Turn::Ended {}
    }
}

/// An entry with a head and a body that tell themselves from others.
fn entry(seed: u64, body: usize) -> Entry {
    let body: Vec<u8> = (0..body as u64).map(|at| (seed.wrapping_mul(31).wrapping_add(at * 7) % 251) as u8).collect();
    let middle = body.len() / 3;
    let body = Bytes::from(body);
    Entry {
        kind: (seed % 200) as u8,
        head: format!("head {seed}").into(),
        body: vec![body.slice(..middle), body.slice(middle..)],
    }
}

fn joined(entry: &Entry) -> Vec<u8> {
    entry.body.concat()
}

/// Whether an entry is what was committed, body and all.
fn check(log: &Log, replayed: &Replayed, entry: &Entry) {
    assert_eq!((replayed.kind, &replayed.head), (entry.kind, &entry.head));
    assert_eq!(log.read(replayed.location).unwrap(), joined(entry));
}
