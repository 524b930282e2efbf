//! A segment that is in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_base::DiskFile;

use crate::batch::{self, Listed, Seal};
use crate::format::{self, DATA_START, Seed, TRAILER, Trailer};
use crate::{Error, Lsn, SegmentInfo};

/// Most footers take less than this part of their segment.
const FOOTER_SHARE: usize = 8;

/// The name of a segment's file.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:010}.log"))
}

/// The number in a name that [`path`] or its like made.
pub(crate) fn number(path: &Path, prefix: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(prefix)?.strip_suffix(".log")?.parse().ok()
}

/// A segment, written by the writer and read by everybody.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) seed: Seed,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) file_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where the next batch goes.
    end: u64,
    /// First batch and the one after the last; equal when there is none.
    lsns: (u64, u64),
    footer: Footer,
}

/// The list of a segment's batches.
#[derive(Debug)]
enum Footer {
    /// As far as it goes.
    Growing(Vec<u8>),
    /// Whole, and being written.
    Whole(Bytes),
    /// In the file.
    Written,
}

impl Segment {
    /// One that has not been written yet.
    pub(crate) fn fresh(seed: Seed, file: Arc<dyn DiskFile>, file_bytes: u64) -> Self {
        let state = State { end: DATA_START, lsns: (0, 0), footer: Footer::Growing(Vec::new()) };
        Self::with(seed, file, file_bytes, state)
    }

    /// One that was sealed with this trailer. Its batches end before its
    /// footer, and nearly there.
    pub(crate) fn sealed(seed: Seed, file: Arc<dyn DiskFile>, file_bytes: u64, trailer: &Trailer) -> Self {
        let state =
            State { end: trailer.footer_offset, lsns: (trailer.first_lsn, trailer.next_lsn), footer: Footer::Written };
        Self::with(seed, file, file_bytes, state)
    }

    fn with(seed: Seed, file: Arc<dyn DiskFile>, file_bytes: u64, state: State) -> Self {
        Self { seed, file, file_bytes, state: Mutex::new(state) }
    }

    pub(crate) fn number(&self) -> u64 {
        self.seed.segment
    }

    /// Where the next batch goes, if one fits that takes this much and this
    /// much in the footer.
    pub(crate) fn room_for(&self, len: u64, footer_len: u64) -> Option<u64> {
        let state = self.state.lock();
        let Footer::Growing(footer) = &state.footer else { return None };
        let need = state.end + len + footer.len() as u64 + footer_len + TRAILER as u64;
        (need <= self.file_bytes).then_some(state.end)
    }

    /// Counts a batch in that is about to be written at the end.
    pub(crate) fn append(&self, lsn: u64, len: u64, prefix: &[u8]) {
        let mut state = self.state.lock();
        if state.lsns.0 == state.lsns.1 {
            state.lsns.0 = lsn;
        }
        state.lsns.1 = lsn + 1;
        let offset = state.end;
        if let Footer::Growing(footer) = &mut state.footer {
            // At once what most segments need: growing copies, and room that is not used is not taken.
            if footer.capacity() == 0 {
                footer.reserve(usize::try_from(self.file_bytes).unwrap_or_default() / FOOTER_SHARE);
            }
            batch::put_footer(footer, offset, prefix);
        }
        state.end += len;
    }

    /// What ends the segment, unless that is in the file already. It takes no
    /// more batches.
    pub(crate) fn seal(&self, oldest: u64) -> Option<Seal> {
        let mut state = self.state.lock();
        let footer = match std::mem::replace(&mut state.footer, Footer::Written) {
            Footer::Growing(footer) => Bytes::from(footer),
            Footer::Whole(footer) => footer,
            Footer::Written => return None,
        };
        state.footer = Footer::Whole(footer.clone());
        let lsns = state.lsns;
        drop(state);
        Some(Seal::new(footer, self.seed, self.file_bytes, lsns, oldest))
    }

    /// The footer is in the file.
    pub(crate) fn set_sealed(&self) {
        self.state.lock().footer = Footer::Written;
    }

