//! Reading a segment that has no good footer: which batches are whole, what
//! is damaged, and what was never finished.

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::format::{BATCH_HEADER, BATCH_MAGIC, BatchHeader, DATA_START, Seed};
use crate::{Damage, Error, Torn};

/// A batch whose header is good.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) header: BatchHeader,
    pub(crate) state: State,
}

/// How much of a batch reads as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Whole,
    /// Table and heads are good, a body is not.
    BodyDamaged,
    /// Nothing but the header is good.
    HeadsDamaged,
}

impl Found {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.header.len())
    }
}

/// All batches of a segment, by offset. `file` is all of its bytes.
pub(crate) fn scan(file: &Bytes, seed: Seed) -> Result<Vec<Found>, Error> {
    let finder = Finder::new(BATCH_MAGIC);
    let mut found = Vec::new();
    let mut at = DATA_START;
    while let Some(rest) = usize::try_from(at).ok().and_then(|at| file.get(at..)) {
        if let Some(header) = BatchHeader::decode(rest, seed, at)? {
            let batch = Found { offset: at, header, state: state(file, seed, at, &header) };
            at = batch.end();
            found.push(batch);
        } else {
            // Not a batch: look for the next place that could be one.
            match finder.find(rest.get(1..).unwrap_or_default()) {
                Some(ahead) => at += 1 + ahead as u64,
                None => break,
            }
        }
    }
    Ok(found)
}

fn state(file: &Bytes, seed: Seed, offset: u64, header: &BatchHeader) -> State {
    let range = |from: u64, len: u64| {
        let from = usize::try_from(from).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        (to <= file.len()).then(|| file.slice(from..to))
    };
    let heads = range(offset + BATCH_HEADER as u64, header.heads_len.into());
    let Some(entries) = heads.and_then(|heads| header.entries(&heads, seed, offset)) else {
        return State::HeadsDamaged;
    };
    let good = entries.iter().all(|entry| {
        let location = entry.location;
        range(location.offset, location.len.into()).is_some_and(|body| crc32fast::hash(&body) == location.crc)
    });
    if good { State::Whole } else { State::BodyDamaged }
}

/// The first batch of a segment of which nothing else is known.
pub(crate) fn first_expected(found: &[Found]) -> u64 {
    match found.first() {
        Some(first) if first.offset == DATA_START => first.header.lsn,
        Some(first) => first.header.lsn.saturating_sub(1).max(1),
        None => 1,
    }
}

/// The last batch of a segment that is known to have been synced. `next` is
/// the first of the next segment, where there is one.
pub(crate) fn known_synced(found: &[Found], next: Option<u64>) -> u64 {
    let witnessed = found.iter().map(|batch| batch.header.synced).max();
    next.map(|next| next.saturating_sub(1)).or(witnessed).unwrap_or_default()
}

/// What is made of a scanned segment.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Batches to keep, in order. Of one whose body is damaged the heads are
    /// kept: it did happen, and a read of the body says what is wrong.
    pub(crate) kept: Vec<Found>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) torn: Option<Torn>,
    /// The batch that comes after this segment.
    pub(crate) next_lsn: u64,
}

/// Tells damage from an unfinished write. `expected` is the batch that should
/// come first, `synced` the last one known to have been synced: what is bad
/// up to there is damage; after it, the first bad batch and all that follow
/// it were never finished.
pub(crate) fn judge(found: Vec<Found>, segment: u64, expected: u64, synced: u64) -> Verdict {
    let mut verdict = Verdict { next_lsn: expected, ..Verdict::default() };
    let mut at = DATA_START;
    for batch in found {
        let lsn = batch.header.lsn;
        if lsn < verdict.next_lsn {
            continue;
        }
        if lsn > verdict.next_lsn {
            verdict.missing(segment, at, batch.offset - at, (lsn - 1).min(synced));
            if lsn > verdict.next_lsn {
                verdict.torn = Some(Torn { segment, offset: at });
                return verdict;
            }
        }
        if batch.state != State::Whole {
            if lsn > synced {
                verdict.torn = Some(Torn { segment, offset: batch.offset });
                return verdict;
            }
            verdict.damage.push(Damage {
                segment,
                offset: batch.offset,
                len: batch.header.len(),
                batches: u64::from(batch.state == State::HeadsDamaged),
            });
        }
        at = batch.end();
        verdict.next_lsn = lsn + 1;
        if batch.state != State::HeadsDamaged {
            verdict.kept.push(batch);
        }
    }
    verdict.missing(segment, at, 0, synced);
    verdict
}

impl Verdict {
    /// Batches up to `last` should be at `offset` and are not.
    fn missing(&mut self, segment: u64, offset: u64, len: u64, last: u64) {
        if last < self.next_lsn {
            return;
        }
        self.damage.push(Damage { segment, offset, len, batches: last + 1 - self.next_lsn });
        self.next_lsn = last + 1;
    }
}
