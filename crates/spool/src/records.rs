//! The records of the log: how heads and bodies are written and read.
//!
//! A head has what recovery needs, behind a byte with the version of its
//! format. A message's body is its [`AcceptedRecord`] behind the record's
//! length, then the bytes of the message; an outcome's body is its
//! [`AttemptOutcome`]s, behind them what was said in the attempts. A record may grow at its end without a new version:
//! what a record lacks there is at its default.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use postrider_base::Timestamp;
use postrider_mail::{AttemptOutcome, Domain, MessageId, attach_records, store_records};
use postrider_wal::{Entry, Location, Replayed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::message::{AcceptedRecord, Content, QueueKey};
use crate::row::Row;
use crate::transfer::Taken;
use crate::view::Selector;

/// The format of heads and bodies written here, and the only one read.
pub(crate) const VERSION: u8 = 1;

/// Most recipients of one message. So many, each in a domain of its own with a name of
/// the longest, still fit the head that their state is kept in.
pub const MAX_RECIPIENTS: u16 = 3_000;

/// What an entry of the log is. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A message; head [`AcceptedHead`].
    Accepted = 1,
    /// What became of recipients; head [`OutcomeHead`].
    Outcomes = 2,
    /// Attempts begin; head [`StartedHead`].
    Started = 3,
    /// An operator's wish; head [`OperatorHead`].
    Operator = 4,
    /// The state of a message, said again when the segment that said it was
    /// reclaimed; head [`SnapshotHead`], which also says where the body is.
    /// (The first version of this program put the body here, as of `Accepted`.)
    Snapshot = 5,
    /// Outcomes copied beside a snapshot; as `Outcomes`, but nothing new.
    Copied = 6,
    /// A place in the log; head [`Mark`].
    Mark = 7,
    /// A message that came from another spool with the state that it had there;
    /// head [`ImportedHead`], body as of `Accepted`. It says everything: what
    /// became of the message here before does not count any more.
    Imported = 8,
    /// Of the cold log: the body of a message, as of `Accepted`; head the
    /// message's id.
    Body = 9,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{Accepted, Body, Copied, Imported, Mark, Operator, Outcomes, Snapshot, Started};
        let kinds = [Accepted, Outcomes, Started, Operator, Snapshot, Copied, Mark, Imported, Body];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Head of an accepted message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AcceptedHead {
    pub id: MessageId,
    pub row: Row,
}

/// Head of outcomes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OutcomeHead {
    pub id: MessageId,
    pub outcomes: Vec<OutcomeState>,
}

/// What an outcome means for the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutcomeState {
    pub recipient: u16,
    pub attempt: u32,
    /// When to try again; none when the recipient has come to an end.
    pub next: Option<Timestamp>,
}

impl From<&AttemptOutcome> for OutcomeState {
    fn from(outcome: &AttemptOutcome) -> Self {
        let next = match outcome.disposition.is_terminal() {
            true => None,
            false => Some(outcome.next_attempt.unwrap_or(outcome.at)),
        };
        Self { recipient: outcome.recipient, attempt: outcome.attempt, next }
    }
}

/// Head of begun attempts: recipients and the number of the attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartedHead {
    pub id: MessageId,
    pub attempts: Vec<(u16, u32)>,
}

/// Head of an operator's wish.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum OperatorHead {
    /// All holds of queues, domains and everything, as they are from now on.
    Holds(Holds),
    /// These messages wait for their release.
    Hold(Vec<MessageId>),
    /// These messages no longer do.
    Release(Vec<MessageId>),
    /// These messages are due, at the latest at a time.
    Retry { at: Timestamp, parts: Vec<(MessageId, Option<Domain>)> },
    /// How far files were imported, in the batch of what they brought. It is not said
    /// in a way that has versions from before it refuse the log, since it goes on as long
    /// as the log: they note it as damage, and the mail goes on with them.
    Taken(Taken),
}

impl OperatorHead {
    /// The single messages that it is about.
    pub(crate) fn ids(&self) -> Vec<MessageId> {
        match self {
            Self::Holds(_) | Self::Taken(_) => Vec::new(),
            Self::Hold(ids) | Self::Release(ids) => ids.clone(),
            Self::Retry { parts, .. } => parts.iter().map(|(id, _)| *id).collect(),
        }
    }
}

/// Head of a copied message.
pub(crate) type SnapshotHead = AcceptedHead;

/// Head of a message from another spool.
pub(crate) type ImportedHead = AcceptedHead;

/// Head of a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// The spool was closed in order.
    CleanStop,
    /// Everything before is synced when this is.
    Barrier,
}

/// Which queues an operator holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holds {
    pub all: bool,
    pub domains: BTreeSet<Domain>,
    pub queues: BTreeSet<QueueKey>,
}

