//! The report as mail (RFC 8460 section 5.3).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_base::Timestamp;
use postrider_mail::EmailAddress;

use super::report::{About, MEDIA_TYPE};

/// Characters of a line of base64 (RFC 2045 section 6.8).
const LINE: usize = 76;

/// What a message says besides the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) from: &'a EmailAddress,
    pub(crate) to: &'a EmailAddress,
    /// Without angle brackets.
    pub(crate) message_id: &'a str,
    pub(crate) date: Timestamp,
    /// Random bits that make the MIME boundary.
    pub(crate) boundary: u128,
}

/// The whole message. All that stands in it is ASCII but perhaps the addresses.
pub(crate) fn compose(about: &About<'_>, letter: &Letter<'_>, gzipped: &[u8]) -> Vec<u8> {
    let Letter { from, to, message_id, date, boundary } = letter;
    let About { submitter, domain, .. } = about;
    let (id, file, date) = (about.id(), about.file_name(), date.rfc5322());
    let boundary = format!("=_{boundary:032x}");
    let day = about.day.date();
    // TLS that does not work must not keep the report of it (RFC 8460 section 3).
    let mut text = format!(
        "From: TLS reports <{from}>\r\n\
         To: <{to}>\r\n\
         Date: {date}\r\n\
         Message-ID: <{message_id}>\r\n\
         Subject: Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{id}>\r\n\
         TLS-Report-Domain: {domain}\r\n\
         TLS-Report-Submitter: {submitter}\r\n\
         TLS-Required: No\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"{boundary}\"\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\
         \r\n\
         This is a report of {submitter} about TLS sessions with the mail hosts of\r\n\
         {domain} on {day} (UTC), as RFC 8460 has it.\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: {MEDIA_TYPE}\r\n\
         Content-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment;\r\n filename=\"{file}\"\r\n\
         \r\n"
    );
    let encoded = STANDARD.encode(gzipped);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(LINE.min(rest.len()));
        let _ = write!(text, "{line}\r\n");
        rest = after;
    }
    let _ = write!(text, "--{boundary}--\r\n");
    text.into_bytes()
}
