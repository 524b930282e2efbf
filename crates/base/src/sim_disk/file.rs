//! An open file of a simulated disk.

use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::content::{Change, Content};
use super::faults::Operation;
use super::{SimDisk, State};
use crate::disk::DiskFile;

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    /// Of the disk when it was opened.
    pub(super) generation: u64,
    pub(super) writable: bool,
    pub(super) content: Arc<Mutex<Content>>,
}

impl SimFile {
    fn running(&self) -> io::Result<MutexGuard<'_, State>> {
        self.of_this_life(self.disk.running()?)
    }

    fn of_this_life<'a>(&self, state: MutexGuard<'a, State>) -> io::Result<MutexGuard<'a, State>> {
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
        let mut state = self.running()?;
        state.stats.reads += 1;
        state.faults.fire(Operation::Read)?;
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
        if state.faults.read_only {
            return state.faults.change(Operation::Write);
        }
        let result = state.faults.fire(Operation::Write);
        if result.is_err() {
            bytes.truncate(bytes.len() / 2);
        }
        state.stats.writes += 1;
        state.stats.written_bytes += bytes.len() as u64;
        self.content.lock().change(Change::Write(offset, bytes));
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.of_this_life(self.disk.syncing()?)?;
        let content = &mut *self.content.lock();
        let result = state.count_sync(!content.changes.is_empty());
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
        let mut state = self.writing()?;
        let length = position(length)?;
        let before = self.content.lock().seen.len();
        state.reserve(before, length)?;
        state.faults.change(Operation::Write)?;
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
        state.faults.change(Operation::Write)?;
        self.content.lock().change(Change::SetLen(length));
        Ok(())
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut state = self.writing()?;
        state.faults.change(Operation::Write)?;
        let (from, length) = (position(offset)?, position(length)?);
        let mut content = self.content.lock();
        let to = from.saturating_add(length).min(content.seen.len());
        content.change(Change::Write(from, vec![0; to.saturating_sub(from)]));
        Ok(())
    }

    /// Blocks of zeros count as holes.
    fn allocated_bytes(&self) -> io::Result<u64> {
        const BLOCK: usize = 4096;
        let _state = self.running()?;
        let content = self.content.lock();
        let used = content.seen.chunks(BLOCK).filter(|block| block.iter().any(|byte| *byte != 0));
        Ok(used.map(<[u8]>::len).sum::<usize>() as u64)
    }
}
