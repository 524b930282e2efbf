//! The session machine and the client's side of it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postrider_mail::{Envelope, Recipient, SmtpReply};
use postrider_smtp::{
    Action, AuthEvent, ClientConfig, Conversation, Event, Profile, Protocol, ReceivedMessage, Session, Timeouts,
    TlsMode, TlsUse, Transaction,
};

use crate::steering::{Steering, feed};

/// Everything that can be seen of a session.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    said: Vec<u8>,
    messages: Vec<(Envelope, Vec<u8>)>,
    closed: bool,
}

/// A client's whole side of a session: never panics; the same replies and the
/// same messages for every cut; no more messages than ends of one were sent.
pub fn session(data: &[u8]) {
    let mut steering = Steering::new(data);
    let cuts = steering.cuts();
    let flags = steering.byte();
    let mut profile = match flags & 3 {
        0 => Profile::submission("mx.example", TlsMode::Wrapper),
        1 => Profile::submission("mx.example", TlsMode::StartTls),
        _ => Profile::open("mx.example", TlsMode::None),
    };
    profile.extensions.smtp_utf8 = flags & 4 != 0;
    profile.extensions.dsn = flags & 8 != 0;
    profile.enhanced_status_codes = flags & 16 != 0;
    profile.extensions.binary_mime = flags & 32 != 0;
    profile.limits.max_message_bytes = 4 * u64::from(steering.byte()) + 1;
    profile.limits.max_recipients = 3;
    profile.limits.max_line_bytes = 512;
    let profile = Arc::new(profile);
    let wire = steering.rest();

    let whole = watch(&profile, wire, None);
    // Input in clear behind STARTTLS is dropped; how much of it there is
    // depends on the cut, so only sessions without it can be compared.
    if profile.tls != TlsMode::StartTls {
        assert_eq!(watch(&profile, wire, Some(cuts)), whole);
    }
    let ends = count(wire, b".\r\n") + count(&wire.to_ascii_uppercase(), b"LAST");
    assert!(whole.messages.len() <= ends, "{} messages from {ends} ends", whole.messages.len());
    for line in whole.said.split_inclusive(|octet| *octet == b'\n') {
        assert!(line.ends_with(b"\r\n") && line.len() > 5, "not a reply line: {line:?}");
        assert!(line[..3].iter().all(u8::is_ascii_digit) && matches!(line[3], b' ' | b'-'), "{line:?}");
        assert!(!line[..line.len() - 2].iter().any(|octet| octet.is_ascii_control()), "{line:?}");
    }
}

fn watch(profile: &Arc<Profile>, wire: &[u8], cuts: Option<[usize; 3]>) -> Seen {
    let mut session = Session::new(profile.clone(), "ID");
    session.greet();
    let mut seen = Seen::default();
    feed(wire, cuts, |input| drive(&mut session, input, &mut seen));
    seen
}

/// A driver that takes everything; the password is `secret`.
fn drive(session: &mut Session, input: &mut BytesMut, seen: &mut Seen) {
    while !seen.closed {
        match session.receive(input) {
            Event::NeedInput => break,
            Event::StartTls => {
                assert!(input.is_empty(), "input in clear survived STARTTLS");
                session.tls_started();
            }
            Event::Auth(AuthEvent::Cancelled) => {}
            Event::Auth(AuthEvent::Start { initial: None, .. }) => session.auth_challenge(b"Password:"),
            Event::Auth(AuthEvent::Start { initial: Some(answer), .. } | AuthEvent::Response(answer)) => {
                match answer.as_slice() {
                    b"secret" => session.auth_success(),
                    _ => session.auth_failure(&SmtpReply::new(535, "Authentication Credentials Invalid")),
                }
            }
            Event::Mail(_) | Event::Rcpt(_) | Event::MessageBegin => session.accept(),
            Event::Message(ReceivedMessage { envelope, content, .. }) => {
                assert!(!envelope.recipients.is_empty(), "a message for nobody");
                seen.messages.push((envelope, content.concat()));
                session.accept_message(&"MESSAGE-ID");
            }
            Event::Close => seen.closed = true,
        }
    }
    seen.said.extend_from_slice(&session.output().split());
}

/// A host's whole side of a conversation: never panics, every recipient gets
/// exactly one result, and nothing is sent after the end.
pub fn conversation(data: &[u8]) {
    let mut steering = Steering::new(data);
    let cuts = steering.cuts();
    let flags = steering.byte();
    let tls = if flags & 1 == 0 { TlsUse::Never } else { TlsUse::Opportunistic };
    let config = ClientConfig {
        protocol: if flags & 4 == 0 { Protocol::Smtp } else { Protocol::Lmtp },
        hello: "relay.example".into(),
        tls,
        credentials: None,
        chunking: flags & 8 != 0,
        timeouts: Timeouts::default(),
    };
    let mut conversation = Conversation::new(config);
    let (mut gate, mut begun, mut finished, mut closed) = (|_: usize, _: &Recipient| true, 0, 0, false);
    let mut go_on = |conversation: &mut Conversation, input: &mut BytesMut| {
        while !closed {
            match conversation.advance(input, &mut gate) {
                Action::NeedInput => break,
                Action::StartTls => conversation.tls_started(),
                Action::Ready if begun < 3 => {
                    begun += 1;
                    conversation.begin(transaction(flags)).expect("a conversation that is ready");
                }
                Action::Ready => conversation.quit(),
                Action::Done(result) => {
                    finished += 1;
                    assert_eq!(result.recipients.len(), 2);
                }
                Action::Closed(_) => closed = true,
            }
            conversation.take_output();
        }
    };
    let mut rest = feed(steering.rest(), Some(cuts), |input| go_on(&mut conversation, input));
    conversation.lost();
    go_on(&mut conversation, &mut rest);
    assert!(closed);
    assert_eq!(begun, finished, "a transaction without a result");
}

fn transaction(flags: u8) -> Transaction {
    let recipients = ["a@b.example", "c@b.example"].map(|address| Recipient::new(address.parse().expect("an address")));
    let envelope = Envelope { recipients: recipients.to_vec(), smtp_utf8: flags & 2 != 0, ..Envelope::default() };
    Transaction { envelope, content: vec![Bytes::from_static(b"Subject: x\r\n\r\n.dot\r\n")] }
}

fn count(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len()).filter(|window| *window == word).count()
}