    /// First batch and the one after the last; equal when there is none.
    pub(crate) fn lsns(&self) -> (u64, u64) {
        self.state.lock().lsns
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.state.lock().footer, Footer::Written)
    }

    pub(crate) fn info(&self) -> SegmentInfo {
        let state = self.state.lock();
        let (first, next) = state.lsns;
        let some = |lsn| (first < next).then_some(Lsn::new(lsn));
        SegmentInfo {
            number: self.number(),
            bytes: state.end - DATA_START,
            file_bytes: self.file_bytes,
            first_lsn: some(first),
            last_lsn: some(next.saturating_sub(1)),
            sealed: matches!(state.footer, Footer::Written),
        }
    }

    /// The footer, or as much of it as there is.
    pub(crate) fn footer(&self) -> Result<Bytes, Error> {
        match &self.state.lock().footer {
            Footer::Growing(footer) => return Ok(Bytes::copy_from_slice(footer)),
            Footer::Whole(footer) => return Ok(footer.clone()),
            Footer::Written => {}
        }
        let trailer = read_trailer(&*self.file, self.seed, self.file_bytes)?;
        let footer = trailer.map_or(Ok(None), |trailer| read_footer(&*self.file, self.number(), &trailer))?;
        footer.ok_or(Error::Corrupt {
            segment: self.number(),
            offset: trailer.map_or(self.file_bytes, |trailer| trailer.footer_offset),
        })
    }

    /// All of its batches.
    pub(crate) fn listed(&self) -> Result<impl Iterator<Item = Listed>, Error> {
        Ok(batch::listed(self.footer()?, self.seed))
    }
}

/// The trailer of a file, if it was sealed and still reads so.
pub(crate) fn read_trailer(file: &dyn DiskFile, seed: Seed, file_bytes: u64) -> Result<Option<Trailer>, Error> {
    let Some(at) = file_bytes.checked_sub(TRAILER as u64) else {
        return Ok(None);
    };
    let mut bytes = [0; TRAILER];
    file.read_exact_at(&mut bytes, at).map_err(|error| reading(seed.segment, error))?;
    Ok(Trailer::decode(&bytes, seed, at))
}

/// The footer that a trailer points to, if it still reads as written.
pub(crate) fn read_footer(file: &dyn DiskFile, segment: u64, trailer: &Trailer) -> Result<Option<Bytes>, Error> {
    let footer = read(file, segment, trailer.footer_offset, trailer.footer_len)?;
    Ok((format::crc(&footer) == trailer.footer_crc).then_some(footer))
}

/// A stretch of a file.
pub(crate) fn read(file: &dyn DiskFile, segment: u64, offset: u64, len: u64) -> Result<Bytes, Error> {
    let len = usize::try_from(len).map_err(|_| Error::Corrupt { segment, offset })?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).map_err(|error| reading(segment, error))?;
    Ok(bytes.into())
}

fn reading(segment: u64, error: std::io::Error) -> Error {
    Error::io(format!("reading segment {segment}"), error)
}

#[cfg(test)]
mod tests {
    use postrider_base::{Disk, OpenMode, SimDisk};

    use super::*;
    use crate::Entry;
    use crate::batch::{Batch, Place};

    #[test]
    fn its_batches_are_listed_while_it_is_sealed_as_before_and_after() {
        const LENGTH: u64 = 16 << 10;
        let disk = SimDisk::new();
        let file = disk.open(Path::new("/segment"), OpenMode::CreateNew).unwrap();
        file.allocate(LENGTH).unwrap();
        let seed = Seed { segment: 1, salt: 7 };
        let segment = Segment::fresh(seed, file.clone(), LENGTH);
        for lsn in 1..4 {
            let batch = Batch::new([Entry::head_only(1, format!("head {lsn}"))], LENGTH).unwrap();
            let len = batch.len();
            let offset = segment.room_for(len, batch.footer_len()).unwrap();
            let (placed, _) = batch.place(Place { seed, offset, lsn, synced: 0, oldest: 1 }, &mut Vec::new());
            segment.append(lsn, len, placed.parts().next().unwrap());
        }
        let listed = || segment.listed().unwrap().map(|listed| listed.header.lsn).collect::<Vec<_>>();
        let growing = segment.footer().unwrap();
        let seal = segment.seal(1).unwrap();
        assert!(segment.room_for(1, 1).is_none() && !segment.is_sealed());
        assert_eq!((segment.footer().unwrap(), listed()), (growing.clone(), vec![1, 2, 3]));
        seal.write(&*file).unwrap();
        segment.set_sealed();
        assert!(segment.room_for(1, 1).is_none() && segment.is_sealed());
        assert_eq!((segment.footer().unwrap(), listed()), (growing, vec![1, 2, 3]));
        // What is in the file is not written again.
        assert!(segment.seal(1).is_none());
    }
}
