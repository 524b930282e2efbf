//! Hosts that do as they should, and refuse as they may.

use super::*;

#[test]
fn a_pipelined_transaction() {
    let mut talk = Talk::ready("250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n");
    let mut message = transaction(&["a@b.example", "c@b.example"]);
    message.envelope.body = BodyType::EightBitMime;
    let (sent, action) = talk.begins(message);
    assert_eq!(
        sent,
        "MAIL FROM:<s@relay.example> SIZE=14 BODY=8BITMIME\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@b.example>\r\nDATA\r\n"
    );
    assert_eq!((action, talk.conversation.stage()), (Action::NeedInput, Stage::MailFrom));
    assert_eq!(talk.hears("250 Ok\r\n250 Ok\r\n").0, "");
    assert_eq!(talk.conversation.stage(), Stage::RcptTo);
    let (sent, _) = talk.hears("550 5.1.1 unknown\r\n354 go\r\n");
    assert_eq!(sent, "S: x\r\n\r\n..dot\r\n.\r\n");
    assert_eq!(talk.conversation.timeout(), Timeouts::default().end);
    assert_eq!(
        talk.results("250 2.0.0 Queued\r\n"),
        [replied(Stage::EndOfData, 250, "2.0.0 Queued"), replied(Stage::RcptTo, 550, "5.1.1 unknown")]
    );
    assert_eq!(talk.hears(""), (String::new(), Action::Ready));
    assert!(talk.begins(transaction(&["a@b.example"])).0.starts_with("MAIL"));
    assert_eq!(talk.conversation.transactions(), 2);
}

#[test]
fn step_by_step_without_pipelining() {
    let mut talk = Talk::ready("");
    talk.vetoed = vec![1];
    assert_eq!(
        talk.begins(transaction(&["a@b.example", "c@b.example", "d@b.example"])).0,
        "MAIL FROM:<s@relay.example>\r\n"
    );
    assert_eq!(talk.hears("250 Ok\r\n").0, "RCPT TO:<a@b.example>\r\n");
    assert_eq!(talk.hears("450 later\r\n").0, "RCPT TO:<d@b.example>\r\n");
    assert_eq!(talk.hears("250 Ok\r\n").0, "DATA\r\n");
    assert!(talk.hears("354 go\r\n").0.ends_with("\r\n.\r\n"));
    assert_eq!(
        talk.results("250 Ok\r\n"),
        [replied(Stage::RcptTo, 450, "later"), RecipientResult::Vetoed, replied(Stage::EndOfData, 250, "Ok")]
    );
}

const CHUNKING: &str = "250-CHUNKING\r\n250-BINARYMIME\r\n";

fn binary(recipients: &[&str]) -> Transaction {
    let mut message = transaction(recipients);
    message.envelope.body = BodyType::BinaryMime;
    message.content = vec![Bytes::from_static(b"S: x\r\n\r\n"), Bytes::from_static(b".\r\n.\r\n\0\n")];
    message
}

#[test]
fn binary_content_goes_in_one_chunk_when_a_recipient_is_accepted() {
    for pipelining in [PIPELINING, ""] {
        let mut talk = Talk::ready(&format!("{pipelining}{CHUNKING}"));
        let (mut sent, _) = talk.begins(binary(&["a@b.example", "c@b.example"]));
        for reply in ["250 Ok\r\n", "250 Ok\r\n", "550 no\r\n"] {
            sent += &talk.hears(reply).0;
        }
        assert_eq!(
            sent,
            "MAIL FROM:<s@relay.example> BODY=BINARYMIME\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@b.example>\r\n\
            BDAT 16 LAST\r\nS: x\r\n\r\n.\r\n.\r\n\0\n"
        );
        assert_eq!(talk.conversation.stage(), Stage::EndOfData);
        assert_eq!(
            talk.results("250 Ok\r\n"),
            [replied(Stage::EndOfData, 250, "Ok"), replied(Stage::RcptTo, 550, "no")]
        );
        assert_eq!(talk.hears(""), (String::new(), Action::Ready));
    }
}

