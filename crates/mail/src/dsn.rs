//! Delivery status notifications: what the sender of a message is told about
//! it (RFC 3464 in a `multipart/report`, RFC 6522).
//!
//! The first part is for the reader, the second for programs, the third is the
//! original's header or the original itself.

mod lines;

use std::fmt::Write as _;

use bytes::Bytes;
use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

use self::lines::{field, indented, paragraph, value};
use crate::{
    EmailAddress, EnhancedStatus, HeaderBlock, MessageId, Remote, Ret, header_of, quoted_printable, sanitize_text,
};

/// Most that is returned of an original's header.
const MAX_RETURNED_HEADER: usize = 64 * 1024;

/// What happened to the recipients that a notification names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Failed for good.
    Failed,
    /// Late, and still tried.
    Delayed,
    /// Delivered into the mailbox.
    Delivered,
    /// Given to a host that does not send notifications of its own (RFC 3461
    /// section 5.2.2).
    Relayed,
}

impl Action {
    /// The value of the `Action` field (RFC 3464 section 2.3.3).
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Action::Failed => "Delivery Status Notification (Failure)",
            Action::Delayed => "Delivery Status Notification (Delay)",
            Action::Delivered => "Delivery Status Notification (Success)",
            Action::Relayed => "Delivery Status Notification (Relayed)",
        }
    }

    /// What it means, in words for someone who only wrote a letter.
    fn explanation(self) -> &'static str {
        match self {
            Action::Failed => {
                "Your message could not be delivered to the people below. \
                               It will not be tried again."
            }
            Action::Delayed => {
                "Your message has not reached the people below yet. \
                                It is tried again from time to time; you need not send it again."
            }
            Action::Delivered => "Your message was delivered to the people below.",
            Action::Relayed => {
                "Your message was passed on to the mail servers of the people below. \
                                They may not tell you whether it arrives."
            }
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Action::Failed => {
                "Please check the addresses for mistakes. If they are right, \
                               send what the other mail server said to whoever looks after \
                               your mail, or ask the recipient."
            }
            Action::Delayed | Action::Delivered | Action::Relayed => "",
        }
    }
}

/// What a notification says of a message. Texts may come from the network: whatever
/// could end a line is replaced, and long values are cut.
#[derive(Clone, Debug)]
pub struct DsnRequest<'a> {
    /// What happened, the same for all `recipients`.
    pub action: Action,
    /// The original's envelope sender.
    pub to: &'a EmailAddress,
    /// The original's id.
    pub id: MessageId,
    /// When the original was accepted.
    pub arrival: Timestamp,
    /// When trying ends; shown for [`Action::Delayed`].
    pub retry_until: Option<Timestamp>,
    /// The original's `ENVID`, decoded.
    pub envid: Option<&'a str>,
    /// Whom it is about; at least one.
    pub recipients: &'a [DsnRecipient<'a>],
    /// The original's content.
    pub original: &'a [Bytes],
    /// How much of the content to return: all of it only for
    /// [`Action::Failed`] (RFC 3461 section 4.3).
    pub ret: Ret,
}

/// What a notification says of itself.
#[derive(Clone, Debug)]
pub struct DsnWriter<'a> {
    /// Our host name.
    pub reporting_mta: &'a str,
    /// Shown in the From field. The envelope sender of a notification is `<>`.
    pub from: &'a EmailAddress,
    /// The notification's own Message-ID, without angle brackets.
    pub message_id: &'a str,
    /// Now.
    pub date: Timestamp,
    /// Random bits that make the MIME boundary.
    pub boundary: u128,
}

/// What a notification says about one recipient.
#[derive(Clone, Copy, Debug)]
pub struct DsnRecipient<'a> {
    /// The address as it was given to us.
    pub address: &'a EmailAddress,
    /// The original's `ORCPT`, decoded: `rfc822;user@example.com`.
    pub orcpt: Option<&'a str>,
    /// The status code.
    pub status: EnhancedStatus,
    /// The remote's last reply or our own words: `550 5.1.1 user unknown`.
    pub diagnostic: &'a str,
    /// The host that spoke.
    pub remote: Option<&'a Remote>,
    /// When it was tried last.
    pub at: Timestamp,
}

