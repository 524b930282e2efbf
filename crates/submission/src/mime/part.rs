//! What the header of a part says of what is below it.

use super::names::{decode_extended, decode_percent, decode_words, split_charset};
use super::parameters::{Parameter, Parameters};

/// The header of a part or of a message, as far as it speaks of content.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PartHeader {
    /// Of the file, decoded: all that receivers may take for it.
    pub(super) names: Vec<String>,
    pub(super) content: Content,
    /// Whether it has a type; without, it is what its multipart says.
    pub(super) has_type: bool,
    /// The body is encoded as a whole, so that no part can be seen in it.
    pub(super) is_encoded: bool,
    /// Bytes of fields that were read.
    pub(super) work: u64,
}

/// What a body is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Content {
    /// Something without parts.
    #[default]
    Leaf,
    /// Parts between boundaries.
    Multipart { boundary: Option<Vec<u8>>, is_digest: bool },
    /// A whole message.
    Message,
}

impl PartHeader {
    /// Whether nothing below it can be refused: no name, no part.
    pub(super) fn is_plain(&self) -> bool {
        self.names.is_empty()
            && match self.content {
                Content::Leaf => true,
                Content::Multipart { .. } => false,
                Content::Message => self.is_encoded,
            }
    }

    /// Takes in a field, folded or not; others than those of MIME mean nothing.
    pub(crate) fn read(&mut self, name: &[u8], value: &[u8]) {
        if let Some(name) = FieldName::of(name) {
            self.read_field(name, value);
        }
    }

    pub(super) fn read_field(&mut self, name: FieldName, value: &[u8]) {
        match name {
            FieldName::Type => self.read_type(value),
            FieldName::Disposition => self.read_names(value, b"filename"),
            FieldName::Encoding => {
                let encoding = value.trim_ascii();
                self.is_encoded = [&b"base64"[..], b"quoted-printable"]
                    .iter()
                    .any(|known| encoding.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known)));
            }
        }
    }

    fn read_type(&mut self, value: &[u8]) {
        let kind = value.trim_ascii_start();
        let is = |prefix: &[u8]| kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let is_first = !std::mem::replace(&mut self.has_type, true);
        if is_first && is(b"multipart/") {
            let boundary = Parameters::of(value).find(|found| found.name.eq_ignore_ascii_case(b"boundary"));
            // RFC 2046 section 5.1.1: a boundary does not end with a blank.
            let boundary = boundary.map(|found| found.value.trim_ascii_end().to_vec()).filter(|text| !text.is_empty());
            self.content = Content::Multipart { boundary, is_digest: is(b"multipart/digest") };
            self.work += value.len() as u64;
        } else if is_first && (is(b"message/rfc822") || is(b"message/global")) {
            self.content = Content::Message;
        }
        self.read_names(value, b"name");
    }

    /// The names in the parameters that begin with `base`, of whatever form.
    fn read_names(&mut self, value: &[u8], base: &[u8]) {
        if !may_have(value, base) {
            return;
        }
        self.work += value.len() as u64;
        let mut sections = Vec::new();
        for Parameter { name, value, is_quoted } in Parameters::of(value) {
            let Some(suffix) = suffix(name, base) else { continue };
            match Suffix::of(suffix) {
                Some(Suffix::Plain) => {
                    self.names.push(decode_words(&value).into_owned());
                    // Without quotation marks the name may be what stands before a blank.
                    let word = value.iter().position(u8::is_ascii_whitespace).filter(|_| !is_quoted);
                    self.names.extend(word.map(|end| decode_words(&value[..end]).into_owned()));
                }
                Some(Suffix::Extended) => self.names.push(joined(&[(0, true, value)])),
                Some(Suffix::Section { number, is_extended }) => sections.push((number, is_extended, value)),
                None => {}
            }
        }
        if !sections.is_empty() {
            sections.sort_by_key(|(number, ..)| *number);
            self.names.push(joined(&sections));
        }
    }
}

/// The fields that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldName {
    Type,
    Disposition,
    Encoding,
}

impl FieldName {
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let known = [
            ("Content-Type", Self::Type),
            ("Content-Disposition", Self::Disposition),
            ("Content-Transfer-Encoding", Self::Encoding),
        ];
        known.into_iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, field)| field)
    }
}

/// What stands behind the base of a parameter's name.
enum Suffix {
    Plain,
    /// `*`: charset and language in front (RFC 2231 section 4).
    Extended,
    /// `*N` or `*N*`: one of several (RFC 2231 section 3).
    Section {
        number: u32,
        is_extended: bool,
    },
}

