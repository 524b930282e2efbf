//! From the records of the log to the messages that wait.

use std::collections::HashSet;

use postrider_mail::MessageId;
use postrider_wal::{Location, Lsn, Replayed};
use serde::de::DeserializeOwned;

use crate::records::{
    AcceptedHead, Holds, ImportedHead, Kind, Mark, OperatorHead, OutcomeHead, SnapshotHead, StartedHead, decode_head,
    decode_state, later_version,
};
use crate::row::Row;
use crate::rows::Rows;
use crate::transfer::Taken;

/// What the records so far amount to. Records come in LSN order; one that
/// says again what is known, or speaks of a message that has ended, changes
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    rows: Rows,
    /// Holds of queues, and the segment of the record that says so.
    pub holds: (Holds, Option<u64>),
    /// How far files were imported, and the segment of the record that says so.
    pub taken: (Taken, Option<u64>),
    /// Whether the last record is the mark of a clean stop.
    pub clean_stop: bool,
    /// Records taken in.
    pub records: u64,
    /// A record of a later version: its segment and the version.
    pub later: Option<(u64, u8)>,
    /// Records that could not be understood.
    pub damaged: Vec<(Lsn, u16, u8, Location)>,
}

impl Replay {
    /// Takes the next record in.
    pub(crate) fn take(&mut self, record: &Replayed) {
        self.records += 1;
        self.clean_stop = false;
        if self.understand(record).is_none() {
            if let Some(version) = later_version(record) {
                self.later = Some((record.location.segment, version));
            }
            let Replayed { lsn, index, kind, location, .. } = *record;
            self.damaged.push((lsn, index, kind, location));
        }
    }

    /// The messages that wait.
    pub(crate) fn into_waiting(mut self, except: &HashSet<MessageId>) -> Rows {
        self.rows.keep_waiting(except);
        self.rows
    }

    fn understand(&mut self, record: &Replayed) -> Option<()> {
        match Kind::from_byte(record.kind)? {
            Kind::Accepted => self.accepted(decode_state(&record.head)?, record.location),
            Kind::Snapshot => self.snapshot(decode_state(&record.head)?, record.location),
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
            Kind::Imported => self.imported(decode_state(&record.head)?, record.location),
            // Of the cold log only.
            Kind::Body => return None,
            Kind::Mark => self.clean_stop = head::<Mark>(record)? == Mark::CleanStop,
        }
        Some(())
    }

    fn accepted(&mut self, head: AcceptedHead, location: Location) {
        self.rows.accept(head.id, &Row { location, home: location.segment, ..head.row });
    }

    /// A snapshot is written when no other record of its message is under
    /// way, so it says what all records before it said.
    fn snapshot(&mut self, head: SnapshotHead, record: Location) {
        // The first version of this program copied the body with the state.
        let location = if record.len > 0 { record } else { head.row.location };
        self.rows.replace(head.id, &Row { location, home: record.segment, ..head.row });
    }

    /// A message that left for another spool has ended here; when it comes
    /// back it waits again.
    fn imported(&mut self, head: ImportedHead, location: Location) {
        self.rows.revive(head.id, &Row { location, home: location.segment, ..head.row });
    }

