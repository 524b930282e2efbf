//! What programs that judge messages say: the virus scanner and the operator's filters.

use postrider_filter::OtherChanges;
use postrider_filter::clamd::{ReplyParser, Verdict};
use postrider_filter::milter::{Letter, Next, PacketParser, Reply, Session, Step, Verdict as Judged};
use postrider_mail::HeaderBlock;

use crate::steering::{Steering, feed};

/// Replies of a virus scanner: the same for every cut, and nothing in them can break a line.
pub fn clamd(data: &[u8]) {
    let mut steering = Steering::new(data);
    let cuts = steering.cuts();
    let wire = steering.rest();
    let replies = scanner_says(wire, None);
    assert_eq!(scanner_says(wire, Some(cuts)), replies);
    for reply in replies.iter().flatten() {
        if let Some(Verdict::Infected(text) | Verdict::Failed(text)) = Verdict::parse(reply) {
            assert!(!text.contains(|c: char| c.is_control()), "a control character in {text:?}");
        }
    }
}

/// All replies, and at the end whether what came behind them is too long for one.
fn scanner_says(wire: &[u8], cuts: Option<[usize; 3]>) -> Vec<Option<String>> {
    let (mut parser, mut replies) = (ReplyParser::default(), Vec::new());
    let mut is_over = false;
    feed(wire, cuts, |input| {
        while !is_over {
            match parser.next(input) {
                Ok(Some(reply)) => replies.push(Some(reply)),
                Ok(None) => break,
                Err(_) => {
                    is_over = true;
                    replies.push(None);
                }
            }
        }
    });
    replies
}

const HEADER: &[u8] = b"From: a@example.com\r\nSubject: hi\r\n\tthere\r\n";

/// A filter that says anything: the conversation is the same for every cut, a refusal is one of
/// 4yz or 5yz on one line, and what its changes leave is a header and nothing more.
pub fn milter(data: &[u8]) {
    let mut steering = Steering::new(data);
    let cuts = steering.cuts();
    let others = if steering.byte() & 1 == 0 { OtherChanges::Refuse } else { OtherChanges::Ignore };
    let wire = steering.rest();
    let judged = filter_says(wire, None, others);
    assert_eq!(filter_says(wire, Some(cuts), others), judged);
    match judged {
        Some(Judged::Refuse(reply)) => {
            assert!((400..600).contains(&reply.code) && reply.code != 421, "{reply}");
            assert!(!reply.to_string().contains(|c: char| c.is_control()), "{reply:?}");
        }
        Some(Judged::Accept(changes)) => {
            let Ok(header) = changes.apply(HEADER) else { return };
            let block = HeaderBlock::parse(&header).expect("what we wrote can be read");
            assert_eq!(block.len(), header.len(), "the header ends within");
            assert!(block.fields().len() <= 2 + changes.header.len(), "a value has become a field");
        }
        _ => {}
    }
}

/// What a filter that sends `wire` says in the end of a message, if it comes so far.
fn filter_says(wire: &[u8], cuts: Option<[usize; 3]>, others: OtherChanges) -> Option<Judged> {
    let body = [bytes::Bytes::from_static(b"one\r\n"), bytes::Bytes::from_static(b"two\r\n")];
    let letter = Letter {
        client_ip: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        helo: "client.example",
        sender: "a@example.com",
        recipients: &["b@example.net"],
        header: HEADER,
        body: &body,
        macros: &[(Step::Mail, "i", "id")],
    };
    let mut session = Session::new(letter, others).ok()?;
    let (mut judged, mut is_broken) = (None, false);
    feed(wire, cuts, |input| {
        while judged.is_none() && !is_broken {
            match session.turn() {
                Next::Send(..) => {}
                Next::Done(verdict) => judged = Some(verdict),
                Next::Listen => {
                    let Ok(packet) = PacketParser.next(input) else {
                        is_broken = true;
                        return;
                    };
                    let Some(packet) = packet else { return };
                    let heard = Reply::parse(&packet).and_then(|reply| session.heard(reply, packet.letter));
                    is_broken = heard.is_err();
                }
            }
        }
    });
    judged
}
