//! Events in SES's JSON.

mod back;
mod own;
mod shape;

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use postrider_base::{Random, Timestamp};
use postrider_mail::{
    AttemptOutcome, BounceKind, DelayType, Disposition, Domain, EmailAddress, MessageId, SuppressionList,
    SuppressionReason,
};
use postrider_spool::{AcceptedRecord, SOURCE_ARN_TAG};
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
    let of_domain = |domain: &Domain| {
        let Issuer { partition, region, .. } = issuer;
        format!("arn:{partition}:ses:{region}:{}:identity/{domain}", record.account)
    };
    let found = origin.tags.iter().find(|(name, _)| name == SOURCE_ARN_TAG).map(|(_, arn)| arn.clone());
    put(
        out,
        &Base {
            timestamp: Text(record.accepted_at),
            source: sender.map_or("", EmailAddress::as_str),
            source_arn: found.or_else(|| domain.as_ref().map(of_domain)),
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
            status: Some(Text(o.status)),
            diagnostic_code: Some(format!("smtp; {}", o.diagnostic).into()),
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
            status: Some(Text(o.status)),
            diagnostic_code: Some(match o.disposition {
                // Nothing was said over SMTP.
                Disposition::Suppressed(_) => o.diagnostic.clone().into(),
                _ => format!("smtp; {}", o.diagnostic).into(),
            }),
        };
        put(
            out,
            &Bounce {
                bounce_type: kind.bounce_type(),
                bounce_sub_type: kind.bounce_sub_type(),
                bounced_recipients: outcomes.iter().map(bounced).collect(),
                timestamp: Text(outcomes[0].at),
                feedback_id: self.feedback_id(outcomes[0], place),
                reporting_mta: Some(format!("dns; {}", self.issuer.hostname).into()),
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
                complaint_sub_type: Some("OnAccountSuppressionList"),
                user_agent: None,
                complaint_feedback_type: None,
                arrival_date: None,
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
        self.address_at(outcome.recipient)
    }

    fn address_at(&self, recipient: u16) -> &str {
        let recipient = self.recipients.get(usize::from(recipient));
        recipient.map_or("", EmailAddress::as_str)
    }

    /// The same whenever the event is made from the same place of the feed.
    fn feedback_id(&self, first: &AttemptOutcome, (batch, index): (Lsn, u16)) -> MessageId {
        let place = batch.get() << 32 | u64::from(index) << 16 | u64::from(first.recipient);
        self.feedback_id_of(first.at, place)
    }

    /// In the form of a message id; `which` is another one for each event of the message.
    fn feedback_id_of(&self, at: Timestamp, which: u64) -> MessageId {
        let bytes = self.id.to_bytes();
        let half = |from: usize| {
            let bytes = bytes[from..from + 8].iter();
            bytes.fold(0, |n, b| n << 8 | u64::from(*b))
        };
        let seed = half(8) ^ half(16).rotate_left(32) ^ which;
        MessageId::new(self.id.node(), at, Random::seeded(seed).uuid_v4())
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
mod tests;
