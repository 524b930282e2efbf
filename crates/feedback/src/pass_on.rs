//! Mail that arrived and goes on to somebody: inside of a message of the relay's own, so that
//! it is signed and aligned, never bounces, and starts no loop.

use std::borrow::Cow;
use std::fmt::Write as _;

use postrider_mail::{AccountId, EmailAddress, HeaderBlock, MessageId, sanitize_text};
use postrider_submission::{OriginKind, OwnMessage, Refusal, Submission};

use crate::report::PASSED_ON;

/// Bytes of a subject.
const MAX_SUBJECT: usize = 200;

/// A message that goes on.
pub(crate) struct PassedOn<'a> {
    /// Its id.
    pub(crate) id: MessageId,
    /// Whose account it belongs to.
    pub(crate) account: AccountId,
    /// To whom.
    pub(crate) to: &'a EmailAddress,
    /// Why.
    pub(crate) kind: OriginKind,
    /// What it is, for people: one line of ASCII.
    pub(crate) why: &'a str,
    /// What arrived.
    pub(crate) message: &'a [u8],
    /// Who it is from, as far as was verified: a whole header field.
    pub(crate) verified: &'a str,
    /// Longest message that goes on with its body.
    pub(crate) max_bytes: u64,
    /// It came with the wish that it goes on with TLS alone (RFC 8689).
    pub(crate) require_tls: bool,
    /// What divides the parts.
    pub(crate) boundary: u128,
}

impl PassedOn<'_> {
    /// Queues it. When this returns `Ok`, it is on disk.
    pub(crate) async fn send(&self, submission: &Submission) -> Result<MessageId, Refusal> {
        let own = OwnMessage {
            id: self.id,
            account: self.account,
            to: self.to.clone(),
            kind: self.kind,
            require_tls: self.require_tls,
            content: self.compose(submission),
        };
        submission.send(own).await
    }

    fn compose(&self, submission: &Submission) -> Vec<u8> {
        let id = self.id;
        let settings = submission.settings();
        let boundary = format!("postrider-{:032x}", self.boundary);
        let (media, arrived) = self.arrived();
        let encoding = if arrived.is_ascii() { "7bit" } else { "8bit" };
        let mut head = format!(
            "Date: {}\r\nFrom: Mail Delivery System <MAILER-DAEMON@{}>\r\nTo: <{}>\r\nSubject: {}\r\n\
             Message-ID: <{id}@{}>\r\nAuto-Submitted: auto-generated\r\n{PASSED_ON}: {}\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n",
            id.timestamp().rfc5322(),
            settings.operator_domain(),
            self.to,
            self.subject(),
            submission.message_id_domain(),
            settings.hostname(),
        );
        let _ = write!(
            head,
            "--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{}\r\n\r\n\
             --{boundary}\r\nContent-Type: {media}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{}",
            self.why, self.verified,
        );
        let mut message = head.into_bytes();
        message.extend_from_slice(&arrived);
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        message
    }

    /// The subject of what arrived; encoded words stay what they are.
    fn subject(&self) -> String {
        let header = HeaderBlock::parse(self.message).ok();
        let subject = header.and_then(|header| Some(header.find("Subject")?.value().into_owned()));
        let line = sanitize_text(subject.as_deref().unwrap_or("(no subject)").trim(), MAX_SUBJECT);
        line.chars().map(|char| if char.is_ascii() { char } else { '?' }).collect()
    }

    /// What arrived, or its header where that is too long; the media type.
    fn arrived(&self) -> (&'static str, Cow<'_, [u8]>) {
        if self.message.len() as u64 <= self.max_bytes {
            return ("message/rfc822", Cow::Borrowed(self.message));
        }
        let length = HeaderBlock::parse(self.message).map_or(0, |header| header.len());
        ("text/rfc822-headers", Cow::Borrowed(&self.message[..length]))
    }
}
