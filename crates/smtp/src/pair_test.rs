//! Client and server against each other, in memory.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postrider_mail::{BodyType, Envelope, Notify, Recipient, Ret, Stage};
use proptest::prelude::*;

use crate::*;

/// Both sides with a wire between them that carries so many octets at a time.
struct Pair {
    client: Conversation,
    server: Session,
    to_server: BytesMut,
    received: Vec<ReceivedMessage>,
    /// Both sides are told that TLS is there when they agree on it.
    tls: bool,
}

impl Pair {
    fn new(profile: Profile, tls: TlsUse, credentials: Option<Credentials>) -> Pair {
        let config = ClientConfig {
            protocol: Protocol::Smtp,
            hello: "relay.example".into(),
            tls,
            credentials,
            chunking: true,
            timeouts: Timeouts::default(),
        };
        let mut server = Session::new(Arc::new(profile), "ID");
        server.greet();
        let client = Conversation::new(config);
        Pair { client, server, to_server: BytesMut::new(), received: Vec::new(), tls: false }
    }

    fn serve(&mut self) {
        loop {
            match self.server.receive(&mut self.to_server) {
                Event::NeedInput | Event::Close => return,
                Event::StartTls => {
                    // The client must have read 220 first.
                    self.tls = true;
                    return;
                }
                Event::Auth(AuthEvent::Start { initial, .. }) if initial.as_deref() == Some(b"\0user\0secret") => {
                    self.server.auth_success();
                }
                Event::Auth(event) => panic!("{event:?}"),
                Event::Mail(_) | Event::Rcpt(_) | Event::MessageBegin => self.server.accept(),
                Event::Message(message) => {
                    self.received.push(message);
                    self.server.accept_message(&self.received.len());
                }
            }
        }
    }

    /// Runs until the client is ready, has a result, or has ended.
    fn run(&mut self, step: usize) -> Action {
        let mut input = BytesMut::new();
        for _ in 0..100 {
            match self.client.advance(&mut input, &mut |_: usize, _: &Recipient| true) {
                Action::NeedInput => {}
                Action::StartTls => {
                    assert!(self.tls);
                    self.client.tls_started();
                    self.server.tls_started();
                    continue;
                }
                action => return action,
            }
            let sent = self.client.take_output().concat();
            for piece in sent.chunks(step) {
                self.to_server.extend_from_slice(piece);
                self.serve();
            }
            self.serve();
            let answer = self.server.output().split();
            input.unsplit(answer);
        }
        panic!("both sides wait for each other");
    }
}

fn transaction(content: Vec<Bytes>) -> Transaction {
    let recipients = ["a@b.example", "c@b.example"].map(|address| Recipient::new(address.parse().unwrap())).to_vec();
    Transaction { envelope: Envelope { recipients, ..Envelope::default() }, content }
}

#[test]
fn through_starttls_and_auth() {
    let credentials = Credentials { user: "user".into(), password: "secret".into() };
    let mut pair =
        Pair::new(Profile::submission("mail.example", TlsMode::StartTls), TlsUse::Required, Some(credentials));
    assert_eq!(pair.run(7), Action::Ready);
    assert!(pair.client.is_tls() && pair.server.is_authenticated());
    for number in 1..=3 {
        let message = transaction(vec![Bytes::from_static(b"S: x\r\n\r\n.\r\n..\r\n")]);
        pair.client.begin(message.clone()).unwrap();
        let Action::Done(result) = pair.run(100) else { panic!("no result") };
        for recipient in result.recipients {
            let RecipientResult::Replied { stage: Stage::EndOfData, reply } = recipient else {
                panic!("{recipient:?}")
            };
            assert_eq!(reply.one_line(), format!("250 Ok {number}"));
        }
        assert_eq!(pair.received[number - 1].envelope, message.envelope);
        assert_eq!(pair.received[number - 1].content.concat(), message.content.concat());
    }
    pair.client.quit();
    assert_eq!(pair.run(100), Action::Closed(Ended::Quit));
}

