//! A sorted file of rows, written once and then only read.
//!
//! ```text
//! file    blocks, index, filter, footer
//! block   rows in key order, about 4 KiB; CRC-32
//! row     octets that its key shares with the one before (u8), length of the rest (u16),
//!         length of the value (u16; 0: the row was removed), rest of the key, value
//! index   for each block: offset (u64), length (u16) and octets of a key that is above
//!         all before the block and not above its first
//! filter  a Bloom filter of all keys' hashes
//! footer  magic, number of rows (u64), lengths of blocks, index and filter (u64 each),
//!         CRC-32 of index, of filter, and of the footer before it
//! ```
//!
//! Numbers are little-endian. Index and filter are kept in memory, about 2 octets a row; a
//! row is found with one read of one block.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes};
use postrider_base::{Disk, DiskFile, OpenMode};

use super::filter::Filter;
use super::merge::Entry;
use crate::Error;

/// What the footer begins with; another number is another format.
const MAGIC: &[u8; 8] = b"prrun\0\0\x01";
const FOOTER: usize = 8 + 4 * 8 + 3 * 4;
/// Length of a checksum.
const CRC: usize = 4;
/// Length of a row beside its key and value.
const ROW_HEADER: usize = 5;

/// A file that is open, with what is kept of it in memory.
#[derive(Debug)]
pub(super) struct Run {
    /// Its number, which its name has.
    pub(super) number: u64,
    pub(super) path: PathBuf,
    file: Arc<dyn DiskFile>,
    rows: u64,
    index: Index,
    filter: Filter,
    /// A block of it could not be read.
    damaged: AtomicBool,
}

/// Where the blocks begin, and with which keys.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The first keys, shortened, one after the other.
    keys: Vec<u8>,
    /// Where each ends in `keys`, and where its block begins in the file.
    blocks: Vec<(u32, u64)>,
    /// Where the last block ends.
    end: u64,
}

/// The file's end, which says where all else is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Footer {
    pub(super) rows: u64,
    pub(super) blocks: u64,
    pub(super) index: u64,
    pub(super) filter: u64,
    pub(super) index_crc: u32,
    pub(super) filter_crc: u32,
}

impl Run {
    /// Opens a file, and reads what is kept in memory.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn open(disk: &dyn Disk, path: &Path, number: u64) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::file(path, &error);
        let damaged = |what: &str| Error::file(path, &format!("its {what} is damaged"));
        let file = disk.open(path, OpenMode::Read).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        let at = length.checked_sub(FOOTER as u64).ok_or_else(|| damaged("footer"))?;
        let mut bytes = vec![0; FOOTER];
        file.read_exact_at(&mut bytes, at).map_err(failed)?;
        let footer = Footer::from_bytes(&bytes).ok_or_else(|| damaged("footer"))?;
        if footer.length() != Some(length) {
            return Err(damaged("footer"));
        }
        let read = |at: u64, length: u64| {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut bytes, at).map_err(failed).map(|()| bytes)
        };
        let index = read(footer.blocks, footer.index)?;
        let filter = read(footer.blocks + footer.index, footer.filter)?;
        if crc32fast::hash(&index) != footer.index_crc || crc32fast::hash(&filter) != footer.filter_crc {
            return Err(damaged("index"));
        }
        Ok(Self {
            number,
            path: path.to_owned(),
            rows: footer.rows,
            index: Index::from_bytes(&index, footer.blocks).ok_or_else(|| damaged("index"))?,
            filter: Filter::from_bytes(&filter).ok_or_else(|| damaged("filter"))?,
            damaged: AtomicBool::new(false),
            file,
        })
    }

    /// Its rows, those included that say that a row was removed.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn memory(&self) -> usize {
        self.filter.bytes() + self.index.keys.capacity() + self.index.blocks.capacity() * size_of::<(u32, u64)>()
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.index.end
    }

    /// Whether a block of it could not be read.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Whether it may have a row of the key with this hash.
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// The value of a key; an empty one where the row was removed.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let Some(number) = self.index.block_of(key) else { return Ok(None) };
        let mut block = self.block(number)?;
        let cut = |reason: &str| self.damage(self.index.range(number).start, reason.to_owned());
        while let Some(value) = block.next().map_err(cut)? {
            if block.key.as_slice() >= key {
                let found = (block.key == key).then(|| Bytes::copy_from_slice(&block.bytes[value]));
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The rows from a key on, in key order; an error for each block that can not be read, whose
    /// rows are left out.
    pub(super) fn rows_from(self: Arc<Self>, from: &[u8]) -> Rows {
        let next = self.index.block_of(from).unwrap_or(0);
        Rows { run: self, next, block: Block::default(), from: from.to_vec() }
    }

    /// # Errors
    /// [`Error::Damaged`].
    fn block(&self, number: usize) -> Result<Block, Error> {
        let range = self.index.range(number);
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        let read = self.file.read_exact_at(&mut bytes, range.start);
        read.map_err(|error| self.damage(range.start, error.to_string()))?;
        let crc = bytes.split_off(bytes.len().saturating_sub(CRC));
        if crc != crc32fast::hash(&bytes).to_le_bytes() {
            return Err(self.damage(range.start, "its checksum is wrong".to_owned()));
        }
        Ok(Block { bytes, ..Block::default() })
    }

    fn damage(&self, at: u64, reason: String) -> Error {
        let error = Error::Damaged { path: self.path.display().to_string(), at, reason };
        if !self.damaged.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "rows are unknown; the file is left as it is, and others are gone on with");
        }
        error
    }
}

