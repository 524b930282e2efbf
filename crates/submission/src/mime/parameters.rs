//! The parameters of a MIME field (RFC 2045 section 5.1), as tolerant as receivers are.

use std::borrow::Cow;

/// The parameters of a field: names and values without quotation marks, in their order, every
/// one of them where a name is there twice.
pub(super) struct Parameters<'v> {
    rest: &'v [u8],
}

/// One parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameter<'v> {
    /// As written.
    pub(super) name: &'v [u8],
    pub(super) value: Cow<'v, [u8]>,
    pub(super) is_quoted: bool,
}

impl<'v> Parameters<'v> {
    /// Of the value of a field, folded or not.
    pub(super) fn of(value: &'v [u8]) -> Self {
        let (_, rest) = quoted_or_until_semicolon(value);
        Self { rest }
    }
}

impl<'v> Iterator for Parameters<'v> {
    type Item = Parameter<'v>;

    fn next(&mut self) -> Option<Parameter<'v>> {
        while !self.rest.is_empty() {
            let end = self.rest.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(self.rest.len());
            let name = without_comment(self.rest[..end].trim_ascii());
            if self.rest.get(end) != Some(&b'=') {
                self.rest = self.rest.get(end + 1..).unwrap_or_default();
                continue;
            }
            let value = self.rest[end + 1..].trim_ascii_start();
            if let Some(quoted) = value.strip_prefix(b"\"") {
                let (value, rest) = unquote(quoted);
                (_, self.rest) = quoted_or_until_semicolon(rest);
                return Some(Parameter { name, value, is_quoted: true });
            }
            let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
            self.rest = value.get(end + 1..).unwrap_or_default();
            return Some(Parameter { name, value: Cow::Borrowed(value[..end].trim_ascii()), is_quoted: false });
        }
        None
    }
}

/// What stands before the next semicolon outside of quotation marks, and what behind it.
fn quoted_or_until_semicolon(value: &[u8]) -> (&[u8], &[u8]) {
    let (mut is_quoted, mut at) = (false, 0);
    while let Some(byte) = value.get(at) {
        match byte {
            b';' if !is_quoted => return (&value[..at], &value[at + 1..]),
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => at += 1,
            _ => {}
        }
        at += 1;
    }
    (value, b"")
}

/// The text up to the closing quotation mark, or to the end, and what stands behind it. Line
/// ends of a folded value go, escaped characters stay without their backslash.
fn unquote(quoted: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let plain = quoted.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\r' | b'\n')).unwrap_or(quoted.len());
    if quoted.get(plain).is_none_or(|byte| *byte == b'"') {
        return (Cow::Borrowed(&quoted[..plain]), quoted.get(plain + 1..).unwrap_or_default());
    }
    let (mut text, mut at) = (Vec::with_capacity(quoted.len()), 0);
    while let Some(byte) = quoted.get(at) {
        match byte {
            b'"' => return (Cow::Owned(text), &quoted[at + 1..]),
            b'\\' => {
                text.extend(quoted.get(at + 1));
                at += 1;
            }
            b'\r' | b'\n' => {}
            _ => text.push(*byte),
        }
        at += 1;
    }
    (Cow::Owned(text), b"")
}

/// A comment may stand before a name.
fn without_comment(name: &[u8]) -> &[u8] {
    let end = name.strip_prefix(b"(").and_then(|rest| rest.iter().rposition(|byte| *byte == b')'));
    end.map_or(name, |end| name[end + 2..].trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Parameters::of(value.as_bytes()).map(|found| (text(found.name), text(&found.value))).collect()
    }

    #[test]
    fn parameters_are_read_as_receivers_do() {
        for (value, expected) in [
            ("text/plain", &[][..]),
            ("text/plain; charset=utf-8", &[("charset", "utf-8")]),
            ("a/b; name = \"x; y=1\" ; z=2", &[("name", "x; y=1"), ("z", "2")]),
            ("a/b; name=\"a\\\"b\\\\c\"", &[("name", "a\"b\\c")]),
            ("a/b; name=my file.exe ; b=c", &[("name", "my file.exe"), ("b", "c")]),
            ("a/b;;name=;c;d=e;", &[("name", ""), ("d", "e")]),
            ("a/b; name=\"open.exe", &[("name", "open.exe")]),
            ("a/b; name=\"x\r\n y.exe\"", &[("name", "x y.exe")]),
            ("a/b; name=one; name=two", &[("name", "one"), ("name", "two")]),
            ("a/b; (c) name=x", &[("name", "x")]),
            ("attachment filename=x.exe; filename=y", &[("filename", "y")]),
            ("\"odd; name=x\"; name=y", &[("name", "y")]),
            (
                "a/b; name*0*=utf-8''a; name*1=\".exe\" junk; q=1",
                &[("name*0*", "utf-8''a"), ("name*1", ".exe"), ("q", "1")],
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(read(value), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(value: Vec<u8>) {
            let total: usize = Parameters::of(&value).map(|found| found.name.len() + found.value.len()).sum();
            prop_assert!(total <= value.len());
        }

        #[test]
        fn any_text_is_read(value in "[a;=\"\\\\( )\r\n*]{0,40}") {
            let total: usize = Parameters::of(value.as_bytes()).map(|found| found.name.len() + found.value.len()).sum();
            prop_assert!(total <= value.len());
        }
    }
}