/// The whole notification, header and body, with CRLF line ends.
///
/// It is ASCII, so that every host can take it, but for two things: the address of its own
/// recipient, which needs SMTPUTF8 anyway, and an original that is returned whole, which nothing
/// may encode (RFC 2046 section 5.2.1).
pub fn build(writer: &DsnWriter<'_>, request: &DsnRequest<'_>) -> Vec<u8> {
    let header = header_of(request.original, MAX_RETURNED_HEADER);
    let boundary = format!("postrider-{:032x}", writer.boundary);
    let mut head = String::with_capacity(2048);
    write_header(&mut head, writer, request, &boundary);
    write_explanation(&mut head, request, &boundary, &header);
    write_status(&mut head, writer, request, &boundary);

    let mut message = head.into_bytes();
    write_original(&mut message, request, &boundary, &header);
    message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    message
}

fn write_header(out: &mut String, writer: &DsnWriter<'_>, request: &DsnRequest<'_>, boundary: &str) {
    field(out, "Date", &writer.date.rfc5322());
    field(out, "From", &format!("Mail Delivery System <{}>", writer.from));
    field(out, "To", &format!("<{}>", request.to));
    field(out, "Subject", request.action.subject());
    field(out, "Message-ID", &format!("<{}>", writer.message_id));
    // RFC 3834 section 5; keeps vacation robots quiet.
    field(out, "Auto-Submitted", "auto-replied");
    field(out, "MIME-Version", "1.0");
    out.push_str("Content-Type: multipart/report; report-type=delivery-status;\r\n");
    let _ = write!(out, " boundary=\"{boundary}\"\r\n\r\n");
}

fn write_explanation(out: &mut String, request: &DsnRequest<'_>, boundary: &str, header: &[u8]) {
    let text = explanation(request, header);
    let _ = write!(out, "--{boundary}\r\n");
    field(out, "Content-Type", "text/plain; charset=utf-8");
    field(out, "Content-Description", "Notification");
    put_encoded(out, text.as_bytes());
}

/// Ends the header of a part and puts its content behind, in seven bits.
fn put_encoded(out: &mut String, content: &[u8]) {
    if content.is_ascii() {
        out.push_str("\r\n");
        out.extend(content.iter().copied().map(char::from));
    } else {
        out.push_str("Content-Transfer-Encoding: quoted-printable\r\n\r\n");
        out.push_str(&quoted_printable(content));
    }
}

fn explanation(request: &DsnRequest<'_>, header: &[u8]) -> String {
    let mut text = String::with_capacity(1024);
    let out = &mut text;
    paragraph(out, request.action.explanation());
    for recipient in request.recipients {
        let _ = write!(out, "\r\n  {}\r\n", recipient.address);
        match recipient.remote {
            // Not always its own words: it may not have spoken at all.
            Some(remote) => indented(out, &format!("Reason ({} was tried last):", value(&remote.host))),
            None => indented(out, "Reason:"),
        }
        indented(out, &value(recipient.diagnostic));
    }
    if let (Action::Delayed, Some(until)) = (request.action, request.retry_until) {
        out.push_str("\r\n");
        paragraph(out, &format!("Trying ends on {}.", until.rfc5322()));
    }
    if !request.action.advice().is_empty() {
        out.push_str("\r\n");
        paragraph(out, request.action.advice());
    }
    out.push_str("\r\n");
    if let Some(subject) = plain_subject(header) {
        let _ = write!(out, "Subject of your message: {subject}\r\n");
    }
    let _ = write!(out, "Accepted: {}\r\n", request.arrival.rfc5322());
    let _ = write!(out, "Message id: {}\r\n\r\n", request.id);
    text
}

/// The machine's part (RFC 3464 section 2). With an international address it
/// takes the media type of RFC 6533 section 4, which may be encoded.
fn write_status(out: &mut String, writer: &DsnWriter<'_>, request: &DsnRequest<'_>, boundary: &str) {
    let ascii = request
        .recipients
        .iter()
        .all(|recipient| recipient.address.is_ascii() && recipient.orcpt.is_none_or(str::is_ascii))
        && request.envid.is_none_or(str::is_ascii);
    let _ = write!(out, "--{boundary}\r\n");
    let media_type = if ascii { "message/delivery-status" } else { "message/global-delivery-status" };
    field(out, "Content-Type", media_type);
    field(out, "Content-Description", "Delivery report");
    put_encoded(out, status(writer, request, ascii).as_bytes());
}

