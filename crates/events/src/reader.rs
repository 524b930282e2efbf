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
            Start::Time(time) => batch(journal.first_since(time)),
            Start::After(cursor) => cursor.next(),
        };
        let not_before = match start {
            Start::Time(time) => time,
            _ => Timestamp::default(),
        };
        Self { journal, next, not_before }
    }

    /// The next events, as many as are at hand (about 1 MiB at most); an
    /// empty list at the end of the journal.
    ///
    /// # Errors
    /// When the journal can not be read. Calling again reads the same place.
    pub async fn next(&mut self) -> Result<Vec<Line>> {
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

/// Events from `next` on, and the record to look at after them. Blocks.
fn read(journal: &Journal, mut next: Cursor, not_before: Timestamp) -> Result<(Vec<Line>, Cursor)> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    for replayed in journal.log.read_from(Lsn::new(next.batch), HEAD_BYTES)? {
        let Place { cursor, location } = Place::of(&replayed);
        if cursor < next {
            continue;
        }
        if bytes > LINE_BYTES {
            break;
        }
        next = cursor.next();
        let (Ok(head), Ok(kind)) = (Head::decode(&replayed), kind_of(&replayed)) else { continue };
        if kind == Kind::Internal || head.at < not_before {
            continue;
        }
        if let Some(body) = journal.read(location)? {
            bytes += body.json.len();
            let (at, id, json) = (head.at, head.id, body.json);
            lines.push(Line { cursor, at, kind, id, json });
        }
    }
    Ok((lines, next))
}
