//! What lives in which segment: the count that decides what may be given
//! back. It comes from the log, never from the index.

use std::collections::BTreeMap;

use postrider_wal::Location;

use crate::row::Row;

/// Number of the first segment of the cold log.
pub(crate) const COLD: u64 = 1 << 40;

/// What lives in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// States and bodies of messages.
    pub parts: u64,
    /// About how many bytes they take.
    pub bytes: u64,
    /// A sum over the places of bodies: what the index says lies in the
    /// segment must come to the same before anything is destroyed.
    pub sum: u64,
}

/// What lives in every segment.
#[derive(Debug)]
pub(crate) struct Lives {
    segments: BTreeMap<u64, Live>,
    /// Live bytes below which a segment is worth emptying.
    thin: u64,
    thinned: bool,
}

/// Bytes that a message's state takes in a segment, roughly.
const STATE: u64 = 256;

impl Live {
    fn add(&mut self, bytes: u64, place: Option<Location>) {
        self.parts += 1;
        self.bytes += bytes;
        self.sum = self.sum.wrapping_add(place.map_or(0, fingerprint));
    }

    fn remove(&mut self, bytes: u64, place: Option<Location>) {
        self.parts = self.parts.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.sum = self.sum.wrapping_sub(place.map_or(0, fingerprint));
    }

    /// What it is when these bodies are all that lives.
    pub(crate) fn of_bodies(bodies: impl Iterator<Item = Location>) -> Self {
        let mut live = Self::default();
        bodies.for_each(|body| live.add(body.len.into(), Some(body)));
        live
    }
}

fn fingerprint(place: Location) -> u64 {
    (place.offset ^ u64::from(place.crc) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Lives {
    pub(crate) fn new(thin: u64) -> Self {
        Self { segments: BTreeMap::new(), thin, thinned: false }
    }

    pub(crate) fn get(&self, segment: u64) -> Live {
        self.segments.get(&segment).copied().unwrap_or_default()
    }

    /// Bytes that live in the main log, and in the cold one.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let sum = |live: &mut dyn Iterator<Item = (&u64, &Live)>| live.map(|(_, live)| live.bytes).sum();
        (sum(&mut self.segments.range(..COLD)), sum(&mut self.segments.range(COLD..)))
    }

    pub(crate) fn add(&mut self, row: &Row) {
        for (segment, bytes, place) in parts((row.location, row.home)) {
            self.segments.entry(segment).or_default().add(bytes, place);
        }
    }

    pub(crate) fn remove(&mut self, row: &Row) {
        self.leave((row.location, row.home));
    }

    /// A message has another body or home than it had.
    pub(crate) fn move_to(&mut self, row: &Row, from: (Location, u64)) {
        self.leave(from);
        self.add(row);
    }

    /// A segment was given back.
    pub(crate) fn forget(&mut self, segment: u64) {
        self.segments.remove(&segment);
    }

    /// Whether a segment has become worth reclaiming since the last call.
    pub(crate) fn take_thinned(&mut self) -> bool {
        std::mem::take(&mut self.thinned)
    }

    fn leave(&mut self, from: (Location, u64)) {
        for (segment, bytes, place) in parts(from) {
            let is_newest = |newest: Option<(&u64, &Live)>| newest.is_some_and(|(newest, _)| *newest == segment);
            let newest =
                is_newest(self.segments.last_key_value()) || is_newest(self.segments.range(..COLD).next_back());
            let Some(live) = self.segments.get_mut(&segment) else { continue };
            let before = live.bytes;
            live.remove(bytes, place);
            let crossed = before >= self.thin && live.bytes < self.thin;
            self.thinned |= !newest && (crossed || live.parts == 0);
        }
    }
}

/// Where a message has what: its body, and its state.
fn parts((location, home): (Location, u64)) -> impl Iterator<Item = (u64, u64, Option<Location>)> {
    let body = (location.segment, u64::from(location.len), Some(location));
    [body, (home, STATE, None)].into_iter()
}
