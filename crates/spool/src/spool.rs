//! The handle that everybody holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Disk, Metrics, Timestamp};
use postrider_mail::{AttemptOutcome, MessageId};
use postrider_wal::{Driver, Durability, Lsn};

use crate::admission::Admission;
use crate::claim::{self, Claim, Loads};
use crate::commit::Batch;
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::message::{NewMessage, QueueKey};
use crate::open;
use crate::operator;
use crate::reclaim::{self, Compacted};
use crate::records::Mark;
use crate::settings::Settings;
use crate::shared::{Recovery, Shared};
use crate::view::{MessageView, OpenReport, QueueEntry, QueueSummary, Selector, Stat};

/// What a spool is opened with.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Where the log is kept.
    pub disk: Arc<dyn Disk>,
    /// Directory of the log on that disk.
    pub dir: PathBuf,
    /// Directory of the index, on the real file system; removed and made
    /// anew at will. Without one the index is kept in memory.
    pub index_dir: Option<PathBuf>,
    /// What time it is.
    pub clock: Clock,
    /// Bounds.
    pub settings: Settings,
    /// Where to count.
    pub metrics: Metrics,
    /// Names of the feeds that will be read: nothing is reclaimed before
    /// each of them has acknowledged it.
    pub feeds: &'static [&'static str],
    /// Hold everything until an operator releases it: for a spool that was
    /// restored or copied from another machine.
    pub start_held: bool,
    /// Go on although files of the log are missing.
    pub accept_loss: bool,
    /// Who writes the log: a thread, or for simulated time a task.
    pub driver: Driver,
}

/// The durable queue. A cheap handle; when the last one is dropped, the tasks
/// behind it end, without the mark of a clean stop.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A part of an atomic batch.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "batches are short and not kept")]
pub enum Record {
    /// What became of some recipients of a queued message.
    Outcomes {
        /// The message.
        id: MessageId,
        /// One for each recipient concerned.
        outcomes: Vec<AttemptOutcome>,
    },
    /// A new message.
    Message(NewMessage),
}

/// How long tasks may take to end.
const CLOSE: Duration = Duration::from_secs(10);
/// How long a stop waits for reclaim to come to a pause.
const RECLAIM: Duration = Duration::from_secs(1);

impl Spool {
    /// Opens or makes a spool and recovers its old mail. To be called on a
    /// tokio runtime.
    ///
    /// # Errors
    /// As [`Spool::open_behind`] and [`Spool::recovered`].
    pub async fn open(options: SpoolOptions) -> Result<Self> {
        let spool = Self::open_behind(options).await?;
        spool.recovered().await?;
        Ok(spool)
    }

    /// Opens or makes a spool that takes messages at once, while a task
    /// recovers old mail. Until that is done nothing is handed out; operators'
    /// calls, [`Spool::commit`] and feeds wait.
    ///
    /// # Errors
    /// [`Error::Log`] when segments are missing or of another version,
    /// [`Error::Io`].
    pub async fn open_behind(options: SpoolOptions) -> Result<Self> {
        Ok(Self(Arc::new(Handle(open::open(options).await?))))
    }

    /// Waits until old mail is recovered; how it went.
    ///
    /// # Errors
    /// [`Error::Unrecovered`]: the process is to end, see [`Spool::failed`].
    /// [`Error::Closed`].
    pub async fn recovered(&self) -> Result<Arc<OpenReport>> {
        self.0.0.recovered().await
    }

    /// How recovering went; none while it is under way, or failed.
    pub fn report(&self) -> Option<Arc<OpenReport>> {
        match &*self.0.0.recovery.borrow() {
            Recovery::Done(report) => Some(Arc::clone(report)),
            Recovery::UnderWay | Recovery::Failed(_) => None,
        }
    }

    /// Gives back all disk space that nothing needs, which is otherwise done
    /// when enough has come together.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Poisoned`], [`Error::Closed`].
    pub async fn compact(&self) -> Result<Compacted> {
        reclaim::compact(&self.0.0).await
    }

    /// Reserves room for a message of this length, so that a client hears
    /// early that there is none. [`Spool::accept`] makes its own reservation:
    /// drop this one before.
    ///
    /// # Errors
    /// [`Error::Full`] at a bound, [`Error::NoFile`], [`Error::Poisoned`],
    /// [`Error::Closed`].
    pub fn admit(&self, bytes: u64) -> Result<Admission> {
        let shared = &self.0.0;
        shared.check_open()?;
        if shared.log.is_full() {
            shared.metrics.spool_full.inc();
            return Err(shared.admissions.no_segment());
        }
        shared.admissions.admit(bytes).inspect_err(|_| {
            shared.metrics.spool_full.inc();
        })
    }

