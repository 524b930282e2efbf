//! The server's session, driven with whole dialogues.

use std::sync::Arc;

use bytes::BytesMut;
use postrider_mail::SmtpReply;
use proptest::prelude::*;

use super::*;
use crate::wire::BareLineFeed;

/// A driver that accepts what it is asked for; the password is `secret`.
struct Driver {
    session: Session,
    output: Vec<u8>,
    messages: Vec<ReceivedMessage>,
    mechanism: String,
    closed: bool,
    /// Answers RCPT with this instead.
    refuse: Option<SmtpReply>,
}

impl Driver {
    fn new(profile: Profile) -> Driver {
        let mut session = Session::new(Arc::new(profile), "ID");
        session.greet();
        Driver {
            session,
            output: Vec::new(),
            messages: Vec::new(),
            mechanism: String::new(),
            closed: false,
            refuse: None,
        }
    }

    fn feed(&mut self, input: &mut BytesMut) {
        loop {
            match self.session.receive(input) {
                Event::NeedInput => break,
                Event::StartTls => {
                    assert!(input.is_empty());
                    self.session.tls_started();
                }
                Event::Auth(event) => self.authenticate(event),
                Event::Rcpt(_) if self.refuse.is_some() => self.session.reply(self.refuse.as_ref().unwrap()),
                Event::Mail(_) | Event::Rcpt(_) | Event::MessageBegin => self.session.accept(),
                Event::Message(message) => {
                    self.messages.push(message);
                    self.session.accept_message(&"MESSAGE-ID");
                }
                Event::Close => {
                    self.closed = true;
                    break;
                }
            }
        }
        self.output.extend_from_slice(&self.session.output().split());
    }

    fn authenticate(&mut self, event: AuthEvent) {
        let response = match event {
            AuthEvent::Start { mechanism, initial } => {
                self.mechanism = mechanism;
                initial
            }
            AuthEvent::Response(response) => Some(response),
            AuthEvent::Cancelled => return,
        };
        match (self.mechanism.as_str(), response.as_deref()) {
            ("LOGIN", None) => self.session.auth_challenge(b"Username:"),
            ("LOGIN", Some(b"user")) => self.session.auth_challenge(b"Password:"),
            ("PLAIN", None) => self.session.auth_challenge(b""),
            ("PLAIN", Some(b"\0user\0secret")) | ("LOGIN", Some(b"secret")) => self.session.auth_success(),
            _ => self.session.auth_failure(&SmtpReply::new(535, "Authentication Credentials Invalid")),
        }
    }

    /// Feeds a dialogue and returns what was answered, the banner left out.
    fn say(&mut self, wire: &str) -> String {
        self.feed(&mut BytesMut::new());
        self.output.clear();
        self.feed(&mut BytesMut::from(wire));
        String::from_utf8(std::mem::take(&mut self.output)).unwrap()
    }
}

fn profile(tls: TlsMode) -> Profile {
    Profile::submission("mail.example.com", tls)
}

/// Authenticated, inside TLS.
fn ready() -> Driver {
    let mut driver = Driver::new(profile(TlsMode::Wrapper));
    assert!(driver.say("EHLO c\r\nAUTH PLAIN AHVzZXIAc2VjcmV0\r\n").ends_with("235 Authentication successful.\r\n"));
    driver
}

const WHOLE: &str = "EHLO example.com\r\nAUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\nMAIL FROM: sender@example.com\r\n\
    RCPT TO: recipient@example.com\r\nDATA\r\nFrom: a\r\nSubject: b\r\n\r\n..body\r\n.\r\nQUIT\r\n";

