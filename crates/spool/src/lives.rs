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

    pub(crate) fn add(&mut self, share: Share) {
        for (segment, bytes, place) in share.parts() {
            self.segments.entry(segment).or_default().add(bytes, place);
        }
    }

    pub(crate) fn remove(&mut self, share: Share) {
        self.leave(share);
    }

    /// A message takes another share of the logs than it did.
    pub(crate) fn change(&mut self, before: Share, after: Share) {
        if before != after {
            self.leave(before);
            self.add(after);
        }
    }

    /// A segment was given back.
    pub(crate) fn forget(&mut self, segment: u64) {
        self.segments.remove(&segment);
    }

    /// Whether a segment has become worth reclaiming since the last call.
    pub(crate) fn take_thinned(&mut self) -> bool {
        std::mem::take(&mut self.thinned)
    }

    fn leave(&mut self, share: Share) {
        for (segment, bytes, place) in share.parts() {
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

/// What a message takes of the logs, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    body: Location,
    home: u64,
    state: u64,
}

impl Share {
    pub(crate) fn of(row: &Row) -> Self {
        Self { body: row.location, home: row.home, state: state_bytes(row) }
    }

    fn parts(self) -> [(u64, u64, Option<Location>); 2] {
        let body = (self.body.segment, u64::from(self.body.len), Some(self.body));
        [body, (self.home, self.state, None)]
    }
}

/// About how many bytes it takes to say a state: its head is in the segment
/// twice, once in the footer, and what last attempts said follows it. It must
/// not be far from the truth: a segment that is full of states, and counted
/// for half empty, would be emptied again and again.
fn state_bytes(row: &Row) -> u64 {
    const HEAD: u64 = 80;
    const WAITING: u64 = 12;
    const LAST: u64 = 45;
    let domains: usize = row.units.iter().map(|unit| unit.domain.as_str().len() + 4).sum();
    let (mut bytes, mut last) = (2 * (HEAD + domains as u64), None);
    for waiting in row.waiting() {
        bytes += 2 * WAITING;
        // One record may be about many recipients.
        if let Some(said) = waiting.last.filter(|said| last != Some(*said)) {
            bytes += u64::from(said.len) + 2 * if last.is_none() { LAST } else { WAITING };
            last = Some(said);
        }
    }
    bytes
}
