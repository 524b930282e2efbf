use bytes::BytesMut;
use postrider_mail::HeaderBlock;
use proptest::prelude::*;

use super::*;
use crate::milter::{HeaderChange, Packet, PacketParser};

const HEADER: &[u8] = b"From: a@example.com\r\nSubject:  hi\r\n\tthere\r\n";

fn letter<'a>(body: &'a [Bytes]) -> Letter<'a> {
    Letter {
        client_ip: "192.0.2.1".parse().unwrap(),
        helo: "client.example",
        sender: "a@example.com",
        recipients: &["b@example.net", "c@example.net"],
        header: HEADER,
        body,
        macros: &[
            (Step::Connect, "j", "relay.example"),
            (Step::Mail, "i", "id"),
            (Step::Mail, "{auth_authen}", "AKIA"),
        ],
    }
}

fn session<'a>(body: &'a [Bytes], others: OtherChanges) -> Session<'a> {
    Session::new(letter(body), others).unwrap()
}

/// What a filter hears: packets as letters and data.
fn said(wire: &[u8]) -> Vec<(char, String)> {
    let (mut input, mut said) = (BytesMut::from(wire), Vec::new());
    while let Some(Packet { letter, data }) = PacketParser.next(&mut input).unwrap() {
        said.push((char::from(letter), String::from_utf8_lossy(&data).replace('\0', "|")));
    }
    assert!(input.is_empty());
    said
}

/// All that is said until the end, to a filter that has chosen `protocol` and goes on always;
/// and the number of times that it had the word.
fn whole(session: &mut Session<'_>, protocol: u32) -> (Vec<(char, String)>, u32, Verdict) {
    let (mut wire, mut turns) = (Vec::new(), 0);
    loop {
        match session.turn() {
            Next::Send(head, rest) => wire.extend([&head[..], rest].concat()),
            Next::Listen => {
                let agreed = Reply::Negotiated { version: 6, actions: Actions(0x31), protocol: Protocol(protocol) };
                let reply = if turns == 0 { agreed } else { Reply::Continue };
                session.heard(reply, b'c').unwrap();
                turns += 1;
            }
            Next::Done(verdict) => return (said(&wire), turns, verdict),
        }
    }
}

/// As far as the end of the message, where the filter has the word.
fn at_the_end(others: OtherChanges, actions: u32) -> Session<'static> {
    let mut session = session(&[], others);
    // Nothing but the macros and the end is said.
    let protocol = Protocol(0x27f);
    assert!(matches!(session.turn(), Next::Send(..)));
    session.heard(Reply::Negotiated { version: 6, actions: Actions(actions), protocol }, b'O').unwrap();
    let Next::Send(head, _) = session.turn() else { panic!("the end") };
    assert!(head.ends_with(&[0, 0, 0, 1, b'E']));
    assert_eq!(session.turn(), Next::Listen);
    session
}

#[test]
fn of_a_long_field_as_much_is_told_as_filters_take() {
    let long = [&b"To: "[..], &vec![b'x'; 70_000], b"\r\n"].concat();
    let mut session = Session::new(Letter { header: &long, ..letter(&[]) }, OtherChanges::Refuse).unwrap();
    let (said, ..) = whole(&mut session, 0);
    let field = said.iter().find(|(letter, _)| *letter == 'L').unwrap();
    assert_eq!(field.1.len(), CHUNK);
    assert!(field.1.starts_with("To|xxx") && field.1.ends_with("xxx|"));
}

#[test]
fn a_message_is_told_step_by_step() {
    let body = [Bytes::from_static(b"one\r\n"), Bytes::new(), Bytes::from_static(b"two\r\n")];
    let (said, turns, verdict) = whole(&mut session(&body, OtherChanges::Refuse), 0);
    let said: Vec<_> = said.iter().map(|(letter, data)| (*letter, data.as_str())).collect();
    let expected = [
        ('O', "|||\u{6}|||1|\u{1f}\u{fffd}\u{fffd}"),
        ('D', "Cj|relay.example|"),
        ('C', "[192.0.2.1]|4||192.0.2.1|"),
        ('H', "client.example|"),
        ('D', "Mi|id|{auth_authen}|AKIA|"),
        ('M', "<a@example.com>|"),
        ('D', "R{rcpt_addr}|b@example.net|"),
        ('R', "<b@example.net>|"),
        ('D', "R{rcpt_addr}|c@example.net|"),
        ('R', "<c@example.net>|"),
        ('T', ""),
        ('L', "From|a@example.com|"),
        ('L', "Subject| hi\n\tthere|"),
        ('N', ""),
        ('B', "one\r\n"),
        ('B', "two\r\n"),
        ('E', ""),
    ];
    assert_eq!(said, expected);
    assert_eq!(turns, 13);
    assert_eq!(verdict, Verdict::Accept(Changes::default()));
}

