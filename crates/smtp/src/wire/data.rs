//! The content after DATA: from the wire to the message that is kept.

use bytes::{Buf, Bytes, BytesMut};

use super::text::{BareLineFeed, ContentFault, Stop, TextBuilder};

/// What [`DataDecoder::decode`] came to.
#[derive(Debug, PartialEq, Eq)]
pub enum DataProgress {
    /// The end has not been seen; call again with more input.
    More,
    /// The end-of-data line has been consumed. What follows in the input are
    /// commands. A message with a fault is not handed out.
    Done(Result<Vec<Bytes>, ContentFault>),
}

/// Decodes the content after DATA.
///
/// Only CRLF `.` CRLF ends it, always: no other sequence is ever taken for an
/// end of data, and none but CRLF for the end of a line, so two hosts can not
/// disagree about where a message ends. A dot at the start of a line is taken
/// off. A bare line feed becomes CRLF; a bare carriage return becomes a space
/// in the body and is a fault in the header. Long lines pass unchanged.
///
/// Spans that need no change are split off the input without a copy. After the
/// first fault nothing is kept, only the end is looked for.
#[derive(Debug)]
pub struct DataDecoder {
    text: TextBuilder,
}

impl DataDecoder {
    /// A decoder that keeps at most `limit` octets, counted after decoding.
    pub fn new(limit: u64, bare_line_feed: BareLineFeed) -> DataDecoder {
        DataDecoder { text: TextBuilder::new(limit, bare_line_feed) }
    }

    /// A decoder that only looks for the end and keeps nothing.
    pub fn discarding(fault: ContentFault) -> DataDecoder {
        let mut decoder = DataDecoder::new(0, BareLineFeed::Convert);
        decoder.discard(fault);
        decoder
    }

    /// Drops what was kept, and keeps nothing from now on. If there was no
    /// fault yet, it is this one.
    pub fn discard(&mut self, fault: ContentFault) {
        self.text.fail(fault);
    }

    /// Octets kept so far.
    pub fn kept(&self) -> u64 {
        self.text.kept()
    }

