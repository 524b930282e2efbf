//! The two canonical forms that we sign in: of the header relaxed, of the body simple.

use aws_lc_rs::digest::{Context, Digest, SHA256};

/// Appends the relaxed form of a field without a line end. RFC 6376 section 3.4.2: the name
/// in lower case, the value unfolded, its runs of spaces and tabs as one space, none at its
/// ends.
pub(super) fn relaxed(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let start = out.len();
    let mut space = false;
    for &byte in value {
        match byte {
            b' ' | b'\t' => space = true,
            b'\r' | b'\n' => {}
            _ => {
                if space && out.len() > start {
                    out.push(b' ');
                }
                space = false;
                out.push(byte);
            }
        }
    }
}

/// The hash of a body in the simple form, fed in pieces. RFC 6376 section 3.4.3: the empty
/// lines at the end are one line end, which is added where there is none.
pub(super) struct BodyHasher {
    context: Context,
    /// Line ends seen that count only if something follows.
    ends: usize,
    /// A carriage return after them that may be the first half of one more.
    half: bool,
}

impl BodyHasher {
    pub(super) fn new() -> Self {
        Self { context: Context::new(&SHA256), ends: 0, half: false }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        let tail_at = piece.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let (text, tail) = piece.split_at(tail_at);
        if !text.is_empty() {
            // A pending half may be completed by the text's first byte.
            let rest = match text {
                [b'\n', rest @ ..] if self.half => {
                    self.half = false;
                    self.ends += 1;
                    rest
                }
                _ => text,
            };
            self.flush();
            self.context.update(rest);
        }
        for &byte in tail {
            match (byte, self.half) {
                (b'\n', true) => {
                    self.half = false;
                    self.ends += 1;
                }
                (b'\n', false) => {
                    self.flush();
                    self.context.update(b"\n");
                }
                // A carriage return.
                (_, true) => {
                    self.flush();
                    self.half = true;
                }
                (_, false) => self.half = true,
            }
        }
    }

    pub(super) fn finish(mut self) -> Digest {
        if self.half {
            self.flush();
        }
        self.context.update(b"\r\n");
        self.context.finish()
    }

    /// What was held back is text after all.
    fn flush(&mut self) {
        const ENDS: &[u8] = b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";
        while self.ends > 0 {
            let now = self.ends.min(ENDS.len() / 2);
            self.context.update(&ENDS[..2 * now]);
            self.ends -= now;
        }
        if std::mem::take(&mut self.half) {
            self.context.update(b"\r");
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;
    use postrider_mail::HeaderBlock;
    use proptest::prelude::*;

    use super::*;

    fn header(text: &[u8]) -> Vec<u8> {
        let block = HeaderBlock::parse(text).unwrap();
        let mut out = Vec::new();
        for field in block.fields() {
            relaxed(field.name(), field.raw_value(), &mut out);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    #[test]
    fn a_relaxed_field_is_as_the_rfc_shows_it() {
        // RFC 6376 section 3.4.5
        assert_eq!(header(b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n"), b"a:X\r\nb:Y Z\r\n");
        assert_eq!(header(b"Empty:\r\nBlank: \t \r\n\r\n"), b"empty:\r\nblank:\r\n");
        assert_eq!(header(b"X: a\x0c b\xc3\xa9  c\r\n\r\n"), b"x:a\x0c b\xc3\xa9 c\r\n");
    }

    /// The form as the RFC words it, on a whole body.
    fn simple(body: &[u8]) -> Vec<u8> {
        let mut body = body;
        while let Some(shorter) = body.strip_suffix(b"\r\n") {
            body = shorter;
        }
        [body, b"\r\n"].concat()
    }

    fn hash(pieces: &[&[u8]]) -> Digest {
        let mut hasher = BodyHasher::new();
        pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    #[test]
    fn a_body_ends_in_one_line_end() {
        for body in
            ["", "\r\n", "\r\n\r\n", "a", "a\r\n", "a\r\n\r\n\r\n", "\r\n\r\na", "a \r\n \r\n", "a\n", "a\r", "a\r\r\n"]
        {
            let expected = digest(&SHA256, &simple(body.as_bytes()));
            assert_eq!(hash(&[body.as_bytes()]).as_ref(), expected.as_ref(), "{body:?}");
        }
        let long = "\r\n".repeat(100) + "x";
        assert_eq!(hash(&[long.as_bytes()]).as_ref(), digest(&SHA256, (long + "\r\n").as_bytes()).as_ref());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in "[a \r\n]{0,24}", cuts in prop::collection::vec(0usize..24, 0..4)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.sort_unstable();
            let mut hasher = BodyHasher::new();
            let mut at = 0;
            for cut in cuts.into_iter().chain([body.len()]) {
                hasher.update(&body.as_bytes()[at..cut]);
                at = cut;
            }
            let (found, expected) = (hasher.finish(), digest(&SHA256, &simple(body.as_bytes())));
            prop_assert_eq!(found.as_ref(), expected.as_ref());
        }
    }
}