#[test]
fn steps_are_left_out_and_unanswered_as_agreed() {
    let body = [Bytes::from_static(b"one\r\n")];
    // No connect, helo, recipients and data; no answers to header fields.
    let protocol = 0x01 | 0x02 | 0x08 | 0x200 | 0x80 | Protocol::LEADING_SPACE.0;
    let (said, turns, _) = whole(&mut session(&body, OtherChanges::Refuse), protocol);
    let letters: String = said.iter().map(|(letter, _)| *letter).collect();
    assert_eq!(letters, "ODMLLNBE");
    assert_eq!(said[1].1, "Mj|relay.example|i|id|{auth_authen}|AKIA|", "macros of steps that are left out");
    assert_eq!(said[4].1, "Subject|  hi\n\tthere|");
    assert_eq!(turns, 5);
}

#[test]
fn bodies_go_in_parts_without_a_copy() {
    let body = [Bytes::from(vec![b'x'; CHUNK + 1])];
    let mut session = session(&body, OtherChanges::Refuse);
    let mut parts = Vec::new();
    loop {
        match session.turn() {
            Next::Send(head, rest) if head[4] == b'B' => {
                assert_eq!(head[..4], u32::try_from(rest.len() + 1).unwrap().to_be_bytes());
                parts.push((rest.as_ptr(), rest.len()));
            }
            Next::Send(..) => {}
            Next::Listen if session.stage == Stage::Connect => {
                let agreed = Reply::Negotiated { version: 2, actions: Actions(0), protocol: Protocol(0) };
                session.heard(agreed, b'O').unwrap();
            }
            Next::Listen => session.heard(Reply::Continue, b'c').unwrap(),
            Next::Done(_) => break,
        }
    }
    let at = body[0].as_ptr();
    assert_eq!(parts, [(at, CHUNK), (at.wrapping_add(CHUNK), 1)]);
}

#[test]
fn a_filter_that_has_seen_enough_is_told_no_more_of_the_body() {
    let body = [Bytes::from(vec![b'x'; 3 * CHUNK])];
    let mut session = session(&body, OtherChanges::Refuse);
    let mut bodies = 0;
    loop {
        match session.turn() {
            Next::Send(head, _) if head[4] == b'B' => {
                bodies += 1;
                session.heard(Reply::Skip, b's').unwrap();
            }
            Next::Send(..) => {}
            Next::Listen if session.stage == Stage::Connect => {
                let agreed = Reply::Negotiated { version: 6, actions: Actions(0), protocol: Protocol(0x400) };
                session.heard(agreed, b'O').unwrap();
            }
            Next::Listen => session.heard(Reply::Continue, b'c').unwrap(),
            Next::Done(_) => break,
        }
    }
    assert_eq!(bodies, 1);
}

#[test]
fn verdicts_end_it_at_once() {
    let refused = SmtpReply::new(550, "5.7.1 no");
    for (reply, verdict) in [
        (Reply::Accept, Verdict::Accept(Changes::default())),
        (Reply::Discard, Verdict::Discard),
        (Reply::Reject, Verdict::Refuse(SmtpReply::new(550, "5.7.1 Command rejected"))),
        (Reply::Refuse(refused.clone()), Verdict::Refuse(refused)),
    ] {
        let mut session = session(&[], OtherChanges::Refuse);
        assert!(matches!(session.turn(), Next::Send(..)));
        let agreed = Reply::Negotiated { version: 6, actions: Actions(0), protocol: Protocol(0) };
        session.heard(agreed, b'O').unwrap();
        assert!(matches!(session.turn(), Next::Send(..)));
        session.heard(reply, b'?').unwrap();
        assert_eq!(session.turn(), Next::Done(verdict));
        assert_eq!(session.heard(Reply::Continue, b'c'), Err(Fault::Unexpected('c')));
    }
}

