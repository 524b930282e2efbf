//! Walking through the trees of an index and what the log says side by side:
//! both are in the order of their keys.

use std::hash::{DefaultHasher, Hash, Hasher};

use sled::IVec;

use super::{parse_place, place};
use crate::rows::{Key, Rows};

/// A row of the index that is not what the log says.
pub(super) enum Difference<'a> {
    /// It is not there.
    Missing(&'a Key, &'a [u8]),
    /// It says something else.
    Stale(&'a Key, &'a [u8]),
    /// There should be none.
    Ended(IVec),
}

/// Tells every difference between the rows of the index and the log's, in
/// order.
pub(super) fn rows<'a>(
    tree: &sled::Tree,
    rows: &'a Rows,
    mut tell: impl FnMut(Difference<'a>) -> sled::Result<()>,
) -> sled::Result<()> {
    let mut wanted = rows.encoded().peekable();
    for entry in tree {
        let (key, value) = entry?;
        while let Some((missing, row)) = wanted.next_if(|(next, _)| next[..] < key[..]) {
            tell(Difference::Missing(missing, row))?;
        }
        match wanted.next_if(|(next, _)| next[..] == key[..]) {
            None => tell(Difference::Ended(key))?,
            Some((_, row)) if *row == value[..] => {}
            Some((key, row)) => tell(Difference::Stale(key, row))?,
        }
    }
    wanted.try_for_each(|(missing, row)| tell(Difference::Missing(missing, row)))
}

/// Whether the places in the index are those that the rows say, by count and a
/// sum over them: their order is another than the rows'.
pub(super) fn places_agree(tree: &sled::Tree, rows: &Rows) -> sled::Result<bool> {
    let mut wanted = Sum::default();
    for (id, row) in rows.iter() {
        row.places().for_each(|(queue, due)| wanted.add(&place(&queue, due, id)));
    }
    let mut found = Sum::default();
    for key in tree.iter().keys() {
        found.add(&key?);
    }
    Ok(wanted == found)
}

/// Whether a place in the index is one that the log says.
pub(super) fn is_place(key: &[u8], rows: &Rows) -> bool {
    parse_place(key).is_some_and(|(queue, (due, id))| {
        let row = rows.get(id).filter(|row| row.account == queue.account);
        row.and_then(|row| row.due(&queue.domain)) == Some(due)
    })
}

#[derive(Default, PartialEq)]
struct Sum(u64, u64);

impl Sum {
    fn add(&mut self, key: &[u8]) {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.0 += 1;
        self.1 = self.1.wrapping_add(hasher.finish());
    }
}
