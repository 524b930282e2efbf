//! How records are stored, those of earlier versions too: what was added since is behind the rest.

use bytes::{BufMut, Bytes, BytesMut};
use postrider_base::Timestamp;
use postrider_mail::{AccountId, AttemptOutcome, MessageId, attach_records, store_records};
use postrider_wal::{Lsn, Replayed};
use serde::{Deserialize, Serialize};

use super::{Acceptance, Kind};
use crate::error::{Error, Result};
use crate::returned::ReturnedRecord;

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
    use crate::record::Wish;
    use crate::samples::{ACCEPTED, message, outcome};
    use postrider_mail::{AttemptRecord, Disposition, Notify};
    use proptest::prelude::*;
    use std::sync::Arc;

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
