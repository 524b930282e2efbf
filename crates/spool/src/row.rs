//! What is left to do for a message: the part of its state that changes.

use postrider_base::Timestamp;
use postrider_mail::{AccountId, AttemptOutcome, Domain};
use postrider_wal::Location;
use serde::{Deserialize, Serialize};

use crate::message::{AcceptedRecord, QueueKey};
use crate::records::OutcomeState;

/// The due time of a message that an operator holds.
pub(crate) const NEVER: Timestamp = Timestamp::from_millis(u64::MAX);

/// The state of a message that waits. As a value of the index it takes about
/// 60 bytes for one recipient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Where the record and the bytes of the message are in the log.
    pub location: Location,
    pub account: AccountId,
    pub accepted_at: Timestamp,
    /// Held by itself, not by its queue.
    pub held: bool,
    /// Recipients that wait, by domain. Never an empty unit.
    pub units: Vec<Unit>,
    /// Segment of the main log with the record that says all this, but for
    /// what later records say.
    pub home: u64,
}

/// The recipients of one domain: what one delivery is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub domain: Domain,
    pub waiting: Vec<Waiting>,
}

/// A recipient that has not come to an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// Index in the envelope.
    pub recipient: u16,
    pub attempts: u32,
    pub due: Timestamp,
    /// Where the log has what the last attempt said.
    pub last: Option<Location>,
}

impl Unit {
    fn due(&self) -> Timestamp {
        let earliest = self.waiting.iter().map(|waiting| waiting.due).min();
        earliest.unwrap_or(NEVER)
    }
}

impl Row {
    /// The state of a message that was just accepted.
    pub(crate) fn fresh(record: &AcceptedRecord, location: Location) -> Self {
        let mut row = Self {
            location,
            account: record.account,
            accepted_at: record.accepted_at,
            held: record.origin.hold,
            units: Vec::with_capacity(1),
            home: location.segment,
        };
        for (index, recipient) in (0..).zip(&record.envelope.recipients) {
            let waiting = Waiting { recipient: index, attempts: 0, due: record.released_at(), last: None };
            row.add(recipient.address.domain(), waiting);
        }
        row
    }

    /// As a value of the index.
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a row has no type that postcard refuses")
    }

    /// What [`Row::encode`] wrote; none when it is damaged, or empty.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        postcard::from_bytes(value).ok()
    }

    fn add(&mut self, domain: &Domain, waiting: Waiting) {
        match self.units.iter_mut().find(|unit| unit.domain == *domain) {
            Some(unit) => unit.waiting.push(waiting),
            None => self.units.push(Unit { domain: domain.clone(), waiting: vec![waiting] }),
        }
    }

    /// Whether every recipient has come to an end.
    pub(crate) fn is_done(&self) -> bool {
        self.units.is_empty()
    }

    pub(crate) fn unit(&self, domain: &Domain) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.domain == *domain)
    }

    /// When the recipients of a domain are due; none when they are done.
    pub(crate) fn due(&self, domain: &Domain) -> Option<Timestamp> {
        self.unit(domain).map(|unit| self.due_of(unit))
    }

    fn due_of(&self, unit: &Unit) -> Timestamp {
        match self.held {
            true => NEVER,
            false => unit.due(),
        }
    }

    /// The queues that the message waits in, and when it is due in each.
    pub(crate) fn places(&self) -> impl Iterator<Item = (QueueKey, Timestamp)> + '_ {
        self.units.iter().map(|unit| (self.queue(&unit.domain), self.due_of(unit)))
    }

    pub(crate) fn queue(&self, domain: &Domain) -> QueueKey {
        QueueKey { account: self.account, domain: domain.clone() }
    }

    /// Takes outcomes in. What has ended stays ended; attempts never go back.
    pub(crate) fn settle(&mut self, outcomes: &[OutcomeState], location: Location) {
        for outcome in outcomes {
            for unit in &mut self.units {
                let found = unit.waiting.iter().position(|w| w.recipient == outcome.recipient);
                let Some(at) = found else { continue };
                match outcome.next {
                    None => drop(unit.waiting.remove(at)),
                    Some(next) => {
                        let waiting = &mut unit.waiting[at];
                        waiting.attempts = waiting.attempts.max(outcome.attempt);
                        waiting.due = next;
                        waiting.last = Some(location);
                    }
                }
            }
        }
        self.units.retain(|unit| !unit.waiting.is_empty());
    }

    /// Leaves only these recipients, with the attempts and due times that they
    /// had elsewhere.
    pub(crate) fn resume(&mut self, waiting: &[(u16, u32, Timestamp)]) {
        for unit in &mut self.units {
            unit.waiting.retain_mut(|here| {
                let found = waiting.iter().find(|(recipient, ..)| *recipient == here.recipient);
                (here.attempts, here.due) = found.map_or((0, here.due), |(_, attempts, due)| (*attempts, *due));
                found.is_some()
            });
        }
        self.units.retain(|unit| !unit.waiting.is_empty());
    }

    /// Counts attempts that were begun.
    pub(crate) fn started(&mut self, attempts: &[(u16, u32)]) {
        for (recipient, attempt) in attempts {
            for waiting in self.waiting_mut().filter(|w| w.recipient == *recipient) {
                waiting.attempts = waiting.attempts.max(*attempt);
            }
        }
    }

    /// Makes the recipients of a domain, or all, due at `at` if they were due
    /// later.
    pub(crate) fn hasten(&mut self, domain: Option<&Domain>, at: Timestamp) {
        let meant = |unit: &&mut Unit| domain.is_none_or(|domain| *domain == unit.domain);
        for unit in self.units.iter_mut().filter(meant) {
            for waiting in &mut unit.waiting {
                waiting.due = waiting.due.min(at);
            }
        }
    }

    /// Whether some of it lies in this segment.
    pub(crate) fn lies_in(&self, segment: u64) -> bool {
        self.home == segment || self.location.segment == segment
    }

    /// What the last attempts said is not known from here.
    pub(crate) fn forget_last(&mut self) {
        self.waiting_mut().for_each(|waiting| waiting.last = None);
    }

    /// What the last attempts of other recipients said cannot be read.
    pub(crate) fn forget_last_but(&mut self, known: &[AttemptOutcome]) {
        let is_known = |waiting: &Waiting| known.iter().any(|outcome| outcome.recipient == waiting.recipient);
        self.waiting_mut().filter(|w| !is_known(w)).for_each(|w| w.last = None);
    }

    /// What these recipients' last attempts said now lies at `location`.
    pub(crate) fn copied(&mut self, outcomes: &[OutcomeState], location: Location) {
        for outcome in outcomes {
            for waiting in self.waiting_mut().filter(|w| w.recipient == outcome.recipient) {
                waiting.last = Some(location);
            }
        }
    }

    /// What these recipients' last attempts had said when the message was
    /// `then` now lies at `location`.
    pub(crate) fn copied_since(&mut self, then: &Row, location: Location) {
        for waiting in self.waiting_mut().filter(|w| w.last.is_some()) {
            let same = |w: &Waiting| w.recipient == waiting.recipient && w.last == waiting.last;
            if then.waiting().any(same) {
                waiting.last = Some(location);
            }
        }
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.units.iter().flat_map(|unit| &unit.waiting)
    }

    fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.units.iter_mut().flat_map(|unit| &mut unit.waiting)
    }
}
