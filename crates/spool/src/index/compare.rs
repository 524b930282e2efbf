//! What an index says against what the log says.

use postrider_mail::MessageId;
use serde::Serialize;

use super::differences::{self, Difference};
use super::{Broken, Index, guard, parse_id};
use crate::rows::Rows;

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
    pub(crate) fn compare(&self, rows: &Rows) -> Result<Disagreement, Broken> {
        let Self::Sled { messages, queue, .. } = self else { return Ok(Disagreement::default()) };
        guard(|| {
            let mut found = Disagreement::default();
            differences::rows(messages, rows, |difference| {
                found.add(difference);
                Ok(())
            })?;
            found.places(queue, rows)?;
            Ok(found)
        })
    }
}

impl Disagreement {
    fn add(&mut self, difference: Difference<'_>) {
        let id = match difference {
            Difference::Missing(key, _) => {
                self.missing += 1;
                parse_id(key)
            }
            Difference::Stale(key, _) => {
                self.stale += 1;
                parse_id(key)
            }
            Difference::Ended(key) => {
                self.ended += 1;
                parse_id(&key)
            }
        };
        if self.examples.len() < EXAMPLES {
            self.examples.extend(id);
        }
    }

    fn places(&mut self, tree: &sled::Tree, rows: &Rows) -> sled::Result<()> {
        let mut right = 0;
        for key in tree.iter().keys() {
            match differences::is_place(&key?, rows) {
                true => right += 1,
                false => self.wrong_places += 1,
            }
        }
        let wanted: u64 = rows.iter().map(|(_, row)| row.units.len() as u64).sum();
        self.missing_places = wanted.saturating_sub(right);
        Ok(())
    }
}
