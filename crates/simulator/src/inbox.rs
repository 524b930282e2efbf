//! The inbox: what it keeps, and whom it tells.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_base::{Clock, Random, Scope, Stream, Timestamp};
use postrider_mail::{
    Domain, EmailAddress, Envelope, HeaderBlock, SES_SIMULATOR, SimulatedMailbox, SmtpReply, header_of, sanitize_text,
};
use postrider_smtp::{Profile, ReceivedMessage, TlsMode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};

use crate::{Settings, session};

/// Arrivals that a slow subscriber may be behind before it misses some.
const ARRIVALS: usize = 256;
/// Bytes looked at for the fields shown.
const MAX_HEADER: usize = 64 * 1024;
/// Bytes shown of a field.
const MAX_SHOWN: usize = 200;

/// Takes mail for the users of one domain, keeps the latest in memory, and
/// tells subscribers. A cheap handle; clones are the same inbox.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    domain: Domain,
    /// Where it is the mailbox simulator, the operator's domain.
    plays: Option<String>,
    profile: Arc<Profile>,
    settings: Settings,
    clock: Clock,
    random: Random,
    sessions: Arc<Semaphore>,
    kept: Mutex<Kept>,
    arrivals: broadcast::Sender<Arc<Arrived>>,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    /// Counts the inbox's arrivals, from 1.
    pub number: u64,
    /// When it arrived.
    pub at: Timestamp,
    /// Its envelope.
    pub envelope: Envelope,
    /// Bytes of its content.
    pub size: u64,
    /// Its Subject field: printable, at most 200 bytes; empty without one.
    /// Encoded words are left as they are.
    pub subject: String,
    /// Its From field, likewise.
    pub from: String,
    /// Its content, CRLF line ends.
    pub content: Vec<Bytes>,
}

/// The latest messages, within both bounds.
#[derive(Default)]
struct Kept {
    messages: VecDeque<Arc<Arrived>>,
    bytes: u64,
    arrived: u64,
}

impl Inbox {
    /// An empty inbox for `domain` that calls itself by the domain's name.
    pub fn new(domain: Domain, settings: Settings, clock: Clock, random: Random) -> Inbox {
        Self::of(domain, None, settings, clock, random)
    }

    /// The mailbox simulator of a relay whose operator has this domain: it takes mail for what
    /// [`SimulatedMailbox`] names, below both of its domains, refuses what these refuse, and
    /// keeps nothing of what it takes: subscribers are told of the headers of messages to
    /// mailboxes that write back, without their bodies. It calls itself by SES's name.
    pub fn simulator(operator_domain: &str, clock: Clock, random: Random) -> Inbox {
        let settings = Settings { max_messages: 0, ..Settings::default() };
        let domain = SES_SIMULATOR.parse().expect("it is a domain");
        Self::of(domain, Some(operator_domain.to_owned()), settings, clock, random)
    }

    fn of(domain: Domain, plays: Option<String>, settings: Settings, clock: Clock, random: Random) -> Inbox {
        let mut profile = Profile::open(domain.as_str(), TlsMode::None);
        profile.limits.max_message_bytes = settings.max_message_bytes.bytes();
        profile.enhanced_status_codes = true;
        Inbox(Arc::new(Inner {
            domain,
            plays,
            profile: Arc::new(profile),
            sessions: Arc::new(Semaphore::new(settings.max_connections as usize)),
            settings,
            clock,
            random,
            kept: Mutex::default(),
            arrivals: broadcast::Sender::new(ARRIVALS),
        }))
    }

    /// The domain whose users it takes mail for.
    pub fn domain(&self) -> &Domain {
        &self.0.domain
    }

    /// The messages kept, oldest first.
    pub fn messages(&self) -> Vec<Arc<Arrived>> {
        self.0.kept.lock().messages.iter().cloned().collect()
    }

