//! Whom a load balancer's connection is from: the PROXY protocol, versions 1 and 2.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What both versions have at least, and what tells them apart.
const START: usize = 12;
/// The first octets of version 2.
const SIGNATURE: &[u8; START] = b"\r\n\r\n\x00\r\nQUIT\n";
/// Longest header of version 1.
const MAX_V1: usize = 107;
/// Longest header of version 2 that is read: the addresses, and what balancers add.
const MAX_V2: usize = 4_096;
/// Version, command, family and length behind the signature.
const V2_FIXED: usize = 4;

/// Reads the header, and not one octet more: TLS or SMTP comes behind it.
/// `None` stands for the balancer itself, which looks whether we are alive.
///
/// # Errors
/// `InvalidData` for anything that is no header; the stream's own.
pub(crate) async fn client(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; START];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_v2(stream, &mut header).await?;
    } else if header.starts_with(b"PROXY ") {
        read_v1(stream, &mut header).await?;
    } else {
        return Err(invalid("no PROXY header"));
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    match ProxyHeader::parse(&header, config) {
        Ok((parsed, length)) if length == header.len() => Ok(parsed.proxied_address().map(|address| address.source)),
        Ok(_) => Err(invalid("a PROXY header of another length than it says")),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

/// A line: its end is looked for octet by octet, as it can not be given back.
async fn read_v1(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>) -> io::Result<()> {
    while !header.ends_with(b"\r\n") {
        if header.len() == MAX_V1 {
            return Err(invalid("a PROXY line without end"));
        }
        header.push(stream.read_u8().await?);
    }
    Ok(())
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>) -> io::Result<()> {
    let mut fixed = [0; V2_FIXED];
    stream.read_exact(&mut fixed).await?;
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if length > MAX_V2 {
        return Err(invalid("a PROXY header that is too long"));
    }
    header.extend_from_slice(&fixed);
    let begin = header.len();
    header.resize(begin + length, 0);
    stream.read_exact(&mut header[begin..]).await?;
    Ok(())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    /// What comes of these octets, and how many were read.
    fn read(octets: &[u8]) -> (Result<Option<String>, io::ErrorKind>, usize) {
        let mut stream = octets;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(client(&mut stream));
        let result = result.map(|source| source.map(|source| source.to_string())).map_err(|error| error.kind());
        (result, octets.len() - stream.len())
    }

    fn v2(source: &str) -> Vec<u8> {
        let destination = if source.starts_with('[') { "[::1]:25" } else { "127.0.0.1:25" };
        let address = ProxiedAddress::stream(source.parse().unwrap(), destination.parse().unwrap());
        let mut header = Vec::new();
        let tlv = proxy_header::Tlv::Authority("mail.example.com".into());
        ProxyHeader::with_tlvs(Some(address), [tlv]).encode_v2(&mut header).unwrap();
        header
    }

    #[test]
    fn both_versions_are_read_to_their_last_octet() {
        for (header, source) in [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n".to_vec(), Some("192.0.2.7:56324")),
            (b"PROXY TCP6 2001:db8::7 ::1 56324 25\r\n".to_vec(), Some("[2001:db8::7]:56324")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2("192.0.2.7:56324"), Some("192.0.2.7:56324")),
            (v2("[2001:db8::7]:56324"), Some("[2001:db8::7]:56324")),
            (b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00".to_vec(), None),
        ] {
            let length = header.len();
            let wire = [header, b"EHLO x\r\n".to_vec()].concat();
            assert_eq!(read(&wire), (Ok(source.map(str::to_owned)), length));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for wire in [
            &b"EHLO client.example.com\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00",
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 192.0.2.777 198.51.100.1 56324 25\r\n",
            b"PROXY SCTP 192.0.2.7 198.51.100.1 56324 25\r\n",
            b"\r\n\r\n\x00\r\nQUIT\n\x30\x00\x00\x00",
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x03abc",
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xffabc",
        ] {
            assert_eq!(read(wire).0, Err(io::ErrorKind::InvalidData), "{wire:?}");
        }
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 1000]].concat();
        assert_eq!(read(&endless), (Err(io::ErrorKind::InvalidData), MAX_V1));
        assert_eq!(read(b"PROXY TCP4 192.0.").0, Err(io::ErrorKind::UnexpectedEof));
    }

    proptest! {
        #[test]
        fn nothing_panics(kind in 0..3_usize, octets: Vec<u8>) {
            let front: &[u8] = [&b""[..], b"PROXY TCP4 ", SIGNATURE][kind];
            let _ = read(&[front, &octets].concat());
        }
    }
}
