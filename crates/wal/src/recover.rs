//! Opening: from the files in a directory to a log that can be appended to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use postrider_base::{Disk, DiskFile, OpenMode};

use crate::batch::{self, Listed};
use crate::format::{BATCH_HEADER, BatchHeader, DATA_START, Seed, SegmentHeader, TRAILER, Trailer};
use crate::salvage::{self, Salvage};
use crate::scan::{self, Verdict};
use crate::segment::{self, Segment};
use crate::{Damage, Error, Lsn, OpenReport, Options, Replayed};

/// What recovery hands to the log.
pub(crate) struct Recovered {
    /// Sealed, all of them.
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    /// The files of those, whose footers nobody has read yet.
    pub(crate) unread: Vec<Opened>,
    pub(crate) next_lsn: u64,
    pub(crate) oldest: u64,
    pub(crate) next_segment: u64,
    /// Spare files of the right length.
    pub(crate) pool: Vec<PathBuf>,
    pub(crate) report: OpenReport,
}

/// A segment's file, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) number: u64,
    file: Arc<dyn DiskFile>,
    len: u64,
    header: SegmentHeader,
    /// Of a sealed one.
    trailer: Option<Trailer>,
    /// Of one that is not sealed.
    scanned: Option<(Bytes, Verdict)>,
}

/// The first half of opening: what appending needs. Heads are read by
/// [`crate::Backlog`].
struct Recovery<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    options: &'a Options,
    report: OpenReport,
    /// Paths of spare files.
    pool: Vec<PathBuf>,
    next_spare: u64,
}

pub(crate) fn recover(disk: &dyn Disk, dir: &Path, options: &Options) -> Result<Recovered, Error> {
    let mut recovery = Recovery { disk, dir, options, report: OpenReport::default(), pool: Vec::new(), next_spare: 1 };
    let paths = recovery.list()?;
    let mut files = Vec::with_capacity(paths.len());
    for (number, path) in paths {
        files.extend(recovery.open(number, &path)?);
    }
    let unused = recovery.judge(&mut files)?;
    let oldest = recovery.check_gaps(&files, &unused)?;
    let (gone, live): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.number < oldest);
    // The last first: a crash in between leaves no gap before the others.
    recovery.spare(gone.into_iter().chain(unused.into_iter().rev()))?;
    recovery.settle(live, oldest)
}

