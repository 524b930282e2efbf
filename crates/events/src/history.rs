//! What the journal says of one message: all of it, and what matters when something comes back.

use postrider_mail::{AttemptOutcome, BounceKind, Disposition, MessageId};

use crate::error::Result;
use crate::journal::Journal;
use crate::live::Known;
use crate::record::{Body, Life, LifeEntry};
use crate::returned::{Returned, ReturnedKind, ReturnedRecord};

impl Journal {
    /// What `postrider message` tells, oldest first; empty when the journal has nothing of it.
    pub(crate) fn life(&self, id: MessageId) -> Result<Vec<LifeEntry>> {
        let mut recipients = Vec::new();
        let mut life = Vec::new();
        for record in self.records_of(id)? {
            match record.life()? {
                Life::Accepted { acceptance, .. } => {
                    recipients.clone_from(&acceptance.recipients);
                    life.push(LifeEntry::Accepted(acceptance));
                }
                Life::Outcomes(outcomes) | Life::Counted(_, outcomes) => {
                    life.extend(outcomes.into_iter().map(|outcome| {
                        let recipient = recipients.get(usize::from(outcome.recipient)).cloned();
                        LifeEntry::Attempt { recipient, outcome }
                    }));
                }
                Life::Returned(ReturnedRecord { recipients: of, at, what, source, notice }) => {
                    life.extend(of.into_iter().map(|recipient| LifeEntry::Returned {
                        recipient: recipients.get(usize::from(recipient)).cloned(),
                        at,
                        what: what.clone(),
                        source: source.clone(),
                        notice,
                    }));
                }
            }
        }
        Ok(life)
    }

    /// What a message was, and what became of it; none when the journal has nothing of it.
    pub(crate) fn history(&self, id: MessageId) -> Result<Option<History>> {
        History::of(&self.records_of(id)?)
    }
}

/// A message, what became of its recipients, and what came back for them before.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) known: Known,
    states: Vec<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    end: End,
    /// The bounces that are journaled, each kind once, and in which message who sent it is told;
    /// of those in the dialogue delivery tells.
    bounces: Vec<(BounceKind, Option<MessageId>)>,
    /// The complaints: whether each objects, and the same of it.
    complaints: Vec<(bool, Option<MessageId>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// It is tried, or a host took it and the reply was lost.
    #[default]
    Open,
    Delivered,
    Bounced,
    /// It was suppressed, deleted, or rejected.
    Unsent,
}

impl History {
    /// From the journal's records of a message, oldest first; none when its acceptance is not
    /// among them.
    pub(crate) fn of(records: &[Body]) -> Result<Option<Self>> {
        let Some(known) = Known::from_journal(records)? else { return Ok(None) };
        let mut history = Self { states: vec![State::default(); known.recipients.len()], known };
        for record in records {
            match record.life()? {
                Life::Accepted { .. } => {}
                Life::Outcomes(outcomes) | Life::Counted(_, outcomes) => {
                    outcomes.iter().for_each(|outcome| history.ended(outcome));
                }
                Life::Returned(returned) => history.take(&returned),
            }
        }
        Ok(Some(history))
    }

    fn ended(&mut self, outcome: &AttemptOutcome) {
        let Some(state) = self.states.get_mut(usize::from(outcome.recipient)) else { return };
        state.end = match outcome.disposition {
            Disposition::Delivered => End::Delivered,
            // It was deleted while it was being delivered.
            _ if state.end == End::Delivered => End::Delivered,
            Disposition::Bounced(kind) => {
                state.bounces.push((kind, None));
                End::Bounced
            }
            Disposition::Suppressed(_) | Disposition::Deleted | Disposition::Rejected => End::Unsent,
            Disposition::Deferred(_) => state.end,
        };
    }

    /// Takes note of what came back.
    pub(crate) fn take(&mut self, returned: &ReturnedRecord) {
        for recipient in &returned.recipients {
            let Some(state) = self.states.get_mut(usize::from(*recipient)) else { continue };
            match &returned.what {
                ReturnedKind::Bounce(bounce) => state.bounces.push((bounce.kind, returned.notice)),
                ReturnedKind::Complaint(complaint) => {
                    state.complaints.push((complaint.is_objection(), returned.notice));
                }
            }
        }
    }

    /// Whom a report is about; empty when it can be about nobody.
    pub(crate) fn affected(&self, returned: &Returned) -> Vec<u16> {
        let is_meant = |index: u16| returned.affected.means(index, &self.known.recipients);
        let meant = (0..).zip(&self.states).filter(|(index, _)| is_meant(*index));
        let meant: Vec<(u16, End)> = meant.map(|(index, state)| (index, state.end)).collect();
        let with = |wanted: &[End]| -> Vec<u16> {
            meant.iter().filter(|(_, end)| wanted.contains(end)).map(|(index, _)| *index).collect()
        };
        if returned.affected.is_named() {
            return with(&[End::Open, End::Delivered, End::Bounced]);
        }
        // Who is not named: those who certainly have it, else those who may.
        let alike = [End::Delivered, End::Open, End::Bounced].map(|end| with(&[end]));
        alike.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// What makes that no news of this recipient: each kind of bounce is told once, and none
    /// after a permanent one. In which message it is told, where it is by a report.
    pub(crate) fn known(&self, recipient: u16, what: &ReturnedKind) -> Option<Option<MessageId>> {
        let state = self.states.get(usize::from(recipient))?;
        match what {
            ReturnedKind::Bounce(bounce) => {
                let mut bounces = state.bounces.iter();
                bounces.find(|(kind, _)| kind.is_hard() || *kind == bounce.kind).map(|(_, notice)| *notice)
            }
            ReturnedKind::Complaint(complaint) => {
                let mut complaints = state.complaints.iter();
                complaints.find(|(objects, _)| *objects == complaint.is_objection()).map(|(_, notice)| *notice)
            }
        }
    }
}
