//! The texts of our replies: SES's where SES has one, else Postfix's.

use std::borrow::Cow;
use std::fmt::{Display, Write};

use bytes::BytesMut;
use postrider_mail::EnhancedStatus;

use crate::wire::{CommandError, ContentFault};

/// A reply that is always the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canned {
    pub(super) code: u16,
    /// Told only where ENHANCEDSTATUSCODES is announced.
    status: Option<EnhancedStatus>,
    text: &'static str,
}

const fn canned(code: u16, subject: u16, detail: u16, text: &'static str) -> Canned {
    let class = match code / 100 {
        2 => 2,
        4 => 4,
        _ => 5,
    };
    Canned { code, status: Some(EnhancedStatus::new(class, subject, detail)), text }
}

pub(super) const OK: Canned = canned(250, 0, 0, "Ok");
pub(super) const BYE: Canned = canned(221, 0, 0, "Bye");
pub(super) const HELP: Canned = canned(214, 0, 0, "See RFC 5321");
pub(super) const CANNOT_VERIFY: Canned = canned(252, 1, 5, "Cannot verify the address, but will accept mail for it");
pub(super) const READY_FOR_TLS: Canned = canned(220, 0, 0, "Ready to start TLS");
pub(super) const AUTHENTICATED: Canned = canned(235, 7, 0, "Authentication successful.");
/// RFC 2034 section 4: no enhanced code in a 3yz reply.
pub(super) const GO_AHEAD: Canned = Canned { code: 354, status: None, text: "End data with <CR><LF>.<CR><LF>" };

pub(super) const TOO_MANY_ERRORS: Canned = canned(421, 7, 0, "Error: too many errors");
pub(super) const TOO_MANY_RECIPIENTS: Canned = canned(452, 5, 3, "Too many recipients");
pub(super) const LINE_TOO_LONG: Canned = canned(500, 5, 2, "Error: line too long");
pub(super) const AUTH_CANCELLED: Canned = canned(501, 7, 0, "Authentication cancelled");
pub(super) const AUTH_MALFORMED: Canned = canned(501, 5, 2, "Error: malformed authentication response");
pub(super) const NEED_HELLO: Canned = canned(503, 5, 1, "Error: send HELO/EHLO first");
pub(super) const NEED_MAIL: Canned = canned(503, 5, 1, "Error: need MAIL command");
pub(super) const NEED_RCPT: Canned = canned(503, 5, 1, "Error: need RCPT command");
pub(super) const NESTED_MAIL: Canned = canned(503, 5, 1, "Error: nested MAIL command");
pub(super) const TLS_ACTIVE: Canned = canned(503, 5, 1, "Error: TLS already active");
pub(super) const AUTH_NOT_OFFERED: Canned = canned(503, 5, 1, "Error: authentication not enabled");
pub(super) const AUTH_DONE: Canned = canned(503, 5, 1, "Error: already authenticated");
pub(super) const AUTH_IN_MAIL: Canned = canned(503, 5, 1, "Error: MAIL transaction in progress");
pub(super) const TLS_NOT_OFFERED: Canned = canned(502, 5, 1, "Error: command not implemented");
pub(super) const NEED_TLS: Canned = canned(530, 7, 0, "Must issue a STARTTLS command first");
pub(super) const NEED_AUTH: Canned = canned(530, 7, 0, "Authentication required");
pub(super) const MESSAGE_TOO_LONG: Canned = canned(552, 3, 4, "Message is too long.");
pub(super) const NON_ASCII_ADDRESS: Canned =
    canned(554, 6, 7, "Message rejected: There are non-ASCII characters in the email address");

/// The reply to a message that can not be kept.
pub(super) fn content_fault(fault: ContentFault) -> Canned {
    match fault {
        ContentFault::TooLong => MESSAGE_TOO_LONG,
        ContentFault::Nul => canned(554, 6, 0, "Transaction failed: NUL character in the message."),
        ContentFault::BareCarriageReturn => {
            canned(554, 6, 0, "Transaction failed: Carriage return without line feed in the header.")
        }
        ContentFault::BareLineFeed => {
            canned(554, 6, 0, "Transaction failed: Line feed without carriage return in the message.")
        }
    }
}

/// Appends the reply to a line that is no command.
pub(super) fn write_command_error(error: &CommandError, enhanced: bool, output: &mut BytesMut) -> u16 {
    let (code, (subject, detail), text): (u16, _, Cow<'static, str>) = match error {
        CommandError::Unknown => (500, (5, 2), "Error: command not recognized".into()),
        CommandError::BadCharacters => (500, (5, 2), "Error: bad syntax".into()),
        CommandError::NotImplemented => (502, (5, 1), "Error: command not implemented".into()),
        CommandError::Foreign => (421, (7, 0), "Error: this is a mail server".into()),
        CommandError::Syntax(usage) => (501, (5, 4), format!("Syntax: {usage}").into()),
        CommandError::BadSender => (501, (1, 7), "Invalid MAIL FROM address provided".into()),
        CommandError::BadRecipient => (501, (1, 3), "Invalid RCPT TO address provided".into()),
        // RFC 5321 section 4.1.1.11.
        CommandError::UnsupportedParameter(name) => (555, (5, 4), format!("Unsupported option: {name}").into()),
        CommandError::BadParameter(name) => (501, (5, 4), format!("Bad value of option: {name}").into()),
        CommandError::BadBase64 => return AUTH_MALFORMED.write(enhanced, output),
    };
    let class = if code == 421 { 4 } else { 5 };
    write(code, Some(EnhancedStatus::new(class, subject, detail)), &text, enhanced, output);
    code
}

impl Canned {
    /// Appends the reply; returns its code.
    pub(super) fn write(&self, enhanced: bool, output: &mut BytesMut) -> u16 {
        write(self.code, self.status, &self.text, enhanced, output);
        self.code
    }
}

/// Appends a reply of one line.
pub(super) fn write(
    code: u16,
    status: Option<EnhancedStatus>,
    text: &dyn Display,
    enhanced: bool,
    output: &mut BytesMut,
) {
    // Writing to a BytesMut can not fail.
    let _ = match status.filter(|_| enhanced) {
        Some(status) => write!(output, "{code} {status} {text}\r\n"),
        None => write!(output, "{code} {text}\r\n"),
    };
}
