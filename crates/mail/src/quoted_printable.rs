//! The encoding that keeps text readable in seven bits (RFC 2045 section 6.7).

/// Most characters of an encoded line.
const MAX_LINE: usize = 76;

/// Text with CRLF line ends as quoted-printable: ASCII in lines of at most 76 characters. Octets
/// that are not ASCII, controls and stray line ends come back as they were.
pub fn quoted_printable(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut lines = text;
    while !lines.is_empty() {
        let end = memchr::memmem::find(lines, b"\r\n");
        encode_line(&mut out, &lines[..end.unwrap_or(lines.len())]);
        lines = match end {
            Some(end) => {
                out.push_str("\r\n");
                &lines[end + 2..]
            }
            None => &[],
        };
    }
    out
}

fn encode_line(out: &mut String, line: &[u8]) {
    let mut column = 0;
    for (place, octet) in line.iter().enumerate() {
        let is_last = place + 1 == line.len();
        let is_plain = match octet {
            // A blank at the end of a line might be taken away on the way.
            b' ' | b'\t' => !is_last,
            b'=' => false,
            octet => octet.is_ascii_graphic(),
        };
        let width = if is_plain { 1 } else { 3 };
        if column + width + usize::from(!is_last) > MAX_LINE {
            out.push_str("=\r\n");
            column = 0;
        }
        column += width;
        if is_plain {
            out.push(char::from(*octet));
        } else {
            out.push('=');
            out.extend([octet >> 4, octet & 15].map(|half| char::from(b"0123456789ABCDEF"[usize::from(half)])));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ascii_stays_readable() {
        assert_eq!(quoted_printable(b"Two lines\r\nand a tab\t.\r\n"), "Two lines\r\nand a tab\t.\r\n");
        assert_eq!(quoted_printable("Grüße = 1 \r\n\tEnde ".as_bytes()), "Gr=C3=BC=C3=9Fe =3D 1=20\r\n\tEnde=20");
        assert_eq!(quoted_printable(b"a\rb\nc\0"), "a=0Db=0Ac=00");
    }

    #[test]
    fn long_lines_are_broken_where_they_can_be_put_together() {
        assert_eq!(quoted_printable(&[b'x'; 76]), "x".repeat(76));
        assert_eq!(quoted_printable(&[b'x'; 77]), format!("{}=\r\nxx", "x".repeat(75)));
    }

    /// As RFC 2045 has it read.
    fn decode(text: &str) -> Vec<u8> {
        let text = text.replace("=\r\n", "");
        let mut octets = text.bytes();
        let mut decoded = Vec::new();
        while let Some(octet) = octets.next() {
            decoded.push(match octet {
                b'=' => {
                    let hex: String = octets.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&hex, 16).unwrap()
                }
                octet => octet,
            });
        }
        decoded
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_line_is_too_long(text in any::<Vec<u8>>(), long in "[ =a-zü\r\n]{0,300}") {
            for text in [&text[..], long.as_bytes()] {
                let encoded = quoted_printable(text);
                prop_assert!(encoded.is_ascii());
                prop_assert!(encoded.split("\r\n").all(|line| line.len() <= MAX_LINE));
                prop_assert!(!encoded.contains(" \r\n") && !encoded.ends_with(' '));
                prop_assert_eq!(decode(&encoded), text);
            }
        }
    }
}
