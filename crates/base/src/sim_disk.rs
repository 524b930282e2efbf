//! A disk in memory that fails and crashes on command, for tests and
//! simulation.

mod content;
mod faults;
mod file;
mod names;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::content::{Content, Fate};
use self::faults::Faults;
pub use self::faults::{Fault, Operation};
use self::file::SimFile;
use self::names::{NameChange, Names, parent};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::random::Random;

/// A disk in memory. A cheap handle; clones are the same disk, which outlives
/// a [`SimDisk::crash`], so that what was stored can be opened again.
///
/// It forgets what a real disk may forget: bytes until their file is synced,
/// created, renamed and removed names until their directory is synced.
/// Directories themselves are durable at once.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    device: Arc<Device>,
    /// The generation that this handle serves; none for every one.
    process: Option<u64>,
}

#[derive(Debug, Default)]
struct Device {
    state: Mutex<State>,
    /// Whoever waits for a sync looks again.
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    durable_names: Names,
    /// Not yet synced, oldest first.
    name_changes: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    /// Handles of an earlier one are dead.
    generation: u64,
    halted: bool,
    capacity: Option<u64>,
    faults: Faults,
    /// Syncs wait.
    stalled: bool,
    stats: SimStats,
}

/// What was asked of a [`SimDisk`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimStats {
    /// Reads.
    pub reads: u64,
    /// Writes and allocations, each vectored one counted once.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
}

impl SimDisk {
    /// An empty disk without faults or limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle for a process: the next [`SimDisk::crash`] or
    /// [`SimDisk::kill`] ends it, so that whoever of the process still runs
    /// changes nothing any more.
    #[must_use]
    pub fn for_process(&self) -> Self {
        let process = Some(self.state().generation);
        Self { device: self.device.clone(), process }
    }

    /// Makes the `nth` of these operations from now fail (1 is the next), once.
    pub fn fail(&self, operation: Operation, nth: u64, fault: Fault) {
        self.state().faults.plan(operation, nth, fault);
    }

    /// Makes the `nth` write from now fail half done (1 is the next).
    pub fn fail_write(&self, nth: u64) {
        self.fail(Operation::Write, nth, Fault::InputOutput);
    }

    /// Makes the `nth` sync from now fail (1 is the next). What it should
    /// have synced stays readable but will never be durable, as on Linux.
    pub fn fail_sync(&self, nth: u64) {
        self.fail(Operation::Sync, nth, Fault::InputOutput);
    }

