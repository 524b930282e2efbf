//! Whole dialogues: the order of things, TLS, AUTH, bounds.

use super::*;
use crate::wire::BareLineFeed;

#[test]
fn a_whole_session_in_one_read() {
    let mut driver = Driver::new(profile(TlsMode::Wrapper));
    driver.feed(&mut BytesMut::from(WHOLE));
    let expected = "220 mail.example.com ESMTP postrider ID\r\n250-mail.example.com\r\n250-8BITMIME\r\n\
        250-SIZE 10485760\r\n250-AUTH PLAIN LOGIN\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SMTPUTF8\r\n\
        250-DSN\r\n250-REQUIRETLS\r\n250-LIMITS RCPTMAX=50 MAILMAX=10000\r\n250 Ok\r\n334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 Authentication successful.\r\n250 Ok\r\n250 Ok\r\n\
        354 End data with <CR><LF>.<CR><LF>\r\n250 Ok MESSAGE-ID\r\n221 Bye\r\n";
    assert_eq!(String::from_utf8_lossy(&driver.output), expected);
    assert!(driver.closed);
    assert_eq!(driver.messages[0].content.concat(), b"From: a\r\nSubject: b\r\n\r\n.body\r\n");
    assert_eq!(driver.messages[0].envelope.recipients[0].address.as_str(), "recipient@example.com");
    assert_eq!(driver.session.protocol(false), "ESMTPSA");
}

#[test]
fn nothing_but_starttls_in_clear() {
    let mut driver = Driver::new(profile(TlsMode::StartTls));
    let answer = driver
        .say("EHLO c\r\nAUTH PLAIN AHVzZXIAc2VjcmV0\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n");
    assert!(answer.contains("250-STARTTLS\r\n") && !answer.contains("AUTH"), "{answer}");
    assert_eq!(answer.matches("530 Must issue a STARTTLS command first\r\n").count(), 4, "{answer}");
    // What comes with STARTTLS in clear is dropped, and EHLO is forgotten.
    assert_eq!(driver.say("STARTTLS\r\nNOOP\r\n"), "220 Ready to start TLS\r\n");
    assert!(driver.say("MAIL FROM:<a@b.example>\r\n").starts_with("530 Authentication required"));
    assert!(driver.say("AUTH PLAIN AHVzZXIAc2VjcmV0\r\n").starts_with("503 Error: send HELO/EHLO first"));
    let answer = driver.say("EHLO c\r\nSTARTTLS\r\n");
    assert!(answer.contains("AUTH PLAIN LOGIN") && !answer.contains("STARTTLS"), "{answer}");
    assert!(answer.ends_with("503 Error: TLS already active\r\n"));
}

#[test]
fn authentication_in_every_spelling() {
    for dialogue in [
        "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n",
        "AUTH PLAIN\r\nAHVzZXIAc2VjcmV0\r\n",
        "auth login dXNlcg==\r\nc2VjcmV0\r\n",
        "AUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\n",
    ] {
        let mut driver = Driver::new(profile(TlsMode::Wrapper));
        let answer = driver.say(&format!("EHLO c\r\n{dialogue}"));
        assert!(answer.ends_with("235 Authentication successful.\r\n"), "{dialogue} {answer}");
        assert!(driver.session.is_authenticated());
        assert_eq!(driver.say("AUTH PLAIN\r\n"), "503 Error: already authenticated\r\n");
    }
}

#[test]
fn authentication_that_fails() {
    let mut driver = Driver::new(profile(TlsMode::Wrapper));
    driver.say("EHLO c\r\n");
    assert_eq!(driver.say("AUTH LOGIN\r\n*\r\n"), "334 VXNlcm5hbWU6\r\n501 Authentication cancelled\r\n");
    assert_eq!(
        driver.say("AUTH LOGIN\r\n???\r\n"),
        "334 VXNlcm5hbWU6\r\n501 Error: malformed authentication response\r\n"
    );
    assert_eq!(driver.say("AUTH PLAIN AAAA\r\n"), "535 Authentication Credentials Invalid\r\n");
    assert!(driver.say("MAIL FROM:<a@b.example>\r\n").starts_with("530 Authentication required"));
    driver.say("AUTH PLAIN AAAA\r\n");
    let answer = driver.say("AUTH PLAIN AAAA\r\n");
    assert!(answer.ends_with("421 Error: too many errors\r\n"), "{answer}");
    assert!(driver.closed);
}

