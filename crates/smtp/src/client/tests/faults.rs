//! Hosts and connections that fail, and hosts that are out of step.

use proptest::prelude::*;

use super::*;

#[test]
fn closing_at_any_time() {
    let refused = |stage| Action::Closed(Ended::Refused { stage, reply: SmtpReply::new(421, "bye") });
    let mut talk = Talk::new(config(TlsUse::Never));
    assert_eq!(talk.hears("421 bye\r\n").1, refused(Stage::Banner));
    let mut talk = Talk::new(config(TlsUse::Never));
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears("421 bye\r\n").1, refused(Stage::Ehlo));

    let mut talk = Talk::ready(PIPELINING);
    talk.begins(transaction(&["a@b.example", "c@b.example", "d@b.example"]));
    let results = talk.results("250 Ok\r\n250 Ok\r\n550 no\r\n421 bye\r\n");
    let closed = replied(Stage::RcptTo, 421, "bye");
    assert_eq!(results, [closed.clone(), replied(Stage::RcptTo, 550, "no"), closed]);
    assert_eq!(talk.hears("").1, refused(Stage::RcptTo));

    // Between transactions, unasked.
    let mut talk = Talk::ready("");
    assert_eq!(talk.hears("421 bye\r\n").1, refused(Stage::MailFrom));
    assert_eq!(talk.conversation.begin(transaction(&["a@b.example"])), Err(NotReady));
}

/// At each point of a transaction, what was said before stays, and the rest is
/// told of the closing.
#[test]
fn a_closing_concerns_who_has_no_reply_of_their_own() {
    let no = || replied(Stage::RcptTo, 550, "no");
    let bye = |stage| replied(stage, 421, "bye");
    for (extensions, chunking) in [("", false), (PIPELINING, false), ("250-PIPELINING\r\n250-CHUNKING\r\n", true)] {
        let points = [
            ("", Stage::MailFrom, vec![bye(Stage::MailFrom); 2]),
            ("250 Ok\r\n", Stage::RcptTo, vec![bye(Stage::RcptTo); 2]),
            ("250 Ok\r\n250 Ok\r\n", Stage::RcptTo, vec![bye(Stage::RcptTo); 2]),
            ("250 Ok\r\n550 no\r\n", Stage::RcptTo, vec![no(), bye(Stage::RcptTo)]),
            ("250 Ok\r\n550 no\r\n250 Ok\r\n", Stage::Data, vec![no(), bye(Stage::Data)]),
            ("250 Ok\r\n550 no\r\n250 Ok\r\n354 go\r\n", Stage::EndOfData, vec![no(), bye(Stage::EndOfData)]),
        ];
        for (before, stage, expected) in points {
            let before = if chunking { before.replace("354 go\r\n", "") } else { before.to_owned() };
            // There is no reply between the recipients and the end of a chunk.
            let stage = if chunking && stage == Stage::Data { Stage::EndOfData } else { stage };
            let expected = expected.into_iter().map(|result| match result {
                RecipientResult::Replied { reply, .. } if reply.code == 421 => replied(stage, 421, "bye"),
                other => other,
            });
            let mut talk = Talk::ready_with(ClientConfig { chunking, ..config(TlsUse::Never) }, extensions);
            talk.begins(transaction(&["a@b.example", "c@b.example"]));
            for reply in before.split_inclusive('\n') {
                talk.hears(reply);
            }
            assert_eq!(talk.results("421 bye\r\n"), expected.collect::<Vec<_>>(), "{extensions} {before}");
            let ended = Ended::Refused { stage, reply: SmtpReply::new(421, "bye") };
            assert_eq!(talk.hears("").1, Action::Closed(ended), "{extensions} {before}");
        }
    }
}

#[test]
fn connections_that_are_lost() {
    let mut talk = Talk::ready(PIPELINING);
    talk.begins(transaction(&["a@b.example", "c@b.example"]));
    talk.hears("250 Ok\r\n250 Ok\r\n550 no\r\n354 go\r\n");
    talk.conversation.lost();
    let lost = RecipientResult::Lost { stage: Stage::EndOfData };
    assert_eq!(talk.results(""), [lost, replied(Stage::RcptTo, 550, "no")]);
    assert_eq!(talk.hears("").1, Action::Closed(Ended::Lost { stage: Stage::EndOfData }));
}

