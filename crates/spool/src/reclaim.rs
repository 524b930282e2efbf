//! Giving space back.
//!
//! A segment of the main log goes when nothing lives in it and every feed has
//! read it; always the oldest, so that an outcome never disappears before
//! its message. One that is mostly dead, or that keeps the log above its bound
//! (twice what lives, and four segments), is emptied first: the *bodies* that
//! live in it are copied to the cold log, once, and the *states* of their
//! messages are said again at the end of the main log. A message that waits
//! on costs its state again each time around, and its body not.
//!
//! In the cold log nothing is in any order, so its space is given back where
//! it lies: by holes in its segments, and by whole segments from the oldest
//! on. Only where holes are not to be had, or messages are smaller than a
//! block, a body is copied again.
//!
//! **Nothing is destroyed on the index's word.** What lives in a segment is
//! counted in memory from what the log says; if the index does not come to the
//! same, it is made anew and nothing is given back.

mod cold;
mod moving;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider_wal::SegmentInfo;
use serde::Serialize;
use tokio::sync::{Mutex, MutexGuard, oneshot};

use crate::error::{Error, Result};
use crate::lives::Live;
use crate::recover::blocking;
use crate::shared::Shared;

pub(crate) use cold::ColdSpace;

/// A segment of which less than a quarter lives is worth emptying.
pub(crate) const MOSTLY_DEAD: u64 = 4;
/// How long to wait after something refused.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a segment is watched, again and again while messages leave it, before
/// what is left in it is moved; and how often.
const LET_GO: Duration = Duration::from_millis(20);
const PATIENCE: u32 = 10;
/// With more segments in use, space is given back slower than it is taken: to fill
/// new files would cost more than to move what is left in old ones.
const LET_GO_SEGMENTS: u64 = 3;
/// Rounds that fail, one after the other, before a body that the disk does not
/// give is taken for lost: five minutes.
const GIVE_UP: u32 = 60;

/// The turn to reclaim, or to have nobody reclaim. Who wants it is not kept
/// waiting for messages that leave.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    lock: Mutex<()>,
    wanted: AtomicUsize,
}

/// Counts one who wants a turn, until it is there or not wanted any more.
struct Wanted<'a>(&'a AtomicUsize);

impl Turn {
    pub(crate) async fn take(&self) -> MutexGuard<'_, ()> {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let _wanted = Wanted(&self.wanted);
        self.lock.lock().await
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What [`crate::Spool::compact`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Bytes that the logs took on the disk before.
    pub before: u64,
    /// Bytes that they take now.
    pub after: u64,
}

/// Reclaims whenever something may be reclaimable, until the spool is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let round = async {
            shared.reclaim.notified().await;
            match reclaim(&shared, candidate, PATIENCE).await {
                Ok(()) => shared.reclaim_failures.store(0, Ordering::Relaxed),
                Err(error) => {
                    shared.reclaim_failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "reclaim will try again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                    shared.reclaim.notify_one();
                }
            }
        };
        tokio::select! {
            () = round => {}
            () = shared.scope.cancelled() => return,
        }
        if shared.check_open().is_err() {
            return;
        }
    }
}

/// Gives back everything that can be, however little it is. A task does it:
/// a round that was broken off would leave copies that nobody counts yet.
pub(crate) async fn compact(shared: &Arc<Shared>) -> Result<Compacted> {
    shared.recovered().await?;
    let (done, compacted) = oneshot::channel();
    let own = Arc::clone(shared);
    shared.scope.spawn("compact", async move {
        // Who asked may have gone.
        let _ = done.send(compact_now(&own).await);
    });
    compacted.await.map_err(|_| Error::Closed)?
}