impl Suffix {
    fn of(suffix: &[u8]) -> Option<Self> {
        match suffix {
            b"" => Some(Self::Plain),
            b"*" => Some(Self::Extended),
            [b'*', rest @ ..] => {
                let digits = rest.strip_suffix(b"*");
                let number = std::str::from_utf8(digits.unwrap_or(rest)).ok()?.parse().ok()?;
                Some(Self::Section { number, is_extended: digits.is_some() })
            }
            _ => None,
        }
    }
}

fn suffix<'n>(name: &'n [u8], base: &[u8]) -> Option<&'n [u8]> {
    let (front, rest) = name.split_at_checked(base.len())?;
    front.eq_ignore_ascii_case(base).then_some(rest)
}

/// One value of its sections in their order. The charset is in the first one.
fn joined(sections: &[(u32, bool, std::borrow::Cow<'_, [u8]>)]) -> String {
    let (mut charset, mut bytes) = (&b""[..], Vec::new());
    for (index, (_, is_extended, value)) in sections.iter().enumerate() {
        match (is_extended, index) {
            (true, 0) => {
                let (named, text) = split_charset(value);
                charset = named;
                decode_percent(text, &mut bytes);
            }
            (true, _) => decode_percent(value, &mut bytes),
            (false, _) => bytes.extend_from_slice(value),
        }
    }
    if charset.is_empty() { decode_words(&bytes).into_owned() } else { decode_extended(charset, &bytes) }
}

/// Most mail has no name in its type: that is seen without reading the parameters.
fn may_have(value: &[u8], base: &[u8]) -> bool {
    let first = base[0];
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), value)
        .any(|at| value.get(at..at + base.len()).is_some_and(|found| found.eq_ignore_ascii_case(base)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(field: &str, value: &str) -> Vec<String> {
        let mut header = PartHeader::default();
        header.read(field.as_bytes(), value.as_bytes());
        header.names
    }

    #[test]
    fn names_are_found_in_every_form() {
        for (value, expected) in [
            ("attachment; filename=\"a.exe\"", &["a.exe"][..]),
            ("attachment; FileName=a.exe", &["a.exe"]),
            ("attachment; filename=my a.exe", &["my a.exe", "my"]),
            ("attachment; filename=a.exe (the file)", &["a.exe (the file)", "a.exe"]),
            ("attachment; filename*=utf-8''%61.exe", &["a.exe"]),
            ("attachment; filename=a.txt; filename*=utf-8''a%2Eexe", &["a.txt", "a.exe"]),
            ("attachment; filename*0=\"a.e\"; filename*1=xe", &["a.exe"]),
            ("attachment; filename*1=xe; filename*0=a.e", &["a.exe"]),
            ("attachment; filename*0*=utf-8''%C3%BC; filename*1=%41; filename*2*=%2Eexe", &["ü%41.exe"]),
            ("attachment; filename*10=e; filename*9=ex; filename*0=a.", &["a.exe"]),
            ("attachment; filename=\"=?utf-8?B?YS5leGU=?=\"", &["a.exe"]),
            ("attachment; filename*0=\"=?utf-8?B?YS5\"; filename*1=\"leGU=?=\"", &["a.exe"]),
            ("attachment;\r\n filename=\r\n \"a.exe\"", &["a.exe"]),
            ("attachment; filename*x=a.exe; filenames=b.exe; name=c.exe", &[]),
            ("inline", &[]),
        ] {
            assert_eq!(names("content-disposition", value), expected, "{value}");
        }
        assert_eq!(names("Content-Type", "application/x; name=a.exe"), ["a.exe"]);
        assert_eq!(names("Content-Type", "application/x; filename=a.exe"), [""; 0]);
        assert_eq!(names("Content-Description", "a.exe; name=b.exe"), [""; 0]);
    }

    #[test]
    fn content_is_told_by_its_type() {
        let content = |value: &str| {
            let mut header = PartHeader::default();
            header.read(b"Content-Type", value.as_bytes());
            header.content
        };
        let multipart = |boundary: &str, is_digest| Content::Multipart { boundary: Some(boundary.into()), is_digest };
        assert_eq!(content("Multipart/Mixed; Boundary=\"a b \""), multipart("a b", false));
        assert_eq!(content("multipart/digest; boundary=x"), multipart("x", true));
        assert_eq!(content("multipart/mixed; boundary=\"\""), Content::Multipart { boundary: None, is_digest: false });
        assert_eq!(content("message/rfc822"), Content::Message);
        for leaf in ["text/plain", "", "multi", "application/pkcs7-mime; smime-type=enveloped-data"] {
            assert_eq!(content(leaf), Content::Leaf, "{leaf}");
        }
    }
}