#[test]
fn a_chunk_that_is_refused_or_not_wanted() {
    let mut talk = Talk::ready(&format!("{PIPELINING}{CHUNKING}"));
    talk.begins(binary(&["a@b.example"]));
    assert!(talk.hears("250 Ok\r\n250 Ok\r\n").0.starts_with("BDAT 16 LAST\r\n"));
    assert_eq!(talk.results("452 full\r\n"), [replied(Stage::EndOfData, 452, "full")]);
    assert_eq!(talk.hears("250 Ok\r\n"), (String::new(), Action::Ready));
    talk.begins(binary(&["a@b.example"]));
    assert_eq!(talk.results("250 Ok\r\n550 no\r\n"), [replied(Stage::RcptTo, 550, "no")]);
    assert_eq!(talk.hears("250 Ok\r\n").1, Action::Ready);
    talk.begins(binary(&["a@b.example"]));
    assert_eq!(talk.results("451 later\r\n503 no\r\n"), [replied(Stage::MailFrom, 451, "later")]);
}

#[test]
fn binary_content_needs_both_extensions() {
    for lacking in ["250-CHUNKING\r\n", "250-BINARYMIME\r\n", PIPELINING] {
        let mut talk = Talk::ready(lacking);
        let (sent, action) = talk.begins(binary(&["a@b.example"]));
        let refused = RecipientResult::Refused(LocalRefusal::BinaryMimeNotOffered);
        assert_eq!((sent.as_str(), action), ("", Action::Done(TransactionResult { recipients: vec![refused] })));
    }
}

const CHUNKS: &str = "250-PIPELINING\r\n250-CHUNKING\r\n";

fn chunking() -> ClientConfig {
    ClientConfig { chunking: true, ..config(TlsUse::Never) }
}

/// A host that has taken a message in chunks.
fn proven() -> Talk {
    let mut talk = Talk::ready_with(chunking(), CHUNKS);
    let (sent, _) = talk.begins(transaction(&["a@b.example"]));
    assert_eq!(sent, "MAIL FROM:<s@relay.example>\r\nRCPT TO:<a@b.example>\r\n");
    assert_eq!(talk.hears("250 Ok\r\n250 Ok\r\n").0, "BDAT 14 LAST\r\nS: x\r\n\r\n.dot\r\n");
    assert!(talk.conversation.is_past_content());
    assert_eq!(talk.results("250 taken\r\n"), [replied(Stage::EndOfData, 250, "taken")]);
    assert_eq!(talk.hears(""), (String::new(), Action::Ready));
    talk
}

#[test]
fn chunks_are_used_where_they_are_offered_and_wanted() {
    proven();
    for (config, extensions) in [(chunking(), PIPELINING), (config(TlsUse::Never), CHUNKS)] {
        let mut talk = Talk::ready_with(config, extensions);
        assert!(talk.begins(transaction(&["a@b.example"])).0.ends_with("DATA\r\n"));
    }
}

#[test]
fn a_small_message_goes_in_one_flight_to_a_host_that_has_taken_one() {
    let mut talk = proven();
    let (sent, _) = talk.begins(transaction(&["a@b.example", "c@b.example"]));
    assert_eq!(
        sent,
        "MAIL FROM:<s@relay.example>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@b.example>\r\n\
        BDAT 14 LAST\r\nS: x\r\n\r\n.dot\r\n"
    );
    assert_eq!(talk.conversation.stage(), Stage::MailFrom);
    assert!(talk.conversation.is_past_content());
    let results = talk.results("250 Ok\r\n250 Ok\r\n550 no\r\n250 taken\r\n");
    assert_eq!(results, [replied(Stage::EndOfData, 250, "taken"), replied(Stage::RcptTo, 550, "no")]);

    let mut large = transaction(&["a@b.example"]);
    large.content = vec![Bytes::from(vec![b'a'; 33 * 1024])];
    assert!(!talk.begins(large).0.contains("BDAT"));
}

