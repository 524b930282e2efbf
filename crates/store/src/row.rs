//! Rows as bytes: in a record of the log, and their keys.
//!
//! A record is a version octet, then for each row the length of its key
//! (`u16`), the length of its value (`u32`; all ones: the row is removed), key
//! and value. Numbers are little-endian. A key is the length of the table's
//! name (one octet), the name, and the key in the table, so that the rows of
//! a table are neighbours in key order.

use bytes::{Buf, BufMut, Bytes};

use crate::Error;

/// The longest key, its table's name included.
pub(crate) const MAX_KEY: usize = 4 << 10;
/// The longest value.
pub(crate) const MAX_VALUE: usize = 64 << 10;
/// The format that is written and read here.
const VERSION: u8 = 1;
/// Length of a row beside its key and value.
const ROW_HEADER: usize = 6;
const REMOVED: u32 = u32::MAX;

/// One row's new value, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

impl Row {
    /// Checks the bounds.
    pub(crate) fn new(key: Vec<u8>, value: Option<Vec<u8>>) -> Result<Self, Error> {
        if key.len() > MAX_KEY {
            return Err(Error::TooLarge("a key over 4 KiB"));
        }
        if value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
            return Err(Error::TooLarge("a value over 64 KiB"));
        }
        Ok(Self { key: key.into(), value: value.map(Bytes::from) })
    }

    /// Length in a record.
    pub(crate) fn len(&self) -> usize {
        size(self.key.len(), self.value.as_ref().map_or(0, Bytes::len))
    }
}

/// Length in a record of a row with key and value of these lengths.
pub(crate) fn size(key: usize, value: usize) -> usize {
    ROW_HEADER + key + value
}

/// What the keys of a table begin with. Names are at most 255 octets long.
pub(crate) fn prefix(table: &str) -> Vec<u8> {
    let name = &table.as_bytes()[..table.len().min(255)];
    let mut prefix = Vec::with_capacity(1 + name.len());
    prefix.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
    prefix.put_slice(name);
    prefix
}

/// The rows as one record.
pub(crate) fn encode(rows: &[Row]) -> Bytes {
    let mut record = Vec::with_capacity(1 + rows.iter().map(Row::len).sum::<usize>());
    record.put_u8(VERSION);
    for row in rows {
        // Both lengths are bounded when a row is made.
        record.put_u16_le(u16::try_from(row.key.len()).unwrap_or(u16::MAX));
        let value = row.value.as_ref();
        record.put_u32_le(value.map_or(REMOVED, |value| u32::try_from(value.len()).unwrap_or(REMOVED)));
        record.put_slice(&row.key);
        record.put_slice(value.map_or(&[], |value| &value[..]));
    }
    record.into()
}

/// The rows of a record of this segment.
pub(crate) fn decode(mut record: Bytes, segment: u64) -> Result<Vec<Row>, Error> {
    let format = |reason: String| Error::Format { table: "(record)".into(), reason };
    match record.try_get_u8() {
        Ok(VERSION) => {}
        Ok(other) => {
            return Err(format(format!("segment {segment} has a record of version {other}, known is {VERSION}")));
        }
        Err(_) => return Err(format("empty".into())),
    }
    let mut rows = Vec::new();
    while !record.is_empty() {
        rows.push(decode_row(&mut record).ok_or_else(|| format("cut short".into()))?);
    }
    Ok(rows)
}

fn decode_row(record: &mut Bytes) -> Option<Row> {
    let key = usize::from(record.try_get_u16_le().ok()?);
    let value = record.try_get_u32_le().ok()?;
    let mut take = |len: usize| (len <= record.len()).then(|| record.split_to(len));
    Some(Row {
        key: take(key)?,
        value: match value {
            REMOVED => None,
            len => Some(take(usize::try_from(len).ok()?)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: Option<&str>) -> Row {
        Row::new(key.into(), value.map(Into::into)).unwrap()
    }

    #[test]
    fn records_round_trip() {
        let rows = [row("a", Some("1")), row("", None), row("b", Some(""))];
        assert_eq!(decode(encode(&rows), 1).unwrap(), rows);
        assert_eq!(decode(encode(&[]), 1).unwrap(), []);
    }

    #[test]
    fn other_bytes_are_refused() {
        let good = encode(&[row("key", Some("value"))]);
        for cut in 2..good.len() {
            assert!(decode(good.slice(..cut), 1).is_err(), "cut at {cut}");
        }
        assert!(decode(Bytes::new(), 1).is_err());
        assert!(decode(Bytes::from_static(&[VERSION + 1]), 1).is_err());
    }

    #[test]
    fn tables_do_not_run_into_each_other() {
        assert!(!prefix("ab").starts_with(&prefix("a")));
        assert_eq!(prefix(&"x".repeat(300)).len(), 256);
    }

    #[test]
    fn keys_and_values_are_bounded() {
        assert!(Row::new(vec![0; MAX_KEY], Some(vec![0; MAX_VALUE])).is_ok());
        assert!(matches!(Row::new(vec![0; MAX_KEY + 1], None), Err(Error::TooLarge(_))));
        assert!(matches!(Row::new(vec![], Some(vec![0; MAX_VALUE + 1])), Err(Error::TooLarge(_))));
    }
}
