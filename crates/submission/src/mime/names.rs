//! Names as people see them: encoded words (RFC 2047) and encoded parameters (RFC 2231).

use std::borrow::Cow;

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::parsers::MessageStream;
use memchr::{memchr, memmem};

/// Text with its encoded words decoded, also where none may stand, as inside of quotation
/// marks: many clients write them there, and receivers read them. What can not be decoded
/// stays as it is.
pub(crate) fn decode_words(text: &[u8]) -> Cow<'_, str> {
    decode(text, Undecodable::Stays)
}

/// The same of a name that people see. U+FFFD stands for each word that can not be decoded, and
/// for the beginning of each that is not whole, as for octets that are no UTF-8: receivers may
/// know, or guess, what they say.
pub(crate) fn decode_name(text: &[u8]) -> String {
    decode(text, Undecodable::Marked).into_owned()
}

/// What becomes of an encoded word in a charset or an encoding that is not known here, or
/// without an end where one belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Undecodable {
    Stays,
    Marked,
}

fn decode(text: &[u8], undecodable: Undecodable) -> Cow<'_, str> {
    if memmem::find(text, b"=?").is_none() {
        return String::from_utf8_lossy(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let (mut rest, mut after_word) = (text, false);
    while let Some(start) = memmem::find(rest, b"=?") {
        let before = &rest[..start];
        // RFC 2047 section 6.2: blanks between two words are not shown.
        let is_gap = after_word && before.iter().all(u8::is_ascii_whitespace);
        let word =
            word_len(&rest[start..]).and_then(|len| Some((len, decode_word(&rest[start..start + len], undecodable)?)));
        match word {
            Some((len, word)) => {
                if !is_gap {
                    decoded.push_str(&String::from_utf8_lossy(before));
                }
                decoded.push_str(&word);
                (rest, after_word) = (&rest[start + len..], true);
            }
            None => {
                decoded.push_str(&String::from_utf8_lossy(before));
                let is_marked = undecodable == Undecodable::Marked && begins_word(&rest[start..]);
                decoded.push_str(if is_marked { "\u{fffd}" } else { "=?" });
                (rest, after_word) = (&rest[start + 2..], false);
            }
        }
    }
    decoded.push_str(&String::from_utf8_lossy(rest));
    Cow::Owned(decoded)
}

/// The value of a parameter whose name ends with an asterisk: `charset'language'text`, with
/// `%` and two digits for some bytes (RFC 2231 section 4).
pub(super) fn decode_extended(charset: &[u8], bytes: &[u8]) -> String {
    match charset_decoder(charset) {
        Some(decode) => decode(bytes),
        None => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Splits off what stands before the second apostrophe: the charset.
pub(super) fn split_charset(value: &[u8]) -> (&[u8], &[u8]) {
    let split = |text: &[u8]| memchr(b'\'', text);
    let parts = split(value).and_then(|first| Some((first, first + 1 + split(&value[first + 1..])?)));
    parts.map_or((b"", value), |(first, second)| (&value[..first], &value[second + 1..]))
}

/// Appends `text` with each `%` and two digits decoded.
pub(super) fn decode_percent(text: &[u8], to: &mut Vec<u8>) {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                to.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                to.push(*byte);
                at += 1;
            }
        }
    }
}

/// Length of the encoded word that seems to begin here: `=?charset?encoding?text?=`. Each of
/// its parts has no question mark, so that a search is never longer than the parts.
fn word_len(text: &[u8]) -> Option<usize> {
    let charset = 2 + memchr(b'?', &text[2..])?;
    let encoding = charset + 1 + memchr(b'?', text.get(charset + 1..)?)?;
    let end = encoding + 1 + memchr(b'?', text.get(encoding + 1..)?)?;
    (text.get(end + 1) == Some(&b'=')).then_some(end + 2)
}

/// Whether an encoded word begins here, however it goes on: `=?charset?`, then `B?` or `Q?`.
/// There are receivers that decode what comes then, question marks in the text, and words
/// without an end.
fn begins_word(text: &[u8]) -> bool {
    let Some(charset) = memchr(b'?', &text[2..]) else { return false };
    let (charset, rest) = text[2..].split_at(charset);
    let is_encoding = matches!(rest, [b'?', b'B' | b'b' | b'Q' | b'q', b'?', ..]);
    is_encoding && !charset.iter().any(u8::is_ascii_whitespace)
}

