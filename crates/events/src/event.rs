//! Events in SES's JSON.

mod own;
mod shape;

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use postrider_base::{Random, Timestamp};
use postrider_mail::{
    AttemptOutcome, BounceKind, DelayType, Disposition, EmailAddress, MessageId, SuppressionList, SuppressionReason,
};
use postrider_spool::AcceptedRecord;
use postrider_wal::Lsn;
use serde::Serialize;

pub(crate) use self::own::add_attempt;
use self::shape::{
    Addresses, Affected, Base, Bounce, CommonHeaders, Complained, Complaint, Delivery, DeliveryDelay, Fields, Headers,
    TagMap, Tags, Text,
};
use crate::addresses;
use crate::error::{Error, Result};
use crate::handle::Issuer;
use crate::record::Cuts;

/// The `mail` object of a message's events, serialized once and copied into
/// each: its base, then `headers` and `commonHeaders`, then `tags`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mail {
    json: Bytes,
    cuts: Cuts,
}

impl Mail {
    /// Finds the object in a Send event that [`write_send`] wrote.
    pub(crate) fn of_send(event: &[u8], cuts: Cuts) -> Result<Self> {
        let inside = event
            .strip_prefix(SEND_BEFORE)
            .and_then(|rest| rest.strip_suffix(SEND_AFTER))
            .filter(|mail| mail.ends_with(b"}}"))
            .ok_or(Error::Record("its event is not a Send"))?;
        let cut = |at: u32| inside.get(..at as usize).is_some();
        if !(cut(cuts.headers) && cut(cuts.tags) && cuts.headers <= cuts.tags) {
            return Err(Error::Record("its event is cut elsewhere"));
        }
        Ok(Self { json: Bytes::copy_from_slice(inside), cuts })
    }

    /// Bytes of memory.
    pub(crate) fn len(&self) -> usize {
        self.json.len()
    }

    fn without_headers(&self) -> [&[u8]; 2] {
        let (headers, tags) = (self.cuts.headers as usize, self.cuts.tags as usize);
        [&self.json[..headers], &self.json[tags..]]
    }

    fn write_with_outgoing_ip(&self, out: &mut BytesMut, ip: IpAddr) -> Result<()> {
        let (open, close) = self.json.split_at(self.json.len() - 2);
        out.put_slice(open);
        if !open.ends_with(b"{") {
            out.put_u8(b',');
        }
        out.put_slice(b"\"ses:outgoing-ip\":[");
        put(out, &ip)?;
        out.put_u8(b']');
        out.put_slice(close);
        Ok(())
    }
}

const SEND_BEFORE: &[u8] = b"{\"eventType\":\"Send\",\"mail\":";
const SEND_AFTER: &[u8] = b",\"send\":{}}";

/// Appends the Send event of an accepted message.
pub(crate) fn write_send(out: &mut BytesMut, record: &AcceptedRecord, issuer: &Issuer) -> Result<Cuts> {
    out.put_slice(SEND_BEFORE);
    let start = out.len();
    let origin = &record.origin;
    let header = |name: &str| {
        let mut fields = origin.headers.fields.iter();
        let found = fields.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    let from = header("From").map(addresses::split).unwrap_or_default();
    let sender = record.envelope.sender.as_ref();
    let header_domain = from.first().and_then(|from| addresses::domain_of(from));
    let domain = header_domain.or_else(|| sender.map(|s| s.domain().clone()));
    let own = || {
        let Issuer { partition, region, .. } = issuer;
        Some(format!("arn:{partition}:ses:{region}:{}:identity/{}", record.account, domain.as_ref()?))
    };
    // Of another account's identity, the one that let the message be sent.
    let named = header("X-SES-SOURCE-ARN").filter(|_| sender.is_some()).or_else(|| header("X-SES-FROM-ARN"));
    let named = named.or_else(|| header("X-SES-SOURCE-ARN")).map(|arn| arn.trim().to_owned());
    put(
        out,
        &Base {
            timestamp: Text(record.accepted_at),
            source: sender.map_or("", EmailAddress::as_str),
            source_arn: named.or_else(own),
            sending_account_id: record.account,
            message_id: record.id,
            destination: Addresses(&record.envelope.recipients),
            headers_truncated: origin.headers.truncated,
        },
    )?;
    let headers = join(out);
    put(
        out,
        &Headers {
            headers: Fields(&origin.headers.fields),
            common_headers: CommonHeaders {
                from,
                to: header("To").map(addresses::split),
                message_id: record.id,
                subject: header("Subject"),
            },
        },
    )?;
    out[headers] = b',';
    let tags = join(out);
    let caller = origin.credential.as_deref();
    put(out, &Tags { tags: TagMap { record, domain: domain.as_ref().map(|d| d.as_str()), caller } })?;
    out[tags] = b',';
    let cuts = Cuts { headers: relative(headers, start)?, tags: relative(tags, start)? };
    out.put_slice(SEND_AFTER);
    Ok(cuts)
}

/// Takes the closing brace of the object at the end of `out` away, for the
/// next object to be joined to it; its opening brace becomes the comma.
fn join(out: &mut BytesMut) -> usize {
    out.truncate(out.len() - 1);
    out.len()
}

fn relative(at: usize, start: usize) -> Result<u32> {
    u32::try_from(at - start).map_err(|_| Error::Record("too long"))
}

/// What outcomes of one kind have in common in an event.
pub(crate) struct Subject<'a> {
    pub(crate) id: MessageId,
    pub(crate) accepted_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) recipients: &'a [EmailAddress],
    pub(crate) mail: &'a Mail,
    pub(crate) issuer: &'a Issuer,
}

