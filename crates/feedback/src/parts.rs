//! The parts of a message, as far as reports need them: one pass for each level of nesting,
//! bounded, and nothing is refused for being wrong.

use std::borrow::Cow;

use mail_parser::HeaderValue;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::parsers::MessageStream;
use memchr::memchr;
use postrider_mail::HeaderBlock;

/// Deepest nesting of multiparts that is looked into: a list or a scanner may have put a
/// report into one of its own.
const MAX_DEPTH: usize = 4;
/// Parts that are looked at.
const MAX_PARTS: usize = 100;
/// Longest value that is parsed.
const MAX_VALUE: usize = 4 * 1024;

/// A part that is no multipart.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// Type and subtype in lower case: `message/delivery-status`.
    pub(crate) media: String,
    /// Decoded.
    pub(crate) body: Cow<'a, [u8]>,
}

/// The parts of a message in their order; the message itself where it has none. Messages
/// inside of it are parts, theirs are not.
pub(crate) fn parts<'a>(header: &HeaderBlock<'a>, body: &'a [u8]) -> Vec<Part<'a>> {
    let mut found = Vec::new();
    collect(header, body, 0, &mut found);
    found
}

fn collect<'a>(header: &HeaderBlock<'a>, body: &'a [u8], depth: usize, found: &mut Vec<Part<'a>>) {
    let kind = value(header, "Content-Type").map_or_else(Kind::default, |value| Kind::read(&value));
    match kind.boundary {
        Some(boundary) if depth < MAX_DEPTH => {
            for part in split(body, boundary.as_bytes()) {
                // A header over its bounds is no report's.
                let Ok(header) = HeaderBlock::parse(part) else { continue };
                if found.len() == MAX_PARTS {
                    return;
                }
                collect(&header, &part[header.body_offset()..], depth + 1, found);
            }
        }
        _ => found.push(Part { media: kind.media, body: decode(header, body) }),
    }
}

/// What a `Content-Type` field says.
struct Kind {
    media: String,
    /// Of a multipart.
    boundary: Option<String>,
}

impl Default for Kind {
    /// RFC 2045 section 5.2
    fn default() -> Self {
        Self { media: "text/plain".to_owned(), boundary: None }
    }
}

impl Kind {
    fn read(value: &str) -> Self {
        let line = format!("{value}\n");
        let HeaderValue::ContentType(read) = MessageStream::new(line.as_bytes()).parse_content_type() else {
            return Self::default();
        };
        let media = format!("{}/{}", read.ctype(), read.subtype().unwrap_or("")).to_ascii_lowercase();
        let boundary = read.attribute("boundary").filter(|boundary| !boundary.is_empty());
        Self { boundary: boundary.filter(|_| media.starts_with("multipart/")).map(str::to_owned), media }
    }
}

fn value(header: &HeaderBlock<'_>, name: &str) -> Option<String> {
    let value = header.find(name)?.value();
    (value.len() <= MAX_VALUE).then(|| value.into_owned())
}

/// RFC 2045 section 6. What can not be decoded stays as it is.
fn decode<'a>(header: &HeaderBlock<'_>, body: &'a [u8]) -> Cow<'a, [u8]> {
    let decoded = match value(header, "Content-Transfer-Encoding") {
        Some(encoding) if encoding.eq_ignore_ascii_case("base64") => base64_decode(body),
        Some(encoding) if encoding.eq_ignore_ascii_case("quoted-printable") => quoted_printable_decode(body),
        _ => None,
    };
    decoded.map_or(Cow::Borrowed(body), Cow::Owned)
}

/// The parts between the lines of a boundary (RFC 2046 section 5.1.1). The last may lack its
/// end: the message was cut.
fn split<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut start, mut at) = (Vec::new(), None, 0);
    while at < body.len() && parts.len() < MAX_PARTS {
        let end = memchr(b'\n', &body[at..]).map_or(body.len(), |length| at + length + 1);
        let rest = body[at..end].trim_ascii_end().strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary));
        if let Some(rest @ (b"" | b"--")) = rest {
            parts.extend(start.map(|start| &body[start..at]));
            start = rest.is_empty().then_some(end);
            if start.is_none() {
                return parts;
            }
        }
        at = end;
    }
    parts.extend(start.map(|start| &body[start..]));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &str) -> Vec<(String, String)> {
        let header = HeaderBlock::parse(message.as_bytes()).unwrap();
        let body = &message.as_bytes()[header.body_offset()..];
        let text = |part: &Part<'_>| String::from_utf8_lossy(&part.body).trim().to_owned();
        parts(&header, body).iter().map(|part| (part.media.clone(), text(part))).collect()
    }

    fn pair(media: &str, body: &str) -> (String, String) {
        (media.to_owned(), body.to_owned())
    }

    #[test]
    fn a_message_without_parts_is_its_only_part() {
        assert_eq!(read("Subject: x\r\n\r\nhello\r\n"), [pair("text/plain", "hello")]);
        assert_eq!(read("Content-Type: TEXT/HTML\r\n\r\n<p>\r\n"), [pair("text/html", "<p>")]);
        assert_eq!(
            read("Content-Type: multipart/mixed\r\n\r\nno boundary\r\n"),
            [pair("multipart/mixed", "no boundary")]
        );
    }

    #[test]
    fn parts_are_decoded_and_those_of_multiparts_inside_are_found() {
        let message = "Content-Type: Multipart/Report; report-type=delivery-status;\r\n boundary=\"a b\"\r\n\r\n\
             preamble\r\n--a b\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\n\r\nplain\r\n\
             --in--\r\n--a b  \r\nContent-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             QWN0aW9u\r\nOiBm\r\n--a b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
             a=3Db\r\n--a b--\r\nepilogue\r\n";
        assert_eq!(
            read(message),
            [pair("text/plain", "plain"), pair("message/delivery-status", "Action: f"), pair("text/plain", "a=b")]
        );
    }

    #[test]
    fn what_is_cut_off_is_read_as_far_as_it_is_there() {
        let message = "Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\n\r\none\r\n--x\r\n\r\ntw";
        assert_eq!(read(message), [pair("text/plain", "one"), pair("text/plain", "tw")]);
    }

    #[test]
    fn numbers_and_nesting_are_bounded() {
        let many = format!("Content-Type: multipart/mixed; boundary=x\r\n\r\n{}", "--x\r\n\r\na\r\n".repeat(1_000));
        assert_eq!(read(&many).len(), MAX_PARTS);
        let deep = "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n".repeat(10_000);
        assert!(read(&deep).len() <= MAX_PARTS);
    }

    proptest! {
        #[test]
        fn any_bytes_have_parts_within_the_bounds(
            text in "(Content-Type: multipart/report; boundary=x\r\n|\r\n|--x|--|[ -~]|\r\n){0,60}",
        ) {
            prop_assert!(read(&text).len() <= MAX_PARTS);
        }
    }
}
