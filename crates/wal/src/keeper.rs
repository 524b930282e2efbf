//! Making segments ahead of time, and taking retired ones away.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Clock, Disk, DiskFile, OpenMode, Random};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bell::Bell;
use crate::format::{Seed, SegmentHeader};
use crate::recover::Opened;
use crate::salvage::Salvage;
use crate::segment::{self, Segment};
use crate::{Error, OpenReport, Options};

/// How long after a failure the next try comes.
const RETRY: Duration = Duration::from_secs(1);
/// Zeros written to a new file at once: a retired file that comes meanwhile is used first.
const FILL: u64 = 4 << 20;
/// Spare files that nobody needed for so long are given back.
const IDLE: Duration = Duration::from_secs(10);
/// Where fewer segments than this fit what is free, no more spare files are
/// kept than are wanted.
const FREE: u64 = 64;

/// Owns the directory's names once the log is open.
#[derive(Debug)]
pub(crate) struct Keeper {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    wanted: usize,
    most_spare: usize,
    recycle: bool,
    random: Random,
    clock: Clock,
    /// The oldest segment in use.
    oldest: AtomicU64,
    state: Mutex<State>,
    /// The reserve cannot be filled, for those who ask for every batch.
    is_full: AtomicBool,
    /// Held while one segment is made, so that their numbers keep their order.
    making: Mutex<()>,
    bell: Bell,
}

#[derive(Debug, Default)]
struct State {
    /// Made, named and synced; the writer takes them in order.
    ready: VecDeque<Arc<Segment>>,
    /// Files of full length without a number.
    pool: Vec<PathBuf>,
    /// A new file that is being filled with zeros.
    filling: Option<Filling>,
    /// The fewest that were there since a time: so many were not needed.
    idle: Option<(Instant, usize)>,
    /// Number of the next segment to make.
    next: u64,
    /// Number in the name of the next spare file.
    next_spare: u64,
    failed: bool,
    retired: VecDeque<Retired>,
    ended: bool,
}

/// A file that is not of full length yet.
#[derive(Clone, Debug)]
struct Filling {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
}

#[derive(Debug)]
struct Retired {
    segment: Arc<Segment>,
    done: oneshot::Sender<Result<(), Error>>,
}

/// What [`Keeper::step`] found to do.
pub(crate) enum Step {
    Worked,
    /// Nothing until the bell, or for so long.
    Rest(Option<Duration>),
    Ended,
}

