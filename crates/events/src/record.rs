//! Journal records: how they are stored and what readers get.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use postrider_base::Timestamp;
use postrider_base::metrics::EventKind;
use postrider_mail::{
    AccountId, AttemptOutcome, EmailAddress, Envelope, MessageId, Notify, attach_records, store_records,
};
use postrider_spool::{AcceptedRecord, OriginKind};
use postrider_wal::{Lsn, Replayed};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::returned::{ReturnedKind, ReturnedRecord, ReturnedSource};

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

/// The head of a record: what opening and finding need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Batch of the spool that the record comes from. That of the journal's
    /// last record is where the feed was left; it is smaller than an earlier
    /// one only where the spool lost batches, and the operator accepted that.
    pub(crate) source: Lsn,
    pub(crate) id: MessageId,
    pub(crate) at: Timestamp,
}

impl Head {
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let bytes = postcard::to_allocvec(self).map_err(|_| Error::Record("head"))?;
        Ok(bytes.into())
    }

    pub(crate) fn decode(replayed: &Replayed) -> Result<Self> {
        postcard::from_bytes(&replayed.head).map_err(|_| Error::Record("its head is not ours"))
    }
}

pub(crate) fn kind_of(replayed: &Replayed) -> Result<Kind> {
    Kind::from_u8(replayed.kind)
}

/// The part of a record that is not the event: for a message's life, and for those who count.
#[derive(Debug, Deserialize)]
pub(crate) enum Life<'a> {
    Accepted {
        acceptance: Acceptance,
        /// Where the event's `mail` object can be cut; see [`crate::event`].
        cuts: Cuts,
    },
    Outcomes(Vec<AttemptOutcome>),
    /// As `Outcomes`; who counts them need not read the event. Deliveries have it, which are
    /// most of what is journaled, unless an earlier version wrote them.
    Counted(
        #[serde(borrow)]
        #[expect(dead_code, reason = "it is read without the rest")]
        Whose<'a>,
        Vec<AttemptOutcome>,
    ),
    /// What came back after the dialogue.
    Returned(ReturnedRecord),
}

/// [`Life`] as it is written, without a copy.
#[derive(Debug, Serialize)]
pub(crate) enum LifeRef<'a> {
    Accepted { acceptance: &'a Acceptance, cuts: Cuts },
    Outcomes(&'a [&'a AttemptOutcome]),
    Counted(Whose<'a>, &'a [&'a AttemptOutcome]),
    Returned(&'a ReturnedRecord),
}

/// What the number of [`Life::Counted`] is when it is stored.
const COUNTED: u8 = 2;
/// That of [`Life::Returned`].
const RETURNED: u8 = 3;

/// Whose message it is that outcomes are of, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whose<'a> {
    pub(crate) account: AccountId,
    /// The message's configuration set.
    pub(crate) set: Option<&'a str>,
    /// The addresses that the outcomes are of.
    #[serde(borrow)]
    pub(crate) recipients: Vec<&'a str>,
}

/// Positions in a serialized `mail` object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cuts {
    /// Where `headers` and `commonHeaders` begin.
    pub(crate) headers: u32,
    /// Where `tags` begins.
    pub(crate) tags: u32,
}

/// A stored record: kind, length of the JSON, JSON, life, and what was said in the attempts; of an
/// acceptance, what the sender wants to be told; of what came back, in which message he is.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) kind: Kind,
    pub(crate) json: Bytes,
    life: Bytes,
}

const PREFIX: usize = 5;

impl Body {
    /// Begins a record in `out`; the JSON follows.
    pub(crate) fn begin(out: &mut BytesMut, kind: Kind) {
        out.put_u8(kind as u8);
        out.put_u32(0);
    }

    /// Ends the record that begins at the front of `out` and splits it off.
    pub(crate) fn end(out: &mut BytesMut, life: &LifeRef<'_>) -> Result<Bytes> {
        let length = u32::try_from(out.len() - PREFIX).map_err(|_| Error::Record("too long"))?;
        out[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        postcard::to_io(life, (&mut *out).writer()).map_err(|_| Error::Record("life"))?;
        if let LifeRef::Outcomes(outcomes) | LifeRef::Counted(_, outcomes) = life {
            let mut records = Vec::new();
            store_records(outcomes, &mut records);
            out.put_slice(&records);
        }
        if let LifeRef::Accepted { acceptance: Acceptance { wishes, .. }, .. } = life
            && !wishes.is_empty()
        {
            postcard::to_io(wishes, (&mut *out).writer()).map_err(|_| Error::Record("wishes"))?;
        }
        if let LifeRef::Returned(ReturnedRecord { notice: Some(notice), .. }) = life {
            postcard::to_io(notice, (&mut *out).writer()).map_err(|_| Error::Record("notice"))?;
        }
        Ok(out.split().freeze())
    }

    pub(crate) fn parse(bytes: &Bytes) -> Result<Self> {
        const SHORT: Error = Error::Record("it is cut short");
        let (prefix, rest) = bytes.split_at_checked(PREFIX).ok_or(SHORT)?;
        let length = prefix[1..].iter().fold(0, |n, b| n << 8 | usize::from(*b));
        if length > rest.len() {
            return Err(SHORT);
        }
        Ok(Self {
            kind: Kind::from_u8(prefix[0])?,
            json: bytes.slice(PREFIX..PREFIX + length),
            life: bytes.slice(PREFIX + length..),
        })
    }

    pub(crate) fn life(&self) -> Result<Life<'_>> {
        let read = postcard::take_from_bytes(&self.life);
        let (mut life, behind) = read.map_err(|_| Error::Record("its life is not ours"))?;
        match &mut life {
            Life::Outcomes(outcomes) | Life::Counted(_, outcomes) => attach_records(outcomes, behind),
            Life::Accepted { acceptance, .. } if !behind.is_empty() => {
                acceptance.wishes =
                    postcard::from_bytes(behind).map_err(|_| Error::Record("its wishes are not ours"))?;
            }
            Life::Returned(returned) if !behind.is_empty() => {
                let notice = postcard::from_bytes(behind).map_err(|_| Error::Record("its notice is not ours"))?;
                returned.notice = Some(notice);
            }
            Life::Accepted { .. } | Life::Returned(_) => {}
        }
        Ok(life)
    }

