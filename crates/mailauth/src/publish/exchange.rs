//! Questions and answers over one TCP connection, signed where there is a key.

use std::fmt::Display;
use std::io;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{DNSClass, Name, RecordType, TSigVerifier};
use postrider_base::BoxStream;
use postrider_mail::sanitize_text;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Error, Publisher, SHOWN, Target};

/// An open connection to a name server.
pub(super) struct Exchange<'a> {
    publisher: &'a Publisher,
    target: &'a Target,
    stream: BoxStream,
}

impl<'a> Exchange<'a> {
    pub(super) async fn open(publisher: &'a Publisher, target: &'a Target) -> Result<Exchange<'a>, Error> {
        let dialed = publisher.dialer.dial(target.server, None).await;
        let stream = dialed.map_err(|error| Error::Unreachable { server: target.server, error })?.stream;
        Ok(Exchange { publisher, target, stream })
    }

    /// An id that cannot be guessed.
    pub(super) fn next_id(&self) -> u16 {
        self.publisher.random.below(1 << 16).try_into().unwrap_or_default()
    }

    pub(super) fn question(&self, name: &Name, kind: RecordType) -> Message {
        let mut message = Message::new(self.next_id(), MessageType::Query, OpCode::Query);
        let mut query = Query::query(name.clone(), kind);
        query.set_query_class(DNSClass::IN);
        message.add_query(query);
        message
    }

    /// Sends a message and returns the answer to it: one without an error, or that there is no
    /// such name.
    pub(super) async fn ask(&mut self, mut message: Message, zone: &Name) -> Result<Message, Error> {
        let verifier = self.sign(&mut message)?;
        let bytes = message.to_vec().map_err(|error| self.untrusted(&error))?;
        let answer = self.transmit(&bytes).await.map_err(|error| self.unreachable(error))?;
        let read = Message::from_vec(&answer).map_err(|error| self.untrusted(&error))?;
        if read.id != message.id || read.op_code != message.op_code || read.message_type != MessageType::Response {
            return Err(self.untrusted(&"it is none to our question"));
        }
        // What the server says against the key is not signed (RFC 8945 section 5.3.2); nor need
        // any other refusal be, as nothing is done upon it.
        self.refusal(&read, zone)?;
        if let Some(mut verifier) = verifier {
            verifier.verify(&answer).map_err(|error| self.untrusted(&error))?;
        }
        Ok(read)
    }

    fn sign(&self, message: &mut Message) -> Result<Option<TSigVerifier>, Error> {
        let Some(key) = &self.target.key else { return Ok(None) };
        let now = self.publisher.clock.now().as_millis() / 1_000;
        message.finalize(&key.signer, now).map_err(|error| self.untrusted(&error))
    }

    /// RFC 1035 section 4.2.2: each message follows its length.
    async fn transmit(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        let length = u16::try_from(message.len()).map_err(|_| io::Error::other("more than a DNS message can hold"))?;
        self.stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
        self.stream.flush().await?;
        let length = self.stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        self.stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    fn refusal(&self, answer: &Message, zone: &Name) -> Result<(), Error> {
        let server = self.target.server;
        let key = || self.target.key.as_ref().map_or_else(String::new, |key| key.name().to_owned());
        let zone = || sanitize_text(zone.to_ascii(), SHOWN);
        match answer.signature.as_ref().and_then(|signature| signature.data.error) {
            Some(TsigError::BadKey) => return Err(Error::BadKey { server, key: key() }),
            Some(TsigError::BadSig | TsigError::BadTrunc) => return Err(Error::BadSignature { server, key: key() }),
            Some(TsigError::BadTime) => return Err(Error::BadTime { server }),
            _ => {}
        }
        match answer.response_code {
            ResponseCode::NoError => Ok(()),
            // To a question it is an answer; an update about names below a zone never gets it.
            ResponseCode::NXDomain if answer.op_code == OpCode::Query => Ok(()),
            // A server says so of a zone that it does not know, too.
            ResponseCode::Refused if answer.op_code == OpCode::Query => Err(Error::WrongZone { server, zone: zone() }),
            ResponseCode::Refused => Err(Error::Refused { server }),
            ResponseCode::NotAuth => Err(Error::NotAuthorized { server, zone: zone() }),
            ResponseCode::NotZone => Err(Error::WrongZone { server, zone: zone() }),
            ResponseCode::YXRRSet | ResponseCode::YXDomain => Err(Error::Changed { zone: zone() }),
            code => Err(Error::Failed { server, code: sanitize_text(code.to_str(), SHOWN) }),
        }
    }

    fn unreachable(&self, error: io::Error) -> Error {
        Error::Unreachable { server: self.target.server, error }
    }

    fn untrusted(&self, reason: &dyn Display) -> Error {
        Error::Untrusted { server: self.target.server, reason: sanitize_text(reason.to_string(), SHOWN) }
    }
}
