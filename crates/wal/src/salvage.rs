//! Writing again what is good in a segment that was not sealed, or is
//! damaged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use postrider_base::{Disk, DiskFile, OpenMode, Random};

use crate::Error;
use crate::batch::{self, Seal};
use crate::format::{DATA_START, Seed, SegmentHeader, TRAILER};
use crate::recover::Settled;
use crate::scan::Verdict;
use crate::segment;

/// The name of a copy that is being made.
pub(crate) const TEMPORARY: &str = "salvage.tmp";

/// Where copies are made.
pub(crate) struct Salvage<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) dir: &'a Path,
    pub(crate) random: &'a Random,
    pub(crate) pool: &'a mut Vec<PathBuf>,
}

impl Salvage<'_> {
    /// Puts a sealed copy of the batches that are kept in the file's place,
    /// each at its old offset, so that locations stay good. `bytes` is all of
    /// the old file; of a damaged one a copy goes to quarantine.
    pub(crate) fn write(
        &mut self,
        old: SegmentHeader,
        bytes: &Bytes,
        verdict: &Verdict,
        damaged: bool,
    ) -> Result<Settled, Error> {
        let number = old.seed.segment;
        let io = |error| Error::io(format!("salvaging segment {number}"), error);
        if damaged {
            self.keep_evidence(number, bytes);
        }
        let header = SegmentHeader { seed: Seed { segment: number, salt: self.random.u64() }, oldest: old.oldest };
        let (data, footer) = copy(header, bytes, verdict);
        let file_bytes = data.len() as u64 + footer.len() as u64 + TRAILER as u64;
        let temporary = self.dir.join(TEMPORARY);
        let file = self.make(&temporary, file_bytes).map_err(io)?;
        let kept = &verdict.kept;
        let lsns = (kept.first().map_or(verdict.next_lsn, |it| it.header.lsn), verdict.next_lsn);
        let oldest = kept.iter().map(|it| it.header.oldest).fold(old.oldest, u64::max);
        let seal = Seal::new(footer.into(), header.seed, file_bytes, lsns, oldest);
        file.write_all_at(&data, 0)
            .and_then(|()| seal.write(&*file))
            .and_then(|()| file.sync_all())
            .and_then(|()| {
                let path = segment::path(self.dir, number);
                self.disk.rename(&temporary, &path)
            })
            .and_then(|()| self.disk.sync_dir(self.dir))
            .map_err(io)?;
        Ok(Settled { seed: header.seed, file, file_bytes, trailer: seal.trailer })
    }

    /// A file of this length; where the disk is full one of the spare files,
    /// which have their space.
    fn make(&mut self, path: &Path, length: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, OpenMode::CreateNew)?;
        let full = match file.allocate(length) {
            Ok(()) => return Ok(file),
            Err(error) => error,
        };
        drop(file);
        self.disk.remove_file(path)?;
        self.disk.rename(&self.pool.pop().ok_or(full)?, path)?;
        let file = self.disk.open(path, OpenMode::ReadWrite)?;
        file.allocate(length)?;
        file.set_len(length)?;
        Ok(file)
    }

    /// Evidence is worth having, but not worth refusing to start for.
    fn keep_evidence(&self, number: u64, bytes: &Bytes) {
        let kept = quarantine(self.disk, self.dir, number, self.random).and_then(|path| {
            let file = self.disk.open(&path, OpenMode::CreateNew)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()
        });
        if let Err(error) = kept {
            tracing::warn!(segment = number, "no copy of the damaged segment: {error}");
        }
    }
}

/// A new name in quarantine for a segment's file.
pub(crate) fn quarantine(disk: &dyn Disk, dir: &Path, segment: u64, random: &Random) -> io::Result<PathBuf> {
    let dir = dir.join("quarantine");
    disk.create_dir_all(&dir)?;
    Ok(dir.join(format!("segment-{segment:010}-{:016x}.log", random.u64())))
}

/// Header and batches of the copy, and its footer.
fn copy(header: SegmentHeader, bytes: &Bytes, verdict: &Verdict) -> (Vec<u8>, Vec<u8>) {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let end = verdict.kept.last().map_or(DATA_START, |last| last.offset + last.header.len());
    let block = header.encode();
    // A file that was cut short may end within its first block.
    let mut data = vec![0; place(end).max(block.len())];
    data[..block.len()].copy_from_slice(&block);
    let mut footer = Vec::new();
    for kept in &verdict.kept {
        let (from, to) = (place(kept.offset), place(kept.offset + kept.header.len()));
        let batch = &mut data[from..to];
        batch.copy_from_slice(&bytes[from..to]);
        kept.header.encode_into(batch, header.seed, kept.offset);
        let prefix = usize::try_from(kept.header.prefix_len()).unwrap_or(usize::MAX);
        batch::put_footer(&mut footer, kept.offset, &batch[..prefix.min(batch.len())]);
    }
    (data, footer)
}