impl Keeper {
    /// `next` is the number of the next segment; `pool` are spare files.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &Options,
        (oldest, next): (u64, u64),
        pool: Vec<PathBuf>,
    ) -> Self {
        let spares = pool.iter().filter_map(|path| segment::number(path, "spare-"));
        let state = State { next, next_spare: spares.max().map_or(1, |last| last + 1), pool, ..State::default() };
        Self {
            disk,
            dir: dir.to_owned(),
            segment_bytes: options.segment_bytes,
            wanted: options.spare_segments,
            most_spare: options.most_spare_files,
            recycle: options.recycle,
            random: options.random.clone(),
            clock: options.clock.clone(),
            oldest: AtomicU64::new(oldest),
            state: Mutex::new(state),
            is_full: AtomicBool::new(false),
            making: Mutex::new(()),
            bell: Bell::default(),
        }
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    pub(crate) fn set_oldest(&self, segment: u64) {
        self.oldest.store(segment, Ordering::Release);
    }

    /// Whether the reserve cannot be filled.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Something of the reserve has changed.
    fn look(&self, state: &State) {
        self.is_full.store(state.failed && state.ready.len() < self.wanted, Ordering::Release);
    }

    /// A segment that was made ahead.
    fn take_ready(&self) -> Option<Arc<Segment>> {
        let mut state = self.state.lock();
        let ready = state.ready.pop_front();
        self.look(&state);
        ready
    }

    /// Bytes of spare files.
    pub(crate) fn bytes(&self) -> u64 {
        let state = self.state.lock();
        let filling = state.filling.as_ref().map_or(0, |filling| filling.len);
        (state.ready.len() + state.pool.len()) as u64 * self.segment_bytes + filling
    }

    /// The next segment to write: one of those made ahead, or one made now.
    pub(crate) fn take(&self) -> Result<Arc<Segment>, Error> {
        let ready = self.take_ready();
        // After the change: the keeper may look in between.
        self.bell.ring();
        if let Some(ready) = ready {
            return Ok(ready);
        }
        let _making = self.making.lock();
        if let Some(ready) = self.take_ready() {
            return Ok(ready);
        }
        self.make()
    }

    /// Gives up a segment that nothing refers to any more.
    pub(crate) fn retire(&self, segment: Arc<Segment>) -> oneshot::Receiver<Result<(), Error>> {
        let (done, waiter) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.ended {
            state.retired.push_back(Retired { segment, done });
        }
        self.bell.ring();
        waiter
    }

    /// Does no more than what was asked for so far.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.bell.ring();
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Removes one retired segment, makes one spare segment or a part of it, or
    /// gives back a spare file that nobody needs.
    pub(crate) fn step(&self) -> Step {
        let retired = self.state.lock().retired.pop_front();
        if let Some(Retired { segment, done }) = retired {
            // Nobody may be waiting any more.
            let _ = done.send(self.remove(&segment));
            return Step::Worked;
        }
        if self.state.lock().ended {
            return Step::Ended;
        }
        let making = self.making.lock();
        if self.state.lock().ready.len() >= self.wanted {
            return self.trim();
        }
        let made = match self.fill(FILL) {
            Ok(false) => return Step::Worked,
            Ok(true) => self.make(),
            Err(error) => Err(error),
        };
        let mut state = self.state.lock();
        drop(making);
        match made {
            Ok(segment) => {
                state.ready.push_back(segment);
                self.look(&state);
                Step::Worked
            }
            Err(_) => Step::Rest(Some(RETRY)),
        }
    }

    /// Writes a segment with a damaged footer anew.
    pub(crate) fn repair(&self, file: Opened, report: &mut OpenReport) -> Result<(Opened, Arc<Segment>), Error> {
        // Where the disk is full, a spare file becomes the copy.
        let _making = self.making.lock();
        let mut pool = std::mem::take(&mut self.state.lock().pool);
        let salvage = Salvage { disk: &*self.disk, dir: &self.dir, random: &self.random, pool: &mut pool };
        let repaired = file.repaired(salvage, report);
        self.state.lock().pool.append(&mut pool);
        repaired
    }

    fn remove(&self, segment: &Segment) -> Result<(), Error> {
        let from = segment::path(&self.dir, segment.number());
        let is_usable = self.recycle && segment.file_bytes == self.segment_bytes;
        let spare = (is_usable && self.has_room_for_spare()).then(|| self.spare_name(&mut self.state.lock()));
        let removed = match &spare {
            Some(to) => self.disk.rename(&from, to),
            None => self.disk.remove_file(&from),
        };
        removed
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|error| Error::io(format!("removing {}", from.display()), error))?;
        self.state.lock().pool.extend(spare);
        Ok(())
    }

    /// Whether one more spare file may be kept. In a rush segments are retired
    /// and needed again by the dozen, and filling a file with zeros costs as
    /// much as writing it.
    fn has_room_for_spare(&self) -> bool {
        let spare = self.state.lock().pool.len();
        if spare < self.least_spare() {
            return true;
        }
        let free = || self.disk.available_bytes(&self.dir).unwrap_or_default();
        spare < self.most_spare && free() / self.segment_bytes >= FREE
    }

    /// Spare files that are kept though nobody needs them.
    fn least_spare(&self) -> usize {
        self.wanted.max(1)
    }

    /// Gives back one spare file of those that nobody has needed for long.
    fn trim(&self) -> Step {
        let now = self.clock.instant();
        let mut state = self.state.lock();
        let spare = state.pool.len();
        if spare <= self.least_spare() {
            state.idle = None;
            return Step::Rest(None);
        }
        let (since, fewest) = *state.idle.get_or_insert((now, spare));
        let left = IDLE.saturating_sub(now - since);
        if !left.is_zero() {
            return Step::Rest(Some(left));
        }
        if fewest <= self.least_spare() {
            state.idle = None;
            return Step::Worked;
        }
        state.idle = Some((since, fewest - 1));
        let path = state.pool.remove(0);
        drop(state);
        // One that stays is removed when the log is next opened.
        let _ = self.disk.remove_file(&path);
        Step::Worked
    }

    /// Gives back all spare files that nobody needs at rest.
    pub(crate) fn give_back(&self) -> Result<(), Error> {
        let not_needed: Vec<_> = {
            let mut state = self.state.lock();
            let surplus = state.pool.len().saturating_sub(self.least_spare());
            state.idle = None;
            state.pool.drain(..surplus).collect()
        };
        let mut result = Ok(());
        for path in not_needed {
            if let Err(error) = self.disk.remove_file(&path) {
                result = Err(Error::io(format!("removing {}", path.display()), error));
                self.state.lock().pool.push(path);
            }
        }
        result
    }

    fn spare_name(&self, state: &mut State) -> PathBuf {
        let number = state.next_spare;
        state.next_spare += 1;
        self.dir.join(format!("spare-{number:010}.log"))
    }

    /// Makes the segment of the next number; the caller holds `making`. The
    /// file has all its space and a synced header before it gets its name.
    fn make(&self) -> Result<Arc<Segment>, Error> {
        while !self.fill(self.segment_bytes)? {}
        let (number, path) = {
            let mut state = self.state.lock();
            let path = state.pool.pop();
            let spare = state.pool.len();
            state.idle = state.idle.map(|(since, fewest)| (since, fewest.min(spare)));
            (state.next, path.unwrap_or_default())
        };
        let made = self.make_from(&path, number).map_err(|error| self.failed(&path, &error))?;
        let mut state = self.state.lock();
        state.next = number + 1;
        if std::mem::take(&mut state.failed) {
            tracing::info!(dir = %self.dir.display(), "there is room for the log again");
        }
        self.look(&state);
        Ok(made)
    }

    /// Whether there is a spare file; the caller holds `making`. If not, makes
    /// one longer by so much that will be.
    fn fill(&self, bytes: u64) -> Result<bool, Error> {
        let known = {
            let mut state = self.state.lock();
            if !state.pool.is_empty() {
                return Ok(true);
            }
            state.filling.take().ok_or_else(|| self.spare_name(&mut state))
        };
        let path = known.as_ref().map_or_else(Clone::clone, |filling| filling.path.clone());
        let filled = self.fill_file(known, bytes).map_err(|error| self.failed(&path, &error))?;
        let is_full = filled.len >= self.segment_bytes;
        let mut state = self.state.lock();
        match is_full {
            true => state.pool.push(path),
            false => state.filling = Some(filled),
        }
        Ok(is_full)
    }

    fn fill_file(&self, known: Result<Filling, PathBuf>, bytes: u64) -> std::io::Result<Filling> {
        let mut filling = match known {
            Ok(filling) => filling,
            Err(path) => Filling { file: self.disk.open(&path, OpenMode::CreateNew)?, path, len: 0 },
        };
        match self.recycle {
            true => {
                filling.len = (filling.len + bytes).min(self.segment_bytes);
                filling.file.allocate(filling.len)?;
            }
            false => {
                filling.len = self.segment_bytes;
                filling.file.reserve(filling.len)?;
            }
        }
        Ok(filling)
    }

    /// A segment can not be made.
    fn failed(&self, path: &Path, error: &std::io::Error) -> Error {
        let mut state = self.state.lock();
        let reason = format!("segment {} in {}: {error}", state.next, self.dir.display());
        if !std::mem::replace(&mut state.failed, true) {
            tracing::warn!("no room for the log: {reason}");
        }
        self.look(&state);
        drop(state);
        // What is left behind is removed when the log is next opened.
        let _ = self.disk.remove_file(path);
        Error::Full(reason)
    }

    fn make_from(&self, path: &Path, number: u64) -> std::io::Result<Arc<Segment>> {
        let file = self.disk.open(path, OpenMode::ReadWrite)?;
        let seed = Seed { segment: number, salt: self.random.u64() };
        let oldest = self.oldest();
        file.write_all_at(&SegmentHeader { seed, oldest }.encode(), 0)?;
        file.sync_all()?;
        self.disk.rename(path, &segment::path(&self.dir, number))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Arc::new(Segment::fresh(seed, file, self.segment_bytes)))
    }
}
