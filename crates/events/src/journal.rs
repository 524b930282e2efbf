//! The journal: its log, its view of messages, and what it knows of those under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Clock, Metrics, Scope, Timestamp};
use postrider_mail::MessageId;
use postrider_spool::FeedItem;
use postrider_wal::{Committed, Durability, Error as LogError, Location, Log, Lsn, Options};
use tokio::sync::{mpsc, watch};

use crate::digest::{Digest, Rules};
use crate::error::{Error, Result};
use crate::handle::{EventsOptions, Issuer, OpenReport};
use crate::live::{Known, Live};
use crate::record::{Body, Cursor, Head};
use crate::recovery::Recovery;
use crate::reports::{self, Report};
use crate::settings::Settings;
use crate::view::{Place, View};

/// Between two attempts to write on a full disk.
const NO_ROOM: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) log: Log,
    pub(crate) view: View,
    live: Mutex<Live>,
    /// Records may be in the log that are neither in `live` nor in the view.
    unsettled: AtomicBool,
    /// The latest time in each segment.
    ages: Mutex<BTreeMap<u64, Timestamp>>,
    pub(crate) clock: Clock,
    settings: Settings,
    pub(crate) metrics: Metrics,
    issuer: Issuer,
    /// The last batch of the feed that the journal had when it was opened.
    pub(crate) resume: Lsn,
    pub(crate) accept_loss: bool,
    /// The journal's own last batch then.
    pub(crate) last: Lsn,
    /// How opening went, once all of the journal has been read.
    report: watch::Receiver<Option<OpenReport>>,
    /// What reads it.
    pub(crate) scope: Scope,
    pub(crate) state: watch::Sender<State>,
    /// Reports of what came back.
    pub(crate) reports: mpsc::Sender<Report>,
    /// Of these, until somebody reads the feed.
    pub(crate) incoming: Mutex<Option<mpsc::Receiver<Report>>>,
}

/// What readers and the process must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Failed,
    Closed,
}

impl Journal {
    pub(crate) fn open(
        options: EventsOptions,
        report: watch::Receiver<Option<OpenReport>>,
    ) -> Result<(Self, Recovery)> {
        let settings = options.settings;
        let log_options = Options {
            segment_bytes: settings.segment_bytes.bytes(),
            spare_segments: 1,
            // Those that went for their age or their bytes are to give their room back: all but
            // one, which the next segment takes. It counts as room until then, so that going
            // over the bytes can take one segment more at once, and none the next time.
            most_spare_files: 1,
            accept_loss: options.accept_loss,
            driver: options.driver,
            clock: options.clock.clone(),
            ..Options::default()
        };
        let (log, backlog, found) = Log::open_behind(options.disk, &options.dir, log_options)?;
        let last = found.last;
        let recovery = Recovery::begin(backlog, found)?;
        let (reports, incoming) = mpsc::channel(reports::WAITING);
        let journal = Self {
            unsettled: AtomicBool::new(false),
            live: Mutex::new(Live::new(settings.message_memory.as_usize())),
            ages: Mutex::default(),
            clock: options.clock,
            metrics: options.metrics,
            issuer: options.issuer,
            state: watch::Sender::new(State::Running),
            reports,
            incoming: Mutex::new(Some(incoming)),
            view: View::new(options.view_dir),
            scope: Scope::new("journal"),
            resume: recovery.resume(),
            accept_loss: options.accept_loss,
            log,
            settings,
            last,
            report,
        };
        Ok((journal, recovery))
    }

    /// Waits for the end of the recovery.
    pub(crate) async fn recovered(&self) -> Result<OpenReport> {
        let mut report = self.report.clone();
        let found = report.wait_for(Option::is_some).await;
        found.ok().and_then(|report| report.clone()).ok_or_else(|| LogError::Closed.into())
    }

    /// Whether some of what it held has not been looked through.
    pub(crate) fn is_recovering(&self) -> bool {
        self.report.borrow().is_none()
    }

    /// Takes note of when records of old segments were written.
    pub(crate) fn note_ages(&self, records: &[(Head, Place)]) {
        let mut ages = self.ages.lock();
        for (head, place) in records {
            let age = ages.entry(place.location.segment).or_default();
            *age = head.at.max(*age);
        }
    }

    /// About how many bytes of records are written together.
    pub(crate) fn max_digest(&self) -> usize {
        self.settings.segment_bytes.as_usize() / 16
    }