impl Subject<'_> {
    /// Appends one Delivery event. All outcomes have the same reply.
    pub(crate) fn write_delivery(&self, out: &mut BytesMut, outcomes: &[&AttemptOutcome]) -> Result<()> {
        let first = outcomes[0];
        let source_ip = first.remote.as_ref().and_then(|remote| remote.source_ip);
        out.put_slice(b"{\"eventType\":\"Delivery\",\"mail\":");
        match source_ip {
            Some(ip) => self.mail.write_with_outgoing_ip(out, ip)?,
            None => out.put_slice(&self.mail.json),
        }
        out.put_slice(b",\"delivery\":");
        let took = first.at.saturating_since(self.accepted_at);
        put(
            out,
            &Delivery {
                timestamp: Text(first.at),
                processing_time_millis: took.as_millis(),
                recipients: outcomes.iter().map(|o| self.address(o)).collect(),
                smtp_response: &first.diagnostic,
                reporting_mta: &self.issuer.hostname,
            },
        )?;
        out.put_u8(b'}');
        Ok(())
    }

    /// Appends one DeliveryDelay event, with the shorter `mail` that SES's
    /// has. All outcomes have the same delay type.
    pub(crate) fn write_delay(&self, out: &mut BytesMut, outcomes: &[&AttemptOutcome], delay: DelayType) -> Result<()> {
        out.put_slice(b"{\"eventType\":\"DeliveryDelay\",\"mail\":");
        for part in self.mail.without_headers() {
            out.put_slice(part);
        }
        out.put_slice(b",\"deliveryDelay\":");
        let delayed = |o: &&AttemptOutcome| Affected {
            email_address: self.address(o),
            action: None,
            status: Text(o.status),
            diagnostic_code: format!("smtp; {}", o.diagnostic),
        };
        put(
            out,
            &DeliveryDelay {
                timestamp: Text(outcomes[0].at),
                delay_type: delay.as_str(),
                expiration_time: Text(self.expires_at),
                delayed_recipients: outcomes.iter().map(delayed).collect(),
            },
        )?;
        out.put_u8(b'}');
        Ok(())
    }

    /// Appends one Bounce event. All outcomes have the same kind.
    pub(crate) fn write_bounce(
        &self,
        out: &mut BytesMut,
        outcomes: &[&AttemptOutcome],
        kind: BounceKind,
        place: (Lsn, u16),
    ) -> Result<()> {
        out.put_slice(b"{\"eventType\":\"Bounce\",\"mail\":");
        out.put_slice(&self.mail.json);
        out.put_slice(b",\"bounce\":");
        let bounced = |o: &&AttemptOutcome| Affected {
            email_address: self.address(o),
            action: Some("failed"),
            status: Text(o.status),
            diagnostic_code: match o.disposition {
                // Nothing was said over SMTP.
                Disposition::Suppressed(_) => o.diagnostic.clone(),
                _ => format!("smtp; {}", o.diagnostic),
            },
        };
        put(
            out,
            &Bounce {
                bounce_type: kind.bounce_type(),
                bounce_sub_type: kind.bounce_sub_type(),
                bounced_recipients: outcomes.iter().map(bounced).collect(),
                timestamp: Text(outcomes[0].at),
                feedback_id: self.feedback_id(outcomes[0], place),
                reporting_mta: format!("dns; {}", self.issuer.hostname),
            },
        )?;
        out.put_u8(b'}');
        Ok(())
    }

    /// Appends one Complaint event for recipients who are not written to
    /// because they complained before.
    pub(crate) fn write_complaint(
        &self,
        out: &mut BytesMut,
        outcomes: &[&AttemptOutcome],
        place: (Lsn, u16),
    ) -> Result<()> {
        out.put_slice(b"{\"eventType\":\"Complaint\",\"mail\":");
        out.put_slice(&self.mail.json);
        out.put_slice(b",\"complaint\":");
        let complained = |o: &&AttemptOutcome| Complained { email_address: self.address(o) };
        put(
            out,
            &Complaint {
                complained_recipients: outcomes.iter().map(complained).collect(),
                timestamp: Text(outcomes[0].at),
                feedback_id: self.feedback_id(outcomes[0], place),
                complaint_sub_type: "OnAccountSuppressionList",
            },
        )?;
        out.put_u8(b'}');
        Ok(())
    }

    /// Appends the Reject event of a message. SES knows no other reason.
    pub(crate) fn write_reject(&self, out: &mut BytesMut) {
        out.put_slice(b"{\"eventType\":\"Reject\",\"mail\":");
        out.put_slice(&self.mail.json);
        out.put_slice(b",\"reject\":{\"reason\":\"Bad content\"}}");
    }

    fn address(&self, outcome: &AttemptOutcome) -> &str {
        let recipient = self.recipients.get(usize::from(outcome.recipient));
        recipient.map_or("", EmailAddress::as_str)
    }

    /// In the form of a message id, and the same whenever the event is made
    /// from the same place of the feed.
    fn feedback_id(&self, first: &AttemptOutcome, (batch, index): (Lsn, u16)) -> MessageId {
        let bytes = self.id.to_bytes();
        let half = |from: usize| {
            let bytes = bytes[from..from + 8].iter();
            bytes.fold(0, |n, b| n << 8 | u64::from(*b))
        };
        let place = batch.get() << 32 | u64::from(index) << 16 | u64::from(first.recipient);
        let seed = half(8) ^ half(16).rotate_left(32) ^ place;
        MessageId::new(self.id.node(), first.at, Random::seeded(seed).uuid_v4())
    }
}

