//! The texts of our replies: SES's where SES has one, else Postfix's.

use std::fmt::{Display, Write};

use bytes::BytesMut;
use postrider_mail::{EnhancedStatus, SmtpReply};

use crate::wire::{CommandError, ContentFault};

/// A reply that is always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Canned {
    pub(super) code: u16,
    /// Told only where ENHANCEDSTATUSCODES is announced. RFC 2034 section 4:
    /// there is none in a 3yz reply.
    pub(super) status: Option<EnhancedStatus>,
    pub(super) text: &'static str,
}

/// Names the replies, and lists them for the tests.
macro_rules! canned {
    ($($name:ident = $code:literal $(($subject:literal, $detail:literal))? $text:literal;)*) => {
        $(pub(super) const $name: Canned = Canned {
            code: $code,
            status: canned!(@status $code $($subject $detail)?),
            text: $text,
        };)*

        #[cfg(test)]
        pub(super) const ALL: &[Canned] = &[$($name),*];
    };
    (@status $code:literal) => { None };
    (@status $code:literal $subject:literal $detail:literal) => {
        Some(EnhancedStatus::new(class($code), $subject, $detail))
    };
}

canned! {
    OK = 250 (0, 0) "Ok";
    MAIL_OK = 250 (1, 0) "Ok";
    RCPT_OK = 250 (1, 5) "Ok";
    BYE = 221 (0, 0) "Bye";
    READY_FOR_TLS = 220 (0, 0) "Ready to start TLS";
    AUTHENTICATED = 235 (7, 0) "Authentication successful.";
    GO_AHEAD = 354 "End data with <CR><LF>.<CR><LF>";
    TOO_MANY_ERRORS = 421 (7, 0) "Error: too many errors";
    TOO_MANY_MESSAGES = 421 (7, 0) "Error: too many messages in this session";
    FOREIGN = 421 (7, 0) "Error: this is a mail server";
    LOST_CHUNK = 421 (7, 0) "Error: the end of the chunk is not known";
    TOO_MANY_RECIPIENTS = 452 (5, 3) "Too many recipients";
    UNKNOWN = 500 (5, 2) "Error: command not recognized";
    BAD_SYNTAX = 500 (5, 2) "Error: bad syntax";
    LINE_TOO_LONG = 500 (5, 2) "Error: line too long";
    AUTH_TOO_LONG = 500 (5, 6) "Error: authentication exchange line is too long";
    BAD_CHUNK = 501 (5, 4) "Syntax: BDAT size [LAST]";
    BAD_SENDER = 501 (1, 7) "Invalid MAIL FROM address provided";
    BAD_RECIPIENT = 501 (1, 3) "Invalid RCPT TO address provided";
    AUTH_CANCELLED = 501 (7, 0) "Authentication cancelled";
    AUTH_MALFORMED = 501 (5, 2) "Error: malformed authentication response";
    NOT_IMPLEMENTED = 502 (5, 1) "Error: command not implemented";
    NEED_HELLO = 503 (5, 1) "Error: send HELO/EHLO first";
    NEED_MAIL = 503 (5, 1) "Error: need MAIL command";
    NEED_RCPT = 503 (5, 1) "Error: need RCPT command";
    NESTED_MAIL = 503 (5, 1) "Error: nested MAIL command";
    RCPT_AFTER_BDAT = 503 (5, 1) "Error: RCPT after BDAT";
    DATA_AFTER_BDAT = 503 (5, 1) "Error: DATA after BDAT";
    BINARY_BY_DATA = 503 (5, 1) "Error: BODY=BINARYMIME needs BDAT";
    TLS_ACTIVE = 503 (5, 1) "Error: TLS already active";
    AUTH_NOT_OFFERED = 503 (5, 1) "Error: authentication not enabled";
    AUTH_DONE = 503 (5, 1) "Error: already authenticated";
    AUTH_IN_MAIL = 503 (5, 1) "Error: MAIL transaction in progress";
    NEED_TLS = 530 (7, 0) "Must issue a STARTTLS command first";
    NEED_AUTH = 530 (7, 0) "Authentication required";
    MESSAGE_TOO_LONG = 552 (3, 4) "Message is too long.";
    NON_ASCII_ADDRESS = 554 (6, 7) "Message rejected: There are non-ASCII characters in the email address";
    HAS_NUL = 554 (6, 0) "Transaction failed: NUL character in the message.";
    HAS_CARRIAGE_RETURN = 554 (6, 0) "Transaction failed: Carriage return without line feed in the header.";
    HAS_LINE_FEED = 554 (6, 0) "Transaction failed: Line feed without carriage return in the message.";
}

const fn class(code: u16) -> u8 {
    match code / 100 {
        2 => 2,
        4 => 4,
        _ => 5,
    }
}

/// The reply to a message that can not be kept.
pub(super) fn content_fault(fault: ContentFault) -> Canned {
    match fault {
        ContentFault::TooLong => MESSAGE_TOO_LONG,
        ContentFault::Nul => HAS_NUL,
        ContentFault::BareCarriageReturn => HAS_CARRIAGE_RETURN,
        ContentFault::BareLineFeed => HAS_LINE_FEED,
    }
}

/// Appends the reply to a line that is no command; returns its code.
pub(super) fn write_command_error(error: &CommandError, enhanced: bool, output: &mut BytesMut) -> u16 {
    let canned = match error {
        CommandError::Unknown => UNKNOWN,
        CommandError::BadCharacters => BAD_SYNTAX,
        CommandError::NotImplemented => NOT_IMPLEMENTED,
        CommandError::Foreign => FOREIGN,
        CommandError::BadSender => BAD_SENDER,
        CommandError::BadRecipient => BAD_RECIPIENT,
        CommandError::BadBase64 => AUTH_MALFORMED,
        CommandError::BadChunk => BAD_CHUNK,
        // RFC 5321 section 4.1.1.11: 555 is for parameters that are not known.
        CommandError::UnsupportedParameter(name) => {
            return write_bad_arguments(555, &format_args!("Unsupported option: {name}"), enhanced, output);
        }
        CommandError::BadParameter(name) => {
            return write_bad_arguments(501, &format_args!("Bad value of option: {name}"), enhanced, output);
        }
        CommandError::RepeatedParameter(name) => {
            return write_bad_arguments(501, &format_args!("Option given twice: {name}"), enhanced, output);
        }
        CommandError::Syntax(usage) => {
            return write_bad_arguments(501, &format_args!("Syntax: {usage}"), enhanced, output);
        }
    };
    canned.write(enhanced, output);
    canned.code
}

fn write_bad_arguments(code: u16, text: &dyn Display, enhanced: bool, output: &mut BytesMut) -> u16 {
    write(code, Some(EnhancedStatus::new(5, 5, 4)), text, enhanced, output);
    code
}

impl Canned {
    /// Appends the reply.
    pub(super) fn write(&self, enhanced: bool, output: &mut BytesMut) {
        write(self.code, self.status, &self.text, enhanced, output);
    }
}

impl From<Canned> for SmtpReply {
    fn from(canned: Canned) -> SmtpReply {
        let mut reply = SmtpReply::new(canned.code, canned.text);
        reply.enhanced = canned.status;
        reply
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