#[test]
fn nobody_knows_what_became_of_what_was_sent_whole() {
    let lost = |stage| vec![RecipientResult::Lost { stage }];
    for heard in ["", "250 Ok\r\n", "250 Ok\r\n250 Ok\r\n"] {
        let mut talk = proven();
        talk.begins(transaction(&["a@b.example"]));
        talk.hears(heard);
        // RFC 5321 section 4.5.3.2.6, whichever reply is next.
        assert_eq!(talk.conversation.timeout().as_secs(), 600);
        talk.conversation.lost();
        assert_eq!(talk.results(""), lost(Stage::EndOfData), "{heard}");
    }
    let mut talk = proven();
    talk.begins(transaction(&["a@b.example"]));
    assert_eq!(talk.results("what?\r\n"), lost(Stage::EndOfData));
    // What was written in part is not delivered.
    let mut talk = proven();
    talk.begins(transaction(&["a@b.example"]));
    talk.conversation.write_failed();
    talk.conversation.lost();
    assert_eq!(talk.results(""), lost(Stage::MailFrom));
}

#[test]
fn content_that_went_in_vain_changes_nothing() {
    let results = |wire: &str| {
        let mut talk = proven();
        talk.begins(transaction(&["a@b.example"]));
        let (sent, action) = talk.hears(wire);
        let Action::Done(result) = action else { panic!("{action:?}") };
        (result.recipients, sent)
    };
    let unknown = vec![replied(Stage::RcptTo, 550, "no")];
    assert_eq!(results("250 Ok\r\n550 no\r\n503 no\r\n"), (unknown.clone(), "RSET\r\n".into()));
    // A host that thanks for what it may not keep.
    assert_eq!(results("250 Ok\r\n550 no\r\n250 Ok\r\n"), (unknown, String::new()));
    let refused = vec![replied(Stage::MailFrom, 451, "later")];
    assert_eq!(results("451 later\r\n503 no\r\n503 no\r\n"), (refused, "RSET\r\n".into()));
    let closing = vec![replied(Stage::RcptTo, 421, "bye")];
    assert_eq!(results("250 Ok\r\n421 bye\r\n"), (closing, String::new()));
    let full = vec![replied(Stage::EndOfData, 452, "full")];
    assert_eq!(results("250 Ok\r\n250 Ok\r\n452 full\r\n"), (full, "RSET\r\n".into()));
}

#[test]
fn the_host_says_who_it_is() {
    let mut talk = Talk::new(config(TlsUse::Never));
    talk.hears("220 banner.example\r\n");
    assert_eq!(talk.conversation.host_name(), None);
    talk.hears("250-Mx.example at your service\r\n250 SIZE\r\n");
    assert_eq!(talk.conversation.host_name(), Some("Mx.example"));
}

#[test]
fn the_gate_is_asked_immediately_before_each_rcpt() {
    let mut talk = Talk::ready("");
    talk.begins(transaction(&["a@b.example", "c@b.example"]));
    talk.hears("250 Ok\r\n");
    // Meanwhile the second one was suppressed.
    talk.vetoed = vec![1];
    assert_eq!(talk.hears("250 Ok\r\n").0, "DATA\r\n");
}

#[test]
fn vetoed_recipients_are_never_named() {
    let mut talk = Talk::ready(PIPELINING);
    talk.vetoed = vec![0];
    let (sent, _) = talk.begins(transaction(&["a@b.example", "c@b.example"]));
    assert!(!sent.contains("a@b.example") && sent.contains("c@b.example"));

    let mut talk = Talk::ready(PIPELINING);
    talk.vetoed = vec![0, 1];
    let (sent, action) = talk.begins(transaction(&["a@b.example", "c@b.example"]));
    let vetoed = vec![RecipientResult::Vetoed, RecipientResult::Vetoed];
    assert_eq!((sent.as_str(), action), ("", Action::Done(TransactionResult { recipients: vetoed })));
    assert_eq!(talk.hears(""), (String::new(), Action::Ready));

    let mut talk = Talk::ready("");
    talk.vetoed = vec![0];
    talk.begins(transaction(&["a@b.example"]));
    let (sent, action) = talk.hears("250 Ok\r\n");
    assert_eq!(sent, "RSET\r\n");
    assert!(matches!(action, Action::Done(_)));
    assert_eq!(talk.hears("250 Ok\r\n").1, Action::Ready);
}

