//! One mail transaction, and what became of it.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};
use postrider_mail::{BodyType, Envelope, Recipient, SmtpReply, Stage};

use super::Features;
use crate::wire::{encode_utf8_address, encode_xtext};

/// A message to be handed to the remote host.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Sender and the recipients of this transaction.
    pub envelope: Envelope,
    /// The content with CRLF line ends, dots not stuffed; with
    /// [`BodyType::BinaryMime`] any octets.
    pub content: Vec<Bytes>,
}

/// Asked about each recipient immediately before its RCPT is encoded; nothing
/// can happen in between. A recipient that is not admitted is never named to
/// the remote host.
pub trait Gate {
    /// Whether the recipient at this position of the transaction may be named.
    fn admit(&mut self, position: usize, recipient: &Recipient) -> bool;
}

impl<F: FnMut(usize, &Recipient) -> bool> Gate for F {
    fn admit(&mut self, position: usize, recipient: &Recipient) -> bool {
        self(position, recipient)
    }
}

/// What became of a transaction: one result for each recipient, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct TransactionResult {
    /// As many as the transaction had recipients.
    pub recipients: Vec<RecipientResult>,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq)]
pub enum RecipientResult {
    /// The gate did not admit it: the remote host was never told of it.
    Vetoed,
    /// The remote host can not take this message: it was never told of it.
    Refused(LocalRefusal),
    /// The reply that decided. Positive at [`Stage::EndOfData`] is a delivery.
    Replied {
        /// The command that it answered.
        stage: Stage,
        /// The reply.
        reply: SmtpReply,
    },
    /// The connection ended before there was a reply that counts. At
    /// [`Stage::EndOfData`] the message may have been delivered (RFC 1047).
    Lost {
        /// What was waited for.
        stage: Stage,
    },
}

/// Why a message can not go to this host, by what it announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalRefusal {
    /// The message is larger than the host takes (RFC 1870 section 6).
    TooLarge {
        /// What it takes, in octets.
        limit: u64,
    },
    /// The message needs SMTPUTF8 (RFC 6531 section 3.2).
    SmtpUtf8NotOffered,
    /// The message needs REQUIRETLS, or is not inside TLS (RFC 8689 section 4.2.1).
    RequireTlsNotOffered,
    /// The message is BODY=BINARYMIME, which needs BINARYMIME and CHUNKING
    /// (RFC 3030 section 3).
    BinaryMimeNotOffered,
}

impl Transaction {
    /// Octets of the content.
    pub fn size(&self) -> u64 {
        self.content.iter().map(|chunk| chunk.len() as u64).sum()
    }

    pub(super) fn refusal(&self, features: &Features, tls: bool) -> Option<LocalRefusal> {
        if let Some(limit) = features.max_size.filter(|limit| self.size() > *limit) {
            return Some(LocalRefusal::TooLarge { limit });
        }
        if self.needs_utf8() && !features.smtp_utf8 {
            return Some(LocalRefusal::SmtpUtf8NotOffered);
        }
        if self.is_binary() && !(features.binary_mime && features.chunking) {
            return Some(LocalRefusal::BinaryMimeNotOffered);
        }
        let promised = tls && features.require_tls;
        (self.envelope.require_tls && !promised).then_some(LocalRefusal::RequireTlsNotOffered)
    }

    /// Its content can only go by BDAT.
    pub(super) fn is_binary(&self) -> bool {
        self.envelope.body == BodyType::BinaryMime
    }

    fn needs_utf8(&self) -> bool {
        let Envelope { sender, recipients, smtp_utf8, .. } = &self.envelope;
        *smtp_utf8
            || sender.as_ref().is_some_and(|sender| !sender.is_ascii())
            || recipients.iter().any(|recipient| !recipient.address.is_ascii())
    }

    /// With the size of its content, which may have gone out by now.
    pub(super) fn write_mail(&self, size: u64, features: &Features, output: &mut BytesMut) {
        let envelope = &self.envelope;
        let sender = envelope.sender.as_ref().map_or("", |sender| sender.as_str());
        // Writing to a BytesMut can not fail, here and below.
        let _ = write!(output, "MAIL FROM:<{sender}>");
        if features.size {
            let _ = write!(output, " SIZE={size}");
        }
        if self.is_binary() || features.eight_bit_mime && envelope.body == BodyType::EightBitMime {
            let _ = write!(output, " BODY={}", envelope.body.as_str());
        }
        if self.needs_utf8() {
            output.extend_from_slice(b" SMTPUTF8");
        }
        if envelope.require_tls {
            output.extend_from_slice(b" REQUIRETLS");
        }
        if features.dsn {
            if let Some(ret) = envelope.ret {
                let _ = write!(output, " RET={}", ret.as_str());
            }
            if let Some(envid) = &envelope.envid {
                let _ = write!(output, " ENVID={}", encode_xtext(envid));
            }
        }
        output.extend_from_slice(b"\r\n");
    }

    pub(super) fn write_rcpt(recipient: &Recipient, features: &Features, output: &mut BytesMut) {
        let _ = write!(output, "RCPT TO:<{}>", recipient.address);
        if features.dsn {
            if recipient.notify.is_given() {
                let _ = write!(output, " NOTIFY={}", recipient.notify);
            }
            if let Some((kind, address)) = recipient.orcpt.as_ref().and_then(|orcpt| orcpt.split_once(';')) {
                // RFC 6533 section 3: this type has an encoding of its own.
                let utf8 = kind.eq_ignore_ascii_case("utf-8");
                let address = if utf8 { encode_utf8_address(address) } else { encode_xtext(address) };
                let _ = write!(output, " ORCPT={};{address}", encode_xtext(kind));
            }
        }
        output.extend_from_slice(b"\r\n");
    }
}