    /// As whom events speak.
    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Turns the first of `items` into records. Blocks.
    pub(crate) fn digest(&self, items: &[FeedItem]) -> Result<Digest> {
        let rules = Rules {
            issuer: &self.issuer,
            delay_interval: self.settings.delay_interval.as_duration(),
            attempt_records: self.settings.attempt_records,
        };
        let recall = |id| match self.records(id, Vec::new()).and_then(|records| Known::from_journal(&records)) {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(%id, "the journal does not say what this message was: {error}");
                None
            }
        };
        Digest::of(items, self.max_digest(), &mut self.live.lock(), rules, &recall)
    }

    /// Takes note of written records. Blocks.
    pub(crate) fn settle(&self, digest: &Digest, committed: &Committed) -> Result<()> {
        let now = self.clock.now();
        let mut rows = Vec::new();
        let mut live = self.live.lock();
        for (index, (head, location)) in (0..).zip(digest.heads.iter().zip(&committed.locations)) {
            let place = Place::new(committed.lsn, index, *location);
            live.note(head.id, place, now, &mut rows);
            let mut ages = self.ages.lock();
            let age = ages.entry(location.segment).or_default();
            *age = head.at.max(*age);
        }
        for (id, recipients) in &digest.gone {
            if let Some(known) = live.get(id) {
                known.came_back(recipients);
            }
        }
        for head in &digest.heads {
            live.drop_ended(head.id, &mut rows);
        }
        live.tidy(now, &mut rows);
        self.with_view(|view| view.insert(&rows))?;
        drop(live);
        self.unsettled.store(false, Ordering::Release);
        for kind in &digest.kinds {
            self.metrics.journal_records.of(kind.label()).inc();
        }
        Ok(())
    }

    /// Tells the view what it does not know yet. Blocks.
    pub(crate) fn settle_view(&self) -> Result<()> {
        if !self.view.is_complete() {
            return Ok(());
        }
        let mut live = self.live.lock();
        let rows = live.drain();
        self.with_view(|view| view.insert(&rows))
    }

    /// Closes the view; trusted at the next start when it knows all records.
    pub(crate) fn close_view(&self) -> Result<()> {
        let clean = self.view.is_complete() && !self.unsettled.load(Ordering::Acquire);
        self.view.close(clean.then(|| self.log.synced()))
    }

    /// Retires segments that are too old or too much; later, where there is
    /// no room for the mark that gives one up.
    pub(crate) async fn retire(self: &Arc<Self>) -> Result<()> {
        while let Some(segment) = self.expired() {
            let journal = self.clone();
            let ids = blocking(move || journal.ids(segment)).await?;
            match self.log.retire_oldest(segment).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(segment, "old events stay for now: {error}");
                    break;
                }
                retired => retired?,
            }
            self.ages.lock().remove(&segment);
            let journal = self.clone();
            blocking(move || journal.with_view(|view| view.forget(ids.iter().copied(), segment))).await?;
        }
        let bytes = i64::try_from(self.log.usage().bytes).unwrap_or(i64::MAX);
        self.metrics.journal_bytes.set(bytes);
        Ok(())
    }

    /// Says that the process must be restarted.
    pub(crate) fn fail(&self, error: &Error) {
        tracing::error!("the journal of events failed: {error}");
        self.state.send_replace(State::Failed);
    }

    /// Resolves when nothing more is written.
    pub(crate) async fn stopped(&self) {
        let _ = self.state.subscribe().wait_for(|state| *state != State::Running).await;
    }

    /// Appends a digest; waits while there is no room, but not longer than
    /// the scope lasts: none when nothing was written.
    pub(crate) async fn append(self: &Arc<Self>, digest: &Digest, scope: &Scope) -> Result<Option<Committed>> {
        loop {
            if let Some(committed) = self.try_append(digest).await? {
                return Ok(Some(committed));
            }
            tokio::select! {
                () = scope.cancelled() => return Ok(None),
                () = tokio::time::sleep(NO_ROOM) => self.retire().await?,
            }
        }
    }

    /// Appends a digest; none when there is no room.
    pub(crate) async fn try_append(&self, digest: &Digest) -> Result<Option<Committed>> {
        self.unsettled.store(true, Ordering::Release);
        let written = match self.log.is_full() {
            false => self.log.commit(digest.entries.clone(), Durability::Buffered).await,
            // What room is left is for retiring, which makes more.
            true => Err(LogError::Full("the last segment is kept in reserve".into())),
        };
        match written {
            Err(error) if error.is_transient() => {
                self.unsettled.store(false, Ordering::Release);
                tracing::warn!("the journal of events waits: {error}");
                Ok(None)
            }
            result => Ok(Some(result?)),
        }
    }

    /// Where events of this time or later begin, at the earliest.
    pub(crate) fn first_since(&self, time: Timestamp) -> Lsn {
        let ages = self.ages.lock();
        let segments = self.log.segments();
        let mut late = segments.iter().filter(|s| ages.get(&s.number).is_some_and(|age| *age >= time));
        late.find_map(|segment| segment.first_lsn).unwrap_or_else(|| self.log.written().next())
    }

    /// A place where a reader was when it last ran, as far as the journal
    /// reached when it was opened: beyond that it is of a journal that was
    /// lost, and other events come in its stead.
    pub(crate) fn clamp(&self, cursor: Cursor) -> Cursor {
        let end = Cursor { batch: self.last.get(), index: u16::MAX };
        if cursor > end {
            tracing::warn!(%cursor, %end, "a reader of the journal is ahead of it, and goes on at its end");
        }
        cursor.min(end)
    }

    /// Reads a record; none when it has been retired, or is damaged: one bad
    /// record does not hide the others.
    pub(crate) fn read(&self, location: Location) -> Result<Option<Body>> {
        let damaged = |error: Error| {
            tracing::error!(segment = location.segment, offset = location.offset, "skipping a journal record: {error}");
            Ok(None)
        };
        match self.log.read(location) {
            Ok(bytes) => Body::parse(&bytes).map(Some).or_else(damaged),
            Err(LogError::NoSegment(_)) => Ok(None),
            Err(error @ LogError::Corrupt { .. }) => damaged(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The oldest segment, when it is to go. The last one that has records
    /// stays: it says where to resume.
    fn expired(&self) -> Option<u64> {
        let oldest = self.log.segments().into_iter().next().filter(|segment| segment.sealed)?;
        let ages = self.ages.lock();
        if ages.keys().all(|number| *number <= oldest.number) {
            return None;
        }
        let last = ages.get(&oldest.number).copied().unwrap_or_default();
        let too_old = self.clock.now().saturating_since(last) > self.settings.retention.as_duration();
        let too_much = self.log.usage().bytes > self.settings.max_bytes.bytes();
        (too_old || too_much).then_some(oldest.number)
    }

    /// Of the messages that have records in a segment.
    fn ids(&self, segment: u64) -> Result<Vec<MessageId>> {
        let entries = self.log.entries(segment)?;
        let mut ids: Vec<MessageId> = entries.iter().filter_map(|e| Head::decode(e).ok()).map(|head| head.id).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The records of a message, oldest first; none when the journal has nothing of it.
    pub(crate) fn records_of(&self, id: MessageId) -> Result<Vec<Body>> {
        let young = self.live.lock().young(&id).iter().map(|place| place.location).collect();
        self.records(id, young)
    }

    /// The records of a message in order: those that the view knows and the
    /// young ones.
    fn records(&self, id: MessageId, young: Vec<Location>) -> Result<Vec<Body>> {
        let mut locations = self.with_view(|view| view.find(id))?;
        locations.extend(young);
        locations.sort_unstable();
        locations.dedup();
        let records = locations.into_iter().map(|location| self.read(location));
        records.filter_map(Result::transpose).collect()
    }

    /// The view is a cache: what fails on it is tried once more on a new one.
    fn with_view<T>(&self, work: impl Fn(&View) -> Result<T>) -> Result<T> {
        match work(&self.view) {
            Err(Error::View(reason)) => {
                tracing::error!("making the journal's view of messages anew: {reason}");
                self.view.rebuild(&self.log)?;
                work(&self.view)
            }
            result => result,
        }
    }
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Events;
    use crate::record::LifeEntry;
    use crate::samples::{ACCEPTED, accepted, id, later, message, open, options, outcome, outcomes, take};
    use postrider_base::{Period, SimDisk, Size};
    use postrider_mail::Disposition;

    #[tokio::test]
    async fn what_memory_does_not_hold_is_read_back() {
        let (disk, clock) = (SimDisk::new(), Clock::simulated(ACCEPTED));
        let Events(journal) = open(options(&disk, clock)).await;
        take(&journal, vec![accepted(1, message(1, &["a@example.net"]))]).await;
        assert!(journal.live.lock().get(&id(1)).is_none(), "it is still in memory");
        let delivered = outcome(0, later(Period::from_secs(1)), Disposition::Delivered, "250 ok");
        take(&journal, vec![outcomes(2, 1, vec![delivered])]).await;
        let life = journal.life(id(1)).unwrap();
        assert!(matches!(&life[1], LifeEntry::Attempt { recipient: Some(to), .. } if to.as_str() == "a@example.net"));
    }

    #[tokio::test]
    async fn a_view_that_breaks_is_made_anew() {
        let (disk, clock) = (SimDisk::new(), Clock::simulated(ACCEPTED));
        let Events(journal) = open(options(&disk, clock)).await;
        take(&journal, vec![accepted(1, message(1, &["a@example.net"]))]).await;
        journal.view.close(Some(Lsn::ZERO)).unwrap();
        assert!(journal.view.find(id(1)).is_err());
        assert_eq!(journal.life(id(1)).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_idle_journal_keeps_where_to_resume() {
        let disk = SimDisk::new();
        let events = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        take(&events.0, vec![accepted(7, message(1, &["a@example.net"]))]).await;
        events.close().await.unwrap();
        for _ in 0..3 {
            let much_later = Clock::simulated(later(Period::from_days(365)));
            let events = open(options(&disk, much_later)).await;
            events.0.retire().await.unwrap();
            assert_eq!(events.0.resume, Lsn::new(7));
            events.close().await.unwrap();
        }
        let much_later = Clock::simulated(later(Period::from_days(365)));
        let events = open(options(&disk, much_later)).await;
        let mut fresh = message(2, &["a@example.net"]);
        fresh.accepted_at = later(Period::from_days(365));
        take(&events.0, vec![accepted(8, fresh)]).await;
        events.0.retire().await.unwrap();
        assert!(events.message(id(1)).await.unwrap().is_empty(), "the old one was kept");
        assert_eq!(events.message(id(2)).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_full_disk_does_not_hold_up_a_stop() {
        let (disk, clock) = (SimDisk::new(), Clock::simulated(ACCEPTED));
        let Events(journal) = open(options(&disk, clock)).await;
        disk.set_capacity(Some(1));
        let stopping = Scope::new("test");
        stopping.cancel();
        for number in 1..=500u32 {
            let digest = journal.digest(&[accepted(1, message(number.into(), &["a@example.net"]))]).unwrap();
            if journal.append(&digest, &stopping).await.unwrap().is_none() {
                return;
            }
        }
        panic!("500 messages fitted in nothing");
    }

    /// A journal with segments to retire, on a disk without room for another.
    async fn on_a_full_disk() -> (SimDisk, Arc<Journal>) {
        let (disk, clock) = (SimDisk::new(), Clock::simulated(ACCEPTED));
        let mut options = options(&disk, clock);
        options.settings.max_bytes = Size::from_bytes(1);
        let Events(journal) = open(options).await;
        for number in 1..=100 {
            take(&journal, vec![accepted(number, message(number.into(), &["a@example.net"]))]).await;
        }
        disk.set_capacity(Some(1));
        (disk, journal)
    }

    #[tokio::test]
    async fn a_disk_without_room_puts_retiring_off() {
        let (disk, journal) = on_a_full_disk().await;
        let fill = |batch| journal.log.commit(batch, Durability::Buffered);
        let record = accepted(200, message(200, &["a@example.net"]));
        let digest = journal.digest(&[record]).unwrap();
        while fill(digest.entries.clone()).await.is_ok() {}
        while fill(Vec::new()).await.is_ok() {}
        journal.retire().await.unwrap();
        assert!(journal.expired().is_some());
        assert_eq!(journal.life(id(1)).unwrap().len(), 1, "it is kept, and was forgotten");
        disk.set_capacity(None);
        while journal.expired().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            journal.retire().await.unwrap();
        }
        assert!(journal.life(id(1)).unwrap().is_empty());
    }

    #[tokio::test]
    async fn records_leave_the_room_that_retiring_takes() {
        let (_disk, journal) = on_a_full_disk().await;
        let stopping = Scope::new("test");
        stopping.cancel();
        let empty = Digest::default();
        while journal.append(&empty, &stopping).await.unwrap().is_some() {}
        assert!(journal.expired().is_some());
        journal.retire().await.unwrap();
        assert!(journal.expired().is_none(), "there was no room for the mark that gives room back");
    }
}
