//! Recent heads, for readers that keep up.

use std::collections::VecDeque;

use crate::{Lsn, Replayed};

/// What an entry takes beside its head.
const OVERHEAD: usize = size_of::<Replayed>();

/// The last batches, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Recent {
    batches: VecDeque<Vec<Replayed>>,
    /// Number of the first batch in memory.
    first: u64,
    bytes: usize,
    max_bytes: usize,
}

impl Recent {
    /// Nothing yet; `first` is the batch that comes next.
    pub(crate) fn new(first: u64, max_bytes: usize) -> Self {
        Self { batches: VecDeque::new(), first, bytes: 0, max_bytes }
    }

    /// Adds batches, which follow the last one.
    pub(crate) fn extend(&mut self, batches: impl Iterator<Item = Vec<Replayed>>) {
        for batch in batches {
            self.bytes += size(&batch);
            self.batches.push_back(batch);
        }
        while self.bytes > self.max_bytes {
            let Some(gone) = self.batches.pop_front() else {
                break;
            };
            self.bytes -= size(&gone);
            self.first += 1;
        }
    }

    /// Entries from `from` to `to`, of one batch at least if there is one,
    /// then up to `max_bytes`; `None` when the first is not in memory.
    pub(crate) fn read(&self, from: Lsn, to: Lsn, max_bytes: usize) -> Option<Vec<Replayed>> {
        let skip = usize::try_from(from.get().checked_sub(self.first)?).ok()?;
        let count = usize::try_from((to.get() + 1).saturating_sub(from.get())).ok()?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for batch in self.batches.iter().skip(skip).take(count) {
            bytes += size(batch);
            if !entries.is_empty() && bytes > max_bytes {
                break;
            }
            entries.extend_from_slice(batch);
        }
        Some(entries)
    }
}

fn size(batch: &[Replayed]) -> usize {
    batch.iter().map(|entry| OVERHEAD + entry.head.len()).sum::<usize>() + OVERHEAD
}
