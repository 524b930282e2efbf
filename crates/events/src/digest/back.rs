//! Records of what comes back after the dialogue, and what the mailbox simulator says instead.

use postrider_base::Timestamp;
use postrider_mail::{AttemptOutcome, BounceKind, Disposition, MessageId, SimulatedMailbox};
use postrider_spool::FeedItem;

use super::{Digest, Rules};
use crate::error::Result;
use crate::handle::Issuer;
use crate::live::Known;
use crate::mail_log;
use crate::record::{Body, Head, Kind, LifeRef};
use crate::returned::{ReturnedComplaint, ReturnedKind, ReturnedRecord, ReturnedSource};

impl Digest {
    /// Adds the complaints of the simulator's mailbox that complains of all that it gets.
    pub(super) fn complaints(
        &mut self,
        item: &FeedItem,
        id: MessageId,
        outcomes: &[AttemptOutcome],
        known: &Known,
        rules: Rules<'_>,
    ) -> Result<()> {
        let complains = |outcome: &&AttemptOutcome| {
            let mailbox = || SimulatedMailbox::of(known.recipient(outcome)?, &rules.issuer.operator_domain);
            outcome.disposition == Disposition::Delivered && mailbox() == Some(SimulatedMailbox::Complaint)
        };
        for outcome in outcomes.iter().filter(complains) {
            let complaint = ReturnedComplaint {
                feedback_type: Some("abuse".to_owned()),
                user_agent: Some("postrider mailbox simulator".to_owned()),
                arrival_date: Some(outcome.at),
            };
            let record = ReturnedRecord {
                recipients: vec![outcome.recipient],
                at: outcome.at,
                what: ReturnedKind::Complaint(complaint),
                source: ReturnedSource::default(),
                notice: None,
            };
            let head = Head { source: item.lsn, id, at: outcome.at };
            self.returned(head, known, &record, outcome.at, rules.issuer)?;
        }
        Ok(())
    }

    /// Adds what came back for a message; `sent` is when the remote said so.
    pub(crate) fn returned(
        &mut self,
        head: Head,
        known: &Known,
        record: &ReturnedRecord,
        sent: Timestamp,
        issuer: &Issuer,
    ) -> Result<()> {
        let subject = known.subject(head.id, issuer);
        let kind = match (&subject, &record.what) {
            (None, _) => Kind::Internal,
            (_, ReturnedKind::Bounce(_)) => Kind::Bounce,
            (_, ReturnedKind::Complaint(_)) => Kind::Complaint,
        };
        // One that could not be ended may be there.
        self.buffer.clear();
        Body::begin(&mut self.buffer, kind);
        if let Some(subject) = subject {
            match &record.what {
                ReturnedKind::Bounce(bounce) => {
                    subject.write_late_bounce(&mut self.buffer, &record.recipients, bounce, sent)?;
                }
                ReturnedKind::Complaint(complaint) => {
                    subject.write_late_complaint(&mut self.buffer, &record.recipients, complaint, sent)?;
                }
            }
        }
        let body = Body::end(&mut self.buffer, &LifeRef::Returned(record))?;
        self.push(kind, head, body)?;
        self.gone.push((head.id, record.gone().to_vec()));
        for recipient in &record.recipients {
            if let Some(address) = known.recipients.get(usize::from(*recipient)) {
                mail_log::write_returned(&mut self.mail_log, head.id, address, &record.what, &record.source);
            }
        }
        Ok(())
    }
}

/// What SES's mailbox simulator makes of a bounce from it; none for one from elsewhere.
pub(super) fn played(outcome: &AttemptOutcome, known: Option<&Known>, rules: Rules<'_>) -> Option<BounceKind> {
    let recipient = known?.recipient(outcome)?;
    match SimulatedMailbox::of(recipient, &rules.issuer.operator_domain)? {
        SimulatedMailbox::Bounce => Some(BounceKind::PermanentGeneral),
        SimulatedMailbox::SuppressionList => Some(BounceKind::PermanentSuppressed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    use crate::live::Live;
    use crate::samples::{ACCEPTED, accepted, issuer, message, outcome, outcomes};
    use postrider_base::Period;

    /// The events of a message to the simulator's mailboxes, whose servers say this.
    fn events(to: &[&str], disposition: Disposition, said: &str) -> Vec<(Kind, Value)> {
        let issuer = issuer();
        let interval = Period::from_hours(4).as_duration();
        let rules = Rules { issuer: &issuer, delay_interval: interval, attempt_records: false };
        let ends = (0..to.len()).map(|at| outcome(u16::try_from(at).unwrap(), ACCEPTED, disposition, said));
        let items = [accepted(1, message(1, to)), outcomes(2, 1, ends.collect())];
        let digest = Digest::of(&items, 1 << 20, &mut Live::new(1 << 20), rules, &|_| None).unwrap();
        assert!(digest.heads[1..].iter().all(|head| head.source == items[1].lsn));
        let json = digest.entries.iter().map(|entry| Body::parse(&entry.body[0]).unwrap().json);
        digest.kinds.iter().copied().zip(json.map(|json| serde_json::from_slice(&json).unwrap())).collect()
    }

    #[test]
    fn who_complains_of_everything_complains_after_the_delivery() {
        let to = ["complaint+label@simulator.amazonses.com", "success@simulator.example.org", "complaint@example.org"];
        let events = events(&to, Disposition::Delivered, "250 ok");
        let kinds: Vec<Kind> = events.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::Send, Kind::Delivery, Kind::Complaint]);
        let complaint = &events[2].1["complaint"];
        assert_eq!(complaint["complainedRecipients"][0]["emailAddress"], to[0]);
        assert_eq!(
            (&complaint["complaintFeedbackType"], &complaint["complaintSubType"]),
            (&"abuse".into(), &Value::Null)
        );
        assert_eq!(complaint["arrivalDate"], "2017-08-05T00:40:02.012Z");
    }

    #[test]
    fn its_bounces_are_of_the_kinds_that_sess_are_of() {
        let bounced = Disposition::Bounced(BounceKind::PermanentNoEmail);
        for (to, sub_type) in [
            ("bounce+a@simulator.amazonses.com", "General"),
            ("suppressionlist@simulator.example.org", "Suppressed"),
            ("other@simulator.amazonses.com", "NoEmail"),
            ("bounce@simulator.example.net", "NoEmail"),
        ] {
            let events = events(&[to], bounced, "550 5.1.1 user unknown");
            let bounce = &events[1].1["bounce"];
            assert_eq!(
                (&bounce["bounceType"], &bounce["bounceSubType"]),
                (&"Permanent".into(), &sub_type.into()),
                "{to}"
            );
            assert_eq!(bounce["bouncedRecipients"][0]["diagnosticCode"], "smtp; 550 5.1.1 user unknown");
        }
        // One message, one event for all of them.
        let both = ["bounce+a@simulator.amazonses.com", "bounce+b@simulator.amazonses.com"];
        let events = events(&both, bounced, "550 5.1.1 user unknown");
        assert_eq!((events.len(), events[1].1["bounce"]["bouncedRecipients"].as_array().unwrap().len()), (2, 2));
    }
}
