//! What the callers of a spool were told, and what must therefore be there.

use std::collections::{BTreeMap, BTreeSet};

use postrider_mail::MessageId;
use postrider_spool::Content;

use super::steps::End;

/// What a recipient was told to have become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Waits,
    /// Ended: written, perhaps not yet synced.
    Ended,
    EndedForGood,
    /// The log failed before it could say.
    Unsure,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Recipient {
    pub(super) fate: Fate,
    /// Attempts whose outcome or beginning is written, and those that are
    /// synced too.
    pub(super) written: u32,
    pub(super) synced: u32,
    /// Attempts that may have been recorded.
    pub(super) begun: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) content: Content,
    pub(super) recipients: Vec<Recipient>,
    /// Nobody was told that it was accepted.
    pub(super) unsure: bool,
    /// None: nobody was told whether an operator's wish was taken.
    pub(super) held: Option<bool>,
}

impl Message {
    pub(super) fn new(content: Content, recipients: usize) -> Self {
        let recipient = Recipient { fate: Fate::Waits, written: 0, synced: 0, begun: 0 };
        Self { content, recipients: vec![recipient; recipients], unsure: false, held: Some(false) }
    }

    pub(super) fn unsure(content: Content, recipients: usize) -> Self {
        Self { unsure: true, ..Self::new(content, recipients) }
    }

    fn waits(&self) -> bool {
        self.recipients.iter().any(|it| matches!(it.fate, Fate::Waits))
    }
}

/// Outcomes of one batch.
#[derive(Clone, Debug)]
pub(super) struct Outcomes {
    pub(super) id: MessageId,
    /// Recipients, their attempt's number, and whether they end.
    pub(super) recipients: Vec<(u16, u32, bool)>,
    /// The notification in the same batch.
    pub(super) dsn: Option<MessageId>,
}

/// What is there after a restart.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Recipients that wait, with their attempts.
    pub(super) waiting: BTreeMap<MessageId, BTreeMap<u16, u32>>,
    pub(super) held: BTreeSet<MessageId>,
}

/// What the feed has said from the beginning of all time.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) accepted: BTreeSet<MessageId>,
    pub(super) ended: BTreeSet<(MessageId, u16)>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) messages: BTreeMap<MessageId, Message>,
    /// Whose sender was told no.
    pub(super) refused: BTreeSet<MessageId>,
    /// Batches with a notification that are not known to be synced.
    pub(super) bounces: Vec<Outcomes>,
}

impl Model {
    pub(super) fn nth_waiting(&self, n: usize) -> Option<MessageId> {
        let waiting = self.messages.iter().filter(|(_, message)| message.waits() && !message.unsure);
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        waiting.get(n % waiting.len().max(1)).copied()
    }

    /// An attempt's beginning or outcome is handed in.
    pub(super) fn begin(&mut self, id: MessageId, recipients: impl Iterator<Item = (u16, u32)>) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        for (index, attempt) in recipients {
            let begun = &mut message.recipients[usize::from(index)].begun;
            *begun = attempt.max(*begun);
        }
    }

    /// A batch was written.
    pub(super) fn wrote(&mut self, outcomes: Outcomes) {
        let Some(message) = self.messages.get_mut(&outcomes.id) else { return };
        for (index, attempt, ends) in &outcomes.recipients {
            let recipient = &mut message.recipients[usize::from(*index)];
            recipient.written = recipient.written.max(*attempt);
            if *ends {
                recipient.fate = Fate::Ended;
            }
        }
        self.bounces.extend(outcomes.dsn.is_some().then_some(outcomes));
    }

    /// A batch was handed in, and nobody knows what became of it.
    pub(super) fn lost_sight(&mut self, outcomes: Outcomes) {
        let Some(message) = self.messages.get_mut(&outcomes.id) else { return };
        for (index, _, ends) in &outcomes.recipients {
            if *ends {
                message.recipients[usize::from(*index)].fate = Fate::Unsure;
            }
        }
        self.bounces.extend(outcomes.dsn.is_some().then_some(outcomes));
    }

    /// Whatever was written is synced now.
    pub(super) fn synced(&mut self) {
        for recipient in self.messages.values_mut().flat_map(|message| &mut message.recipients) {
            recipient.synced = recipient.written;
            if recipient.fate == Fate::Ended {
                recipient.fate = Fate::EndedForGood;
            }
        }
    }

    /// Compares with what a restart found, and takes it over.
    pub(super) fn compare(&mut self, end: End, found: &Found, told: &Told) {
        self.compare_bounces(told);
        for id in &self.refused {
            assert!(!told.accepted.contains(id), "{id} was refused and is there");
        }
        let known: BTreeSet<_> = self.messages.keys().collect();
        assert!(told.accepted.iter().all(|id| known.contains(id)), "a message that nobody sent");
        let accepted = |id: &MessageId, message: &mut Message| {
            let accepted = told.accepted.contains(id);
            assert!(accepted || message.unsure, "{id} is lost, and the feed does not know it");
            message.unsure = false;
            accepted
        };
        self.messages.retain(|id, message| accepted(id, message));
        for (id, message) in &mut self.messages {
            let waiting = found.waiting.get(id);
            for (index, recipient) in (0u16..).zip(&mut message.recipients) {
                let attempts = waiting.and_then(|waiting| waiting.get(&index));
                let ended = told.ended.contains(&(*id, index));
                assert_eq!(attempts.is_none(), ended, "{id} {index}: queue and feed disagree");
                compare_recipient(end, *id, index, recipient, attempts.copied());
            }
            if waiting.is_some() {
                let held = found.held.contains(id);
                assert!(message.held.is_none_or(|told| told == held), "{id}: held is {held}");
                message.held = Some(held);
            }
        }
    }

    /// An end and the notification that it caused are there together.
    fn compare_bounces(&mut self, told: &Told) {
        for Outcomes { id, recipients, dsn } in self.bounces.drain(..) {
            let there = dsn.is_some_and(|dsn| told.accepted.contains(&dsn));
            for (index, _, ends) in recipients {
                let ended = told.ended.contains(&(id, index));
                assert!(!ends || ended == there, "{id} {index}: a bounce without its notification, or one without it");
            }
        }
    }
}

fn compare_recipient(end: End, id: MessageId, index: u16, recipient: &mut Recipient, found: Option<u32>) {
    let power = matches!(end, End::PowerCut(_));
    match (recipient.fate, found) {
        (Fate::Waits, None) => panic!("{id} {index} is lost"),
        (Fate::EndedForGood, Some(_)) => panic!("{id} {index} is back"),
        (Fate::Ended, Some(_)) if !power => panic!("{id} {index} is back, and the power had not failed"),
        _ => {}
    }
    let Some(attempts) = found else {
        recipient.fate = Fate::EndedForGood;
        return;
    };
    let least = if power { recipient.synced } else { recipient.written };
    assert!((least..=recipient.begun).contains(&attempts), "{id} {index}: {attempts} attempts, {recipient:?}");
    *recipient = Recipient { fate: Fate::Waits, written: attempts, synced: attempts, begun: attempts };
}
