//! A relay, a remote behind a gate, and the record of what was promised: for
//! tests of bad days, after which everything promised must arrive.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::Clock;

use crate::client::{Client, Reply};
use crate::relay::{Relay, RelayOptions};
use crate::sink::{Policy, Received, Sink};
use crate::volume::Volume;

/// How long everything promised may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Short retries, so that mail leaves soon after the remote opens.
const RETRY: &str = "[delivery]\nretry = [\"1s\"]\n";

/// A remote that defers everything until it is opened, then keeps the subjects.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    open: Arc<AtomicBool>,
    subjects: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    /// Takes what comes from now on.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Subjects of what came, in order; repeated where it came again, and with
    /// `damaged` before it where it was not whole.
    #[must_use]
    pub fn subjects(&self) -> Vec<String> {
        self.subjects.lock().clone()
    }
}

impl Policy for Gate {
    fn recipient(&self, _: &str) -> String {
        if self.open.load(Ordering::SeqCst) { "250 Ok".to_owned() } else { "451 4.3.0 closed".to_owned() }
    }

    fn message(&self, message: Received) -> String {
        let text = String::from_utf8_lossy(&message.content).into_owned();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
        let whole = text.ends_with(&format!("end of {subject}\r\n"));
        self.subjects.lock().push(if whole { subject.to_owned() } else { format!("damaged {subject}") });
        "250 Ok".to_owned()
    }
}

/// A relay and the gate that all its mail goes to.
#[derive(Debug)]
pub struct Scene {
    /// The remote's decision.
    pub gate: Gate,
    /// The remote.
    pub sink: Sink,
    /// The relay.
    pub relay: Relay,
    /// Subjects of the messages that got a 250.
    pub promised: BTreeSet<String>,
}

impl Scene {
    /// A closed gate and a running relay, `configuration` beside the defaults;
    /// without a `[delivery]` in it mail is tried every second. Its state is on
    /// `volume` if there is one.
    ///
    /// # Errors
    /// As [`Relay::start`].
    pub async fn new(binary: &str, configuration: &str, volume: Option<&Volume>) -> io::Result<Self> {
        let gate = Gate::default();
        let sink = Sink::start(gate.clone(), Clock::system()).await?;
        let retry = if configuration.contains("[delivery]") { "" } else { RETRY };
        let options = RelayOptions {
            state: volume.map(|volume| volume.path().join("state")),
            prefix: volume.map(Volume::prefix).unwrap_or_default(),
            ..RelayOptions::to(binary, sink.address(), &format!("{retry}\n{configuration}"))
        };
        Ok(Self { gate, sink, relay: Relay::start(options)?, promised: BTreeSet::new() })
    }

    /// An authenticated session.
    ///
    /// # Errors
    /// The network's, or a relay that does not take it.
    pub async fn connect(&self) -> io::Result<Client> {
        self.relay.connect().await
    }

    /// Submits messages named `prefix-N` with so many bytes of padding; those
    /// with a 250 are promised.
    ///
    /// # Errors
    /// A session that ends.
    pub async fn submit(&mut self, prefix: &str, count: usize, padding: usize) -> io::Result<Vec<String>> {
        let mut client = self.connect().await?;
        let mut replies = Vec::new();
        for number in 0..count {
            let subject = format!("{prefix}-{number}");
            let reply = send(&mut client, &subject, padding).await?;
            if reply.code == 250 {
                self.promised.insert(subject);
            }
            replies.push(reply.to_string());
        }
        Ok(replies)
    }

    /// Opens the remote and waits until every promised message arrived, whole.
    ///
    /// # Panics
    /// When one is lost or damaged.
    pub async fn all_arrive(&mut self) {
        self.gate.open();
        // A message may come twice around a kill, so the count alone proves nothing.
        let missing = async {
            let mut count = self.promised.len() as u64;
            loop {
                self.sink.wait_for(count).await;
                let arrived: BTreeSet<String> = self.gate.subjects().into_iter().collect();
                if self.promised.is_subset(&arrived) {
                    return;
                }
                count = self.sink.accepted() + 1;
            }
        };
        let done = tokio::time::timeout(PATIENCE, missing).await.is_ok();
        let arrived: BTreeSet<String> = self.gate.subjects().into_iter().collect();
        let lost: Vec<_> = self.promised.difference(&arrived).collect();
        let log = || self.relay.log().unwrap_or_default();
        assert!(done && lost.is_empty(), "lost {lost:?} of {}\n{}", self.promised.len(), log());
        assert!(!arrived.iter().any(|subject| subject.starts_with("damaged")), "{arrived:?}");
    }
}

/// Submits one message that a [`Gate`] knows by its subject.
///
/// # Errors
/// A session that ends.
pub async fn send(client: &mut Client, subject: &str, padding: usize) -> io::Result<Reply> {
    client.send("a@example.com", &["b@example.net"], &content(subject, padding)).await
}

/// What [`send`] sends.
#[must_use]
pub fn content(subject: &str, padding: usize) -> Vec<u8> {
    let padding = "padding of some length\r\n".repeat(padding / 24);
    format!("From: a@example.com\r\nSubject: {subject}\r\n\r\n{padding}end of {subject}\r\n").into_bytes()
}
