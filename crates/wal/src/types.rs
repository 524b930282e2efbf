//! What callers hand in and get back.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The number of a batch: strictly increasing, without gaps, from 1. Zero
/// stands for "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first batch.
    pub const ZERO: Self = Self(0);

    /// The batch of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The batch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an entry's body is, and its checksum. Good until its segment is
/// retired; a reopened log keeps it valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// Number of the segment.
    pub segment: u64,
    /// Position of the body's first byte in the segment's file.
    pub offset: u64,
    /// Length of the body in bytes; 0 for an entry without one.
    pub len: u32,
    /// CRC-32 of the body.
    pub crc: u32,
}

impl Location {
    /// Length of [`Location::to_bytes`].
    pub const BYTES: usize = 24;

    /// As bytes, for an index.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.segment.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_be_bytes());
        bytes[20..].copy_from_slice(&self.crc.to_be_bytes());
        bytes
    }

    /// What [`Location::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let number =
            |at: usize, len: usize| bytes[at..at + len].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let short = |at| u32::try_from(number(at, 4)).unwrap_or(u32::MAX);
        Self { segment: number(0, 8), offset: number(8, 8), len: short(16), crc: short(20) }
    }
}

/// One sub-record of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The owner's mark of what this is; the log only carries it.
    pub kind: u8,
    /// What recovery and the owner's index need: kept in the segment's footer
    /// too, handed back by replay. At most [`Entry::MAX_HEAD`] bytes.
    pub head: Bytes,
    /// What only [`crate::Log::read`] needs. Written from where it lies,
    /// never copied; at most 4 GiB - 1 in all.
    pub body: Vec<Bytes>,
}

impl Entry {
    /// The longest head: 1 MiB.
    pub const MAX_HEAD: usize = 1 << 20;

    /// An entry that is all head.
    #[must_use]
    pub fn head_only(kind: u8, head: impl Into<Bytes>) -> Self {
        Self { kind, head: head.into(), body: Vec::new() }
    }
}

/// What a commit waits for, and so what it survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Resolves when the batch is handed to the operating system, with the
    /// next group: it then survives the end of this process, but not a power
    /// cut until it is synced, which the next [`Durability::Synced`] batch or
    /// [`crate::Options::buffered_sync`] does.
    Buffered,
    /// Resolves after `fdatasync`: survives a power cut.
    Synced,
}

/// A batch that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its number.
    pub lsn: Lsn,
    /// One per entry, in order.
    pub locations: SmallVec<[Location; 1]>,
}

/// An entry, as recovery and the feed hand it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Number of its batch.
    pub lsn: Lsn,
    /// Its place in the batch, from 0.
    pub index: u16,
    /// [`Entry::kind`].
    pub kind: u8,
    /// [`Entry::head`]. Often a slice of a larger buffer, which it keeps
    /// alive: copy what is kept long.
    pub head: Bytes,
    /// Where the body is.
    pub location: Location,
}

/// One segment that is in use, as [`crate::Log::segments`] lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number; numbers go up by one.
    pub number: u64,
    /// Bytes that its batches take, heads and bodies.
    pub bytes: u64,
    /// Bytes that its file takes on disk.
    pub file_bytes: u64,
    /// Its first batch; none in a segment that has not been written yet.
    pub first_lsn: Option<Lsn>,
    /// Its last batch.
    pub last_lsn: Option<Lsn>,
    /// Nothing will be appended to it any more.
    pub sealed: bool,
}

/// Counters since the log was opened, and what it takes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk now: segments in use and spare ones.
    pub bytes: u64,
    /// Segments in use now, the one being written included.
    pub segments: u64,
    /// Groups written.
    pub groups: u64,
    /// Batches written.
    pub batches: u64,
    /// `fdatasync` calls for commits.
    pub syncs: u64,
    /// Bytes of batches written.
    pub bytes_written: u64,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Segments in use.
    pub segments: usize,
    /// Batches handed to the owner.
    pub batches: u64,
    /// The last batch; [`Lsn::ZERO`] in a new log.
    pub last: Lsn,
    /// Stretches that were once synced and no longer read back as written.
    /// Their bytes are kept under `quarantine/`.
    pub damage: Vec<Damage>,
    /// Where an unfinished write was cut off: the ordinary trace of a crash.
    pub torn: Option<Torn>,
    /// Segments that are missing; only with [`crate::Options::accept_loss`].
    pub lost: Vec<u64>,
}

/// A stretch of a segment that was synced and is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u64,
    /// Where the damage begins in its file.
    pub offset: u64,
    /// How far it reaches, as far as that is known.
    pub len: u64,
    /// How many batches are gone with it; 0 when only a spare copy of the
    /// segment's own bookkeeping was hit.
    pub batches: u64,
}

/// An unfinished tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub segment: u64,
    /// Where the first batch that is not whole begins.
    pub offset: u64,
}
