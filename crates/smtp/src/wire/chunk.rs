//! The content after BDAT (RFC 3030): from the wire to the message that is kept.

use bytes::{Buf, Bytes, BytesMut};

use super::text::{BareLineFeed, ContentFault, TextBuilder};

/// Decodes the chunks of one message.
///
/// The size in the BDAT command alone says where a chunk ends: nothing in it
/// can end it earlier, and no octet behind it is touched. Text is treated as
/// after DATA, except that dots mean nothing: line ends become CRLF, wherever
/// the chunks are cut, and the last line gets one. Binary content stays as it is.
///
/// Spans that need no change are split off the input without a copy. After the
/// first fault nothing is kept, only counted.
#[derive(Debug)]
pub struct ChunkDecoder {
    text: TextBuilder,
    binary: bool,
    /// Octets of the chunk that are still to come.
    left: u64,
    /// The last octet was a carriage return; the next one says what it means.
    held: bool,
}

impl ChunkDecoder {
    /// A decoder for text that keeps at most `limit` octets, counted after decoding.
    pub fn text(limit: u64, bare_line_feed: BareLineFeed) -> ChunkDecoder {
        ChunkDecoder { text: TextBuilder::new(limit, bare_line_feed), binary: false, left: 0, held: false }
    }

    /// A decoder for BODY=BINARYMIME (RFC 3030 section 3) that keeps at most `limit` octets.
    pub fn binary(limit: u64) -> ChunkDecoder {
        ChunkDecoder { binary: true, ..ChunkDecoder::text(limit, BareLineFeed::Convert) }
    }

    /// A decoder that only finds the ends of chunks and keeps nothing.
    pub fn discarding(fault: ContentFault) -> ChunkDecoder {
        let mut decoder = ChunkDecoder::binary(0);
        decoder.discard(fault);
        decoder
    }

    /// Drops what was kept, and keeps nothing from now on. If there was no
    /// fault yet, it is this one.
    pub fn discard(&mut self, fault: ContentFault) {
        self.text.fail(fault);
    }

    /// A chunk of so many octets follows. The one before it is over.
    pub fn begin(&mut self, octets: u64) {
        self.left = octets;
    }

    /// Consumes what belongs to the chunk, and nothing else; true when it is whole.
    pub fn decode(&mut self, input: &mut BytesMut) -> bool {
        let here = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
        self.left -= here as u64;
        if self.text.fault().is_some() {
            input.advance(here);
        } else if here > 0 {
            let octets = input.split_to(here);
            if self.binary { self.text.raw(octets) } else { self.take_text(octets) }
        }
        self.left == 0
    }

    /// What is wrong with the message so far.
    pub fn fault(&self) -> Option<ContentFault> {
        self.text.fault()
    }

    /// Octets kept so far.
    pub fn kept(&self) -> u64 {
        self.text.kept()
    }

    /// The message, after its last chunk.
    pub fn finish(&mut self) -> Result<Vec<Bytes>, ContentFault> {
        if std::mem::take(&mut self.held) {
            self.text.bare_carriage_return();
        }
        if !self.binary {
            self.text.complete();
        }
        self.text.finish()
    }

