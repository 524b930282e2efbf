//! Moving what lives out of a segment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postrider_mail::MessageId;
use postrider_wal::{Durability, Location, Replayed, SegmentInfo};

use super::GIVE_UP;
use crate::claim::Loads;
use crate::commit::Batch;
use crate::error::{Error, Result};
use crate::inbox::Pending;
use crate::lives::{COLD, Live};
use crate::records::{AcceptedHead, Kind, OperatorHead, cold_body, cold_owner, decode_state};
use crate::shared::Shared;

/// States said again in one batch.
const STEP: usize = 128;
/// About how many bytes of bodies are copied at once.
const STEP_BYTES: u64 = 4 << 20;
/// How long to wait for records of a message that are being written.
const UNDER_WAY: Duration = Duration::from_millis(20);

/// Moves everything that lives out of a segment of either log: bodies to the
/// end of the cold log, states to the end of the main one.
pub(super) async fn empty(shared: &Arc<Shared>, segment: SegmentInfo) -> Result<()> {
    let is_dead = is_dead(shared, segment);
    let segment = segment.number;
    if !is_dead {
        move_living(shared, segment).await?;
    }
    if segment < COLD {
        copy_wishes(shared, segment).await?;
    }
    expect_dead(shared, segment)
}

/// Whether nothing lives in a segment of the main log, and nothing in it has
/// yet to be counted: most go like this, and nobody reads them for it.
fn is_dead(shared: &Shared, segment: SegmentInfo) -> bool {
    let state = shared.state.lock();
    let is_counted = segment.number < COLD && segment.last_lsn.is_some_and(|last| last <= state.taken_in());
    is_counted && state.lives.get(segment.number) == Live::default()
}

async fn move_living(shared: &Arc<Shared>, segment: u64) -> Result<()> {
    let ids = owners(shared, segment).await?;
    settled(shared, &ids).await;
    if shared.state.lock().lives.get(segment) != Live::default() {
        for ids in ids.chunks(STEP) {
            copy(shared, segment, ids).await?;
        }
    }
    Ok(())
}

/// Refuses when something lives in the segment that nobody could find: the
/// index does not know of it.
pub(super) fn expect_dead(shared: &Shared, segment: u64) -> Result<()> {
    let live = shared.state.lock().lives.get(segment);
    if live == Live::default() {
        return Ok(());
    }
    distrust(shared, segment, live);
    Err(Error::Full("a message could not be copied"))
}

/// Has the index made anew, once for what it does not know of a segment.
pub(super) fn distrust(shared: &Shared, segment: u64, live: Live) {
    if shared.distrusted.lock().insert(segment, live) != Some(live) {
        shared.indexer.distrust();
    }
}

/// The messages that the records of a segment are about.
pub(super) async fn owners(shared: &Arc<Shared>, segment: u64) -> Result<Vec<MessageId>> {
    let log = shared.log_of(Location { segment, ..Location::default() }).clone();
    let entries = tokio::task::spawn_blocking(move || log.entries(segment)).await;
    let entries = entries.map_err(|_| Error::Closed)??;
    let owner = |entry: Replayed| match Kind::from_byte(entry.kind)? {
        Kind::Accepted | Kind::Snapshot | Kind::Imported => decode_state(&entry.head).map(|AcceptedHead { id, .. }| id),
        _ => cold_owner(&entry),
    };
    Ok(entries.into_iter().filter_map(owner).collect())
}

/// Waits until no record of these messages is between log and state: one
/// that was accepted may not be counted as living yet.
async fn settled(shared: &Shared, ids: &[MessageId]) {
    loop {
        let under_way = {
            let state = shared.state.lock();
            let under_way = shared.under_way.stop();
            ids.iter().any(|id| under_way.contains(*id) && !state.messages.contains_key(id))
        };
        if !under_way {
            return;
        }
        tokio::time::sleep(UNDER_WAY).await;
    }
}

/// Moves those of the messages that live in the segment.
async fn copy(shared: &Arc<Shared>, segment: u64, ids: &[MessageId]) -> Result<()> {
    let loads = Loads::begin_states(shared, ids.to_vec()).await?;
    let mut left = loads.ids().to_vec();
    loop {
        let step = choose(shared, segment, &mut left);
        if step.is_empty() {
            return Ok(());
        }
        let bodies = copy_bodies(shared, segment, &step).await?;
        match say_states(shared, step, &bodies, &mut left)? {
            Some(pending) => drop(pending.done().await.map_err(|failed| failed.error)?),
            None => tokio::time::sleep(UNDER_WAY).await,
        }
    }
}

