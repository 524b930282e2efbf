//! Messages under way: what their next event needs, in bounded memory.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_mail::{AccountId, AttemptOutcome, DelayType, Disposition, EmailAddress, MessageId};

use crate::error::Result;
use crate::event::{Mail, Subject};
use crate::handle::Issuer;
use crate::record::{Acceptance, Body, Kind, Life, Whose};
use crate::view::{Place, ROW, Row};

/// A message may have this many records that the view does not know yet, for
/// this long: most messages end before, and take one row.
const YOUNG: Duration = Duration::from_secs(5);

/// Beside what a message brings along: a place in a table that is half empty
/// when it has just grown, one or two in the order of arrival, its parts.
const SLOT: usize = 2 * (size_of::<(MessageId, Known)>() + size_of::<MessageId>()) + 4 * ALLOCATED;

/// A recipient, its state, its last reported delay, that it is gone; beside its address, which
/// is kept with the domain apart.
const RECIPIENT: usize = size_of::<(EmailAddress, bool, (u16, DelayType, Timestamp), u16)>() + 2 * ALLOCATED;

/// What an allocation takes beside its bytes.
const ALLOCATED: usize = 24;

/// What the events of a message need.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) accepted_at: Timestamp,
    expires_at: Timestamp,
    account: AccountId,
    set: Option<String>,
    pub(crate) recipients: Vec<EmailAddress>,
    /// None when its sender gets no events.
    mail: Option<Mail>,
    /// Recipients that are still tried.
    open: Vec<bool>,
    /// The last reported delay of recipients that had one.
    delays: Vec<(u16, DelayType, Timestamp)>,
    /// Recipients of which it came back for good after a host had taken it. They may be tried
    /// all the same, where the host's reply was lost.
    gone: Vec<u16>,
    /// Records that the view does not know yet.
    young: Vec<Place>,
}

impl Known {
    /// From the acceptance of a message.
    pub(crate) fn new(acceptance: Acceptance, mail: Option<Mail>) -> Self {
        Self {
            accepted_at: acceptance.at,
            expires_at: acceptance.expires_at,
            account: acceptance.account,
            set: acceptance.configuration_set,
            open: vec![true; acceptance.recipients.len()],
            recipients: acceptance.recipients,
            mail,
            delays: Vec::new(),
            gone: Vec::new(),
            young: Vec::new(),
        }
    }

    /// From the journal records of a message, oldest first; none when its
    /// acceptance is not among them.
    pub(crate) fn from_journal(records: &[Body]) -> Result<Option<Self>> {
        let Some((first, later)) = records.split_first() else {
            return Ok(None);
        };
        let Life::Accepted { acceptance, cuts } = first.life()? else {
            return Ok(None);
        };
        let mail = match first.json.is_empty() {
            false => Some(Mail::of_send(&first.json, cuts)?),
            true => None,
        };
        let mut known = Self::new(acceptance, mail);
        for record in later {
            match record.life()? {
                Life::Accepted { .. } => {}
                Life::Outcomes(outcomes) | Life::Counted(_, outcomes) => {
                    for outcome in &outcomes {
                        known.apply(outcome, record.kind == Kind::DeliveryDelay);
                    }
                }
                Life::Returned(returned) => known.came_back(returned.gone()),
            }
        }
        Ok(Some(known))
    }

    /// The recipient that an outcome is about.
    pub(crate) fn recipient(&self, outcome: &AttemptOutcome) -> Option<&EmailAddress> {
        self.recipients.get(usize::from(outcome.recipient))
    }

    /// Whose message it is, and the recipients that these outcomes are about.
    pub(crate) fn whose(&self, outcomes: &[&AttemptOutcome]) -> Whose<'_> {
        let recipients = outcomes.iter().filter_map(|outcome| self.recipient(outcome));
        Whose {
            account: self.account,
            set: self.set.as_deref(),
            recipients: recipients.map(EmailAddress::as_str).collect(),
        }
    }

    /// What events are written from; none when there are to be none.
    pub(crate) fn subject<'a>(&'a self, id: MessageId, issuer: &'a Issuer) -> Option<Subject<'a>> {
        Some(Subject {
            id,
            accepted_at: self.accepted_at,
            expires_at: self.expires_at,
            recipients: &self.recipients,
            mail: self.mail.as_ref()?,
            issuer,
        })
    }

    /// Whether a deferral is worth an event: the recipient's first, one for
    /// another reason, or one `interval` after the last event.
    pub(crate) fn is_news(&self, outcome: &AttemptOutcome, delay: DelayType, interval: Duration) -> bool {
        let last = self.delays.iter().find(|(recipient, ..)| *recipient == outcome.recipient);
        last.is_none_or(|(_, last, at)| *last != delay || outcome.at.saturating_since(*at) >= interval)
    }

    /// Takes an outcome in; `reported` says whether it got a DeliveryDelay.
    pub(crate) fn apply(&mut self, outcome: &AttemptOutcome, reported: bool) {
        if outcome.disposition.is_terminal()
            && let Some(open) = self.open.get_mut(usize::from(outcome.recipient))
        {
            *open = false;
        }
        if let (true, Disposition::Deferred(delay)) = (reported, outcome.disposition) {
            self.delays.retain(|(recipient, ..)| *recipient != outcome.recipient);
            self.delays.push((outcome.recipient, delay, outcome.at));
        }
    }

    /// Takes in of whom it came back for good.
    pub(crate) fn came_back(&mut self, gone: &[u16]) {
        self.gone.extend_from_slice(gone);
    }

    /// Whether its sender has been told for good that it did not reach this recipient.
    pub(crate) fn is_gone(&self, recipient: u16) -> bool {
        self.gone.contains(&recipient)
    }

    fn has_ended(&self) -> bool {
        !self.open.contains(&true)
    }

    /// What it takes in memory at most; does not change while it is there.
    fn bytes(&self) -> usize {
        let mail = self.mail.as_ref().map_or(0, Mail::len);
        let recipient = |r: &EmailAddress| RECIPIENT + 2 * r.as_str().len();
        let set = self.set.as_ref().map_or(0, |set| set.len() + ALLOCATED);
        SLOT + mail + set + self.recipients.iter().map(recipient).sum::<usize>()
    }

    fn take_row(&mut self, id: MessageId) -> Option<Row> {
        let places = std::mem::take(&mut self.young);
        (!places.is_empty()).then_some(Row { id, places })
    }
}