#[test]
fn changes_are_collected_at_the_end() {
    let mut session = at_the_end(OtherChanges::Ignore, 0x7f);
    let change = HeaderChange::add(b"X-A", b"b").unwrap();
    session.heard(Reply::Progress, b'p').unwrap();
    session.heard(Reply::Header(change.clone()), b'h').unwrap();
    session.heard(Reply::Quarantine("why".into()), b'q').unwrap();
    session.heard(Reply::Other(Actions::CHANGE_BODY), b'b').unwrap();
    assert_eq!(session.turn(), Next::Listen);
    session.heard(Reply::Continue, b'c').unwrap();
    let Next::Done(Verdict::Accept(changes)) = session.turn() else { panic!("taken") };
    assert_eq!((changes.header, changes.quarantine, changes.ignored), (vec![change], Some("why".into()), 1));
}

#[test]
fn what_was_not_agreed_on_is_a_fault() {
    let change = || Reply::Header(HeaderChange::add(b"X-A", b"b").unwrap());
    let mut session = at_the_end(OtherChanges::Refuse, 0x20);
    assert_eq!(session.heard(change(), b'h'), Err(Fault::Unexpected('h')));
    let mut session = at_the_end(OtherChanges::Refuse, 0x01);
    assert_eq!(session.heard(Reply::Other(Actions::CHANGE_SENDER), b'e'), Err(Fault::Unexpected('e')));
    assert_eq!(session.heard(Reply::Skip, b's'), Err(Fault::Unexpected('s')));
    for (version, actions, protocol) in [(7, 0, 0), (1, 0, 0), (6, 0x02, 0), (6, 0, 0x1000_0000)] {
        let mut session = self::session(&[], OtherChanges::Refuse);
        assert!(matches!(session.turn(), Next::Send(..)));
        let agreed = Reply::Negotiated { version, actions: Actions(actions), protocol: Protocol(protocol) };
        assert!(matches!(session.heard(agreed, b'O'), Err(Fault::NotOffered(_))));
    }
    let mut session = self::session(&[], OtherChanges::Refuse);
    assert!(matches!(session.turn(), Next::Send(..)));
    assert_eq!(session.heard(Reply::Accept, b'a'), Err(Fault::Unexpected('a')));
}

#[test]
fn changes_have_a_bound() {
    let mut session = at_the_end(OtherChanges::Refuse, 0x01);
    let change = Reply::Header(HeaderChange::add(b"X-A", b"b").unwrap());
    for _ in 0..MAX_CHANGES {
        session.heard(change.clone(), b'h').unwrap();
    }
    assert_eq!(session.heard(change, b'h'), Err(Fault::TooMuch));
}

/// Any reply that can be said by a filter.
fn replies() -> impl Strategy<Value = Reply> {
    let change = HeaderChange::change(1, b"Subject", b"other").unwrap();
    prop_oneof![
        8 => Just(Reply::Continue),
        1 => Just(Reply::Accept),
        1 => Just(Reply::Skip),
        1 => Just(Reply::Progress),
        1 => Just(Reply::Reject),
        1 => Just(Reply::Quarantine("why".into())),
        2 => Just(Reply::Header(change)),
        1 => Just(Reply::Other(Actions::REMOVE_RECIPIENTS)),
        4 => (any::<u32>(), any::<u32>()).prop_map(|(actions, protocol)| Reply::Negotiated {
            version: 6,
            actions: Actions(actions & 0xff),
            protocol: Protocol(protocol & Protocol::ALL.0),
        }),
    ]
}

proptest! {
    /// Whatever a filter says, it is over after a bounded number of turns, and what changes
    /// leave is a header.
    #[test]
    fn every_conversation_ends(
        replies in proptest::collection::vec(replies(), 40),
        body in proptest::collection::vec(0usize..3, 0..4),
    ) {
        let body: Vec<Bytes> = body.into_iter().map(|len| Bytes::from(vec![b'x'; len])).collect();
        let mut session = session(&body, OtherChanges::Ignore);
        let mut replies = replies.into_iter();
        let mut is_over = false;
        while !is_over {
            match session.turn() {
                Next::Send(..) => {}
                Next::Listen => {
                    is_over = replies.next().is_none_or(|reply| session.heard(reply, b'?').is_err());
                }
                Next::Done(verdict) => {
                    is_over = true;
                    if let Verdict::Accept(changes) = verdict {
                        let header = changes.apply(HEADER).unwrap();
                        prop_assert_eq!(HeaderBlock::parse(&header).unwrap().len(), header.len());
                    }
                }
            }
        }
    }
}