    /// Takes a message. `Ok` means that it is synced. Not cancelled by a
    /// dropped future: what was handed to the log is queued when it commits.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::NoFile`], [`Error::TooLarge`],
    /// [`Error::Closed`]: the message was not taken. [`Error::Poisoned`]: it may have been.
    pub async fn accept(&self, message: NewMessage) -> Result<()> {
        let shared = &self.0.0;
        shared.check_open()?;
        if shared.log.is_full() {
            shared.metrics.spool_full.inc();
            return Err(shared.admissions.no_segment());
        }
        let began = shared.clock.instant();
        let has_to_wait = || shared.state.lock().due.has_to_wait(message.account);
        shared.youth.room(shared.clock.now(), has_to_wait).await?;
        let mut batch = Batch::default();
        batch.accept(shared, message, true).inspect_err(|_| {
            shared.metrics.spool_full.inc();
        })?;
        batch.commit(shared, Durability::Synced).await.map_err(|error| match error {
            Error::Full(_) => shared.admissions.no_segment(),
            other => other,
        })?;
        let took = shared.clock.instant().saturating_duration_since(began);
        shared.metrics.commit_duration.observe(took);
        Ok(())
    }

    /// Writes records as one atomic batch. Messages in it are taken beyond
    /// the bounds: they are consequences of what was accepted before.
    ///
    /// # Errors
    /// [`Error::Unknown`] when outcomes are about a message that does not
    /// wait; nothing is written then. Others as [`Spool::accept`].
    pub async fn commit(&self, records: Vec<Record>, durability: Durability) -> Result<Lsn> {
        let shared = &self.0.0;
        let about = records.iter().filter_map(|record| match record {
            Record::Outcomes { id, .. } => Some(*id),
            Record::Message(_) => None,
        });
        let about: Vec<MessageId> = about.collect();
        let loads = Loads::begin(shared, about.clone()).await?;
        if let Some(id) = about.iter().find(|id| !loads.ids().contains(id)) {
            return Err(Error::Unknown(*id));
        }
        let mut batch = Batch::default();
        for record in records {
            match record {
                Record::Outcomes { id, outcomes } => batch.outcomes(id, outcomes)?,
                Record::Message(message) => batch.accept(shared, message, false)?,
            }
        }
        batch.commit(shared, durability).await
    }

    /// Waits until something is due and claims up to `max` parts of messages,
    /// from accounts in turn, from the queues of an account in turn, oldest first within a
    /// queue. Never returns an empty list; after [`Spool::failed`] or
    /// [`Spool::close`] never returns. Dropping the future claims nothing.
    pub async fn take_due(&self, max: usize) -> Vec<Claim> {
        claim::take_due(&self.0.0, max).await
    }

    /// Hands out nothing more of a queue until [`Spool::unpark`]. Not
    /// remembered across restarts.
    pub fn park(&self, queue: &QueueKey) {
        self.0.0.update(|state, now| state.due.park(queue, true, now));
    }

    /// Hands out from a parked queue again.
    pub fn unpark(&self, queue: &QueueKey) {
        self.0.0.update(|state, now| state.due.park(queue, false, now));
    }

    /// As [`Spool::unpark`], and what was set aside ([`Claim::set_aside`]) is handed
    /// out again at once.
    pub fn recall(&self, queue: &QueueKey) {
        self.0.0.update(|state, now| {
            state.due.park(queue, false, now);
            state.due.recall(queue, now);
        });
    }

    /// As [`Spool::recall`], also for what its queue went past ([`Claim::pass_over`]).
    pub fn read_again(&self, queue: &QueueKey) {
        self.0.0.update(|state, now| {
            state.due.park(queue, false, now);
            state.due.read_again(queue, now);
        });
    }

    /// As [`Spool::unpark`], for a queue of which messages are set aside
    /// ([`Claim::set_aside`], [`Claim::pass_over`]): those whose time has come are handed out. When the next one
    /// is, if one is left.
    pub fn let_on(&self, queue: &QueueKey) -> Option<Timestamp> {
        self.0.0.update(|state, now| state.due.let_on(queue, now))
    }

    /// Keeps messages from being delivered, across restarts. Holding a queue,
    /// a domain or everything also holds what comes later. What is in
    /// delivery stays so.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a single message that does not wait.
    pub async fn hold(&self, selector: &Selector) -> Result<()> {
        operator::hold(&self.0.0, selector).await
    }

    /// Ends every hold that lies within the selector, and those of single
    /// messages in it. A wider hold stays.
    ///
    /// # Errors
    /// As [`Spool::hold`].
    pub async fn release(&self, selector: &Selector) -> Result<()> {
        operator::release(&self.0.0, selector).await
    }

