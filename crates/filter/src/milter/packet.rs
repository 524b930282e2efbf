//! Packets: a length, a letter, and what the letter says.

use bytes::{Buf, Bytes, BytesMut};

/// Longest packet of a filter that is read, without its length; libmilter sends 65,535 bytes of
/// data at most.
pub const MAX_PACKET: usize = 64 * 1024;

/// What a filter does that the protocol does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A packet that is empty or too long.
    #[error("a packet of {0} bytes")]
    Length(u32),
    /// A reply that cannot be read, by its letter.
    #[error("a reply {0:?} that cannot be read")]
    Reply(char),
    /// A reply that has no place here, by its letter.
    #[error("a reply {0:?} where it has no place")]
    Unexpected(char),
    /// It wants what was not offered: a version, actions or steps.
    #[error("it asks for {0}, which was not offered")]
    NotOffered(String),
    /// It changes more than a message may have.
    #[error("it makes too many changes")]
    TooMuch,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is.
    pub letter: u8,
    /// What it says.
    pub data: Bytes,
}

/// Cuts what a filter sends into packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketParser;

impl PacketParser {
    /// Takes a packet off the front of `input`; `None` when it has not come whole.
    ///
    /// # Errors
    /// [`Fault::Length`].
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Packet>, Fault> {
        let Some(length) = input.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        if len == 0 || len > MAX_PACKET {
            return Err(Fault::Length(length));
        }
        if input.len() < 4 + len {
            return Ok(None);
        }
        input.advance(4);
        let mut packet = input.split_to(len);
        let letter = packet.get_u8();
        Ok(Some(Packet { letter, data: packet.freeze() }))
    }
}

/// Appends a packet whose data is `parts`, one after the other.
pub(super) fn write(out: &mut Vec<u8>, letter: u8, parts: &[&[u8]]) {
    write_head(out, letter, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends what stands before `len` bytes of data.
pub(super) fn write_head(out: &mut Vec<u8>, letter: u8, len: usize) {
    // What is sent is a part of a message, all of which is shorter than that.
    let length = u32::try_from(len + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(letter);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packets(wire: &[u8], cut: Option<usize>) -> (Vec<Packet>, Option<Fault>) {
        let (mut input, mut parser, mut packets) = (BytesMut::new(), PacketParser, Vec::new());
        let cut = cut.unwrap_or(wire.len()).min(wire.len());
        for part in [&wire[..cut], &wire[cut..]] {
            input.extend_from_slice(part);
            loop {
                match parser.next(&mut input) {
                    Ok(Some(packet)) => packets.push(packet),
                    Ok(None) => break,
                    Err(fault) => return (packets, Some(fault)),
                }
            }
        }
        (packets, None)
    }

    #[test]
    fn packets_are_cut_where_they_end() {
        let mut wire = Vec::new();
        write(&mut wire, b'c', &[]);
        write(&mut wire, b'y', &[b"550 ", b"no\0"]);
        let packet = |letter, data: &'static [u8]| Packet { letter, data: Bytes::from_static(data) };
        assert_eq!(packets(&wire, None), (vec![packet(b'c', b""), packet(b'y', b"550 no\0")], None));
    }

    #[test]
    fn lengths_that_no_filter_means_are_refused() {
        assert_eq!(packets(&[0, 0, 0, 0, b'c'], None).1, Some(Fault::Length(0)));
        assert_eq!(packets(b"220 mail.example.com ESMTP\r\n", None).1, Some(Fault::Length(0x3232_3020)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_the_same_for_every_cut(wire in proptest::collection::vec(0u8..8, 0..64), cut in 0usize..64) {
            prop_assert_eq!(packets(&wire, Some(cut)), packets(&wire, None));
        }
    }
}