#[test]
fn nobody_accepted_while_data_was_pipelined() {
    let unknown = replied(Stage::RcptTo, 550, "unknown");
    let mut talk = Talk::ready(PIPELINING);
    talk.begins(transaction(&["a@b.example"]));
    assert_eq!(talk.hears("250 Ok\r\n550 unknown\r\n354 go\r\n"), (".\r\n".into(), Action::NeedInput));
    // Nothing hangs on the reply.
    assert_eq!(talk.conversation.stage(), Stage::Data);
    assert_eq!(talk.results("250 Ok\r\n"), std::slice::from_ref(&unknown));
    assert_eq!(talk.hears("").1, Action::Ready);

    talk.begins(transaction(&["a@b.example"]));
    let (sent, action) = talk.hears("250 Ok\r\n550 unknown\r\n503 need RCPT\r\n");
    assert_eq!(sent, "RSET\r\n");
    assert_eq!(action, Action::Done(TransactionResult { recipients: vec![unknown] }));
    assert_eq!(talk.hears("250 Ok\r\n").1, Action::Ready);
}

#[test]
fn mail_refused() {
    for extensions in ["", PIPELINING] {
        let mut talk = Talk::ready(extensions);
        talk.begins(transaction(&["a@b.example"]));
        let rest = if extensions.is_empty() { "" } else { "503 no\r\n503 no\r\n" };
        assert_eq!(talk.results(&format!("451 later\r\n{rest}")), [replied(Stage::MailFrom, 451, "later")]);
    }
}

#[test]
fn data_refused() {
    let mut talk = Talk::ready("");
    talk.begins(transaction(&["a@b.example"]));
    talk.hears("250 Ok\r\n");
    talk.hears("250 Ok\r\n");
    let (sent, action) = talk.hears("452 full\r\n");
    assert_eq!(sent, "RSET\r\n");
    assert_eq!(action, Action::Done(TransactionResult { recipients: vec![replied(Stage::Data, 452, "full")] }));
}

#[test]
fn hosts_without_ehlo() {
    let mut talk = Talk::new(config(TlsUse::Opportunistic));
    assert_eq!(talk.hears("220 mx\r\n").0, "EHLO relay.example\r\n");
    assert_eq!(talk.hears("502 what?\r\n").0, "HELO relay.example\r\n");
    assert_eq!(talk.hears("250 mx\r\n").1, Action::Ready);
    let mut talk = Talk::new(config(TlsUse::Required));
    talk.hears("220 mx\r\n");
    talk.hears("502 what?\r\n");
    assert_eq!(talk.hears("250 mx\r\n").1, Action::Closed(Ended::TlsNotOffered));
}

#[test]
fn tls_when_it_is_offered() {
    let mut talk = Talk::new(config(TlsUse::Opportunistic));
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears("250-mx\r\n250-STARTTLS\r\n250 PIPELINING\r\n").0, "STARTTLS\r\n");
    // What comes in clear after the reply is not listened to.
    assert_eq!(talk.hears("220 go\r\n250 injected\r\n"), (String::new(), Action::StartTls));
    talk.conversation.tls_started();
    assert_eq!(talk.hears(""), ("EHLO relay.example\r\n".into(), Action::NeedInput));
    assert!(!talk.conversation.features().pipelining && talk.conversation.is_tls());
    assert_eq!(talk.hears("250 mx\r\n").1, Action::Ready);
}

#[test]
fn tls_that_is_refused() {
    for (tls, expected) in [
        (TlsUse::Opportunistic, Action::Ready),
        (TlsUse::Required, Action::Closed(Ended::Refused { stage: Stage::StartTls, reply: SmtpReply::new(454, "no") })),
    ] {
        let mut talk = Talk::new(config(tls));
        talk.hears("220 mx\r\n");
        talk.hears("250-mx\r\n250 STARTTLS\r\n");
        assert_eq!(talk.hears("454 no\r\n").1, expected);
    }
    let mut talk = Talk::new(config(TlsUse::Required));
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears("250 mx\r\n").1, Action::Closed(Ended::TlsNotOffered));
}

