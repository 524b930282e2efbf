//! Logs and spools in directories of their own, and messages for them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_base::{Clock, Disk, Metrics, Random, RealDisk};
use postrider_mail::{
    AccountId, AttemptOutcome, DelayType, Delays, Disposition, EmailAddress, EnhancedStatus, Envelope, MessageId,
    Recipient,
};
use postrider_spool::{Claim, Content, Driver, NewMessage, Origin, Settings, Spool, SpoolOptions};
use postrider_wal::{Entry, Log, Options, Replayed};
use tempfile::TempDir;

use crate::failed;

const SENDER: &str = "sender@example.com";
/// The part of a body that the relay writes itself, a piece of its own.
const HEADER: usize = 600;
const LIFE: Duration = Duration::from_hours(96);
/// The spare segments of a new log, which has no other segment yet.
const READY: u64 = 2;
/// In this time the next spare segment would be there.
const QUIET: Duration = Duration::from_secs(1);
/// How often something is looked at that nobody tells of.
pub(crate) const GLANCE: Duration = Duration::from_millis(5);

/// A directory that goes when this does.
pub(crate) fn directory(parent: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("spool-").tempdir_in(parent)
}

/// Makes messages of one length.
#[derive(Clone)]
pub(crate) struct Mailer {
    pub(crate) clock: Clock,
    random: Random,
    sender: EmailAddress,
    recipients: Arc<[EmailAddress]>,
    body: Vec<Bytes>,
}

impl Mailer {
    /// Messages go to these domains in turn.
    pub(crate) fn new(size: usize, domains: usize, clock: Clock) -> io::Result<Self> {
        let address = |number| format!("someone@d{number}.example").parse().map_err(failed);
        let mut body = vec![Bytes::from(vec![b'h'; HEADER.min(size)])];
        if size > HEADER {
            body.push(vec![b'b'; size - HEADER].into());
        }
        Ok(Self {
            clock,
            random: Random::system(),
            sender: SENDER.parse().map_err(failed)?,
            recipients: (0..domains).map(address).collect::<io::Result<_>>()?,
            body,
        })
    }

    pub(crate) fn message(&self, number: usize) -> NewMessage {
        let now = self.clock.now();
        let recipient = &self.recipients[number % self.recipients.len()];
        NewMessage {
            id: MessageId::new(MessageId::DEFAULT_NODE, now, self.random.uuid_v4()),
            account: AccountId::default(),
            accepted_at: now,
            expires_at: now.saturating_add(LIFE),
            not_before: None,
            tls_optional: false,
            envelope: Envelope {
                sender: Some(self.sender.clone()),
                recipients: vec![Recipient::new(recipient.clone())],
                ..Envelope::default()
            },
            origin: Origin { protocol: "ESMTPSA".into(), ..Origin::default() },
            content: Content::new(self.body.clone()),
        }
    }
}

/// A spool as the daemon opens it.
pub(crate) async fn spool(dir: &Path, clock: &Clock, metrics: &Metrics) -> io::Result<Spool> {
    spool_on(Arc::new(RealDisk), dir, clock, metrics).await
}

/// The same with another disk under its logs.
pub(crate) async fn spool_on(disk: Arc<dyn Disk>, dir: &Path, clock: &Clock, metrics: &Metrics) -> io::Result<Spool> {
    let options = SpoolOptions {
        disk,
        dir: dir.join("spool"),
        index_dir: Some(dir.join("index")),
        clock: clock.clone(),
        settings: Settings::default(),
        metrics: metrics.clone(),
        feeds: &[],
        start_held: false,
        accept_loss: false,
        driver: Driver::Thread,
    };
    Spool::open_behind(options).await.map_err(failed)
}

/// What the spool writes of a message and of its delivery, for a log without a spool.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) message: Entry,
    pub(crate) outcome: Entry,
}

