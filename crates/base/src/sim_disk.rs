//! A disk in memory that fails and crashes on command, for tests and
//! simulation.

mod content;
mod names;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::content::{Change, Content, Fate};
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
pub struct SimDisk(Arc<Mutex<State>>);

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
    fail_write: Option<u64>,
    fail_sync: Option<u64>,
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

    /// Makes the `nth` write from now fail half done (1 is the next).
    pub fn fail_write(&self, nth: u64) {
        self.0.lock().fail_write = Some(nth);
    }

    /// Makes the `nth` sync from now fail (1 is the next). What it should
    /// have synced stays readable but will never be durable, as on Linux.
    pub fn fail_sync(&self, nth: u64) {
        self.0.lock().fail_sync = Some(nth);
    }

    /// Bounds the sum of all file lengths; beyond it writes fail with
    /// [`io::ErrorKind::StorageFull`]. `None` takes the bound away.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Makes every call fail until the crash, so that whoever still runs
    /// changes nothing any more.
    pub fn halt(&self) {
        self.0.lock().halted = true;
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
        let state = self.0.lock();
        let copy = |content: &Arc<Mutex<Content>>| Content::stored(content.lock().seen.clone());
        let names = |path: &PathBuf, content| (path.clone(), copy(content));
        let names: Names = state.names.iter().map(|(p, c)| names(p, c)).collect();
        Self(Arc::new(Mutex::new(State {
            durable_names: names.clone(),
            names,
            directories: state.directories.clone(),
            capacity: state.capacity,
            ..State::default()
        })))
    }

    /// Flips the bits of `mask` in one stored byte. Nothing happens past the
    /// end of the file.
    pub fn damage(&self, path: &Path, offset: usize, mask: u8) -> io::Result<()> {
        let state = self.0.lock();
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
        self.0.lock().stats
    }

    fn cut(&self, fate: &mut dyn FnMut() -> Fate) {
        let state = &mut *self.0.lock();
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
        state.halted = false;
        (state.fail_write, state.fail_sync) = (None, None);
    }

    fn running(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.0.lock();
        match state.halted {
            true => Err(io::Error::other("the simulated disk is halted")),
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
                let content = Arc::default();
                state.change(NameChange::Add(path.to_owned(), Arc::clone(&content)));
                content
            }
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
        state.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        state.expect_directory(parent(to))?;
        let content = state.names.get(from).ok_or(io::ErrorKind::NotFound)?.clone();
        state.change(NameChange::Move(from.to_owned(), to.to_owned(), content));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        state.expect_directory(path)?;
        state.count_sync()?;
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
        let state = self.0.lock();
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

    fn count_sync(&mut self) -> io::Result<()> {
        self.stats.syncs += 1;
        fire(&mut self.fail_sync)
    }
}