/// Messages under way, and records that the view does not know yet.
#[derive(Debug)]
pub(crate) struct Live {
    messages: HashMap<MessageId, Known>,
    /// Ids in the order of arrival, some of them gone.
    order: VecDeque<MessageId>,
    /// Messages with young records, by the time of the first.
    young: VecDeque<(Timestamp, MessageId)>,
    bytes: usize,
    max_bytes: usize,
}

impl Live {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { messages: HashMap::new(), order: VecDeque::new(), young: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Takes a message in.
    pub(crate) fn insert(&mut self, id: MessageId, known: Known) -> &mut Known {
        self.bytes += known.bytes();
        self.order.push_back(id);
        match self.messages.entry(id) {
            Entry::Vacant(slot) => slot.insert(known),
            Entry::Occupied(slot) => {
                let slot = slot.into_mut();
                self.bytes = self.bytes.saturating_sub(slot.bytes());
                let young = std::mem::replace(slot, known).young;
                slot.young = young;
                slot
            }
        }
    }

    pub(crate) fn get(&mut self, id: &MessageId) -> Option<&mut Known> {
        self.messages.get_mut(id)
    }

    /// Records of a message that the view does not know yet.
    pub(crate) fn young(&self, id: &MessageId) -> &[Place] {
        self.messages.get(id).map_or(&[], |known| &known.young)
    }

    /// Takes note of a written record; what the view is to know is added to
    /// `rows`.
    pub(crate) fn note(&mut self, id: MessageId, place: Place, now: Timestamp, rows: &mut Vec<Row>) {
        let Some(known) = self.messages.get_mut(&id) else {
            rows.push(Row { id, places: vec![place] });
            return;
        };
        if known.young.is_empty() {
            self.young.push_back((now, id));
        }
        known.young.push(place);
        if known.young.len() == ROW {
            rows.extend(known.take_row(id));
        }
    }

    /// Drops a message whose recipients are all done with.
    pub(crate) fn drop_ended(&mut self, id: MessageId, rows: &mut Vec<Row>) {
        if self.messages.get(&id).is_some_and(Known::has_ended) {
            self.remove(id, rows);
        }
    }

    /// Moves what is no longer young to `rows` and what is too much out.
    pub(crate) fn tidy(&mut self, now: Timestamp, rows: &mut Vec<Row>) {
        while let Some((since, id)) = self.young.front().copied() {
            if now.saturating_since(since) < YOUNG {
                break;
            }
            self.young.pop_front();
            if let Some(known) = self.messages.get_mut(&id) {
                rows.extend(known.take_row(id));
            }
        }
        while self.bytes > self.max_bytes
            && let Some(id) = self.order.pop_front()
        {
            self.remove(id, rows);
        }
        if self.order.len() > 2 * self.messages.len() + 1024 {
            self.order.retain(|id| self.messages.contains_key(id));
        }
    }

    /// Everything that the view does not know yet.
    pub(crate) fn drain(&mut self) -> Vec<Row> {
        let messages = self.messages.iter_mut();
        messages.filter_map(|(id, known)| known.take_row(*id)).collect()
    }

    fn remove(&mut self, id: MessageId, rows: &mut Vec<Row>) {
        if let Some(mut known) = self.messages.remove(&id) {
            self.bytes = self.bytes.saturating_sub(known.bytes());
            rows.extend(known.take_row(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{ACCEPTED, id, message, outcome};

    fn known(recipients: usize) -> Known {
        let recipients: Vec<String> = (0..recipients).map(|number| format!("a-{number}@example.net")).collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        Known::new(Acceptance::of(&message(1, &recipients)), None)
    }

    fn apply(known: &mut Known, disposition: Disposition) {
        for recipient in 0..u16::try_from(known.recipients.len()).unwrap() {
            known.apply(&outcome(recipient, ACCEPTED, disposition, "said"), true);
        }
    }

    #[test]
    fn the_oldest_give_way_and_nothing_is_counted_that_has_gone() {
        let bound = 100 * known(2).bytes();
        let (mut live, mut rows) = (Live::new(bound), Vec::new());
        for number in 0..10_000 {
            let known = live.insert(id(number), known(1 + usize::try_from(number % 3).unwrap()));
            apply(known, Disposition::Deferred(DelayType::General));
            live.tidy(ACCEPTED, &mut rows);
            assert!(live.bytes <= bound && live.order.len() <= 2 * live.messages.len() + 1024);
        }
        assert!(live.get(&id(0)).is_none() && live.get(&id(9_999)).is_some());
        // Read back from the journal, and once more.
        live.insert(id(0), known(3));
        live.insert(id(0), known(2));
        for number in 0..10_000 {
            if let Some(known) = live.get(&id(number)) {
                apply(known, Disposition::Delivered);
            }
            live.drop_ended(id(number), &mut rows);
        }
        assert_eq!((live.messages.len(), live.bytes), (0, 0));
    }
}
