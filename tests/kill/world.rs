//! The letters, and the world that they go to: what was promised and what came.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Clock, Random};
use postrider_testkit::relay::Relay;
use postrider_testkit::{Policy, Received};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long after the remote's 250 its record may still be on its way to the
/// disk: the promise is 100 ms for a written record; the rest is what two busy
/// cores may add.
const WINDOW: Duration = Duration::from_millis(1500);

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// One letter in so many goes to somebody who takes nothing before the end of
/// the run.
const LATE: u64 = 8;

/// A message; all of it follows from its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter(u64);

/// What becomes of a recipient, by the first word of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Taken at once.
    Good,
    /// Deferred once.
    Flaky,
    /// Deferred until the end of the run.
    Late,
    /// Refused for good: a notification goes to the sender.
    Never,
    /// The sender, who is told of the one that was refused.
    Sender,
}

impl Letter {
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }

    /// The letter that an address belongs to, and what the address stands for.
    pub(crate) fn of(address: &str) -> Option<(Self, Fate)> {
        let (local, _) = address.split_once('@')?;
        let (word, number) = local.split_once('-')?;
        let fate = match word {
            "good" => Fate::Good,
            "flaky" => Fate::Flaky,
            "late" => Fate::Late,
            "never" => Fate::Never,
            "sender" => Fate::Sender,
            _ => return None,
        };
        Some((Self(number.parse().ok()?), fate))
    }

    pub(crate) fn sender(self) -> String {
        format!("sender-{}@example.com", self.0)
    }

    /// Three fates in one domain, so that one transaction has them all.
    pub(crate) fn recipients(self) -> Vec<String> {
        let number = self.0;
        let mut all = vec![
            format!("good-{number}@a.test"),
            format!("flaky-{number}@a.test"),
            format!("never-{number}@a.test"),
            format!("good-{number}@b.test"),
        ];
        if number.is_multiple_of(LATE) {
            all.push(format!("late-{number}@a.test"));
        }
        all
    }

    pub(crate) fn content(self) -> Vec<u8> {
        let mut content = b"From: sender@example.com\r\nSubject: kill\r\n".to_vec();
        content.extend_from_slice(&self.body());
        content
    }

    /// An empty line and up to 40 KB.
    fn body(self) -> Vec<u8> {
        let random = Random::seeded(self.0);
        let mut body = b"\r\n".to_vec();
        for line in 0..random.below(600) {
            body.extend_from_slice(format!("{line} {:016x} {:032x}\r\n", random.u64(), random.u128()).as_bytes());
        }
        body.extend_from_slice(b"end\r\n");
        body
    }
}

/// Everybody that mail goes to.
#[derive(Clone)]
pub(crate) struct World(Arc<Ledger>);

struct Ledger {
    clock: Clock,
    /// Letters that got a 250, with the id that it named.
    promised: Mutex<BTreeMap<Letter, String>>,
    /// Moments of delivery for each recipient, and for each sender who was told.
    arrived: Mutex<BTreeMap<String, Vec<Instant>>>,
    damaged: Mutex<Vec<String>>,
    /// When recipients were first told to come again.
    deferred: Mutex<BTreeMap<String, Instant>>,
    kills: Mutex<Vec<Instant>>,
    open: AtomicBool,
    acknowledged: watch::Sender<u64>,
    deliveries: watch::Sender<u64>,
}

/// What [`World::check`] counted.
pub(crate) struct Arrivals {
    promised: usize,
    arrived: usize,
    repeats: usize,
}

impl World {
    pub(crate) fn new(clock: Clock) -> Self {
        Self(Arc::new(Ledger {
            clock,
            promised: Mutex::default(),
            arrived: Mutex::default(),
            damaged: Mutex::default(),
            deferred: Mutex::default(),
            kills: Mutex::default(),
            open: AtomicBool::new(false),
            acknowledged: watch::Sender::new(0),
            deliveries: watch::Sender::new(0),
        }))
    }

    pub(crate) fn promise(&self, letter: Letter, id: &str) {
        self.0.promised.lock().insert(letter, id.to_owned());
        self.0.acknowledged.send_modify(|count| *count += 1);
    }

    /// The relay is about to be killed.
    pub(crate) fn killed(&self) {
        self.0.kills.lock().push(self.0.clock.instant());
    }

    /// Takes mail for everybody from now on.
    pub(crate) fn open(&self) {
        self.0.open.store(true, Ordering::Release);
    }

    pub(crate) async fn wait_for_more(&self, messages: u64) {
        let mut acknowledged = self.0.acknowledged.subscribe();
        let target = *acknowledged.borrow_and_update() + messages;
        let enough = acknowledged.wait_for(|&count| count >= target);
        tokio::time::timeout(PATIENCE, enough).await.expect("the relay accepts").expect("kept open");
    }

    /// Waits until so many more messages have come.
    pub(crate) async fn wait_for_arrivals(&self, messages: u64) {
        let mut deliveries = self.0.deliveries.subscribe();
        let target = *deliveries.borrow_and_update() + messages;
        let enough = deliveries.wait_for(|&count| count >= target);
        tokio::time::timeout(PATIENCE, enough).await.expect("the relay delivers").expect("kept open");
    }