    /// Makes everything that would change something fail with
    /// [`Fault::ReadOnly`], or ends that. What was not synced by then never
    /// is: a journal that was aborted writes nothing more.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().faults.read_only = read_only;
    }

    /// Makes syncs wait until this is called with false, as on a device that
    /// does not answer. Only for those who sync on a thread of their own.
    pub fn stall_syncs(&self, stalled: bool) {
        self.state().stalled = stalled;
        self.device.moved.notify_all();
    }

    /// Bounds the sum of all file lengths; beyond it writes fail with
    /// [`io::ErrorKind::StorageFull`]. `None` takes the bound away.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Makes every call fail until the crash, so that whoever still runs
    /// changes nothing any more.
    pub fn halt(&self) {
        self.state().halted = true;
        self.device.moved.notify_all();
    }

    /// Ends the process but not the machine: open files are dead from now on,
    /// and what was written stays, synced or not.
    pub fn kill(&self) {
        let mut state = self.state();
        state.generation += 1;
        (state.halted, state.stalled) = (false, false);
        self.device.moved.notify_all();
    }

    /// Cuts the power: each unsynced write and name change is, by `seed`,
    /// kept, dropped or (writes) torn between sectors of 512 bytes,
    /// independently of the others. Open files are dead from now on; faults
    /// that had been set are gone, the capacity stays.
    pub fn crash(&self, seed: u64) {
        let random = Random::seeded(seed);
        self.cut(&mut || match random.below(3) {
            0 => Fate::Keep,
            1 => Fate::Drop,
            _ => Fate::Tear(random.u64()),
        });
    }

    /// As [`SimDisk::crash`], dropping everything unsynced.
    pub fn crash_dropping_all(&self) {
        self.cut(&mut || Fate::Drop);
    }

    /// Another disk with what can be read here now, all of it durable.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.state();
        let copy = |content: &Arc<Mutex<Content>>| Content::stored(content.lock().seen.clone());
        let names = |path: &PathBuf, content| (path.clone(), copy(content));
        let names: Names = state.names.iter().map(|(p, c)| names(p, c)).collect();
        let state = State {
            durable_names: names.clone(),
            names,
            directories: state.directories.clone(),
            capacity: state.capacity,
            ..State::default()
        };
        let device = Device { state: Mutex::new(state), moved: Condvar::new() };
        Self { device: Arc::new(device), process: None }
    }

    /// Flips the bits of `mask` in one stored byte. Nothing happens past the
    /// end of the file.
    pub fn damage(&self, path: &Path, offset: usize, mask: u8) -> io::Result<()> {
        let state = self.state();
        let content = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let content = &mut *content.lock();
        for bytes in [&mut content.seen, &mut content.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
            }
        }
        Ok(())
    }

    /// What was asked of the disk so far.
    pub fn stats(&self) -> SimStats {
        self.state().stats
    }

    fn cut(&self, fate: &mut dyn FnMut() -> Fate) {
        let state = &mut *self.state();
        for change in std::mem::take(&mut state.name_changes) {
            if !matches!(fate(), Fate::Drop) {
                change.apply(&mut state.durable_names);
            }
        }
        for content in state.durable_names.values_mut() {
            let left = content.lock().after_crash(fate);
            *content = Content::stored(left);
        }
        state.names = state.durable_names.clone();
        state.generation += 1;
        (state.halted, state.stalled) = (false, false);
        state.faults = Faults::default();
        self.device.moved.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.device.state.lock()
    }

    fn running(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        match self.process.is_some_and(|process| process != state.generation) {
            true => Err(io::Error::other("the process on the simulated disk is dead")),
            false if state.halted => Err(io::Error::other("the simulated disk is halted")),
            false => Ok(state),
        }
    }

    /// As [`SimDisk::running`], for a sync: waits while they are stalled.
    fn syncing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.running()?;
        let generation = state.generation;
        while state.stalled && !state.halted {
            self.device.moved.wait(&mut state);
        }
        match state.halted || state.generation != generation {
            true => Err(io::Error::other("the simulated disk has crashed")),
            false => Ok(state),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.running()?;
        let content = match (mode, state.names.get(path)) {
            (OpenMode::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => {
                state.expect_directory(parent(path))?;
                state.faults.change(Operation::Create)?;
                let content = Arc::default();
                state.change(NameChange::Add(path.to_owned(), Arc::clone(&content)));
                content
            }
            (OpenMode::ReadWrite, Some(_)) if state.faults.read_only => return Err(Fault::ReadOnly.error()),
            (_, Some(content)) => content.clone(),
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            generation: state.generation,
            writable: mode != OpenMode::Read,
            content,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        if state.directories.contains(path) {
            return Ok(());
        }
        state.faults.change(Operation::Create)?;
        state.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.running()?;
        state.expect_directory(path)?;
        let files = state.names.keys();
        let inside = files.chain(&state.directories).filter(|p| parent(p) == path && **p != path);
        let mut paths: Vec<PathBuf> = inside.cloned().collect();
        paths.sort();
        Ok(paths)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.faults.change(Operation::Remove)?;
        state.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        state.expect_directory(parent(to))?;
        let content = state.names.get(from).ok_or(io::ErrorKind::NotFound)?.clone();
        state.faults.change(Operation::Rename)?;
        state.change(NameChange::Move(from.to_owned(), to.to_owned(), content));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.syncing()?;
        state.expect_directory(path)?;
        let unsynced = state.name_changes.iter().any(|change| change.touches(path));
        state.count_sync(unsynced)?;
        state.faults.fire(Operation::SyncDirectory)?;
        let changes = std::mem::take(&mut state.name_changes);
        let (synced, left) = changes.into_iter().partition(|change| change.touches(path));
        state.name_changes = left;
        let synced: Vec<NameChange> = synced;
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.running()?;
        let left = |capacity: u64| capacity.saturating_sub(state.used());
        Ok(state.capacity.map_or(1 << 50, left))
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state();
        state.names.contains_key(path) || state.directories.contains(path)
    }
}

impl State {
    fn expect_directory(&self, path: &Path) -> io::Result<()> {
        match self.directories.contains(path) || path == Path::new("") || path == Path::new("/") {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn used(&self) -> u64 {
        let lengths = self.names.values().map(|content| content.lock().seen.len());
        lengths.sum::<usize>() as u64
    }

    /// Fails when a file of `length` bytes cannot become `wanted` long.
    fn reserve(&self, length: usize, wanted: usize) -> io::Result<()> {
        let growth = wanted.saturating_sub(length) as u64;
        match self.capacity {
            Some(capacity) if growth > 0 && self.used() + growth > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// A read-only file system still syncs what needs no writing.
    fn count_sync(&mut self, unsynced: bool) -> io::Result<()> {
        self.stats.syncs += 1;
        match unsynced {
            true => self.faults.change(Operation::Sync),
            false => self.faults.fire(Operation::Sync),
        }
    }
}

#[cfg(test)]
mod tests;
