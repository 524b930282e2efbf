//! One mail transaction, from MAIL to the end of its content.

use bytes::Bytes;
use postrider_mail::{Envelope, Recipient};

use crate::wire::{HoldUntil, MailRequest};

/// A message that arrived whole, with its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedMessage {
    /// Sender and recipients, as accepted.
    pub envelope: Envelope,
    /// The content with CRLF line ends, dots unstuffed; buffers as they were
    /// read, without a copy where nothing had to change.
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
}

impl Transaction {
    pub(super) fn new(request: MailRequest) -> Transaction {
        let MailRequest { sender, size: _, body, smtp_utf8, ret, envid, require_tls, hold } = request;
        let envelope = Envelope { sender, recipients: Vec::new(), body, smtp_utf8, ret, envid, require_tls };
        Transaction { envelope, hold, excess: 0 }
    }

    pub(super) fn add(&mut self, recipient: Recipient) {
        self.envelope.recipients.push(recipient);
    }
}