    fn operator(&mut self, wish: OperatorHead, location: Location) {
        match wish {
            OperatorHead::Holds(holds) => self.holds = (holds, Some(location.segment)),
            OperatorHead::Taken(taken) => self.taken = (taken, Some(location.segment)),
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
        self.rows.change(id, change);
    }
}

fn head<T: DeserializeOwned>(record: &Replayed) -> Option<T> {
    decode_head(&record.head)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use postrider_base::Timestamp;
    use postrider_mail::{AccountId, Envelope, Recipient};

    use super::*;
    use crate::message::{AcceptedRecord, Content, Origin};
    use crate::records::{self, OutcomeState, head_only};

    fn id() -> MessageId {
        MessageId::new(1, Timestamp::from_millis(5), 7)
    }

    fn at(segment: u64) -> Location {
        Location { segment, ..Location::default() }
    }

    fn record(kind: u8, head: Bytes, segment: u64) -> Replayed {
        Replayed { lsn: Lsn::new(segment), index: 0, kind, head, location: at(segment) }
    }

    fn accepted(segment: u64) -> Replayed {
        let recipient = |to: &str| Recipient::new(to.parse().unwrap());
        let record_of = AcceptedRecord {
            id: id(),
            account: AccountId::default(),
            accepted_at: Timestamp::from_millis(5),
            expires_at: Timestamp::from_millis(9),
            envelope: Envelope {
                recipients: vec![recipient("a@one.example"), recipient("b@one.example")],
                ..Envelope::default()
            },
            origin: Origin::default(),
            size: 0,
            not_before: None,
            tls_optional: false,
        };
        let (entry, _) = records::accepted(&record_of, &Content::default()).unwrap();
        record(entry.kind, entry.head, segment)
    }

    fn outcome(recipient: u16, next: Option<u64>, segment: u64) -> Replayed {
        let next = next.map(Timestamp::from_millis);
        let outcomes = vec![OutcomeState { recipient, attempt: 3, next }];
        let entry = head_only(Kind::Outcomes, &OutcomeHead { id: id(), outcomes }).unwrap();
        record(entry.kind, entry.head, segment)
    }

    fn started(attempt: u32) -> Replayed {
        let head = StartedHead { id: id(), attempts: vec![(0, attempt)] };
        let entry = head_only(Kind::Started, &head).unwrap();
        record(entry.kind, entry.head, 1)
    }

    fn replay(records: &[Replayed]) -> Replay {
        let mut replay = Replay::default();
        records.iter().for_each(|record| replay.take(record));
        replay
    }

    fn live(records: &[Replayed]) -> Option<Row> {
        replay(records).into_waiting(&HashSet::new()).get(id())
    }

    #[test]
    fn what_has_ended_stays_ended_and_attempts_never_go_back() {
        let records = [accepted(1), outcome(1, None, 2), started(5), outcome(0, Some(80), 3), started(2)];
        let row = live(&records).unwrap();
        let waiting: Vec<_> = row.waiting().collect();
        assert_eq!(waiting.len(), 1);
        assert_eq!((waiting[0].recipient, waiting[0].attempts), (0, 5));
        assert_eq!((waiting[0].due, waiting[0].last), (Timestamp::from_millis(80), Some(at(3))));
        let again = [&records[..], &[outcome(1, Some(90), 4), accepted(5)]].concat();
        assert_eq!(live(&again), Some(row));
        let ended = [&records[..], &[outcome(0, None, 6), outcome(0, Some(9), 7), accepted(8)]].concat();
        assert_eq!(live(&ended), None);
    }

    #[test]
    fn a_snapshot_stands_for_all_before_it() {
        let row = live(&[accepted(1), outcome(1, None, 2), outcome(0, Some(80), 3)]).unwrap();
        let mut state = Row { location: at(70), ..row };
        state.forget_last();
        let copy = records::snapshot(id(), state).unwrap();
        let copy = record(copy.kind, copy.head, 9);
        let mut last = outcome(0, Some(1), 9);
        last.kind = Kind::Copied as u8;
        // With and without the segments that came before.
        for before in [vec![], vec![accepted(1), outcome(1, None, 2)]] {
            let moved = live(&[before, vec![copy.clone(), last.clone()]].concat()).unwrap();
            assert_eq!((moved.location, moved.home), (at(70), 9));
            let waiting: Vec<_> = moved.waiting().collect();
            assert_eq!(waiting.len(), 1);
            assert_eq!((waiting[0].due, waiting[0].last), (Timestamp::from_millis(80), Some(at(9))));
        }
        let ended = [accepted(1), outcome(0, None, 2), outcome(1, None, 2), copy];
        assert_eq!(live(&ended), None);
    }

    #[test]
    fn records_that_are_not_understood_are_kept_apart() {
        let good = accepted(1);
        let cut = |length| record(good.kind, good.head.slice(..length), 2);
        let other_version = {
            let mut head = good.head.to_vec();
            head[0] = 9;
            record(good.kind, head.into(), 2)
        };
        let bad = [record(99, good.head.clone(), 2), other_version, cut(0), cut(1), cut(good.head.len() - 2)];
        for bad in bad {
            let replay = replay(&[good.clone(), bad]);
            assert_eq!((replay.damaged.len(), replay.records), (1, 2));
            assert_eq!(replay.into_waiting(&HashSet::new()).len(), 1);
        }
    }
}
