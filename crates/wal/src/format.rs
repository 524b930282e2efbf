//! The bytes of a segment, as the crate's page lays them out.
//!
//! All numbers are little-endian. Every structure begins with a magic number
//! and the CRC-32 of the rest of it.

use bytes::{Buf, BufMut, Bytes};
use crc32fast::Hasher;

use crate::{Error, Location, Lsn, Replayed};

/// The format that is read and written here.
pub(crate) const VERSION: u32 = 1;
/// Where a segment's first batch begins: after the block of its header.
pub(crate) const DATA_START: u64 = 4096;
/// The same as a length.
const HEADER_BLOCK: usize = 4096;
/// Where the second copy of the segment's header is, in another sector.
const COPY_AT: usize = 2048;
/// Length of the end mark of a sealed segment.
pub(crate) const TRAILER: usize = 64;
/// Length of a batch's header.
pub(crate) const BATCH_HEADER: usize = 56;
/// What one batch takes in the footer beside its header, table and heads.
pub(crate) const FOOTER_OFFSET: usize = 8;
/// Length of an entry in a batch's table.
const TABLE_ENTRY: usize = 13;

const SEGMENT_MAGIC: &[u8; 4] = b"pwS\x91";
/// What a batch begins with.
pub(crate) const BATCH_MAGIC: &[u8; 4] = b"pwB\x92";
const TRAILER_MAGIC: &[u8; 4] = b"pwT\x93";

/// What makes a checksum good at one place of one use of one file only, so
/// that bytes left in a recycled file, or brought in from outside inside a
/// body, never pass for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) segment: u64,
    /// Random, drawn each time a file becomes a segment.
    pub(crate) salt: u64,
}

impl Seed {
    fn crc(self, offset: u64, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(&self.segment.to_le_bytes());
        hasher.update(&offset.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// CRC-32 of bytes whose checksum is itself under a seeded one.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Checks magic and checksum; what follows them.
fn checked<'a>(bytes: &'a [u8], magic: &[u8; 4], crc: impl Fn(&[u8]) -> u32) -> Option<&'a [u8]> {
    let (mut front, rest) = bytes.split_at_checked(8)?;
    let good = front.starts_with(magic) && {
        front.advance(4);
        front.get_u32_le() == crc(rest)
    };
    good.then_some(rest)
}

/// Fills in the checksum of a structure that was encoded with a blank one.
fn stamp(bytes: &mut [u8], crc: impl Fn(&[u8]) -> u32) {
    let sum = crc(&bytes[8..]);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// The start of a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) seed: Seed,
    /// The oldest segment that was in use when this one was made.
    pub(crate) oldest: u64,
}

impl SegmentHeader {
    const BYTES: usize = 8 + 4 + 3 * 8;

    /// The whole first block, with both copies.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut one = Vec::with_capacity(Self::BYTES);
        one.put_slice(SEGMENT_MAGIC);
        one.put_u32_le(0);
        one.put_u32_le(VERSION);
        one.put_u64_le(self.seed.segment);
        one.put_u64_le(self.oldest);
        one.put_u64_le(self.seed.salt);
        stamp(&mut one, crc);
        let mut block = vec![0; HEADER_BLOCK];
        block[..one.len()].copy_from_slice(&one);
        block[COPY_AT..COPY_AT + one.len()].copy_from_slice(&one);
        block
    }

    /// Reads a first block: the header from whichever copy is good, and where
    /// a bad copy is.
    pub(crate) fn decode(block: &[u8], segment: u64) -> Result<Option<(Self, Option<u64>)>, Error> {
        let at = |at: usize| Self::decode_one(block.get(at..at + Self::BYTES), segment);
        Ok(match (at(0)?, at(COPY_AT)?) {
            (Some(header), Some(_)) => Some((header, None)),
            (Some(header), None) => Some((header, Some(COPY_AT as u64))),
            (None, Some(header)) => Some((header, Some(0))),
            (None, None) => None,
        })
    }

    fn decode_one(bytes: Option<&[u8]>, segment: u64) -> Result<Option<Self>, Error> {
        let Some(mut rest) = bytes.and_then(|bytes| checked(bytes, SEGMENT_MAGIC, crc)) else {
            return Ok(None);
        };
        check_version(rest.get_u32_le(), segment)?;
        let (number, oldest, salt) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        let seed = Seed { segment, salt };
        Ok((number == segment).then_some(Self { seed, oldest }))
    }
}

fn check_version(found: u32, segment: u64) -> Result<(), Error> {
    if found == VERSION {
        return Ok(());
    }
    Err(Error::Version { segment, found, known: VERSION })
}

/// The end of a sealed segment's file: where the footer is, and what the
/// segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) footer_offset: u64,
    pub(crate) footer_len: u64,
    pub(crate) footer_crc: u32,
    /// The first batch; [`Self::next_lsn`] when there is none.
    pub(crate) first_lsn: u64,
    /// The batch that comes after this segment.
    pub(crate) next_lsn: u64,
    /// The oldest segment in use when this one was sealed.
    pub(crate) oldest: u64,
}

impl Trailer {
    /// For a trailer that lies at `offset`.
    pub(crate) fn encode(self, seed: Seed, offset: u64) -> [u8; TRAILER] {
        let mut bytes = Vec::with_capacity(TRAILER);
        bytes.put_slice(TRAILER_MAGIC);
        bytes.put_u32_le(0);
        bytes.put_u32_le(VERSION);
        bytes.put_u32_le(self.footer_crc);
        bytes.put_u64_le(self.footer_offset);
        bytes.put_u64_le(self.footer_len);
        bytes.put_u64_le(self.first_lsn);
        bytes.put_u64_le(self.next_lsn);
        bytes.put_u64_le(self.oldest);
        let mut trailer = [0; TRAILER];
        trailer[..bytes.len()].copy_from_slice(&bytes);
        stamp(&mut trailer, |rest| seed.crc(offset, rest));
        trailer
    }

