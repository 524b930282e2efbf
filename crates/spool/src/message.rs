//! What is accepted: a message, where it came from, its bytes.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use postrider_base::Timestamp;
use postrider_mail::{AccountId, Domain, Envelope, MessageId};
use serde::{Deserialize, Serialize};

/// A message on its way into the spool.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// Its name, unique for ever.
    pub id: MessageId,
    /// Whose message it is.
    pub account: AccountId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When trying ends.
    pub expires_at: Timestamp,
    /// No attempt is made before this time (RFC 4865). `None` for at once.
    pub not_before: Option<Timestamp>,
    /// The author does not want a failure of TLS to stop the message (`TLS-Required: No`,
    /// RFC 8689 section 3).
    pub tls_optional: bool,
    /// Sender, recipients and what MAIL and RCPT said of them.
    pub envelope: Envelope,
    /// Where it came from.
    pub origin: Origin,
    /// The final bytes.
    pub content: Content,
}

/// A message as it was accepted, without its bytes.
///
/// On disk its fields stand in this order. What came later than the first version is at
/// the end, and reads as `None` or `false` in records of before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptedRecord {
    /// Its name, unique for ever.
    pub id: MessageId,
    /// Whose message it is.
    pub account: AccountId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When trying ends.
    pub expires_at: Timestamp,
    /// Sender, recipients and what MAIL and RCPT said of them.
    pub envelope: Envelope,
    /// Where it came from.
    pub origin: Origin,
    /// Length of the final bytes.
    pub size: u64,
    /// No attempt is made before this time (RFC 4865). `None` for at once.
    pub not_before: Option<Timestamp>,
    /// The author does not want a failure of TLS to stop the message (`TLS-Required: No`,
    /// RFC 8689 section 3). Never true where the envelope requires TLS.
    pub tls_optional: bool,
}

impl AcceptedRecord {
    /// When the first attempt is due. Delays and the message's life count from here.
    pub fn released_at(&self) -> Timestamp {
        self.not_before.map_or(self.accepted_at, |at| at.max(self.accepted_at))
    }
}

/// A queued message, as a claim shows it.
pub type Message = AcceptedRecord;

impl NewMessage {
    /// Takes the message apart into what is remembered of it and its bytes.
    pub fn into_parts(self) -> (AcceptedRecord, Content) {
        let record = AcceptedRecord {
            id: self.id,
            account: self.account,
            accepted_at: self.accepted_at,
            expires_at: self.expires_at,
            envelope: self.envelope,
            origin: self.origin,
            size: self.content.len(),
            not_before: self.not_before,
            tls_optional: self.tls_optional,
        };
        (record, self.content)
    }
}

/// The name of the tag that says which identity a message is sent from, by its ARN, where
/// that is another one than the domain of its author in its own account.
pub const SOURCE_ARN_TAG: &str = "ses:source-arn";

/// Where a message came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// User name of the credential that submitted it.
    pub credential: Option<String>,
    /// Address of the client.
    pub client_ip: Option<IpAddr>,
    /// What the client called itself in EHLO.
    pub client_name: Option<String>,
    /// How it came in, in the terms of RFC 3848: `ESMTPSA`; or `HTTP`.
    pub protocol: String,
    /// Why it exists.
    pub kind: OriginKind,
    /// The configuration set it is sent with.
    pub configuration_set: Option<String>,
    /// Message tags, name and value. A name that begins with `ses:` is none of a client's:
    /// [`SOURCE_ARN_TAG`].
    pub tags: Vec<(String, String)>,
    /// The header as the client sent it.
    pub headers: OriginalHeaders,
    /// Whether it waits for an operator's release from the start.
    pub hold: bool,
}

/// Why a message exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OriginKind {
    /// A client submitted it.
    #[default]
    Submission,
    /// A delivery status notification (RFC 3464) about another message.
    Dsn {
        /// The message that it reports on.
        of: MessageId,
    },
    /// The operator made it, or the relay in the operator's name: a report.
    Operator,
}

/// Header fields as the client sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalHeaders {
    /// Name and value of each field, in order; together at most 10,240 bytes.
    pub fields: Vec<(String, String)>,
    /// Whether fields were left out to stay below the bound.
    pub truncated: bool,
}

/// The bytes of a message: CRLF line ends, not dot-stuffed. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content(Vec<Bytes>);

impl Content {
    /// From pieces, which are taken as they are.
    pub fn new(chunks: Vec<Bytes>) -> Self {
        Self(chunks)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// The pieces in order.
    pub fn chunks(&self) -> &[Bytes] {
        &self.0
    }

    /// All bytes in one piece; copies only when there are several.
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
                many.iter().for_each(|chunk| all.extend_from_slice(chunk));
                all.freeze()
            }
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self(vec![bytes.into()])
    }
}

/// A queue: one account's messages to one recipient domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueKey {
    /// Whose messages.
    pub account: AccountId,
    /// Domain of the recipients.
    pub domain: Domain,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_joins_its_chunks() {
        let content = Content::new(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        assert_eq!(content.len(), 3);
        assert_eq!(content.to_bytes(), Bytes::from_static(b"abc"));
        assert!(!content.is_empty());
        assert!(Content::default().is_empty());
        assert_eq!(Content::default().to_bytes(), Bytes::new());
    }
}
