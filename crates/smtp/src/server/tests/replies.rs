//! Every reply that is ours: which stage yields it, its codes, and that it is documented.

use super::super::replies::{self, Canned};
use super::*;
use crate::wire::{BareLineFeed, CommandError};

/// The reference that operators and authors of clients read.
const REFERENCE: &str = include_str!("../../../../../docs/smtp.md");

const HELLO: &str = "EHLO c\r\n";
const AUTH: &str = "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n";
const MAIL: &str = "MAIL FROM:<a@b.example>\r\n";
const RCPT: &str = "RCPT TO:<c@d.example>\r\n";

fn row(code: u16, status: &str, text: &str) -> String {
    match status {
        "" => format!("| `{code}` | | `{text}` |"),
        status => format!("| `{code}` | `{status}` | `{text}` |"),
    }
}

fn status_of(reply: &Canned) -> String {
    reply.status.map(|status| status.to_string()).unwrap_or_default()
}

#[test]
fn every_reply_is_in_the_reference() {
    for reply in replies::ALL {
        let row = row(reply.code, &status_of(reply), reply.text);
        assert!(REFERENCE.contains(&row), "docs/smtp.md lacks {row}");
    }
    let usages = [
        "EHLO hostname",
        "HELO hostname",
        "STARTTLS",
        "AUTH mechanism",
        "AUTH mechanism [initial-response]",
        "MAIL FROM:<address>",
        "RCPT TO:<address>",
        "DATA",
        "RSET",
        "VRFY address [SMTPUTF8]",
    ];
    let errors = [
        CommandError::UnsupportedParameter("NAME".into()),
        CommandError::BadParameter("NAME".into()),
        CommandError::RepeatedParameter("NAME".into()),
    ];
    for error in usages.map(CommandError::Syntax).into_iter().chain(errors) {
        let mut output = BytesMut::new();
        let code = replies::write_command_error(&error, true, &mut output);
        let line = String::from_utf8(output.to_vec()).unwrap();
        let (status, text) = line[4..].trim_end().split_once(' ').unwrap();
        assert!(REFERENCE.contains(&row(code, status, text)), "docs/smtp.md lacks {line}");
    }
    for (code, status, text) in [
        (220, "", "HOST ESMTP postrider ID"),
        (250, "2.0.0", "Ok: N bytes"),
        (250, "2.0.0", "Ok MESSAGE-ID"),
        (554, "5.5.3", "Transaction failed: Recipient count exceeds N."),
    ] {
        assert!(REFERENCE.contains(&row(code, status, text)), "docs/smtp.md lacks {text}");
    }
}

/// A service that says all that can be said.
fn small() -> Profile {
    let mut profile = open();
    profile.auth = true;
    profile.enhanced_status_codes = true;
    profile.extensions.binary_mime = true;
    profile.bare_line_feed = BareLineFeed::Reject;
    profile.limits.max_message_bytes = 100;
    profile.limits.max_recipients = 2;
    profile.limits.max_messages = 3;
    profile.limits.max_errors = 4;
    profile.limits.max_line_bytes = 128;
    profile.overflow = RecipientOverflow::Defer;
    profile
}

fn with(change: impl FnOnce(&mut Profile)) -> Profile {
    let mut profile = small();
    change(&mut profile);
    profile
}

