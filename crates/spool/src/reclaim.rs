//! Giving old segments back, oldest first.
//!
//! A segment goes when everything in it has ended and every feed has read it.
//! One that is mostly dead, or that keeps the log above its bound (twice what
//! lives, and four segments), is emptied first: what lives is copied to the
//! end of the log with its present state. A few messages at a time, so that
//! those who come in do not wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_mail::MessageId;
use postrider_wal::{Durability, Location, SegmentInfo};

use crate::claim::Loads;
use crate::commit::{Batch, Pending};
use crate::error::{Error, Result};
use crate::records::{AcceptedHead, Kind, OperatorHead, decode_head};
use crate::shared::Shared;
use crate::state::{Live, State};

/// Messages, and about how many bytes, copied in one batch.
const STEP: usize = 32;
const STEP_BYTES: u64 = 4 << 20;
/// A segment of which less than a quarter lives is worth emptying.
pub(crate) const MOSTLY_DEAD: u64 = 4;
/// How long to wait for records of a message that are being written.
const UNDER_WAY: Duration = Duration::from_millis(20);
/// How long to wait after the log refused.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Reclaims whenever something may be reclaimable, until the spool is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let round = async {
            shared.reclaim.notified().await;
            while let Some(segment) = candidate(&shared) {
                if let Err(error) = empty(&shared, segment).await {
                    tracing::warn!(%error, segment = segment.number, "reclaim will try again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                    shared.reclaim.notify_one();
                    break;
                }
            }
        };
        tokio::select! {
            () = round => {}
            () = shared.scope.cancelled() => return,
        }
        if shared.log.poisoned() {
            return;
        }
    }
}

/// The oldest segment, if it is to go now.
fn candidate(shared: &Shared) -> Option<SegmentInfo> {
    let segments = shared.log.segments();
    let oldest = *segments.first().filter(|segment| segment.sealed)?;
    if oldest.last_lsn.is_some_and(|last| last > shared.feeds.done()) {
        return None;
    }
    let state = shared.state.lock();
    let live = state.segments.get(&oldest.number).copied().unwrap_or_default();
    let all: u64 = state.segments.values().map(|live| live.bytes).sum();
    let disk: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
    let bound = 2 * all + 4 * shared.settings.segment_bytes.bytes();
    let go = live == Live::default() || live.bytes < oldest.file_bytes / MOSTLY_DEAD || disk > bound;
    go.then_some(oldest)
}

/// Copies what lives in the oldest segment, then gives it back.
async fn empty(shared: &Arc<Shared>, segment: SegmentInfo) -> Result<()> {
    let log = shared.log.clone();
    let entries = tokio::task::spawn_blocking(move || log.entries(segment.number)).await;
    let mut ids: Vec<MessageId> = Vec::new();
    for entry in entries.map_err(|_| Error::Closed)?? {
        if let Some(Kind::Accepted | Kind::Snapshot | Kind::Imported) = Kind::from_byte(entry.kind)
            && let Some(AcceptedHead { id, .. }) = decode_head(&entry.head)
        {
            ids.push(id);
        }
    }
    settled(shared, &ids).await;
    let live = |state: &State| {
        let live = state.segments.get(&segment.number);
        live.is_some_and(|live| live.messages > 0)
    };
    if live(&shared.state.lock()) {
        for ids in ids.chunks(STEP) {
            copy(shared, segment.number, ids).await?;
        }
    }
    copy_holds(shared, segment.number).await?;
    // Nobody may still be on the way to read from the segment.
    shared.indexer.settled().await?;
    if live(&shared.state.lock()) {
        return Err(Error::Full("a message could not be copied"));
    }
    shared.log.retire_oldest(segment.number).await?;
    shared.state.lock().segments.remove(&segment.number);
    Ok(())
}

/// Waits until no record of these messages is between log and state: one
/// that was accepted may not be counted as living yet.
async fn settled(shared: &Shared, ids: &[MessageId]) {
    loop {
        let under_way = {
            let state = shared.state.lock();
            ids.iter().any(|id| state.is_under_way(*id) && !state.messages.contains_key(id))
        };
        if !under_way {
            return;
        }
        tokio::time::sleep(UNDER_WAY).await;
    }
}

/// Copies those of the messages that live in the segment.
async fn copy(shared: &Arc<Shared>, segment: u64, ids: &[MessageId]) -> Result<()> {
    let loads = Loads::begin(shared, ids.to_vec()).await?;
    let mut left = loads.ids().to_vec();
    loop {
        let step = choose(shared, segment, &mut left);
        if step.is_empty() {
            return Ok(());
        }
        let log = shared.log.clone();
        let read = move || {
            let read = step.into_iter().map(|(id, location)| (id, log.read(location)));
            read.collect::<Vec<_>>()
        };
        let bodies = tokio::task::spawn_blocking(read).await.map_err(|_| Error::Closed)?;
        match snapshot(shared, bodies, &mut left)? {
            Some(pending) => drop(pending.done().await.map_err(|(error, _)| error)?),
            None => tokio::time::sleep(UNDER_WAY).await,
        }
    }
}

/// Takes the next messages that still lie in the segment.
fn choose(shared: &Shared, segment: u64, left: &mut Vec<MessageId>) -> Vec<(MessageId, Location)> {
    let state = shared.state.lock();
    let (mut bytes, mut step) = (0, Vec::new());
    while bytes < STEP_BYTES
        && let Some(id) = left.pop()
    {
        let active = state.messages.get(&id);
        let location = active.map(|active| active.row.location);
        if let Some(location) = location.filter(|location| location.segment == segment) {
            bytes += u64::from(location.len);
            step.push((id, location));
        }
    }
    step
}

/// Hands snapshots to the log, all in one go under the lock, and only of
/// messages without another record under way: so a snapshot says everything
/// that the log says before it. The others are `left` for later.
fn snapshot(
    shared: &Arc<Shared>,
    bodies: Vec<(MessageId, Result<Bytes, postrider_wal::Error>)>,
    left: &mut Vec<MessageId>,
) -> Result<Option<Pending>> {
    let mut batch = Batch::default();
    let mut state = shared.state.lock();
    for (id, body) in bodies {
        let Some(active) = state.messages.get(&id) else { continue };
        if state.is_under_way(id) {
            left.push(id);
            continue;
        }
        let body = body.unwrap_or_else(|error| {
            // Of a damaged message its state is kept.
            let what = error.to_string();
            shared.quarantine.note(&format!("message-{id}"), &what, &[]);
            Bytes::new()
        });
        batch.snapshot(id, &active.row, &active.last, body)?;
    }
    let pending = (!batch.entries.is_empty()).then(|| batch.submit(shared, &mut state, Durability::Synced));
    Ok(pending)
}

/// The record of held queues must not go with its segment.
async fn copy_holds(shared: &Arc<Shared>, segment: u64) -> Result<()> {
    let _turn = shared.operator.lock().await;
    let holds = {
        let state = shared.state.lock();
        let here = state.holds_segment.is_some_and(|at| at <= segment);
        here.then(|| state.due.holds().clone())
    };
    if let Some(holds) = holds {
        let mut batch = Batch::default();
        batch.operator(OperatorHead::Holds(holds))?;
        batch.commit(shared, Durability::Synced).await?;
    }
    Ok(())
}
