//! From DATA or BDAT to the message.

use bytes::{Bytes, BytesMut};
use postrider_mail::{BodyType, EnhancedStatus, SmtpReply};

use super::replies::{self, Canned};
use super::session::{Answer, Event, Phase, Session};
use super::transaction::ReceivedMessage;
use crate::wire::{ChunkDecoder, ContentFault, DataDecoder, DataProgress};

/// A chunk of fewer octets, unless it is the last, does not help to send mail:
/// a message in crumbs costs more in commands than it brings.
const SMALL_CHUNK: u64 = 1024;

/// A chunk that is being read.
#[derive(Debug)]
pub(super) struct Chunk {
    decoder: Box<ChunkDecoder>,
    size: u64,
    last: bool,
    /// BDAT had no place here: what is said when its octets are gone.
    misplaced: Option<Canned>,
}

/// DATA.
impl Session {
    pub(super) fn data(&mut self) -> Option<Event> {
        let refusal = match (self.locked(), &self.transaction) {
            (Some(reply), _) => reply,
            // RFC 3030 section 2, and section 3 for what is binary.
            (None, Some(transaction)) if transaction.chunks.is_some() => replies::DATA_AFTER_BDAT,
            (None, Some(transaction)) if transaction.envelope.body == BodyType::BinaryMime => replies::BINARY_BY_DATA,
            (None, Some(transaction)) if transaction.excess > 0 => {
                self.begin_content(DataDecoder::discarding(ContentFault::TooLong));
                return None;
            }
            (None, Some(transaction)) if !transaction.envelope.recipients.is_empty() => {
                return self.ask(Event::MessageBegin, Answer::Data);
            }
            (None, _) => replies::NEED_RCPT,
        };
        self.error(refusal)
    }

    /// The driver takes the message.
    pub(super) fn go_ahead(&mut self) {
        let limit = self.profile.limits.max_message_bytes;
        self.begin_content(DataDecoder::new(limit, self.profile.bare_line_feed));
    }

    fn begin_content(&mut self, decoder: DataDecoder) {
        self.phase = Phase::Content(Box::new(decoder));
        self.say(replies::GO_AHEAD);
    }

    pub(super) fn read_content(&mut self, input: &mut BytesMut) -> Option<Event> {
        let Phase::Content(decoder) = &mut self.phase else { return None };
        let before = input.len();
        let progress = decoder.decode(input);
        if let Some(transcript) = &mut self.transcript {
            transcript.content((before - input.len()) as u64);
        }
        match progress {
            DataProgress::More => Some(Event::NeedInput),
            DataProgress::Done(content) => {
                self.phase = Phase::Commands;
                self.end_of_content(content)
            }
        }
    }
}

/// BDAT (RFC 3030 section 2). Whatever is wrong, the chunk's octets are read
/// before that is said: they must never be taken for commands.
impl Session {
    pub(super) fn bdat(&mut self, size: u64, last: bool) -> Option<Event> {
        let misplaced = match (self.locked(), &self.transaction) {
            (Some(reply), _) => Some(reply),
            (None, _) if !self.profile.extensions.chunking => Some(replies::NOT_IMPLEMENTED),
            (None, Some(transaction)) if transaction.chunks.is_some() || transaction.excess > 0 => None,
            (None, Some(transaction)) if !transaction.envelope.recipients.is_empty() => {
                return self.ask(Event::MessageBegin, Answer::Bdat { size, last });
            }
            (None, _) => Some(replies::NEED_RCPT),
        };
        self.begin_chunk(size, last, misplaced);
        None
    }

    /// The driver takes the message whose first chunk this is.
    pub(super) fn take_chunks(&mut self, size: u64, last: bool) {
        let limit = self.profile.limits.max_message_bytes;
        if let Some(transaction) = &mut self.transaction {
            let decoder = match transaction.envelope.body {
                BodyType::BinaryMime => ChunkDecoder::binary(limit),
                _ => ChunkDecoder::text(limit, self.profile.bare_line_feed),
            };
            transaction.chunks = Some(Box::new(decoder));
        }
        self.begin_chunk(size, last, None);
    }

    /// The driver does not take the message whose first chunk this is.
    pub(super) fn refuse_chunks(&mut self, size: u64, last: bool, reply: &SmtpReply) {
        if let Some(transaction) = &mut self.transaction {
            transaction.refusal = Some(Box::new(reply.clone()));
        }
        self.begin_chunk(size, last, None);
    }

