//! Recent heads, for readers that keep up.

use std::collections::VecDeque;

use crate::{Lsn, Replayed};

/// What an entry takes beside its head: itself, and about as much of the
/// buffer that its head is a slice of. With room that these keep for more it
/// may be twice as much.
const OVERHEAD: usize = 2 * size_of::<Replayed>();

/// The last batches, up to about a number of bytes.
#[derive(Debug)]
pub(crate) struct Recent {
    entries: VecDeque<Replayed>,
    /// The first batch whose entries are all here.
    first: Lsn,
    bytes: usize,
    max_bytes: usize,
}

impl Recent {
    /// Nothing yet; `first` is the batch that comes next.
    pub(crate) fn new(first: Lsn, max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), first, bytes: 0, max_bytes }
    }

    /// Adds entries, which follow the last one.
    pub(crate) fn extend(&mut self, entries: impl Iterator<Item = Replayed>) {
        for entry in entries {
            self.bytes += size(&entry);
            self.entries.push_back(entry);
        }
        while let Some(oldest) = self.entries.front()
            && (self.bytes > self.max_bytes || oldest.lsn < self.first)
        {
            self.first = oldest.lsn.next();
            self.bytes -= size(oldest);
            self.entries.pop_front();
        }
    }

    /// Entries from `from` to `to`, of one batch at least if there is one,
    /// then of as many as have up to `max_bytes`; `None` when the first is not in memory.
    pub(crate) fn read(&self, from: Lsn, to: Lsn, max_bytes: usize) -> Option<Vec<Replayed>> {
        if from < self.first {
            return None;
        }
        let begin = self.entries.partition_point(|entry| entry.lsn < from);
        let (mut entries, mut bytes, mut whole): (Vec<Replayed>, _, _) = (Vec::new(), 0, 0);
        for entry in self.entries.range(begin..).take_while(|entry| entry.lsn <= to) {
            bytes += size(entry);
            if entries.last().is_some_and(|last| last.lsn != entry.lsn) {
                whole = entries.len();
            }
            if whole > 0 && bytes > max_bytes {
                entries.truncate(whole);
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }
}

fn size(entry: &Replayed) -> usize {
    OVERHEAD + entry.head.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Location;

    const ENTRY: usize = OVERHEAD + 10;

    fn batch(lsn: u64, entries: u16) -> Vec<Replayed> {
        let entry = |index| Replayed {
            lsn: Lsn::new(lsn),
            index,
            kind: 1,
            head: vec![0; 10].into(),
            location: Location::default(),
        };
        (0..entries).map(entry).collect()
    }

    fn read(recent: &Recent, from: u64, to: u64, max_bytes: usize) -> Option<Vec<u64>> {
        let entries = recent.read(Lsn::new(from), Lsn::new(to), max_bytes)?;
        Some(entries.iter().map(|entry| entry.lsn.get()).collect())
    }

    #[test]
    fn batches_come_whole_and_only_as_many_as_fit() {
        let mut recent = Recent::new(Lsn::new(1), 1 << 20);
        recent.extend((1..=3).flat_map(|lsn| batch(lsn, 3)));
        assert_eq!(read(&recent, 1, 3, 0).unwrap(), [1; 3]);
        // Two thirds of the second would still fit.
        assert_eq!(read(&recent, 1, 3, 5 * ENTRY).unwrap(), [1; 3]);
        assert_eq!(read(&recent, 1, 3, 6 * ENTRY).unwrap(), [1, 1, 1, 2, 2, 2]);
        assert_eq!(read(&recent, 2, 2, 1 << 20).unwrap(), [2; 3]);
    }

    #[test]
    fn batches_without_entries_leave_no_gap() {
        let mut recent = Recent::new(Lsn::new(5), 4 * ENTRY);
        assert_eq!(read(&recent, 5, 5, 1 << 20), Some(vec![]));
        recent.extend([batch(6, 2), batch(9, 2)].concat().into_iter());
        assert_eq!(read(&recent, 5, 9, 1 << 20).unwrap(), [6, 6, 9, 9]);
        assert_eq!(read(&recent, 7, 8, 1 << 20), Some(vec![]));
        assert_eq!(read(&recent, 4, 9, 1 << 20), None);
        // Half of a batch does not stay.
        recent.extend(batch(11, 1).into_iter());
        assert_eq!(read(&recent, 6, 11, 1 << 20), None);
        assert_eq!(read(&recent, 7, 11, 1 << 20).unwrap(), [9, 9, 11]);
        assert_eq!(recent.bytes, 3 * ENTRY);
    }
}