impl Recovery<'_> {
    /// The segments by number; what an interrupted change left is cleared up.
    fn list(&mut self) -> Result<BTreeMap<u64, PathBuf>, Error> {
        let listing = |error| Error::io(format!("listing {}", self.dir.display()), error);
        self.disk.create_dir_all(self.dir).map_err(listing)?;
        if let Some(parent) = self.dir.parent().filter(|path| !path.as_os_str().is_empty()) {
            self.disk.sync_dir(parent).map_err(listing)?;
        }
        // Names that an earlier run changed and could not sync.
        self.disk.sync_dir(self.dir).map_err(listing)?;
        let mut segments = BTreeMap::new();
        for path in self.disk.read_dir(self.dir).map_err(listing)? {
            if let Some(number) = segment::number(&path, "segment-") {
                segments.insert(number, path);
            } else if let Some(number) = segment::number(&path, "spare-") {
                self.next_spare = self.next_spare.max(number + 1);
                self.keep_or_remove(path)?;
            } else if path.ends_with(salvage::TEMPORARY) {
                self.disk.remove_file(&path).map_err(listing)?;
            }
        }
        Ok(segments)
    }

    fn keep_or_remove(&mut self, path: PathBuf) -> Result<(), Error> {
        let io = |error| Error::io(format!("clearing up {}", path.display()), error);
        let file = self.disk.open(&path, OpenMode::Read).map_err(io)?;
        let enough = self.pool.len() > self.options.spare_segments;
        if enough || file.len().map_err(io)? != self.options.segment_bytes {
            self.disk.remove_file(&path).map_err(io)?;
        } else {
            self.pool.push(path);
        }
        Ok(())
    }

    /// Reads header and trailer. A segment whose header is lost is lost: its
    /// checksums cannot be told from others'.
    fn open(&mut self, number: u64, path: &Path) -> Result<Option<Opened>, Error> {
        let io = |error| Error::io(format!("opening {}", path.display()), error);
        let file = self.disk.open(path, OpenMode::ReadWrite).map_err(io)?;
        let len = file.len().map_err(io)?;
        let mut block = vec![0; usize::try_from(DATA_START.min(len)).unwrap_or(0)];
        file.read_exact_at(&mut block, 0).map_err(io)?;
        let Some((header, bad_copy)) = SegmentHeader::decode(&block, number)? else {
            if !self.options.accept_loss {
                return Err(Error::Corrupt { segment: number, offset: 0 });
            }
            let to = salvage::quarantine(self.disk, self.dir, number, &self.options.random);
            to.and_then(|to| self.disk.rename(path, &to)).map_err(io)?;
            self.report.lost.push(number);
            return Ok(None);
        };
        if let Some(offset) = bad_copy {
            self.damaged(Damage { segment: number, offset, len: DATA_START / 2, batches: 0 });
            file.write_all_at(&header.encode(), 0).and_then(|()| file.sync_data()).map_err(io)?;
        }
        Ok(Some(Opened {
            trailer: segment::read_trailer(&*file, header.seed, len)?,
            number,
            file,
            len,
            header,
            scanned: None,
        }))
    }

    /// Scans what is not sealed, and takes the files off the end that were
    /// never written: a segment gets its first batch only after the one
    /// before it was sealed.
    fn judge(&mut self, files: &mut Vec<Opened>) -> Result<Vec<Opened>, Error> {
        let mut firsts = Vec::with_capacity(files.len());
        for file in files.iter() {
            firsts.push(file.first_lsn()?);
        }
        let tail = match firsts.iter().rposition(Option::is_some) {
            Some(last) if files[last].trailer.is_none() => last,
            Some(last) => last + 1,
            None => 0,
        };
        let mut unused = files.split_off(files.len().min(tail + 1));
        // Known of the segment that follows directly: one that could not be
        // removed says nothing of one after a gap.
        let mut expected = (0, None);
        for (at, file) in files.iter_mut().enumerate() {
            if file.trailer.is_none() {
                let after = firsts.get(at + 1..).unwrap_or_default();
                let next = after.iter().flatten().next().copied();
                let (number, first) = expected;
                file.scan(first.filter(|_| number == file.number), next)?;
            }
            expected = (file.number + 1, file.next_lsn());
        }
        if let Some(tail) = files.pop_if(|file| file.is_empty()) {
            let scanned = tail.scanned.as_ref();
            self.report.torn = scanned.and_then(|(_, verdict)| verdict.torn);
            unused.insert(0, tail);
        }
        Ok(unused)
    }

    /// The oldest segment that must be there, once it and all after it are.
    /// Those made ahead tell that one before them is lost: they are made in
    /// order.
    fn check_gaps(&mut self, files: &[Opened], unused: &[Opened]) -> Result<u64, Error> {
        let all = || files.iter().chain(unused);
        let made_ahead = unused.iter().map(|file| file.number).min();
        let Some(end) = files.last().map(|file| file.number).max(made_ahead) else {
            return Ok(self.report.lost.last().map_or(self.options.first_segment, |last| last + 1));
        };
        let oldest = all().map(Opened::oldest).max().unwrap_or(self.options.first_segment);
        let present = |number| all().any(|file| file.number == number);
        let missing: Vec<u64> = (oldest..end).filter(|number| !present(*number)).collect();
        if let (Some(&first), Some(&last), false) = (missing.first(), missing.last(), self.options.accept_loss) {
            return Err(Error::Gap { dir: self.dir.to_owned(), first, last });
        }
        self.report.lost.extend(missing);
        self.report.lost.sort_unstable();
        self.report.lost.dedup();
        if !self.report.lost.is_empty() {
            tracing::warn!(dir = %self.dir.display(), "segments lost: {:?}", self.report.lost);
        }
        Ok(oldest)
    }

    /// Makes files that hold nothing spare.
    fn spare(&mut self, files: impl Iterator<Item = Opened>) -> Result<(), Error> {
        for file in files {
            let from = segment::path(self.dir, file.number);
            let to = self.dir.join(format!("spare-{:010}.log", self.next_spare));
            self.next_spare += 1;
            self.disk
                .rename(&from, &to)
                .and_then(|()| self.disk.sync_dir(self.dir))
                .map_err(|error| Error::io(format!("renaming {}", from.display()), error))?;
            self.keep_or_remove(to)?;
        }
        Ok(())
    }

    /// Makes every segment a sealed one. What is not, is written again and
    /// synced: after a failed sync the system's cache shows bytes that are not
    /// on the disk. The footers of those before the last are left unread.
    fn settle(mut self, files: Vec<Opened>, oldest: u64) -> Result<Recovered, Error> {
        let mut segments = BTreeMap::new();
        let mut unread = Vec::with_capacity(files.len());
        let mut next_lsn = 1;
        let last = files.len();
        for (at, mut file) in files.into_iter().enumerate() {
            let is_last = at + 1 == last;
            let settled = match file.trailer {
                Some(trailer) if !is_last => file.settled(trailer),
                _ => self.settle_one(&mut file, is_last)?,
            };
            next_lsn = settled.trailer.next_lsn;
            unread.push(file.replaced(&settled));
            segments.insert(settled.seed.segment, Arc::new(settled.into_segment()));
        }
        self.report.segments = segments.len();
        self.report.last = Lsn::new(next_lsn - 1);
        let last = segments.keys().next_back().copied();
        Ok(Recovered {
            next_lsn,
            oldest,
            next_segment: last.map_or(oldest, |last| last + 1),
            segments,
            unread,
            pool: self.pool,
            report: self.report,
        })
    }

    /// A segment that was not sealed, or the last one, where no later segment
    /// shows that the sync of footer and trailer succeeded.
    fn settle_one(&mut self, file: &mut Opened, is_last: bool) -> Result<Settled, Error> {
        if let Some(trailer) = file.trailer
            && file.footer(&trailer)?.is_some()
        {
            return file.settled(trailer).written_again();
        }
        let salvage = Salvage { disk: self.disk, dir: self.dir, random: &self.options.random, pool: &mut self.pool };
        file.salvage(salvage, is_last, &mut self.report)
    }

    fn damaged(&mut self, damage: Damage) {
        report_damage(self.dir, &mut self.report, damage);
    }
}

