//! The header of a message, read in one pass without a copy.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr;

use crate::Error;

/// A longer header is refused.
pub const MAX_HEADER_BYTES: usize = 1024 * 1024;
/// A header with more fields is refused.
pub const MAX_HEADER_FIELDS: usize = 10_000;

/// The header of a message: its fields in order, and where the body begins.
///
/// Tolerant as mail needs it: lines may end in a bare LF, and the first line
/// that is no field ends the header even where the blank line is missing.
/// The fields' [`Field::raw`] bytes, the separator and the body are together
/// exactly the input.
#[derive(Clone, Debug)]
pub struct HeaderBlock<'a> {
    fields: Vec<Field<'a>>,
    len: usize,
    body_offset: usize,
}

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    raw: &'a [u8],
    name_len: usize,
    value_at: usize,
}

impl<'a> HeaderBlock<'a> {
    /// Reads the header at the front of `message`.
    ///
    /// # Errors
    /// [`Error::HeaderTooLong`] and [`Error::TooManyFields`]; any bytes within
    /// the bounds are a header, if an empty one.
    pub fn parse(message: &'a [u8]) -> Result<HeaderBlock<'a>, Error> {
        let mut fields = Vec::with_capacity(24);
        let mut at = 0;
        while let Some((name_len, value_at)) = field_start(&message[at..]) {
            let end = at + field_len(&message[at..]);
            if end > MAX_HEADER_BYTES {
                return Err(Error::HeaderTooLong);
            }
            if fields.len() == MAX_HEADER_FIELDS {
                return Err(Error::TooManyFields);
            }
            fields.push(Field { raw: &message[at..end], name_len, value_at });
            at = end;
        }
        let separator = match &message[at..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        Ok(HeaderBlock { fields, len: at, body_offset: at + separator })
    }

    /// The fields in order.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = &Field<'a>> + ExactSizeIterator {
        self.fields.iter()
    }

    /// The first field of this name, in any case.
    pub fn find(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.is(name))
    }

    /// Every field of this name, in any case.
    pub fn find_all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Field<'a>> {
        self.fields.iter().filter(move |field| field.is(name))
    }

    /// The fields' bytes in all, without the blank line.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the message has no field at all.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Where the body begins, after the blank line if there was one.
    pub fn body_offset(&self) -> usize {
        self.body_offset
    }

    /// Whether the blank line between header and body was there.
    pub fn is_separated(&self) -> bool {
        self.body_offset > self.len
    }
}

impl<'a> Field<'a> {
    /// The name as written: printable ASCII, at least one byte.
    pub fn name(&self) -> &'a [u8] {
        &self.raw[..self.name_len]
    }

    /// The name as text.
    pub fn name_str(&self) -> &'a str {
        std::str::from_utf8(self.name()).expect("field names are ASCII by the parser")
    }

    /// Whether the field has this name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// The whole field: name, colon, folding and line end as they came.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Everything after the colon, folding and line end as they came.
    pub fn raw_value(&self) -> &'a [u8] {
        &self.raw[self.value_at..]
    }

    /// The value on one line, trimmed: folding taken out (RFC 5322 section
    /// 2.2.3), bytes that are not UTF-8 replaced. Encoded words stay encoded.
    pub fn value(&self) -> Cow<'a, str> {
        let value = self.raw_value().trim_ascii();
        if memchr(b'\n', value).is_none() {
            return String::from_utf8_lossy(value);
        }
        let mut unfolded = Vec::with_capacity(value.len());
        for line in value.split(|b| *b == b'\n') {
            unfolded.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        }
        Cow::Owned(String::from_utf8_lossy(&unfolded).into_owned())
    }
}

