//! A journal behind a real spool.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::{Clock, Metrics, Random, Scope, SimDisk, Size, Timestamp};
use postrider_events::{Driver, Events, EventsOptions, Issuer, Line, MailSink, Reader, Settings, Start};
use postrider_mail::{AccountId, AttemptOutcome, Delays, Disposition, EnhancedStatus, Envelope, MessageId, Recipient};
use postrider_spool::{Content, Durability, NewMessage, Origin, Record, Spool, SpoolOptions};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

#[derive(Debug, Default)]
pub(crate) struct Lines(pub(crate) Mutex<String>);

impl MailSink for Lines {
    fn write(&self, lines: &str) -> std::io::Result<()> {
        self.0.lock().push_str(lines);
        Ok(())
    }

    fn reopen(&self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Relay {
    pub(crate) spool: Spool,
    pub(crate) events: Events,
    pub(crate) scope: Scope,
    pub(crate) mail_log: Arc<Lines>,
}

pub(crate) fn settings() -> Settings {
    Settings { segment_bytes: Size::from_kib(64), ..Settings::default() }
}

pub(crate) fn events_options(disk: &SimDisk, settings: Settings) -> EventsOptions {
    EventsOptions {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from("/state/journal"),
        view_dir: None,
        driver: Driver::Thread,
        clock: Clock::simulated(START),
        settings,
        metrics: Metrics::new(),
        issuer: Issuer {
            partition: "aws".into(),
            region: "us-east-1".into(),
            hostname: "mta.example.com".into(),
            operator_domain: "example.org".into(),
        },
        accept_loss: false,
    }
}

impl Relay {
    pub(crate) async fn open(disk: &SimDisk, options: EventsOptions) -> Self {
        Self::try_open(disk, options).await.unwrap()
    }

    pub(crate) async fn try_open(disk: &SimDisk, options: EventsOptions) -> postrider_events::Result<Self> {
        let spool = Spool::open(SpoolOptions {
            disk: Arc::new(disk.clone()),
            dir: PathBuf::from("/state/spool"),
            index_dir: None,
            clock: Clock::simulated(START),
            settings: postrider_spool::Settings {
                segment_bytes: Size::from_kib(64),
                min_free_bytes: Size::from_bytes(0),
                ..postrider_spool::Settings::default()
            },
            metrics: Metrics::new(),
            feeds: &[Events::FEED],
            start_held: false,
            accept_loss: false,
            driver: Driver::Thread,
        });
        let spool = spool.await.unwrap();
        let events = Events::open(options).await.unwrap();
        let (scope, mail_log) = (Scope::new("relay"), Arc::new(Lines::default()));
        if let Err(error) = events.run(&spool, mail_log.clone(), &scope) {
            events.close().await?;
            spool.close().await?;
            return Err(error);
        }
        Ok(Self { spool, events, scope, mail_log })
    }

    pub(crate) async fn close(self) {
        self.scope.close(Duration::from_secs(10)).await.unwrap();
        self.spool.close().await.unwrap();
        self.events.close().await.unwrap();
    }

    /// Waits until all that was committed before has come through.
    pub(crate) async fn catch_up(&self, random: &Random) -> Vec<Line> {
        let last = message(random, &["last@example.net"]);
        let id = last.id;
        self.spool.accept(last).await.unwrap();
        let mut lines = Vec::new();
        let mut reader = self.events.since(Start::Oldest);
        while lines.last().is_none_or(|line: &Line| line.id != id) {
            let next = tokio::time::timeout(Duration::from_secs(20), reader.follow());
            lines.extend(next.await.expect("the journal stands still").unwrap());
        }
        // What is read may not have been taken note of.
        self.spool.told(Events::FEED).await;
        lines
    }
}

pub(crate) fn message(random: &Random, recipients: &[&str]) -> NewMessage {
    let recipients = recipients.iter().map(|r| Recipient::new(r.parse().unwrap()));
    NewMessage {
        id: MessageId::new(0x0100, START, random.uuid_v4()),
        account: AccountId::default(),
        accepted_at: START,
        expires_at: START.saturating_add(Duration::from_hours(96)),
        not_before: None,
        tls_optional: false,
        envelope: Envelope { recipients: recipients.collect(), ..Envelope::default() },
        origin: Origin::default(),
        content: Content::from(vec![b'x'; 100]),
    }
}

pub(crate) fn outcome(recipient: u16, attempt: u32, disposition: Disposition) -> AttemptOutcome {
    AttemptOutcome {
        recipient,
        at: START.saturating_add(Duration::from_secs(u64::from(attempt))),
        attempt,
        disposition,
        status: EnhancedStatus::new(2, 0, 0),
        diagnostic: "250 ok".into(),
        remote: None,
        tls: None,
        delays: Delays::default(),
        next_attempt: match disposition {
            Disposition::Deferred(_) => Some(START.saturating_add(Duration::from_hours(90 * 24 * 365))),
            _ => None,
        },
        record: None,
    }
}

pub(crate) async fn commit(spool: &Spool, id: MessageId, outcomes: Vec<AttemptOutcome>) -> postrider_spool::Result<()> {
    spool.commit(vec![Record::Outcomes { id, outcomes }], Durability::Synced).await.map(|_| ())
}

pub(crate) async fn all(mut reader: Reader) -> Vec<Line> {
    let mut lines = Vec::new();
    loop {
        let next = reader.next().await.unwrap();
        if next.is_empty() {
            return lines;
        }
        lines.extend(next);
    }
}
