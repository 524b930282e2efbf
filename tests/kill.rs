//! The promise under `kill -9`: whatever got a 250 is delivered or still
//! queued, whole; and it is delivered twice only where the daemon died in the
//! moment between the remote's 250 and the record of it.

#![expect(clippy::print_stdout, reason = "the seed and the counts are for whoever repeats a run")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Clock, Random};
use postrider_testkit::client::{Endpoint, Security};
use postrider_testkit::relay::{Relay, RelayOptions};
use postrider_testkit::{Policy, Received, Sink};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long after the remote's 250 its record may still be on its way to the
/// disk: the promise is 100 ms for a written record; the rest is what two busy
/// cores may add.
const WINDOW: Duration = Duration::from_millis(1500);

const SESSIONS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_got_a_250_is_lost_or_damaged() -> Result<(), Box<dyn Error>> {
    let rounds: u32 = std::env::var("POSTRIDER_KILL_ROUNDS").ok().map_or(Ok(25), |rounds| rounds.parse())?;
    let seed = std::env::var("POSTRIDER_KILL_SEED").ok().map_or(Ok(Random::system().u64()), |seed| seed.parse())?;
    println!("POSTRIDER_KILL_SEED={seed} POSTRIDER_KILL_ROUNDS={rounds}");
    let random = Random::seeded(seed);
    let clock = Clock::system();
    let world = World::new(clock.clone());
    let sink = Sink::start(world.clone(), clock.clone()).await?;
    let mut relay = Relay::start(RelayOptions::to(
        env!("CARGO_BIN_EXE_postrider"),
        sink.address(),
        "[delivery]\nretry = [\"1s\"]\n",
    ))?;
    let mut kills = Vec::new();
    for round in 0..rounds {
        let endpoint = relay.endpoint(Security::StartTls, true)?;
        let (user, password) = relay.credentials();
        let sessions = submit(&world, round, &endpoint, user, password, &random);
        world.wait_for_more(20 + random.below(200)).await;
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        kills.push(clock.instant());
        relay.kill()?;
        sessions.join_all().await;
        relay.launch()?;
    }
    world.wait_until_all_arrived(&relay).await?;
    world.check(&kills);
    assert!(relay.stop()?.success(), "{}", relay.log()?);
    Ok(())
}

/// What was promised and what came.
#[derive(Clone)]
struct World(Arc<Ledger>);

struct Ledger {
    clock: Clock,
    /// Key (recipient address) and seed of the body, for each recipient of each acknowledged message.
    promised: Mutex<BTreeMap<String, u64>>,
    /// Moments of delivery for each recipient.
    arrived: Mutex<BTreeMap<String, Vec<Instant>>>,
    damaged: Mutex<Vec<String>>,
    /// Recipients that were told to come again.
    deferred: Mutex<BTreeSet<String>>,
    acknowledged: watch::Sender<u64>,
    deliveries: watch::Sender<u64>,
}

impl World {
    fn new(clock: Clock) -> Self {
        Self(Arc::new(Ledger {
            clock,
            promised: Mutex::default(),
            arrived: Mutex::default(),
            damaged: Mutex::default(),
            deferred: Mutex::default(),
            acknowledged: watch::Sender::new(0),
            deliveries: watch::Sender::new(0),
        }))
    }

    async fn wait_for_more(&self, messages: u64) {
        let mut acknowledged = self.0.acknowledged.subscribe();
        let target = *acknowledged.borrow_and_update() + messages;
        let enough = acknowledged.wait_for(|&count| count >= target);
        tokio::time::timeout(Duration::from_secs(60), enough).await.expect("the relay accepts").expect("kept open");
    }

    async fn wait_until_all_arrived(&self, relay: &Relay) -> Result<(), Box<dyn Error>> {
        let mut deliveries = self.0.deliveries.subscribe();
        let all = deliveries.wait_for(|_| {
            let arrived = self.0.arrived.lock();
            self.0.promised.lock().keys().all(|recipient| arrived.contains_key(recipient))
        });
        let done = tokio::time::timeout(Duration::from_secs(120), all).await.is_ok();
        if done {
            return Ok(());
        }
        let arrived = self.0.arrived.lock();
        let promised = self.0.promised.lock();
        let missing: Vec<_> = promised.keys().filter(|recipient| !arrived.contains_key(*recipient)).collect();
        let queue = String::from_utf8_lossy(&relay.cli(&["queue", "list"])?.stdout).into_owned();
        Err(format!("{} of {} missing: {missing:?}\nstill queued:\n{queue}", missing.len(), promised.len()).into())
    }

