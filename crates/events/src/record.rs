//! Journal records: what readers get of them, and in [`stored`] how they are written.

mod stored;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use bytes::Bytes;
use postrider_base::Timestamp;
use postrider_base::metrics::EventKind;
use postrider_mail::{AccountId, AttemptOutcome, EmailAddress, Envelope, MessageId, Notify};
use postrider_spool::{AcceptedRecord, OriginKind};
use serde::{Deserialize, Serialize};

pub(crate) use self::stored::{Body, Cuts, Head, Life, LifeRef, Whose, kind_of};
use crate::error::{Error, Result};
use crate::returned::{ReturnedKind, ReturnedSource};

/// What a journal record reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A message was accepted.
    Send = 1,
    /// A recipient's server took it.
    Delivery = 2,
    /// It is put off.
    DeliveryDelay = 3,
    /// It failed for good.
    Bounce = 4,
    /// The recipient complained, now or earlier.
    Complaint = 5,
    /// Part of a message's life without an event for its sender.
    Internal = 6,
    /// It was accepted, and is not sent for its content.
    Reject = 7,
}

impl Kind {
    /// SES's `eventType`; `Internal` for what is none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "Send",
            Self::Delivery => "Delivery",
            Self::DeliveryDelay => "DeliveryDelay",
            Self::Bounce => "Bounce",
            Self::Complaint => "Complaint",
            Self::Internal => "Internal",
            Self::Reject => "Reject",
        }
    }

    pub(crate) fn label(self) -> EventKind {
        match self {
            Self::Send => EventKind::Send,
            Self::Delivery => EventKind::Delivery,
            Self::DeliveryDelay => EventKind::DeliveryDelay,
            Self::Bounce => EventKind::Bounce,
            Self::Complaint => EventKind::Complaint,
            Self::Internal => EventKind::Internal,
            Self::Reject => EventKind::Reject,
        }
    }

    fn from_u8(byte: u8) -> Result<Self> {
        Ok(match byte {
            1 => Self::Send,
            2 => Self::Delivery,
            3 => Self::DeliveryDelay,
            4 => Self::Bounce,
            5 => Self::Complaint,
            6 => Self::Internal,
            7 => Self::Reject,
            _ => return Err(Error::Record("its kind is unknown")),
        })
    }
}

/// A place in the journal. Prints as `batch.index`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cursor {
    pub(crate) batch: u64,
    pub(crate) index: u16,
}

impl Cursor {
    /// The first place after this one.
    pub(crate) fn next(self) -> Self {
        match self.index.checked_add(1) {
            Some(index) => Self { index, ..self },
            None => Self { batch: self.batch.saturating_add(1), index: 0 },
        }
    }

    /// A place that this is the first after; before the first there is none but that itself.
    pub(crate) fn previous(self) -> Self {
        match (self.index.checked_sub(1), self.batch.checked_sub(1)) {
            (Some(index), _) => Self { index, ..self },
            (None, Some(batch)) => Self { batch, index: u16::MAX },
            (None, None) => self,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.batch, self.index)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (batch, index) = text.split_once('.')?;
            let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
            (digits(batch) && digits(index)).then_some(())?;
            Some(Self { batch: batch.parse().ok()?, index: index.parse().ok()? })
        };
        parse().ok_or(Error::Record("a cursor is two numbers with a dot between"))
    }
}

/// One event as readers of the journal get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its place: reading after it goes on with the next.
    pub cursor: Cursor,
    /// When what it reports happened.
    pub at: Timestamp,
    /// What it reports; never [`Kind::Internal`].
    pub kind: Kind,
    /// The message concerned.
    pub id: MessageId,
    /// The event in SES's shape: one JSON object, without a line end.
    pub json: Bytes,
}

