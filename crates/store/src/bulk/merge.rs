//! Several sorted sources as one.

use bytes::Bytes;

use crate::Error;

/// A row of a sorted source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Vec<u8>,
    /// Empty where the row was removed.
    pub(super) value: Bytes,
}

impl Entry {
    pub(super) fn is_removed(&self) -> bool {
        self.value.is_empty()
    }
}

/// Rows in the order of their keys, each key once.
pub(super) type Source = Box<dyn Iterator<Item = Result<Entry, Error>> + Send>;

/// The rows of all sources in the order of their keys; of rows with one key that of the
/// first source that has one. An error comes before all rows, and is gone on from.
pub(super) struct Merge {
    heads: Vec<Head>,
}

/// A source and what it gives next.
struct Head {
    next: Option<Result<Entry, Error>>,
    rest: Source,
}

impl Merge {
    /// The newest source comes first.
    pub(super) fn new(sources: Vec<Source>) -> Self {
        let head = |mut rest: Source| Head { next: rest.next(), rest };
        Self { heads: sources.into_iter().map(head).collect() }
    }

    /// The first source with the lowest key; the first one with an error.
    fn lowest(&self) -> Option<usize> {
        let mut lowest: Option<(usize, &[u8])> = None;
        for (number, head) in self.heads.iter().enumerate() {
            match &head.next {
                Some(Err(_)) => return Some(number),
                Some(Ok(entry)) if lowest.is_none_or(|(_, key)| entry.key.as_slice() < key) => {
                    lowest = Some((number, &entry.key));
                }
                _ => {}
            }
        }
        lowest.map(|(number, _)| number)
    }
}

impl Head {
    fn take(&mut self) -> Option<Result<Entry, Error>> {
        std::mem::replace(&mut self.next, self.rest.next())
    }
}

impl Iterator for Merge {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let lowest = self.lowest()?;
        let next = self.heads[lowest].take()?;
        if let Ok(entry) = &next {
            for head in &mut self.heads[lowest + 1..] {
                if matches!(&head.next, Some(Ok(other)) if other.key == entry.key) {
                    head.take();
                }
            }
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(rows: &[(&str, &'static str)]) -> Source {
        let entry =
            |(key, value): &(&str, &'static str)| Entry { key: key.as_bytes().to_vec(), value: (*value).into() };
        Box::new(rows.iter().map(entry).map(Ok).collect::<Vec<_>>().into_iter())
    }

    #[test]
    fn the_newest_of_each_key_comes_in_order() {
        let merged = Merge::new(vec![
            source(&[("b", "new"), ("d", "")]),
            source(&[]),
            source(&[("a", "1"), ("b", "old"), ("d", "old"), ("e", "5")]),
            source(&[("b", "older"), ("c", "3")]),
        ]);
        let rows: Vec<_> = merged.map(Result::unwrap).collect();
        let read: Vec<_> = rows.iter().map(|row| (row.key.as_slice(), &row.value[..])).collect();
        let expected: [(&[u8], &[u8]); 5] = [(b"a", b"1"), (b"b", b"new"), (b"c", b"3"), (b"d", b""), (b"e", b"5")];
        assert_eq!(read, expected);
        assert!(rows[3].is_removed() && !rows[4].is_removed());
    }

    #[test]
    fn an_error_is_told_and_gone_on_from() {
        let failing: Source = Box::new([Err(Error::NoRuntime)].into_iter().chain(source(&[("b", "2")])));
        let mut merged = Merge::new(vec![source(&[("a", "1")]), failing]);
        assert!(merged.next().unwrap().is_err());
        let rows: Vec<_> = merged.map(|row| row.unwrap().key).collect();
        assert_eq!(rows, [b"a", b"b"]);
    }
}