impl Records {
    /// The same in memory of its own: clients share nothing.
    pub(crate) fn copied(&self) -> Self {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let entry = |entry: &Entry| Entry {
            kind: entry.kind,
            head: copy(&entry.head),
            body: entry.body.iter().map(copy).collect(),
        };
        Self { message: entry(&self.message), outcome: entry(&self.outcome) }
    }
}

/// Finds them in the log of a spool that has delivered one message.
pub(crate) async fn records(parent: &Path, mailer: &Mailer) -> io::Result<Records> {
    let dir = directory(parent)?;
    let spool = spool(dir.path(), &mailer.clock, &Metrics::new()).await?;
    spool.accept(mailer.message(0)).await.map_err(failed)?;
    for claim in spool.take_due(1).await {
        let outcomes = outcomes(&claim, &mailer.clock, None);
        claim.finish(outcomes, Vec::new()).await.map_err(failed)?;
    }
    spool.close().await.map_err(failed)?;
    let mut found = Vec::new();
    let options = Options { spare_segments: 0, ..Options::default() };
    let (log, _) = Log::open(Arc::new(RealDisk), &dir.path().join("spool"), options, &mut |record| found.push(record))
        .map_err(failed)?;
    let [message, outcome, ..] = &found[..] else { return Err(failed("no records in the log of a spool")) };
    let read = |record: &Replayed| log.read(record.location).map_err(failed);
    let (record, about) = (read(message)?, read(outcome)?);
    // The record is written in front of the body's own pieces.
    let record = record.slice(..record.len() - mailer.body.iter().map(Bytes::len).sum::<usize>());
    let body = [record].into_iter().chain(mailer.body.clone()).collect();
    let entry = |record: &Replayed, body| Entry { kind: record.kind, head: record.head.clone(), body };
    Ok(Records { message: entry(message, body), outcome: entry(outcome, vec![about]) })
}

/// Waits until the spare segments of a new spool's logs are there.
pub(crate) async fn spool_ready(spool: &Spool) {
    let mut before = 0;
    loop {
        let now = spool.stat().disk_bytes;
        if now == before && now >= READY * Settings::default().segment_bytes.bytes() {
            return;
        }
        before = now;
        tokio::time::sleep(QUIET).await;
    }
}

/// The bare log with its spare segments made.
pub(crate) async fn log(dir: &Path, disk: Arc<dyn Disk>, options: Options) -> io::Result<Log> {
    let ready = READY * options.segment_bytes;
    disk.create_dir_all(dir)?;
    let (log, _) = Log::open(disk, dir, options, &mut |_| {}).map_err(failed)?;
    while log.usage().bytes < ready {
        tokio::time::sleep(GLANCE).await;
    }
    Ok(log)
}

/// What became of all recipients of a claim; deferred when it says for how long.
pub(crate) fn outcomes(claim: &Claim, clock: &Clock, deferred: Option<Duration>) -> Vec<AttemptOutcome> {
    let at = clock.now();
    let disposition = match deferred {
        None => Disposition::Delivered,
        Some(_) => Disposition::Deferred(DelayType::General),
    };
    let diagnostic = if deferred.is_some() { "450 4.2.0 try again later" } else { "250 2.0.0 Ok: queued" };
    let outcome = |due: &postrider_spool::DueRecipient| AttemptOutcome {
        recipient: due.index,
        at,
        attempt: due.attempts + 1,
        disposition,
        status: EnhancedStatus::new(if deferred.is_some() { 4 } else { 2 }, 0, 0),
        diagnostic: diagnostic.to_owned(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: deferred.map(|by| at.saturating_add(by)),
        record: None,
    };
    claim.recipients.iter().map(outcome).collect()
}

/// Resident memory of a process and its peak, MB.
pub(crate) fn memory(pid: u32) -> io::Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0 / 1e6)
    };
    number("VmRSS:").zip(number("VmHWM:")).ok_or_else(|| failed("no VmRSS"))
}
