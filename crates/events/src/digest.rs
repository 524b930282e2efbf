//! From items of the spool's feed to journal records and lines of the mail
//! log.

mod back;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postrider_base::Timestamp;
use postrider_mail::{AttemptOutcome, BounceKind, DelayType, Disposition, MessageId};
use postrider_spool::{AcceptedRecord, FeedItem, FeedRecord, OriginKind};
use postrider_wal::{Entry, Lsn};

use self::back::played;
use crate::error::Result;
use crate::event::{self, Mail};
use crate::handle::Issuer;
use crate::live::{Known, Live};
use crate::mail_log;
use crate::record::{Acceptance, Body, Cuts, Head, Kind, LifeRef};

/// One batch for the journal, with what belongs to it.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    pub(crate) entries: Vec<Entry>,
    /// Of each entry.
    pub(crate) heads: Vec<Head>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) mail_log: String,
    /// Recipients of whom messages came back for good.
    pub(crate) gone: Vec<(MessageId, Vec<u16>)>,
    /// Items of the feed that are in it.
    pub(crate) items: usize,
    /// The last batch of the feed that is in it.
    pub(crate) last: Lsn,
    bytes: usize,
    buffer: BytesMut,
}

/// How events are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) issuer: &'a Issuer,
    pub(crate) delay_interval: Duration,
    /// Events have the records of attempts.
    pub(crate) attempt_records: bool,
}

/// Finds a message in the journal that is not in memory.
pub(crate) type Recall<'a> = dyn Fn(MessageId) -> Option<Known> + 'a;

impl Digest {
    /// Digests items of the feed, whole batches only, until the records take
    /// about `max_bytes`.
    ///
    /// # Errors
    /// When a record can not be made: a fault of this program.
    pub(crate) fn of(
        items: &[FeedItem],
        max_bytes: usize,
        live: &mut Live,
        rules: Rules<'_>,
        recall: &Recall<'_>,
    ) -> Result<Self> {
        let mut digest = Self::default();
        digest.buffer.reserve((items.len() * 2048).min(max_bytes));
        for item in items {
            if digest.bytes >= max_bytes && item.lsn != digest.last {
                break;
            }
            match &item.record {
                FeedRecord::Accepted(record) => {
                    let known = digest.accepted(item.lsn, record, Kind::Send, rules)?;
                    live.insert(record.id, known);
                }
                // Its Send event was where it was accepted; those that follow are here.
                FeedRecord::Imported(record) => {
                    let known = digest.accepted(item.lsn, record, Kind::Internal, rules)?;
                    live.insert(record.id, known);
                }
                FeedRecord::Outcomes { id, outcomes } => {
                    let known = match live.get(id) {
                        Some(known) => Some(known),
                        None => recall(*id).map(|known| live.insert(*id, known)),
                    };
                    digest.outcomes(item, *id, outcomes, known, rules)?;
                }
                _ => {}
            }
            digest.last = item.lsn;
            digest.items += 1;
        }
        Ok(digest)
    }

    /// One of no batch of the feed, behind `source`.
    pub(crate) fn behind(source: Lsn) -> Self {
        Self { last: source, ..Self::default() }
    }

    /// A record of no message: the spool is read on behind `source`, whatever
    /// earlier records say.
    pub(crate) fn renewal(source: Lsn, at: Timestamp) -> Result<Self> {
        let mut digest = Self::behind(source);
        Body::begin(&mut digest.buffer, Kind::Internal);
        let body = Body::end(&mut digest.buffer, &LifeRef::Outcomes(&[]))?;
        digest.push(Kind::Internal, Head { source, id: MessageId::from_bytes([0; 24]), at }, body)?;
        Ok(digest)
    }

    fn accepted(&mut self, lsn: Lsn, record: &AcceptedRecord, kind: Kind, rules: Rules<'_>) -> Result<Known> {
        let silent = record.origin.kind != OriginKind::Submission;
        let kind = if silent { Kind::Internal } else { kind };
        let (mut mail, mut cuts) = (None, Cuts::default());
        Body::begin(&mut self.buffer, kind);
        if !silent {
            let start = self.buffer.len();
            cuts = event::write_send(&mut self.buffer, record, rules.issuer)?;
            mail = Some(Mail::of_send(&self.buffer[start..], cuts)?);
        }
        let acceptance = Acceptance::of(record);
        let life = LifeRef::Accepted { acceptance: &acceptance, cuts };
        let body = Body::end(&mut self.buffer, &life)?;
        let head = Head { source: lsn, id: record.id, at: record.accepted_at };
        self.push(kind, head, body)?;
        mail_log::write_accepted(&mut self.mail_log, record);
        Ok(Known::new(acceptance, mail))
    }