fn report_damage(dir: &Path, report: &mut OpenReport, damage: Damage) {
    tracing::warn!(
        dir = %dir.display(),
        segment = damage.segment,
        offset = damage.offset,
        batches = damage.batches,
        "damage in the log"
    );
    report.damage.push(damage);
}

impl Opened {
    /// The number of the first batch, if the segment was ever written.
    fn first_lsn(&self) -> Result<Option<u64>, Error> {
        if let Some(trailer) = &self.trailer {
            return Ok(Some(trailer.first_lsn));
        }
        if self.len < DATA_START + BATCH_HEADER as u64 {
            return Ok(None);
        }
        let bytes = segment::read(&*self.file, self.number, DATA_START, BATCH_HEADER as u64)?;
        let header = BatchHeader::decode(&bytes, self.header.seed, DATA_START)?;
        Ok(header.map(|header| header.lsn))
    }

    /// Finds out what is good in a file without a footer. `expected` is its
    /// first batch and `next` the first of the next segment, where known.
    fn scan(&mut self, expected: Option<u64>, next: Option<u64>) -> Result<(), Error> {
        let bytes = segment::read(&*self.file, self.number, 0, self.len)?;
        let found = scan::scan(&bytes, self.header.seed)?;
        let expected = expected.unwrap_or_else(|| scan::first_expected(&found));
        let synced = scan::known_synced(&found, next).max(expected - 1);
        let verdict = scan::judge(found, self.number, expected, synced);
        self.scanned = Some((bytes, verdict));
        Ok(())
    }

    fn next_lsn(&self) -> Option<u64> {
        let scanned = || self.scanned.as_ref().map(|(_, verdict)| verdict.next_lsn);
        self.trailer.map(|trailer| trailer.next_lsn).or_else(scanned)
    }

    /// The oldest segment in use, as far as this one knows.
    fn oldest(&self) -> u64 {
        let kept = self.scanned.iter().flat_map(|(_, verdict)| &verdict.kept);
        kept.map(|batch| batch.header.oldest)
            .chain(self.trailer.map(|trailer| trailer.oldest))
            .fold(self.header.oldest, u64::max)
    }

