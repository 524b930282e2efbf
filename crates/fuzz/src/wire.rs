//! Lines, replies and the framing of content.

use bytes::BytesMut;
use postrider_mail::SmtpReply;
use postrider_smtp::wire::{
    BadReply, BareLineFeed, ChunkDecoder, Command, ContentFault, DataDecoder, DataProgress, Extensions, ReplyParser,
    encode_reply, stuff,
};

use crate::steering::{Steering, feed};

/// One command line: never panics, and what comes out can not break a line.
pub fn command(data: &[u8]) {
    let mut steering = Steering::new(data);
    let flags = steering.byte();
    let extensions = Extensions {
        smtp_utf8: flags & 1 != 0,
        dsn: flags & 2 != 0,
        require_tls: flags & 4 != 0,
        eight_bit_mime: flags & 8 != 0,
        binary_mime: flags & 16 != 0,
        future_release: (flags & 32 != 0).then_some(86_400),
        ..Extensions::default()
    };
    let line = |text: &str| assert!(!text.contains(['\r', '\n', '\0']), "a line end in {text:?}");
    match Command::parse(steering.rest(), &extensions) {
        Ok(Command::Ehlo(name) | Command::Helo(name)) => {
            line(&name);
            assert!(!name.contains(' '), "a blank in a client's name: {name:?}");
        }
        Ok(Command::Mail(request)) => {
            request.sender.iter().for_each(|sender| line(sender.as_str()));
            request.envid.iter().for_each(|envid| line(envid));
            assert!(extensions.smtp_utf8 || !request.smtp_utf8);
            assert!(extensions.future_release.is_some() || request.hold.is_none());
        }
        Ok(Command::Rcpt(request)) => {
            line(request.recipient.address.as_str());
            request.recipient.orcpt.iter().for_each(|orcpt| line(orcpt));
        }
        Ok(Command::Vrfy(name)) => line(&name),
        _ => {}
    }
}

/// Replies of a host: the same for every cut, and each survives being said again.
pub fn reply(data: &[u8]) {
    let mut steering = Steering::new(data);
    let cuts = steering.cuts();
    let wire = steering.rest();
    let (replies, failure) = parse_replies(wire, None);
    assert_eq!(parse_replies(wire, Some(cuts)), (replies.clone(), failure));
    for reply in replies {
        let mut again = BytesMut::new();
        encode_reply(&reply, true, &mut again);
        let said = again.to_vec();
        let (parsed, failure) = parse_replies(&said, None);
        assert_eq!((parsed.len(), failure), (1, None), "{}", String::from_utf8_lossy(&said));
        assert_eq!(parsed[0].code, reply.code);
    }
}

fn parse_replies(wire: &[u8], cuts: Option<[usize; 3]>) -> (Vec<SmtpReply>, Option<BadReply>) {
    let mut parser = ReplyParser::new();
    let (mut replies, mut failure) = (Vec::new(), None);
    feed(wire, cuts, |input| {
        while failure.is_none() {
            match parser.next(input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(bad) => failure = Some(bad),
            }
        }
    });
    (replies, failure)
}

/// What one message's content came to: the result and what was left for commands.
type Decoded = Option<(Result<Vec<u8>, ContentFault>, Vec<u8>)>;

/// The content after DATA: ends only at CRLF `.` CRLF, the same for every cut;
/// what is kept has no other line ends than CRLF and comes back when it is sent on.
pub fn content(data: &[u8]) {
    let mut steering = Steering::new(data);
    let cuts = steering.cuts();
    let policy = if steering.byte() & 1 == 0 { BareLineFeed::Convert } else { BareLineFeed::Reject };
    let limit = 1 + 16 * u64::from(steering.byte());
    let wire = steering.rest();
    let decoded = decode(wire, None, policy, limit);
    assert_eq!(decode(wire, Some(cuts), policy, limit), decoded);
    let Some((result, rest)) = decoded else {
        assert!(!wire.starts_with(b".\r\n") && !contains(wire, b"\r\n.\r\n"), "an end of data was missed");
        return;
    };
    let end = wire.len() - rest.len();
    assert!(wire[..end] == *b".\r\n" || wire[..end].ends_with(b"\r\n.\r\n"), "ended by something else");
    let Ok(kept) = result else { return };
    assert!(kept.len() as u64 <= limit);
    assert!(!kept.contains(&0));
    let lines = String::from_utf8_lossy(&kept).replace("\r\n", "");
    assert!(!lines.contains(['\r', '\n']), "a bare line end was kept");
    let sent = stuff(&[bytes::Bytes::from(kept.clone())]).concat();
    let again = decode(&sent, None, BareLineFeed::Reject, u64::MAX).expect("what we send ends");
    assert_eq!(again, (Ok(kept), Vec::new()), "changed on its way on");
}

fn decode(wire: &[u8], cuts: Option<[usize; 3]>, policy: BareLineFeed, limit: u64) -> Decoded {
    let mut decoder = DataDecoder::new(limit, policy);
    let mut result = None;
    let rest = feed(wire, cuts, |input| {
        if result.is_none()
            && let DataProgress::Done(done) = decoder.decode(input)
        {
            result = Some(done);
        }
    });
    result.map(|result| (result.map(|chunks| chunks.concat()), rest.to_vec()))
}

/// The chunks of one message after BDAT: neither their borders nor the cuts can
/// be seen in it, no octet behind a chunk is touched, binary content is exact.
pub fn chunk(data: &[u8]) {
    let mut steering = Steering::new(data);
    let cuts = steering.cuts();
    let flags = steering.byte();
    let limit = 1 + 16 * u64::from(steering.byte());
    let policy = if flags & 1 == 0 { BareLineFeed::Convert } else { BareLineFeed::Reject };
    let size = 1 + usize::from(steering.byte());
    let content = steering.rest();
    let decoder = || match flags & 2 {
        0 => ChunkDecoder::text(limit, policy),
        _ => ChunkDecoder::binary(limit),
    };
    let decoded = join(decoder(), &[content], None);
    let chunks: Vec<&[u8]> = content.chunks(size).collect();
    assert_eq!(join(decoder(), &chunks, Some(cuts)), decoded);
    let Ok(kept) = decoded else { return };
    assert!(kept.len() as u64 <= limit);
    if flags & 2 != 0 {
        assert_eq!(kept, content);
        return;
    }
    assert!(!kept.contains(&0));
    assert!(kept.is_empty() || kept.ends_with(b"\r\n"), "a line without end");
    let lines = String::from_utf8_lossy(&kept).replace("\r\n", "");
    assert!(!lines.contains(['\r', '\n']), "a bare line end was kept");
}

fn join(mut decoder: ChunkDecoder, chunks: &[&[u8]], cuts: Option<[usize; 3]>) -> Result<Vec<u8>, ContentFault> {
    const BEHIND: &[u8] = b"RSET\r\n";
    for chunk in chunks {
        decoder.begin(chunk.len() as u64);
        let wire = [*chunk, BEHIND].concat();
        let mut whole = false;
        let rest = feed(&wire, cuts, |input| whole = decoder.decode(input));
        assert!(whole && rest == BEHIND, "a chunk has another end than its own");
    }
    decoder.finish().map(|content| content.concat())
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