    /// Every message from here on. A subscriber that is more than 256 messages
    /// behind is told that it missed some.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Arrived>> {
        self.0.arrivals.subscribe()
    }

    /// Takes connections until `scope` ends, each as a task of it.
    pub async fn serve(&self, listener: TcpListener, scope: &Scope) {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, mostly: it passes.
                        tracing::warn!(%error, "inbox: a connection could not be taken");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = scope.cancelled() => return,
            };
            // Costs only some delay where it fails.
            let _ = stream.set_nodelay(true);
            self.spawn(stream, scope);
        }
    }

    /// Speaks with one client until either side ends the session.
    pub async fn converse(&self, stream: impl Stream) {
        let permit = self.0.sessions.try_acquire();
        let name = self.0.random.alphanumeric(12);
        session::run(self, stream, name, permit.is_ok()).await;
    }

    /// [`Inbox::converse`] as a task of `scope`, ended with it.
    pub(crate) fn spawn(&self, stream: impl Stream + 'static, scope: &Scope) {
        let (inbox, cancelled) = (self.clone(), scope.token());
        scope.spawn("inbox", async move {
            tokio::select! {
                () = inbox.converse(stream) => {}
                () = cancelled.cancelled() => {}
            }
        });
    }

    /// Why mail for a recipient is not taken; none where it is.
    pub(crate) fn refusal(&self, recipient: &EmailAddress) -> Option<SmtpReply> {
        let Some(operator_domain) = &self.0.plays else {
            let is_here = recipient.domain() == self.domain();
            return (!is_here).then(|| SmtpReply::new(550, "5.1.1 No such user here"));
        };
        let text = match SimulatedMailbox::of(recipient, operator_domain) {
            Some(SimulatedMailbox::Bounce) => "5.1.1 user unknown",
            Some(SimulatedMailbox::SuppressionList) => "5.1.1 This mailbox plays one on the global suppression list",
            Some(_) => return None,
            None => "5.1.1 No such mailbox in the simulator",
        };
        Some(SmtpReply::new(550, text))
    }

    pub(crate) fn profile(&self) -> &Arc<Profile> {
        &self.0.profile
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Keeps a message, tells the subscribers, and returns its number.
    pub(crate) fn take(&self, message: ReceivedMessage) -> u64 {
        let at = self.0.clock.now();
        let mut arrived = Arrived::new(message, at);
        if self.0.plays.is_some() {
            // Whoever writes back needs no more of it, and may be behind.
            arrived.content = vec![header_of(&arrived.content, MAX_HEADER).into()];
        }
        let writes_back = self.writes_back(&arrived.envelope);
        let mut kept = self.0.kept.lock();
        kept.arrived += 1;
        arrived.number = kept.arrived;
        let arrived = Arc::new(arrived);
        kept.push(arrived.clone(), &self.0.settings);
        // Told under the lock, so that arrivals are told in their order.
        // Nobody listening is fine.
        let number = arrived.number;
        if writes_back {
            let _ = self.0.arrivals.send(arrived);
        }
        number
    }

    /// Whether subscribers are told of it: the simulator's answer for some of its mailboxes.
    fn writes_back(&self, envelope: &Envelope) -> bool {
        let Some(operator_domain) = &self.0.plays else { return true };
        let mut mailboxes =
            envelope.recipients.iter().filter_map(|to| SimulatedMailbox::of(&to.address, operator_domain));
        mailboxes.any(|mailbox| matches!(mailbox, SimulatedMailbox::OutOfOffice | SimulatedMailbox::Complaint))
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("domain", &self.0.domain).finish_non_exhaustive()
    }
}

impl Arrived {
    fn new(message: ReceivedMessage, at: Timestamp) -> Arrived {
        let header = header_of(&message.content, MAX_HEADER);
        let header = HeaderBlock::parse(&header).ok();
        let shown = |name| {
            let field = header.as_ref().and_then(|header| header.find(name));
            field.map_or_else(String::new, |field| sanitize_text(field.value().as_bytes(), MAX_SHOWN))
        };
        Arrived {
            number: 0,
            at,
            size: message.content.iter().map(|piece| piece.len() as u64).sum(),
            subject: shown("Subject"),
            from: shown("From"),
            envelope: message.envelope,
            content: message.content,
        }
    }
}

