//! A relay's lower half with nothing real in it but sled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::Accounts;
use postrider_base::{Clock, Dialer, Metrics, Random, Scope, SimDisk, SimNet, Timestamp};
use postrider_delivery::{Delivery, Deps, Settings};
use postrider_dns::Zones;
use postrider_mail::{AccountId, AttemptOutcome, Disposition, Envelope, MessageId, Recipient};
use postrider_spool::{
    AcceptedRecord, Content, Driver, Feed, FeedRecord, Lsn, NewMessage, Origin, OriginKind, Spool, SpoolOptions,
};
use postrider_store::Store;
use postrider_submission::{Submission, SubmissionDeps};

/// The host of [`rig`].
pub(crate) const HOST: &str = "198.51.100.1:25";
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything below the delivery, and the delivery when it runs.
pub(crate) struct Rig {
    pub(crate) net: SimNet,
    pub(crate) zones: Zones,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) metrics: Metrics,
    pub(crate) spool: Spool,
    pub(crate) store: Store,
    pub(crate) accounts: Accounts,
    pub(crate) submission: Submission,
    pub(crate) scope: Scope,
    pub(crate) built_in: BTreeMap<String, Arc<dyn Dialer>>,
    feed: Feed,
    /// Read from the feed and not asked for yet.
    outcomes: Vec<(MessageId, AttemptOutcome)>,
    pub(crate) accepted: Vec<Arc<AcceptedRecord>>,
    _state: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
        let (random, metrics) = (Random::seeded(7), Metrics::new());
        let state = tempfile::tempdir().unwrap();
        let disk = SimDisk::new();
        let spool = open_spool(&disk, &clock, &metrics).await;
        let mut options = postrider_store::Options::default();
        // Simulated time stands still while it writes.
        options.log.driver = Driver::Task;
        let store = Store::open_with(Arc::new(SimDisk::new()), state.path(), options).unwrap();
        let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
        let deps = SubmissionDeps {
            spool: spool.clone(),
            accounts: accounts.clone(),
            clock: clock.clone(),
            random: random.clone(),
            metrics: metrics.clone(),
        };
        let submission = submission(deps);
        Self {
            net: SimNet::new(),
            zones: Zones::new(),
            disk,
            feed: spool.feed("test", Lsn::default()),
            clock,
            random,
            metrics,
            spool,
            store,
            accounts,
            submission,
            scope: Scope::new("test"),
            built_in: BTreeMap::new(),
            outcomes: Vec::new(),
            accepted: Vec::new(),
            _state: state,
        }
    }

    /// The power is cut, and the relay starts again without its delivery. What
    /// the feed said before it says again.
    pub(crate) async fn power_cut(&mut self) {
        self.disk.crash_dropping_all();
        let scope = std::mem::replace(&mut self.scope, Scope::new("test"));
        scope.close(HOUR).await.unwrap();
        self.spool = open_spool(&self.disk, &self.clock, &self.metrics).await;
        self.feed = self.spool.feed("test", Lsn::default());
        self.outcomes.clear();
        self.accepted.clear();
        self.submission = submission(SubmissionDeps {
            spool: self.spool.clone(),
            accounts: self.accounts.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            metrics: self.metrics.clone(),
        });
    }

    /// Starts the delivery.
    pub(crate) fn deliver(&self, settings: Settings) -> Delivery {
        Delivery::start(self.deps(settings), &self.scope).unwrap()
    }

    pub(crate) fn deps(&self, settings: Settings) -> Deps {
        Deps {
            spool: self.spool.clone(),
            accounts: self.accounts.clone(),
            submission: self.submission.clone(),
            return_paths: None,
            store: self.store.clone(),
            resolver: Arc::new(self.zones.clone()),
            dialer: Arc::new(self.net.clone()),
            built_in: self.built_in.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            metrics: self.metrics.clone(),
            settings,
        }
    }

    /// A message of an authenticated sender.
    pub(crate) fn message(&self, recipients: &[&str]) -> NewMessage {
        let now = self.clock.now();
        NewMessage {
            id: self.submission.new_id(),
            account: AccountId::default(),
            accepted_at: now,
            expires_at: now.saturating_add(4 * DAY),
            not_before: None,
            tls_optional: false,
            envelope: Envelope {
                sender: Some("sender@example.net".parse().unwrap()),
                recipients: recipients.iter().map(|to| Recipient::new(to.parse().unwrap())).collect(),
                ..Envelope::default()
            },
            origin: Origin { credential: Some("AKIAEXAMPLE".into()), ..Origin::default() },
            content: Content::from(b"Subject: hello\r\n\r\nFirst line.\r\n.second line\r\n".to_vec()),
        }
    }

    pub(crate) async fn accept(&self, message: NewMessage) -> MessageId {
        let id = message.id;
        self.spool.accept(message).await.unwrap();
        id
    }

    pub(crate) async fn send(&self, recipients: &[&str]) -> MessageId {
        self.accept(self.message(recipients)).await
    }

    /// The next outcome of this message.
    pub(crate) async fn outcome(&mut self, id: MessageId) -> AttemptOutcome {
        loop {
            if let Some(at) = self.outcomes.iter().position(|(of, _)| *of == id) {
                return self.outcomes.remove(at).1;
            }
            self.read_feed().await;
        }
    }

    /// The next outcomes of this message, as many as it has recipients, in
    /// their order.
    pub(crate) async fn outcomes(&mut self, id: MessageId, count: usize) -> Vec<AttemptOutcome> {
        let mut outcomes = Vec::new();
        for _ in 0..count {
            outcomes.push(self.outcome(id).await);
        }
        outcomes.sort_by_key(|outcome| outcome.recipient);
        outcomes
    }

    /// Outcomes of this message up to the final one.
    pub(crate) async fn until_final(&mut self, id: MessageId) -> Vec<AttemptOutcome> {
        let mut outcomes = Vec::new();
        loop {
            outcomes.push(self.outcome(id).await);
            if outcomes.last().unwrap().disposition.is_terminal() {
                return outcomes;
            }
        }
    }

    /// Waits for the next message that the relay itself writes.
    pub(crate) async fn own_message(&mut self) -> Arc<AcceptedRecord> {
        loop {
            let own = self.accepted.iter().position(|record| matches!(record.origin.kind, OriginKind::Dsn { .. }));
            match own {
                Some(at) => return self.accepted.remove(at),
                None => self.read_feed().await,
            }
        }
    }

    async fn read_feed(&mut self) {
        let waiting = self.feed.next();
        let items = tokio::time::timeout(30 * DAY, waiting).await.expect("something happens within a month").unwrap();
        for item in items {
            match item.record {
                FeedRecord::Accepted(record) => self.accepted.push(record),
                FeedRecord::Outcomes { id, outcomes } => {
                    self.outcomes.extend(outcomes.iter().map(|outcome| (id, outcome.clone())));
                }
                _ => {}
            }
            self.feed.ack(item.lsn);
        }
    }

    /// One MX host for a domain.
    pub(crate) fn mx(&self, domain: &str, host: &str, ip: &str) {
        self.zones.add_mx(domain, 10, host).add_address(host, ip);
    }
}

