//! The life of a queue: a stream of messages in and out over hours, some of
//! them deferred again and again. Real threads and files; the clock is set
//! ahead as messages come in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use postrider_base::{Clock, Metrics};
use postrider_spool::{Claim, Settings, Spool, Stat};
use postrider_testkit::process::disk_written;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::place::{self, GLANCE, Mailer, directory};
use crate::{Options, failed, say};

const SIZE: usize = 10_000;
const DOMAINS: usize = 1_000;
const WRITERS: usize = 50;
/// Of so many messages one is deferred.
const DEFERRED: u64 = 20;
/// In what time, as the queue sees it, all messages come in.
const SPAN: Duration = Duration::from_hours(8);
/// So far the clock is set ahead at once: the shortest delay.
const STEP: Duration = Duration::from_mins(2);
/// How long a message is put off each time.
const DELAYS: [Duration; 8] = [
    Duration::from_mins(2),
    Duration::from_mins(5),
    Duration::from_mins(10),
    Duration::from_mins(20),
    Duration::from_mins(40),
    Duration::from_hours(1),
    Duration::from_hours(2),
    Duration::from_hours(4),
];
/// Claims taken at once, by each of two tasks.
const AT_ONCE: usize = 64;
/// A queue longer than this that is due holds the writers back.
const BEHIND: u64 = 5_000;
/// How long reclaim may take to come to rest.
const REST: Duration = Duration::from_secs(5);
const SEGMENTS: u64 = 4;
/// A step that takes longer than this does not end.
const STUCK: Duration = Duration::from_secs(60);

/// What the child does.
#[derive(Args)]
pub(crate) struct Life {
    /// The directory of the queue
    dir: PathBuf,
    /// Messages
    messages: usize,
}

/// In a process of its own, for its memory.
pub(crate) async fn run(options: &Options) -> io::Result<()> {
    let dir = directory(&options.dir)?;
    let mut child = Command::new(std::env::current_exe()?);
    let child = child.arg("live").arg(dir.path()).arg(options.messages.to_string()).kill_on_drop(true);
    match child.status().await? {
        status if status.success() => Ok(()),
        status => Err(failed(format!("the process ended with {status}"))),
    }
}

/// What writers, deliveries and the one who sets the clock share.
struct Stream {
    spool: Spool,
    clock: Clock,
    ahead: Arc<AtomicU64>,
    /// Tells that the clock was set ahead.
    leaps: watch::Sender<()>,
    messages: usize,
    accepted: AtomicU64,
    ended: AtomicU64,
    /// Those that were deferred and have not ended.
    put_off: AtomicU64,
}

pub(crate) async fn live(life: &Life) -> io::Result<()> {
    let ahead = Arc::new(AtomicU64::new(0));
    let (clock, metrics) = (Clock::ahead(ahead.clone()), Metrics::new());
    let spool = place::spool(&life.dir, &clock, &metrics).await?;
    place::spool_ready(&spool).await;
    let written = disk_written(&life.dir)?;
    let stream = Arc::new(Stream {
        spool,
        clock,
        ahead,
        leaps: watch::Sender::default(),
        messages: life.messages,
        accepted: AtomicU64::new(0),
        ended: AtomicU64::new(0),
        put_off: AtomicU64::new(0),
    });
    let mut deliveries = JoinSet::new();
    for _ in 0..2 {
        deliveries.spawn(stream.clone().deliver());
    }
    let course = stream.clone().course().await?;
    rates(&course);
    let end = stream.rest().await;
    space(&end, life, &metrics, disk_written(&life.dir)?.saturating_sub(written))?;
    let late = stream.drain().await?;
    say(&format!("figure spool_life_disk_empty {:.0} MB", late.disk_bytes as f64 / 1e6));
    let (resident, peak) = place::memory(std::process::id())?;
    say(&format!("figure spool_life_rss {resident:.1} MB"));
    say(&format!("figure spool_life_peak_rss {peak:.1} MB"));
    deliveries.shutdown().await;
    stream.spool.close().await.map_err(failed)
}

