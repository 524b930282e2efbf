//! The heads of what a log held when it was opened.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::recover::Opened;
use crate::shared::Shared;
use crate::{Error, OpenReport, Replayed};

/// What the log held when it was opened, still to be read: see
/// [`Log::open_behind`](crate::Log::open_behind). The log can be appended to
/// meanwhile; its owner retires no segment before.
#[derive(Debug)]
pub struct Backlog {
    shared: Arc<Shared>,
    /// Oldest first.
    unread: VecDeque<Opened>,
}

impl Backlog {
    pub(crate) fn new(shared: Arc<Shared>, unread: Vec<Opened>) -> Self {
        Self { shared, unread: unread.into() }
    }

    /// Whether every segment's heads were read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Hands every entry's head to `replay`, in LSN order: one segment's heads
    /// are in memory at a time. A segment whose footer is damaged is first
    /// written anew, and that is added to `report`. Blocks for the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn replay(mut self, report: &mut OpenReport, replay: &mut dyn FnMut(Replayed)) -> Result<(), Error> {
        while self.replay_next(report, replay)? {}
        Ok(())
    }

    /// As [`Backlog::replay`], of the oldest segment that is not read yet alone.
    /// Whether there was one.
    ///
    /// # Errors
    /// As [`Backlog::replay`].
    pub fn replay_next(&mut self, report: &mut OpenReport, replay: &mut dyn FnMut(Replayed)) -> Result<bool, Error> {
        let Some(next) = self.unread.pop_front() else { return Ok(false) };
        report.batches += read(&self.shared, next, report, replay)?;
        Ok(true)
    }

    /// As [`Backlog::replay`], of the last segment with batches alone.
    ///
    /// # Errors
    /// As [`Backlog::replay`].
    pub fn replay_last(&mut self, report: &mut OpenReport, replay: &mut dyn FnMut(Replayed)) -> Result<(), Error> {
        let Some(last) = self.unread.pop_back() else { return Ok(()) };
        report.batches += read(&self.shared, last, report, replay)?;
        Ok(())
    }
}

fn read(
    shared: &Shared,
    mut file: Opened,
    report: &mut OpenReport,
    replay: &mut dyn FnMut(Replayed),
) -> Result<u64, Error> {
    let listed = match file.listed()? {
        Some(listed) => listed,
        None => {
            let (repaired, segment) = shared.keeper.repair(file, report)?;
            shared.segments.write().insert(segment.number(), segment);
            file = repaired;
            file.listed()?.ok_or(Error::Corrupt { segment: file.number, offset: 0 })?
        }
    };
    let mut batches = 0;
    for listed in listed {
        file.entries(&listed)?.into_iter().for_each(&mut *replay);
        batches += 1;
    }
    Ok(batches)
}