#[test]
fn authentication() {
    let with = Some(Credentials { user: "user".into(), password: "secret".into() });
    let begin = |offer: &str| {
        let mut talk = Talk::new(ClientConfig { credentials: with.clone(), ..config(TlsUse::Active) });
        talk.hears("220 mx\r\n");
        let heard = talk.hears(&format!("250-mx\r\n250 {offer}\r\n"));
        (talk, heard)
    };
    let (mut talk, (sent, _)) = begin("AUTH LOGIN PLAIN");
    assert_eq!(sent, "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n");
    assert_eq!(talk.hears("235 yes\r\n").1, Action::Ready);

    let (mut talk, (sent, _)) = begin("AUTH LOGIN");
    assert_eq!(sent, "AUTH LOGIN\r\n");
    assert_eq!(talk.hears("334 VXNlcm5hbWU6\r\n").0, "dXNlcg==\r\n");
    assert_eq!(talk.hears("334 UGFzc3dvcmQ6\r\n").0, "c2VjcmV0\r\n");
    let reply = SmtpReply::new(535, "no");
    assert_eq!(talk.hears("535 no\r\n").1, Action::Closed(Ended::Refused { stage: Stage::Auth, reply }));

    assert_eq!(begin("AUTH CRAM-MD5").1.1, Action::Closed(Ended::AuthNotOffered));
    assert!(!format!("{with:?}").contains("secret"));
}

#[test]
fn messages_that_the_host_can_not_take() {
    let refused = |talk: &mut Talk, message: Transaction| match talk.begins(message) {
        (sent, Action::Done(mut result)) if sent.is_empty() => result.recipients.remove(0),
        other => panic!("{other:?}"),
    };
    let mut talk = Talk::ready("250-SIZE 13\r\n");
    let limit = RecipientResult::Refused(LocalRefusal::TooLarge { limit: 13 });
    assert_eq!(refused(&mut talk, transaction(&["a@b.example"])), limit);
    let mut talk = Talk::ready(PIPELINING);
    let utf8 = RecipientResult::Refused(LocalRefusal::SmtpUtf8NotOffered);
    assert_eq!(refused(&mut talk, transaction(&["é@b.example"])), utf8);
    let mut strict = transaction(&["a@b.example"]);
    strict.envelope.require_tls = true;
    let tls = RecipientResult::Refused(LocalRefusal::RequireTlsNotOffered);
    assert_eq!(refused(&mut talk, strict), tls);
    assert_eq!(talk.hears("").1, Action::Ready);
}

#[test]
fn parameters_are_passed_on_where_they_are_offered() {
    let mut message = transaction(&["a@b.example"]);
    message.envelope.envid = Some("a b".into());
    message.envelope.recipients[0].notify = "FAILURE".parse().unwrap();
    message.envelope.recipients[0].orcpt = Some("rfc822;x+y@b.example".into());
    let (sent, _) = Talk::ready("250-DSN\r\n250-PIPELINING\r\n").begins(message.clone());
    assert!(sent.starts_with("MAIL FROM:<s@relay.example> ENVID=a+20b\r\n"), "{sent}");
    assert!(sent.contains("RCPT TO:<a@b.example> NOTIFY=FAILURE ORCPT=rfc822;x+2By@b.example\r\n"), "{sent}");
    let (sent, _) = Talk::ready(PIPELINING).begins(message);
    assert!(!sent.contains("NOTIFY") && !sent.contains("ENVID"));
    let (sent, _) = Talk::ready("250-SMTPUTF8\r\n250-PIPELINING\r\n").begins(transaction(&["é@b.example"]));
    assert!(sent.starts_with("MAIL FROM:<s@relay.example> SMTPUTF8\r\nRCPT TO:<é@b.example>\r\n"));
}

#[test]
fn quitting() {
    let mut talk = Talk::ready("");
    talk.conversation.quit();
    assert_eq!(talk.hears("").0, "QUIT\r\n");
    assert_eq!(talk.hears("221 bye\r\n").1, Action::Closed(Ended::Quit));
}
