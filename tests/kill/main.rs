//! The promise under `kill -9`: whatever got a 250 comes to its end, whole, for
//! each of its recipients; it is delivered twice only where the daemon died in
//! the moment between the remote's 250 and the record of it; and the journal
//! says of all that exactly once what the log says, as does the account's quota.
//!
//! Small segments make the log give room back all the time; in some rounds the
//! indexes are gone before the restart, in some the recovery is killed too, or the
//! daemon was about to stop in order.

mod journal;
mod world;

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use postrider_base::{Clock, Random};
use postrider_testkit::Sink;
use postrider_testkit::client::{Endpoint, Security};
use postrider_testkit::relay::{Relay, RelayOptions};
use tokio::task::JoinSet;

use crate::journal::Journal;
use crate::world::{Letter, World};

const SESSIONS: usize = 8;

/// Every so many rounds the indexes are removed before the restart.
const WITHOUT_INDEX: u32 = 3;
/// Every so many rounds the restart is killed as well.
const KILLED_AGAIN: u32 = 4;
/// Every so many rounds the daemon is on its way to an orderly stop when it is killed.
const ASKED_FIRST: u32 = 5;

/// Every so many rounds the kill does not wait for deliveries.
const HASTY: u32 = 3;

/// Bytes that an empty queue's log may keep, in segments of 1 MiB: the one that
/// is written, two spare ones, two recycled, one whose feed has not been read,
/// and one of the bodies that waited on, with its next.
const HELD: u64 = 8 << 20;

/// Number of the first segment of bodies that wait on.
const FIRST_ASIDE: u64 = 1 << 40;

const CONFIGURATION: &str = "[delivery]\nretry = [\"1s\", \"3s\"]\n\n\
     [spool]\nsegment_bytes = \"1MiB\"\n\n\
     [events]\nsegment_bytes = \"1MiB\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_got_a_250_is_lost_damaged_or_told_twice() -> Result<(), Box<dyn Error>> {
    let rounds: u32 = std::env::var("POSTRIDER_KILL_ROUNDS").ok().map_or(Ok(25), |rounds| rounds.parse())?;
    let seed = std::env::var("POSTRIDER_KILL_SEED").ok().map_or(Ok(Random::system().u64()), |seed| seed.parse())?;
    println!("POSTRIDER_KILL_SEED={seed} POSTRIDER_KILL_ROUNDS={rounds}");
    let random = Random::seeded(seed);
    let clock = Clock::system();
    let world = World::new(clock.clone());
    let sink = Sink::start(world.clone(), clock.clone()).await?;
    let mut relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), CONFIGURATION))?;
    for round in 1..=rounds {
        let endpoint = relay.endpoint(Security::StartTls, true)?;
        let (user, password) = relay.credentials();
        let sessions = submit(&world, &endpoint, user, password, &random);
        world.wait_for_more(10 + random.below(60)).await;
        if !round.is_multiple_of(HASTY) {
            // Mail is taken before the old one is read: without this nothing would leave.
            world.wait_for_arrivals(random.below(250)).await;
        }
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        if round.is_multiple_of(ASKED_FIRST) {
            relay.ask_to_stop()?;
            tokio::time::sleep(Duration::from_millis(random.below(200))).await;
        }
        world.killed();
        relay.kill()?;
        sessions.join_all().await;
        if round.is_multiple_of(WITHOUT_INDEX) {
            remove_indexes(&relay.state())?;
        }
        if round.is_multiple_of(KILLED_AGAIN) {
            let _ears = relay.spawn()?;
            tokio::time::sleep(Duration::from_millis(random.below(150))).await;
            world.killed();
            relay.kill()?;
        }
        relay.launch()?;
    }
    world.open();
    world.wait_until_all_arrived(&relay).await?;
    wait_until_empty(&relay).await?;
    let journal = Journal::complete(&relay).await?;
    let arrivals = world.check();
    journal.check(&world)?;
    journal.check_quota(&relay).await?;
    println!("{arrivals}; {journal}");
    wait_until_reclaimed(&relay).await?;
    let spool = relay.state().join("spool");
    let (last, aside) = (last_segment(&spool)?, last_segment(&spool.join("cold"))? - FIRST_ASIDE);
    println!("{last} segments, and {aside} of bodies that waited on");
    assert!(rounds < 25 || (last > 25 && aside > 1), "too little was given back for a proof");
    assert!(relay.stop()?.success(), "{}", relay.log()?);
    Ok(())
}

/// Sessions that submit until the relay dies.
fn submit(world: &World, endpoint: &Endpoint, user: &str, password: &str, random: &Random) -> JoinSet<()> {
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
                let letter = Letter::new(random.u64() >> 1);
                let recipients = letter.recipients();
                let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
                match client.send(&letter.sender(), &names, &letter.content()).await {
                    Ok(reply) if reply.code == 250 => {
                        world.promise(letter, reply.text().strip_prefix("Ok ").unwrap_or_default());
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
    }
    sessions
}

/// What is only derived from the logs, of the queue, the tables and the journal.
fn remove_indexes(state: &Path) -> io::Result<()> {
    for room in ["spool", "store", "journal"] {
        match fs::remove_dir_all(state.join(room).join("index")) {
            // A recovery that was killed early had not made it yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Also what was accepted without that its client heard it comes to its end.
async fn wait_until_empty(relay: &Relay) -> io::Result<()> {
    let mut queue = String::new();
    for _ in 0..120 {
        queue = String::from_utf8_lossy(&relay.cli(&["queue", "summary"])?.stdout).into_owned();
        if queue.starts_with("the queue is empty") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(io::Error::other(format!("still queued:\n{queue}\n{}", relay.log()?)))
}

/// Waits until an empty queue takes no space, nor the bodies that waited on.
async fn wait_until_reclaimed(relay: &Relay) -> io::Result<()> {
    let spool = relay.state().join("spool");
    let mut held = 0;
    for _ in 0..60 {
        held = disk_bytes(&spool)? + disk_bytes(&spool.join("cold"))?;
        if held <= HELD {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(io::Error::other(format!("{held} bytes of an empty queue's log are not given back")))
}

fn last_segment(log: &Path) -> io::Result<u64> {
    let names = fs::read_dir(log)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.strip_prefix("segment-")?.strip_suffix(".log")?.parse().ok());
    numbers.max().ok_or_else(|| io::Error::other("a log has no segment"))
}

/// What the files of a directory take on the disk, holes apart.
fn disk_bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let metadata = entry?.metadata()?;
        bytes += if metadata.is_file() { metadata.blocks() * 512 } else { 0 };
    }
    Ok(bytes)
}