#[test]
fn a_message_over_the_size_is_not_even_begun() {
    let mut profile = Profile::open("mail.example", TlsMode::None);
    profile.limits.max_message_bytes = 10;
    let mut pair = Pair::new(profile, TlsUse::Never, None);
    assert_eq!(pair.run(9), Action::Ready);
    pair.client.begin(transaction(vec![Bytes::from_static(b"0123456789\r\n")])).unwrap();
    let Action::Done(result) = pair.run(9) else { panic!("no result") };
    assert_eq!(result.recipients[0], RecipientResult::Refused(LocalRefusal::TooLarge { limit: 10 }));
}

/// Everything that an envelope can say, said and understood.
#[test]
fn all_parameters_go_through() {
    let mut profile = Profile::open("mail.example", TlsMode::Wrapper);
    profile.extensions.binary_mime = true;
    let mut pair = Pair::new(profile, TlsUse::Active, None);
    assert_eq!(pair.run(100), Action::Ready);
    let mut message = transaction(vec![Bytes::from_static(b"S: x\r\n\r\n\0")]);
    message.envelope = Envelope {
        sender: Some("jos\u{e9}@a.example".parse().unwrap()),
        body: BodyType::BinaryMime,
        smtp_utf8: true,
        ret: Some(Ret::Headers),
        envid: Some("a+b=c d".into()),
        require_tls: true,
        ..message.envelope
    };
    message.envelope.recipients[0].notify = Notify::SUCCESS | Notify::DELAY;
    message.envelope.recipients[0].orcpt = Some("rfc822;x+y@b.example".into());
    pair.client.begin(message.clone()).unwrap();
    assert!(matches!(pair.run(100), Action::Done(_)));
    assert_eq!(pair.received.len(), 1);
    assert_eq!(pair.received[0].envelope, message.envelope);
}

proptest! {
    /// Binary content comes out exactly as it went in.
    #[test]
    fn binary_content_round_trips(content: Vec<u8>, cut in 1usize..50, step in 1usize..50, pipelining: bool) {
        let mut profile = Profile::open("mail.example", TlsMode::None);
        profile.extensions.pipelining = pipelining;
        profile.extensions.binary_mime = true;
        let mut pair = Pair::new(profile, TlsUse::Never, None);
        prop_assert_eq!(pair.run(step), Action::Ready);
        let mut message = transaction(content.chunks(cut).map(Bytes::copy_from_slice).collect());
        message.envelope.body = BodyType::BinaryMime;
        pair.client.begin(message).unwrap();
        prop_assert!(matches!(pair.run(step), Action::Done(_)));
        prop_assert_eq!(pair.received.len(), 1);
        prop_assert_eq!(pair.received[0].content.concat(), content);
    }

    /// What goes in at one end comes out at the other, however it is cut.
    #[test]
    fn content_round_trips(
        lines in proptest::collection::vec("[.ab\u{e9}]{0,5}", 0..40), cut in 1usize..50, step in 1usize..50,
        pipelining: bool, chunking: bool,
    ) {
        let mut profile = Profile::open("mail.example", TlsMode::None);
        profile.extensions.pipelining = pipelining;
        profile.extensions.chunking = chunking;
        let mut pair = Pair::new(profile, TlsUse::Opportunistic, None);
        prop_assert_eq!(pair.run(step), Action::Ready);
        let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        // The second one goes to a host that has taken one already.
        for number in 1..=2 {
            let chunks = content.as_bytes().chunks(cut).map(Bytes::copy_from_slice).collect();
            pair.client.begin(transaction(chunks)).unwrap();
            prop_assert!(matches!(pair.run(step), Action::Done(_)));
            prop_assert_eq!(pair.received.len(), number);
            prop_assert_eq!(pair.received[number - 1].content.concat(), content.as_bytes());
        }
    }
}
