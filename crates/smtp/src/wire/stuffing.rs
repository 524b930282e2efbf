//! Message content made ready for DATA.

use bytes::Bytes;
use memchr::memmem::Finder;

use super::ContentBuilder;

/// Encodes content for the wire: a second dot before every line that begins
/// with one (RFC 5321 section 4.5.2), CRLF after a last line that has none, and
/// the end-of-data line.
///
/// `content` is text with CRLF line ends, cut anywhere. Where no line begins
/// with a dot the chunks are handed on without a copy.
pub fn stuff(content: &[Bytes]) -> Vec<Bytes> {
    let finder = Finder::new(b"\n.");
    let mut wire = ContentBuilder::new();
    let mut last_two = *b"\r\n";
    for chunk in content.iter().filter(|chunk| !chunk.is_empty()) {
        if last_two[1] == b'\n' && chunk[0] == b'.' {
            wire.push_slice(b".");
        }
        let mut from = 0;
        while let Some(at) = finder.find(&chunk[from..]) {
            // The dot ends this span and begins the next one: there it is doubled.
            let dot = from + at + 1;
            wire.push(chunk.slice(from..=dot));
            from = dot;
        }
        wire.push(chunk.slice(from..));
        last_two = match chunk[..] {
            [.., a, b] => [a, b],
            [b] => [last_two[1], b],
            [] => last_two,
        };
    }
    let end: &[u8] = if last_two == *b"\r\n" { b".\r\n" } else { b"\r\n.\r\n" };
    wire.push_slice(end);
    wire.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(chunks: &[&'static str]) -> String {
        let chunks: Vec<Bytes> = chunks.iter().map(|chunk| Bytes::from_static(chunk.as_bytes())).collect();
        String::from_utf8(stuff(&chunks).concat()).unwrap()
    }

    #[test]
    fn leading_dots_are_doubled_across_chunks() {
        assert_eq!(stuffed(&[".a\r\n.\r\nb.c\r\n"]), "..a\r\n..\r\nb.c\r\n.\r\n");
        assert_eq!(stuffed(&["a\r\n", ".b\r\n"]), "a\r\n..b\r\n.\r\n");
        assert_eq!(stuffed(&["a\r", "\n", ".", "b\r\n"]), "a\r\n..b\r\n.\r\n");
        assert_eq!(stuffed(&["a", ".b", "\r\n"]), "a.b\r\n.\r\n");
        assert_eq!(stuffed(&["..\r\n...\r\n"]), "...\r\n....\r\n.\r\n");
    }

    #[test]
    fn the_end_is_always_a_line_of_its_own() {
        assert_eq!(stuffed(&[]), ".\r\n");
        assert_eq!(stuffed(&["a"]), "a\r\n.\r\n");
        assert_eq!(stuffed(&["a\r", "\n"]), "a\r\n.\r\n");
        assert_eq!(stuffed(&["a\r"]), "a\r\r\n.\r\n");
    }

    #[test]
    fn content_without_leading_dots_is_not_copied() {
        let body = Bytes::from("line.\r\n".repeat(1000));
        let wire = stuff(std::slice::from_ref(&body));
        assert_eq!(wire.len(), 2);
        assert_eq!(wire[0].as_ptr(), body.as_ptr());
        assert_eq!(&wire[1][..], b".\r\n");
    }
}
