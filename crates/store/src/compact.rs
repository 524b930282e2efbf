//! Keeping the log small: rows of the oldest segment that are still current
//! are committed again, and the segment is retired.

use postrider_wal::{Durability, Entry, Error as LogError};

use crate::Error;
use crate::lane::{Lane, ROWS, blocking};
use crate::row::{self, Row};
use crate::view;

/// The most bytes of one record of copied rows.
const MAX_RECORD: usize = 256 << 10;
/// More segments than this are too many, be they ever so short: each start
/// of the store begins one.
const MAX_SEGMENTS: usize = 64;

/// Gives up old segments until the log takes at most twice what its rows
/// need, and two segments.
pub(crate) async fn compact(lane: &mut Lane) -> Result<(), Error> {
    // Once around is enough to drop everything that is not current.
    for _ in 0..lane.log.segments().len() {
        let Some(oldest) = due(lane) else { break };
        copy_live(lane, oldest).await?;
        lane.log.retire_oldest(oldest).await?;
    }
    Ok(())
}

/// The segment to give up, if the log is too large.
fn due(lane: &Lane) -> Option<u64> {
    let live = lane.shown.read().as_ref()?.live_bytes();
    let segments = lane.log.segments();
    let bytes: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
    let oldest = segments.first().filter(|segment| segment.sealed)?;
    let large = bytes > 2 * live + 2 * lane.segment_bytes;
    (large || segments.len() > MAX_SEGMENTS).then_some(oldest.number)
}

/// Commits the current rows of a segment again, synced, and notes in the
/// view where they come from now.
async fn copy_live(lane: &mut Lane, segment: u64) -> Result<(), Error> {
    let Some(view) = lane.shown.read().clone() else { return Ok(()) };
    let (log, source) = (lane.log.clone(), view.clone());
    let live = blocking(move || {
        let mut live = Vec::new();
        for record in log.entries(segment)? {
            let rows = match view::read(&log, &record) {
                Ok(rows) => rows,
                // The view still has what the damaged record brought.
                Err(Error::Log(LogError::Corrupt { .. })) => source.rows_of(record.lsn)?,
                Err(error) => return Err(error),
            };
            for row in rows {
                let current = source.get(&row.key)?.filter(|(lsn, _)| *lsn == record.lsn);
                live.extend(current.map(|(_, value)| Row { key: row.key, value: Some(value) }));
            }
        }
        Ok(live)
    });
    let mut live = live.await?.into_iter().peekable();
    while live.peek().is_some() {
        let mut bytes = 0;
        let mut rows = Vec::new();
        while let Some(row) = live.next_if(|row| rows.is_empty() || bytes + row.len() <= MAX_RECORD) {
            bytes += row.len();
            rows.push(row);
        }
        let record = Entry { kind: ROWS, body: vec![row::encode(&rows)], ..Entry::default() };
        let committed = lane.log.commit(vec![record], Durability::Synced).await?;
        lane.note(&committed);
        let view = view.clone();
        let applied = blocking(move || view.apply(&rows, committed.lsn)).await;
        if applied.is_err() {
            lane.rebuild().await?;
            return Err(Error::Index("rebuilt during a compaction".into()));
        }
    }
    Ok(())
}
