//! One mail transaction, from MAIL to the end of its content.

use bytes::Bytes;
use postrider_mail::{Envelope, Recipient, SmtpReply};

use crate::wire::{ChunkDecoder, HoldUntil, MailRequest};

/// A message that arrived whole, with its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedMessage {
    /// Sender and recipients, as accepted.
    pub envelope: Envelope,
    /// The content: with BODY=BINARYMIME exactly what was sent, else text with
    /// CRLF line ends, dots unstuffed. Buffers as they were read, without a
    /// copy where nothing had to change.
    pub content: Vec<Bytes>,
    /// HOLDFOR or HOLDUNTIL: when it may go on (RFC 4865).
    pub hold: Option<HoldUntil>,
}

/// The transaction so far.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) envelope: Envelope,
    pub(super) hold: Option<HoldUntil>,
    /// Recipients beyond the limit, which were accepted to refuse the message later.
    pub(super) excess: usize,
    /// RCPT commands beyond the limit, whatever the answer was.
    pub(super) overshoot: u32,
    /// There between the chunks of a message, from the first BDAT on.
    pub(super) chunks: Option<Box<ChunkDecoder>>,
    /// What its content is answered with, as nothing more of it is kept.
    pub(super) refusal: Option<Box<SmtpReply>>,
}

impl Transaction {
    pub(super) fn new(request: MailRequest) -> Transaction {
        let MailRequest { sender, size: _, body, smtp_utf8, ret, envid, require_tls, hold } = request;
        let envelope = Envelope { sender, recipients: Vec::new(), body, smtp_utf8, ret, envid, require_tls };
        Transaction { envelope, hold, excess: 0, overshoot: 0, chunks: None, refusal: None }
    }

    pub(super) fn add(&mut self, recipient: Recipient) {
        self.envelope.recipients.push(recipient);
    }
}
