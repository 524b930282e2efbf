//! What a message that came back says: the one reader, without any network or disk.

use std::borrow::Cow;

use bytes::Bytes;
use postrider_base::Timestamp;
use postrider_mail::HeaderBlock;
use serde::Serialize;

use crate::automatic::is_automatic;
use crate::complaint::ComplaintReport;
use crate::fields::{address, date};
use crate::original::Original;
use crate::parts::{Part, parts};
use crate::plain::{self, Words};
use crate::settings::Settings;
use crate::status::StatusReport;

/// The field that marks what a relay like this one passed on, with its name: it is not passed
/// on again.
pub(crate) const PASSED_ON: &str = "X-Postrider-Passed-On";

/// A message that came back, read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// What it says.
    pub report: Report,
    /// What it returns of the message that it is about.
    pub original: Option<Original>,
    /// When it was sent, by its own account.
    pub date: Option<Timestamp>,
    /// Whether a relay passed it on before.
    pub passed_on: bool,
}

/// What a message that came back says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// What became of recipients (RFC 3464, and text that says the same to people).
    Status(StatusReport),
    /// A recipient complains (RFC 5965).
    Complaint(ComplaintReport),
    /// A program answered for a person (RFC 3834).
    Automatic,
    /// None of these.
    Other,
}

/// Reads a message that came back. `from_nobody` says whether its reverse-path was the null
/// one, as that of a bounce is (RFC 5321 section 4.5.5). Never fails: what is damaged is read
/// as far as it is there.
#[must_use]
pub fn read(message: &[Bytes], from_nobody: bool, settings: &Settings) -> Reading {
    read_lines(message, from_nobody, settings, plain::MAX_CLASSIFIED)
}

/// The same, with what kind it is, but without why somebody failed as it is told to people.
pub(crate) fn read_kind(message: &[Bytes], from_nobody: bool, settings: &Settings) -> Reading {
    read_lines(message, from_nobody, settings, 0)
}

fn read_lines(message: &[Bytes], from_nobody: bool, settings: &Settings, lines: usize) -> Reading {
    let front = front(message, usize::try_from(settings.max_read_bytes.bytes()).unwrap_or(usize::MAX));
    let Ok(header) = HeaderBlock::parse(&front) else {
        return Reading { report: Report::Other, original: None, date: None, passed_on: false };
    };
    let parts = parts(&header, &front[header.body_offset()..]);
    let original = original(&parts);
    let max = usize::from(settings.max_recipients);
    let words = Words::new(&header, &text(&parts), from_nobody, lines);
    let report = status(&parts, &words, max)
        .or_else(|| discarded(&parts, &words, max))
        .or_else(|| complaint(&parts, original.as_ref(), max))
        .unwrap_or_else(|| by_its_look(&header, &parts, &words, from_nobody, max));
    Reading { report, original, date: date(&header, "Date"), passed_on: header.find(PASSED_ON).is_some() }
}

/// The first bytes of a message in one piece; no copy where they are.
fn front(message: &[Bytes], max: usize) -> Bytes {
    if let [whole] = message {
        return whole.slice(..whole.len().min(max));
    }
    let mut front = Vec::new();
    for piece in message {
        front.extend_from_slice(&piece[..piece.len().min(max - front.len())]);
    }
    front.into()
}

fn of<'a, 'b>(parts: &'b [Part<'a>], media: &[&str]) -> Option<&'b Part<'a>> {
    parts.iter().find(|part| media.contains(&part.media.as_str()))
}

fn original(parts: &[Part<'_>]) -> Option<Original> {
    // RFC 6522 section 3, RFC 6533 section 4
    let media = ["message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"];
    of(parts, &media).map(|part| Original::read(&part.body))
}

fn status(parts: &[Part<'_>], words: &Words<'_>, max: usize) -> Option<Report> {
    let media = ["message/delivery-status", "message/global-delivery-status"];
    let mut report = StatusReport::read(&of(parts, &media)?.body, max)?;
    let is_only = report.recipients.len() + report.more == 1;
    for failure in report.recipients.iter_mut().filter(|recipient| recipient.says_nothing()) {
        words.explain(failure, is_only);
    }
    Some(Report::Status(report))
}

/// What people read.
fn text<'a>(parts: &'a [Part<'_>]) -> Cow<'a, str> {
    let part = of(parts, &["text/plain", "text/html"]);
    part.map_or(Cow::Borrowed(""), |part| String::from_utf8_lossy(&part.body))
}

/// A receipt (RFC 8098) that says that the message was thrown away unread, as filters of
/// mailboxes write it that reject mail: for its sender that is a bounce.
fn discarded(parts: &[Part<'_>], words: &Words<'_>, max: usize) -> Option<Report> {
    let receipt = of(parts, &[RECEIPT])?;
    let fields = HeaderBlock::parse(receipt.body.trim_ascii_start()).ok()?;
    let disposition = fields.find("Disposition")?.value().to_ascii_lowercase();
    let is_rejected = disposition.contains("automatic-action") && disposition.contains("deleted");
    let named = || fields.find("Final-Recipient").and_then(|field| address(&field.value()));
    is_rejected.then(|| Report::Status(words.read(named(), max)))
}

/// What a reader's program says of a message that was shown or not.
const RECEIPT: &str = "message/disposition-notification";

fn complaint(parts: &[Part<'_>], original: Option<&Original>, max: usize) -> Option<Report> {
    let reported = of(parts, &["message/feedback-report"]).and_then(|part| ComplaintReport::read(&part.body, max));
    let noted = || original.and_then(|original| original.recipient.clone()).map(ComplaintReport::about);
    reported.or_else(noted).map(Report::Complaint)
}

/// What is no report by its form. Hosts that have none say more often from whom
/// than that a program wrote it; and what comes from nobody and is not automatic is a bounce.
fn by_its_look(
    header: &HeaderBlock<'_>,
    parts: &[Part<'_>],
    words: &Words<'_>,
    from_nobody: bool,
    max: usize,
) -> Report {
    let is_automatic = of(parts, &[RECEIPT]).is_some() || is_automatic(header);
    match (words.is_bounce(), is_automatic) {
        (true, false) => Report::Status(words.read(None, max)),
        (true, true) if words.is_sure() => Report::Status(words.read(None, max)),
        (_, true) => Report::Automatic,
        (false, false) if from_nobody => Report::Status(words.read(None, max)),
        (false, false) => Report::Other,
    }
}
