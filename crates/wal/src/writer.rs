//! The one who writes: groups of batches, syncs, and the change from one
//! segment to the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::{Answer, Answers, Done, Refused, Waiter};
use crate::batch::{Place, Placed};
use crate::queue::{self, Submission};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::{Committed, Durability, Error, Lsn, Replayed};

/// State of the log's core between two turns.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    answers: Answers,
    active: Option<Arc<Segment>>,
    next_lsn: u64,
    /// The oldest segment in use, as the last batch says; the keeper hears of
    /// it once that batch is synced. So no new segment's header says what no
    /// batch on disk does.
    oldest: u64,
    /// Since when bytes are written and not synced.
    unsynced: Option<Instant>,
    /// The recent time of a sync, for the adaptive wait.
    sync_time: Duration,
    /// For how many batches the last sync was; less with each group since that
    /// needed none.
    last_group: usize,
}

/// What a turn did, and so what its driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There may be more to do.
    Worked,
    /// Nothing to do until a batch comes, or for so long.
    Rest(Option<Duration>),
    /// The log has ended.
    Ended,
}

/// Batches that are placed one after the other and not written yet.
#[derive(Debug, Default)]
struct Run {
    offset: u64,
    placed: Vec<Written>,
    /// Their entries.
    feed: Vec<Replayed>,
}