async fn compact_now(shared: &Arc<Shared>) -> Result<Compacted> {
    let before = disk_bytes(shared);
    let sparse = |shared: &Shared, last: u64| {
        let segments = shared.log.segments();
        let used: u64 = segments.iter().filter(|segment| segment.number < last).map(|segment| segment.bytes).sum();
        let (live, _) = shared.state.lock().lives.bytes();
        // Moving what lives for a tenth of the space is not worth it.
        oldest(shared).filter(|_| live < used / 10 * 9)
    };
    reclaim(shared, sparse, 0).await?;
    let own = Arc::clone(shared);
    blocking(move || own.log.give_back_spare_files().and_then(|()| own.cold.give_back_spare_files())).await??;
    shared.publish();
    Ok(Compacted { before, after: disk_bytes(shared) })
}

/// Bytes that both logs take on the disk.
pub(crate) fn disk_bytes(shared: &Shared) -> u64 {
    shared.log.usage().bytes + shared.cold_space.bytes()
}

/// Empties and gives back segments of the main log as long as `choose` names
/// one, then does what is to do in the cold log.
///
/// A round stops at what was the newest segment when it began: what it moves
/// lies behind that, and is not moved again.
async fn reclaim(
    shared: &Arc<Shared>,
    choose: impl Fn(&Shared, u64) -> Option<SegmentInfo>,
    patience: u32,
) -> Result<()> {
    let _turn = shared.reclaiming.take().await;
    let last = shared.log.segments().last().map_or(0, |segment| segment.number);
    let mut result = Ok(());
    while let Some(segment) = choose(shared, last).filter(|segment| segment.number < last) {
        let_go(shared, segment.number, patience).await;
        result = match moving::empty(shared, segment).await {
            Ok(()) => retire(shared, segment.number).await,
            failed => failed,
        };
        if result.is_err() {
            break;
        }
    }
    // What stops the one log does not stop the other.
    result.and(cold::tidy(shared).await)
}

/// Waits while the messages of a segment leave by themselves: where mail goes
/// as fast as it comes, the last of them are on their way, and to look for them
/// costs more than to wait. Not where space is wanted at once, or the turn.
async fn let_go(shared: &Shared, segment: u64, patience: u32) {
    let living = || shared.state.lock().lives.get(segment).parts;
    let mut before = living();
    let is_urgent = || shared.log.is_full() || shared.log.usage().segments > LET_GO_SEGMENTS;
    for _ in 0..patience {
        if before == 0 || is_urgent() || shared.reclaiming.is_wanted() {
            return;
        }
        tokio::time::sleep(LET_GO).await;
        let now = living();
        if now == before {
            return;
        }
        before = now;
    }
}

/// The oldest segment, if it is sealed and every feed has read it.
fn oldest(shared: &Shared) -> Option<SegmentInfo> {
    let oldest = *shared.log.segments().first().filter(|segment| segment.sealed)?;
    let is_read = oldest.last_lsn.is_none_or(|last| last <= shared.feeds.done());
    is_read.then_some(oldest)
}

/// The oldest segment, if it is to go now.
fn candidate(shared: &Shared, _: u64) -> Option<SegmentInfo> {
    let oldest = oldest(shared)?;
    let disk: u64 = shared.log.segments().iter().map(|segment| segment.file_bytes).sum();
    let state = shared.state.lock();
    let live = state.lives.get(oldest.number);
    let (all, _) = state.lives.bytes();
    let bound = 2 * all + 4 * shared.settings.segment_bytes.bytes();
    let go = live == Live::default() || live.bytes < oldest.file_bytes / MOSTLY_DEAD || disk > bound;
    go.then_some(oldest)
}

/// Gives the oldest segment of the main log back.
async fn retire(shared: &Arc<Shared>, segment: u64) -> Result<()> {
    // Nobody may still be on the way to read from the segment.
    shared.indexer.settled().await?;
    let _gate = shared.retiring.lock().await;
    moving::expect_dead(shared, segment)?;
    shared.log.retire_oldest(segment).await?;
    shared.state.lock().lives.forget(segment);
    Ok(())
}