    /// Makes waiting messages due now, held ones apart, also those that are set aside
    /// ([`Claim::set_aside`]); how many parts of messages, by recipient domain. What they
    /// were set aside for may hold on, and then they are again. Before its time
    /// (`not_before`) a message is made due only when it is named by its id.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub async fn retry(&self, selector: &Selector) -> Result<u64> {
        operator::retry(&self.0.0, selector).await
    }

    /// Ends waiting messages without delivery and without a bounce; how many
    /// parts of messages, by recipient domain. What is in delivery may still
    /// arrive.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub async fn delete(&self, selector: &Selector) -> Result<u64> {
        operator::delete(&self.0.0, selector).await
    }

    /// Every queue in numbers, ordered by account and domain. Reads the whole
    /// index.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn summary(&self) -> Result<Vec<QueueSummary>> {
        operator::summary(&self.0.0).await
    }

    /// Up to `limit` entries of the queues selected, ordered by account,
    /// domain and due time.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn list(&self, selector: &Selector, limit: usize) -> Result<Vec<QueueEntry>> {
        operator::list(&self.0.0, selector, limit).await
    }

    /// A queued message; `None` when it has ended or never was.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn show(&self, id: MessageId) -> Result<Option<MessageView>> {
        operator::show(&self.0.0, id).await
    }

    /// The time by which messages are due.
    pub fn now(&self) -> Timestamp {
        self.0.0.clock.now()
    }

    /// The widest hold that keeps the mail of `queue`, if one does. Holds of single
    /// messages are in [`MessageView::held`].
    pub fn hold_of(&self, queue: &QueueKey) -> Option<Selector> {
        self.0.0.state.lock().due.holds().widest(queue)
    }

    /// The spool in numbers; also brings the metrics of its log up to date.
    pub fn stat(&self) -> Stat {
        let shared = &self.0.0;
        let (messages, bytes) = shared.admissions.counts();
        let segments = shared.log.usage().segments + shared.cold.usage().segments;
        shared.publish();
        let state = shared.state.lock();
        Stat {
            messages,
            bytes,
            young: shared.youth.count() as u64,
            queues: state.due.len() as u64,
            in_delivery: state.due.states().map(|queue| queue.claimed).sum(),
            held: state.due.holds().all,
            body_memory: shared.bodies.held(),
            disk_bytes: reclaim::disk_bytes(shared),
            cold_bytes: shared.cold_space.bytes(),
            accepted_bytes: shared.metrics.spool_accepted_bytes.get(),
            written_bytes: shared.log.usage().bytes_written + shared.cold.usage().bytes_written,
            recovering: self.report().is_none(),
            segments,
            index: shared.indexer.kind(),
            index_backlog: shared.indexer.backlog(),
            quarantined: shared.quarantine.count(),
            feeds: shared.feeds.places(),
            synced: shared.log.synced(),
        }
    }

    /// Starts reading with the batch `from`: the one after the last that the
    /// reader has dealt with, or [`Lsn::ZERO`] for everything that is there.
    /// What is before `from` counts as acknowledged.
    pub fn feed(&self, name: &'static str, from: Lsn) -> Feed {
        Feed::new(&self.0.0, name, from)
    }

    /// Waits until the reader of this name is done with all that has happened
    /// here by now; not where nobody reads.
    pub async fn told(&self, feed: &str) {
        let shared = &self.0.0;
        shared.feeds.reach(feed, shared.log.written()).await;
    }

    /// Resolves when the log has failed: the process must end and be
    /// restarted, which recovers.
    pub async fn failed(&self) {
        self.0.0.failed().await;
    }

    /// Syncs, marks the stop as clean, and ends the tasks. What is claimed
    /// is due again at the next start.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`] the second time.
    pub async fn close(&self) -> Result<()> {
        let shared = &self.0.0;
        shared.check_open()?;
        // Nothing is written behind the mark of a clean stop, unless reclaim is
        // slow.
        let _still = tokio::time::timeout(RECLAIM, shared.reclaiming.take()).await;
        if self.report().is_some() {
            let index = shared.indexer.settled().await?;
            let flushed = tokio::task::spawn_blocking(move || index.flush()).await;
            if let Ok(Err(error)) = flushed {
                tracing::warn!(%error, "the index was not flushed");
            }
            let mut batch = Batch::default();
            batch.mark(Mark::CleanStop)?;
            batch.commit(shared, Durability::Synced).await?;
        }
        shared.end();
        if let Err(late) = shared.scope.clone().close(CLOSE).await {
            tracing::warn!(?late, "tasks of the spool did not end in time");
        }
        shared.cold.close().await?;
        shared.log.close().await.map_err(Error::from)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}
