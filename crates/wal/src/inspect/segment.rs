//! One segment, read whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use postrider_base::{Disk, DiskFile, OpenMode};

use super::{Body, Fault, Inspected, Inspection, Part, Zeros};
use crate::batch::{self, Listed};
use crate::format::{self, BATCH_HEADER, DATA_START, SegmentHeader, TRAILER, Trailer};
use crate::scan::{self, Found, State};
use crate::segment;
use crate::{Error, Replayed};

/// A segment's file, of which the first and the last bytes were read.
#[derive(Debug)]
pub(super) struct File {
    pub(super) number: u64,
    file: Arc<dyn DiskFile>,
    pub(super) len: u64,
    header: SegmentHeader,
    trailer: Option<Trailer>,
    /// Its first batch, if it was ever written to.
    pub(super) first_lsn: Option<u64>,
    /// The oldest segment in use, as far as this one knows.
    pub(super) oldest: u64,
}

/// The files of a log by number, those without a header apart.
pub(super) fn survey(disk: &dyn Disk, dir: &Path, found: &mut Inspection) -> Result<Vec<File>, Error> {
    let listing = |error| Error::io(format!("listing {}", dir.display()), error);
    let paths = disk.read_dir(dir).map_err(listing)?;
    let numbered = paths.into_iter().filter_map(|path| Some((segment::number(&path, "segment-")?, path)));
    let mut numbered: Vec<(u64, PathBuf)> = numbered.collect();
    numbered.sort_unstable();
    let mut files = Vec::with_capacity(numbered.len());
    for (number, path) in numbered {
        let io = |error| Error::io(format!("opening {}", path.display()), error);
        let file = disk.open(&path, OpenMode::Read).map_err(io)?;
        let len = file.len().map_err(io)?;
        files.extend(File::of(number, file, len, found));
    }
    Ok(files)
}

impl File {
    fn of(number: u64, file: Arc<dyn DiskFile>, len: u64, found: &mut Inspection) -> Option<Self> {
        let fault = |part, offset, len| Fault { segment: number, offset, len, part, batches: 0 };
        let block = read_some(&*file, number, 0, DATA_START.min(len), &mut |_| {});
        let header = match SegmentHeader::decode(&block, number) {
            Ok(Some((header, None))) => header,
            Ok(Some((header, Some(copy)))) => {
                found.fault(fault(Part::HeaderCopy, copy, DATA_START / 2));
                header
            }
            Ok(None) => {
                found.fault(fault(Part::Header, 0, DATA_START.min(len)));
                return None;
            }
            Err(error) => {
                found.fault(fault(version(&error), 0, DATA_START));
                return None;
            }
        };
        let at = len.saturating_sub(TRAILER as u64);
        let end = read_some(&*file, number, at, len - at, &mut |_| {});
        let trailer = Trailer::decode(&end, header.seed, at);
        let mut this = Self { number, file, len, header, trailer, first_lsn: None, oldest: header.oldest };
        this.look();
        Some(this)
    }

    /// Finds out what the trailer says, or would.
    fn look(&mut self) {
        if let Some(trailer) = &self.trailer {
            self.first_lsn = Some(trailer.first_lsn);
            self.oldest = self.oldest.max(trailer.oldest);
            return;
        }
        let bytes = self.read(&mut |_| {});
        let found = scan::scan(&bytes, self.header.seed).unwrap_or_default();
        let good = found.iter().filter(|batch| batch.state != State::HeadsDamaged);
        self.oldest = good.map(|batch| batch.header.oldest).fold(self.oldest, u64::max);
        self.first_lsn = (!found.is_empty()).then(|| scan::first_expected(&found));
    }

    fn read(&self, fault: &mut dyn FnMut(Fault)) -> Bytes {
        read_some(&*self.file, self.number, 0, self.len, fault)
    }
}

/// Reads and hands out one segment after the other.
pub(super) struct Reader<'a> {
    pub(super) zeros: Zeros,
    pub(super) found: &'a mut Inspection,
    pub(super) each: &'a mut dyn FnMut(Inspected),
}