fn decode_word(word: &[u8], undecodable: Undecodable) -> Option<String> {
    let marked = || char::REPLACEMENT_CHARACTER.to_string();
    if undecodable == Undecodable::Marked && !is_charset_known(word) {
        return Some(marked());
    }
    // The decoder begins behind the `=`.
    let decoded = MessageStream::new(&word[1..]).decode_rfc2047();
    decoded.or_else(|| (undecodable == Undecodable::Marked).then(marked))
}

/// The decoder takes words in other charsets for UTF-8.
fn is_charset_known(word: &[u8]) -> bool {
    let end = memchr(b'?', &word[2..]).map_or(word.len(), |len| 2 + len);
    // RFC 2231 section 5: a language may follow.
    let charset = word[2..end].split(|byte| *byte == b'*').next().unwrap_or_default();
    let is_utf8 = [&b"utf-8"[..], b"utf8"].iter().any(|utf8| utf8.eq_ignore_ascii_case(charset));
    is_utf8 || charset_decoder(charset).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_are_decoded_and_the_rest_stays() {
        for (text, decoded) in [
            ("report.exe", "report.exe"),
            ("=?utf-8?B?cmVwb3J0LmV4ZQ==?=", "report.exe"),
            ("=?UTF-8?q?J=C3=BCrgen_Gro=C3=9F?=", "Jürgen Groß"),
            ("=?iso-8859-1?Q?J=FCrgen?=.exe", "Jürgen.exe"),
            ("=?utf-8?Q?a=2E?=  =?utf-8?Q?exe?=", "a.exe"),
            ("a =?utf-8?Q?b?= c =?utf-8?Q?d?=", "a b c d"),
            ("=?utf-8*en?Q?a=2Eexe?=", "a.exe"),
            ("=?utf-8?X?a?= =?", "=?utf-8?X?a?= =?"),
            ("=?utf-8?Q?a", "=?utf-8?Q?a"),
            ("=?=?utf-8?Q?a?=", "=?a"),
        ] {
            assert_eq!(decode_words(text.as_bytes()), decoded, "{text}");
        }
    }

    #[test]
    fn what_of_a_name_can_not_be_read_is_marked() {
        for (name, decoded) in [
            (&b"=?iso-8859-1?Q?Jos=E9?="[..], "José"),
            (b"Jos\xe9", "Jos\u{fffd}"),
            (b"=?utf-8?Q?Jos=E9?=", "Jos\u{fffd}"),
            (b"The =?x-of-our-own?Q?Jos=E9?= X", "The \u{fffd} X"),
            (b"=?utf-32?B?AAAAQQ==?=", "\u{fffd}"),
            (b"=?UTF8*en?Q?a?= =?US-ASCII?Q?b?=", "ab"),
            (b"=?utf-8?X?a?=", "\u{fffd}"),
            (b"a =? b", "a =? b"),
            (b"=?utf-8?Q?J=6Fs?x?=", "\u{fffd}utf-8?Q?J=6Fs?x?="),
            (b"The =?utf-8?q?Adm=69n", "The \u{fffd}utf-8?q?Adm=69n"),
            (b"=?utf-8?B?QWRtaW4=? =", "\u{fffd}utf-8?B?QWRtaW4=? ="),
            (b"=?utf-8?Q?Adm=69n =?utf-8?Q?b?=", "\u{fffd}utf-8?Q?Adm=69n b"),
            (b"=?utf-8?Q?", "\u{fffd}utf-8?Q?"),
            (b"=?utf-8?Q=", "=?utf-8?Q="),
            (b"what =? the?Q?", "what =? the?Q?"),
            (b"=?", "=?"),
        ] {
            assert_eq!(decode_name(name), decoded, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn extended_values_are_decoded() {
        let decoded = |value: &[u8]| {
            let (charset, text) = split_charset(value);
            let mut bytes = Vec::new();
            decode_percent(text, &mut bytes);
            decode_extended(charset, &bytes)
        };
        for (value, expected) in [
            ("utf-8'en'J%C3%BCrgen%2eexe", "Jürgen.exe"),
            ("iso-8859-1''%FC.exe", "ü.exe"),
            ("utf-16''%FE%FF%00a%00.%00e%00x%00e", "a.exe"),
            ("nothing'at'100%.exe", "100%.exe"),
            ("no-apostrophe%2Eexe", "no-apostrophe.exe"),
            ("it's", "it's"),
            ("%", "%"),
            ("%4", "%4"),
        ] {
            assert_eq!(decoded(value.as_bytes()), expected, "{value}");
        }
    }
}
