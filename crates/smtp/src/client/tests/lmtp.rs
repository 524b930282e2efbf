//! Local delivery (RFC 2033): one reply for each recipient at the end.

use super::*;

fn lmtp(chunking: bool) -> ClientConfig {
    ClientConfig { protocol: Protocol::Lmtp, chunking, ..config(TlsUse::Never) }
}

fn lost(stage: Stage) -> RecipientResult {
    RecipientResult::Lost { stage }
}

/// Up to the content, which all but the second of three recipients get.
fn with_content() -> Talk {
    let mut talk = Talk::ready_with(lmtp(false), PIPELINING);
    talk.begins(transaction(&["a@b.example", "c@b.example", "d@b.example"]));
    let (sent, _) = talk.hears("250 Ok\r\n250 Ok\r\n550 no\r\n250 Ok\r\n354 go\r\n");
    assert_eq!(sent, "S: x\r\n\r\n..dot\r\n.\r\n");
    assert!(talk.conversation.is_past_content());
    talk
}

#[test]
fn the_greeting_is_lhlo_and_nothing_less() {
    let mut talk = Talk::new(lmtp(false));
    assert_eq!(talk.hears("220 mail\r\n").0, "LHLO relay.example\r\n");
    let reply = SmtpReply::new(500, "what?");
    assert_eq!(talk.hears("500 what?\r\n").1, Action::Closed(Ended::Refused { stage: Stage::Ehlo, reply }));
}

#[test]
fn each_recipient_has_a_reply_of_its_own() {
    let mut talk = with_content();
    assert_eq!(talk.hears("250 2.1.5 saved\r\n"), (String::new(), Action::NeedInput));
    assert_eq!(
        talk.results("452 4.2.2 full\r\n"),
        [
            replied(Stage::EndOfData, 250, "2.1.5 saved"),
            replied(Stage::RcptTo, 550, "no"),
            replied(Stage::EndOfData, 452, "4.2.2 full"),
        ]
    );
    assert_eq!(talk.hears(""), (String::new(), Action::Ready));
}

#[test]
fn what_was_said_before_the_end_of_the_connection_counts() {
    let saved = replied(Stage::EndOfData, 250, "saved");
    let mut talk = with_content();
    talk.hears("250 saved\r\n");
    talk.conversation.lost();
    assert_eq!(talk.results(""), [saved.clone(), replied(Stage::RcptTo, 550, "no"), lost(Stage::EndOfData)]);

    let mut talk = with_content();
    let closing = replied(Stage::EndOfData, 421, "bye");
    assert_eq!(talk.results("250 saved\r\n421 bye\r\n"), [saved.clone(), replied(Stage::RcptTo, 550, "no"), closing]);

    // Who was refused is asked again; who was served is not served again.
    let mut talk = with_content();
    assert_eq!(talk.results("250 saved\r\nwhat?\r\n"), [saved, lost(Stage::EndOfData), lost(Stage::EndOfData)]);
}

#[test]
fn without_recipients_there_is_no_content() {
    let unknown = replied(Stage::RcptTo, 550, "no");
    let mut talk = Talk::ready_with(lmtp(false), PIPELINING);
    talk.begins(transaction(&["a@b.example"]));
    let (sent, action) = talk.hears("250 Ok\r\n550 no\r\n503 5.5.1 no valid recipients\r\n");
    assert_eq!(sent, "RSET\r\n");
    assert_eq!(action, Action::Done(TransactionResult { recipients: vec![unknown.clone()] }));

    // Against the rules, and then nobody knows how many replies follow.
    let mut talk = Talk::ready_with(lmtp(false), PIPELINING);
    talk.begins(transaction(&["a@b.example"]));
    assert_eq!(talk.results("250 Ok\r\n550 no\r\n354 go\r\n"), [unknown]);
    assert_eq!(talk.hears(""), (String::new(), Action::Closed(Ended::BadReply { stage: Stage::Data })));
}

#[test]
fn a_chunk_is_answered_as_often() {
    let mut talk = Talk::ready_with(lmtp(true), "250-PIPELINING\r\n250-CHUNKING\r\n");
    for _ in 0..2 {
        let (sent, _) = talk.begins(transaction(&["a@b.example", "c@b.example"]));
        assert!(!sent.contains("BDAT"));
        assert_eq!(talk.hears("250 Ok\r\n250 Ok\r\n250 Ok\r\n").0, "BDAT 14 LAST\r\nS: x\r\n\r\n.dot\r\n");
        let results = talk.results("250 saved\r\n250 saved\r\n");
        assert_eq!(results, vec![replied(Stage::EndOfData, 250, "saved"); 2]);
    }
    talk.begins(transaction(&["a@b.example", "c@b.example"]));
    talk.hears("250 Ok\r\n250 Ok\r\n250 Ok\r\n");
    let (sent, action) = talk.hears("452 full\r\n250 saved\r\n");
    assert!(matches!(action, Action::Done(_)));
    assert_eq!(sent, "RSET\r\n");
}
