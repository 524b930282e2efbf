//! Bounces that are text for people alone: qmail's (QSBMF), old Exim's, whatever hosts wrote
//! before RFC 1894 and some still write.

use std::collections::HashSet;

use postrider_delivery::classify::classify_report;
use postrider_mail::{BounceKind, EmailAddress, EnhancedStatus, HeaderBlock, sanitize_text};

use crate::fields::{MAX_TEXT, address, addresses, decoded};
use crate::status::{Action, StatusRecipient, StatusReport};

/// Bytes of the text that are read.
const MAX_READ: usize = 64 * 1024;
/// Lines of it that are searched for a reason.
const MAX_LINES: usize = 200;
/// Addresses in it that are compared with the message's recipients.
const MAX_NAMED: usize = 100;

/// How the text of a qmail-send bounce begins (QSBMF).
const QMAIL: [&str; 2] = ["Hi. This is the", "This is the qmail-send program"];
/// Where the returned message begins in texts that have it.
const RETURNED: [&str; 6] = [
    "--- Below this line is a copy of the message.",
    "------ This is a copy of the message",
    "----- Original message -----",
    "   ----- Unsent message follows -----",
    "   ----- Original message follows -----",
    "--- The message header ---",
];

/// Whom bounces are from, in lower case.
const MAILERS: [&str; 3] = ["mailer-daemon", "mailerdaemon", "postmaster@"];

/// What subjects of bounces have in them, in lower case.
const SUBJECTS: [&str; 16] = [
    "delivery failed",
    "delivery failure",
    "delivery has failed",
    "delivery notification",
    "delivery report",
    "delivery status",
    "failed delivery",
    "failed mail",
    "failure notice",
    "mail delivery",
    "mail failure",
    "mail system error",
    "nondeliverable",
    "returned mail",
    "undeliver",
    "unzustellbar",
];

/// Whether a message that is no report by its form is a bounce by its look: what programs that
/// deliver mail are called, what they call their bounces.
pub(crate) fn is_bounce(header: &HeaderBlock<'_>, body: &str) -> bool {
    let from = header.find("From").map(|field| field.value().to_lowercase()).unwrap_or_default();
    let is_mailer = MAILERS.iter().any(|known| from.contains(known));
    let subject = decoded(header, "Subject").unwrap_or_default();
    is_mailer || is_sure(header, body) || SUBJECTS.iter().any(|known| subject.contains(known))
}

/// Whether it is one for sure, whatever else it says of itself.
pub(crate) fn is_sure(header: &HeaderBlock<'_>, body: &str) -> bool {
    header.find("X-Failed-Recipients").is_some() || is_qmail(body)
}

/// What such a message says; of nobody by name where it names nobody.
pub(crate) fn read(header: &HeaderBlock<'_>, body: &str, max_recipients: usize) -> StatusReport {
    read_about(header, body, None, max_recipients)
}

/// What such a message says, of this one where that is known.
pub(crate) fn read_about(
    header: &HeaderBlock<'_>,
    body: &str,
    known: Option<EmailAddress>,
    max_recipients: usize,
) -> StatusReport {
    let body = told(body);
    let mut recipients = match known {
        Some(address) => vec![failed(Some(address), &body)],
        None if is_qmail(&body) => qmail(&body),
        None => Vec::new(),
    };
    if recipients.is_empty() {
        recipients = named(header, &body);
    }
    let more = recipients.len().saturating_sub(max_recipients);
    recipients.truncate(max_recipients);
    if recipients.is_empty() {
        recipients.push(failed(None, &body));
    }
    StatusReport { standard: false, reporting_mta: None, recipients, more }
}

/// Says why a recipient failed of whom a report does not: by what it says to people.
pub(crate) fn explain(failure: &mut StatusRecipient, body: &str) {
    let body = told(body);
    let address = failure.final_recipient.as_ref().or(failure.original_recipient.as_ref());
    let said = address.map_or(body.as_str(), |address| about(&body, address.as_str()));
    let (_, diagnostic, _) = why(said);
    if let Some(line) = diagnostic {
        failure.bounce = Some(classify_report(failure.status, &line));
        failure.diagnostic = Some(line);
    }
}

/// The front of a text, up to the message that it returns, with lines that end in a line feed.
fn told(body: &str) -> String {
    let end = body.floor_char_boundary(MAX_READ);
    let body = body[..end].replace("\r\n", "\n");
    let returned = RETURNED.iter().filter_map(|mark| body.find(mark)).min();
    match returned {
        Some(start) => body[..start].to_owned(),
        None => body,
    }
}

fn is_qmail(body: &str) -> bool {
    QMAIL.iter().any(|start| body.trim_start().starts_with(start))
}

/// The paragraphs of QSBMF: each begins with `<ADDRESS>:`, and says why in the lines behind.
fn qmail(body: &str) -> Vec<StatusRecipient> {
    let named = body.split("\n\n").filter_map(|paragraph| {
        let (first, why) = paragraph.trim_start().split_once(":\n")?;
        let address = address(first.strip_prefix('<')?)?;
        Some(failed(Some(address), why))
    });
    named.take(MAX_NAMED).collect()
}