    pub(crate) async fn wait_until_all_arrived(&self, relay: &Relay) -> Result<(), Box<dyn Error>> {
        let mut deliveries = self.0.deliveries.subscribe();
        loop {
            let missing = self.missing();
            if missing.is_empty() {
                return Ok(());
            }
            if tokio::time::timeout(PATIENCE, deliveries.changed()).await.is_err() {
                let queue = String::from_utf8_lossy(&relay.cli(&["queue", "list"])?.stdout).into_owned();
                return Err(format!("{} missing: {missing:?}\nstill queued:\n{queue}", missing.len()).into());
            }
            // Looking is work: not at each delivery.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Who has not got what was promised: the recipients, but for the one who
    /// refuses, and in its place the sender.
    fn missing(&self) -> Vec<String> {
        let (promised, arrived) = (self.0.promised.lock(), self.0.arrived.lock());
        let wanted = promised.keys().flat_map(|letter| {
            let recipients = letter.recipients().into_iter().filter(|recipient| !recipient.starts_with("never-"));
            recipients.chain([letter.sender()])
        });
        wanted.filter(|address| !arrived.contains_key(address)).collect()
    }

    /// Nothing came damaged, and nothing twice without a kill between.
    pub(crate) fn check(&self) -> Arrivals {
        let damaged = self.0.damaged.lock();
        assert!(damaged.is_empty(), "damaged: {damaged:?}");
        let arrived = self.0.arrived.lock();
        let mut repeats = 0;
        for (recipient, moments) in arrived.iter() {
            for pair in moments.windows(2) {
                let [first, second] = [pair[0], pair[1]];
                let excused = self.0.kills.lock().iter().any(|&kill| near(kill, first) && kill < second);
                assert!(excused, "{recipient} came twice, {:?} apart, with no kill between", second - first);
                repeats += 1;
            }
        }
        Arrivals { promised: self.0.promised.lock().len(), arrived: arrived.len(), repeats }
    }

    /// Ids of the messages that got a 250.
    pub(crate) fn promised_ids(&self) -> BTreeSet<String> {
        self.0.promised.lock().values().cloned().collect()
    }

    /// Recipients who took a message.
    pub(crate) fn takers(&self) -> BTreeSet<String> {
        let arrived = self.0.arrived.lock();
        let recipient = |address: &&String| !matches!(Letter::of(address), Some((_, Fate::Sender)));
        arrived.keys().filter(recipient).cloned().collect()
    }

    /// Recipients whose deferral was on disk before the next kill.
    pub(crate) fn surely_deferred(&self) -> Vec<String> {
        let (deferred, kills) = (self.0.deferred.lock(), self.0.kills.lock());
        let sure = deferred.iter().filter(|(_, moment)| !kills.iter().any(|&kill| near(kill, **moment)));
        sure.map(|(recipient, _)| recipient.clone()).collect()
    }

    fn is_deferred(&self, address: &str, fate: Fate) -> bool {
        let mut deferred = self.0.deferred.lock();
        let first = !deferred.contains_key(address);
        let again = match fate {
            Fate::Flaky => first,
            Fate::Late => !self.0.open.load(Ordering::Acquire),
            Fate::Good | Fate::Never | Fate::Sender => false,
        };
        if again && first {
            deferred.insert(address.to_owned(), self.0.clock.instant());
        }
        again
    }
}

/// Whether the record of what happened at `moment` may be lost in the kill.
fn near(kill: Instant, moment: Instant) -> bool {
    moment <= kill + WINDOW && kill <= moment + WINDOW
}

impl Policy for World {
    fn recipient(&self, address: &str) -> String {
        let reply = match Letter::of(address) {
            None => "553 5.1.3 nobody wrote to this address",
            Some((_, Fate::Never)) => "550 5.1.1 user unknown",
            Some((_, fate)) if self.is_deferred(address, fate) => "451 4.3.0 come again",
            Some(_) => "250 Ok",
        };
        reply.to_owned()
    }

    fn message(&self, message: Received) -> String {
        let now = self.0.clock.instant();
        for recipient in &message.recipients {
            if !is_whole(recipient, &message) {
                self.0.damaged.lock().push(recipient.clone());
            }
            self.0.arrived.lock().entry(recipient.clone()).or_default().push(now);
        }
        self.0.deliveries.send_modify(|count| *count += 1);
        "250 Ok".to_owned()
    }
}

/// The letter from its sender, or the notification that names the recipient who
/// refused.
fn is_whole(recipient: &str, message: &Received) -> bool {
    let Some((letter, fate)) = Letter::of(recipient) else { return false };
    if fate == Fate::Sender {
        let text = String::from_utf8_lossy(&message.content);
        let refused = letter.recipients().into_iter().find(|recipient| recipient.starts_with("never-"));
        let failed = refused.is_some_and(|refused| text.contains(&format!("Final-Recipient: rfc822; {refused}")));
        return message.sender.is_empty() && failed;
    }
    message.sender == letter.sender() && message.content.ends_with(&letter.body())
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { promised, arrived, repeats } = self;
        write!(f, "{promised} messages promised, {arrived} recipients and senders reached, {repeats} of them again")
    }
}
