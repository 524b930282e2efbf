//! Replies: encoding ours, parsing the remote's.

use std::fmt::{self, Display, Write};

use bytes::{Bytes, BytesMut};
use postrider_mail::SmtpReply;

use super::line::{Line, LineReader};

/// Longest reply line that is taken; the rest of the line makes it a bad reply.
const MAX_LINE: usize = 4096;
/// Lines of one reply that are kept; the others are read and dropped.
const KEPT_LINES: usize = 50;
/// Lines after which a reply is taken for nonsense.
const MAX_LINES: usize = 1000;

/// The remote sent something that is no SMTP reply. Its fault; it may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// A line that does not begin with three digits, 2 to 5 the first, and a blank or hyphen.
    #[error("a reply line without a reply code")]
    NoCode,
    /// A line over 4,096 octets, or over 1,000 lines.
    #[error("a reply without end")]
    TooLong,
}

/// Appends a reply in wire form. `enhanced` puts the enhanced status code
/// before each line's text (RFC 2034 section 4), where the reply has one. Of
/// other characters than ASCII each becomes a `?`.
pub fn encode_reply(reply: &SmtpReply, enhanced: bool, output: &mut BytesMut) {
    let status = reply.enhanced.filter(|_| enhanced);
    let last = reply.lines.len().saturating_sub(1);
    let empty = [String::new()];
    let lines = if reply.lines.is_empty() { &empty[..] } else { &reply.lines[..] };
    for (index, line) in lines.iter().enumerate() {
        let (separator, line) = (if index == last { ' ' } else { '-' }, Ascii(line));
        // Writing to a BytesMut can not fail.
        let _ = match status {
            Some(status) => write!(output, "{}{separator}{status} {line}\r\n", reply.code),
            None => write!(output, "{}{separator}{line}\r\n", reply.code),
        };
    }
}

/// A text for a reply (RFC 5321 section 4.2.1): what it repeats of a message may have anything.
struct Ascii<'a>(&'a str);

impl Display for Ascii<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii() {
            return f.write_str(self.0);
        }
        self.0.chars().try_for_each(|c| f.write_char(if c.is_ascii() { c } else { '?' }))
    }
}

/// Parses replies from a stream.
///
/// Tolerant as delivery must be: a bare LF ends a line, a code may stand
/// alone, and where the lines of one reply disagree the last one's code counts.
#[derive(Debug)]
pub struct ReplyParser {
    lines: LineReader,
    text: Vec<Bytes>,
    seen: usize,
}

impl Default for ReplyParser {
    fn default() -> ReplyParser {
        ReplyParser::new()
    }
}

impl ReplyParser {
    /// A parser at the start of a reply.
    pub fn new() -> ReplyParser {
        ReplyParser { lines: LineReader::new(MAX_LINE), text: Vec::new(), seen: 0 }
    }

    /// Takes the next whole reply off `input`; `None` when it has not ended yet.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<SmtpReply>, BadReply> {
        loop {
            let line = match self.lines.next(input) {
                Line::Incomplete => return Ok(None),
                Line::TooLong(_) => return Err(BadReply::TooLong),
                Line::Full(line) => line,
            };
            let (code, more, text) = split(&line).ok_or(BadReply::NoCode)?;
            self.seen += 1;
            if self.seen > MAX_LINES {
                return Err(BadReply::TooLong);
            }
            // The last line is always kept: it often says the most.
            if !more || self.text.len() < KEPT_LINES {
                self.text.push(line.slice_ref(text));
            }
            if !more {
                self.seen = 0;
                let text = std::mem::take(&mut self.text);
                return Ok(Some(SmtpReply::from_lines(code, text.iter().map(Bytes::as_ref))));
            }
        }
    }
}

/// RFC 5321 section 4.2: `code SP text` or `code - text`.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    let [first @ b'2'..=b'5', second @ b'0'..=b'9', third @ b'0'..=b'9'] = *code else { return None };
    let digit = |octet: u8| u16::from(octet - b'0');
    let code = digit(first) * 100 + digit(second) * 10 + digit(third);
    match rest {
        [] => Some((code, false, rest)),
        [b'-', text @ ..] => Some((code, true, text)),
        [b' ', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(wire: &[u8]) -> Result<Option<SmtpReply>, BadReply> {
        ReplyParser::new().next(&mut BytesMut::from(wire))
    }

    #[test]
    fn lines_are_joined_and_what_follows_stays() {
        let mut input = BytesMut::from(&b"250-mx.example\r\n250-SIZE 10\n250 Ok\r\n354"[..]);
        let mut parser = ReplyParser::new();
        let reply = parser.next(&mut input).unwrap().unwrap();
        assert_eq!((reply.code, reply.lines.len()), (250, 3));
        assert_eq!(parser.next(&mut input), Ok(None));
        input.extend_from_slice(b"\r\n");
        assert_eq!(parser.next(&mut input).unwrap().unwrap().code, 354);
    }

    #[test]
    fn replies_of_ours_are_ascii() {
        let mut output = BytesMut::new();
        encode_reply(&SmtpReply::new(554, "Bad: 'jos\u{e9}\u{fffd}@example.com'."), false, &mut output);
        assert_eq!(output, "554 Bad: 'jos??@example.com'.\r\n");
    }

    #[test]
    fn the_last_line_decides_the_code() {
        assert_eq!(parse(b"250-a\r\n550 b\r\n").unwrap().unwrap().code, 550);
    }

    #[test]
    fn nonsense_is_an_error_and_bounded() {
        assert_eq!(parse(b"hello\r\n"), Err(BadReply::NoCode));
        assert_eq!(parse(b"\r\n"), Err(BadReply::NoCode));
        assert_eq!(parse(b"650 x\r\n"), Err(BadReply::NoCode));
        assert_eq!(parse(b"2500 x\r\n"), Err(BadReply::NoCode));
        let long = [b"250 ".as_slice(), &[b'x'; 5000], b"\r\n"].concat();
        assert_eq!(parse(&long), Err(BadReply::TooLong));
        assert_eq!(parse(&b"250-x\r\n".repeat(2000)), Err(BadReply::TooLong));
        let many = [b"250-x\r\n".repeat(900), b"250 end\r\n".to_vec()].concat();
        let reply = parse(&many).unwrap().unwrap();
        assert_eq!(reply.lines.len(), KEPT_LINES + 1);
        assert_eq!(reply.lines.last().map(String::as_str), Some("end"));
    }

    #[test]
    fn encoded_replies_carry_the_status_on_request() {
        let mut reply = SmtpReply::new(550, "no such user");
        reply.enhanced = "5.1.1".parse().ok();
        reply.lines.push("go away".into());
        let mut output = BytesMut::new();
        encode_reply(&reply, true, &mut output);
        assert_eq!(&output[..], b"550-5.1.1 no such user\r\n550 5.1.1 go away\r\n");
        output.clear();
        encode_reply(&reply, false, &mut output);
        assert_eq!(&output[..], b"550-no such user\r\n550 go away\r\n");
    }

    proptest! {
        #[test]
        fn random_input_never_panics_and_cuts_do_not_matter(
            wire in "[245][05]0[- ][ab]{0,3}(\r\n|\n)|[ -~]{0,6}\r\n", cut in 1usize..5,
        ) {
            let whole = parse(wire.as_bytes());
            let mut parser = ReplyParser::new();
            let mut input = BytesMut::new();
            let mut cut_up = Ok(None);
            for piece in wire.as_bytes().chunks(cut) {
                input.extend_from_slice(piece);
                cut_up = parser.next(&mut input);
            }
            prop_assert_eq!(whole, cut_up);
        }
    }
}