#[test]
fn nonsense_ends_the_conversation() {
    let mut talk = Talk::new(config(TlsUse::Never));
    assert_eq!(talk.hears("SSH-2.0-x\r\n").1, Action::Closed(Ended::BadReply { stage: Stage::Banner }));
    let mut talk = Talk::ready("");
    talk.begins(transaction(&["a@b.example"]));
    assert_eq!(talk.results("what?\r\n"), [RecipientResult::Lost { stage: Stage::MailFrom }]);
}

fn out_of_step(stage: Stage) -> Action {
    Action::Closed(Ended::BadReply { stage })
}

#[test]
fn a_host_that_says_250_to_everything_has_taken_nothing() {
    for extensions in ["", PIPELINING] {
        let mut talk = Talk::ready(extensions);
        talk.begins(transaction(&["a@b.example"]));
        let mut heard = talk.hears("250 Ok\r\n");
        while heard.1 == Action::NeedInput {
            heard = talk.hears("250 Ok\r\n");
        }
        let lost = vec![RecipientResult::Lost { stage: Stage::Data }];
        assert_eq!(heard, (String::new(), Action::Done(TransactionResult { recipients: lost })));
        assert_eq!(talk.hears(""), (String::new(), out_of_step(Stage::Data)));
    }
}

#[test]
fn one_reply_too_many_spoils_those_before_it() {
    let mut talk = Talk::ready(PIPELINING);
    talk.vetoed = vec![2];
    talk.begins(transaction(&["a@b.example", "c@b.example", "d@b.example"]));
    // MAIL is answered twice: the refusal is the first recipient's.
    let lost = RecipientResult::Lost { stage: Stage::Data };
    assert_eq!(
        talk.results("250 Ok\r\n250 Ok\r\n550 unknown\r\n250 Ok\r\n"),
        [lost.clone(), lost, RecipientResult::Vetoed]
    );
    assert_eq!(talk.hears("354 go\r\n").1, out_of_step(Stage::Data));
}

#[test]
fn an_intermediate_reply_where_none_belongs() {
    for (before, stage) in
        [("", Stage::MailFrom), ("250 Ok\r\n", Stage::RcptTo), ("250 Ok\r\n250 Ok\r\n354 go\r\n", Stage::EndOfData)]
    {
        let mut talk = Talk::ready(PIPELINING);
        talk.begins(transaction(&["a@b.example"]));
        talk.hears(before);
        assert_eq!(talk.results("354 go\r\n"), [RecipientResult::Lost { stage }]);
        assert_eq!(talk.hears("").1, out_of_step(stage));
    }
    let mut talk = Talk::new(config(TlsUse::Never));
    assert_eq!(talk.hears("354 go\r\n").1, out_of_step(Stage::Banner));
}

#[test]
fn more_than_was_asked_for_ends_the_conversation() {
    // While it is set up.
    let mut talk = Talk::new(config(TlsUse::Never));
    assert_eq!(talk.hears("220 a\r\n220 b\r\n").1, out_of_step(Stage::Ehlo));
    let mut talk = Talk::new(config(TlsUse::Never));
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears("250 mx\r\n250 mx\r\n").1, out_of_step(Stage::MailFrom));
    // Between transactions, and with one that waits to begin.
    let mut talk = Talk::ready("");
    assert_eq!(talk.hears("250 Ok\r\n").1, out_of_step(Stage::MailFrom));
    let mut talk = Talk::ready("");
    talk.conversation.begin(transaction(&["a@b.example"])).unwrap();
    assert_eq!(talk.results("250 Ok\r\n"), [RecipientResult::Lost { stage: Stage::MailFrom }]);
    assert_eq!(talk.hears("").1, out_of_step(Stage::MailFrom));
    // Before what it would answer was written.
    for (extensions, before) in [("", "250 Ok\r\n250 Ok\r\n"), (PIPELINING, "250 Ok\r\n250 Ok\r\n")] {
        let mut talk = Talk::ready(extensions);
        talk.begins(transaction(&["a@b.example"]));
        for reply in before.split_inclusive('\n') {
            talk.hears(reply);
        }
        assert_eq!(talk.results("354 go\r\n250 Ok\r\n"), [RecipientResult::Lost { stage: Stage::EndOfData }]);
        assert_eq!(talk.hears("").1, out_of_step(Stage::EndOfData));
    }
    // A closing is one all the same.
    let mut talk = Talk::ready("");
    talk.begins(transaction(&["a@b.example"]));
    assert_eq!(talk.results("250 Ok\r\n421 bye\r\n"), [replied(Stage::RcptTo, 421, "bye")]);
}