    /// Whether nothing was ever committed here.
    fn is_empty(&self) -> bool {
        self.scanned.as_ref().is_some_and(|(_, verdict)| verdict.kept.is_empty() && verdict.damage.is_empty())
    }

    /// Damage from `offset` to the end that costs no batch.
    fn bookkeeping(&self, offset: u64) -> Damage {
        Damage { segment: self.number, offset, len: self.len.saturating_sub(offset), batches: 0 }
    }

    /// As it is, sealed.
    fn settled(&self, trailer: Trailer) -> Settled {
        Settled { seed: self.header.seed, file: self.file.clone(), file_bytes: self.len, trailer }
    }

    /// The file that took this one's place, or is this one.
    fn replaced(self, settled: &Settled) -> Self {
        Self {
            file: settled.file.clone(),
            len: settled.file_bytes,
            header: SegmentHeader { seed: settled.seed, ..self.header },
            trailer: Some(settled.trailer),
            scanned: None,
            ..self
        }
    }

    /// The footer that the trailer points to, if it reads as it was written.
    fn footer(&self, trailer: &Trailer) -> Result<Option<Bytes>, Error> {
        segment::read_footer(&*self.file, self.number, trailer)
    }

    /// All batches of a sealed segment, or none when the footer is damaged.
    pub(crate) fn listed(&self) -> Result<Option<impl Iterator<Item = Listed> + use<>>, Error> {
        let footer = self.trailer.map_or(Ok(None), |trailer| self.footer(&trailer))?;
        Ok(footer.map(|footer| batch::listed(footer, self.header.seed)))
    }

    /// The entries of one of those batches.
    pub(crate) fn entries(&self, listed: &Listed) -> Result<Vec<Replayed>, Error> {
        let Listed { offset, header, heads } = listed;
        let entries = header.entries(heads, self.header.seed, *offset);
        entries.ok_or(Error::Corrupt { segment: self.number, offset: *offset })
    }

    /// Writes a sealed copy of what is good in the file, in its place.
    fn salvage(&mut self, mut salvage: Salvage<'_>, last: bool, report: &mut OpenReport) -> Result<Settled, Error> {
        let known = report.damage.len();
        if let Some(trailer) = self.trailer {
            // Its batches were synced before; its footer too, if there is a next one.
            self.scan(Some(trailer.first_lsn), Some(trailer.next_lsn))?;
            if !last {
                report_damage(salvage.dir, report, self.bookkeeping(trailer.footer_offset));
            }
        } else if !last {
            // Once sealed, or the next one would not have been written.
            report_damage(salvage.dir, report, self.bookkeeping(self.len.saturating_sub(TRAILER as u64)));
        }
        let (bytes, verdict) = self.scanned.take().unwrap_or_default();
        for damage in &verdict.damage {
            report_damage(salvage.dir, report, damage.clone());
        }
        report.torn = verdict.torn.or(report.torn);
        let damaged = report.damage.len() > known;
        salvage.write(self.header, &bytes, &verdict, damaged)
    }

    /// As [`Self::salvage`], of a sealed segment whose footer turned out to be
    /// damaged; the segment that takes its place.
    pub(crate) fn repaired(
        mut self,
        salvage: Salvage<'_>,
        report: &mut OpenReport,
    ) -> Result<(Self, Arc<Segment>), Error> {
        let settled = self.salvage(salvage, false, report)?;
        let file = self.replaced(&settled);
        Ok((file, Arc::new(settled.into_segment())))
    }
}

/// A sealed segment.
pub(crate) struct Settled {
    pub(crate) seed: Seed,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) file_bytes: u64,
    pub(crate) trailer: Trailer,
}

impl Settled {
    /// Writes footer and trailer once more where no later segment shows that
    /// their sync succeeded.
    fn written_again(self) -> Result<Self, Error> {
        let number = self.seed.segment;
        let at = self.trailer.footer_offset;
        let end = segment::read(&*self.file, number, at, self.file_bytes - at)?;
        self.file
            .write_all_at(&end, at)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| Error::io(format!("sealing segment {number}"), error))?;
        Ok(self)
    }

    fn into_segment(self) -> Segment {
        Segment::sealed(self.seed, self.file, self.file_bytes, &self.trailer)
    }
}
