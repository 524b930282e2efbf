//! Reading back committed batches in order: the feed.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{self, Listed};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::{Error, Lsn, Replayed};

/// Entries of synced batches from `from` on; see [`crate::Log::read_from`].
pub(crate) fn read(shared: &Shared, from: Lsn, max_bytes: usize) -> Result<Vec<Replayed>, Error> {
    let synced = shared.synced();
    if from > synced {
        return Ok(Vec::new());
    }
    let recent = shared.recent.lock().read(from, synced, max_bytes);
    recent.map_or_else(|| read_segments(shared, from, synced, max_bytes), Ok)
}

fn read_segments(shared: &Shared, from: Lsn, to: Lsn, max_bytes: usize) -> Result<Vec<Replayed>, Error> {
    let segments: Vec<Arc<Segment>> = {
        let segments = shared.segments.read();
        let wanted = segments.values().filter(|segment| segment.lsns().1 > from.get());
        wanted.cloned().collect()
    };
    let mut all = Vec::new();
    let mut bytes = 0;
    for segment in segments {
        for listed in batch::listed(footer(shared, &segment)?, segment.seed) {
            let lsn = Lsn::new(listed.header.lsn);
            if lsn < from {
                continue;
            }
            bytes += listed.heads.len();
            if lsn > to || (!all.is_empty() && bytes > max_bytes) {
                return Ok(all);
            }
            all.extend(entries(&segment, &listed)?);
        }
    }
    Ok(all)
}

/// The footer of a segment; that of a sealed one is kept for the next call.
fn footer(shared: &Shared, segment: &Segment) -> Result<Bytes, Error> {
    if !segment.is_sealed() {
        return segment.footer();
    }
    let number = segment.number();
    if let Some((cached, footer)) = &*shared.footer.lock()
        && *cached == number
    {
        return Ok(footer.clone());
    }
    let footer = segment.footer().map_err(|error| {
        let retired = !shared.segments.read().contains_key(&number);
        if retired { Error::NoSegment(number) } else { error }
    })?;
    *shared.footer.lock() = Some((number, footer.clone()));
    Ok(footer)
}

/// Stretches of a sealed segment with nothing that `keep` wants: whole batches
/// where it wants nothing of them, else bodies. Neighbours are one.
pub(crate) fn unused(segment: &Segment, keep: &dyn Fn(&Replayed) -> bool) -> Result<Vec<Range<u64>>, Error> {
    let mut holes: Vec<Range<u64>> = Vec::new();
    let mut add = |hole: Range<u64>| match holes.last_mut() {
        Some(last) if last.end == hole.start => last.end = hole.end,
        _ if hole.is_empty() => {}
        _ => holes.push(hole),
    };
    for listed in segment.listed()? {
        let entries = entries(segment, &listed)?;
        if !entries.iter().any(keep) {
            add(listed.offset..listed.offset + listed.header.len());
            continue;
        }
        for entry in entries.iter().filter(|entry| !keep(entry)) {
            add(entry.location.offset..entry.location.offset + u64::from(entry.location.len));
        }
    }
    Ok(holes)
}

/// The entries of a listed batch.
pub(crate) fn entries(segment: &Segment, listed: &Listed) -> Result<Vec<Replayed>, Error> {
    let Listed { offset, header, heads } = listed;
    header.entries(heads, segment.seed, *offset).ok_or(Error::Corrupt { segment: segment.number(), offset: *offset })
}
