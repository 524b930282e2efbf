//! Writing a sorted file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BufMut;
use postrider_base::{Disk, DiskFile, OpenMode};

use super::filter::Filter;
use super::merge::Entry;
use super::run::{Footer, Index, Run, put_row};
use crate::Error;

/// A block is ended when it has so many octets: one read of the disk, some 150 rows.
const BLOCK: usize = 4 << 10;
/// Octets that go to the disk at once.
const WRITE: usize = 256 << 10;

/// A file being written. Given up before [`Writer::finish`], it stays as garbage that the
/// next start removes.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Length of the file.
    written: u64,
    /// Blocks that are not in the file yet.
    waiting: Vec<u8>,
    block: Vec<u8>,
    /// The last key.
    last: Vec<u8>,
    index: Index,
    filter: Filter,
    rows: u64,
}

impl Writer {
    /// Begins a file of at most so many rows.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn new(disk: Arc<dyn Disk>, path: &Path, rows: u64) -> Result<Self, Error> {
        let file = disk.open(path, OpenMode::CreateNew).map_err(|error| Error::file(path, &error))?;
        Ok(Self {
            disk,
            path: path.to_owned(),
            file,
            written: 0,
            waiting: Vec::with_capacity(WRITE + BLOCK),
            block: Vec::with_capacity(2 * BLOCK),
            last: Vec::new(),
            index: Index::default(),
            filter: Filter::new(rows),
            rows: 0,
        })
    }

    /// Adds a row whose key is above all before, and has this hash.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::TooLarge`].
    pub(super) fn push(&mut self, entry: Entry, hash: u64) -> Result<(), Error> {
        debug_assert!(self.rows == 0 || self.last < entry.key, "rows come in the order of their keys");
        if self.block.is_empty() {
            let offset = self.written + self.waiting.len() as u64;
            self.index.push(&self.last, &entry.key, offset)?;
            self.last.clear();
        }
        put_row(&mut self.block, &self.last, &entry)?;
        self.last = entry.key;
        self.filter.insert(hash);
        self.rows += 1;
        if self.block.len() >= BLOCK {
            self.end_block()?;
        }
        Ok(())
    }

    /// Ends the file, which is on disk (synced) with its name when it returns; `None`, and
    /// no file, where no row was added.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn finish(mut self, number: u64) -> Result<Option<Run>, Error> {
        let path = self.path.clone();
        let failed = |error: std::io::Error| Error::file(&path, &error);
        if self.rows == 0 {
            self.disk.remove_file(&path).map_err(failed)?;
            return Ok(None);
        }
        if !self.block.is_empty() {
            self.end_block()?;
        }
        self.write()?;
        let (index, filter) = (self.index.to_bytes(), self.filter.to_bytes());
        let footer = Footer {
            rows: self.rows,
            blocks: self.written,
            index: index.len() as u64,
            filter: filter.len() as u64,
            index_crc: crc32fast::hash(&index),
            filter_crc: crc32fast::hash(&filter),
        };
        self.file.write_all_vectored_at(&[&index, &filter, &footer.to_bytes()], self.written).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        let disk = self.disk.clone();
        drop(self);
        if let Some(dir) = path.parent() {
            disk.sync_dir(dir).map_err(failed)?;
        }
        Run::open(&*disk, &path, number).map(Some)
    }

    fn end_block(&mut self) -> Result<(), Error> {
        let crc = crc32fast::hash(&self.block);
        self.block.put_u32_le(crc);
        self.waiting.append(&mut self.block);
        if self.waiting.len() >= WRITE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Error> {
        let written = self.file.write_all_at(&self.waiting, self.written);
        written.map_err(|error| Error::file(&self.path, &error))?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}
