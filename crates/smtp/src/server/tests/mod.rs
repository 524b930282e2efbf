//! The server's session, driven with whole dialogues.

mod chunks;
mod cuts;
mod dialogues;
mod replies;
mod tolerance;

use std::sync::Arc;

use super::*;
use bytes::BytesMut;
use postrider_mail::SmtpReply;

/// A driver that accepts what it is asked for; the password is `secret`.
struct Driver {
    session: Session,
    output: Vec<u8>,
    messages: Vec<ReceivedMessage>,
    mechanism: String,
    closed: bool,
    /// Answers RCPT with this instead.
    refuse: Option<SmtpReply>,
    /// Answers DATA, or the first chunk, with this instead.
    refuse_content: Option<SmtpReply>,
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
            refuse_content: None,
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
                Event::MessageBegin if self.refuse_content.is_some() => {
                    self.session.reply(self.refuse_content.as_ref().unwrap());
                }
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

/// A service that takes mail from anyone.
fn open() -> Profile {
    Profile::open("mail.example.com", TlsMode::None)
}

/// Authenticated, inside TLS.
fn ready() -> Driver {
    let mut driver = Driver::new(profile(TlsMode::Wrapper));
    assert!(driver.say("EHLO c\r\nAUTH PLAIN AHVzZXIAc2VjcmV0\r\n").ends_with("235 Authentication successful.\r\n"));
    driver
}

const WHOLE: &str = "EHLO example.com\r\nAUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\nMAIL FROM: sender@example.com\r\n\
    RCPT TO: recipient@example.com\r\nDATA\r\nFrom: a\r\nSubject: b\r\n\r\n..body\r\n.\r\nQUIT\r\n";
