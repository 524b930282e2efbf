//! Acknowledged messages a second: the spool in a steady state, where each is
//! delivered soon after, beside the bare log with the same records.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Disk, Metrics};
use postrider_spool::Spool;
use postrider_wal::{Durability, Log, Options as Wal};
use tokio::task::AbortHandle;

use crate::drive::{Sample, drive};
use crate::place::{self, GLANCE, Mailer, Records, directory};
use crate::{Options, Side, failed, median, say};

/// Domains that mail goes to: queues of the spool.
const DOMAINS: usize = 100;
/// What is taken for delivery at once, as the daemon's dispatcher does.
const AT_ONCE: usize = 256;
/// The bare log keeps so many segments before its oldest is used again.
const KEPT: usize = 3;

pub(crate) async fn run(options: &Options) -> io::Result<()> {
    say(" size writers      log/s    spool/s  ratio  log p99 ms  spool p99 ms  log us  spool us  waiting at the end");
    for &size in &options.sizes {
        for &writers in &options.writers {
            cell(options, size, writers).await?;
        }
    }
    Ok(())
}

async fn cell(options: &Options, size: usize, writers: usize) -> io::Result<()> {
    let mailer = || Mailer::new(size * 1000, DOMAINS, Clock::system());
    let mailers = (0..writers).map(|_| mailer()).collect::<io::Result<Arc<[_]>>>()?;
    let records = place::records(&options.dir, &mailer()?).await?;
    let (mut logs, mut spools) = (Vec::new(), Vec::new());
    for run in 0..options.runs {
        // In turns, and each first as often as the other.
        let sides = if run % 2 == 0 { [Side::Log, Side::Spool] } else { [Side::Spool, Side::Log] };
        for side in sides.into_iter().filter(|side| options.alone.is_none_or(|alone| alone == *side)) {
            match side {
                Side::Log => logs.push(bare(options, &records, writers, options.disk(), Wal::default()).await?),
                Side::Spool => spools.push(queue(options, &mailers).await?),
            }
        }
    }
    let log = median(logs.iter().map(|sample| sample.rate));
    let log_p99 = median(logs.iter().map(|sample| sample.p99));
    let rate = median(spools.iter().map(|queue| queue.accepted.rate));
    let p99 = median(spools.iter().map(|queue| queue.accepted.p99));
    let log_cpu = median(logs.iter().map(|sample| sample.cpu));
    let cpu = median(spools.iter().map(|queue| queue.accepted.cpu));
    let waiting = median(spools.iter().map(|queue| queue.waiting));
    let ratio = median(spools.iter().zip(&logs).map(|(queue, log)| queue.accepted.rate / log.rate));
    say(&format!(
        "{size:3}KB {writers:7} {log:10.0} {rate:10.0} {ratio:6.2} {log_p99:11.2} {p99:13.2} {log_cpu:7.1} {cpu:9.1} {waiting:19.0}"
    ));
    let name = format!("spool_{size}kb_{writers}");
    say(&format!("figure {name}_log {log:.0} messages/s"));
    say(&format!("figure {name}_accepted {rate:.0} messages/s"));
    say(&format!("figure {name}_ratio {ratio:.3} times"));
    say(&format!("figure {name}_log_p99 {log_p99:.2} ms"));
    say(&format!("figure {name}_p99 {p99:.2} ms"));
    say(&format!("figure {name}_log_cpu {log_cpu:.1} us/message"));
    say(&format!("figure {name}_cpu {cpu:.1} us/message"));
    Ok(())
}

/// The log alone: the spool's records, without index and state.
pub(crate) async fn bare(
    options: &Options,
    records: &Records,
    writers: usize,
    disk: Arc<dyn Disk>,
    wal: Wal,
) -> io::Result<Sample> {
    let dir = directory(&options.dir)?;
    let log = place::log(dir.path(), disk, wal).await?;
    let sample = steady(&log, records, writers, options.time()).await?;
    log.close().await.map_err(failed)?;
    Ok(sample)
}

/// Commits messages to a log whose old segments are used again, and as many
/// outcomes, which nobody waits for.
async fn steady(log: &Log, records: &Records, writers: usize, time: Duration) -> io::Result<Sample> {
    let log = log.clone();
    let own: Arc<[_]> = (0..writers).map(|_| records.copied()).collect();
    let _retiring = Stop(tokio::spawn(retire(log.clone())).abort_handle());
    drive(writers, time, move |number| {
        let records = &own[number % own.len()];
        let message = log.submit(vec![records.message.clone()], Durability::Synced);
        let (log, outcome) = (log.clone(), records.outcome.clone());
        async move {
            message.await.map_err(failed)?;
            tokio::spawn(log.submit(vec![outcome], Durability::Buffered));
            Ok(())
        }
    })
    .await
}

/// Aborts a task when it goes.
struct Stop(AbortHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn retire(log: Log) {
    loop {
        tokio::time::sleep(GLANCE).await;
        let segments = log.segments();
        if segments.len() > KEPT && log.retire_oldest(segments[0].number).await.is_err() {
            break;
        }
    }
}

struct Queue {
    accepted: Sample,
    /// Messages when the writers stopped.
    waiting: f64,
}

/// The spool, with a writer for each of those who make messages: these share
/// nothing, as clients do not.
async fn queue(options: &Options, mailers: &Arc<[Mailer]>) -> io::Result<Queue> {
    let dir = directory(&options.dir)?;
    let (clock, metrics) = (Clock::system(), Metrics::new());
    let spool = place::spool_on(options.disk(), dir.path(), &clock, &metrics).await?;
    place::spool_ready(&spool).await;
    let delivering = Stop(tokio::spawn(deliver(spool.clone(), clock)).abort_handle());
    let (accepting, mailers) = (spool.clone(), Arc::clone(mailers));
    let accepted = drive(mailers.len(), options.time(), move |number| {
        let (spool, message) = (accepting.clone(), mailers[number % mailers.len()].message(number));
        async move { spool.accept(message).await.map_err(failed) }
    })
    .await?;
    let waiting = spool.stat().messages as f64;
    drop(delivering);
    spool.close().await.map_err(failed)?;
    Ok(Queue { accepted, waiting })
}

/// Delivers what is due, each message by a task of its own.
async fn deliver(spool: Spool, clock: Clock) {
    loop {
        for claim in spool.take_due(AT_ONCE).await {
            let outcomes = place::outcomes(&claim, &clock, None);
            tokio::spawn(claim.finish(outcomes, Vec::new()));
        }
    }
}
