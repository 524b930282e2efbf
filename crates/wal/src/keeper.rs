//! Making segments ahead of time, and taking retired ones away.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Disk, OpenMode, Random};
use tokio::sync::oneshot;

use crate::bell::Bell;
use crate::format::{Seed, SegmentHeader};
use crate::recover::Opened;
use crate::salvage::Salvage;
use crate::segment::{self, Segment};
use crate::{Error, OpenReport, Options};

/// How long after a failure the next try comes.
const RETRY: Duration = Duration::from_secs(1);

/// Owns the directory's names once the log is open.
#[derive(Debug)]
pub(crate) struct Keeper {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    wanted: usize,
    recycle: bool,
    random: Random,
    /// The oldest segment in use.
    oldest: AtomicU64,
    state: Mutex<State>,
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
    /// Number of the next segment to make.
    next: u64,
    /// Number in the name of the next spare file.
    next_spare: u64,
    failed: bool,
    retired: VecDeque<Retired>,
    ended: bool,
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
            recycle: options.recycle,
            random: options.random.clone(),
            oldest: AtomicU64::new(oldest),
            state: Mutex::new(state),
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
        let state = self.state.lock();
        state.failed && state.ready.len() < self.wanted
    }

    /// Bytes of spare files.
    pub(crate) fn bytes(&self) -> u64 {
        let state = self.state.lock();
        (state.ready.len() + state.pool.len()) as u64 * self.segment_bytes
    }

    /// The next segment to write: one of those made ahead, or one made now.
    pub(crate) fn take(&self) -> Result<Arc<Segment>, Error> {
        let ready = self.state.lock().ready.pop_front();
        // After the change: the keeper may look in between.
        self.bell.ring();
        if let Some(ready) = ready {
            return Ok(ready);
        }
        let _making = self.making.lock();
        if let Some(ready) = self.state.lock().ready.pop_front() {
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

    /// Removes one retired segment or makes one spare segment.
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
            return Step::Rest(None);
        }
        let made = self.make();
        let mut state = self.state.lock();
        drop(making);
        match made {
            Ok(segment) => {
                state.ready.push_back(segment);
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
        let spare = {
            let mut state = self.state.lock();
            let room = self.recycle && state.pool.len() < self.wanted.max(1);
            (room && segment.file_bytes == self.segment_bytes).then(|| self.spare_name(&mut state))
        };
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

    fn spare_name(&self, state: &mut State) -> PathBuf {
        let number = state.next_spare;
        state.next_spare += 1;
        self.dir.join(format!("spare-{number:010}.log"))
    }

    /// Makes the segment of the next number; the caller holds `making`. The
    /// file has all its space and a synced header before it gets its name.
    fn make(&self) -> Result<Arc<Segment>, Error> {
        let (number, recycled, path) = {
            let mut state = self.state.lock();
            let recycled = state.pool.pop();
            let path = recycled.clone().unwrap_or_else(|| self.spare_name(&mut state));
            (state.next, recycled.is_some(), path)
        };
        let made = self.make_from(&path, number, recycled);
        let mut state = self.state.lock();
        let news = state.failed != made.is_err();
        state.failed = made.is_err();
        match made {
            Ok(segment) => {
                state.next = number + 1;
                if news {
                    tracing::info!(dir = %self.dir.display(), "there is room for the log again");
                }
                Ok(segment)
            }
            Err(error) => {
                let reason = format!("segment {number} in {}: {error}", self.dir.display());
                if news {
                    tracing::warn!("no room for the log: {reason}");
                }
                // What is left behind is removed when the log is next opened.
                let _ = self.disk.remove_file(&path);
                Err(Error::Full(reason))
            }
        }
    }

    fn make_from(&self, path: &Path, number: u64, recycled: bool) -> std::io::Result<Arc<Segment>> {
        let mode = if recycled { OpenMode::ReadWrite } else { OpenMode::CreateNew };
        let file = self.disk.open(path, mode)?;
        match self.recycle {
            true => file.allocate(self.segment_bytes)?,
            false => file.reserve(self.segment_bytes)?,
        }
        let seed = Seed { segment: number, salt: self.random.u64() };
        let oldest = self.oldest();
        file.write_all_at(&SegmentHeader { seed, oldest }.encode(), 0)?;
        file.sync_all()?;
        self.disk.rename(path, &segment::path(&self.dir, number))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Arc::new(Segment::fresh(seed, file, self.segment_bytes)))
    }
}