/// Counts one operation towards a planned failure.
fn fire(countdown: &mut Option<u64>) -> io::Result<()> {
    match countdown {
        Some(0 | 1) => {
            *countdown = None;
            Err(io::Error::other("simulated input/output error"))
        }
        Some(left) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    generation: u64,
    writable: bool,
    content: Arc<Mutex<Content>>,
}

impl SimFile {
    fn running(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.running()?;
        match state.generation == self.generation {
            true => Ok(state),
            false => Err(io::Error::other("the simulated disk has crashed")),
        }
    }

    fn writing(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.writable {
            true => self.running(),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.running()?.stats.reads += 1;
        let content = self.content.lock();
        let rest = content.seen.get(position(offset)?..).unwrap_or(&[]);
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_all_vectored_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut state = self.writing()?;
        let mut bytes = parts.concat();
        let offset = position(offset)?;
        let length = self.content.lock().seen.len();
        state.reserve(length, offset + bytes.len())?;
        let result = fire(&mut state.fail_write);
        if result.is_err() {
            bytes.truncate(bytes.len() / 2);
        }
        state.stats.writes += 1;
        state.stats.written_bytes += bytes.len() as u64;
        self.content.lock().change(Change::Write(offset, bytes));
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let result = self.running()?.count_sync();
        let content = &mut *self.content.lock();
        for change in content.changes.drain(..) {
            if result.is_ok() {
                change.apply(&mut content.durable);
            }
        }
        result
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        let _state = self.running()?;
        Ok(self.content.lock().seen.len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let state = self.writing()?;
        let length = position(length)?;
        let before = self.content.lock().seen.len();
        state.reserve(before, length)?;
        self.content.lock().change(Change::SetLen(length));
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.writing()?;
        let length = position(length)?;
        let before = self.content.lock().seen.len();
        if length <= before {
            return Ok(());
        }
        state.reserve(before, length)?;
        state.stats.writes += 1;
        fire(&mut state.fail_write)?;
        self.content.lock().change(Change::SetLen(length));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file() -> (SimDisk, PathBuf, Arc<dyn DiskFile>) {
        let (disk, path) = (SimDisk::new(), PathBuf::from("/state/log"));
        disk.create_dir_all(parent(&path)).unwrap();
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        (disk, path, file)
    }

    fn contents(disk: &SimDisk, path: &Path) -> Vec<u8> {
        let file = disk.open(path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let (disk, path, file) = with_file();
        disk.sync_dir(parent(&path)).unwrap();
        file.write_all_at(b"synced", 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"unsure", 6).unwrap();
        assert_eq!(contents(&disk, &path), b"syncedunsure");
        disk.crash_dropping_all();
        assert_eq!(contents(&disk, &path), b"synced");
        assert!(file.len().is_err(), "a handle survived the crash");
    }

    #[test]
    fn names_need_their_directory_synced() {
        let (disk, path, file) = with_file();
        file.write_all_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        let other = path.with_extension("new");
        let forked = disk.fork();
        disk.crash_dropping_all();
        assert!(!disk.exists(&path));
        forked.rename(&path, &other).unwrap();
        forked.crash_dropping_all();
        assert_eq!(forked.read_dir(parent(&path)).unwrap(), std::slice::from_ref(&path));
        forked.rename(&path, &other).unwrap();
        forked.sync_dir(parent(&path)).unwrap();
        forked.remove_file(&other).unwrap();
        forked.crash_dropping_all();
        assert_eq!(contents(&forked, &other), b"x");
    }

    #[test]
    fn crashes_keep_drop_and_tear_by_seed() {
        let outcome = |seed| {
            let (disk, path, file) = with_file();
            file.sync_data().unwrap();
            disk.sync_dir(parent(&path)).unwrap();
            file.write_all_at(&[1; 1000], 100).unwrap();
            disk.crash(seed);
            contents(&disk, &path)
        };
        let all: Vec<Vec<u8>> = (0..50).map(outcome).collect();
        assert_eq!(all[7], outcome(7));
        assert!(all.iter().any(Vec::is_empty));
        assert!(all.iter().any(|b| b.len() == 1100 && b[100..] == [1; 1000]));
        let torn = |b: &Vec<u8>| b.len() == 1100 && b[100..512] == [0; 412] && b[512] == 1;
        assert!(all.iter().any(torn), "none torn at a sector");
    }

    #[test]
    fn planned_faults_fire_once() {
        let (disk, path, file) = with_file();
        disk.sync_dir(parent(&path)).unwrap();
        disk.fail_write(2);
        file.write_all_at(b"one!", 0).unwrap();
        assert!(file.write_all_vectored_at(&[b"tw", b"o!"], 4).is_err());
        assert_eq!(contents(&disk, &path), b"one!tw");
        disk.fail_sync(1);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        disk.crash_dropping_all();
        assert_eq!(contents(&disk, &path), b"", "a failed sync was repaired");
    }

    #[test]
    fn the_capacity_holds_and_overwriting_needs_none() {
        let (disk, path, file) = with_file();
        disk.set_capacity(Some(10));
        file.allocate(8).unwrap();
        file.write_all_at(b"12345678", 0).unwrap();
        let full = file.write_all_at(b"123", 8).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.available_bytes(&path).unwrap(), 2);
        disk.set_capacity(None);
        file.write_all_at(b"123", 8).unwrap();
    }

    #[test]
    fn a_halted_disk_does_nothing_until_the_crash() {
        let (disk, path, file) = with_file();
        disk.sync_dir(parent(&path)).unwrap();
        disk.halt();
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(disk.open(&path, OpenMode::Read).is_err());
        disk.crash(0);
        disk.damage(&path, 5, 1).unwrap();
        assert!(disk.damage(Path::new("/none"), 0, 1).is_err());
        assert_eq!(contents(&disk, &path), b"");
    }
}