/// One thing that happened in the life of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LifeEntry {
    /// It was accepted.
    Accepted(Acceptance),
    /// An attempt ended for one recipient.
    Attempt {
        /// The recipient; none when its acceptance is no longer in the journal.
        recipient: Option<EmailAddress>,
        /// What was tried and what came of it.
        outcome: AttemptOutcome,
    },
    /// A remote host reported something about a recipient after it had taken the message.
    Returned {
        /// The recipient; none when its acceptance is no longer in the journal.
        recipient: Option<EmailAddress>,
        /// When the report was journaled.
        at: Timestamp,
        /// What came back.
        what: ReturnedKind,
        /// Who said so.
        source: ReturnedSource,
        /// The id of the message that tells the sender of it, if he is told.
        notice: Option<MessageId>,
    },
}

/// What was accepted, from whom, for whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acceptance {
    /// The message.
    pub id: MessageId,
    /// Whose message it is.
    pub account: AccountId,
    /// When it was accepted.
    pub at: Timestamp,
    /// When trying ends.
    pub expires_at: Timestamp,
    /// Why it exists; delivery status notifications of the relay's own have
    /// no events.
    pub origin: OriginKind,
    /// The envelope's sender; none for the null reverse-path.
    pub sender: Option<EmailAddress>,
    /// The envelope's recipients.
    pub recipients: Vec<EmailAddress>,
    /// Length of the final bytes.
    pub size: u64,
    /// User name of the credential that submitted it.
    pub credential: Option<String>,
    /// Address of the client.
    pub client_ip: Option<IpAddr>,
    /// What the client called itself.
    pub client_name: Option<String>,
    /// How it came in.
    pub protocol: String,
    /// The configuration set it was sent with.
    pub configuration_set: Option<String>,
    /// What its sender wants to be told. Stored behind the rest, which earlier versions wrote
    /// without it.
    #[serde(skip)]
    pub wishes: Wishes,
}

/// What a sender wants to be told, and what he wants it to be called (RFC 3461).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// `ENVID=`, decoded from xtext.
    pub envid: Option<String>,
    /// One for each recipient of the envelope, or none where there is nothing to say of any.
    recipients: Vec<Wish>,
}

/// What RCPT said of a recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// `NOTIFY=`.
    pub notify: Notify,
    /// `ORCPT=`, decoded from xtext.
    pub orcpt: Option<String>,
}

impl Wishes {
    /// Of an envelope.
    pub fn of(envelope: &Envelope) -> Self {
        let wish = |notify, orcpt: &Option<String>| Wish { notify, orcpt: orcpt.clone() };
        let recipients = envelope.recipients.iter().map(|to| wish(to.notify, &to.orcpt));
        let recipients = if envelope.recipients.iter().any(|to| to.notify.is_given() || to.orcpt.is_some()) {
            recipients.collect()
        } else {
            Vec::new()
        };
        Self { envid: envelope.envid.clone(), recipients }
    }

    fn is_empty(&self) -> bool {
        self.envid.is_none() && self.recipients.is_empty()
    }
}

impl Acceptance {
    /// What RCPT said of this recipient; nothing where the message was not for it, and where
    /// an earlier version, which did not keep that, accepted the message.
    pub fn wish(&self, recipient: &EmailAddress) -> Wish {
        let index = self.recipients.iter().position(|known| known == recipient);
        index.and_then(|index| self.wishes.recipients.get(index)).cloned().unwrap_or_default()
    }

    pub(crate) fn of(record: &AcceptedRecord) -> Self {
        let origin = &record.origin;
        let recipients = record.envelope.recipients.iter();
        Self {
            id: record.id,
            account: record.account,
            at: record.accepted_at,
            expires_at: record.expires_at,
            origin: origin.kind,
            sender: record.envelope.sender.clone(),
            recipients: recipients.map(|r| r.address.clone()).collect(),
            size: record.size,
            credential: origin.credential.clone(),
            client_ip: origin.client_ip,
            client_name: origin.client_name.clone(),
            protocol: origin.protocol.clone(),
            configuration_set: origin.configuration_set.clone(),
            wishes: Wishes::of(&record.envelope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_refuse_the_rest() {
        let cursor = Cursor { batch: 17, index: 3 };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for bad in ["", "1", "1.", ".1", "1.2.3", "+1.2", "1.99999", "a.b"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