#[test]
fn a_whole_session_in_one_read() {
    let mut driver = Driver::new(profile(TlsMode::Wrapper));
    driver.feed(&mut BytesMut::from(WHOLE));
    let expected = "220 mail.example.com ESMTP postrider ID\r\n250-mail.example.com\r\n250-8BITMIME\r\n\
        250-SIZE 10485760\r\n250-AUTH PLAIN LOGIN\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250-DSN\r\n\
        250-REQUIRETLS\r\n250 Ok\r\n334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 Authentication successful.\r\n250 Ok\r\n250 Ok\r\n\
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
    let mut driver = Driver::new(Profile::open("mx.example", TlsMode::None));
    assert_eq!(driver.say("MAIL FROM:<>\r\n"), "503 Error: send HELO/EHLO first\r\n");
    assert_eq!(driver.say("HELO c\r\nMAIL FROM:<>\r\n"), "250 mx.example\r\n250 Ok\r\n");
    assert_eq!(driver.session.protocol(false), "SMTP");
}

#[test]
fn too_long_messages_are_refused_early_and_late() {
    let mut small = profile(TlsMode::None);
    small.auth = false;
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
    let mut strict = profile(TlsMode::None);
    strict.auth = false;
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
        "250 2.0.0 Ok",
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
    let mut session = Session::new(Arc::new(Profile::open("mx.example", TlsMode::None)), "ID");
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

/// Output, envelope and content of each message, whether it closed.
type Observed = (Vec<u8>, Vec<(String, Vec<u8>)>, bool);

/// Everything that can be seen of a dialogue, however it was cut.
fn observe(wire: &[u8], cuts: &[usize]) -> Observed {
    let mut open = Profile::open("mx.example", TlsMode::None);
    open.auth = true;
    open.limits.max_message_bytes = 60;
    open.limits.max_line_bytes = 64;
    open.limits.max_recipients = 2;
    let mut driver = Driver::new(open);
    let mut input = BytesMut::new();
    let mut rest = wire;
    let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
    while !rest.is_empty() {
        let size = cuts.next().unwrap_or(1).clamp(1, rest.len());
        input.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        driver.feed(&mut input);
    }
    let messages = driver.messages.iter().map(|message| (format!("{:?}", message.envelope), message.content.concat()));
    (std::mem::take(&mut driver.output), messages.collect(), driver.closed)
}

fn dialogue() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "EHLO c\r\n",
        "MAIL FROM:<a@b.example>\r\n",
        "RCPT TO:<c@d.example>\r\n",
        "DATA\r\n",
        "S: x\r\n\r\n",
        "body\n",
        "..\r\n",
        "\r\n.\r\n",
        ".\r\n",
        "\n.\n",
        "\r",
        ".",
        "RSET\r\n",
        "AUTH LOGIN\r\n",
        "dXNlcg==\r\n",
        "*\r\n",
        "c2VjcmV0\r\n",
        "NOOP\n",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "\0",
        "QUIT\r\n",
    ];
    let piece = proptest::sample::select(pieces.to_vec());
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| {
        let mut wire = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n".to_vec();
        wire.extend(pieces.concat().into_bytes());
        wire
    })
}

proptest! {
    #[test]
    fn every_cut_gives_the_same_events(wire in dialogue(), cuts in proptest::collection::vec(1usize..9, 0..80)) {
        prop_assert_eq!(observe(&wire, &cuts), observe(&wire, &[]));
    }

    #[test]
    fn random_octets_never_panic(wire: Vec<u8>, cuts in proptest::collection::vec(1usize..9, 0..80)) {
        prop_assert_eq!(observe(&wire, &cuts), observe(&wire, &[]));
    }

    /// Whatever a body holds, it stays in one message when it was stuffed.
    #[test]
    fn never_two_messages_from_one(lines in proptest::collection::vec("[.a\r\n]{0,4}", 0..8), cuts in proptest::collection::vec(1usize..9, 0..80)) {
        let body = bytes::Bytes::from(lines.join("\r\n").replace("\r\n.\r\n", "\r\n\r\n"));
        let mut wire = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n\r\n".to_vec();
        wire.extend(crate::wire::stuff(&[body]).concat());
        let (_, messages, _) = observe(&wire, &cuts);
        prop_assert!(messages.len() <= 1);
    }
}
