//! What a report returns of the message that it is about.

use postrider_mail::{EmailAddress, HeaderBlock, header_of, sanitize_text};
use serde::Serialize;

use crate::fields::{address, addresses};

/// Bytes read of the header that came back.
const MAX_HEADER: usize = 64 * 1024;
/// Bytes kept of a field.
const MAX_FIELD: usize = 900;
/// Return paths that are looked at.
const MAX_RETURN_PATHS: usize = 10;

/// Fields that tell a sender which message it was.
const SHOWN: [&str; 6] = ["Date", "From", "To", "Cc", "Subject", "Message-ID"];

/// What came back of the header of the message that a report is about. Nothing of it is
/// proved but by what a return path of ours says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Original {
    /// Its return paths, as hosts on the way noted them.
    pub return_paths: Vec<EmailAddress>,
    /// Its `Message-ID` without angle brackets.
    pub message_id: Option<String>,
    /// Whom it was for, as Microsoft's reports note it there.
    pub recipient: Option<EmailAddress>,
    /// Fields by which people know a message, each one printable line.
    pub fields: Vec<(String, String)>,
}

impl Original {
    /// Reads the front of a message, or its header alone.
    pub(crate) fn read(message: &[u8]) -> Self {
        let front = header_of(&[bytes::Bytes::copy_from_slice(&message[..message.len().min(MAX_HEADER)])], MAX_HEADER);
        let Ok(header) = HeaderBlock::parse(&front) else { return Self::default() };
        let line = |value: &str| sanitize_text(value.trim(), MAX_FIELD);
        let shown = |name: &&str| header.find(name).map(|field| ((*name).to_owned(), line(&field.value())));
        let message_id = header.find("Message-ID").map(|field| line(&field.value()));
        let recipient = header.find("X-HmXmrOriginalRecipient").and_then(|field| address(&field.value()));
        let paths = ["Return-Path", "X-Original-Return-Path", "X-Envelope-From", "X-Failed-Sender"];
        let paths = paths.iter().flat_map(|name| header.find_all(name)).flat_map(|field| addresses(&field.value()));
        Self {
            return_paths: paths.take(MAX_RETURN_PATHS).collect(),
            message_id: message_id.map(|id| id.trim_matches(['<', '>', ' ']).to_owned()),
            recipient,
            fields: SHOWN.iter().filter_map(shown).collect(),
        }
    }

    /// The header that a notice of ours returns: one line a field.
    pub(crate) fn header(&self) -> Vec<u8> {
        let lines = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        lines.collect::<String>().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_the_message_is_read() {
        let original = Original::read(
            b"Return-Path: <a1@bounces.example.com>\r\nX-HmXmrOriginalRecipient: <ann@example.net>\r\n\
              Subject: Minutes\r\n of today\r\nMessage-ID: <1@example.com>\r\nX-Other: no\r\n\r\nSubject: body\r\n",
        );
        assert_eq!(original.return_paths, ["a1@bounces.example.com".parse().unwrap()]);
        assert_eq!(original.message_id.as_deref(), Some("1@example.com"));
        assert_eq!(original.recipient, Some("ann@example.net".parse().unwrap()));
        assert_eq!(original.header(), b"Subject: Minutes of today\r\nMessage-ID: <1@example.com>\r\n");
    }

    #[test]
    fn no_value_makes_a_line() {
        let original =
            Original::read(b"Subject: x\r\r\n y\0z\xe2\x80\xa8!\r\nReturn-Path: <>\r\nFrom: a\rBcc: b\r\n\r\n");
        let header = String::from_utf8(original.header()).unwrap();
        assert_eq!(header.lines().count(), 2, "{header:?}");
        assert!(!header.replace("\r\n", "").chars().any(char::is_control), "{header:?}");
        assert!(original.return_paths.is_empty());
        assert_eq!(Original::read(b""), Original::default());
    }

    #[test]
    fn long_headers_are_cut() {
        let long = format!("Subject: {}\r\n{}", "x".repeat(5_000), "Return-Path: <a@b.example>\r\n".repeat(100));
        let original = Original::read(long.as_bytes());
        assert_eq!(original.return_paths.len(), MAX_RETURN_PATHS);
        assert_eq!(original.fields[0].1.len(), MAX_FIELD);
    }
}
