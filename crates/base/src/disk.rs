//! Files of durable state, injectable.

use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

/// A place for files whose loss after a power cut is understood.
///
/// Names follow the file system's rules: a created, renamed or removed name
/// is durable after [`Disk::sync_dir`] of its directory, a file's bytes after
/// [`DiskFile::sync_data`]. Calls block.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory and its parents, for the owner only; an existing one
    /// is left as it is.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The paths of a directory's entries, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Takes a file's name away.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that this process could still write below `path`.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Whether a file or directory has this name.
    fn exists(&self, path: &Path) -> bool;
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file for reading and writing, readable by its owner only; an
    /// existing one is an error ([`io::ErrorKind::AlreadyExists`]).
    CreateNew,
}

/// An open file. All positions are bytes from its start; there is no cursor,
/// so that a handle is shared freely.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `parts` one after the other, in as few calls to the
    /// system as it takes. Gaps read as zeros.
    fn write_all_vectored_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Makes the bytes written so far, and the length needed to read them,
    /// durable. After an error nobody knows what is durable: never retry.
    fn sync_data(&self) -> io::Result<()>;
    /// As [`DiskFile::sync_data`], with all of the file's metadata.
    fn sync_all(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it with a hole of zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Extends the file to `length` with written zeros, so that later writes
    /// below it need no space. Shorter or equal lengths change nothing.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Extends the file to `length` with space that reads as zeros and was
    /// never written: quicker than [`DiskFile::allocate`], but the first
    /// write of a block changes the file system's metadata.
    fn reserve(&self, length: u64) -> io::Result<()> {
        self.allocate(length)
    }
    /// Gives the space of a stretch back to the file system as far as it is
    /// whole blocks; all of it reads as zeros from then on. The length stays.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system can not.
    fn punch_hole(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Bytes that the file takes on the disk, holes not counted.
    fn allocated_bytes(&self) -> io::Result<u64> {
        self.len()
    }

    /// Reads exactly `buffer.len()` bytes, or fails with
    /// [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buffer, offset)? {
            n if n == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Writes all of `bytes`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_vectored_at(&[bytes], offset)
    }

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The operating system's file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(mode != OpenMode::Read)
            .create_new(mode == OpenMode::CreateNew)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// One system call takes at most this many parts (Linux's `IOV_MAX`).
const MAX_PARTS: usize = 1024;

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_all_vectored_at(&self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        for parts in parts.chunks(MAX_PARTS) {
            let mut slices: Vec<IoSlice<'_>> =
                parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                match rustix::io::pwritev(&self.0, rest, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => {
                        offset += n as u64;
                        IoSlice::advance_slices(&mut rest, n);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        // Written zeros, not fallocate: overwriting a written block syncs
        // without touching the file system's metadata.
        const CHUNK: usize = 1 << 20;
        let zeros = vec![0; CHUNK];
        let mut at = self.len()?;
        while at < length {
            let n = usize::try_from(length - at).unwrap_or(CHUNK).min(CHUNK);
            self.write_all_at(&zeros[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        let at = self.len()?;
        if length <= at {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), at, length - at) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => self.allocate(length),
            Err(error) => Err(error.into()),
        }
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0, flags, offset, length) {
            Err(rustix::io::Errno::OPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
            result => Ok(result?),
        }
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        // In units of 512 bytes, whatever the block size: see stat(2).
        Ok(self.0.metadata()?.blocks() * 512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_more_parts_than_one_call_takes_and_reads_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        RealDisk.create_dir_all(path.parent().unwrap()).unwrap();
        let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..3000u32).flat_map(u32::to_le_bytes).collect();
        let parts: Vec<&[u8]> = bytes.chunks(4).chain([&[][..]]).collect();
        file.write_all_vectored_at(&parts, 5).unwrap();
        file.sync_data().unwrap();
        let mut back = vec![1; bytes.len() + 5];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back[..5], [0; 5]);
        assert_eq!(back[5..], bytes);
        assert_eq!(file.read_at(&mut back, 12_000).unwrap(), 5);
        let error = file.read_exact_at(&mut back, 12_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn allocation_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        file.allocate(1_500_000).unwrap();
        file.allocate(10).unwrap();
        assert_eq!(file.len().unwrap(), 1_500_000);
        let mut head = [1; 6];
        file.read_exact_at(&mut head, 0).unwrap();
        assert_eq!(&head, b"kept\0\0");
    }

    #[test]
    fn space_is_reserved_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[7; 5000], 0).unwrap();
        file.reserve(100_000).unwrap();
        file.reserve(100).unwrap();
        assert_eq!(file.len().unwrap(), 100_000);
        let full = file.allocated_bytes().unwrap();
        assert!(full >= 100_000, "{full}");
        file.punch_hole(4_500, 70_000).unwrap();
        assert_eq!(file.len().unwrap(), 100_000);
        let left = file.allocated_bytes().unwrap();
        assert!(left + 60_000 < full, "{left} of {full}");
        let mut bytes = [1; 5000];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((&bytes[..4500], &bytes[4500..]), (&[7; 4500][..], &[0; 500][..]));
    }

    #[test]
    fn names_behave() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(RealDisk.open(&a, OpenMode::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
        RealDisk.open(&a, OpenMode::CreateNew).unwrap();
        let again = RealDisk.open(&a, OpenMode::CreateNew).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        RealDisk.rename(&a, &b).unwrap();
        RealDisk.sync_dir(dir.path()).unwrap();
        assert_eq!(RealDisk.read_dir(dir.path()).unwrap(), std::slice::from_ref(&b));
        RealDisk.remove_file(&b).unwrap();
        assert!(!RealDisk.exists(&b));
        assert!(RealDisk.available_bytes(dir.path()).unwrap() > 0);
    }
}