fn status(writer: &DsnWriter<'_>, request: &DsnRequest<'_>, ascii: bool) -> String {
    let mut text = String::with_capacity(512);
    let out = &mut text;
    if let Some(envid) = request.envid {
        field(out, "Original-Envelope-Id", envid);
    }
    field(out, "Reporting-MTA", &format!("dns; {}", writer.reporting_mta));
    field(out, "X-Postrider-Message-Id", &request.id.to_string());
    field(out, "Arrival-Date", &request.arrival.rfc5322());
    for recipient in request.recipients {
        let mut fields = String::from("\r\n");
        write_recipient(&mut fields, request, recipient);
        // RFC 3464 section 2.1 has room for ASCII alone, whatever language the
        // remote host speaks.
        let kept = |char: char| if ascii && !char.is_ascii() { '?' } else { char };
        out.extend(fields.chars().map(kept));
    }
    out.push_str("\r\n");
    text
}

/// RFC 3464 section 2.3
fn write_recipient(out: &mut String, request: &DsnRequest<'_>, recipient: &DsnRecipient<'_>) {
    if let Some(orcpt) = recipient.orcpt {
        field(out, "Original-Recipient", orcpt);
    }
    let kind = if recipient.address.is_ascii() {
        "rfc822"
    } else {
        "utf-8" // RFC 6533 section 3
    };
    field(out, "Final-Recipient", &format!("{kind}; {}", recipient.address));
    field(out, "Action", request.action.as_str());
    field(out, "Status", &recipient.status.to_string());
    // A socket of this machine has no name that others know.
    if let Some(remote) = recipient.remote.filter(|remote| remote.port != 0) {
        let host = remote.host.trim_end_matches('.');
        field(out, "Remote-MTA", &format!("dns; {host}"));
    }
    // RFC 3464 section 2.3.6: "smtp" is for what an SMTP reply looks like.
    let is_reply = recipient.diagnostic.get(..3).is_some_and(|code| code.bytes().all(|b| b.is_ascii_digit()));
    let kind = if is_reply { "smtp" } else { "x-postrider" };
    if !recipient.diagnostic.is_empty() {
        field(out, "Diagnostic-Code", &format!("{kind}; {}", recipient.diagnostic));
    }
    field(out, "Last-Attempt-Date", &recipient.at.rfc5322());
    if let (Action::Delayed, Some(until)) = (request.action, request.retry_until) {
        field(out, "Will-Retry-Until", &until.rfc5322());
    }
}

fn write_original(out: &mut Vec<u8>, request: &DsnRequest<'_>, boundary: &str, header: &[u8]) {
    let full = request.ret == Ret::Full && request.action == Action::Failed;
    // RFC 6532 section 3.7 and RFC 6533 section 5. Headers in an older 8-bit
    // encoding are no UTF-8 and keep the older types.
    let international = !header.is_ascii() && std::str::from_utf8(header).is_ok();
    let media_type = match (full, international) {
        (true, false) => "message/rfc822",
        (true, true) => "message/global",
        (false, false) => "text/rfc822-headers",
        (false, true) => "message/global-headers",
    };
    let mut head = format!("--{boundary}\r\n");
    field(&mut head, "Content-Type", media_type);
    let what = if full { "Your message" } else { "Header of your message" };
    field(&mut head, "Content-Description", what);
    if !full {
        put_encoded(&mut head, header);
        return out.extend_from_slice(head.as_bytes());
    }
    if !request.original.iter().all(|chunk| chunk.is_ascii()) {
        field(&mut head, "Content-Transfer-Encoding", "8bit");
    }
    head.push_str("\r\n");
    out.extend_from_slice(head.as_bytes());
    request.original.iter().for_each(|chunk| out.extend_from_slice(chunk));
}

/// The original's subject where a person can read it as it stands.
fn plain_subject(header: &[u8]) -> Option<String> {
    let header = HeaderBlock::parse(header).ok()?;
    let subject = header.find("Subject")?.value();
    let readable = !subject.is_empty() && !subject.contains("=?");
    readable.then(|| sanitize_text(subject.as_bytes(), 200))
}

#[cfg(test)]
mod tests;