    /// Whether it is of what came back after the dialogue.
    pub(crate) fn is_returned(&self) -> bool {
        self.life.first() == Some(&RETURNED)
    }

    /// The front of [`Life::Counted`]; none where the record has none.
    pub(crate) fn whose(&self) -> Option<Whose<'_>> {
        let (&COUNTED, front) = self.life.split_first()? else { return None };
        postcard::take_from_bytes(front).ok().map(|(whose, _)| whose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{ACCEPTED, message, outcome};
    use postrider_mail::{AttemptRecord, Disposition};
    use proptest::prelude::*;
    use std::sync::Arc;

    #[test]
    fn cursors_round_trip_and_refuse_the_rest() {
        let cursor = Cursor { batch: 17, index: 3 };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for bad in ["", "1", "1.", ".1", "1.2.3", "+1.2", "1.99999", "a.b"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bodies_round_trip() {
        let mut out = BytesMut::new();
        Body::begin(&mut out, Kind::Bounce);
        out.extend_from_slice(b"{}");
        let bytes = Body::end(&mut out, &LifeRef::Outcomes(&[])).unwrap();
        let body = Body::parse(&bytes).unwrap();
        assert_eq!((body.kind, &body.json[..]), (Kind::Bounce, &b"{}"[..]));
        assert!(matches!(body.life().unwrap(), Life::Outcomes(o) if o.is_empty()));
        assert!(out.is_empty());
    }

    #[test]
    fn what_was_said_is_kept_behind_the_outcomes_and_missing_in_records_of_before() {
        let bare = outcome(0, ACCEPTED, Disposition::Delivered, "250 ok");
        let record = AttemptRecord { site: "site".into(), ..AttemptRecord::default() };
        let recorded = AttemptOutcome { record: Some(Arc::new(record)), ..bare.clone() };
        let mut out = BytesMut::new();
        Body::begin(&mut out, Kind::Delivery);
        let bytes = Body::end(&mut out, &LifeRef::Outcomes(&[&bare, &recorded])).unwrap();
        let outcomes = |bytes: &Bytes| match Body::parse(bytes).unwrap().life().unwrap() {
            Life::Outcomes(outcomes) => outcomes,
            _ => panic!("not outcomes"),
        };
        assert_eq!(outcomes(&bytes), [bare.clone(), recorded]);
        let before = postcard::to_allocvec(&LifeRef::Outcomes(&[&bare, &bare])).unwrap();
        let before = Bytes::copy_from_slice(&[&bytes[..PREFIX], &before].concat());
        assert_eq!(outcomes(&before), [bare.clone(), bare]);
    }

    #[test]
    fn wishes_are_kept_behind_an_acceptance_and_missing_in_records_of_before() {
        let mut record = message(1, &["a@example.net", "b@example.net"]);
        let plain = Acceptance::of(&record);
        record.envelope.envid = Some("QQ 314".into());
        record.envelope.recipients[1].notify = Notify::NEVER;
        record.envelope.recipients[1].orcpt = Some("rfc822;Bob@example.net".into());
        let asked = Acceptance::of(&record);
        let stored = |acceptance: &Acceptance| {
            let mut out = BytesMut::new();
            Body::begin(&mut out, Kind::Send);
            Body::end(&mut out, &LifeRef::Accepted { acceptance, cuts: Cuts::default() }).unwrap()
        };
        let read = |bytes: Bytes| match Body::parse(&bytes).unwrap().life() {
            Ok(Life::Accepted { acceptance, .. }) => Ok(acceptance),
            Ok(_) => panic!("not an acceptance"),
            Err(error) => Err(error),
        };
        let before = stored(&plain);
        assert_eq!(read(before.clone()).unwrap(), plain);
        assert_eq!(read(stored(&asked)).unwrap(), asked);
        assert!(stored(&asked).starts_with(&before), "who asks for nothing has nothing stored");
        assert!(read(stored(&asked).slice(..before.len() + 1)).is_err(), "cut short");
        let wish = |to: &str| asked.wish(&to.parse().unwrap());
        assert_eq!((wish("b@example.net").notify, wish("a@example.net").notify), (Notify::NEVER, Notify::default()));
        assert_eq!(wish("b@example.net").orcpt.as_deref(), Some("rfc822;Bob@example.net"));
        assert_eq!(wish("c@example.net"), Wish::default());
    }

    proptest! {
        #[test]
        fn damaged_bodies_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(body) = Body::parse(&bytes.into()) {
                let _ = body.life();
            }
        }
    }
}
