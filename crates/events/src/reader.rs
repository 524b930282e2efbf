//! Reading the journal: from a place or time, and live.

use std::sync::Arc;

use postrider_base::Timestamp;
use postrider_wal::{Error as LogError, Lsn};

use crate::error::Result;
use crate::journal::{Journal, State, blocking};
use crate::record::{Cursor, Head, Kind, Line, kind_of};
use crate::view::Place;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest event that is kept.
    Oldest,
    /// With what is journaled from now on.
    Now,
    /// With the first event of this time or later.
    Time(Timestamp),
    /// With the event after this one.
    After(Cursor),
}

/// Reads events in journal order. Only synced ones are read, so that nothing
/// read is ever taken back.
#[derive(Debug)]
pub struct Reader {
    journal: Arc<Journal>,
    /// The next record to look at.
    next: Cursor,
    /// It is yet to be found from `not_before`.
    seek: bool,
    /// Earlier events are passed over.
    not_before: Timestamp,
}

/// Heads looked at in one go.
const HEAD_BYTES: usize = 256 << 10;
/// Bytes of events handed out in one go.
const LINE_BYTES: usize = 1 << 20;

impl Reader {
    pub(crate) fn new(journal: Arc<Journal>, start: Start) -> Self {
        let batch = |lsn: Lsn| Cursor { batch: lsn.get(), index: 0 };
        let next = match start {
            Start::Oldest => Cursor::default(),
            Start::Now => batch(journal.log.written().next()),
            Start::Time(_) => Cursor::default(),
            Start::After(cursor) => cursor.next(),
        };
        let not_before = match start {
            Start::Time(time) => time,
            _ => Timestamp::default(),
        };
        Self { journal, next, seek: matches!(start, Start::Time(_)), not_before }
    }

    /// The next events, as many as are at hand (about 1 MiB at most); an
    /// empty list at the end of the journal. What was there when the journal
    /// was opened is only read once [`crate::Events::recovered`] resolves.
    ///
    /// # Errors
    /// When the journal can not be read. Calling again reads the same place.
    pub async fn next(&mut self) -> Result<Vec<Line>> {
        if self.next.batch <= self.journal.last.get() {
            self.journal.recovered().await?;
        }
        if std::mem::take(&mut self.seek) {
            self.next = Cursor { batch: self.journal.first_since(self.not_before).get(), index: 0 };
        }
        loop {
            let (journal, next, not_before) = (self.journal.clone(), self.next, self.not_before);
            let (lines, after) = blocking(move || read(&journal, next, not_before)).await?;
            let at_end = after == self.next;
            self.next = after;
            if at_end || !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    /// As [`Reader::next`], but waits at the end of the journal; never
    /// returns an empty list.
    ///
    /// # Errors
    /// Also when the journal is closed.
    pub async fn follow(&mut self) -> Result<Vec<Line>> {
        let mut synced = self.journal.log.committed();
        let mut state = self.journal.state.subscribe();
        loop {
            synced.mark_unchanged();
            let lines = self.next().await?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            tokio::select! {
                changed = synced.changed() => changed.map_err(|_| LogError::Closed)?,
                _ = state.wait_for(|state| *state != State::Running) => return Err(LogError::Closed.into()),
            }
        }
    }
}

/// Events from `next` on, and the record to look at after them; that is `next`
/// itself at the end of the journal alone. Blocks.
fn read(journal: &Journal, mut next: Cursor, not_before: Timestamp) -> Result<(Vec<Line>, Cursor)> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    let records = journal.log.read_from(Lsn::new(next.batch), HEAD_BYTES)?;
    for replayed in &records {
        let Place { cursor, location } = Place::of(replayed);
        if cursor < next {
            continue;
        }
        if bytes > LINE_BYTES {
            return Ok((lines, next));
        }
        next = cursor.next();
        let (Ok(head), Ok(kind)) = (Head::decode(replayed), kind_of(replayed)) else { continue };
        if kind == Kind::Internal || head.at < not_before {
            continue;
        }
        if let Some(body) = journal.read(location)? {
            bytes += body.json.len();
            let (at, id, json) = (head.at, head.id, body.json);
            lines.push(Line { cursor, at, kind, id, json });
        }
    }
    // Batches come whole: one that lies before `next` and was all that came is not the end.
    let behind = records.last().map(|last| Cursor { batch: last.lsn.next().get(), index: 0 });
    Ok((lines, behind.unwrap_or(next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Events;
    use crate::record::{Body, LifeRef};
    use crate::samples::{ACCEPTED, id, open, options};
    use std::time::Duration;

    use bytes::BytesMut;
    use postrider_base::{Clock, SimDisk, Size};
    use postrider_wal::{Durability, Entry};

    /// Events about messages of these numbers, in one batch.
    async fn batch(journal: &Journal, numbers: std::ops::Range<u32>) {
        let entry = |number: u32| {
            let mut out = BytesMut::new();
            Body::begin(&mut out, Kind::Send);
            out.extend_from_slice(b"{}");
            let body = Body::end(&mut out, &LifeRef::Outcomes(&[])).unwrap();
            let head = Head { source: Lsn::new(1), id: id(number.into()), at: ACCEPTED };
            Entry { kind: Kind::Send as u8, head: head.encode().unwrap(), body: vec![body] }
        };
        journal.log.commit(numbers.map(entry).collect(), Durability::Synced).await.unwrap();
    }

    async fn follow(reader: &mut Reader, ids: &mut Vec<u32>, count: usize) {
        while ids.len() < count {
            let lines = tokio::time::timeout(Duration::from_secs(10), reader.follow());
            let lines = lines.await.expect("the reader stands still").unwrap();
            ids.extend(lines.iter().map(|line| u32::try_from(line.id.uuid()).unwrap()));
        }
    }

    #[tokio::test]
    async fn a_reader_passes_a_batch_whose_heads_are_all_that_it_reads_at_once() {
        let (disk, clock) = (SimDisk::new(), Clock::simulated(ACCEPTED));
        let mut options = options(&disk, clock);
        options.settings.segment_bytes = Size::from_mib(4);
        let Events(journal) = open(options).await;
        let mut tail = Reader::new(journal.clone(), Start::Now);
        let mut ids = Vec::new();
        batch(&journal, 0..10_000).await;
        follow(&mut tail, &mut ids, 10_000).await;
        batch(&journal, 10_000..20_000).await;
        batch(&journal, 20_000..20_010).await;
        follow(&mut tail, &mut ids, 20_010).await;
        assert!(ids.iter().copied().eq(0..20_010));

        let mut reader = Reader::new(journal, Start::Oldest);
        let mut count = 0;
        loop {
            let lines = reader.next().await.unwrap();
            if lines.is_empty() {
                break;
            }
            count += lines.len();
        }
        assert_eq!(count, 20_010, "`next` took the end of a batch for the end of the journal");
    }
}