#[test]
fn commands_out_of_order() {
    let mut driver = ready();
    assert_eq!(driver.say("RCPT TO:<a@b.example>\r\n"), "503 Error: need MAIL command\r\n");
    assert_eq!(driver.say("DATA\r\n"), "503 Error: need RCPT command\r\n");
    assert_eq!(
        driver.say("MAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n"),
        "250 Ok\r\n503 Error: nested MAIL command\r\n503 Error: need RCPT command\r\n"
    );
    assert_eq!(driver.say("RSET\r\nVRFY a\r\nEXPN a\r\nHELP\r\nNOOP\r\nXYZZY\r\n").lines().count(), 6);
}

#[test]
fn a_session_without_hello_sends_nothing() {
    let mut driver = Driver::new(open());
    assert_eq!(driver.say("MAIL FROM:<>\r\n"), "503 Error: send HELO/EHLO first\r\n");
    assert_eq!(driver.say("HELO c\r\nMAIL FROM:<>\r\n"), "250 mail.example.com\r\n250 Ok\r\n");
    assert_eq!(driver.session.protocol(false), "SMTP");
}

#[test]
fn too_long_messages_are_refused_early_and_late() {
    let mut small = open();
    small.limits.max_message_bytes = 20;
    let mut driver = Driver::new(small);
    driver.say("EHLO c\r\n");
    assert_eq!(driver.say("MAIL FROM:<> SIZE=21\r\n"), "552 Message is too long.\r\n");
    assert_eq!(driver.say("MAIL FROM:<> SIZE=20\r\nRCPT TO:<a@b.example>\r\nDATA\r\n").lines().count(), 3);
    assert!(driver.session.is_receiving_content() && !driver.session.is_between_messages());
    for _ in 0..100 {
        assert_eq!(driver.say("S: a long message it is\r\n"), "");
    }
    assert_eq!(driver.say(".\r\nMAIL FROM:<>\r\n"), "552 Message is too long.\r\n250 Ok\r\n");
    assert!(driver.messages.is_empty());
    assert_eq!(driver.session.take_refusals(), [552, 552]);
}

#[test]
fn too_many_recipients() {
    let dialogue = |driver: &mut Driver| {
        let rcpts = "RCPT TO:<a@b.example>\r\n".repeat(51);
        driver.say(&format!("MAIL FROM:<>\r\n{rcpts}DATA\r\n"))
    };
    let mut driver = ready();
    let answer = dialogue(&mut driver);
    assert_eq!(answer.matches("250 Ok\r\n").count(), 52);
    assert_eq!(
        driver.say("S: x\r\n\r\n.\r\nNOOP\r\n"),
        "554 Transaction failed: Recipient count exceeds 50.\r\n250 Ok\r\n"
    );
    driver.session.set_recipient_overflow(RecipientOverflow::Defer);
    let answer = dialogue(&mut driver);
    assert_eq!(answer.matches("250 Ok\r\n").count(), 51);
    assert!(answer.contains("452 Too many recipients\r\n354"), "{answer}");
    driver.say("S: x\r\n\r\n.\r\n");
    assert_eq!(driver.messages.len(), 1);
    assert_eq!(driver.messages[0].envelope.recipients.len(), 50);
}

