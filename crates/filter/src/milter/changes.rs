//! What a filter wants to be other in a message, and the header that comes of it.

use std::borrow::Cow;

use postrider_mail::{Error, HeaderBlock, MAX_HEADER_BYTES, MAX_HEADER_FIELDS};

/// What a filter wants to be other in a message that is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In this order.
    pub header: Vec<HeaderChange>,
    /// It is to be held, for this reason: printable text on one line.
    pub quarantine: Option<String>,
    /// Changes that it was allowed to say and that are not made.
    pub ignored: u32,
    /// Values have the blank that is to stand before them.
    pub(super) has_space: bool,
}

/// One change of the header. What is in it can be written as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderChange {
    what: What,
    name: Vec<u8>,
    /// Behind the colon, with its line end; nothing where the field is to be removed.
    value: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// At the end.
    Add,
    /// Before the field at this place.
    Insert(usize),
    /// The field of its name with this number, the first being 1.
    Change(usize),
}

/// Longest line, without its end (RFC 5322 section 2.1.1): many hosts refuse longer ones.
const MAX_LINE: usize = 998;
/// Longest name of a field, so that there is room on its line.
const MAX_NAME: usize = 500;

impl HeaderChange {
    /// A field behind all others. `None` when it has no name that a field may have, or a line
    /// that is too long and has no blank to fold it at.
    #[must_use]
    pub fn add(name: &[u8], value: &[u8]) -> Option<Self> {
        Self::new(What::Add, name, Some(value))
    }

    /// A field before the one at `index`, where 0 is the first.
    #[must_use]
    pub fn insert(index: u32, name: &[u8], value: &[u8]) -> Option<Self> {
        Self::new(What::Insert(usize::try_from(index).unwrap_or(usize::MAX)), name, Some(value))
    }

    /// Another value for the field of this name with number `index`, the first being 1; a
    /// field behind all others where there are not so many. Without a value it is removed.
    #[must_use]
    pub fn change(index: u32, name: &[u8], value: &[u8]) -> Option<Self> {
        let index = usize::try_from(index).unwrap_or(usize::MAX).max(1);
        Self::new(What::Change(index), name, (!value.is_empty()).then_some(value))
    }

    fn new(what: What, name: &[u8], value: Option<&[u8]>) -> Option<Self> {
        // RFC 5322 section 3.6.8
        let is_name = |byte: &u8| (33..=126).contains(byte) && *byte != b':';
        if name.is_empty() || name.len() > MAX_NAME || !name.iter().all(is_name) {
            return None;
        }
        let value = match value {
            Some(value) => folded(value, name.len() + 2)?,
            None => Vec::new(),
        };
        Some(Self { what, name: name.to_owned(), value })
    }

    /// Bytes that it holds.
    pub(super) fn len(&self) -> usize {
        self.name.len() + self.value.len()
    }

    /// Whether it is about fields of this name, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    fn field(&self, has_space: bool) -> Vec<u8> {
        let mut field = Vec::with_capacity(self.len() + 2);
        field.extend_from_slice(&self.name);
        field.push(b':');
        // A filter that asked for it gives the blank itself.
        if !has_space {
            field.push(b' ');
        }
        field.extend_from_slice(&self.value);
        field
    }
}

impl Changes {
    /// `header` with the changes: whole fields, without the blank line behind them.
    ///
    /// # Errors
    /// [`Error::HeaderTooLong`] and [`Error::TooManyFields`].
    pub fn apply(&self, header: &[u8]) -> Result<Vec<u8>, Error> {
        let block = HeaderBlock::parse(header)?;
        let mut fields: Vec<(&[u8], Cow<'_, [u8]>)> =
            block.fields().map(|field| (field.name(), Cow::Borrowed(field.raw()))).collect();
        for change in &self.header {
            let field = || (&change.name[..], Cow::Owned(change.field(self.has_space)));
            match change.what {
                What::Add => fields.push(field()),
                What::Insert(at) => fields.insert(at.min(fields.len()), field()),
                What::Change(number) => {
                    let is_meant = |(name, _): &(&[u8], _)| name.eq_ignore_ascii_case(&change.name);
                    let at = (0..fields.len()).filter(|at| is_meant(&fields[*at])).nth(number - 1);
                    match (at, change.value.is_empty()) {
                        (Some(at), true) => drop(fields.remove(at)),
                        (Some(at), false) => fields[at] = field(),
                        (None, true) => {}
                        (None, false) => fields.push(field()),
                    }
                }
            }
        }
        if fields.len() > MAX_HEADER_FIELDS {
            return Err(Error::TooManyFields);
        }
        let changed = fields.iter().map(|(_, raw)| &**raw).collect::<Vec<_>>().concat();
        if changed.len() > MAX_HEADER_BYTES {
            return Err(Error::HeaderTooLong);
        }
        Ok(changed)
    }
}

/// A value with its line end, in which every line but the first begins with a blank, so that it
/// can not end the field (RFC 5322 section 2.2.3). Lines without anything but blanks are left out;
/// too long ones are folded at blanks, the first one with `before` bytes before it. `None` where
/// there is no blank.
fn folded(value: &[u8], before: usize) -> Option<Vec<u8>> {
    let mut written = Vec::with_capacity(value.len() + 2);
    for (number, line) in value.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii_end();
        if number > 0 {
            if line.trim_ascii().is_empty() {
                continue;
            }
            written.extend_from_slice(b"\r\n");
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                written.push(b'\t');
            }
        }
        // Room for the blank that may have been put before it.
        let room = MAX_LINE - if number == 0 { before } else { 1 };
        write_folded(&mut written, line, room)?;
    }
    written.extend_from_slice(b"\r\n");
    Some(written)
}

