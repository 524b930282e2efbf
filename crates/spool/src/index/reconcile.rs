//! Making an index say what the log says.

use super::differences::{self, Difference};
use super::{BATCH, Broken, Edits, Index, guard, place, put};
use crate::rows::Rows;

impl Index {
    /// Makes the trees say what `rows` say; how many entries had to change.
    /// Blocks.
    pub(crate) fn reconcile(&self, rows: &Rows) -> Result<u64, Broken> {
        match self {
            Self::Memory(memory) => {
                let mut memory = memory.write();
                *memory = super::Memory::default();
                rows.iter().for_each(|(id, row)| memory.apply(&put(id, &row)));
                Ok(0)
            }
            Self::Sled { messages, queue, .. } => guard(|| {
                let repairs = reconcile_places(queue, rows)?;
                Ok(repairs + reconcile_rows(messages, rows)?)
            }),
        }
    }
}

fn reconcile_rows(tree: &sled::Tree, rows: &Rows) -> sled::Result<u64> {
    let mut writer = Writer::new(tree);
    differences::rows(tree, rows, |difference| match difference {
        Difference::Missing(key, row) | Difference::Stale(key, row) => writer.insert(key, row),
        Difference::Ended(key) => writer.remove(&key),
    })?;
    writer.finish()
}

fn reconcile_places(tree: &sled::Tree, rows: &Rows) -> sled::Result<u64> {
    if differences::places_agree(tree, rows)? {
        return Ok(0);
    }
    let mut writer = Writer::new(tree);
    for key in tree.iter().keys() {
        let key = key?;
        if !differences::is_place(&key, rows) {
            writer.remove(&key)?;
        }
    }
    for (id, row) in rows.iter() {
        for (queue, due) in row.places() {
            let key = place(&queue, due, id);
            if !tree.contains_key(&key)? {
                writer.insert(&key, &[])?;
            }
        }
    }
    writer.finish()
}

/// Changes of a tree, a part at a time.
struct Writer<'a> {
    tree: &'a sled::Tree,
    waiting: Edits,
    written: u64,
}

impl<'a> Writer<'a> {
    fn new(tree: &'a sled::Tree) -> Self {
        Self { tree, waiting: Edits::default(), written: 0 }
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> sled::Result<()> {
        self.waiting.insert(key.into(), value.into());
        self.added()
    }

    fn remove(&mut self, key: &[u8]) -> sled::Result<()> {
        self.waiting.remove(key.into());
        self.added()
    }

    fn added(&mut self) -> sled::Result<()> {
        match self.waiting.len() {
            BATCH.. => self.write(),
            _ => Ok(()),
        }
    }

    fn write(&mut self) -> sled::Result<()> {
        self.written += self.waiting.apply(self.tree)?;
        Ok(())
    }

    fn finish(mut self) -> sled::Result<u64> {
        self.write()?;
        Ok(self.written)
    }
}