impl Reader<'_> {
    /// Reads all of a segment. `expected` is its first batch and `next` the
    /// first of the next segment, where known; the batch after this segment.
    pub(super) fn read(&mut self, file: &File, expected: Option<u64>, next: Option<u64>) -> Option<u64> {
        let bytes = file.read(&mut |fault| self.found.fault(fault));
        let batches = match scan::scan(&bytes, file.header.seed) {
            Ok(batches) => batches,
            Err(error) => {
                self.fault(file, version(&error), 0, file.len, 0);
                return file.trailer.map(|trailer| trailer.next_lsn);
            }
        };
        if let Some(trailer) = &file.trailer {
            if let Some(missing) = expected.and_then(|expected| trailer.first_lsn.checked_sub(expected))
                && missing > 0
            {
                self.fault(file, Part::Sequence, DATA_START, 0, missing);
            }
            let footer = bytes.slice(at(trailer.footer_offset)..at(trailer.footer_offset + trailer.footer_len));
            if format::crc(&footer) == trailer.footer_crc {
                return Some(self.by_footer(file, trailer, footer, &bytes, &batches));
            }
            self.fault(file, Part::Footer, trailer.footer_offset, trailer.footer_len, 0);
            return Some(self.by_scan(file, Some(trailer.first_lsn), Some(trailer.next_lsn), &bytes, batches));
        }
        if next.is_some() {
            self.fault(file, Part::Trailer, file.len.saturating_sub(TRAILER as u64), TRAILER as u64, 0);
        }
        Some(self.by_scan(file, expected, next, &bytes, batches))
    }

    /// Batches as the footer lists them; each must be found in its place too.
    fn by_footer(&mut self, file: &File, trailer: &Trailer, footer: Bytes, bytes: &Bytes, batches: &[Found]) -> u64 {
        let mut next = trailer.first_lsn;
        for Listed { offset, header, heads } in batch::listed(footer, file.header.seed) {
            let Some(entries) = header.entries(&heads, file.header.seed, offset) else { break };
            let place = batches.binary_search_by_key(&offset, |batch| batch.offset);
            let good = place.is_ok_and(|at| batches[at].header == header && batches[at].state != State::HeadsDamaged);
            let given_back = self.zeros == Zeros::GivenBack && is_blank(bytes, offset, header.prefix_len());
            if !good && !given_back {
                self.fault(file, Part::Batch, offset, header.prefix_len(), 0);
            }
            self.hand_out(file, bytes, entries);
            next = header.lsn + 1;
        }
        if next != trailer.next_lsn {
            let lost = trailer.next_lsn.saturating_sub(next);
            self.fault(file, Part::Footer, trailer.footer_offset, trailer.footer_len, lost);
        }
        trailer.next_lsn
    }

    /// Batches as they are found in the segment, as recovery does it.
    fn by_scan(
        &mut self,
        file: &File,
        expected: Option<u64>,
        next: Option<u64>,
        bytes: &Bytes,
        batches: Vec<Found>,
    ) -> u64 {
        let expected = expected.unwrap_or_else(|| scan::first_expected(&batches));
        let synced = scan::known_synced(&batches, next).max(expected.saturating_sub(1));
        let verdict = scan::judge(batches, file.number, expected, synced);
        self.found.torn = verdict.torn.or(self.found.torn);
        for damage in verdict.damage.iter().filter(|damage| damage.batches > 0) {
            self.fault(file, Part::Batch, damage.offset, damage.len, damage.batches);
        }
        for batch in verdict.kept {
            let from = batch.offset + BATCH_HEADER as u64;
            let heads = bytes.slice(at(from)..at(from + u64::from(batch.header.heads_len)));
            // A batch is kept only if its table and heads are good.
            let entries = batch.header.entries(&heads, file.header.seed, batch.offset).unwrap_or_default();
            self.hand_out(file, bytes, entries);
        }
        verdict.next_lsn
    }

    fn hand_out(&mut self, file: &File, bytes: &Bytes, entries: Vec<Replayed>) {
        self.found.batches += 1;
        for entry in entries {
            let location = entry.location;
            let (from, len) = (location.offset, u64::from(location.len));
            let body = slice(bytes, from, len).unwrap_or_default();
            let good = body.len() as u64 == len && crc32fast::hash(&body) == location.crc;
            let body = match good {
                true => Body::Good(body),
                false if is_blank(bytes, from, len) => Body::Zeros,
                false => Body::Damaged,
            };
            let harmless = match body {
                Body::Good(_) => true,
                Body::Zeros => self.zeros == Zeros::GivenBack,
                Body::Damaged => false,
            };
            if !harmless {
                self.fault(file, Part::Body, from, len, 0);
            }
            (self.each)(Inspected { entry, body });
        }
    }

    fn fault(&mut self, file: &File, part: Part, offset: u64, len: u64, batches: u64) {
        self.found.fault(Fault { segment: file.number, offset, len, part, batches });
    }
}

/// Read at once, so that one bad place of a disk hides little.
const PIECE: u64 = 256 << 10;

/// A stretch of a file; what cannot be read is zero, and a fault.
fn read_some(file: &dyn DiskFile, segment: u64, offset: u64, len: u64, fault: &mut dyn FnMut(Fault)) -> Bytes {
    let mut bytes = vec![0; at(len)];
    for (piece, start) in bytes.chunks_mut(at(PIECE)).zip((offset..).step_by(at(PIECE))) {
        if file.read_exact_at(piece, start).is_err() {
            piece.fill(0);
            fault(Fault { segment, offset: start, len: piece.len() as u64, part: Part::Unreadable, batches: 0 });
        }
    }
    bytes.into()
}

fn slice(bytes: &Bytes, offset: u64, len: u64) -> Option<Bytes> {
    let (from, to) = (at(offset), at(offset.checked_add(len)?));
    (to <= bytes.len()).then(|| bytes.slice(from..to))
}

fn is_blank(bytes: &Bytes, offset: u64, len: u64) -> bool {
    slice(bytes, offset, len).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}

/// A place in a file that was read into memory, which has room for it.
fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn version(error: &Error) -> Part {
    match error {
        Error::Version { found, .. } => Part::Version(*found),
        _ => Part::Unreadable,
    }
}
