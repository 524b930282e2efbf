//! Command and reply lines, bounded.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// Octets that are kept of a line over the limit: a verb of four letters and
/// what ends it.
const KEPT: usize = 5;

/// What [`LineReader::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// No line end yet.
    Incomplete,
    /// A line, without its end.
    Full(Bytes),
    /// A line over the limit went by; only its first five octets were kept.
    TooLong(Bytes),
}

/// Cuts lines off a buffer.
///
/// CRLF ends a line; a bare LF is tolerated here, where it can not move the
/// border of a message. A line over the limit is dropped as it comes, so the
/// buffer never has to hold more than the limit.
#[derive(Debug)]
pub struct LineReader {
    limit: usize,
    /// The beginning of the line that is being dropped.
    dropping: Option<Bytes>,
}

impl LineReader {
    /// A reader for lines of at most `limit` octets, line end included.
    pub fn new(limit: usize) -> LineReader {
        LineReader { limit, dropping: None }
    }

    /// Takes the next line off `input`.
    pub fn next(&mut self, input: &mut BytesMut) -> Line {
        match memchr(b'\n', input) {
            Some(end) if self.dropping.is_some() || end >= self.limit => {
                let start = self.dropping.take().unwrap_or_else(|| start_of(input));
                input.advance(end + 1);
                Line::TooLong(start)
            }
            Some(end) => {
                let mut line = input.split_to(end + 1).freeze();
                let crlf = line.ends_with(b"\r\n");
                line.truncate(end - usize::from(crlf));
                Line::Full(line)
            }
            None => {
                if self.dropping.is_some() || input.len() >= self.limit {
                    self.dropping.get_or_insert_with(|| start_of(input));
                    input.clear();
                }
                Line::Incomplete
            }
        }
    }
}

/// A copy, so that a few octets do not keep a buffer alive.
fn start_of(line: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&line[..line.len().min(KEPT)])
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
            let too_long = Line::TooLong(Bytes::from_static(b"12345"));
            assert_eq!(lines, [full(b"NOOP"), full(b"12345678"), too_long, full(b"RSET"), full(b"")], "cut {cut}");
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
        assert_eq!(reader.next(&mut buffer), Line::TooLong(Bytes::from_static(b"xxxxx")));
        assert_eq!(reader.next(&mut buffer), Line::Full(Bytes::from_static(b"QUIT")));
    }
}
