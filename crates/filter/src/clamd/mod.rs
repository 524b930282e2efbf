//! The protocol of `clamd` (`man clamd`), as far as it is spoken here: `PING`, `VERSION` and
//! `INSTREAM` in their forms with NUL at the end.

mod client;

use bytes::BytesMut;
use postrider_mail::sanitize_text;

pub use client::Clamd;

/// Asks whether it is there.
pub const PING: &[u8] = b"zPING\0";
/// Asks for its version and that of its signatures.
pub const VERSION: &[u8] = b"zVERSION\0";
/// Begins the content of one message. Chunks follow, each behind [`chunk_head`].
pub const INSTREAM: &[u8] = b"zINSTREAM\0";
/// Ends the content: a chunk without bytes.
pub const END: [u8; 4] = [0; 4];

/// Longest reply that is read. The longest names of signatures are far shorter.
pub const MAX_REPLY: usize = 4 * 1024;
/// Longest name of a signature that is kept.
const MAX_NAME: usize = 200;

/// What stands before a chunk of so many bytes: its length, the highest byte first.
#[must_use]
pub fn chunk_head(len: u32) -> [u8; 4] {
    len.to_be_bytes()
}

/// What the scanner says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No signature matches.
    Clean,
    /// The signature of this name does; printable text on one line.
    Infected(String),
    /// It could not look at it; printable text on one line. So it is said of a message that is
    /// longer than its `StreamMaxLength`.
    Failed(String),
}

impl Verdict {
    /// Reads a reply to `INSTREAM`; `None` when it is something else.
    #[must_use]
    pub fn parse(reply: &str) -> Option<Self> {
        // With `LogVerbose` and the like the name of the stream may have an id: "stream(7): OK".
        let said = reply.split_once(": ").filter(|(of, _)| of.starts_with("stream")).map_or(reply, |(_, said)| said);
        if said == "OK" && said.len() < reply.len() {
            return Some(Self::Clean);
        }
        if let Some(name) = said.strip_suffix(" FOUND").filter(|name| !name.is_empty()) {
            return Some(Self::Infected(sanitize_text(name, MAX_NAME)));
        }
        said.strip_suffix("ERROR")
            .map(|what| Self::Failed(sanitize_text(what.trim_end().trim_end_matches('.'), MAX_NAME)))
    }
}

/// Collects a reply, which ends with NUL.
#[derive(Debug, Default)]
pub struct ReplyParser {
    seen: usize,
}

/// The reply is longer than any of a scanner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl ReplyParser {
    /// Takes a whole reply off the front of `input`, without what ends it; `None` when it has
    /// not come yet. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// [`TooLong`] beyond [`MAX_REPLY`].
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<String>, TooLong> {
        let end = input[self.seen.min(input.len())..].iter().position(|byte| *byte == 0);
        match end.map(|end| self.seen + end) {
            Some(end) if end <= MAX_REPLY => {
                let reply = input.split_to(end + 1);
                self.seen = 0;
                Ok(Some(String::from_utf8_lossy(&reply[..end]).trim().to_owned()))
            }
            None if input.len() <= MAX_REPLY => {
                self.seen = input.len();
                Ok(None)
            }
            _ => Err(TooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn verdicts_are_read() {
        for (reply, verdict) in [
            ("stream: OK", Verdict::Clean),
            ("stream(7): OK", Verdict::Clean),
            ("stream: Eicar-Test-Signature FOUND", Verdict::Infected("Eicar-Test-Signature".into())),
            ("INSTREAM size limit exceeded. ERROR", Verdict::Failed("INSTREAM size limit exceeded".into())),
            ("stream: Can't allocate memory ERROR", Verdict::Failed("Can't allocate memory".into())),
        ] {
            assert_eq!(Verdict::parse(reply), Some(verdict), "{reply}");
        }
    }

    #[test]
    fn what_is_no_verdict_is_none() {
        for reply in ["", "OK", "PONG", "UNKNOWN COMMAND", "stream: ", "stream: FOUND", "220 mail.example.com ESMTP"] {
            assert_eq!(Verdict::parse(reply), None, "{reply}");
        }
    }

    #[test]
    fn names_can_not_break_a_line() {
        let Some(Verdict::Infected(name)) = Verdict::parse("stream: a\r\nb\x1b[2J FOUND") else { panic!("infected") };
        assert!(!name.contains(|c: char| c.is_control()), "{name:?}");
    }

    #[test]
    fn replies_that_do_not_end_are_given_up() {
        let mut input = BytesMut::from(&[b'x'; MAX_REPLY][..]);
        let mut parser = ReplyParser::default();
        assert_eq!(parser.next(&mut input), Ok(None));
        input.extend_from_slice(b"x");
        assert_eq!(parser.next(&mut input), Err(TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_the_same_for_every_cut(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let whole = ReplyParser::default().next(&mut BytesMut::from(&bytes[..]));
            let (mut parser, mut input) = (ReplyParser::default(), BytesMut::new());
            let cut = cut.min(bytes.len());
            input.extend_from_slice(&bytes[..cut]);
            let first = parser.next(&mut input);
            let cutted = match first {
                Ok(None) => {
                    input.extend_from_slice(&bytes[cut..]);
                    parser.next(&mut input)
                }
                other => other,
            };
            prop_assert_eq!(&cutted, &whole);
            if let Ok(Some(reply)) = whole {
                let _ = Verdict::parse(&reply);
            }
        }
    }
}