/// The event that a suppressed recipient's sender gets: a Bounce of this
/// kind, or none for a Complaint.
pub(crate) fn bounce_of_suppressed(list: SuppressionList, reason: SuppressionReason) -> Option<BounceKind> {
    match (list, reason) {
        (SuppressionList::Account, SuppressionReason::Complaint) => None,
        (SuppressionList::Account, SuppressionReason::Bounce) => Some(BounceKind::PermanentOnAccountSuppressionList),
        (SuppressionList::Global, _) => Some(BounceKind::PermanentSuppressed),
    }
}

fn put(out: &mut BytesMut, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(out.writer(), value).map_err(|_| Error::Record("an event is not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{ACCEPTED, id, issuer, later, message, outcome};
    use postrider_base::Period;
    use postrider_mail::SuppressionSource;
    use serde_json::{Value, json};

    fn send(record: &AcceptedRecord) -> (BytesMut, Cuts) {
        let mut out = BytesMut::from("before");
        let cuts = write_send(&mut out, record, &issuer()).unwrap();
        let event = out.split_off(6);
        (event, cuts)
    }

    /// The event that `write` makes of a message to a@ and b@example.net.
    fn event(write: impl FnOnce(&Subject<'_>, &mut BytesMut) -> Result<()>) -> Value {
        let record = message(1, &["a@example.net", "b@example.net"]);
        let (sent, cuts) = send(&record);
        let recipients: Vec<EmailAddress> = record.envelope.recipients.into_iter().map(|r| r.address).collect();
        let subject = Subject {
            id: id(1),
            accepted_at: ACCEPTED,
            expires_at: record.expires_at,
            recipients: &recipients,
            mail: &Mail::of_send(&sent, cuts).unwrap(),
            issuer: &issuer(),
        };
        let mut out = BytesMut::new();
        write(&subject, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    fn mail() -> Value {
        json!({
            "timestamp": "2017-08-05T00:40:02.012Z",
            "source": "bounces@mail.example.com",
            "sourceArn": "arn:aws:ses:us-east-1:000000000001:identity/example.com",
            "sendingAccountId": "000000000001",
            "messageId": id(1).to_string(),
            "destination": ["a@example.net", "b@example.net"],
            "headersTruncated": false,
            "headers": [
                {"name": "From", "value": "\"Doe, Jane\" <jane@example.com>"},
                {"name": "to", "value": "a@example.net, B <b@example.net>"},
                {"name": "Subject", "value": "Say \"hi\"\u{2028}"},
                {"name": "Message-ID", "value": "<own@example.com>"},
            ],
            "commonHeaders": {
                "from": ["\"Doe, Jane\" <jane@example.com>"],
                "to": ["a@example.net", "B <b@example.net>"],
                "messageId": id(1).to_string(),
                "subject": "Say \"hi\"\u{2028}",
            },
            "tags": {
                "ses:configuration-set": ["ConfigSet"],
                "ses:source-ip": ["192.0.2.10"],
                "ses:from-domain": ["example.com"],
                "ses:caller-identity": ["AKIAEXAMPLE000000001"],
                "campaign": ["book", "two"],
            },
        })
    }

    #[test]
    fn send_has_the_whole_mail_object() {
        let (sent, _) = send(&message(1, &["a@example.net", "b@example.net"]));
        assert!(!sent.contains(&b'\n'));
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent, json!({"eventType": "Send", "mail": mail(), "send": {}}));
    }

    #[test]
    fn a_bare_message_has_what_is_known() {
        let mut record = message(1, &["a@example.net"]);
        record.envelope.sender = None;
        record.origin = postrider_spool::Origin::default();
        let (sent, cuts) = send(&record);
        let parsed: Value = serde_json::from_slice(&sent).unwrap();
        let mail = &parsed["mail"];
        assert_eq!((&mail["source"], &mail["tags"]), (&json!(""), &json!({})));
        assert_eq!(mail.get("sourceArn"), None);
        let mut out = BytesMut::new();
        let mail = Mail::of_send(&sent, cuts).unwrap();
        mail.write_with_outgoing_ip(&mut out, "192.0.2.1".parse().unwrap()).unwrap();
        let mail: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(mail["tags"], json!({"ses:outgoing-ip": ["192.0.2.1"]}));
    }

    #[test]
    fn mail_from_anothers_identity_names_the_identity_that_lets_it() {
        let (lent, other) = ("arn:aws:ses:us-east-1:000000000002:identity/lent.example", "arn:of:another:thing:1:a");
        let mut record = message(1, &["a@example.net"]);
        let fields = [("x-ses-source-arn", format!(" {lent}")), ("X-SES-FROM-ARN", other.to_owned())];
        record.origin.headers.fields.extend(fields.map(|(name, value)| (name.to_owned(), value)));
        let named = |record: &AcceptedRecord| {
            let sent: Value = serde_json::from_slice(&send(record).0).unwrap();
            sent["mail"]["sourceArn"].clone()
        };
        assert_eq!(named(&record), json!(lent));
        record.envelope.sender = None;
        assert_eq!(named(&record), json!(other), "nothing was sent as the source");
    }

    #[test]
    fn what_is_no_send_event_is_refused() {
        let (sent, cuts) = send(&message(1, &["a@example.net"]));
        let elsewhere = Cuts { tags: 1 << 20, ..cuts };
        assert!(Mail::of_send(&sent, elsewhere).is_err());
        assert!(Mail::of_send(&sent[1..], cuts).is_err());
        assert!(Mail::of_send(b"", cuts).is_err());
    }

    #[test]
    fn deliveries() {
        let at = ACCEPTED.saturating_add(std::time::Duration::from_millis(11_893));
        let [a, b] = [0, 1].map(|r| outcome(r, at, Disposition::Delivered, "250 2.6.0 Message received"));
        let mut expected = mail();
        expected["tags"]["ses:outgoing-ip"] = json!(["192.0.2.1"]);
        assert_eq!(
            event(|subject, out| subject.write_delivery(out, &[&a, &b])),
            json!({"eventType": "Delivery", "mail": expected, "delivery": {
                "timestamp": "2017-08-05T00:40:13.905Z",
                "processingTimeMillis": 11893,
                "recipients": ["a@example.net", "b@example.net"],
                "smtpResponse": "250 2.6.0 Message received",
                "reportingMTA": "mta.example.com",
            }})
        );
    }

    #[test]
    fn delays_leave_the_headers_out() {
        let delay = DelayType::TransientCommunicationFailure;
        let reply = "421 4.4.1 Unable to connect to remote host";
        let b = outcome(1, later(Period::from_mins(1)), Disposition::Deferred(delay), reply);
        let mut expected = mail();
        expected.as_object_mut().unwrap().retain(|name, _| name != "headers" && name != "commonHeaders");
        assert_eq!(
            event(|subject, out| subject.write_delay(out, &[&b], delay)),
            json!({"eventType": "DeliveryDelay", "mail": expected, "deliveryDelay": {
                "timestamp": "2017-08-05T00:41:02.012Z",
                "delayType": "TransientCommunicationFailure",
                "expirationTime": "2017-08-09T00:40:02.012Z",
                "delayedRecipients": [{
                    "emailAddress": "b@example.net", "status": "4.4.1",
                    "diagnosticCode": "smtp; 421 4.4.1 Unable to connect to remote host",
                }],
            }})
        );
    }

    #[test]
    fn bounces_have_an_id_of_their_own() {
        let kind = BounceKind::PermanentGeneral;
        let at = later(Period::from_mins(1));
        let a = outcome(0, at, Disposition::Bounced(kind), "550 5.1.1 user unknown");
        let bounce = |lsn| event(|subject, out| subject.write_bounce(out, &[&a], kind, (Lsn::new(lsn), 0)));
        let made = bounce(7);
        let feedback: MessageId = made["bounce"]["feedbackId"].as_str().unwrap().parse().unwrap();
        assert_eq!(
            made,
            json!({"eventType": "Bounce", "mail": mail(), "bounce": {
                "bounceType": "Permanent",
                "bounceSubType": "General",
                "bouncedRecipients": [{
                    "emailAddress": "a@example.net", "action": "failed", "status": "5.1.1",
                    "diagnosticCode": "smtp; 550 5.1.1 user unknown",
                }],
                "timestamp": "2017-08-05T00:41:02.012Z",
                "feedbackId": feedback.to_string(),
                "reportingMTA": "dns; mta.example.com",
            }})
        );
        assert_eq!(feedback.timestamp(), at);
        assert_eq!(made, bounce(7), "made again it has another id");
        assert_ne!(made, bounce(8), "another bounce has the same id");
    }

    #[test]
    fn rejections_have_a_reason() {
        let made = event(|subject, out| {
            subject.write_reject(out);
            Ok(())
        });
        assert_eq!(made, json!({"eventType": "Reject", "mail": mail(), "reject": {"reason": "Bad content"}}));
    }

    #[test]
    fn the_suppressed_bounce_or_complain() {
        use SuppressionList::{Account, Global};
        use SuppressionReason::{Bounce, Complaint};
        assert_eq!(bounce_of_suppressed(Account, Bounce), Some(BounceKind::PermanentOnAccountSuppressionList));
        assert_eq!(bounce_of_suppressed(Global, Complaint), Some(BounceKind::PermanentSuppressed));
        assert_eq!(bounce_of_suppressed(Account, Complaint), None);
        let source = SuppressionSource { list: Account, reason: Complaint };
        let b = outcome(1, ACCEPTED, Disposition::Suppressed(source), "on the list");
        let made = event(|subject, out| subject.write_complaint(out, &[&b], (Lsn::new(7), 0)));
        assert_eq!(made["eventType"], "Complaint");
        assert_eq!(made["complaint"]["complainedRecipients"], json!([{"emailAddress": "b@example.net"}]));
        assert_eq!(made["complaint"]["complaintSubType"], "OnAccountSuppressionList");
    }
}