#[test]
fn recipients_without_end() {
    for overflow in [RecipientOverflow::Reject, RecipientOverflow::Defer] {
        let mut driver = ready();
        driver.session.set_recipient_overflow(overflow);
        let answer = driver.say(&format!("MAIL FROM:<>\r\n{}", "RCPT TO:<a@b.example>\r\n".repeat(40_000)));
        assert_eq!(answer.lines().count(), 1 + 50 + 1000 + 20 + 1);
        assert!(answer.ends_with("452 Too many recipients\r\n421 Error: too many errors\r\n") && driver.closed);
    }
}

#[test]
fn content_that_can_not_be_kept() {
    for (content, text) in [
        ("S: a\rb\r\n\r\n", "554 Transaction failed: Carriage return without line feed in the header.\r\n"),
        ("S: a\r\n\r\n\0\r\n", "554 Transaction failed: NUL character in the message.\r\n"),
    ] {
        let mut driver = ready();
        let answer = driver.say(&format!("MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n{content}.\r\n"));
        assert!(answer.ends_with(text), "{answer}");
        assert!(driver.messages.is_empty());
    }
    let mut strict = open();
    strict.bare_line_feed = BareLineFeed::Reject;
    let answer = Driver::new(strict).say("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nS: a\nb\r\n.\r\n");
    assert!(answer.contains("554 Transaction failed: Line feed without"), "{answer}");
}

#[test]
fn addresses_and_parameters_that_are_refused() {
    let mut driver = ready();
    assert_eq!(driver.say("MAIL FROM:<a b@c.example>\r\n"), "501 Invalid MAIL FROM address provided\r\n");
    assert_eq!(driver.say("MAIL <a@c.example>\r\n"), "501 Syntax: MAIL FROM:<address>\r\n");
    assert_eq!(driver.say("MAIL FROM:<> X-FOO\r\n"), "555 Unsupported option: X-FOO\r\n");
    assert_eq!(driver.say("MAIL FROM:<> SIZE=x\r\n"), "501 Bad value of option: SIZE\r\n");
    let rejected = "554 Message rejected: There are non-ASCII characters in the email address\r\n";
    assert_eq!(driver.say("MAIL FROM:<é@c.example>\r\n"), rejected);
    assert_eq!(driver.say("MAIL FROM:<>\r\nRCPT TO:<é@c.example>\r\n"), format!("250 Ok\r\n{rejected}"));
    assert_eq!(driver.say("RCPT TO:<@>\r\n"), "501 Invalid RCPT TO address provided\r\n");
    driver.refuse = Some(SmtpReply::new(550, "no"));
    assert_eq!(driver.say("RCPT TO:<a@c.example>\r\nDATA\r\n"), "550 no\r\n503 Error: need RCPT command\r\n");
}

#[test]
fn enhanced_status_codes_go_before_the_same_texts() {
    let mut enhanced = profile(TlsMode::Wrapper);
    enhanced.enhanced_status_codes = true;
    let mut driver = Driver::new(enhanced);
    let answer = driver.say(WHOLE);
    for line in [
        "250-ENHANCEDSTATUSCODES",
        "235 2.7.0 Authentication successful.",
        "250 2.1.0 Ok",
        "250 2.1.5 Ok",
        "354 End data with <CR><LF>.<CR><LF>",
        "250 2.0.0 Ok MESSAGE-ID",
        "221 2.0.0 Bye",
    ] {
        assert!(answer.contains(&format!("{line}\r\n")), "{line}: {answer}");
    }
    let mut driver = Driver::new(Profile { enhanced_status_codes: true, ..profile(TlsMode::Wrapper) });
    let answer = driver.say("EHLO c\r\nAUTH PLAIN AAAA\r\nXYZZY\r\n");
    assert!(answer.contains("535 5.0.0 Authentication Credentials Invalid\r\n500 5.5.2 Error: "), "{answer}");
}