    fn begin_chunk(&mut self, size: u64, last: bool, misplaced: Option<Canned>) {
        let begun = self.transaction.as_mut().and_then(|transaction| transaction.chunks.take());
        let mut decoder = begun.unwrap_or_else(|| Box::new(ChunkDecoder::discarding(ContentFault::TooLong)));
        decoder.begin(size);
        self.phase = Phase::Chunk(Chunk { decoder, size, last, misplaced });
    }

    pub(super) fn read_chunk(&mut self, input: &mut BytesMut) -> Option<Event> {
        let Phase::Chunk(chunk) = &mut self.phase else { return None };
        if !chunk.decoder.decode(input) {
            return Some(Event::NeedInput);
        }
        let Phase::Chunk(chunk) = std::mem::replace(&mut self.phase, Phase::Commands) else { return None };
        if let Some(transcript) = &mut self.transcript {
            transcript.content(chunk.size);
        }
        self.end_of_chunk(chunk)
    }

    fn end_of_chunk(&mut self, mut chunk: Chunk) -> Option<Event> {
        match chunk.misplaced {
            Some(reply) => self.lose_chunk(reply, chunk.last),
            None if chunk.last => self.end_of_content(chunk.decoder.finish()),
            None => self.keep_chunk(chunk),
        }
    }

    /// What is lost here must not be missing in the middle of a message.
    fn lose_chunk(&mut self, reply: Canned, last: bool) -> Option<Event> {
        self.transaction.take_if(|_| last);
        if let Some(transaction) = &mut self.transaction {
            transaction.chunks = Some(Box::new(ChunkDecoder::discarding(ContentFault::TooLong)));
            transaction.refusal = Some(Box::new(reply.into()));
        }
        self.error(reply)
    }

    fn keep_chunk(&mut self, chunk: Chunk) -> Option<Event> {
        let transaction = self.transaction.as_mut()?;
        let fault = chunk.decoder.fault();
        transaction.chunks = Some(chunk.decoder);
        let excess = transaction.excess > 0;
        let refusal = transaction.refusal.clone();
        if chunk.size < SMALL_CHUNK && self.count_idle() {
            return None;
        }
        match (refusal, fault) {
            (Some(reply), _) => self.say_reply(&reply),
            (None, Some(fault)) if !excess => self.say(replies::content_fault(fault)),
            _ => self.say_as(250, EnhancedStatus::new(2, 0, 0), &format_args!("Ok: {} bytes", chunk.size)),
        }
        None
    }
}

/// Both.
impl Session {
    /// Octets kept so far of the content that is being received; between the
    /// chunks of a message too. 0 where there is none.
    pub fn content_octets(&self) -> u64 {
        match (&self.phase, &self.transaction) {
            (Phase::Content(decoder), _) => decoder.kept(),
            (Phase::Chunk(chunk), _) => chunk.decoder.kept(),
            (_, Some(transaction)) => transaction.chunks.as_ref().map_or(0, |decoder| decoder.kept()),
            (_, None) => 0,
        }
    }

    /// Keeps nothing more of the message that is being received. `reply`, a
    /// negative one, is said at its end, or after each of its chunks that is
    /// still to come. Without such a message nothing happens.
    pub fn discard_content(&mut self, reply: SmtpReply) {
        let Some(transaction) = &mut self.transaction else { return };
        match (&mut self.phase, &mut transaction.chunks) {
            (Phase::Content(decoder), _) => decoder.discard(ContentFault::TooLong),
            (Phase::Chunk(chunk), _) => chunk.decoder.discard(ContentFault::TooLong),
            (_, Some(decoder)) => decoder.discard(ContentFault::TooLong),
            (_, None) => return,
        }
        transaction.refusal.get_or_insert(Box::new(reply));
    }

    fn end_of_content(&mut self, content: Result<Vec<Bytes>, ContentFault>) -> Option<Event> {
        let transaction = self.transaction.take()?;
        if let Some(reply) = transaction.refusal {
            self.say_reply(&reply);
            return None;
        }
        if transaction.excess > 0 {
            let limit = self.profile.limits.max_recipients;
            let text = format_args!("Transaction failed: Recipient count exceeds {limit}.");
            self.say_as(554, EnhancedStatus::new(5, 5, 3), &text);
            return None;
        }
        match content {
            Ok(content) => {
                let message = ReceivedMessage { envelope: transaction.envelope, content, hold: transaction.hold };
                self.ask(Event::Message(message), Answer::Message)
            }
            Err(fault) => self.refuse(replies::content_fault(fault)),
        }
    }
}