/// Takes the next messages that still lie in the segment, and where their
/// bodies are.
fn choose(shared: &Shared, segment: u64, left: &mut Vec<MessageId>) -> Vec<(MessageId, Location)> {
    let state = shared.state.lock();
    let (mut bytes, mut step) = (0, Vec::new());
    while bytes < STEP_BYTES
        && let Some(id) = left.pop()
    {
        let active = state.messages.get(&id);
        if let Some(active) = active.filter(|active| active.row.lies_in(segment)) {
            let body = active.row.location;
            bytes += if body.segment == segment { u64::from(body.len) } else { 0 };
            step.push((id, body));
        }
    }
    step
}

/// Copies the bodies that lie in the segment to the cold log; where they are
/// then. One that is damaged is nowhere.
async fn copy_bodies(
    shared: &Arc<Shared>,
    segment: u64,
    step: &[(MessageId, Location)],
) -> Result<HashMap<Location, Location>> {
    let own = Arc::clone(shared);
    let wanted: Vec<_> = step.iter().filter(|(_, body)| body.segment == segment).copied().collect();
    let read = move || {
        let read = wanted.into_iter().map(|(id, body)| (id, body, own.read_body(body)));
        read.collect::<Vec<_>>()
    };
    let is_hopeless = shared.reclaim_failures.load(Ordering::Relaxed) >= GIVE_UP;
    let read = tokio::task::spawn_blocking(read).await.map_err(|_| Error::Closed)?;
    let mut copies = HashMap::with_capacity(read.len());
    let mut commits = Vec::with_capacity(read.len());
    for (id, body, bytes) in read {
        match bytes {
            Ok(bytes) => commits.push((body, shared.cold.submit(vec![cold_body(id, bytes)], Durability::Synced))),
            // Perhaps it reads the next time.
            Err(error @ postrider_wal::Error::Io { .. }) if !is_hopeless => return Err(error.into()),
            Err(postrider_wal::Error::Corrupt { .. } | postrider_wal::Error::Io { .. }) => {
                keep_evidence(shared, id, body).await;
                copies.insert(body, Location::default());
            }
            Err(error) => return Err(error.into()),
        }
    }
    for (body, commit) in commits {
        let location = commit.await?.locations.first().copied();
        copies.insert(body, location.unwrap_or_default());
    }
    Ok(copies)
}

/// Of a damaged body what there is goes to quarantine, and the state of its
/// message is kept.
async fn keep_evidence(shared: &Arc<Shared>, id: MessageId, body: Location) {
    let log = shared.log_of(body).clone();
    let read = tokio::task::spawn_blocking(move || log.read_unverified(body)).await;
    let bytes = read.ok().and_then(Result::ok).unwrap_or_default();
    let what = format!("the body in segment {} at offset {} is damaged", body.segment, body.offset);
    shared.note(format!("message-{id}-body"), what, bytes).await;
}

/// Hands states to the log, all in one go under the lock, and only of
/// messages without another record under way: so a snapshot says everything
/// that the log says before it. The others are `left` for later.
fn say_states(
    shared: &Arc<Shared>,
    step: Vec<(MessageId, Location)>,
    bodies: &HashMap<Location, Location>,
    left: &mut Vec<MessageId>,
) -> Result<Option<Pending>> {
    let mut batch = Batch::default();
    let mut state = shared.state.lock();
    let under_way = shared.under_way.stop();
    let room = STEP_BYTES.min(shared.settings.segment_bytes.bytes() / 4);
    for (id, was) in step {
        let Some(active) = state.messages.get(&id) else { continue };
        if under_way.contains(id) || active.row.location != was || batch.bytes() >= room {
            left.push(id);
            continue;
        }
        let body = bodies.get(&was).copied().unwrap_or(was);
        batch.snapshot(id, active, body)?;
    }
    let pending = (!batch.entries.is_empty()).then(|| batch.submit(shared, &mut state, under_way, Durability::Synced));
    Ok(pending)
}

/// The records of held queues and of imported files must not go with their
/// segment.
async fn copy_wishes(shared: &Arc<Shared>, segment: u64) -> Result<()> {
    let _turn = shared.operator.lock().await;
    let mut batch = Batch::default();
    {
        let state = shared.state.lock();
        let is_here = |at: Option<u64>| at.is_some_and(|at| at <= segment);
        if is_here(state.holds_segment) {
            batch.operator(OperatorHead::Holds(state.due.holds().clone()))?;
        }
        if is_here(state.taken.1) {
            batch.operator(OperatorHead::Taken(state.taken.0.clone()))?;
        }
    }
    match batch.entries.is_empty() {
        true => Ok(()),
        false => batch.commit(shared, Durability::Synced).await.map(drop),
    }
}