    pub(crate) fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..TRAILER)?;
        let mut rest = checked(bytes, TRAILER_MAGIC, |rest| seed.crc(offset, rest))?;
        rest.advance(4);
        let footer_crc = rest.get_u32_le();
        let trailer = Self {
            footer_crc,
            footer_offset: rest.get_u64_le(),
            footer_len: rest.get_u64_le(),
            first_lsn: rest.get_u64_le(),
            next_lsn: rest.get_u64_le(),
            oldest: rest.get_u64_le(),
        };
        (trailer.footer_offset.checked_add(trailer.footer_len) == Some(offset)).then_some(trailer)
    }
}

/// The start of a batch. Its checksum covers the one over table and heads,
/// and those the checksums of the bodies: one seal over all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) entries: u16,
    /// Length of table and heads.
    pub(crate) heads_len: u32,
    /// Length of all bodies.
    pub(crate) bodies_len: u64,
    pub(crate) lsn: u64,
    /// The last batch that was synced when this one was written.
    pub(crate) synced: u64,
    /// The oldest segment in use when this batch was written.
    pub(crate) oldest: u64,
    /// Checksum of table and heads.
    pub(crate) heads_crc: u32,
}

impl BatchHeader {
    /// Writes the header over the first bytes of `bytes`, for a batch that
    /// lies at `offset`.
    pub(crate) fn encode_into(self, bytes: &mut [u8], seed: Seed, offset: u64) {
        let (header, _) = bytes.split_at_mut(BATCH_HEADER);
        let mut at = &mut header[..];
        at.put_slice(BATCH_MAGIC);
        at.put_u32_le(0);
        at.put_u16_le(u16::try_from(VERSION).unwrap_or(u16::MAX));
        at.put_u16_le(self.entries);
        at.put_u32_le(self.heads_len);
        at.put_u64_le(self.bodies_len);
        at.put_u64_le(self.lsn);
        at.put_u64_le(self.synced);
        at.put_u64_le(self.oldest);
        at.put_u32_le(self.heads_crc);
        at.put_u32_le(0);
        stamp(header, |rest| seed.crc(offset, rest));
    }

    /// The header of a batch at `offset`, if there is one.
    pub(crate) fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Result<Option<Self>, Error> {
        let header =
            bytes.get(..BATCH_HEADER).and_then(|bytes| checked(bytes, BATCH_MAGIC, |rest| seed.crc(offset, rest)));
        let Some(mut rest) = header else {
            return Ok(None);
        };
        check_version(u32::from(rest.get_u16_le()), seed.segment)?;
        Ok(Some(Self {
            entries: rest.get_u16_le(),
            heads_len: rest.get_u32_le(),
            bodies_len: rest.get_u64_le(),
            lsn: rest.get_u64_le(),
            synced: rest.get_u64_le(),
            oldest: rest.get_u64_le(),
            heads_crc: rest.get_u32_le(),
        }))
    }

    /// Length of header, table and heads.
    pub(crate) fn prefix_len(&self) -> u64 {
        BATCH_HEADER as u64 + u64::from(self.heads_len)
    }

    /// Length of the whole batch.
    pub(crate) fn len(&self) -> u64 {
        self.prefix_len().saturating_add(self.bodies_len)
    }

    /// The entries of a batch at `offset`, from its table and heads; `None`
    /// when these are not what the header says.
    pub(crate) fn entries(&self, heads: &Bytes, seed: Seed, offset: u64) -> Option<Vec<Replayed>> {
        if heads.len() as u64 != u64::from(self.heads_len) || crc(heads) != self.heads_crc {
            return None;
        }
        let mut entries = Vec::with_capacity(usize::from(self.entries));
        self.each_entry(heads, seed, offset, |entry| entries.push(entry))?;
        Some(entries)
    }

    /// Hands out the entries as table and heads say, which nobody has verified.
    /// `None` when they end early or late.
    pub(crate) fn each_entry(
        &self,
        heads: &Bytes,
        seed: Seed,
        offset: u64,
        mut take: impl FnMut(Replayed),
    ) -> Option<()> {
        let mut table = heads.get(..usize::from(self.entries) * TABLE_ENTRY)?;
        let mut head_at = table.len();
        let mut body_at = offset + self.prefix_len();
        for index in 0..self.entries {
            let kind = table.get_u8();
            let head_end = head_at.checked_add(usize::try_from(table.get_u32_le()).ok()?)?;
            let (len, crc) = (table.get_u32_le(), table.get_u32_le());
            if head_end > heads.len() {
                return None;
            }
            take(Replayed {
                lsn: Lsn::new(self.lsn),
                index,
                kind,
                head: heads.slice(head_at..head_end),
                location: Location { segment: seed.segment, offset: body_at, len, crc },
            });
            head_at = head_end;
            body_at = body_at.checked_add(u64::from(len))?;
        }
        (head_at == heads.len() && body_at == offset + self.len()).then_some(())
    }
}

/// Writes one entry of a batch's table, which is in front of all heads; how
/// long it is.
pub(crate) fn put_table_entry(mut table: &mut [u8], kind: u8, head_len: u32, body_len: u32, crc: u32) -> usize {
    table.put_u8(kind);
    table.put_u32_le(head_len);
    table.put_u32_le(body_len);
    table.put_u32_le(crc);
    TABLE_ENTRY
}

/// Room that a batch's table takes.
pub(crate) const fn table_len(entries: usize) -> usize {
    entries * TABLE_ENTRY
}
