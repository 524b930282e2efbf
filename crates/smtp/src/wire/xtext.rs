//! The xtext encoding of parameter values (RFC 3461 section 4).

use std::fmt::Write;

/// Decodes xtext; `None` if it is malformed or does not stand for printable
/// ASCII or UTF-8 text (a decoded control character could end a line later).
pub fn decode_xtext(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'+' => {
                let (high, low) = (hex_digit(octets.next()?)?, hex_digit(octets.next()?)?);
                decoded.push(high * 16 + low);
            }
            b'=' => return None,
            octet => decoded.push(octet),
        }
    }
    let decoded = String::from_utf8(decoded).ok()?;
    (!decoded.chars().any(char::is_control)).then_some(decoded)
}

/// Encodes text as xtext.
pub fn encode_xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'!'..=b'~' if octet != b'+' && octet != b'=' => encoded.push(char::from(octet)),
            _ => {
                // Writing to a String can not fail.
                let _ = write!(encoded, "+{octet:02X}");
            }
        }
    }
    encoded
}

/// Encodes an address of the type `utf-8` so that a host without SMTPUTF8 can
/// be given it: other characters than printable ASCII as `\x{HEX}` (RFC 6533 section 3).
pub fn encode_utf8_address(address: &str) -> String {
    let mut encoded = String::with_capacity(address.len());
    for c in address.chars() {
        match c {
            '!'..='~' if c != '+' && c != '=' => encoded.push(c),
            _ => {
                // Writing to a String can not fail.
                let _ = write!(encoded, "\\x{{{:X}}}", u32::from(c));
            }
        }
    }
    encoded
}

/// RFC 3461 section 4: only upper case digits.
fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_xtext_is_refused() {
        for bad in ["+", "+4", "+4g", "+4a", "a=b", "+0D+0A", "+00", "+FF"] {
            assert_eq!(decode_xtext(bad), None, "{bad}");
        }
        assert_eq!(decode_xtext("a+2Bb+3D").as_deref(), Some("a+b="));
    }

    #[test]
    fn addresses_of_the_type_utf8_become_ascii() {
        assert_eq!(encode_utf8_address("Jos\u{e9}+x@b.example"), "Jos\\x{E9}\\x{2B}x@b.example");
        // What came encoded stays.
        assert_eq!(encode_utf8_address("\\x{E9}@b.example"), "\\x{E9}@b.example");
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(text in "\\PC{0,20}") {
            let encoded = encode_xtext(&text);
            prop_assert!(encoded.bytes().all(|octet| octet.is_ascii_graphic()));
            prop_assert_eq!(decode_xtext(&encoded), Some(text));
        }
    }
}