#[test]
fn sessions_that_only_cost_time_end() {
    let answer = ready().say(&"XYZZY\r\n".repeat(30));
    assert_eq!(answer.lines().count(), 21);
    assert!(answer.ends_with("421 Error: too many errors\r\n"));
    let answer = ready().say(&"NOOP\r\n".repeat(500));
    assert_eq!(answer.matches("250 Ok").count(), 118);
    assert!(answer.ends_with("421 Error: too many errors\r\n"), "{answer}");
    assert!(Driver::new(profile(TlsMode::StartTls)).say("GET / HTTP/1.1\r\nHost: x\r\n").starts_with("421 "));
    let long = "x".repeat(10_000);
    assert_eq!(ready().say(&format!("{long}\r\nNOOP\r\n")), "500 Error: line too long\r\n250 Ok\r\n");
}

#[test]
fn shutting_down() {
    let mut driver = ready();
    driver.say("MAIL FROM:<>\r\n");
    assert!(!driver.session.is_between_messages());
    driver.session.shutdown(&SmtpReply::new(421, "Shutting down"));
    driver.feed(&mut BytesMut::from("NOOP\r\n"));
    assert!(driver.closed && driver.output.ends_with(b"421 Shutting down\r\n"));
    // A second one says nothing.
    driver.session.shutdown(&SmtpReply::new(421, "Again"));
    assert!(driver.session.output().is_empty());
}

#[test]
fn input_waits_while_an_answer_is_due() {
    let mut session = Session::new(Arc::new(open()), "ID");
    let mut input = BytesMut::from("EHLO c\r\nMAIL FROM:<>\r\nNOOP\r\n");
    assert!(matches!(session.receive(&mut input), Event::Mail(_)));
    assert_eq!(session.receive(&mut input), Event::NeedInput);
    assert_eq!(&input[..], b"NOOP\r\n");
    // Answers that nobody asked for change nothing.
    session.auth_success();
    session.tls_started();
    assert!(!session.is_authenticated());
    session.reply(&SmtpReply::new(450, "later"));
    session.accept();
    assert_eq!(session.receive(&mut input), Event::NeedInput);
    assert!(session.output().ends_with(b"450 later\r\n250 Ok\r\n"));
}

#[test]
fn an_exchanger_takes_mail_in_clear_and_from_nobody_in_particular() {
    let mut driver = Driver::new(Profile::exchanger("mx.example.com"));
    let hello = driver.say("EHLO c\r\n");
    for offered in ["250-8BITMIME\r\n", "250-SIZE ", "250-STARTTLS\r\n", "250-PIPELINING\r\n", "250-SMTPUTF8\r\n"] {
        assert!(hello.contains(offered), "{offered} in {hello}");
    }
    for kept in ["AUTH", "DSN", "FUTURERELEASE", "BINARYMIME", "REQUIRETLS"] {
        assert!(!hello.contains(kept), "{kept} in {hello}");
    }
    let refused = driver.say("AUTH PLAIN AHVzZXIAc2VjcmV0\r\nMAIL FROM:<> RET=HDRS\r\n");
    assert!(refused.lines().all(|line| line.starts_with('5')), "{refused}");
    assert_eq!(driver.say("MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n"), "250 Ok\r\n250 Ok\r\n");
    driver.say("DATA\r\nSubject: x\r\n\r\n.\r\n");
    assert_eq!(driver.messages.len(), 1);
    // More recipients than the limit come again.
    let many = format!("MAIL FROM:<>\r\n{}", "RCPT TO:<a@b.example>\r\n".repeat(51));
    assert!(driver.say(&many).ends_with("452 Too many recipients\r\n"));
    // Inside TLS the bounce of mail that required it may come.
    assert_eq!(driver.say("RSET\r\nSTARTTLS\r\n"), "250 Ok\r\n220 Ready to start TLS\r\n");
    driver.session.tls_started();
    assert!(driver.say("EHLO c\r\n").contains("250-REQUIRETLS\r\n"));
    assert_eq!(driver.say("MAIL FROM:<> REQUIRETLS\r\n"), "250 Ok\r\n");
}