/// Whom `X-Failed-Recipients` names, or else the text, with what the text says of them.
fn named(header: &HeaderBlock<'_>, body: &str) -> Vec<StatusRecipient> {
    let fields = header.find_all("X-Failed-Recipients").map(|field| field.value());
    let mut named: Vec<EmailAddress> = fields.flat_map(|value| addresses(&value)).collect();
    if named.is_empty() {
        named = addresses(body);
    }
    named.truncate(MAX_NAMED);
    let mut seen = HashSet::new();
    named.retain(|address| seen.insert(address.fold()));
    let failed = |address: EmailAddress| {
        let text = about(body, address.as_str());
        failed(Some(address), text)
    };
    named.into_iter().map(failed).collect()
}

/// What a text says behind an address, up to the next blank line; all of it where that tells
/// nothing.
fn about<'a>(body: &'a str, address: &str) -> &'a str {
    let behind = body.find(address).map_or(body, |at| &body[at + address.len()..]);
    let said = behind.split("\n\n").next().unwrap_or(behind);
    if why(said).2 == BounceKind::Undetermined { body } else { said }
}

fn failed(named: Option<EmailAddress>, text: &str) -> StatusRecipient {
    let (status, diagnostic, kind) = why(text);
    StatusRecipient {
        final_recipient: named,
        original_recipient: None,
        action: Action::Failed,
        status,
        diagnostic,
        remote_mta: None,
        bounce: Some(kind),
    }
}

/// Looks for the line that tells why: one with a reply of SMTP, else one that the knowledge of
/// replies knows.
fn why(text: &str) -> (Option<EnhancedStatus>, Option<String>, BounceKind) {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty()).take(MAX_LINES);
    let with_reply = lines().filter_map(reply_in);
    for line in with_reply.chain(lines()) {
        let line = sanitize_text(line, MAX_TEXT);
        let kind = classify_report(None, &line);
        if kind != BounceKind::Undetermined {
            return (status_in(&line), Some(line), kind);
        }
    }
    (None, None, BounceKind::Undetermined)
}

/// The part of a line from a failure's reply code on, which stands in front or behind a colon,
/// a bracket or a quotation mark: `550 5.1.1 no` of `<<< 550 5.1.1 no`, nothing of `in 500 seconds`.
fn reply_in(line: &str) -> Option<&str> {
    let codes = line.match_indices([' ', '-']).filter_map(|(end, _)| end.checked_sub(3));
    let is_reply = |start: &usize| {
        let Some(code) = line.get(*start..start + 3) else { return false };
        let before = line[..*start].trim_end();
        let is_code = code.starts_with(['4', '5']) && code.bytes().all(|byte| byte.is_ascii_digit());
        is_code && (before.is_empty() || before.ends_with([':', '>', '<', '(', '"', '\'']))
    };
    codes.take(MAX_WORDS).find(is_reply).map(|start| &line[start..])
}

/// Words of a line that are looked at.
const MAX_WORDS: usize = 200;

fn status_in(line: &str) -> Option<EnhancedStatus> {
    let words = line.split([' ', '(', ')', '[', ']', '#', ':', '-']);
    words.filter_map(|word| word.trim_end_matches('.').parse::<EnhancedStatus>().ok()).find(|status| status.class != 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &str) -> StatusReport {
        let header = HeaderBlock::parse(message.as_bytes()).unwrap();
        super::read(&header, &message[header.body_offset()..], 3)
    }

    #[test]
    fn a_reply_is_found_behind_what_introduces_it() {
        for (line, reply) in [
            ("550 5.1.1 no", Some("550 5.1.1 no")),
            ("    <<< 550-no", Some("550-no")),
            ("host mx[192.0.2.1] said: 552 full", Some("552 full")),
            ("SMTP error: \"554 no\"", Some("554 no\"")),
            ("given up after 500 seconds", None),
            ("5501 no", None),
            ("250 ok", None),
            ("\u{e4}\u{e4} x", None),
        ] {
            assert_eq!(reply_in(line), reply, "{line}");
        }
    }

    #[test]
    fn who_is_named_in_the_header_is_meant() {
        let report = read(
            "X-Failed-Recipients: bob@example.net,\r\n ann@example.net\r\n\r\nYour mail to\r\n\r\n\
             bob@example.net\r\n  mailbox is full:\r\n  retry timeout exceeded\r\n\r\n\
             ann@example.net\r\n  550 5.1.1 user unknown\r\n\r\nis back at jim@example.org.\r\n",
        );
        let kinds: Vec<_> = report.recipients.iter().map(|recipient| recipient.bounce.unwrap()).collect();
        assert_eq!(kinds, [BounceKind::TransientMailboxFull, BounceKind::PermanentNoEmail]);
        assert!(!report.standard);
    }

    #[test]
    fn without_a_reason_it_is_undetermined_and_without_a_name_about_nobody() {
        let report = read("Subject: Undeliverable\r\n\r\nSorry.\r\n");
        assert_eq!(report.recipients.len(), 1);
        assert_eq!(report.recipients[0].bounce, Some(BounceKind::Undetermined));
        assert_eq!(report.recipients[0].final_recipient, None);
    }

    #[test]
    fn what_the_returned_message_says_is_no_reason() {
        let report =
            read("\r\nNo.\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n550 5.1.1 user unknown\r\n");
        assert_eq!(report.recipients[0].bounce, Some(BounceKind::Undetermined));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(\\PC|\n|\r\n|550 |: |a@b.example|<)*") {
            let report = read(&format!("\r\n{text}"));
            prop_assert!(!report.recipients.is_empty() && report.recipients.len() <= 3);
            for said in report.recipients.iter().filter_map(|recipient| recipient.diagnostic.as_ref()) {
                prop_assert!(!said.chars().any(char::is_control));
            }
        }
    }
}
