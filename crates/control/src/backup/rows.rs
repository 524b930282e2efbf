//! The account tables as one file: a mark, each record of the store behind its length (four
//! octets, little-endian), and at the end a length of all ones with the number of records
//! (eight octets).

use bytes::Bytes;

use super::archive::Reading;
use crate::Error;

pub(super) const MARK: &[u8] = b"postrider store 1\n";
const END: u32 = u32::MAX;
/// Longer than any record: a segment of the store's log is shorter.
const MAX_RECORD: u32 = 64 << 20;

/// A record with its length.
pub(super) fn framed(record: &[u8]) -> Vec<u8> {
    let length = u32::try_from(record.len()).unwrap_or(END);
    [&length.to_le_bytes(), record].concat()
}

pub(super) fn end(count: u64) -> Vec<u8> {
    [&END.to_le_bytes()[..], &count.to_le_bytes()].concat()
}

/// The records of a file; the last item is an error unless the file is whole.
pub(super) struct Records<'a> {
    file: Reading<'a>,
    count: u64,
    done: bool,
}

impl<'a> Records<'a> {
    pub(super) fn of(mut file: Reading<'a>) -> Result<Self, Error> {
        match file.take(MARK.len())? {
            mark if mark == MARK => Ok(Self { file, count: 0, done: false }),
            _ => Err(broken("it does not begin as one")),
        }
    }

    fn record(&mut self) -> Result<Option<Bytes>, Error> {
        match u32::from_le_bytes(self.file.array()?) {
            END if u64::from_le_bytes(self.file.array()?) != self.count => Err(broken("records are missing")),
            END => Ok(None),
            length if length > MAX_RECORD => Err(broken("a record is too long")),
            length => {
                self.count += 1;
                self.file.take(length as usize).map(|record| Some(record.into()))
            }
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Bytes, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let record = self.record().transpose();
        self.done = !matches!(record, Some(Ok(_)));
        record
    }
}

fn broken(why: &str) -> Error {
    Error::Invalid(format!("{}: not the account tables of a backup: {why}", super::STORE))
}