/// Writes a line, of which `room` bytes at most are on the first one.
fn write_folded(out: &mut Vec<u8>, line: &[u8], room: usize) -> Option<()> {
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    // No other control characters than tabs.
    let clean = |byte: &u8| if byte.is_ascii_control() && *byte != b'\t' { b'?' } else { *byte };
    let (mut line, mut room) = (line, room);
    while line.len() > room {
        let text = line.iter().position(|byte| !is_blank(byte))?;
        // Behind something that is no blank: a line of blanks alone is not folded (section 3.2.2).
        let at = line.get(text..=room)?.iter().rposition(is_blank)? + text;
        out.extend(line[..at].trim_ascii_end().iter().map(clean));
        out.extend_from_slice(b"\r\n");
        (line, room) = (&line[at..], MAX_LINE);
    }
    out.extend(line.iter().map(clean));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &[u8] = b"From: a@example.com\r\nX-A: one\r\nx-a: two\r\nSubject: hi\r\n";

    fn applied(header: Vec<HeaderChange>) -> String {
        let changes = Changes { header, ..Changes::default() };
        String::from_utf8(changes.apply(HEADER).unwrap()).unwrap()
    }

    #[test]
    fn fields_are_added_inserted_changed_and_removed() {
        let header = vec![
            HeaderChange::add(b"X-Last", b"z").unwrap(),
            HeaderChange::insert(0, b"X-First", b"a").unwrap(),
            HeaderChange::insert(99, b"X-End", b"e").unwrap(),
            HeaderChange::change(2, b"X-A", b"deux").unwrap(),
            HeaderChange::change(1, b"SUBJECT", b"").unwrap(),
            HeaderChange::change(5, b"X-B", b"new").unwrap(),
            HeaderChange::change(1, b"X-None", b"").unwrap(),
        ];
        let expected =
            "X-First: a\r\nFrom: a@example.com\r\nX-A: one\r\nX-A: deux\r\nX-Last: z\r\nX-End: e\r\nX-B: new\r\n";
        assert_eq!(applied(header), expected);
    }

    #[test]
    fn values_stay_in_their_field() {
        let header = vec![HeaderChange::add(b"X-A", b"b\r\nBcc: c@example.com\n\n \n\r\n\tfine\0\r").unwrap()];
        assert_eq!(applied(header).split_once("hi\r\n").unwrap().1, "X-A: b\r\n\tBcc: c@example.com\r\n\tfine?\r\n");
        let header = vec![HeaderChange::add(b"X-A", b" b").unwrap()];
        let spaced = Changes { header, has_space: true, ..Changes::default() };
        assert_eq!(spaced.apply(b"").unwrap(), b"X-A: b\r\n");
    }

    #[test]
    fn octets_above_127_pass_and_control_characters_do_not() {
        let header = vec![HeaderChange::add(b"X-A", b"Jos\xe9 \xc3\xa9\x07\x7f\xff").unwrap()];
        let changed = Changes { header, ..Changes::default() }.apply(b"").unwrap();
        assert_eq!(changed, b"X-A: Jos\xe9 \xc3\xa9??\xff\r\n");
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for bad in [&b""[..], b"X A", b"X:A", b"X\r\nA", b"\xc3\xa4", &[b'x'; MAX_NAME + 1]] {
            assert_eq!(HeaderChange::add(bad, b"b"), None);
        }
    }

    #[test]
    fn long_lines_are_folded_at_blanks_and_without_one_there_is_no_such_change() {
        let words = b"seven77 ".repeat(500);
        let header = vec![HeaderChange::add(b"X-A", &words).unwrap()];
        let applied = applied(header);
        let field = applied.split_once("hi\r\n").unwrap().1;
        assert!(field.lines().count() == 5 && field.lines().all(|line| line.len() <= MAX_LINE), "{field}");
        assert!(field.lines().skip(1).all(|line| line.starts_with(" seven77 ")), "{field}");
        assert_eq!(field.split_ascii_whitespace().count(), 501, "{field}");
        for (len, is_fine) in [(993, true), (994, false)] {
            assert_eq!(HeaderChange::add(b"X-A", &vec![b'x'; len]).is_some(), is_fine, "{len}");
        }
        let blanks = [&b"x"[..], &b" ".repeat(2_000), b"x"].concat();
        // A line of blanks alone is none.
        assert_eq!(HeaderChange::add(b"X-A", &blanks), None);
    }

    #[test]
    fn a_header_stays_within_its_bounds() {
        let long = HeaderChange::add(b"X-A", &b"sixteen letters ".repeat(3_750)).unwrap();
        let changes = Changes { header: vec![long; 20], ..Changes::default() };
        assert_eq!(changes.apply(HEADER), Err(Error::HeaderTooLong));
    }

    proptest! {
        #[test]
        fn whatever_is_added_is_one_field(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let change = HeaderChange::add(b"X-Added", &value).unwrap();
            let changes = Changes { header: vec![change], ..Changes::default() };
            let changed = changes.apply(HEADER).unwrap();
            let block = HeaderBlock::parse(&changed).unwrap();
            prop_assert_eq!(block.fields().len(), 5);
            prop_assert_eq!(block.len(), changed.len());
            prop_assert!(changed.starts_with(HEADER));
        }
    }
}
