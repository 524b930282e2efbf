//! Whatever a host says, one printable line within bounds is all that gets
//! into a log, an event or a bounce message.

use bytes::BytesMut;
use postrider_mail::{SmtpReply, Stage};
use postrider_smtp::wire::ReplyParser;
use proptest::prelude::*;

use crate::finding::Finding;

/// What is kept of a reply.
const BOUND: usize = 1_000;

/// What becomes of the bytes that a host sends; `None` where they are no reply.
fn finding(wire: &[u8]) -> Option<Finding> {
    let reply = ReplyParser::new().next(&mut BytesMut::from(wire)).ok()??;
    Some(Finding::reply(Stage::RcptTo, &reply))
}

fn check(finding: &Finding) {
    let line = &finding.diagnostic;
    assert!(line.len() <= BOUND, "{} bytes", line.len());
    assert!(!line.contains(|c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}')), "{line:?}");
    let code = line.split(' ').next().unwrap();
    assert!(code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()), "{line:?}");
}

#[test]
fn a_reply_of_64_kb_is_one_short_line() {
    let line = "550-5.1.1 no such user, and this is the long story of how it came to that: \r\n";
    let wire = [line.repeat(900).as_bytes(), b"550 5.1.1 the end\r\n"].concat();
    assert!(wire.len() > 64 * 1024);
    let finding = finding(&wire).unwrap();
    check(&finding);
    assert!(finding.diagnostic.starts_with("550 5.1.1 no such user"));
}

#[test]
fn lines_cannot_be_added() {
    let cases: [&[u8]; 6] = [
        b"550 5.1.1 unknown\rX-Injected: yes\r\n",
        b"550-5.1.1 unknown\r\n550 \x00\x0b\x0c\x1b[2J\x7f\r\n",
        b"550 unknown\xe2\x80\xa8Final-Recipient: rfc822; other@example.com\r\n",
        b"550 \xff\xfe\x80 unknown\r\n",
        "550 \u{85}\u{202e}nwonknu\u{2066}\u{feff}\r\n".as_bytes(),
        b"550\r\n",
    ];
    for wire in cases {
        check(&finding(wire).unwrap());
    }
}

#[test]
fn a_code_in_the_middle_is_not_the_reply_s() {
    let found = finding(b"451-4.7.1 later\r\n451 550 5.1.1 user unknown\r\n").unwrap();
    assert!(matches!(found.verdict, crate::classify::Verdict::Deferred(_)), "{found:?}");
    assert_eq!(found.status.class, 4);
}

proptest! {
    #[test]
    fn any_bytes_behind_a_code(bytes in prop::collection::vec(any::<u8>(), 0..3_000), code in 200u16..600) {
        let wire = [format!("{code} ").as_bytes(), &bytes, b"\r\n"].concat();
        if let Some(finding) = finding(&wire) {
            check(&finding);
        }
    }

    #[test]
    fn any_lines(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..150), code in 200u16..600) {
        let reply = SmtpReply::from_lines(code, lines.iter().map(Vec::as_slice));
        for stage in [Stage::Banner, Stage::RcptTo, Stage::EndOfData] {
            check(&Finding::reply(stage, &reply));
        }
    }

    #[test]
    fn nothing_that_looks_like_a_reply_is_too_much(text in "[45][.][0-7][.][0-9]{1,4}|[a-z .#()<>-]{0,40}") {
        for stage in [Stage::MailFrom, Stage::RcptTo, Stage::EndOfData] {
            check(&Finding::reply(stage, &SmtpReply::new(550, &text)));
        }
    }
}