    /// Consumes what can be judged; at most two octets stay in `input`.
    pub fn decode(&mut self, input: &mut BytesMut) -> DataProgress {
        loop {
            if self.text.take(input, true) == Stop::End {
                return DataProgress::More;
            }
            match input[1..] {
                [] | [b'\r'] => return DataProgress::More,
                [b'\r', b'\n', ..] => {
                    input.advance(b".\r\n".len());
                    return DataProgress::Done(self.text.finish());
                }
                // RFC 5321 section 4.5.2: the first of them is taken off.
                _ => self.text.skip_dot(input),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::stuff;

    type Decoded = Result<Vec<u8>, ContentFault>;

    /// Feeds `wire` cut at the given sizes; returns what came and what was left.
    fn decode_cut(wire: &[u8], cuts: &[usize], limit: u64) -> Option<(Decoded, Vec<u8>)> {
        let mut decoder = DataDecoder::new(limit, BareLineFeed::Convert);
        let mut input = BytesMut::new();
        let mut rest = wire;
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
        while !rest.is_empty() {
            let size = cuts.next().unwrap_or(1).clamp(1, rest.len());
            input.extend_from_slice(&rest[..size]);
            rest = &rest[size..];
            if let DataProgress::Done(result) = decoder.decode(&mut input) {
                input.extend_from_slice(rest);
                return Some((result.map(|chunks| chunks.concat()), input.to_vec()));
            }
            assert!(input.len() <= 2, "only an undecided line end may stay");
        }
        None
    }

    fn decode(wire: &[u8]) -> Decoded {
        decode_cut(wire, &[], 1000).expect("an end of data").0
    }

    #[test]
    fn unstuffs_and_leaves_what_follows() {
        let (content, rest) = decode_cut(b"A: b\r\n\r\n..x\r\n.y\r\n.\r\nQUIT\r\n", &[], 1000).unwrap();
        assert_eq!(content.unwrap(), b"A: b\r\n\r\n.x\r\ny\r\n");
        assert_eq!(rest, b"QUIT\r\n");
    }

    #[test]
    fn an_empty_message_ends_at_once() {
        assert_eq!(decode(b".\r\n").unwrap(), b"");
    }

    #[test]
    fn nothing_but_crlf_dot_crlf_is_an_end() {
        for smuggled in [
            &b"a\n.\n"[..],
            b"a\n.\r\n",
            b"a\r.\r",
            b"a\r.\r\n",
            b"a\r\n.\n",
            b"a\r\n.\r",
            b"a\r\n.\r\r\n",
            b"a\r\r\n.\rx\n",
            b"a\n\r.\r\n",
            b"a\r\n..\r\n",
        ] {
            let mut wire = b"S: t\r\n\r\n".to_vec();
            wire.extend_from_slice(smuggled);
            assert_eq!(decode_cut(&wire, &[], 1000), None, "{smuggled:?}");
        }
    }

    #[test]
    fn bare_line_ends_are_normalised() {
        assert_eq!(decode(b"A: b\n\nx\ny\rz\r\r\n.\r\n").unwrap(), b"A: b\r\n\r\nx\r\ny z \r\n");
        assert_eq!(decode(b"A: b\rc\r\n\r\n.\r\n"), Err(ContentFault::BareCarriageReturn));
        // A line that only a bare line feed began is not a line of the wire.
        assert_eq!(decode(b"\r\na\n..b\r\n.\r\n").unwrap(), b"\r\na\r\n..b\r\n");
        let mut strict = DataDecoder::new(100, BareLineFeed::Reject);
        let mut input = BytesMut::from(&b"a\nb\r\n.\r\n"[..]);
        assert_eq!(strict.decode(&mut input), DataProgress::Done(Err(ContentFault::BareLineFeed)));
    }

    #[test]
    fn faults_are_found_and_the_end_still_is() {
        assert_eq!(decode(b"A: b\r\n\r\n\0\r\n.\r\n"), Err(ContentFault::Nul));
        let (result, rest) = decode_cut(b"12345678\r\n.\r\nRSET\r\n", &[], 9).unwrap();
        assert_eq!((result, &rest[..]), (Err(ContentFault::TooLong), &b"RSET\r\n"[..]));
        assert!(decode_cut(b"12345678\r\n.\r\n", &[], 10).unwrap().0.is_ok());
    }

    #[test]
    fn a_discarding_decoder_keeps_nothing() {
        let mut decoder = DataDecoder::discarding(ContentFault::TooLong);
        let mut input = BytesMut::from(&vec![b'x'; 100_000][..]);
        assert_eq!(decoder.decode(&mut input), DataProgress::More);
        assert!(input.is_empty() && decoder.kept() == 0);
    }

    #[test]
    fn unchanged_content_is_not_copied() {
        let mut wire = BytesMut::from(&b"Subject: x\r\n\r\n"[..]);
        wire.extend_from_slice(&b"0123456789abcdef\r\n".repeat(500));
        wire.extend_from_slice(b".\r\n");
        let address = wire.as_ptr();
        let mut decoder = DataDecoder::new(1 << 20, BareLineFeed::Convert);
        let DataProgress::Done(Ok(chunks)) = decoder.decode(&mut wire) else { panic!("no end") };
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].as_ptr(), address);
    }

    fn wire_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(&b"\r\n"[..]), 3 => Just(&b"."[..]), 1 => Just(&b"\r"[..]), 1 => Just(&b"\n"[..]),
            2 => Just(&b"\r\n.\r\n"[..]), 4 => Just(&b"ab"[..]), 1 => Just(&b"\xff"[..]),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn framing_is_the_same_for_every_cut(
            wire in wire_bytes(), cuts in proptest::collection::vec(1usize..5, 0..60), limit in 0u64..80,
        ) {
            prop_assert_eq!(decode_cut(&wire, &cuts, limit), decode_cut(&wire, &[], limit));
        }

        #[test]
        fn random_octets_never_panic(wire: Vec<u8>, cuts in proptest::collection::vec(1usize..9, 0..60)) {
            prop_assert_eq!(decode_cut(&wire, &cuts, 50), decode_cut(&wire, &[], 50));
        }

        #[test]
        fn stuffed_content_comes_back(
            lines in proptest::collection::vec("[.a ]{0,6}", 0..30), cut in 1usize..40,
            cuts in proptest::collection::vec(1usize..9, 0..60),
        ) {
            let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let chunks: Vec<Bytes> = content.as_bytes().chunks(cut).map(Bytes::copy_from_slice).collect();
            let mut wire = stuff(&chunks).concat();
            wire.extend_from_slice(b"NOOP\r\n");
            // The header rules do not matter here: there are no bare carriage returns.
            let (decoded, rest) = decode_cut(&wire, &cuts, 10_000).expect("an end of data");
            prop_assert_eq!(decoded.unwrap(), content.into_bytes());
            prop_assert_eq!(rest, b"NOOP\r\n".to_vec());
        }
    }
}