#[test]
fn a_message_that_was_taken_stays_taken() {
    let mut talk = Talk::ready(PIPELINING);
    talk.begins(transaction(&["a@b.example"]));
    talk.hears("250 Ok\r\n250 Ok\r\n354 go\r\n");
    let mut input = BytesMut::from("250 taken\r\n250 Ok\r\n");
    let mut gate = |_: usize, _: &Recipient| true;
    let taken = TransactionResult { recipients: vec![replied(Stage::EndOfData, 250, "taken")] };
    assert_eq!(talk.conversation.advance(&mut input, &mut gate), Action::Done(taken));
    assert_eq!(talk.conversation.advance(&mut input, &mut gate), out_of_step(Stage::MailFrom));
}

#[test]
fn half_a_message_is_never_taken() {
    let begun = || {
        let mut talk = Talk::ready(PIPELINING);
        talk.begins(transaction(&["a@b.example", "c@b.example"]));
        talk.hears("250 Ok\r\n250 Ok\r\n550 no\r\n354 go\r\n");
        talk.conversation.write_failed();
        talk
    };
    let unknown = replied(Stage::RcptTo, 550, "no");
    let lost = || RecipientResult::Lost { stage: Stage::EndOfData };
    let mut talk = begun();
    assert_eq!(talk.results("250 Ok\r\n"), [lost(), unknown.clone()]);
    assert_eq!(talk.hears("").1, Action::Closed(Ended::Lost { stage: Stage::EndOfData }));
    let mut talk = begun();
    assert_eq!(talk.results("552 big\r\n"), [replied(Stage::EndOfData, 552, "big"), unknown.clone()]);
    assert!(matches!(talk.hears("").1, Action::Closed(Ended::Refused { .. })));
    let mut talk = begun();
    talk.conversation.lost();
    assert_eq!(talk.results(""), [lost(), unknown]);
}

#[test]
fn half_a_group_refuses_nobody_alone() {
    let begun = || {
        let mut talk = Talk::ready(PIPELINING);
        talk.begins(transaction(&["a@b.example", "c@b.example"]));
        talk.conversation.write_failed();
        talk
    };
    let both = |result: RecipientResult| [result.clone(), result];
    assert_eq!(begun().results("451 later\r\n"), both(replied(Stage::MailFrom, 451, "later")));
    assert_eq!(begun().results("250 Ok\r\n550 no\r\n"), both(RecipientResult::Lost { stage: Stage::MailFrom }));
    let mut talk = Talk::ready(PIPELINING);
    talk.begins(transaction(&["a@b.example", "c@b.example"]));
    talk.hears("250 Ok\r\n");
    talk.conversation.write_failed();
    assert_eq!(talk.results("550 no\r\n"), both(RecipientResult::Lost { stage: Stage::RcptTo }));
}

proptest! {
    /// Whatever the host says, every recipient gets one result, and it ends.
    #[test]
    fn any_host_is_survived(
        replies in proptest::collection::vec("(220|250|250|250|354|354|421|450|550|xyz)[- ]a\r\n", 0..25),
        cut in 1usize..9, vetoed in proptest::collection::vec(0usize..3, 0..3), pipelining: bool, chunking: bool, lmtp: bool,
    ) {
        let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let config = ClientConfig { protocol, chunking: true, ..config(TlsUse::Never) };
        let extensions = [(pipelining, PIPELINING), (chunking, "250-CHUNKING\r\n")];
        let offered: String = extensions.iter().filter(|(offered, _)| *offered).map(|(_, line)| *line).collect();
        let mut talk = Talk::ready_with(config, &offered);
        talk.vetoed = vetoed;
        talk.conversation.begin(transaction(&["a@b.example", "c@b.example", "d@b.example"])).unwrap();
        let wire = replies.concat();
        let mut input = BytesMut::new();
        let mut gate = { let vetoed = talk.vetoed.clone(); move |position: usize, _: &Recipient| !vetoed.contains(&position) };
        let mut results = 0;
        let mut pieces = wire.as_bytes().chunks(cut);
        for _ in 0..1000 {
            match talk.conversation.advance(&mut input, &mut gate) {
                Action::Done(result) => { results += 1; prop_assert_eq!(result.recipients.len(), 3); }
                Action::Closed(_) => break,
                Action::Ready => talk.conversation.quit(),
                Action::StartTls => talk.conversation.tls_started(),
                Action::NeedInput => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => talk.conversation.lost(),
                },
            }
            talk.conversation.take_output();
        }
        prop_assert_eq!(results, 1);
        prop_assert!(matches!(talk.conversation.advance(&mut input, &mut gate), Action::Closed(_)));
    }
}
