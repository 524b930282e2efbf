//! What was said, in short, for those who ask afterwards why a message was not
//! taken. Most of it is forgotten unread: taking it down copies a few hundred
//! bytes into room that is used again and again.

use std::fmt::Write;
use std::time::Duration;

use bytes::BytesMut;
use postrider_mail::{Exchange, HostRecord, Severity, SmtpReply};

use super::conversation::Conversation;
use super::exchange::Running;
use super::expected::Expected;
use super::transaction::Transaction;
use super::{ClientConfig, Features, Protocol};

impl Conversation {
    /// Says how long the connection has been open, so that it is known how long
    /// replies take.
    pub fn tick(&mut self, open_for: Duration) {
        self.transcript.tick(open_for);
    }

    /// What was said since [`Conversation::forget`], in order and in short, and
    /// how many exchanges are left out. Secrets and content are never in it.
    pub fn exchanges(&self) -> (Vec<Exchange>, u16) {
        self.transcript.exchanges()
    }

    /// Forgets what was said: what comes is about another message.
    pub fn forget(&mut self) {
        self.transcript.forget();
    }

    /// Writes down what was said, for [`Conversation::exchanges`].
    pub(super) fn take_down(&mut self, expected: Option<Expected>, reply: Option<&SmtpReply>) {
        let subject = self.running.as_ref().map(Running::subject);
        let words = Words { config: &self.config, features: &self.features, subject };
        self.transcript.heard(expected, reply, &words);
    }
}

/// Exchanges, the first of which are kept, and among those about recipients
/// those that went wrong.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    text: BytesMut,
    exchanges: Vec<Said>,
    omitted: u16,
    /// The driver's time, and when the last reply came or the last command went out.
    now: Duration,
    since: Duration,
}

/// Where in the text a command and its reply end.
#[derive(Clone, Copy, Debug)]
struct Said {
    command: usize,
    reply: usize,
    ms: u32,
}

/// Text up to which recipients are written down: who was taken, and who was not.
/// What follows has the rest.
const TAKEN_TEXT: usize = 1_536;
const REFUSED_TEXT: usize = 3_072;
const MAX_TEXT: usize = 4_096;
/// Exchanges up to which they are.
const TAKEN: usize = HostRecord::MAX_EXCHANGES - 20;
const REFUSED: usize = HostRecord::MAX_EXCHANGES - 8;
/// Most bytes of a reply that asks for no attention.
const MAX_PRAISE: usize = 256;

/// What a conversation knows that commands are written from.
struct Words<'a> {
    config: &'a ClientConfig,
    features: &'a Features,
    /// The transaction under way, and the octets of its content.
    subject: Option<(&'a Transaction, u64)>,
}

impl Transcript {
    fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    /// Commands go out: the reply to them is waited for from now on.
    pub(super) fn sent(&mut self) {
        self.since = self.now;
    }

    /// A reply came to what was expected, to nothing, or none will.
    fn heard(&mut self, expected: Option<Expected>, reply: Option<&SmtpReply>, words: &Words<'_>) {
        let ms = u32::try_from(self.now.saturating_sub(self.since).as_millis()).unwrap_or(u32::MAX);
        self.since = self.now;
        let is_praise =
            reply.is_some_and(|reply| matches!(reply.severity(), Severity::Positive | Severity::Intermediate));
        let (most, room) = match expected {
            Some(Expected::Rcpt(_)) if is_praise => (TAKEN, TAKEN_TEXT),
            Some(Expected::Rcpt(_)) => (REFUSED, REFUSED_TEXT),
            _ => (HostRecord::MAX_EXCHANGES, MAX_TEXT),
        };
        if self.exchanges.len() >= most || self.text.len() >= room {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        let start = self.text.len();
        write_command(expected, words, &mut self.text);
        cut(&mut self.text, start + Exchange::MAX_COMMAND);
        let command = self.text.len();
        if let Some(reply) = reply {
            // Writing to a BytesMut can not fail.
            let _ = write!(self.text, "{reply}");
        }
        cut(&mut self.text, command + if is_praise { MAX_PRAISE } else { Exchange::MAX_REPLY });
        self.exchanges.push(Said { command, reply: self.text.len(), ms });
    }

    fn forget(&mut self) {
        self.text.clear();
        self.exchanges.clear();
        self.omitted = 0;
    }

    fn exchanges(&self) -> (Vec<Exchange>, u16) {
        let mut start = 0;
        let exchange = |said: &Said| {
            let exchange =
                Exchange::new(&self.text[start..said.command], &self.text[said.command..said.reply], said.ms);
            start = said.reply;
            exchange
        };
        (self.exchanges.iter().map(exchange).collect(), self.omitted)
    }
}

/// The command that a reply is to; never a secret.
fn write_command(expected: Option<Expected>, words: &Words<'_>, out: &mut BytesMut) {
    let hello = &words.config.hello;
    let text = match expected {
        Some(Expected::Ehlo) if words.config.protocol == Protocol::Lmtp => &format!("LHLO {hello}"),
        Some(Expected::Ehlo) => &format!("EHLO {hello}"),
        Some(Expected::Helo) => &format!("HELO {hello}"),
        Some(Expected::Banner) => "",
        Some(Expected::StartTls) => "STARTTLS",
        Some(Expected::AuthPlain) => "AUTH PLAIN (secret)",
        Some(Expected::AuthLogin(0)) => "AUTH LOGIN",
        Some(Expected::AuthLogin(1)) => "(user name)",
        Some(Expected::AuthLogin(_)) => "(password)",
        Some(Expected::Data) => "DATA",
        Some(Expected::LoneDot) => "(no content)",
        Some(Expected::Reset) => "RSET",
        Some(Expected::Quit) => "QUIT",
        None => "(unasked)",
        Some(Expected::Mail | Expected::Rcpt(_) | Expected::End | Expected::EndOf(_)) => {
            words.subject.into_iter().for_each(|subject| write_step(expected, subject, words.features, out));
            return;
        }
    };
    out.extend_from_slice(text.as_bytes());
}

/// A step of a transaction.
fn write_step(
    expected: Option<Expected>,
    (transaction, size): (&Transaction, u64),
    features: &Features,
    out: &mut BytesMut,
) {
    let recipient = |position: usize| transaction.envelope.recipients.get(position);
    // Writing to a BytesMut can not fail.
    match expected {
        Some(Expected::Mail) => transaction.write_mail(size, features, out),
        Some(Expected::Rcpt(position)) => {
            recipient(position).into_iter().for_each(|recipient| Transaction::write_rcpt(recipient, features, out));
        }
        Some(Expected::EndOf(position)) => {
            let _ = recipient(position)
                .map(|recipient| write!(out, "({size} octets of content, for {})", recipient.address));
        }
        _ => drop(write!(out, "({size} octets of content)")),
    }
    // Commands are written with their line end.
    if out.ends_with(b"\r\n") {
        out.truncate(out.len() - 2);
    }
}

/// Cuts UTF-8 between characters.
fn cut(text: &mut BytesMut, end: usize) {
    if text.len() > end {
        let is_inside = |at: &usize| text[*at] & 0xc0 == 0x80;
        let end = (0..=end).rev().find(|at| !is_inside(at)).unwrap_or(0);
        text.truncate(end);
    }
}