    fn take_text(&mut self, mut octets: BytesMut) {
        if std::mem::take(&mut self.held) {
            if octets.first() == Some(&b'\n') {
                octets.advance(1);
                self.text.line_end();
            } else {
                self.text.bare_carriage_return();
            }
        }
        self.text.take(&mut octets, false);
        self.held = !octets.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{DataDecoder, DataProgress, stuff};

    type Decoded = Result<Vec<u8>, ContentFault>;

    /// Sends the chunks, each cut at the given sizes, with other octets behind it.
    fn decode_cut(mut decoder: ChunkDecoder, chunks: &[&[u8]], cuts: &[usize]) -> Decoded {
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
        for chunk in chunks {
            decoder.begin(chunk.len() as u64);
            let mut input = BytesMut::new();
            let mut rest = *chunk;
            while !rest.is_empty() {
                let size = cuts.next().unwrap_or(1).clamp(1, rest.len());
                input.extend_from_slice(&rest[..size]);
                rest = &rest[size..];
                if rest.is_empty() {
                    input.extend_from_slice(b"BDAT 0 LAST\r\n");
                }
                assert_eq!(decoder.decode(&mut input), rest.is_empty());
            }
            assert!(rest.is_empty() && (chunk.is_empty() || &input[..] == b"BDAT 0 LAST\r\n"));
        }
        decoder.finish().map(|content| content.concat())
    }

    fn text(chunks: &[&[u8]]) -> Decoded {
        decode_cut(ChunkDecoder::text(1000, BareLineFeed::Convert), chunks, &[])
    }

    #[test]
    fn dots_and_ends_of_data_are_text() {
        assert_eq!(text(&[b"S: x\r\n\r\n..a\r\n.\r\n.b\r\n"]).unwrap(), b"S: x\r\n\r\n..a\r\n.\r\n.b\r\n");
    }

    #[test]
    fn a_line_end_may_lie_across_chunks() {
        for chunks in [&[&b"a\r\nb\r\n"[..]][..], &[b"a\r", b"\nb\r\n"], &[b"a\r", b"", b"\n", b"b\r", b"\n"]] {
            assert_eq!(text(chunks).unwrap(), b"a\r\nb\r\n", "{chunks:?}");
        }
    }

    #[test]
    fn text_is_mended_as_after_data() {
        assert_eq!(text(&[b"A: b\n\nx\ny\rz\r\n"]).unwrap(), b"A: b\r\n\r\nx\r\ny z\r\n");
        assert_eq!(text(&[b"\r\nx\r", b"y\r", b""]).unwrap(), b"\r\nx y \r\n");
        assert_eq!(text(&[b"A: b\r", b"c"]), Err(ContentFault::BareCarriageReturn));
        assert_eq!(text(&[b"A: b\r"]), Err(ContentFault::BareCarriageReturn));
        assert_eq!(text(&[b"\r\n\0"]), Err(ContentFault::Nul));
        assert_eq!(text(&[]).unwrap(), b"");
        let strict = ChunkDecoder::text(1000, BareLineFeed::Reject);
        assert_eq!(decode_cut(strict, &[b"a\r", b"\nb", b"\n"], &[]), Err(ContentFault::BareLineFeed));
    }

    #[test]
    fn too_much_is_told_after_the_chunk() {
        let mut decoder = ChunkDecoder::binary(5);
        decoder.begin(4);
        assert!(decoder.decode(&mut BytesMut::from(&b"1234"[..])));
        assert_eq!((decoder.fault(), decoder.kept()), (None, 4));
        decoder.begin(u64::MAX);
        let mut input = BytesMut::from(&b"56"[..]);
        assert!(!decoder.decode(&mut input));
        assert!(input.is_empty());
        assert_eq!((decoder.fault(), decoder.kept()), (Some(ContentFault::TooLong), 0));
        assert_eq!(decoder.finish(), Err(ContentFault::TooLong));
    }

    #[test]
    fn a_large_chunk_is_not_copied() {
        for mut decoder in [ChunkDecoder::binary(1 << 20), ChunkDecoder::text(1 << 20, BareLineFeed::Convert)] {
            let mut input = BytesMut::from(&b"0123456789abcdef\r\n".repeat(500)[..]);
            let address = input.as_ptr();
            decoder.begin(input.len() as u64);
            assert!(decoder.decode(&mut input));
            let content = decoder.finish().unwrap();
            assert_eq!((content.len(), content[0].as_ptr()), (1, address));
        }
    }

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let piece = prop_oneof![
            4 => Just(&b"\r\n"[..]), 3 => Just(&b"."[..]), 2 => Just(&b"\r"[..]), 1 => Just(&b"\n"[..]),
            4 => Just(&b"ab"[..]), 1 => Just(&b"\xff"[..]),
        ];
        let chunk = proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat());
        proptest::collection::vec(chunk, 0..8)
    }

    proptest! {
        #[test]
        fn binary_content_stays_as_it_is(chunks: Vec<Vec<u8>>, cuts in proptest::collection::vec(1usize..9, 0..60)) {
            let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(decode_cut(ChunkDecoder::binary(u64::MAX), &slices, &cuts), Ok(chunks.concat()));
        }

        /// Neither the cut into chunks nor the cut into reads can be seen.
        #[test]
        fn text_is_the_same_for_every_cut(
            chunks in pieces(), cuts in proptest::collection::vec(1usize..9, 0..60), limit in 0u64..80,
        ) {
            let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let decoder = || ChunkDecoder::text(limit, BareLineFeed::Convert);
            prop_assert_eq!(decode_cut(decoder(), &slices, &cuts), decode_cut(decoder(), &[&chunks.concat()], &[]));
        }

        /// What DATA makes of stuffed text, BDAT makes of the text itself.
        #[test]
        fn both_ways_in_lead_to_the_same_text(text in "(\r\n)?([.a]|\r\n|\ra){0,30}\r\n") {
            let text = text.into_bytes();
            let mut wire = BytesMut::from(&stuff(&[Bytes::from(text.clone())]).concat()[..]);
            let mut data = DataDecoder::new(1000, BareLineFeed::Convert);
            let DataProgress::Done(by_data) = data.decode(&mut wire) else { panic!("no end") };
            let by_chunks = decode_cut(ChunkDecoder::text(1000, BareLineFeed::Convert), &[&text], &[]);
            prop_assert_eq!(by_data.map(|content| content.concat()), by_chunks);
        }
    }
}
