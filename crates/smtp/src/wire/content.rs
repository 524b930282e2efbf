//! A list of buffers that make up one message, kept from falling to pieces.

use bytes::{Bytes, BytesMut};

/// Spans shorter than this are copied into a shared buffer. A `Bytes` handle
/// costs 32 bytes, so a message made of two-byte spans would otherwise take
/// many times its own size.
const SMALL: usize = 1024;

/// Collects the spans of one message: large ones are kept as they are, without
/// a copy; small ones are gathered, so that the number of chunks never exceeds
/// about two per KiB, however the input was cut.
#[derive(Debug, Default)]
pub struct ContentBuilder {
    chunks: Vec<Bytes>,
    tail: BytesMut,
    len: u64,
}

impl ContentBuilder {
    /// An empty message.
    pub fn new() -> ContentBuilder {
        ContentBuilder::default()
    }

    /// Appends a span. No bytes are copied if it has at least 1 KiB.
    pub fn push(&mut self, span: Bytes) {
        if span.len() < SMALL {
            self.push_slice(&span);
        } else {
            self.len += span.len() as u64;
            self.flush();
            self.chunks.push(span);
        }
    }

    /// Appends a copy of `span`.
    pub fn push_slice(&mut self, span: &[u8]) {
        self.len += span.len() as u64;
        self.tail.extend_from_slice(span);
    }

    /// Octets collected so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has been collected.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops everything collected and returns its memory.
    pub fn clear(&mut self) {
        *self = ContentBuilder::new();
    }

    /// Takes the chunks out, in order; none of them is empty.
    pub fn finish(&mut self) -> Vec<Bytes> {
        self.flush();
        self.len = 0;
        std::mem::take(&mut self.chunks)
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_spans_are_kept_and_small_ones_gathered() {
        let mut builder = ContentBuilder::new();
        let large = Bytes::from(vec![b'x'; 5000]);
        let address = large.as_ptr();
        builder.push_slice(b"a");
        builder.push(Bytes::from_static(b"b"));
        builder.push(large);
        builder.push_slice(b"c");
        assert_eq!(builder.len(), 5003);
        let chunks = builder.finish();
        assert_eq!(chunks.len(), 3);
        assert_eq!(&chunks[0][..], b"ab");
        assert_eq!(chunks[1].as_ptr(), address, "a large span must not be copied");
        assert_eq!(&chunks[2][..], b"c");
        assert!(builder.is_empty());
    }

    #[test]
    fn a_message_of_tiny_spans_stays_in_few_chunks() {
        let mut builder = ContentBuilder::new();
        for _ in 0..100_000 {
            builder.push(Bytes::from_static(b"\r\n"));
        }
        assert_eq!(builder.len(), 200_000);
        assert_eq!(builder.finish().len(), 1);
    }
}