    fn outcomes(
        &mut self,
        item: &FeedItem,
        id: MessageId,
        outcomes: &[AttemptOutcome],
        mut known: Option<&mut Known>,
        rules: Rules<'_>,
    ) -> Result<()> {
        for (group, outcomes) in groups(outcomes, known.as_deref(), rules) {
            let place = (item.lsn, item.index);
            let subject = known.as_deref().and_then(|known| known.subject(id, rules.issuer));
            let kind = match &subject {
                Some(_) => group.kind(),
                None => Kind::Internal,
            };
            Body::begin(&mut self.buffer, kind);
            if let Some(subject) = &subject {
                let out = &mut self.buffer;
                match group {
                    Group::Delivered(_) => subject.write_delivery(out, &outcomes)?,
                    Group::Delayed(delay) => subject.write_delay(out, &outcomes, delay)?,
                    Group::Bounced(bounce) => subject.write_bounce(out, &outcomes, bounce, place)?,
                    Group::Complained => subject.write_complaint(out, &outcomes, place)?,
                    Group::Rejected => subject.write_reject(out),
                    Group::Gone | Group::Silent => {}
                }
                if rules.attempt_records && kind != Kind::Internal {
                    event::add_attempt(out, outcomes[0])?;
                }
            }
            let life = match &known {
                Some(known) if subject.is_some() && group.is_counted() => {
                    LifeRef::Counted(known.whose(&outcomes), &outcomes)
                }
                _ => LifeRef::Outcomes(&outcomes),
            };
            let body = Body::end(&mut self.buffer, &life)?;
            let head = Head { source: item.lsn, id, at: outcomes[0].at };
            self.push(kind, head, body)?;
            if let Some(known) = &mut known {
                for outcome in &outcomes {
                    known.apply(outcome, kind == Kind::DeliveryDelay);
                }
            }
        }
        for outcome in outcomes {
            let known = known.as_deref();
            let recipient = known.and_then(|known| known.recipient(outcome));
            let accepted = known.map_or(id.timestamp(), |known| known.accepted_at);
            mail_log::write_attempt(&mut self.mail_log, id, recipient, accepted, outcome);
        }
        match known {
            Some(known) => self.complaints(item, id, outcomes, known, rules),
            None => Ok(()),
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, kind: Kind, head: Head, body: Bytes) -> Result<()> {
        self.bytes += body.len();
        self.entries.push(Entry { kind: kind as u8, head: head.encode()?, body: vec![body] });
        self.heads.push(head);
        self.kinds.push(kind);
        Ok(())
    }
}

/// Outcomes that one event can report together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Group<'a> {
    /// With this reply.
    Delivered(&'a str),
    Delayed(DelayType),
    Bounced(BounceKind),
    Complained,
    Rejected,
    /// Told by what came back before: for the life of the message, and the volume of the rates.
    Gone,
    /// For a message's life only.
    Silent,
}

impl Group<'_> {
    /// Whether its records say whose message it is.
    fn is_counted(&self) -> bool {
        matches!(self, Self::Delivered(_) | Self::Gone)
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Delivered(_) => Kind::Delivery,
            Self::Delayed(_) => Kind::DeliveryDelay,
            Self::Bounced(_) => Kind::Bounce,
            Self::Complained => Kind::Complaint,
            Self::Rejected => Kind::Reject,
            Self::Gone | Self::Silent => Kind::Internal,
        }
    }
}

