//! From the records of the log to the messages that wait.

use std::collections::{HashMap, HashSet};

use postrider_mail::MessageId;
use postrider_wal::{Location, Lsn, Replayed};
use serde::de::DeserializeOwned;

use crate::records::{
    AcceptedHead, Holds, Kind, Mark, OperatorHead, OutcomeHead, SnapshotHead, StartedHead, decode_head,
};
use crate::row::Row;

/// What the records so far amount to. Records come in LSN order; one that
/// says again what is known, or speaks of a message that has ended, changes
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    messages: HashMap<MessageId, Option<Row>>,
    /// Holds of queues, and the segment of the record that says so.
    pub holds: (Holds, Option<u64>),
    /// Whether the last record is the mark of a clean stop.
    pub clean_stop: bool,
    /// Records taken in.
    pub records: u64,
    /// Records that could not be understood.
    pub damaged: Vec<(Lsn, u16, u8, Location)>,
}

impl Replay {
    /// Takes the next record in.
    pub(crate) fn take(&mut self, record: &Replayed) {
        self.records += 1;
        self.clean_stop = false;
        if self.understand(record).is_none() {
            let Replayed { lsn, index, kind, location, .. } = *record;
            self.damaged.push((lsn, index, kind, location));
        }
    }

    /// The messages that wait.
    pub(crate) fn into_live(self, except: &HashSet<MessageId>) -> HashMap<MessageId, Row> {
        let live = self.messages.into_iter();
        live.filter_map(|(id, row)| Some((id, row?))).filter(|(id, _)| !except.contains(id)).collect()
    }

    fn understand(&mut self, record: &Replayed) -> Option<()> {
        match Kind::from_byte(record.kind)? {
            Kind::Accepted => self.accepted(head(record)?, record.location),
            Kind::Snapshot => self.snapshot(head(record)?, record.location),
            Kind::Outcomes => {
                let OutcomeHead { id, outcomes } = head(record)?;
                self.change(id, |row| row.settle(&outcomes, record.location));
            }
            Kind::Copied => {
                let OutcomeHead { id, outcomes } = head(record)?;
                self.change(id, |row| row.copied(&outcomes, record.location));
            }
            Kind::Started => {
                let StartedHead { id, attempts } = head(record)?;
                self.change(id, |row| row.started(&attempts));
            }
            Kind::Operator => self.operator(head(record)?, record.location),
            Kind::Mark => self.clean_stop = head::<Mark>(record)? == Mark::CleanStop,
        }
        Some(())
    }

    fn accepted(&mut self, head: AcceptedHead, location: Location) {
        let row = Row { location, ..head.row };
        let row = (!row.is_done()).then_some(row);
        self.messages.entry(head.id).or_insert(row);
    }

    /// A snapshot is written when no other record of its message is under
    /// way, so it says what all records before it said.
    fn snapshot(&mut self, head: SnapshotHead, location: Location) {
        let ended = matches!(self.messages.get(&head.id), Some(None));
        if !ended {
            let row = Row { location, ..head.row };
            self.messages.insert(head.id, Some(row));
        }
    }

    fn operator(&mut self, wish: OperatorHead, location: Location) {
        match wish {
            OperatorHead::Holds(holds) => self.holds = (holds, Some(location.segment)),
            OperatorHead::Hold(ids) => {
                ids.into_iter().for_each(|id| self.change(id, |row| row.held = true));
            }
            OperatorHead::Release(ids) => {
                ids.into_iter().for_each(|id| self.change(id, |row| row.held = false));
            }
            OperatorHead::Retry { at, parts } => {
                for (id, domain) in parts {
                    self.change(id, |row| row.hasten(domain.as_ref(), at));
                }
            }
        }
    }

    fn change(&mut self, id: MessageId, change: impl FnOnce(&mut Row)) {
        if let Some(state) = self.messages.get_mut(&id)
            && let Some(row) = state
        {
            change(row);
            if row.is_done() {
                *state = None;
            }
        }
    }
}

fn head<T: DeserializeOwned>(record: &Replayed) -> Option<T> {
    decode_head(&record.head)
}