/// A dialogue, and the reply that its last command gets.
fn stages() -> Vec<(Profile, String, Canned)> {
    let long = "x".repeat(200);
    let mail = format!("{HELLO}{MAIL}{RCPT}");
    let cases: Vec<(String, Canned)> = vec![
        ("QUIT\r\n".into(), replies::BYE),
        ("NOOP\r\n".into(), replies::OK),
        ("EXPN a\r\n".into(), replies::NOT_IMPLEMENTED),
        ("XYZZY\r\n".into(), replies::UNKNOWN),
        ("NOOP \x01\r\n".into(), replies::BAD_SYNTAX),
        (format!("NOOP {long}\r\n"), replies::LINE_TOO_LONG),
        ("XYZZY\r\n".repeat(4), replies::TOO_MANY_ERRORS),
        ("GET / HTTP/1.1\r\n".into(), replies::FOREIGN),
        (AUTH.into(), replies::NEED_HELLO),
        (format!("{HELLO}{AUTH}"), replies::AUTHENTICATED),
        (format!("{HELLO}{AUTH}{AUTH}"), replies::AUTH_DONE),
        (format!("{HELLO}{MAIL}{AUTH}"), replies::AUTH_IN_MAIL),
        (format!("{HELLO}AUTH LOGIN\r\n*\r\n"), replies::AUTH_CANCELLED),
        (format!("{HELLO}AUTH LOGIN\r\n???\r\n"), replies::AUTH_MALFORMED),
        (format!("{HELLO}AUTH LOGIN\r\n{long}\r\n"), replies::AUTH_TOO_LONG),
        (MAIL.into(), replies::NEED_HELLO),
        (format!("{HELLO}{MAIL}"), replies::MAIL_OK),
        (format!("{HELLO}{MAIL}{MAIL}"), replies::NESTED_MAIL),
        (format!("{HELLO}MAIL FROM:<@>\r\n"), replies::BAD_SENDER),
        (format!("{HELLO}MAIL FROM:<\u{e9}@b.example>\r\n"), replies::NON_ASCII_ADDRESS),
        (format!("{HELLO}MAIL FROM:<> SIZE=101\r\n"), replies::MESSAGE_TOO_LONG),
        (format!("{HELLO}{}{MAIL}", format!("{MAIL}RSET\r\n").repeat(3)), replies::TOO_MANY_MESSAGES),
        (format!("{HELLO}{RCPT}"), replies::NEED_MAIL),
        (mail.clone(), replies::RCPT_OK),
        (format!("{mail}{RCPT}{RCPT}"), replies::TOO_MANY_RECIPIENTS),
        (format!("{HELLO}{MAIL}RCPT TO:<@>\r\n"), replies::BAD_RECIPIENT),
        (format!("{HELLO}{MAIL}DATA\r\n"), replies::NEED_RCPT),
        (format!("{mail}DATA\r\n"), replies::GO_AHEAD),
        (format!("{mail}DATA\r\n{long}\r\n.\r\n"), replies::MESSAGE_TOO_LONG),
        (format!("{mail}DATA\r\n\0\r\n.\r\n"), replies::HAS_NUL),
        (format!("{mail}DATA\r\na\rb\r\n.\r\n"), replies::HAS_CARRIAGE_RETURN),
        (format!("{mail}DATA\r\na\nb\r\n.\r\n"), replies::HAS_LINE_FEED),
        (format!("{mail}BDAT 1 LAST\r\n\0"), replies::HAS_NUL),
        (format!("{mail}BDAT 1\r\n\0"), replies::HAS_NUL),
        (format!("{mail}BDAT 200\r\n{long}"), replies::MESSAGE_TOO_LONG),
        (format!("{mail}BDAT 0\r\n{RCPT}"), replies::RCPT_AFTER_BDAT),
        (format!("{mail}BDAT 0\r\nDATA\r\n"), replies::DATA_AFTER_BDAT),
        (format!("{HELLO}MAIL FROM:<> BODY=BINARYMIME\r\n{RCPT}DATA\r\n"), replies::BINARY_BY_DATA),
        ("BDAT 1\r\nx".into(), replies::NEED_RCPT),
        ("BDAT x\r\n".into(), replies::LOST_CHUNK),
    ];
    let mut all: Vec<_> = cases.into_iter().map(|(dialogue, reply)| (small(), dialogue, reply)).collect();
    let starttls = |profile: &mut Profile| profile.tls = TlsMode::StartTls;
    let forced = |profile: &mut Profile| (profile.tls, profile.require_tls_first) = (TlsMode::StartTls, true);
    all.push((with(starttls), "STARTTLS\r\n".into(), replies::READY_FOR_TLS));
    all.push((with(forced), MAIL.into(), replies::NEED_TLS));
    all.push((with(|profile| profile.tls = TlsMode::Wrapper), "STARTTLS\r\n".into(), replies::TLS_ACTIVE));
    all.push((with(|profile| profile.require_auth = true), MAIL.into(), replies::NEED_AUTH));
    all.push((with(|profile| profile.auth = false), AUTH.into(), replies::AUTH_NOT_OFFERED));
    // The reply before the one that ends the session.
    all.push((small(), "BDAT x\r\n".into(), replies::BAD_CHUNK));
    all
}

#[test]
fn each_stage_yields_its_reply_with_and_without_enhanced_code() {
    let mut seen = Vec::new();
    for (profile, dialogue, reply) in stages() {
        for enhanced in [true, false] {
            let answer = Driver::new(Profile { enhanced_status_codes: enhanced, ..profile.clone() }).say(&dialogue);
            let status = status_of(&reply);
            let expected = match (enhanced, status.as_str()) {
                (false, _) | (_, "") => format!("{} {}", reply.code, reply.text),
                (true, status) => format!("{} {status} {}", reply.code, reply.text),
            };
            let mut last = answer.lines().rev();
            let found = if reply == replies::BAD_CHUNK { last.nth(1) } else { last.next() };
            assert_eq!(found, Some(expected.as_str()), "{dialogue:?}");
        }
        seen.push(reply);
    }
    for reply in replies::ALL {
        assert!(seen.contains(reply), "no stage yields {reply:?}");
    }
}

/// RFC 3463 section 2 and RFC 2034 section 4: the class is the code's first digit.
#[test]
fn enhanced_codes_agree_with_their_codes() {
    for reply in replies::ALL {
        match reply.status {
            Some(status) => assert_eq!(u16::from(status.class), reply.code / 100, "{reply:?}"),
            None => assert_eq!(reply.code / 100, 3, "{reply:?}"),
        }
    }
}