fn groups<'a>(
    outcomes: &'a [AttemptOutcome],
    known: Option<&Known>,
    rules: Rules<'_>,
) -> Vec<(Group<'a>, Vec<&'a AttemptOutcome>)> {
    let mut groups: Vec<(Group<'a>, Vec<&'a AttemptOutcome>)> = Vec::with_capacity(1);
    for outcome in outcomes {
        let group = match outcome.disposition {
            Disposition::Delivered => Group::Delivered(&outcome.diagnostic),
            Disposition::Deferred(delay)
                if known.is_some_and(|known| known.is_news(outcome, delay, rules.delay_interval)) =>
            {
                Group::Delayed(delay)
            }
            // A late report was before it: that is the one bounce.
            Disposition::Bounced(_) | Disposition::Suppressed(_)
                if known.is_some_and(|known| known.is_gone(outcome.recipient)) =>
            {
                Group::Gone
            }
            Disposition::Bounced(kind) => Group::Bounced(played(outcome, known, rules).unwrap_or(kind)),
            Disposition::Suppressed(source) => match event::bounce_of_suppressed(source.list, source.reason) {
                Some(kind) => Group::Bounced(kind),
                None => Group::Complained,
            },
            Disposition::Rejected => Group::Rejected,
            Disposition::Deferred(_) | Disposition::Deleted => Group::Silent,
        };
        match groups.iter_mut().find(|(g, _)| *g == group) {
            Some((_, members)) => members.push(outcome),
            None => groups.push((group, vec![outcome])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::samples::{ACCEPTED, accepted, id, issuer, later, message, outcome, outcomes};
    use postrider_base::Period;
    use postrider_mail::{AttemptRecord, SuppressionList, SuppressionReason, SuppressionSource};

    const INTERVAL: Period = Period::from_hours(4);

    fn digest(items: &[FeedItem], live: &mut Live) -> Digest {
        let issuer = issuer();
        let rules = Rules { issuer: &issuer, delay_interval: INTERVAL.as_duration(), attempt_records: false };
        Digest::of(items, 1 << 20, live, rules, &|_| None).unwrap()
    }

    fn deferred(recipient: u16, at: Period, delay: DelayType) -> AttemptOutcome {
        outcome(recipient, later(at), Disposition::Deferred(delay), "421 later")
    }

    #[test]
    fn outcomes_alike_share_an_event() {
        let recipients = ["a@example.net", "b@example.net", "c@example.net", "d@example.net", "e@example.net"];
        let suppressed = SuppressionSource { list: SuppressionList::Account, reason: SuppressionReason::Complaint };
        let bounced = Disposition::Bounced(BounceKind::PermanentNoEmail);
        let items = [
            accepted(1, message(1, &recipients)),
            outcomes(
                2,
                1,
                vec![
                    outcome(0, ACCEPTED, Disposition::Delivered, "250 ok 1"),
                    outcome(1, ACCEPTED, bounced, "550 one"),
                    outcome(2, ACCEPTED, bounced, "550 two"),
                    outcome(3, ACCEPTED, Disposition::Suppressed(suppressed), "on the list"),
                    outcome(4, ACCEPTED, Disposition::Deleted, "by the operator"),
                ],
            ),
        ];
        let digest = digest(&items, &mut Live::new(1 << 20));
        let kinds = [Kind::Send, Kind::Delivery, Kind::Bounce, Kind::Complaint, Kind::Internal];
        assert_eq!(digest.kinds, kinds);
        assert_eq!(digest.heads[2].source, Lsn::new(2));
        assert_eq!((digest.items, digest.last), (2, Lsn::new(2)));
        assert_eq!(digest.mail_log.lines().count(), 6);
        let bounce = Body::parse(&digest.entries[2].body[0]).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bounce.json).unwrap();
        assert_eq!(json["bounce"]["bouncedRecipients"].as_array().unwrap().len(), 2);
        let silent = Body::parse(&digest.entries[4].body[0]).unwrap();
        assert!(silent.json.is_empty());
    }

    #[test]
    fn records_of_attempts_are_in_events_where_they_are_asked_for() {
        let issuer = issuer();
        let record = AttemptRecord { site: "site".into(), ..AttemptRecord::default() };
        let delivered = outcome(0, ACCEPTED, Disposition::Delivered, "250 ok");
        let items = [
            accepted(1, message(1, &["a@example.net"])),
            outcomes(2, 1, vec![AttemptOutcome { record: Some(Arc::new(record)), ..delivered }]),
        ];
        for attempt_records in [false, true] {
            let rules = Rules { issuer: &issuer, delay_interval: INTERVAL.as_duration(), attempt_records };
            let digest = Digest::of(&items, 1 << 20, &mut Live::new(1 << 20), rules, &|_| None).unwrap();
            let event = |at: usize| {
                let body = Body::parse(&digest.entries[at].body[0]).unwrap();
                serde_json::from_slice::<serde_json::Value>(&body.json).unwrap()
            };
            assert_eq!(event(1)["eventType"], "Delivery");
            assert_eq!(event(1)["postrider"]["attempt"]["site"] == "site", attempt_records);
            assert_eq!(event(0).get("postrider"), None, "nothing was said before it was sent");
        }
    }

    #[test]
    fn delays_are_reported_at_first_on_change_and_every_four_hours() {
        let live = &mut Live::new(1 << 20);
        digest(&[accepted(1, message(1, &["a@example.net", "b@example.net"]))], live);
        let mut report = |at, delay| digest(&[outcomes(2, 1, vec![deferred(0, at, delay)])], live).kinds[0];
        let mins = Period::from_mins;
        assert_eq!(report(mins(0), DelayType::General), Kind::DeliveryDelay);
        assert_eq!(report(mins(5), DelayType::General), Kind::Internal);
        assert_eq!(report(mins(15), DelayType::MailboxFull), Kind::DeliveryDelay);
        assert_eq!(report(mins(120), DelayType::MailboxFull), Kind::Internal);
        assert_eq!(report(mins(255), DelayType::MailboxFull), Kind::DeliveryDelay);
        let other = digest(&[outcomes(3, 1, vec![deferred(1, mins(256), DelayType::MailboxFull)])], live);
        assert_eq!(other.kinds, [Kind::DeliveryDelay], "the other recipient's first");
    }

    #[test]
    fn own_notifications_and_unknown_messages_have_no_events() {
        for kind in [OriginKind::Dsn { of: id(9) }, OriginKind::Operator] {
            let mut own = message(1, &["a@example.net"]);
            own.origin.kind = kind;
            let delivered = || vec![outcome(0, ACCEPTED, Disposition::Delivered, "250 ok")];
            let items = [accepted(1, own), outcomes(2, 1, delivered()), outcomes(3, 2, delivered())];
            let digest = digest(&items, &mut Live::new(1 << 20));
            assert_eq!(digest.kinds, [Kind::Internal; 3]);
            assert!(digest.entries.iter().all(|e| Body::parse(&e.body[0]).unwrap().json.is_empty()));
            assert!(digest.mail_log.lines().last().unwrap().contains("to=<unknown>"));
        }
    }

    #[test]
    fn a_digest_is_bounded_and_splits_no_batch() {
        let mut items: Vec<FeedItem> = (1..=10).map(|n| accepted(n, message(n.into(), &["a@example.net"]))).collect();
        items[4].lsn = items[3].lsn;
        items[4].index = 1;
        let issuer = issuer();
        let rules = Rules { issuer: &issuer, delay_interval: INTERVAL.as_duration(), attempt_records: false };
        let one = Digest::of(&items[..1], 1, &mut Live::new(1 << 20), rules, &|_| None).unwrap();
        let bytes = one.bytes * 7 / 2;
        let four = Digest::of(&items, bytes, &mut Live::new(1 << 20), rules, &|_| None).unwrap();
        assert_eq!((four.items, four.last), (5, Lsn::new(4)));
    }

    #[test]
    fn an_imported_message_has_every_event_but_its_first() {
        let message = Arc::new(message(1, &["a@example.net", "b@example.net"]));
        let delivered = outcomes(2, 1, vec![outcome(0, ACCEPTED, Disposition::Delivered, "250 ok")]);
        let live = &mut Live::new(1 << 20);
        let first = digest(&[FeedItem { lsn: Lsn::new(1), index: 0, record: FeedRecord::Imported(message) }], live);
        let next = digest(&[delivered], live);
        assert_eq!((first.kinds, next.kinds), (vec![Kind::Internal], vec![Kind::Delivery]));
    }

    #[test]
    fn a_message_recalled_from_its_records_goes_on_alike() {
        a_recalled_message_goes_on_alike(accepted(1, message(1, &["a@example.net", "b@example.net"])));
    }

    #[test]
    fn an_imported_message_recalled_from_its_records_goes_on_alike() {
        let message = Arc::new(message(1, &["a@example.net", "b@example.net"]));
        a_recalled_message_goes_on_alike(FeedItem {
            lsn: Lsn::new(1),
            index: 0,
            record: FeedRecord::Imported(message),
        });
    }

    fn a_recalled_message_goes_on_alike(taken: FeedItem) {
        let mins = Period::from_mins;
        let first = [taken, outcomes(2, 1, vec![deferred(0, mins(0), DelayType::General)])];
        let next = [
            outcomes(3, 1, vec![deferred(0, mins(5), DelayType::General)]),
            outcomes(4, 1, vec![outcome(1, later(mins(6)), Disposition::Delivered, "250 ok")]),
        ];
        let live = &mut Live::new(1 << 20);
        let bodies = |digest: &Digest| -> Vec<Bytes> { digest.entries.iter().map(|e| e.body[0].clone()).collect() };
        let records = bodies(&digest(&first, live));
        let recall = |_| {
            let records: Vec<Body> = records.iter().map(|bytes| Body::parse(bytes).unwrap()).collect();
            Known::from_journal(&records).unwrap()
        };
        let issuer = issuer();
        let rules = Rules { issuer: &issuer, delay_interval: INTERVAL.as_duration(), attempt_records: false };
        let recalled = Digest::of(&next, 1 << 20, &mut Live::new(1 << 20), rules, &recall).unwrap();
        assert_eq!(recalled.kinds, [Kind::Internal, Kind::Delivery]);
        assert_eq!(bodies(&recalled), bodies(&digest(&next, live)));
    }
}
