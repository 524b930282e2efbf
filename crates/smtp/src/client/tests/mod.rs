//! The client's conversation, driven with whole dialogues.

mod dialogues;
mod faults;
mod lmtp;
mod transcripts;

use bytes::{Bytes, BytesMut};
use postrider_mail::{BodyType, Envelope, Recipient, SmtpReply, Stage};

use super::*;

fn config(tls: TlsUse) -> ClientConfig {
    ClientConfig {
        protocol: Protocol::Smtp,
        hello: "relay.example".into(),
        tls,
        credentials: None,
        chunking: false,
        timeouts: Timeouts::default(),
    }
}

fn transaction(recipients: &[&str]) -> Transaction {
    let recipients = recipients.iter().map(|address| Recipient::new(address.parse().unwrap())).collect();
    let envelope = Envelope { sender: Some("s@relay.example".parse().unwrap()), recipients, ..Envelope::default() };
    Transaction { envelope, content: vec![Bytes::from_static(b"S: x\r\n\r\n.dot\r\n")] }
}

fn replied(stage: Stage, code: u16, text: &str) -> RecipientResult {
    RecipientResult::Replied { stage, reply: SmtpReply::new(code, text) }
}

/// A conversation whose remote host is the test.
struct Talk {
    conversation: Conversation,
    /// Recipients that the gate keeps.
    vetoed: Vec<usize>,
}

impl Talk {
    fn new(config: ClientConfig) -> Talk {
        Talk { conversation: Conversation::new(config), vetoed: Vec::new() }
    }

    /// With the session set up and these extensions.
    fn ready(extensions: &str) -> Talk {
        Talk::ready_with(config(TlsUse::Never), extensions)
    }

    fn ready_with(config: ClientConfig, extensions: &str) -> Talk {
        let mut talk = Talk::new(config);
        talk.hears("220 mx\r\n");
        assert_eq!(talk.hears(&format!("250-mx\r\n{extensions}250 Ok\r\n")), (String::new(), Action::Ready));
        talk
    }

    /// The remote says this; returns what is sent then, and the action.
    fn hears(&mut self, wire: &str) -> (String, Action) {
        let vetoed = self.vetoed.clone();
        let mut gate = move |position: usize, _: &Recipient| !vetoed.contains(&position);
        let action = self.conversation.advance(&mut BytesMut::from(wire), &mut gate);
        (String::from_utf8(self.conversation.take_output().concat()).unwrap(), action)
    }

    fn begins(&mut self, transaction: Transaction) -> (String, Action) {
        self.conversation.begin(transaction).unwrap();
        self.hears("")
    }

    fn results(&mut self, wire: &str) -> Vec<RecipientResult> {
        match self.hears(wire) {
            (_, Action::Done(result)) => result.recipients,
            other => panic!("no result: {other:?}"),
        }
    }
}

const PIPELINING: &str = "250-PIPELINING\r\n";
