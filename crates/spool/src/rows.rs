//! The messages that wait, as the log says, in little memory: about 140 bytes
//! for one with a single recipient. Only while the index is compared with
//! the log.

use std::collections::{BTreeMap, HashSet};

use postrider_mail::MessageId;

use crate::row::Row;

/// Rows by message, in the order of the index's keys.
#[derive(Debug, Default)]
pub(crate) struct Rows(BTreeMap<Key, Box<[u8]>>);

/// A message's name as the index has it.
pub(crate) type Key = [u8; 24];

/// What stands for a message that has ended: no row is empty.
const ENDED: &[u8] = &[];

impl Rows {
    /// Takes a message in that is not known yet.
    pub(crate) fn accept(&mut self, id: MessageId, row: &Row) {
        self.0.entry(id.to_bytes()).or_insert_with(|| encode(row));
    }

    /// Says all of a message, unless it has ended.
    pub(crate) fn replace(&mut self, id: MessageId, row: &Row) {
        match self.0.get_mut(&id.to_bytes()) {
            Some(known) if **known == *ENDED => {}
            Some(known) => *known = encode(row),
            None => self.revive(id, row),
        }
    }

    /// Says all of a message, also of one that has ended.
    pub(crate) fn revive(&mut self, id: MessageId, row: &Row) {
        self.0.insert(id.to_bytes(), encode(row));
    }

    /// Changes a message that waits.
    pub(crate) fn change(&mut self, id: MessageId, change: impl FnOnce(&mut Row)) {
        if let Some(known) = self.0.get_mut(&id.to_bytes())
            && let Some(mut row) = Row::decode(known)
        {
            change(&mut row);
            *known = encode(&row);
        }
    }

    /// Drops what has ended, and some others.
    pub(crate) fn keep_waiting(&mut self, except: &HashSet<MessageId>) {
        let except: HashSet<Key> = except.iter().map(|id| id.to_bytes()).collect();
        self.0.retain(|key, row| **row != *ENDED && !except.contains(key));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that wait, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (MessageId, Row)> + '_ {
        self.0.iter().filter_map(|(key, row)| Some((MessageId::from_bytes(*key), Row::decode(row)?)))
    }

    /// As the index has them: key and value, in order.
    pub(crate) fn encoded(&self) -> impl Iterator<Item = (&Key, &[u8])> + '_ {
        self.0.iter().map(|(key, row)| (key, &**row))
    }

    /// The row of a message that waits.
    pub(crate) fn get(&self, id: MessageId) -> Option<Row> {
        self.0.get(&id.to_bytes()).and_then(|row| Row::decode(row))
    }
}

fn encode(row: &Row) -> Box<[u8]> {
    match row.is_done() {
        true => Box::default(),
        false => row.encode().into(),
    }
}