    fn check(&self, kills: &[Instant]) {
        let damaged = self.0.damaged.lock();
        assert!(damaged.is_empty(), "damaged: {damaged:?}");
        let arrived = self.0.arrived.lock();
        let mut repeats = 0;
        for (recipient, moments) in arrived.iter() {
            for pair in moments.windows(2) {
                let [first, second] = [pair[0], pair[1]];
                let excused =
                    kills.iter().any(|&kill| first <= kill + WINDOW && kill <= first + WINDOW && kill < second);
                assert!(excused, "{recipient} came twice, {:?} apart, with no kill between", second - first);
                repeats += 1;
            }
        }
        println!("{} recipients promised, {} arrived, {repeats} repeats", self.0.promised.lock().len(), arrived.len());
    }

    fn promise(&self, recipients: &[String], seed: u64) {
        let mut promised = self.0.promised.lock();
        for recipient in recipients {
            promised.insert(recipient.clone(), seed);
        }
        drop(promised);
        self.0.acknowledged.send_modify(|count| *count += 1);
    }
}

impl Policy for World {
    /// Every recipient of the domain `flaky.test` is deferred once.
    fn recipient(&self, address: &str) -> String {
        if address.ends_with("@flaky.test") && self.0.deferred.lock().insert(address.to_owned()) {
            return "451 4.3.0 come again".to_owned();
        }
        "250 Ok".to_owned()
    }

    fn message(&self, message: Received) -> String {
        let now = self.0.clock.instant();
        for recipient in &message.recipients {
            let seed = recipient.split(['-', '@']).nth(1).and_then(|seed| seed.parse().ok());
            if !seed.is_some_and(|seed| message.content.ends_with(&body(seed))) {
                self.0.damaged.lock().push(recipient.clone());
            }
            self.0.arrived.lock().entry(recipient.clone()).or_default().push(now);
        }
        self.0.deliveries.send_modify(|count| *count += 1);
        "250 Ok".to_owned()
    }
}

/// Sessions that submit until the relay dies.
fn submit(world: &World, round: u32, endpoint: &Endpoint, user: &str, password: &str, random: &Random) -> JoinSet<()> {
    let mut sessions = JoinSet::new();
    for _ in 0..SESSIONS {
        let (world, endpoint, random) = (world.clone(), endpoint.clone(), random.clone());
        let (user, password) = (user.to_owned(), password.to_owned());
        sessions.spawn(async move {
            // The daemon is killed under these sessions: an error ends them.
            let Ok(mut client) = endpoint.connect().await else { return };
            if client.login(&user, &password).await.is_err() {
                return;
            }
            loop {
                let seed = random.u64() >> 1;
                let recipients: Vec<String> = ["a.test", "b.test", "flaky.test"]
                    .iter()
                    .map(|domain| format!("r{round}-{seed}@{domain}"))
                    .collect();
                let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
                match client.send("sender@example.com", &names, &content(seed)).await {
                    Ok(reply) if reply.code == 250 => world.promise(&recipients, seed),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
    }
    sessions
}

fn content(seed: u64) -> Vec<u8> {
    let mut content = b"From: sender@example.com\r\nSubject: kill\r\n".to_vec();
    content.extend_from_slice(&body(seed));
    content
}

/// An empty line and up to 40 KB that follow from the seed.
fn body(seed: u64) -> Vec<u8> {
    let random = Random::seeded(seed);
    let mut body = b"\r\n".to_vec();
    for line in 0..random.below(600) {
        body.extend_from_slice(format!("{line} {:016x} {:032x}\r\n", random.u64(), random.u128()).as_bytes());
    }
    body.extend_from_slice(b"end\r\n");
    body
}