/// A relay that knows one domain with one host.
pub(crate) async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.mx("example.com", "mx.example.com", "198.51.100.1");
    rig
}

async fn open_spool(disk: &SimDisk, clock: &Clock, metrics: &Metrics) -> Spool {
    Spool::open(SpoolOptions {
        disk: Arc::new(disk.clone()),
        dir: "/spool".into(),
        index_dir: None,
        clock: clock.clone(),
        settings: postrider_spool::Settings {
            segment_bytes: postrider_base::Size::from_mib(1),
            ..postrider_spool::Settings::default()
        },
        metrics: metrics.clone(),
        feeds: &["test"],
        start_held: false,
        accept_loss: false,
        driver: Driver::Task,
    })
    .await
    .unwrap()
}

fn submission(deps: SubmissionDeps) -> Submission {
    let settings = postrider_submission::Settings {
        hostname: Some("relay.example.net".into()),
        unverified_senders: postrider_submission::UnverifiedSenders::Accept,
        ..Default::default()
    };
    Submission::new(deps, settings)
}

/// Settings with these routes.
pub(crate) fn routes(routes: &[(&str, &str)]) -> Settings {
    let routes = routes.iter().map(|(pattern, target)| ((*pattern).to_owned(), (*target).to_owned())).collect();
    Settings { routes, ..Settings::default() }
}

pub(crate) fn is_delivered(outcome: &AttemptOutcome) -> bool {
    outcome.disposition == Disposition::Delivered
}