impl Holds {
    pub(crate) fn covers(&self, queue: &QueueKey) -> bool {
        self.all || self.domains.contains(&queue.domain) || self.queues.contains(queue)
    }

    /// The widest hold that covers a queue.
    pub(crate) fn widest(&self, queue: &QueueKey) -> Option<Selector> {
        if self.all {
            Some(Selector::All)
        } else if self.domains.contains(&queue.domain) {
            Some(Selector::Domain(queue.domain.clone()))
        } else {
            self.queues.contains(queue).then(|| Selector::Queue(queue.clone()))
        }
    }

    /// Adds a hold; single messages are not kept here.
    pub(crate) fn add(&mut self, selector: &Selector) {
        match selector {
            Selector::Message(_) => {}
            Selector::Queue(queue) => drop(self.queues.insert(queue.clone())),
            Selector::Domain(domain) => drop(self.domains.insert(domain.clone())),
            Selector::All => self.all = true,
        }
    }

    /// Takes every hold away that lies within the selector.
    pub(crate) fn remove(&mut self, selector: &Selector) {
        match selector {
            Selector::Message(_) => {}
            Selector::Queue(queue) => drop(self.queues.remove(queue)),
            Selector::Domain(domain) => {
                self.domains.remove(domain);
                self.queues.retain(|queue| queue.domain != *domain);
            }
            Selector::All => *self = Self::default(),
        }
    }
}

/// An entry that is all head.
pub(crate) fn head_only<T: Serialize>(kind: Kind, head: &T) -> Result<Entry> {
    Ok(Entry::head_only(kind as u8, encode_head(head)?))
}

/// The entry of a new message, and its state but for the place.
pub(crate) fn accepted(record: &AcceptedRecord, content: &Content) -> Result<(Entry, Row)> {
    let head = AcceptedHead { id: record.id, row: Row::fresh(record, Location::default()) };
    let mut prefix = Vec::with_capacity(ROOM);
    prefix.extend([0; 4]);
    let mut prefix = postcard::to_extend(record, prefix).map_err(|_| Error::TooLarge("record"))?;
    let length = u32::try_from(prefix.len() - 4).map_err(|_| Error::TooLarge("record"))?;
    prefix[..4].copy_from_slice(&length.to_be_bytes());
    let mut body = Vec::with_capacity(1 + content.chunks().len());
    body.push(prefix.into());
    body.extend_from_slice(content.chunks());
    Ok((Entry { kind: Kind::Accepted as u8, head: encode_head(&head)?, body }, head.row))
}

/// The entry of a message's state, when the segment that said it is given
/// back. Its body lies where the row says, or is lost.
pub(crate) fn snapshot(id: MessageId, row: Row) -> Result<Entry> {
    head_only(Kind::Snapshot, &SnapshotHead { id, row })
}

/// The entry of the cold log for a message's body, as it was read.
pub(crate) fn cold_body(id: MessageId, body: Bytes) -> Entry {
    Entry { kind: Kind::Body as u8, head: id.to_bytes().to_vec().into(), body: vec![body] }
}

/// Whose body an entry of the cold log is.
pub(crate) fn cold_owner(entry: &Replayed) -> Option<MessageId> {
    let id = (entry.kind == Kind::Body as u8).then(|| entry.head.as_ref().try_into().ok())??;
    Some(MessageId::from_bytes(id))
}

/// The entry of a message from another spool; `body` as it lay in the log there.
pub(crate) fn imported(id: MessageId, row: &Row, body: Bytes) -> Result<Entry> {
    let mut row = Row { location: Location::default(), home: 0, ..row.clone() };
    row.forget_last();
    Ok(Entry { kind: Kind::Imported as u8, head: encode_head(&ImportedHead { id, row })?, body: vec![body] })
}

/// The entry of outcomes, new (`Outcomes`) or `Copied`.
pub(crate) fn outcomes(kind: Kind, id: MessageId, outcomes: &[AttemptOutcome]) -> Result<Entry> {
    let head = OutcomeHead { id, outcomes: outcomes.iter().map(OutcomeState::from).collect() };
    let mut body = encode(&outcomes)?;
    store_records(outcomes, &mut body);
    Ok(Entry { kind: kind as u8, head: encode_head(&head)?, body: vec![body.into()] })
}

/// Reads a head; `None` when it is damaged or of another version.
pub(crate) fn decode_head<T: DeserializeOwned>(head: &[u8]) -> Option<T> {
    match head.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}

/// Reads the head of a message with its state, also one of before a row said
/// where its home is.
pub(crate) fn decode_state(head: &[u8]) -> Option<AcceptedHead> {
    decode_head(head).or_else(|| decode_head(&[head, &[0]].concat()))
}

/// The version of a record that a later program wrote: its heads begin with
/// it, and it may have kinds of its own.
pub(crate) fn later_version(record: &Replayed) -> Option<u8> {
    let version = *record.head.first()?;
    (version > VERSION).then_some(version)
}