/// A copy of the header at the front of a message held in pieces: the whole
/// fields within the first `max` bytes, without the blank line.
pub fn header_of(content: &[Bytes], max: usize) -> Vec<u8> {
    let mut front = Vec::new();
    for piece in content {
        let room = max - front.len();
        front.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    let whole: usize = content.iter().map(Bytes::len).sum();
    let len = HeaderBlock::parse(&front).map_or(0, |header| {
        let cut = header.len() == front.len() && front.len() < whole;
        let last = header.fields().next_back().map_or(0, |field| field.raw().len());
        header.len() - if cut { last } else { 0 }
    });
    front.truncate(len);
    front
}

/// Length of the name and offset of the value, when a field begins here.
/// RFC 5322 section 2.2; blanks before the colon by its section 4.5.
fn field_start(input: &[u8]) -> Option<(usize, usize)> {
    let name_len = input.iter().position(|b| !b.is_ascii_graphic() || *b == b':')?;
    let blanks = input[name_len..].iter().position(|b| !matches!(b, b' ' | b'\t'))?;
    let colon = name_len + blanks;
    (name_len > 0 && input[colon] == b':').then_some((name_len, colon + 1))
}

/// Length of the field that begins here, folded lines included.
fn field_len(input: &[u8]) -> usize {
    let mut end = 0;
    while let Some(line_end) = memchr(b'\n', &input[end..]) {
        end += line_end + 1;
        // Nothing is folded for longer than the bound, so nothing is searched for longer.
        let folded = matches!(input.get(end), Some(b' ' | b'\t'));
        if !folded || end > MAX_HEADER_BYTES {
            return end;
        }
    }
    input.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names<'a>(block: &HeaderBlock<'a>) -> Vec<&'a str> {
        block.fields().map(Field::name_str).collect()
    }

    #[test]
    fn an_ordinary_header() {
        let message = b"From: a@b.c\r\nSubject: one\r\n two\r\nX-A:b\r\n\r\nBody: no\r\n";
        let block = HeaderBlock::parse(message).unwrap();
        assert_eq!(names(&block), ["From", "Subject", "X-A"]);
        assert_eq!(block.find("SUBJECT").unwrap().value(), "one two");
        assert_eq!(block.find("subject").unwrap().raw(), b"Subject: one\r\n two\r\n");
        assert_eq!(block.find("x-a").unwrap().value(), "b");
        assert!(block.find("Body").is_none());
        assert!(block.is_separated());
        assert_eq!(&message[block.body_offset()..], b"Body: no\r\n");
    }

    #[test]
    fn a_missing_blank_line_is_tolerated() {
        let message = b"From: a@b.c\r\nDear all,\r\nSubject: no\r\n";
        let block = HeaderBlock::parse(message).unwrap();
        assert_eq!(names(&block), ["From"]);
        assert!(!block.is_separated());
        assert_eq!(&message[block.body_offset()..], b"Dear all,\r\nSubject: no\r\n");
    }

    #[test]
    fn what_is_no_field() {
        for body in [
            "",
            "\r\n",
            "text\r\n",
            "From alice Mon Jan 1 10:00:00\r\nSubject: x\r\n",
            " folded: first\r\n",
            ": no name\r\n",
            "N\u{e4}me: x\r\n",
            "bad name: x\r\n",
        ] {
            let block = HeaderBlock::parse(body.as_bytes()).unwrap();
            assert!(block.is_empty(), "{body:?}");
            assert_eq!(block.len(), 0);
        }
    }

    #[test]
    fn odd_but_accepted() {
        let message = b"A :1\nB\t:\n\t2\n\nbody";
        let block = HeaderBlock::parse(message).unwrap();
        assert_eq!(names(&block), ["A", "B"]);
        assert_eq!(block.find("a").unwrap().value(), "1");
        assert_eq!(block.find("b").unwrap().value(), "2");
        assert_eq!(&message[block.body_offset()..], b"body");
        let cut = HeaderBlock::parse(b"Subject: no line end").unwrap();
        assert_eq!(cut.find("Subject").unwrap().value(), "no line end");
        assert!(!cut.is_separated());
        let latin = HeaderBlock::parse(b"Subject: \xe4\r\n").unwrap();
        assert_eq!(latin.find("Subject").unwrap().value(), "\u{fffd}");
    }

    #[test]
    fn repeated_fields_are_all_found() {
        let block = HeaderBlock::parse(b"R: 1\r\nS: x\r\nr: 2\r\n\r\n").unwrap();
        let values: Vec<_> = block.find_all("R").map(|f| f.value()).collect();
        assert_eq!(values, ["1", "2"]);
    }

    #[test]
    fn bounds() {
        let long = [b"X: ".as_slice(), &vec![b'x'; MAX_HEADER_BYTES]].concat();
        assert_eq!(HeaderBlock::parse(&long).err(), Some(Error::HeaderTooLong));
        let folded = [b"X:".as_slice(), &b"\r\n x".repeat(MAX_HEADER_BYTES / 4)].concat();
        assert_eq!(HeaderBlock::parse(&folded).err(), Some(Error::HeaderTooLong));
        let many = b"a:\n".repeat(MAX_HEADER_FIELDS + 1);
        assert_eq!(HeaderBlock::parse(&many).err(), Some(Error::TooManyFields));
        let body = [b"X: y\r\n\r\n".as_slice(), &vec![b'x'; 2 * MAX_HEADER_BYTES]].concat();
        assert!(HeaderBlock::parse(&body).is_ok());
    }

    #[test]
    fn a_header_in_pieces() {
        let pieces = [Bytes::from_static(b"A: 1\r"), Bytes::from_static(b"\nB: 22\r\n\r\nbody")];
        assert_eq!(header_of(&pieces, 1000), b"A: 1\r\nB: 22\r\n");
        assert_eq!(header_of(&pieces, 10), b"A: 1\r\n");
        assert_eq!(header_of(&pieces, 3), b"");
        assert_eq!(header_of(&pieces[..1], 6), b"A: 1\r");
        assert_eq!(header_of(&[], 1000), b"");
    }

    fn put_together(message: &[u8]) -> Vec<u8> {
        let block = HeaderBlock::parse(message).unwrap();
        let mut all: Vec<u8> = block.fields().flat_map(|f| f.raw().to_vec()).collect();
        assert_eq!(all.len(), block.len());
        all.extend_from_slice(&message[block.len()..block.body_offset()]);
        all.extend_from_slice(&message[block.body_offset()..]);
        for field in block.fields() {
            assert!(!field.value().contains('\n'));
        }
        all
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole(message: Vec<u8>) {
            prop_assert_eq!(put_together(&message), message);
        }

        #[test]
        fn the_parts_of_mail_are_the_whole(text in "([A-Za-z-]{1,8}[ \t]?:[ -~]{0,9}(\r\n[ \t][ -~]{0,9}){0,2}\r?\n){0,6}(\r?\n)?[ -~\r\n]{0,30}") {
            prop_assert_eq!(put_together(text.as_bytes()), text.as_bytes());
        }
    }
}
