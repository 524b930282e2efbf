//! Text from the network made fit for a log line, a header field or a reply.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};

/// `text` as one printable line of at most `max` bytes of UTF-8.
///
/// Tabs become spaces. Control characters, line separators and the marks that
/// reorder text on a terminal become `?`; bytes that are not UTF-8 become
/// U+FFFD. The cut falls between characters.
pub fn sanitize_text(text: impl AsRef<[u8]>, max: usize) -> String {
    let bytes = text.as_ref();
    let mut clean = String::with_capacity(bytes.len().min(max));
    let chars = bytes.utf8_chunks().flat_map(|chunk| {
        let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(broken)
    });
    for c in chars {
        let c = match c {
            '\t' => ' ',
            c if is_unprintable(c) => '?',
            c => c,
        };
        if clean.len() + c.len_utf8() > max {
            break;
        }
        clean.push(c);
    }
    clean
}

/// Characters that end a line, command a terminal, or reorder what is shown.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Deserializes a type from its text form, without a copy of the text.
pub(crate) fn deserialize_from_str<'de, T, D>(deserializer: D, what: &'static str) -> Result<T, D::Error>
where
    T: FromStr,
    T::Err: fmt::Display,
    D: Deserializer<'de>,
{
    struct FromText<T>(&'static str, PhantomData<T>);

    impl<T: FromStr> Visitor<'_> for FromText<T>
    where
        T::Err: fmt::Display,
    {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(FromText(what, PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_and_controls_can_not_pass() {
        assert_eq!(sanitize_text("a\r\nb\0c\td", 100), "a??b?c d");
        assert_eq!(sanitize_text("\u{202e}x\u{2028}\u{1b}[2J", 100), "?x??[2J");
        assert_eq!(sanitize_text(b"\xff\xfe", 100), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_cut_falls_between_characters() {
        assert_eq!(sanitize_text("äöü", 4), "äö");
        assert_eq!(sanitize_text("äöü", 5), "äö");
        assert_eq!(sanitize_text("\u{1f600}", 3), "");
        assert_eq!(sanitize_text("abc", 0), "");
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_bounded_line(bytes: Vec<u8>, max in 0usize..64) {
            let text = sanitize_text(&bytes, max);
            prop_assert!(text.len() <= max);
            prop_assert!(!text.chars().any(is_unprintable));
        }
    }
}
