//! The machine's disk with a sync that takes longer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Disk, DiskFile, OpenMode, RealDisk};

/// Real files; each sync of a file's data takes at least so long.
#[derive(Debug)]
pub(crate) struct SlowDisk(pub(crate) Duration);

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>, Duration);

impl Disk for SlowDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(RealDisk.open(path, mode)?, self.0)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.read_dir(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.available_bytes(path)
    }

    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_vectored_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.0.write_all_vectored_at(parts, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        std::thread::sleep(self.1);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.0.reserve(length)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.punch_hole(offset, length)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.0.allocated_bytes()
    }
}