/// Takes a message's body apart.
pub(crate) fn decode_message(body: &Bytes) -> Option<(Arc<AcceptedRecord>, Content)> {
    let length: [u8; 4] = body.get(..4)?.try_into().ok()?;
    let end = 4usize.checked_add(usize::try_from(u32::from_be_bytes(length)).ok()?)?;
    let record = decode_record(body.get(4..end)?)?;
    Some((Arc::new(record), Content::from(body.slice(end..))))
}

/// Fields of an [`AcceptedRecord`] that its first version did not have. Each is
/// encoded in at least one byte, and a zero byte is its default.
const LATER_FIELDS: usize = 2;

/// Reads a record, also one of before its later fields.
fn decode_record(encoded: &[u8]) -> Option<AcceptedRecord> {
    let read = |bytes: &[u8]| postcard::from_bytes(bytes).ok();
    read(encoded).or_else(|| read(&[encoded, &[0; LATER_FIELDS]].concat()))
}

/// Reads the body of outcomes, also one of before there were records of attempts.
pub(crate) fn decode_outcomes(body: &[u8]) -> Option<Vec<AttemptOutcome>> {
    let (mut outcomes, records): (Vec<AttemptOutcome>, _) = postcard::take_from_bytes(body).ok()?;
    attach_records(&mut outcomes, records);
    Some(outcomes)
}

/// Room that most records need at most: they are written without growing.
const ROOM: usize = 512;
/// Room that most heads need at most.
const HEAD_ROOM: usize = 128;

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_extend(value, Vec::with_capacity(ROOM)).map_err(|_| Error::TooLarge("record"))
}

fn encode_head<T: Serialize>(head: &T) -> Result<Bytes> {
    let mut room = Vec::with_capacity(HEAD_ROOM);
    room.push(VERSION);
    let encoded = postcard::to_extend(head, room).map_err(|_| Error::TooLarge("head"))?;
    match encoded.len() <= Entry::MAX_HEAD {
        true => Ok(encoded.into()),
        false => Err(Error::TooLarge("head")),
    }
}

#[cfg(test)]
mod tests {
    use postrider_mail::{AccountId, Envelope, Recipient};

    use super::*;
    use crate::message::Origin;
    use crate::row::{NEVER, Unit, Waiting};

    fn record() -> AcceptedRecord {
        AcceptedRecord {
            id: MessageId::new(1, Timestamp::from_millis(5), 7),
            account: AccountId::default(),
            accepted_at: Timestamp::from_millis(5),
            expires_at: Timestamp::from_millis(9),
            envelope: Envelope {
                recipients: vec![Recipient::new("a@one.example".parse().unwrap())],
                ..Envelope::default()
            },
            origin: Origin { protocol: "ESMTPSA".into(), ..Origin::default() },
            size: 300,
            not_before: None,
            tls_optional: false,
        }
    }

    #[test]
    fn the_state_of_the_most_recipients_fits_a_head() {
        // An address has at most 254 octets.
        let domain = |n: u16| format!("{0}.{0}.{0}.{n:060}", "d".repeat(63)).parse::<Domain>().unwrap();
        let last = Some(Location { segment: u64::MAX, offset: u64::MAX, len: u32::MAX, crc: u32::MAX });
        let longest = |recipient| Waiting { recipient, attempts: u32::MAX, due: NEVER, last };
        let unit = |n| Unit { domain: domain(n), waiting: vec![longest(n)] };
        let row = Row { units: (0..MAX_RECIPIENTS).map(unit).collect(), ..Row::fresh(&record(), Location::default()) };
        assert_eq!(row.units[0].domain.as_str().len(), 252);
        assert!(snapshot(record().id, row).is_ok());
        let next = Some(NEVER);
        let outcome = |recipient| OutcomeState { recipient, attempt: u32::MAX, next };
        let outcomes = (0..MAX_RECIPIENTS).map(outcome).collect();
        assert!(head_only(Kind::Outcomes, &OutcomeHead { id: record().id, outcomes }).is_ok());
    }

    #[test]
    fn a_record_of_before_a_field_reads_as_without_it() {
        let record = record();
        let encoded = postcard::to_allocvec(&record).unwrap();
        let before = &encoded[..encoded.len() - LATER_FIELDS];
        assert_eq!(decode_record(&encoded), Some(record.clone()));
        assert_eq!(decode_record(before), Some(record));
        assert_eq!(decode_record(&before[..before.len() - 1]), None);
    }

    #[test]
    fn later_fields_are_kept() {
        let later = AcceptedRecord { not_before: Some(Timestamp::from_millis(99)), tls_optional: true, ..record() };
        assert_eq!(decode_record(&postcard::to_allocvec(&later).unwrap()), Some(later));
    }
}
