//! The handle that owners use.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use postrider_base::Disk;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};

use crate::answer::{Answers, Owner, Refused, Ticket, Waiter};
use crate::backlog::Backlog;
use crate::batch::Batch;
use crate::keeper::Keeper;
use crate::queue::Submission;
use crate::segment::{self, Segment};
use crate::shared::Shared;
use crate::writer::Writer;
use crate::{
    Committed, Driver, Durability, Entry, Error, Location, Lsn, OpenReport, Options, Replayed, SegmentInfo, Usage,
    driver, history, recover,
};

/// A log; clones are handles to the same one. It ends with
/// [`close`](Log::close), or soon after the last handle is dropped.
///
/// Nothing here keeps a second process, or a second `open`, out of the same
/// directory: the owner's lock does.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// One segment is retired at a time.
    retiring: Mutex<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Log {
    /// Opens the log in `dir`, making it when there is none, and hands every
    /// entry's head to `replay`, in LSN order, before it returns. Blocks for
    /// the disk. Waiters are woken inside the tokio runtime in whose context
    /// it is called, if there is one.
    ///
    /// # Errors
    /// [`Error::Gap`] and [`Error::Corrupt`] when whole segments are lost,
    /// unless [`Options::accept_loss`]; [`Error::Version`], [`Error::Option`],
    /// [`Error::Io`]. `replay` may have been called by then.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        replay: &mut dyn FnMut(Replayed),
    ) -> Result<(Self, OpenReport), Error> {
        let (log, backlog, mut report) = Self::open_behind(disk, dir, options)?;
        backlog.replay(&mut report, replay)?;
        Ok((log, report))
    }

    /// As [`Log::open`], but ready to append before the old heads are read:
    /// that is done with the [`Backlog`]. It takes as long as the log is in
    /// segments, not in batches.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_behind(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Backlog, OpenReport), Error> {
        let (log, writer, backlog, report) = Self::open_idle(disk, dir, options)?;
        driver::start(writer, &log.inner.shared)?;
        Ok((log, backlog, report))
    }

    /// A log that only moves when its writer's and keeper's steps are called.
    pub(crate) fn open_idle(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Writer, Backlog, OpenReport), Error> {
        options.validate()?;
        let found = recover::recover(&*disk, dir, &options)?;
        let numbers = (found.oldest, found.next_segment);
        let keeper = Keeper::new(disk, dir, &options, numbers, found.pool);
        let runtime = Handle::try_current().ok();
        let fan_out = runtime.filter(|_| options.driver == Driver::Thread);
        let shared = Shared::new(options, keeper, found.segments, found.next_lsn);
        let shared = Arc::new(shared);
        let answers = Answers::new(&shared, fan_out.as_ref());
        let writer = Writer::new(shared.clone(), answers, found.next_lsn);
        let backlog = Backlog::new(shared.clone(), found.unread);
        let inner = Inner { shared, retiring: Mutex::default() };
        let log = Self { inner: Arc::new(inner) };
        Ok((log, writer, backlog, found.report))
    }

    /// Appends a batch, which happens whole or not at all, and waits until it
    /// is as durable as asked for. An empty batch only waits for those before
    /// it.
    ///
    /// Once called, the batch may be written even if the future is dropped.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn commit(&self, batch: Vec<Entry>, durability: Durability) -> Result<Committed, Error> {
        self.submit(batch, durability).await
    }

    /// As [`commit`](Self::commit), but hands the batch in before it returns:
    /// batches come into the log in the order of these calls.
    ///
    /// # Errors
    /// The future's: [`Error::Full`] (nothing was written; later batches may
    /// have been), [`Error::Poisoned`] (nobody knows what was written),
    /// [`Error::Closed`], [`Error::TooLarge`].
    pub fn submit(
        &self,
        batch: Vec<Entry>,
        durability: Durability,
    ) -> impl Future<Output = Result<Committed, Error>> + Send + use<> {
        let batch = Batch::new(batch, self.inner.shared.options.segment_bytes);
        self.hand_in(batch.map(|batch| Submission::new(batch, durability)))
    }

    fn hand_in(
        &self,
        submission: Result<(Submission, crate::shared::Answer), Error>,
    ) -> impl Future<Output = Result<Committed, Error>> + Send + use<> {
        let shared = self.inner.shared.clone();
        let waiter = submission.and_then(|(submission, waiter)| {
            shared.queue.room(submission.batch.len())?.put(submission);
            Ok(waiter)
        });
        async move {
            match waiter?.await {
                Ok(result) => result,
                // It was taken and nothing was heard of it any more.
                Err(_) => Err(Error::Poisoned("it ended".into())),
            }
        }
    }

    /// Who is told of batches that are handed in by [`submit_for`](Self::submit_for).
    /// To be called once, before the first of them.
    pub fn set_owner(&self, owner: Weak<dyn Owner>) {
        // A second one would miss what the first was told.
        let _ = self.inner.shared.owner.set(owner);
    }

    /// Encodes a batch. The sums over its bodies are made here.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn batch<I>(&self, entries: I) -> Result<Batch, Error>
    where
        I: IntoIterator<Item = Entry, IntoIter: ExactSizeIterator>,
    {
        Batch::new(entries, self.inner.shared.options.segment_bytes)
    }

    /// As [`submit`](Self::submit), for an owner that takes in what a whole
    /// group changes at once: it is [told](Owner::told), not a future.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Poisoned`], [`Error::Closed`] at once, with what
    /// was handed in; the owner hears nothing then.
    pub fn submit_for(
        &self,
        batch: Batch,
        durability: Durability,
        ticket: Ticket,
    ) -> Result<(), Box<(Refused, Ticket)>> {
        match self.inner.shared.queue.room(batch.len()) {
            Ok(room) => {
                room.put(Submission { batch, durability, oldest: None, waiter: Waiter::Owner(ticket) });
                Ok(())
            }
            Err(error) => Err(Box::new((Refused { error, batch: Some(batch) }, ticket))),
        }
    }

    /// Reads and verifies a body. Blocks for the disk, though what was
    /// written lately comes from the system's cache.
    ///
    /// # Errors
    /// [`Error::NoSegment`] once its segment is retired, [`Error::Corrupt`],
    /// [`Error::Io`].
    pub fn read(&self, location: Location) -> Result<Bytes, Error> {
        let Location { segment: number, offset, len, crc } = location;
        let segment = self.segment(number)?;
        let corrupt = Error::Corrupt { segment: number, offset };
        let end = offset.checked_add(len.into());
        if end.is_none_or(|end| end > segment.file_bytes) {
            return Err(corrupt);
        }
        let bytes = segment::read(&*segment.file, number, offset, len.into())?;
        if crc32fast::hash(&bytes) == crc {
            return Ok(bytes);
        }
        // Retired meanwhile, its file is another segment's by now.
        self.segment(number).and(Err(corrupt))
    }

    /// The last batch that is synced, and all before it.
    #[must_use]
    pub fn synced(&self) -> Lsn {
        self.inner.shared.synced()
    }

    /// The last batch that is handed to the operating system, and all before
    /// it.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.inner.shared.written()
    }

    /// [`synced`](Self::synced), to be waited for.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Lsn> {
        self.inner.shared.committed.subscribe()
    }

    /// The feed: entries of synced batches from `lsn` on, in order. Batches
    /// are whole; at least one comes if there is one, then as many as have up
    /// to about `max_bytes` of heads. Empty when nothing newer is synced. Begins
    /// with the oldest batch there is when `lsn` is older. Recent batches come
    /// from memory, older ones from disk, which blocks.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`]; [`Error::NoSegment`] when a segment
    /// is retired during the call.
    pub fn read_from(&self, lsn: Lsn, max_bytes: usize) -> Result<Vec<Replayed>, Error> {
        history::read(&self.inner.shared, lsn, max_bytes)
    }

    /// Segments in use, oldest first; the last one may be still written.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.inner.shared.segments.read();
        segments.values().map(|segment| segment.info()).collect()
    }

    /// The entries of all batches of a segment, in order.
    ///
    /// # Errors
    /// [`Error::NoSegment`], [`Error::Corrupt`], [`Error::Io`].
    pub fn entries(&self, segment: u64) -> Result<Vec<Replayed>, Error> {
        let segment = self.segment(segment)?;
        let mut all = Vec::new();
        for listed in segment.listed()? {
            all.extend(history::entries(&segment, &listed)?);
        }
        Ok(all)
    }

    /// Gives up the oldest segment; its file is used again. The owner has
    /// committed elsewhere, synced, what still matters of it. When this
    /// returns, the segment is gone from the disk for good.
    ///
    /// # Errors
    /// [`Error::NoSegment`], [`Error::NotOldest`], what a commit can fail
    /// with, and [`Error::Io`]: then the segment is given up, but its space
    /// comes back only when the log is next opened.
    pub async fn retire_oldest(&self, segment: u64) -> Result<(), Error> {
        let _one_at_a_time = self.inner.retiring.lock().await;
        let shared = &self.inner.shared;
        let retired = self.segment(segment)?;
        let oldest = shared.segments.read().keys().next().copied();
        if oldest != Some(segment) || !retired.is_sealed() {
            return Err(Error::NotOldest(segment));
        }
        // What is on disk says first that the segment is not needed, so that
        // its absence is never taken for a loss.
        self.hand_in(Submission::mark(Some(segment + 1))).await?;
        shared.segments.write().remove(&segment);
        let removed = shared.keeper.retire(retired);
        removed.await.map_err(|_| Error::Closed)?
    }

    /// Gives back the disk space of entries that nobody will read again: of
    /// all that `keep` says no to, as far as they fill whole blocks. Only of a
    /// sealed segment, whose footer still has every head. Blocks for the disk;
    /// a crash may undo it.
    ///
    /// # Errors
    /// [`Error::NoSegment`], [`Error::Corrupt`]; [`Error::Io`], of the kind
    /// [`Unsupported`](std::io::ErrorKind::Unsupported) where the file system
    /// can not.
    pub fn release(&self, segment: u64, keep: &dyn Fn(&Replayed) -> bool) -> Result<(), Error> {
        let segment = self.segment(segment)?;
        if !segment.is_sealed() {
            return Ok(());
        }
        for hole in history::unused(&segment, keep)? {
            let punched = segment.file.punch_hole(hole.start, hole.end - hole.start);
            punched.map_err(|error| Error::io(format!("giving back space of segment {}", segment.number()), error))?;
        }
        Ok(())
    }

    /// Bytes that a segment's file takes on the disk.
    ///
    /// # Errors
    /// [`Error::NoSegment`], [`Error::Io`].
    pub fn allocated(&self, segment: u64) -> Result<u64, Error> {
        let file = &self.segment(segment)?.file;
        file.allocated_bytes().map_err(|error| Error::io(format!("looking at segment {segment}"), error))
    }

    /// Reads a body as it is on the disk, damaged or not: as evidence.
    ///
    /// # Errors
    /// [`Error::NoSegment`], [`Error::Io`].
    pub fn read_unverified(&self, location: Location) -> Result<Bytes, Error> {
        let Location { segment: number, offset, len, .. } = location;
        segment::read(&*self.segment(number)?.file, number, offset, len.into())
    }

    /// Gives back the spare files that a rush has left, at once. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`]: what is left goes at rest, or at the next start.
    pub fn give_back_spare_files(&self) -> Result<(), Error> {
        self.inner.shared.keeper.give_back()
    }

    /// Whether spare segments can not be made because there is no space: stop
    /// taking new things in; the spare segments left are for finishing what
    /// is there. Passes by itself.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.inner.shared.keeper.is_full()
    }

    /// Whether a write or sync failed: the log takes nothing more, and what
    /// is on disk is only known after a restart.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        self.inner.shared.is_poisoned()
    }

    /// Returns when the log is [`poisoned`](Self::poisoned).
    pub async fn poison_event(&self) {
        let mut poison = self.inner.shared.poison.subscribe();
        // The sender lives as long as this handle.
        let _ = poison.wait_for(|poisoned| *poisoned).await;
    }

    /// Writes and syncs what was handed in, takes nothing more, and returns
    /// when the log's threads let go of its files.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.shared.end();
        let mut ended = self.inner.shared.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended == 2).await;
        if self.poisoned() {
            return Err(Error::Poisoned("a write or sync had failed".into()));
        }
        Ok(())
    }

    /// Counters, and space taken.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner.shared.usage()
    }

    fn segment(&self, number: u64) -> Result<Arc<Segment>, Error> {
        let segments: &BTreeMap<_, _> = &self.inner.shared.segments.read();
        segments.get(&number).cloned().ok_or(Error::NoSegment(number))
    }
}

#[cfg(test)]
impl Log {
    pub(crate) fn inner_keeper(&self) -> &Keeper {
        &self.inner.shared.keeper
    }

    pub(crate) fn inner_end(&self) {
        self.inner.shared.end();
    }

    pub(crate) fn inner_ended(&self) -> watch::Receiver<usize> {
        self.inner.shared.ended.subscribe()
    }
}