/// How it went, seen at each step of the clock.
struct Course {
    /// When, and how many messages had come by then.
    steps: Vec<(Instant, u64)>,
    /// The worst of what the disk held over what it may hold.
    fullest: f64,
    /// The longest the queue has been.
    longest: u64,
}

impl Stream {
    async fn course(self: Arc<Self>) -> io::Result<Course> {
        // One for all, so that no two messages get the same id.
        let mailer = Mailer::new(SIZE, DOMAINS, self.clock.clone())?;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (stream, mailer) = (self.clone(), mailer.clone());
            writers.spawn(async move { stream.write(writer, mailer).await });
        }
        let messages = self.messages as u64;
        let steps = (SPAN.as_secs() / STEP.as_secs()).min(messages);
        let mut course = Course { steps: vec![(self.clock.instant(), 0)], fullest: 0.0, longest: 0 };
        for step in 1..=steps {
            self.wait_for(messages * step / steps).await?;
            self.set_ahead(STEP);
            let stat = self.spool.stat();
            course.steps.push((self.clock.instant(), self.accepted.load(Ordering::Relaxed)));
            course.fullest = course.fullest.max(fullness(&stat));
            course.longest = course.longest.max(stat.messages);
        }
        while let Some(done) = writers.join_next().await {
            done??;
        }
        Ok(course)
    }

    /// Waits until so many messages have come.
    async fn wait_for(&self, messages: u64) -> io::Result<()> {
        let begin = self.clock.instant();
        while self.accepted.load(Ordering::Relaxed) < messages {
            tokio::time::sleep(GLANCE).await;
            if self.clock.instant() - begin > STUCK {
                return Err(failed(format!("nothing moves, {} are due: {:?}", self.behind(), self.spool.stat())));
            }
        }
        Ok(())
    }

    fn set_ahead(&self, by: Duration) {
        self.ahead.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.leaps.send_replace(());
    }

    async fn write(&self, writer: usize, mailer: Mailer) -> io::Result<()> {
        for number in (writer..self.messages).step_by(WRITERS) {
            while self.behind() > BEHIND {
                tokio::time::sleep(GLANCE).await;
            }
            self.spool.accept(mailer.message(number)).await.map_err(failed)?;
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Stream {
    /// Messages that are due or in delivery.
    fn behind(&self) -> u64 {
        let gone = self.ended.load(Ordering::Relaxed) + self.put_off.load(Ordering::Relaxed);
        self.accepted.load(Ordering::Relaxed).saturating_sub(gone)
    }

    /// Delivers and defers; ends with its task.
    async fn deliver(self: Arc<Self>) {
        let mut leaps = self.leaps.subscribe();
        loop {
            let claims = tokio::select! {
                claims = self.spool.take_due(AT_ONCE) => claims,
                // Who waits for a time is not woken when the clock is set ahead.
                _ = leaps.changed() => continue,
            };
            let mut attempts = JoinSet::new();
            for claim in claims {
                let stream = self.clone();
                attempts.spawn(async move { stream.attempt(claim).await });
            }
            while let Some(done) = attempts.join_next().await {
                if let Err(error) = done.map_err(failed).flatten() {
                    say(&format!("a delivery failed: {error}"));
                }
            }
        }
    }

    async fn attempt(&self, mut claim: Claim) -> io::Result<()> {
        claim.register().await.map_err(failed)?;
        let content = claim.content().await.map_err(failed)?;
        if content.len() != claim.message.size {
            return Err(failed("a body has another length"));
        }
        let attempts = claim.recipients.first().map_or(0, |due| due.attempts) as usize;
        let delay = DELAYS.get(attempts).copied().filter(|_| attempts < deferrals(&claim));
        let outcomes = place::outcomes(&claim, &self.clock, delay);
        claim.finish(outcomes, Vec::new()).await.map_err(failed)?;
        match (delay, attempts) {
            (Some(_), 0) => self.put_off.fetch_add(1, Ordering::Relaxed),
            (Some(_), _) => 0,
            (None, 0) => self.ended.fetch_add(1, Ordering::Relaxed),
            (None, _) => {
                self.put_off.fetch_sub(1, Ordering::Relaxed);
                self.ended.fetch_add(1, Ordering::Relaxed)
            }
        };
        Ok(())
    }

    /// Waits until all that is due is delivered and reclaim has come to rest.
    async fn rest(&self) -> Stat {
        let mut last = self.spool.stat();
        loop {
            tokio::time::sleep(REST).await;
            let stat = self.spool.stat();
            if self.behind() == 0 && stat.disk_bytes >= last.disk_bytes {
                return stat;
            }
            last = stat;
        }
    }

    /// Lets the longest delay pass as often as a message may be put off.
    async fn drain(&self) -> io::Result<Stat> {
        for _ in DELAYS {
            self.set_ahead(DELAYS[DELAYS.len() - 1]);
            let mut before = u64::MAX;
            loop {
                let ended = self.ended.load(Ordering::Relaxed);
                if ended == before {
                    break;
                }
                before = ended;
                tokio::time::sleep(REST / 5).await;
            }
        }
        match self.rest().await {
            stat if stat.messages == 0 => Ok(stat),
            stat => Err(failed(format!("{} messages wait though all have ended", stat.messages))),
        }
    }
}

/// How often a message is deferred: most never, of the others half once, a
/// quarter twice and so on.
fn deferrals(claim: &Claim) -> usize {
    let number = claim.id.uuid();
    match number % u128::from(DEFERRED) {
        0 => 1 + ((number >> 16).trailing_zeros() as usize).min(DELAYS.len() - 1),
        _ => 0,
    }
}

/// What the disk holds over what it may hold: twice the live bytes and some segments.
fn fullness(stat: &Stat) -> f64 {
    let segment = Settings::default().segment_bytes.bytes();
    stat.disk_bytes as f64 / (2 * stat.bytes + SEGMENTS * segment) as f64
}

fn rates(course: &Course) {
    // Steps are about equal in messages.
    let tenth = (course.steps.len() / 10).max(1);
    let rate = |(from, before): (Instant, u64), (to, after): (Instant, u64)| {
        (after - before) as f64 / (to - from).as_secs_f64()
    };
    let last = course.steps.len() - 1;
    let first = rate(course.steps[0], course.steps[tenth.min(last)]);
    let end = rate(course.steps[last.saturating_sub(tenth)], course.steps[last]);
    say(&format!("figure spool_life_first_tenth {first:.0} messages/s"));
    say(&format!("figure spool_life_last_tenth {end:.0} messages/s"));
    say(&format!("figure spool_life_end_over_begin {:.3} times", end / first));
    say(&format!("figure spool_life_longest {} messages", course.longest));
    say(&format!("figure spool_life_fullest {:.2} of the bound", course.fullest));
}

fn space(end: &Stat, life: &Life, metrics: &Metrics, on_disk: u64) -> io::Result<()> {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let bodies = life.messages * SIZE;
    let written = metrics.spool_written_bytes.get();
    say(&format!("figure spool_life_waiting {} messages", end.messages));
    say(&format!("figure spool_life_live {:.0} MB", megabytes(end.bytes)));
    say(&format!("figure spool_life_disk {:.0} MB", megabytes(end.disk_bytes)));
    say(&format!("figure spool_life_full {:.2} of the bound", fullness(end)));
    say(&format!("figure spool_life_index {:.0} MB", megabytes(length(&life.dir.join("index"))?)));
    say(&format!("figure spool_life_written {:.3} bytes/byte", written as f64 / bodies as f64));
    say(&format!("figure spool_life_on_disk {:.3} bytes/byte", on_disk as f64 / bodies as f64));
    Ok(())
}

/// Bytes of all files below a directory.
fn length(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.metadata()? {
            about if about.is_dir() => length(&entry.path())?,
            about => about.len(),
        };
    }
    Ok(sum)
}
