//! Space of the cold log.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_wal::{Durability, Location, SegmentInfo};

use super::moving;
use crate::error::{Error, Result};
use crate::lives::Live;
use crate::shared::Shared;

/// What the cold log's segments take on the disk, as far as it was looked at.
#[derive(Debug, Default)]
pub(crate) struct ColdSpace(Mutex<BTreeMap<u64, Space>>);

#[derive(Clone, Copy, Debug, Default)]
struct Space {
    bytes: u64,
    /// What lived in it when holes were last made.
    swept: Option<Live>,
}

/// Dead bytes that a segment may have before holes are made.
const SLACK: u64 = 1 << 20;

impl ColdSpace {
    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().values().map(|space| space.bytes).sum()
    }

    fn get(&self, segment: u64) -> Space {
        self.0.lock().get(&segment).copied().unwrap_or_default()
    }

    fn set(&self, segment: u64, space: Space) {
        self.0.lock().insert(segment, space);
    }

    fn forget(&self, segment: u64) {
        self.0.lock().remove(&segment);
    }
}

/// Gives back what is dead in the cold log.
pub(super) async fn tidy(shared: &Arc<Shared>) -> Result<()> {
    look(shared);
    while let Some(segment) = dead_oldest(shared) {
        retire(shared, segment).await?;
    }
    let sealed = shared.cold.segments().into_iter().filter(|segment| segment.sealed);
    let mut swept = Ok(());
    for segment in sealed {
        if is_worth_sweeping(shared, segment.number) {
            // A damaged segment does not stop the others.
            swept = swept.and(sweep(shared, segment.number).await);
        }
    }
    swept?;
    while let Some(segment) = over_bound(shared) {
        moving::empty(shared, segment).await?;
        retire(shared, segment.number).await?;
    }
    Ok(())
}

/// Asks the file system about segments that it was not asked about, or that
/// are written.
fn look(shared: &Shared) {
    for segment in shared.cold.segments() {
        let known = shared.cold_space.get(segment.number);
        if known.bytes == 0 || !segment.sealed {
            let bytes = shared.cold.allocated(segment.number).unwrap_or(segment.file_bytes);
            shared.cold_space.set(segment.number, Space { bytes, ..known });
        }
    }
}

fn dead_oldest(shared: &Shared) -> Option<u64> {
    let oldest = *shared.cold.segments().first().filter(|segment| segment.sealed)?;
    let live = shared.state.lock().lives.get(oldest.number);
    (live == Live::default()).then_some(oldest.number)
}

async fn retire(shared: &Arc<Shared>, segment: u64) -> Result<()> {
    shared.indexer.settled().await?;
    let _gate = shared.retiring.lock().await;
    moving::expect_dead(shared, segment)?;
    synced_so_far(shared).await?;
    shared.cold.retire_oldest(segment).await?;
    shared.state.lock().lives.forget(segment);
    shared.cold_space.forget(segment);
    Ok(())
}

/// Returns when all that the main log says is synced. What ended there made
/// something dead here: the end must not be lost with the power after the body.
async fn synced_so_far(shared: &Shared) -> Result<()> {
    shared.log.commit(Vec::new(), Durability::Synced).await?;
    Ok(())
}

/// Whether less than half of it lives, and of what lived when holes were last
/// made: so no segment is swept often.
fn is_worth_sweeping(shared: &Shared, segment: u64) -> bool {
    let space = shared.cold_space.get(segment);
    let live = shared.state.lock().lives.get(segment);
    let is_news = space.swept.is_none_or(|swept| live.bytes < swept.bytes / 2 || live.parts == 0 && swept.parts > 0);
    is_news && space.bytes > 2 * live.bytes + SLACK.min(shared.settings.segment_bytes.bytes() / 4)
}

/// Makes holes where nothing lives.
async fn sweep(shared: &Arc<Shared>, segment: u64) -> Result<()> {
    let ids = moving::owners(shared, segment).await?;
    let counted = shared.state.lock().lives.get(segment);
    let bodies = shared.indexer.bodies(ids, segment).await?;
    let found: HashSet<Location> = bodies.into_iter().collect();
    let still = shared.state.lock().lives.get(segment);
    if still != counted {
        // Something ended meanwhile: its end will bring this here again.
        return Ok(());
    }
    if Live::of_bodies(found.iter().copied()) != counted {
        moving::distrust(shared, segment, counted);
        return Err(Error::Full("the index does not know what lives"));
    }
    synced_so_far(shared).await?;
    let log = shared.cold.clone();
    let release = move || {
        log.release(segment, &|entry| found.contains(&entry.location))?;
        log.allocated(segment)
    };
    let bytes = match tokio::task::spawn_blocking(release).await.map_err(|_| Error::Closed)? {
        Ok(bytes) => bytes,
        Err(postrider_wal::Error::Io { source, .. }) if source.kind() == io::ErrorKind::Unsupported => {
            shared.cold_space.get(segment).bytes
        }
        Err(error) => return Err(error.into()),
    };
    shared.cold_space.set(segment, Space { bytes, swept: Some(counted) });
    Ok(())
}

/// The oldest segment, when holes alone do not keep the log within twice what
/// lives and four segments.
fn over_bound(shared: &Shared) -> Option<SegmentInfo> {
    let oldest = *shared.cold.segments().first().filter(|segment| segment.sealed)?;
    let (_, live) = shared.state.lock().lives.bytes();
    let bound = 2 * live + 4 * shared.settings.segment_bytes.bytes();
    (shared.cold_space.bytes() > bound).then_some(oldest)
}
