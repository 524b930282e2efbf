//! Reading every byte of a log and changing none: what a verification is made of.

mod segment;

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use postrider_base::Disk;

use crate::{Error, Lsn, Replayed, Torn};
use segment::{File, Reader};

/// What reading a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Segments in use.
    pub segments: u64,
    /// Segments made ahead, and retired ones that were not taken away yet.
    pub unused: u64,
    /// Bytes of the files of both, all of which were read of those in use.
    pub bytes: u64,
    /// Batches that are there.
    pub batches: u64,
    /// The last batch; [`Lsn::ZERO`] in an empty log.
    pub last: Lsn,
    /// An unfinished write at the end: the ordinary trace of a crash, no fault.
    pub torn: Option<Torn>,
    /// The first [`Inspection::MOST_FAULTS`] faults.
    pub faults: Vec<Fault>,
    /// How many there are.
    pub fault_count: u64,
}

impl Inspection {
    /// Faults that are listed; the others are counted.
    pub const MOST_FAULTS: usize = 10_000;

    fn fault(&mut self, fault: Fault) {
        self.fault_count += 1;
        if self.faults.len() < Self::MOST_FAULTS {
            self.faults.push(fault);
        }
    }
}

/// Bytes that do not read as they were written, or do not read at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The segment.
    pub segment: u64,
    /// Where it begins in the segment's file.
    pub offset: u64,
    /// How far it reaches, as far as that is known.
    pub len: u64,
    /// What of the segment it is.
    pub part: Part,
    /// Batches that are nowhere else and so lost with it.
    pub batches: u64,
}

/// What a [`Fault`] has hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// A whole segment: its file is not there.
    Missing,
    /// Both copies of a segment's header: nothing in its file can be told from
    /// what an earlier use left there.
    Header,
    /// One copy of a segment's header; the other is good.
    HeaderCopy,
    /// A segment or batch in a format that this version does not know.
    Version(u32),
    /// Header, table or heads of a batch. Not lost while the footer has them.
    Batch,
    /// The body of an entry.
    Body,
    /// The list of batches at the end of a sealed segment; their originals are
    /// found by reading all of it.
    Footer,
    /// The end mark of a sealed segment; as for the footer.
    Trailer,
    /// Batches between two segments, neither of which has them.
    Sequence,
    /// Bytes that the disk does not give back at all.
    Unreadable,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Header => "header",
            Self::HeaderCopy => "copy of the header",
            Self::Version(found) => return write!(f, "format version {found}, which is not known"),
            Self::Batch => "batch",
            Self::Body => "body",
            Self::Footer => "footer",
            Self::Trailer => "trailer",
            Self::Sequence => "sequence of batches",
            Self::Unreadable => "unreadable",
        })
    }
}

/// One entry, with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// As recovery would hand it out.
    pub entry: Replayed,
    /// Its body.
    pub body: Body,
}

/// What became of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// It reads as it was written.
    Good(Bytes),
    /// Its bytes are all zero: its space was given back, or is lost.
    Zeros,
    /// It does not read as it was written; a [`Fault`] says so too.
    Damaged,
}

/// What it means when bytes that had been written are all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// They are lost.
    Damage,
    /// The owner gave their space back. Whether it still needs them it knows
    /// itself; see [`Body::Zeros`].
    GivenBack,
}

/// Reads all of the log in `dir`, verifies every checksum, and hands each
/// entry to `each` in the order of the batches. Nothing is changed, not even
/// what opening would clear up. Memory is bounded by the largest segment.
///
/// To be called while nobody has the log open.
///
/// # Errors
/// [`Error::Io`] when the directory or a file's length cannot be read. Bytes
/// of a file that cannot be read are a [`Fault`].
pub fn inspect(
    disk: &dyn Disk,
    dir: &Path,
    zeros: Zeros,
    each: &mut dyn FnMut(Inspected),
) -> Result<Inspection, Error> {
    let mut found = Inspection::default();
    if !disk.exists(dir) {
        return Ok(found);
    }
    let mut files = segment::survey(disk, dir, &mut found)?;
    let unwritten = files.split_off(written(&files));
    let oldest = files.iter().map(|file| file.oldest).max().unwrap_or(1);
    let retired = files.partition_point(|file| file.number < oldest);
    found.unused = (retired + unwritten.len()) as u64;
    found.bytes = files.iter().chain(&unwritten).map(|file| file.len).sum();
    let live = &files[retired..];
    found.segments = live.len() as u64;
    let mut expected = None;
    for (at, file) in live.iter().enumerate() {
        let before = if at == 0 { oldest } else { live[at - 1].number + 1 };
        for number in (before..file.number).take(Inspection::MOST_FAULTS) {
            found.missing(number);
            expected = None;
        }
        let next = live[at + 1..].iter().find_map(|later| later.first_lsn);
        expected = Reader { zeros, found: &mut found, each }.read(file, expected, next);
    }
    found.last = Lsn::new(expected.map_or(0, |next| next.saturating_sub(1)));
    Ok(found)
}

/// How many of the files have been written to: a segment gets its first batch
/// only after the one before it was sealed.
fn written(files: &[File]) -> usize {
    files.iter().rposition(|file| file.first_lsn.is_some()).map_or(0, |last| last + 1)
}

impl Inspection {
    /// A segment is not there. One whose header is lost is known already.
    fn missing(&mut self, number: u64) {
        if !self.faults.iter().any(|fault| fault.segment == number) {
            self.fault(Fault { segment: number, offset: 0, len: 0, part: Part::Missing, batches: 0 });
        }
    }
}
