//! SMTP replies, in both directions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{EnhancedStatus, sanitize_text};

/// A reply of an SMTP server, made printable: no control character, at most
/// 100 lines and 2,048 bytes of text.
///
/// Reading the fields is free; values come from the constructors only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SmtpReply {
    /// The three-digit code.
    pub code: u16,
    /// The enhanced status code, when the first line began with one of the
    /// reply code's class (RFC 2034 section 4).
    pub enhanced: Option<EnhancedStatus>,
    /// The text of each line, without codes. At least one line, which may be empty.
    pub lines: Vec<String>,
}

/// What the first digit of a reply code asks for (RFC 5321 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// 2yz: done.
    Positive,
    /// 3yz: go on.
    Intermediate,
    /// 4yz, and codes outside of the protocol: try again later.
    Transient,
    /// 5yz: never try this again.
    Permanent,
}

impl SmtpReply {
    /// Lines beyond this number are dropped.
    pub const MAX_LINES: usize = 100;
    /// Text beyond this number of bytes, over all lines, is dropped.
    pub const MAX_TEXT: usize = 2048;

    /// A reply of our own; each line feed in `text` starts a new line, and an
    /// enhanced code at its front is understood.
    pub fn new(code: u16, text: &str) -> SmtpReply {
        SmtpReply::from_lines(code, text.split('\n').map(str::as_bytes))
    }

    /// A reply from the wire: the code, and each line's text after the code
    /// and its separator, with or without line end.
    pub fn from_lines<'a>(code: u16, lines: impl IntoIterator<Item = &'a [u8]>) -> SmtpReply {
        let mut reply = SmtpReply { code, enhanced: None, lines: Vec::new() };
        let mut room = SmtpReply::MAX_TEXT;
        for line in lines.into_iter().take(SmtpReply::MAX_LINES) {
            let line = sanitize_text(line.trim_ascii_end(), room);
            room -= line.len();
            reply.push(line);
        }
        if reply.lines.is_empty() {
            reply.lines.push(String::new());
        }
        reply
    }

    /// The same reply with this enhanced status code.
    #[must_use]
    pub fn with_enhanced(mut self, status: EnhancedStatus) -> SmtpReply {
        self.enhanced = Some(status);
        self
    }

    /// What the code asks for.
    pub fn severity(&self) -> Severity {
        match self.code / 100 {
            2 => Severity::Positive,
            3 => Severity::Intermediate,
            5 => Severity::Permanent,
            _ => Severity::Transient,
        }
    }

    /// The lines' texts joined by spaces, without codes.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// Everything on one line: `550 5.1.1 user unknown`.
    pub fn one_line(&self) -> String {
        self.to_string()
    }

    /// Adds a line. The enhanced code, which servers repeat on every line
    /// (RFC 2034 section 4), is kept once.
    fn push(&mut self, line: String) {
        let Some((status, rest)) = EnhancedStatus::split_off(&line) else {
            return self.lines.push(line);
        };
        if self.lines.is_empty() && u16::from(status.class) == self.code / 100 {
            self.enhanced = Some(status);
        }
        if self.enhanced == Some(status) {
            self.lines.push(rest.to_owned());
        } else {
            self.lines.push(line);
        }
    }
}

impl fmt::Display for SmtpReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_enhanced_code_is_taken_off_every_line() {
        let lines = [&b"5.1.1 no such"[..], b"5.1.1 user\r\n", b"see 5.1.1 here"];
        let reply = SmtpReply::from_lines(550, lines);
        assert_eq!(reply.enhanced, Some(EnhancedStatus::new(5, 1, 1)));
        assert_eq!(reply.lines, ["no such", "user", "see 5.1.1 here"]);
        assert_eq!(reply.one_line(), "550 5.1.1 no such user see 5.1.1 here");
        assert_eq!(reply.severity(), Severity::Permanent);
    }

    #[test]
    fn a_code_of_another_class_stays_text() {
        let reply = SmtpReply::new(550, "4.7.1 try later");
        assert_eq!(reply.enhanced, None);
        assert_eq!(reply.one_line(), "550 4.7.1 try later");
    }

    #[test]
    fn plain_replies() {
        assert_eq!(SmtpReply::new(250, "Ok").to_string(), "250 Ok");
        assert_eq!(SmtpReply::from_lines(250, []).to_string(), "250");
        assert_eq!(SmtpReply::new(250, "a\nb").lines, ["a", "b"]);
        assert_eq!(SmtpReply::new(354, "").severity(), Severity::Intermediate);
        let with = SmtpReply::new(250, "Ok").with_enhanced(EnhancedStatus::new(2, 0, 0));
        assert_eq!(with.to_string(), "250 2.0.0 Ok");
    }

    #[test]
    fn hostile_text_is_bounded_and_printable() {
        let long = vec![b'x'; 3000];
        let reply = SmtpReply::from_lines(550, [&long[..], b"more"]);
        assert_eq!(reply.text().trim_end().len(), SmtpReply::MAX_TEXT);
        let many = SmtpReply::from_lines(550, vec![&b"x"[..]; 500]);
        assert_eq!(many.lines.len(), SmtpReply::MAX_LINES);
        let evil = SmtpReply::from_lines(550, [&b"a\r\nb\x00\xff"[..]]);
        assert_eq!(evil.lines, ["a??b?\u{fffd}"]);
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_printable_reply(code: u16, lines: Vec<Vec<u8>>) {
            let reply = SmtpReply::from_lines(code, lines.iter().map(Vec::as_slice));
            prop_assert!(!reply.one_line().chars().any(char::is_control));
            prop_assert!(!reply.lines.is_empty());
        }
    }
}
