//! Command and reply lines, bounded.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// What [`LineReader::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// No line end yet.
    Incomplete,
    /// A line, without its end.
    Full(Bytes),
    /// A line over the limit went by; its octets were dropped.
    TooLong,
}

/// Cuts lines off a buffer.
///
/// CRLF ends a line; a bare LF is tolerated here, where it can not move the
/// border of a message. A line over the limit is dropped as it comes, so the
/// buffer never has to hold more than the limit.
#[derive(Debug)]
pub struct LineReader {
    limit: usize,
    dropping: bool,
}

impl LineReader {
    /// A reader for lines of at most `limit` octets, line end included.
    pub fn new(limit: usize) -> LineReader {
        LineReader { limit, dropping: false }
    }

    /// Takes the next line off `input`.
    pub fn next(&mut self, input: &mut BytesMut) -> Line {
        match memchr(b'\n', input) {
            Some(end) if self.dropping || end >= self.limit => {
                input.advance(end + 1);
                self.dropping = false;
                Line::TooLong
            }
            Some(end) => {
                let mut line = input.split_to(end + 1).freeze();
                let crlf = line.ends_with(b"\r\n");
                line.truncate(end - usize::from(crlf));
                Line::Full(line)
            }
            None => {
                if self.dropping || input.len() >= self.limit {
                    self.dropping = true;
                    input.clear();
                }
                Line::Incomplete
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8], cut: usize, limit: usize) -> Vec<Line> {
        let mut reader = LineReader::new(limit);
        let mut buffer = BytesMut::new();
        let mut lines = Vec::new();
        for piece in input.chunks(cut) {
            buffer.extend_from_slice(piece);
            loop {
                match reader.next(&mut buffer) {
                    Line::Incomplete => break,
                    line => lines.push(line),
                }
            }
            assert!(buffer.len() < limit);
        }
        lines
    }

    #[test]
    fn the_limit_counts_the_line_end_and_does_not_depend_on_the_cut() {
        for cut in 1..12 {
            let lines = lines(b"NOOP\r\n12345678\r\n123456789\r\nRSET\n\n", cut, 10);
            let full = |text: &'static [u8]| Line::Full(Bytes::from_static(text));
            assert_eq!(lines, [full(b"NOOP"), full(b"12345678"), Line::TooLong, full(b"RSET"), full(b"")], "cut {cut}");
        }
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut reader = LineReader::new(100);
        let mut buffer = BytesMut::new();
        for _ in 0..1000 {
            buffer.extend_from_slice(&[b'x'; 99]);
            assert_eq!(reader.next(&mut buffer), Line::Incomplete);
            assert!(buffer.len() < 100);
        }
        buffer.extend_from_slice(b"\nQUIT\r\n");
        assert_eq!(reader.next(&mut buffer), Line::TooLong);
        assert_eq!(reader.next(&mut buffer), Line::Full(Bytes::from_static(b"QUIT")));
    }
}
