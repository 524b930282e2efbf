//! Values of fields, as reports have them.

use mail_parser::parsers::MessageStream;
use mail_parser::{DateTime, HeaderValue};
use postrider_base::Timestamp;
use postrider_mail::{EmailAddress, HeaderBlock, sanitize_text};

/// Bytes kept of a value.
pub(crate) const MAX_TEXT: usize = 1_000;

/// The field's value as one printable line; `None` where it is empty.
pub(crate) fn text(header: &HeaderBlock<'_>, name: &str) -> Option<String> {
    let value = header.find(name)?.value();
    let value = sanitize_text(value.trim(), MAX_TEXT);
    (!value.is_empty()).then_some(value)
}

/// The field's value with its encoded words (RFC 2047) decoded, in lower case: for comparing.
pub(crate) fn decoded(header: &HeaderBlock<'_>, name: &str) -> Option<String> {
    let line = format!("{}\n", text(header, name)?);
    match MessageStream::new(line.as_bytes()).parse_unstructured() {
        HeaderValue::Text(text) => Some(text.trim().to_lowercase()),
        _ => None,
    }
}

/// The first address in a text: `<ann@example.com>`, `rfc822; ann@example.com`,
/// `"Ann" <ann@example.com> (her)`.
pub(crate) fn address(text: &str) -> Option<EmailAddress> {
    addresses(text).into_iter().next()
}

/// The addresses in a text, between blanks, commas and brackets.
pub(crate) fn addresses(text: &str) -> Vec<EmailAddress> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '(' | ')' | '[' | ']' | ',' | ';'));
    let words = words.map(|word| word.trim_matches(['"', '\'', ':', '.', '`']));
    let scheme = |word: &str| word.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("mailto:"));
    let bare = words.map(|word| if scheme(word) { &word[7..] } else { word });
    bare.filter(|word| word.contains('@')).filter_map(|word| word.parse().ok()).collect()
}

/// The moment that a date says (RFC 5322 section 3.3); `None` before 1970.
pub(crate) fn date(header: &HeaderBlock<'_>, name: &str) -> Option<Timestamp> {
    let date = DateTime::parse_rfc822(&text(header, name)?).filter(DateTime::is_valid)?;
    let seconds = u64::try_from(date.to_timestamp()).ok()?;
    seconds.checked_mul(1_000).map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_found_however_they_are_written() {
        for written in [
            "ann@example.com",
            " <ann@example.com> ",
            "rfc822; ann@example.com",
            "RFC822;ann@example.com",
            "rfc822; <ann@example.com> (expanded from <all>)",
            "\"Ann B.\" <ann@example.com>",
            "mailto:ann@example.com",
            "ann@example.com:",
        ] {
            assert_eq!(address(written), Some("ann@example.com".parse().unwrap()), "{written}");
        }
        for written in ["", "<>", "rfc822;", "redacted", "@", "a@", "CN=Ann/O=Example"] {
            assert_eq!(address(written), None, "{written}");
        }
        assert_eq!(addresses("a@example.com, b@example.com;<c@example.com>").len(), 3);
    }

    #[test]
    fn dates_and_encoded_words_are_read() {
        let header = HeaderBlock::parse(
            b"Date: Thu, 8 Mar 2005 14:00:00 -0800\r\nBad: yesterday\r\nSubject: =?utf-8?q?R=C3=A9ponse?= auto\r\n",
        )
        .unwrap();
        assert_eq!(date(&header, "Date"), Some(Timestamp::from_millis(1_110_319_200_000)));
        assert_eq!(date(&header, "Bad"), None);
        assert_eq!(date(&header, "None"), None);
        assert_eq!(decoded(&header, "Subject").as_deref(), Some("réponse auto"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(value in "\\PC{0,80}") {
            let _ = addresses(&value);
            let field = format!("Date: {value}\r\n");
            let header = HeaderBlock::parse(field.as_bytes()).unwrap();
            let _ = (date(&header, "Date"), decoded(&header, "Date"));
        }
    }
}