/// A batch that is placed, and who waits for it.
#[derive(Debug)]
struct Written {
    batch: Placed,
    committed: Committed,
    waiter: Waiter,
    durability: Durability,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, answers: Answers, next_lsn: u64) -> Self {
        let oldest = shared.keeper.oldest();
        let (sync_time, last_group) = (Duration::ZERO, 0);
        Self { shared, answers, active: None, next_lsn, oldest, unsynced: None, sync_time, last_group }
    }

    /// Writes one group, or syncs what has waited long enough, or nothing.
    pub(crate) fn turn(&mut self) -> Turn {
        if self.shared.is_poisoned() {
            return Turn::Ended;
        }
        let options = &self.shared.options;
        let taken = self.shared.queue.take(options.max_group_bytes, options.max_group_vectors);
        let result = if !taken.group.is_empty() {
            self.commit(taken.group).map(|()| Turn::Worked)
        } else if taken.last {
            self.finish().map(|()| Turn::Ended)
        } else {
            self.rest()
        };
        result.unwrap_or_else(|error| {
            self.poison(&error);
            Turn::Ended
        })
    }

    /// How many batches to be synced are worth waiting for before the next turn,
    /// and how long: sessions that were just answered come back with their next
    /// batch, and one sync for all of them beats two for halves. Not longer than a part
    /// of the sync that it may save: where what is written takes the time, the next
    /// group is better written while this one's sessions are at work.
    pub(crate) fn patience(&self) -> Option<(usize, Duration)> {
        let wait = (self.sync_time / 10 * 3).min(Duration::from_millis(1));
        let worth = self.shared.options.adaptive_wait && self.last_group > 1 && !wait.is_zero();
        worth.then_some((self.last_group, wait))
    }

    fn commit(&mut self, group: Vec<Submission>) -> Result<(), Error> {
        let synced = queue::synced(&group);
        let (mut done, mut refused) = (Vec::with_capacity(group.len()), Vec::new());
        let mut run = Run::default();
        let mut result = Ok(());
        for submission in group {
            if let Err(error) = &result {
                refused.push((submission, poisoned(error)));
                continue;
            }
            let Some(submission) = self.place(submission, &mut run) else {
                continue;
            };
            match self.write(&mut run, &mut done).and_then(|()| self.roll()) {
                Ok(Ok(())) => {
                    if let Some(submission) = self.place(submission, &mut run) {
                        refused.push((submission, Error::TooLarge("larger than a segment")));
                    }
                }
                Ok(Err(full)) => refused.push((submission, full)),
                Err(error) => {
                    refused.push((submission, poisoned(&error)));
                    result = Err(error);
                }
            }
        }
        if result.is_ok() {
            result = self.write(&mut run, &mut done).and_then(|()| {
                let synced = |written: &Written| written.durability == Durability::Synced;
                // A steady stream of buffered batches leaves no time to rest.
                let due = self.unsynced_left().is_some_and(|left| left.is_zero());
                if due || done.iter().any(synced) { self.sync() } else { Ok(()) }
            });
        }
        done.append(&mut run.placed);
        self.answer(done, refused, result.as_ref().err());
        // Who writes buffered alone does not wait long for those who have gone.
        self.last_group = if synced > 0 { synced } else { self.last_group / 2 };
        result
    }

    /// Gives a batch its place at the end of the segment; hands it back when
    /// there is none.
    fn place(&mut self, submission: Submission, run: &mut Run) -> Option<Submission> {
        let (len, footer_len) = (submission.batch.len(), submission.batch.footer_len());
        let room = self.active.as_ref().and_then(|active| {
            let offset = active.room_for(len, footer_len)?;
            Some((active, offset))
        });
        let Some((active, offset)) = room else {
            return Some(submission);
        };
        let Submission { batch, durability, oldest, waiter } = submission;
        self.oldest = oldest.unwrap_or(self.oldest);
        let (lsn, synced) = (self.next_lsn, self.shared.synced().get());
        let place = Place { seed: active.seed, offset, lsn, synced, oldest: self.oldest };
        let (batch, committed) = batch.place(place, &mut run.feed);
        active.append(lsn, len, &batch.prefix);
        self.next_lsn += 1;
        if run.placed.is_empty() {
            run.offset = offset;
        }
        run.placed.push(Written { batch, committed, waiter, durability });
        None
    }

    /// One vectored write of all that is placed.
    fn write(&mut self, run: &mut Run, done: &mut Vec<Written>) -> Result<(), Error> {
        let (Some(active), false) = (&self.active, run.placed.is_empty()) else {
            return Ok(());
        };
        let parts: Vec<&[u8]> = run.placed.iter().flat_map(|written| written.batch.parts()).collect();
        active.file.write_all_vectored_at(&parts, run.offset).map_err(|error| failed("writing", active, error))?;
        if self.unsynced.is_none() {
            self.unsynced = Some(self.shared.options.clock.instant());
        }
        self.shared.count_group(
            run.placed.len(),
            parts.iter().map(|part| part.len()).sum(),
            Lsn::new(self.next_lsn - 1),
        );
        self.shared.recent.lock().extend(run.feed.drain(..));
        done.append(&mut run.placed);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        let (Some(active), Some(_)) = (&self.active, self.unsynced) else {
            return Ok(());
        };
        let started = self.shared.options.clock.instant();
        active.file.sync_data().map_err(|error| failed("syncing", active, error))?;
        let took = self.shared.options.clock.instant() - started;
        self.sync_time = (self.sync_time * 7 + took) / 8;
        self.unsynced = None;
        self.shared.keeper.set_oldest(self.oldest);
        self.shared.count_sync(Lsn::new(self.next_lsn - 1));
        Ok(())
    }

    /// Seals the segment and goes on to the next. The inner error is that
    /// there is none, and the old one goes on; the outer one is the end.
    fn roll(&mut self) -> Result<Result<(), Error>, Error> {
        let next = match self.shared.keeper.take() {
            Ok(next) => next,
            Err(full) => return Ok(Err(full)),
        };
        // Batches before footer: a good footer means good batches, even when
        // the power fails in between.
        self.sync()?;
        if let Some(active) = &self.active
            && let Some(seal) = active.seal(self.oldest)
        {
            let written = seal.write(&*active.file);
            written.and_then(|()| active.file.sync_data()).map_err(|error| failed("sealing", active, error))?;
            active.set_sealed();
        }
        let number = next.number();
        self.shared.segments.write().insert(number, next.clone());
        self.active = Some(next);
        Ok(Ok(()))
    }

    fn answer(&self, done: Vec<Written>, refused: Vec<(Submission, Error)>, failed: Option<&Error>) {
        if failed.is_some() {
            self.shared.set_poisoned();
        }
        let mut message = Done { synced: self.shared.synced(), ..Done::default() };
        message.answers.reserve(done.len() + refused.len());
        message.spent.reserve(done.len());
        for Written { batch, committed, waiter, .. } in done {
            let result = match failed {
                None => Ok(committed),
                Some(error) => Err(Refused { error: poisoned(error), batch: None }),
            };
            message.answers.push(Answer { waiter, result });
            message.spent.push(batch);
        }
        for (Submission { batch, waiter, .. }, error) in refused {
            message.answers.push(Answer { waiter, result: Err(Refused { error, batch: Some(batch) }) });
        }
        self.answers.send(message);
    }

    fn rest(&mut self) -> Result<Turn, Error> {
        match self.unsynced_left() {
            None => Ok(Turn::Rest(None)),
            Some(left) if !left.is_zero() => Ok(Turn::Rest(Some(left))),
            Some(_) => {
                self.sync()?;
                self.answer(Vec::new(), Vec::new(), None);
                Ok(Turn::Worked)
            }
        }
    }

    /// How long what is written may still wait for its sync.
    fn unsynced_left(&self) -> Option<Duration> {
        let waited = self.shared.options.clock.instant() - self.unsynced?;
        Some(self.shared.options.buffered_sync.saturating_sub(waited))
    }

    /// Ends an orderly log: a last empty batch says that all before it was
    /// synced, so that what goes bad later is known as damage.
    fn finish(&mut self) -> Result<(), Error> {
        self.sync()?;
        let written = self.active.as_ref().is_some_and(|active| {
            let (first, next) = active.lsns();
            first < next
        });
        let (mark, _) = Submission::mark(None)?;
        let (len, footer_len) = (mark.batch.len(), mark.batch.footer_len());
        let active = self.active.as_ref().filter(|_| written);
        if active.is_some_and(|active| active.room_for(len, footer_len).is_some()) {
            self.commit(vec![mark])?;
        }
        self.answer(Vec::new(), Vec::new(), None);
        Ok(())
    }

    fn poison(&self, error: &Error) {
        tracing::error!("the log failed: {error}");
        let reason = poisoned(error);
        let waiting = self.shared.queue.abandon(reason.clone());
        let refused = waiting.into_iter().map(|submission| (submission, reason.clone())).collect();
        self.shared.set_poisoned();
        self.answer(Vec::new(), refused, None);
    }
}

fn poisoned(error: &Error) -> Error {
    Error::Poisoned(error.to_string())
}

fn failed(action: &str, segment: &Segment, error: std::io::Error) -> Error {
    Error::io(format!("{action} segment {}", segment.number()), error)
}

#[cfg(test)]
impl Writer {
    /// A sync takes so long from now on.
    pub(crate) fn assume_sync_time(&mut self, time: Duration) {
        self.sync_time = time;
    }
}