impl Kept {
    fn push(&mut self, arrived: Arc<Arrived>, settings: &Settings) {
        self.bytes += arrived.size;
        self.messages.push_back(arrived);
        while self.messages.len() > settings.max_messages as usize || self.bytes > settings.max_bytes.bytes() {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_base::Size;

    fn inbox(settings: Settings) -> Inbox {
        let clock = Clock::simulated(Timestamp::from_millis(1_000));
        Inbox::new("inbox.example".parse().unwrap(), settings, clock, Random::seeded(1))
    }

    fn message(content: &'static [u8]) -> ReceivedMessage {
        ReceivedMessage { envelope: Envelope::default(), content: vec![Bytes::from_static(content)], hold: None }
    }

    fn numbers(inbox: &Inbox) -> Vec<u64> {
        inbox.messages().iter().map(|m| m.number).collect()
    }

    #[tokio::test]
    async fn the_latest_are_kept() {
        let inbox = inbox(Settings { max_messages: 2, ..Settings::default() });
        for _ in 0..3 {
            inbox.take(message(b"x"));
        }
        assert_eq!(numbers(&inbox), [2, 3]);
    }

    #[tokio::test]
    async fn bytes_are_bounded() {
        let inbox = inbox(Settings { max_bytes: Size::from_bytes(10), ..Settings::default() });
        for content in [&b"12345"[..], b"12345", b"1", b"1234567890", b"12345678901"] {
            inbox.take(message(content));
            assert!(inbox.messages().iter().map(|m| m.size).sum::<u64>() <= 10);
        }
        assert_eq!(numbers(&inbox), [] as [u64; 0]);
        inbox.take(message(b"1"));
        assert_eq!(numbers(&inbox), [6]);
    }

    #[test]
    fn the_simulator_plays_its_mailboxes() {
        let clock = Clock::simulated(Timestamp::from_millis(1_000));
        let simulator = Inbox::simulator("example.com", clock, Random::seeded(1));
        let refusal = |to: &str| simulator.refusal(&to.parse().unwrap()).map(|reply| reply.to_string());
        for taken in ["success", "complaint+label", "ooto"] {
            assert_eq!(refusal(&format!("{taken}@simulator.amazonses.com")), None);
            assert_eq!(refusal(&format!("{taken}@simulator.example.com")), None);
        }
        assert_eq!(refusal("Bounce+a@simulator.amazonses.com").unwrap().trim_end(), "550 5.1.1 user unknown");
        for refused in ["suppressionlist@simulator.example.com", "x@simulator.example.com", "success@example.com"] {
            assert!(refusal(refused).unwrap().starts_with("550 5.1.1 "), "{refused}");
        }
        simulator.take(message(b"x"));
        assert!(simulator.messages().is_empty(), "it is nobody's mail");
    }

    #[tokio::test]
    async fn the_simulator_tells_of_headers_and_of_mailboxes_that_write_back() {
        let clock = Clock::simulated(Timestamp::from_millis(1_000));
        let simulator = Inbox::simulator("example.com", clock, Random::seeded(1));
        let mut arrivals = simulator.subscribe();
        for to in ["success@simulator.amazonses.com", "ooto@simulator.amazonses.com", "complaint@simulator.example.com"]
        {
            let mut message = message(b"Subject: x\r\n\r\nbody\r\n");
            message.envelope.recipients = vec![postrider_mail::Recipient::new(to.parse().unwrap())];
            simulator.take(message);
        }
        for number in [2, 3] {
            let told = arrivals.recv().await.unwrap();
            assert_eq!((told.number, told.content.concat()), (number, b"Subject: x\r\n".to_vec()));
        }
    }

    #[tokio::test]
    async fn arrivals_are_told_in_order_with_what_is_shown() {
        let inbox = inbox(Settings::default());
        inbox.take(message(b"before\r\n"));
        let mut arrivals = inbox.subscribe();
        inbox.take(message(b"from: A <a@b.c>\r\nSubject: x\x1b[2J\r\n y\r\n\r\nbody"));
        inbox.take(message(b"no header\r\n"));
        let first = arrivals.recv().await.unwrap();
        assert_eq!((first.number, first.from.as_str(), first.subject.as_str()), (2, "A <a@b.c>", "x?[2J y"));
        assert_eq!(arrivals.recv().await.unwrap().subject, "");
    }
}
