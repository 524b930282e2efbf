//! A spool to try things on.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, Disk, Metrics, Period, Random, SimDisk, Size, Timestamp};
use postrider_mail::{
    AccountId, AttemptOutcome, AttemptRecord, BounceKind, DelayType, Delays, Disposition, EnhancedStatus, Envelope,
    MessageId, Recipient,
};
use postrider_spool::{Claim, Content, Driver, NewMessage, Origin, QueueKey, Settings, Spool, SpoolOptions};
use tempfile::TempDir;

pub(crate) const DIR: &str = "/spool";
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) settings: Settings,
    pub(crate) index: Option<TempDir>,
    pub(crate) feeds: &'static [&'static str],
    pub(crate) start_held: bool,
}

impl Rig {
    /// With the index in memory.
    pub(crate) fn new() -> Self {
        Self {
            disk: SimDisk::new(),
            clock: Clock::simulated(Timestamp::from_millis(1_700_000_000_000)),
            random: Random::seeded(1),
            settings: Settings {
                segment_bytes: Size::from_kib(64),
                min_free_bytes: Size::from_bytes(0),
                ..Settings::default()
            },
            index: None,
            feeds: &[],
            start_held: false,
        }
    }

    /// With the index in sled.
    pub(crate) fn with_sled() -> Self {
        Self { index: Some(TempDir::new().unwrap()), ..Self::new() }
    }

    pub(crate) fn index_dir(&self) -> Option<PathBuf> {
        self.index.as_ref().map(|dir| dir.path().to_owned())
    }

    pub(crate) fn options(&self) -> SpoolOptions {
        SpoolOptions {
            disk: Arc::new(self.disk.for_process()),
            dir: DIR.into(),
            index_dir: self.index_dir(),
            clock: self.clock.clone(),
            settings: self.settings.clone(),
            metrics: Metrics::new(),
            feeds: self.feeds,
            start_held: self.start_held,
            accept_loss: false,
            driver: Driver::Task,
        }
    }

    pub(crate) async fn open(&self) -> Spool {
        Spool::open(self.options()).await.unwrap()
    }

    pub(crate) fn message(&self, recipients: &[&str]) -> NewMessage {
        let id = MessageId::new(1, self.clock.now(), self.random.uuid_v4());
        let recipients = recipients.iter().map(|to| Recipient::new(to.parse().unwrap()));
        NewMessage {
            id,
            account: AccountId::default(),
            accepted_at: self.clock.now(),
            expires_at: self.clock.now().saturating_add(96 * HOUR),
            not_before: None,
            tls_optional: false,
            envelope: Envelope {
                sender: Some("sender@example.com".parse().unwrap()),
                recipients: recipients.collect(),
                ..Envelope::default()
            },
            origin: Origin { protocol: "ESMTPSA".into(), ..Origin::default() },
            content: body_of(id),
        }
    }

    /// Accepts a message to these recipients.
    pub(crate) async fn accept(&self, spool: &Spool, recipients: &[&str]) -> MessageId {
        let message = self.message(recipients);
        let id = message.id;
        spool.accept(message).await.unwrap();
        id
    }

    pub(crate) fn quarantined(&self) -> usize {
        let files = self.disk.read_dir(&Path::new(DIR).join("quarantine"));
        files.map_or(0, |files| files.len())
    }

    /// Nothing is young any more, and the index knows.
    pub(crate) async fn grow_old(&self, spool: &Spool) {
        tokio::time::sleep(Period::from_secs(3).as_duration()).await;
        spool.summary().await.unwrap();
        assert_eq!(spool.stat().young, 0);
    }
}

/// The body that a message of this id has in these tests: of a length of its
/// own, in two pieces.
pub(crate) fn body_of(id: MessageId) -> Content {
    let text = format!("Subject: {id}\r\n\r\n");
    let length = usize::from(id.to_bytes()[20]) * 4;
    Content::new(vec![text.into_bytes().into(), vec![b'x'; length].into()])
}

pub(crate) async fn assert_intact(claim: &Claim) {
    let content = claim.content().await.unwrap();
    assert_eq!(content.to_bytes(), body_of(claim.id).to_bytes());
    assert_eq!(claim.message.size, content.len());
    assert_eq!(claim.message.id, claim.id);
}

pub(crate) fn outcome(claim: &Claim, index: u16, disposition: Disposition, at: Timestamp) -> AttemptOutcome {
    let due = claim.recipients.iter().find(|recipient| recipient.index == index);
    AttemptOutcome {
        recipient: index,
        at,
        attempt: due.map_or(1, |due| due.attempts + 1),
        disposition,
        status: EnhancedStatus::new(2, 0, 0),
        diagnostic: "250 2.0.0 fine".into(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: None,
        record: None,
    }
}

/// The same outcome for all recipients of a claim.
pub(crate) fn outcomes(claim: &Claim, disposition: Disposition, at: Timestamp) -> Vec<AttemptOutcome> {
    let all = claim.recipients.iter();
    all.map(|due| outcome(claim, due.index, disposition, at)).collect()
}

pub(crate) async fn deliver(claim: Claim) {
    let at = claim.ready_since;
    let delivered = outcomes(&claim, Disposition::Delivered, at);
    claim.finish(delivered, Vec::new()).await.unwrap();
}

pub(crate) async fn defer(claim: Claim, clock: &Clock, by: Duration) {
    let at = clock.now();
    let mut deferred = outcomes(&claim, Disposition::Deferred(DelayType::General), at);
    let began = at.saturating_add(Duration::from_millis(1));
    let record = Arc::new(AttemptRecord { began, site: "site".into(), ..AttemptRecord::default() });
    for outcome in &mut deferred {
        outcome.record = Some(Arc::clone(&record));
        outcome.next_attempt = Some(at.saturating_add(by));
        outcome.diagnostic = format!("450 try {}", outcome.attempt);
    }
    claim.finish(deferred, Vec::new()).await.unwrap();
}

pub(crate) const BOUNCED: Disposition = Disposition::Bounced(BounceKind::PermanentNoEmail);

/// Claims what is due now, none if nothing is.
pub(crate) async fn due_now(spool: &Spool, max: usize) -> Vec<Claim> {
    within(Duration::from_millis(50), spool.take_due(max)).await.unwrap_or_default()
}

/// The result, unless it takes longer in simulated time.
pub(crate) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, work).await.ok()
}

/// Claims and delivers everything that is due; which messages, in order.
pub(crate) async fn drain(spool: &Spool) -> Vec<MessageId> {
    let mut drained = Vec::new();
    loop {
        let claims = due_now(spool, 16).await;
        if claims.is_empty() {
            return drained;
        }
        for claim in claims {
            assert_intact(&claim).await;
            drained.push(claim.id);
            deliver(claim).await;
        }
    }
}

pub(crate) fn queue(domain: &str) -> QueueKey {
    QueueKey { account: AccountId::default(), domain: domain.parse().unwrap() }
}
