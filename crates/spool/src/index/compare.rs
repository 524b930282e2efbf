//! What an index says against what the log says.

use std::collections::HashMap;

use postrider_mail::MessageId;
use serde::Serialize;

use super::{Broken, Index, encode_row, guard, parse_id, parse_place};
use crate::row::Row;

/// Where an index differs from the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    /// Messages that wait and are not in it.
    pub missing: u64,
    /// Messages of which it has another state than the log.
    pub stale: u64,
    /// Rows of messages that do not wait.
    pub ended: u64,
    /// Due times that are not in it.
    pub missing_places: u64,
    /// Due times in it that are none.
    pub wrong_places: u64,
    /// Some of the messages concerned.
    pub examples: Vec<MessageId>,
}

/// Messages named at most.
const EXAMPLES: usize = 20;

impl Index {
    /// Compares without changing anything. Blocks.
    pub(crate) fn compare(&self, rows: &HashMap<MessageId, Row>) -> Result<Disagreement, Broken> {
        let Self::Sled { messages, queue, .. } = self else { return Ok(Disagreement::default()) };
        let found = guard(|| {
            let mut found = Disagreement::default();
            found.messages(messages, rows)?;
            found.places(queue, rows)?;
            Ok(found)
        })?;
        Ok(found)
    }
}

impl Disagreement {
    fn messages(&mut self, tree: &sled::Tree, rows: &HashMap<MessageId, Row>) -> sled::Result<()> {
        let mut seen = 0;
        for entry in tree {
            let (key, value) = entry?;
            let id = parse_id(&key);
            match id.and_then(|id| rows.get(&id)) {
                None => self.ended += 1,
                Some(row) => {
                    seen += 1;
                    if encode_row(row) == *value {
                        continue;
                    }
                    self.stale += 1;
                }
            }
            self.example(id);
        }
        self.missing = (rows.len() as u64).saturating_sub(seen);
        if self.missing > 0 {
            for id in rows.keys() {
                if self.examples.len() >= EXAMPLES {
                    break;
                }
                if !tree.contains_key(id.to_bytes())? {
                    self.example(Some(*id));
                }
            }
        }
        Ok(())
    }

    fn places(&mut self, tree: &sled::Tree, rows: &HashMap<MessageId, Row>) -> sled::Result<()> {
        let mut right = 0;
        for entry in tree {
            let (key, _) = entry?;
            let is_right = parse_place(&key).is_some_and(|(queue, (due, id))| {
                let row = rows.get(&id).filter(|row| row.account == queue.account);
                row.and_then(|row| row.due(&queue.domain)) == Some(due)
            });
            match is_right {
                true => right += 1,
                false => self.wrong_places += 1,
            }
        }
        let wanted: u64 = rows.values().map(|row| row.units.len() as u64).sum();
        self.missing_places = wanted.saturating_sub(right);
        Ok(())
    }

    fn example(&mut self, id: Option<MessageId>) {
        if self.examples.len() < EXAMPLES {
            self.examples.extend(id);
        }
    }
}
