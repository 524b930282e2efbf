//! A program that keeps a spool busy and says what the spool promised it, so
//! that a test can take its power away and ask whether the promises hold.
//!
//! Each thing is told twice: before the spool is asked for it, since it may
//! have happened from then on, and once the spool has answered. What a message
//! looks like follows from its id, so that telling the id tells all.

mod line;
mod mail;

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider_base::{Clock, Metrics, Period, Random, RealDisk, Size};
use postrider_mail::{AttemptOutcome, BounceKind, DelayType, Delays, Disposition, EnhancedStatus, MessageId};
use postrider_spool::{Claim, Driver, DueRecipient, FeedItem, FeedRecord, Lsn, Result, Settings, Spool, SpoolOptions};
use tokio::task::JoinSet;

pub use self::line::{Attempt, Line};
pub use self::mail::{body, message, recipients};

/// The name of the feed that is read.
pub const FEED: &str = "power";
/// How long the spool may keep an outcome unsynced.
pub const OUTCOME_SYNC: Period = Period::from_millis(100);

const WRITERS: usize = 6;
const DELIVERERS: usize = 3;
/// Waiting messages at which the writers pause.
const MOST_WAITING: u64 = 150;
/// How long outcomes still come in after the last message was accepted.
const REST: Duration = Duration::from_millis(1200);

/// How the spool in a directory is opened: segments as small as they may be,
/// few bodies in memory, and an index that is used early.
#[must_use]
pub fn options(directory: &Path) -> SpoolOptions {
    SpoolOptions {
        disk: Arc::new(RealDisk),
        dir: directory.join("spool"),
        index_dir: Some(directory.join("index")),
        clock: Clock::system(),
        settings: Settings {
            segment_bytes: Size::from_kib(1024),
            min_free_bytes: Size::from_bytes(0),
            body_memory: Size::from_kib(512),
            index_after: Period::from_millis(150),
            outcome_sync: OUTCOME_SYNC,
            ..Settings::default()
        },
        metrics: Metrics::new(),
        feeds: &[FEED],
        start_held: false,
        accept_loss: false,
        driver: Driver::Thread,
    }
}

/// What the program is to do.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLoad {
    /// Messages to accept; then the rest is delivered for a while and the
    /// spool is closed.
    pub messages: u64,
    /// The last batch of the feed that was read by an earlier run.
    pub cursor: u64,
}

impl SpoolLoad {
    /// Accepts, delivers, defers, bounces and reads the feed, all at once, and
    /// tells it on the standard output.
    ///
    /// # Errors
    /// The spool's first one.
    pub async fn run(self, directory: &Path) -> Result<()> {
        let spool = Spool::open(options(directory)).await?;
        let random = Random::system();
        let left = Arc::new(AtomicU64::new(self.messages));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(write(spool.clone(), random.clone(), Arc::clone(&left)));
        }
        let mut others = JoinSet::new();
        for _ in 0..DELIVERERS {
            others.spawn(deliver(spool.clone(), random.clone()));
        }
        others.spawn(listen(spool.clone(), Lsn::new(self.cursor + 1)));
        while let Some(writer) = writers.join_next().await {
            writer.map_err(io::Error::other)??;
        }
        tokio::time::sleep(REST).await;
        if let Some(ended) = others.try_join_next() {
            ended.map_err(io::Error::other)??;
        }
        others.shutdown().await;
        spool.close().await
    }
}

async fn write(spool: Spool, random: Random, left: Arc<AtomicU64>) -> Result<()> {
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    while take().is_ok() {
        while spool.stat().messages >= MOST_WAITING {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let id = new_id(&random);
        tell(&[Line::Accepting(id)])?;
        spool.accept(message(id)).await?;
        tell(&[Line::Acked(id)])?;
    }
    Ok(())
}

fn new_id(random: &Random) -> MessageId {
    MessageId::new(MessageId::DEFAULT_NODE, Clock::system().now(), random.uuid_v4())
}

async fn deliver(spool: Spool, random: Random) -> Result<()> {
    loop {
        for claim in spool.take_due(4).await {
            attempt(claim, &random).await?;
        }
    }
}

/// Decides about each recipient of a claim and records it as one batch.
async fn attempt(mut claim: Claim, random: &Random) -> Result<()> {
    claim.register().await?;
    if claim.content().await?.to_bytes() != body(claim.id) {
        tell(&[Line::Damaged(claim.id)])?;
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let (mut outcomes, mut notices) = (Vec::new(), Vec::new());
    for due in &claim.recipients {
        let attempt = Attempt { id: claim.id, recipient: due.index, number: due.attempts + 1 };
        let disposition = match random.below(20) {
            0..14 => Disposition::Delivered,
            14..16 => Disposition::Bounced(BounceKind::PermanentNoEmail),
            _ => Disposition::Deferred(DelayType::General),
        };
        let notice = matches!(disposition, Disposition::Bounced(_)).then(|| new_id(random));
        notices.extend(notice.map(message));
        if disposition.is_terminal() {
            before.push(Line::Ending(attempt, notice));
            after.push(Line::Ended(attempt));
        } else {
            before.push(Line::Deferring(attempt));
            after.push(Line::Deferred(attempt));
        }
        outcomes.push(outcome(due, disposition, random));
    }
    tell(&before)?;
    claim.finish(outcomes, notices).await?;
    tell(&after)?;
    Ok(())
}

fn outcome(due: &DueRecipient, disposition: Disposition, random: &Random) -> AttemptOutcome {
    let now = Clock::system().now();
    let delay = Duration::from_millis(50 + random.below(3000));
    AttemptOutcome {
        recipient: due.index,
        at: now,
        attempt: due.attempts + 1,
        disposition,
        status: EnhancedStatus::new(2, 0, 0),
        diagnostic: "250 2.0.0 fine".to_owned(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: (!disposition.is_terminal()).then(|| now.saturating_add(delay)),
        record: None,
    }
}

async fn listen(spool: Spool, from: Lsn) -> Result<()> {
    let mut feed = spool.feed(FEED, from);
    loop {
        let items = feed.next().await?;
        let last = items.last().map_or(Lsn::ZERO, |item| item.lsn);
        let mut lines: Vec<Line> = items.iter().flat_map(heard).collect();
        lines.push(Line::Cursor(last.get()));
        tell(&lines)?;
        feed.ack(last);
    }
}

/// What an item of the feed says, as lines.
#[must_use]
pub fn heard(item: &FeedItem) -> Vec<Line> {
    match &item.record {
        FeedRecord::Accepted(message) => vec![Line::HeardMessage(message.id)],
        FeedRecord::Outcomes { id, outcomes } => {
            let line = |outcome: &AttemptOutcome| {
                let attempt = Attempt { id: *id, recipient: outcome.recipient, number: outcome.attempt };
                match outcome.disposition.is_terminal() {
                    true => Line::HeardEnd(attempt),
                    false => Line::HeardDeferral(attempt),
                }
            };
            outcomes.iter().map(line).collect()
        }
        _ => Vec::new(),
    }
}

/// All lines in one write: other tasks' come before or after.
fn tell(lines: &[Line]) -> io::Result<()> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}