/// The rows of a file in key order. Made by [`Run::rows_from`].
pub(super) struct Rows {
    run: Arc<Run>,
    /// The block behind `block`.
    next: usize,
    block: Block,
    /// Rows below are passed over.
    from: Vec<u8>,
}

impl Rows {
    fn row(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            let cut = |reason: &str| self.run.damage(self.run.index.range(self.next - 1).start, reason.to_owned());
            while let Some(value) = self.block.next().map_err(cut)? {
                if self.block.key >= self.from {
                    let value = Bytes::copy_from_slice(&self.block.bytes[value]);
                    return Ok(Some(Entry { key: self.block.key.clone(), value }));
                }
            }
            if self.next >= self.run.index.blocks.len() {
                return Ok(None);
            }
            // Empty until it is read.
            self.block = Block::default();
            self.next += 1;
            self.block = self.run.block(self.next - 1)?;
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row().transpose()
    }
}

/// A block's octets, and how far they have been read.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    at: usize,
    /// The key of the row read last.
    key: Vec<u8>,
}

impl Block {
    /// Reads the next row's key; says where its value is. An error ends the block.
    fn next(&mut self) -> Result<Option<Range<usize>>, &'static str> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let row = self.row();
        if row.is_none() {
            *self = Self::default();
        }
        row.map(Some).ok_or("a row is cut short")
    }

    fn row(&mut self) -> Option<Range<usize>> {
        let mut rest = self.bytes.get(self.at..)?;
        let shared = usize::from(rest.try_get_u8().ok()?);
        let key = usize::from(rest.try_get_u16_le().ok()?);
        let value = usize::from(rest.try_get_u16_le().ok()?);
        if shared > self.key.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(rest.get(..key)?);
        let start = self.at + ROW_HEADER + key;
        self.at = start + value;
        (self.at <= self.bytes.len()).then_some(start..self.at)
    }
}

/// Appends a row to a block whose last key is `last`.
pub(super) fn put_row(block: &mut Vec<u8>, last: &[u8], entry: &Entry) -> Result<(), Error> {
    let too_large = |_| Error::TooLarge("a key or value over 4 KiB");
    let shared = shared(last, &entry.key).min(usize::from(u8::MAX));
    let rest = &entry.key[shared..];
    block.put_u8(u8::try_from(shared).map_err(too_large)?);
    block.put_u16_le(u16::try_from(rest.len()).map_err(too_large)?);
    block.put_u16_le(u16::try_from(entry.value.len()).map_err(too_large)?);
    block.put_slice(rest);
    block.put_slice(&entry.value);
    Ok(())
}

/// How many octets two keys begin with alike.
pub(super) fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Index {
    /// Adds a block that begins at `offset`, behind all keys up to `last`, with `first`.
    pub(super) fn push(&mut self, last: &[u8], first: &[u8], offset: u64) -> Result<(), Error> {
        // As much of the key as tells it from the one before.
        let length = if self.blocks.is_empty() { 0 } else { (shared(last, first) + 1).min(first.len()) };
        self.keys.extend_from_slice(&first[..length]);
        let end = u32::try_from(self.keys.len()).map_err(|_| Error::TooLarge("a sorted file's index over 4 GiB"))?;
        self.blocks.push((end, offset));
        Ok(())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.keys.len() + self.blocks.len() * 10);
        for number in 0..self.blocks.len() {
            let key = self.key(number);
            bytes.put_u64_le(self.blocks[number].1);
            // Keys are at most 4 KiB long.
            bytes.put_u16_le(u16::try_from(key.len()).unwrap_or(u16::MAX));
            bytes.put_slice(key);
        }
        bytes
    }

    /// What [`Index::to_bytes`] wrote, of blocks that end at `end`.
    fn from_bytes(mut bytes: &[u8], end: u64) -> Option<Self> {
        let mut index = Self { end, ..Self::default() };
        let mut last = 0;
        while !bytes.is_empty() {
            let offset = bytes.try_get_u64_le().ok()?;
            let length = usize::from(bytes.try_get_u16_le().ok()?);
            index.keys.extend_from_slice(bytes.get(..length)?);
            bytes.advance(length);
            index.blocks.push((u32::try_from(index.keys.len()).ok()?, offset));
            if offset < last || offset + CRC as u64 > end {
                return None;
            }
            last = offset;
        }
        index.keys.shrink_to_fit();
        index.blocks.shrink_to_fit();
        Some(index)
    }

    fn key(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.blocks[before].0);
        &self.keys[start as usize..self.blocks[number].0 as usize]
    }

    /// The block that a key is in, if it is in any.
    fn block_of(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.blocks.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) <= key { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    fn range(&self, number: usize) -> Range<u64> {
        let end = self.blocks.get(number + 1).map_or(self.end, |(_, offset)| *offset);
        self.blocks[number].1..end
    }
}

impl Footer {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [self.rows, self.blocks, self.index, self.filter] {
            bytes.put_u64_le(number);
        }
        bytes.put_u32_le(self.index_crc);
        bytes.put_u32_le(self.filter_crc);
        bytes.put_u32_le(crc32fast::hash(&bytes));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_at_checked(FOOTER - CRC)?;
        let mut rest = content.strip_prefix(MAGIC)?;
        if crc != crc32fast::hash(content).to_le_bytes() {
            return None;
        }
        Some(Self {
            rows: rest.get_u64_le(),
            blocks: rest.get_u64_le(),
            index: rest.get_u64_le(),
            filter: rest.get_u64_le(),
            index_crc: rest.get_u32_le(),
            filter_crc: rest.get_u32_le(),
        })
    }

    /// Of the whole file.
    fn length(&self) -> Option<u64> {
        self.blocks.checked_add(self.index)?.checked_add(self.filter)?.checked_add(FOOTER as u64)
    }
}
