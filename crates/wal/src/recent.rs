//! Recent heads, for readers that keep up.

use std::collections::VecDeque;

use crate::{Lsn, Replayed};

/// What an entry takes beside its head: itself, and about as much of the
/// buffer that its head is a slice of.
const OVERHEAD: usize = 2 * size_of::<Replayed>();

/// The last batches, up to a number of bytes.
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
    /// then up to `max_bytes`; `None` when the first is not in memory.
    pub(crate) fn read(&self, from: Lsn, to: Lsn, max_bytes: usize) -> Option<Vec<Replayed>> {
        if from < self.first {
            return None;
        }
        let begin = self.entries.partition_point(|entry| entry.lsn < from);
        let (mut entries, mut bytes, mut last): (Vec<Replayed>, _, _) = (Vec::new(), 0, None);
        for entry in self.entries.range(begin..).take_while(|entry| entry.lsn <= to) {
            bytes += size(entry);
            let begins_batch = last.replace(entry.lsn) != Some(entry.lsn);
            if begins_batch && !entries.is_empty() && bytes > max_bytes {
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
