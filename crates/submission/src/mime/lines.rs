//! The lines of a body in pieces.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::{memchr, memmem};

/// Reads lines, or passes over them, without a copy where they lie in one piece.
pub(super) struct Lines<'b> {
    pieces: &'b [Bytes],
    /// The piece that is read, and how much of it has been.
    piece: usize,
    at: usize,
    dashes: memmem::Finder<'static>,
    /// How many bytes have been looked at.
    pub(super) work: u64,
}

impl<'b> Lines<'b> {
    pub(super) fn new(pieces: &'b [Bytes]) -> Self {
        Self { pieces, piece: 0, at: 0, dashes: memmem::Finder::new(b"\n--"), work: 0 }
    }

    /// The next line without its end, and of a longer one its first `max` bytes. To be asked
    /// at the beginning of a line, as [`Lines::next_with_dashes`] and this leave it.
    pub(super) fn next(&mut self, max: usize) -> Option<Cow<'b, [u8]>> {
        let rest = self.rest()?;
        if let Some(end) = memchr(b'\n', rest) {
            self.pass(end + 1);
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            return Some(Cow::Borrowed(&line[..line.len().min(max)]));
        }
        let mut line = Vec::new();
        while let Some(rest) = self.rest() {
            let end = memchr(b'\n', rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            // One more for the CR that may end it.
            let room = (max + 1).saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            self.pass(end.map_or(rest.len(), |end| end + 1));
            if end.is_some() {
                break;
            }
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line.truncate(max);
        Some(Cow::Owned(line))
    }

    /// The next line that begins with two hyphens, cut as by [`Lines::next`]; from the
    /// beginning of a line.
    pub(super) fn next_with_dashes(&mut self, max: usize) -> Option<Cow<'b, [u8]>> {
        let mut is_start = true;
        loop {
            if is_start && self.peek() == [Some(b'-'), Some(b'-')] {
                return self.next(max);
            }
            let rest = self.rest()?;
            if let Some(found) = self.dashes.find(rest) {
                self.pass(found + 1);
                is_start = true;
                continue;
            }
            // What this piece ends with may begin a line that the next one goes on with.
            let begun = usize::from(rest.ends_with(b"\n-"));
            is_start = begun > 0 || rest.ends_with(b"\n");
            self.pass(rest.len() - begun);
        }
    }

    /// What has not been read of the first piece that is not empty.
    fn rest(&mut self) -> Option<&'b [u8]> {
        loop {
            let rest = self.pieces.get(self.piece)?.get(self.at..).unwrap_or_default();
            if !rest.is_empty() {
                return Some(rest);
            }
            (self.piece, self.at) = (self.piece + 1, 0);
        }
    }

    fn pass(&mut self, count: usize) {
        self.at += count;
        self.work += count as u64;
    }

    /// The next two bytes.
    fn peek(&self) -> [Option<u8>; 2] {
        let here = self.pieces.get(self.piece).map_or(&[][..], |piece| &piece[self.at.min(piece.len())..]);
        let later = self.pieces.iter().skip(self.piece + 1).flat_map(|piece| piece.iter());
        let mut bytes = here.iter().chain(later).copied();
        [bytes.next(), bytes.next()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(text: &[u8], size: usize) -> Vec<Bytes> {
        text.chunks(size).flat_map(|piece| [Bytes::copy_from_slice(piece), Bytes::new()]).collect()
    }

    fn with_dashes(text: &[u8], size: usize) -> Vec<Vec<u8>> {
        let pieces = pieces(text, size);
        let mut lines = Lines::new(&pieces);
        std::iter::from_fn(|| lines.next_with_dashes(9).map(Cow::into_owned)).collect()
    }

    #[test]
    fn lines_are_whole_however_the_pieces_fall() {
        let text = b"--one\r\ntwo --\r\n\r\n-- three\n-\r\n----4567890ab\r\nx--\r\n--";
        for size in 1..60 {
            assert_eq!(with_dashes(text, size), [&b"--one"[..], b"-- three", b"----45678", b"--"], "{size}");
            let pieces = pieces(text, size);
            let mut lines = Lines::new(&pieces);
            let all: Vec<_> = std::iter::from_fn(|| lines.next(4).map(Cow::into_owned)).collect();
            let expected = ["--on", "two ", "", "-- t", "-", "----", "x--", "--"].map(|line| line.as_bytes().to_vec());
            assert_eq!(all, expected, "{size}");
            assert_eq!(lines.work, text.len() as u64);
        }
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(text in "[-\r\nab]{0,60}", size in 1_usize..9) {
            let expected: Vec<Vec<u8>> = text
                .split_inclusive('\n')
                .filter(|line| line.starts_with("--"))
                .map(|line| line.strip_suffix('\n').unwrap_or(line))
                .map(|line| line.strip_suffix('\r').unwrap_or(line))
                .map(|line| line.as_bytes()[..line.len().min(9)].to_vec())
                .collect();
            prop_assert_eq!(with_dashes(text.as_bytes(), size), expected);
        }
    }
}
