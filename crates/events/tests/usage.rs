//! What accounts have sent is known after every stop, orderly or not: by the real spool, journal
//! and store on a disk whose power is cut.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{Accounts, Exceeded, Limits};
use postrider_base::{Clock, Metrics, Random, Scope, SimDisk, Size, Timestamp};
use postrider_events::{Driver, Events, EventsOptions, Issuer, TracingSink};
use postrider_mail::{AccountId, Envelope, MessageId, Recipient};
use postrider_spool::{Content, NewMessage, Origin, OriginKind, Spool, SpoolOptions};
use postrider_store::{Options, Store};

const START: Timestamp = Timestamp::from_millis(1_501_893_602_012);
const MANY: Limits = Limits { per_day: Some(1_000_000), per_second: None };
/// More than enough, and paused time flies.
const PATIENCE: Duration = Duration::from_hours(1);

/// A relay, as far as it has to do with quotas.
struct Process {
    accounts: Accounts,
    store: Store,
    spool: Spool,
    events: Events,
    scope: Scope,
    clock: Clock,
    random: Random,
    _index: tempfile::TempDir,
}

impl Process {
    async fn start(machine: &SimDisk, clock: &Clock, seed: u64) -> Self {
        let disk = Arc::new(machine.for_process());
        let (metrics, random) = (Metrics::new(), Random::seeded(seed));
        let index = tempfile::tempdir().unwrap();
        let mut options = Options { index_dir: Some(index.path().to_owned()), ..Options::default() };
        // Paused time would fly while a thread writes.
        options.log.driver = Driver::Task;
        let store = Store::open_with(disk.clone(), Path::new("/store"), options).unwrap();
        let accounts = Accounts::open(&store, clock, &random, &postrider_account::Settings::default()).unwrap();
        let spool = SpoolOptions {
            disk: disk.clone(),
            dir: "/spool".into(),
            index_dir: None,
            clock: clock.clone(),
            settings: postrider_spool::Settings { min_free_bytes: Size::from_bytes(0), ..Default::default() },
            metrics: metrics.clone(),
            feeds: &[Events::FEED],
            start_held: false,
            accept_loss: false,
            driver: Driver::Task,
        };
        let spool = Spool::open(spool).await.unwrap();
        let events = EventsOptions {
            disk,
            dir: "/journal".into(),
            view_dir: None,
            driver: Driver::Task,
            clock: clock.clone(),
            settings: postrider_events::Settings { segment_bytes: Size::from_kib(64), ..Default::default() },
            metrics,
            issuer: Issuer {
                partition: "aws".into(),
                region: "us-east-1".into(),
                hostname: "mta.example.com".into(),
                operator_domain: "example.org".into(),
            },
            accept_loss: false,
        };
        let events = Events::open(events).await.unwrap();
        let scope = Scope::new("test");
        events.run(&spool, Arc::new(TracingSink), &scope).unwrap();
        events.follow(&accounts, &store, &spool, "example.com", &scope).unwrap();
        Self { accounts, store, spool, events, scope, clock: clock.clone(), random, _index: index }
    }

    /// Sends a message, unless the quota is used up.
    async fn send(&self, account: AccountId, limits: &Limits, to: &[&str]) -> Result<(), Exceeded> {
        let id = MessageId::new(0x0100, self.clock.now(), self.random.uuid_v4());
        let counted = to.iter().filter(|address| !address.contains("simulator")).count();
        let counted = u32::try_from(counted).unwrap();
        let reservation = self.accounts.quotas().reserve(account, limits, counted, id.timestamp())?;
        let message = NewMessage {
            id,
            account,
            accepted_at: id.timestamp(),
            expires_at: id.timestamp().saturating_add(Duration::from_hours(1)),
            not_before: None,
            tls_optional: false,
            envelope: Envelope {
                recipients: to.iter().map(|address| Recipient::new(address.parse().unwrap())).collect(),
                ..Envelope::default()
            },
            origin: Origin { protocol: "ESMTPSA".into(), kind: OriginKind::Submission, ..Origin::default() },
            content: Content::from(vec![b'x'; 100]),
        };
        self.spool.accept(message).await.unwrap();
        reservation.keep();
        Ok(())
    }

    fn sent(&self, account: AccountId) -> u64 {
        self.accounts.quotas().usage(account, self.clock.now()).sent_last_24_hours
    }

    /// Until everything from before is counted.
    async fn recounted(&self) {
        let counted = async {
            while self.accounts.quotas().reserve(AccountId::MAX, &MANY, 1, self.clock.now()).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.expect("it is never counted");
    }

    async fn stop(self) {
        self.scope.close(PATIENCE).await.unwrap();
        self.events.close().await.unwrap();
        self.spool.close().await.unwrap();
        self.store.close().await.unwrap();
    }
}

fn account(number: u64) -> AccountId {
    AccountId::new(number).unwrap()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_twice_or_lost_however_the_process_ends() {
    for seed in 0..4 {
        let (machine, clock, random) = (SimDisk::new(), Clock::simulated(START), Random::seeded(seed));
        let mut sent = [0, 0];
        for life in 0..5 {
            let process = Process::start(&machine, &clock, seed * 100 + life).await;
            if random.u64() % 4 > 0 {
                process.recounted().await;
                let known = [process.sent(account(1)), process.sent(account(2))];
                assert_eq!(known, sent, "seed {seed}, life {life}");
            }
            // Without a bound nobody waits for the recount, and both go on at the same time.
            for message in 0..random.u64() % 12 {
                let to = ["a@example.net", "success@simulator.amazonses.com", "b@simulator.example.com", "c@d.example"];
                process.send(account(1 + message % 2), &Limits::default(), &to).await.unwrap();
                sent[usize::try_from(message % 2).unwrap()] += 2;
                if random.u64() % 3 == 0 {
                    tokio::time::sleep(Duration::from_millis(random.u64() % 14_000)).await;
                }
            }
            if random.u64() % 3 == 0 {
                process.stop().await;
            } else {
                machine.crash(random.u64());
                process.scope.cancel();
            }
        }
        let process = Process::start(&machine, &clock, seed).await;
        process.recounted().await;
        assert_eq!([process.sent(account(1)), process.sent(account(2))], sent, "seed {seed}, at last");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_gives_nobody_a_second_quota() {
    let (machine, clock, ten) =
        (SimDisk::new(), Clock::simulated(START), Limits { per_day: Some(10), per_second: None });
    let process = Process::start(&machine, &clock, 1).await;
    process.recounted().await;
    for _ in 0..10 {
        assert_eq!(process.send(account(1), &ten, &["a@example.net"]).await, Ok(()));
    }
    machine.crash_dropping_all();
    process.scope.cancel();
    let process = Process::start(&machine, &clock, 2).await;
    // At once, and when everything is known.
    assert_eq!(process.send(account(1), &ten, &["a@example.net"]).await, Err(Exceeded::Recounting));
    process.recounted().await;
    assert_eq!(process.send(account(1), &ten, &["a@example.net"]).await, Err(Exceeded::Daily));
    tokio::time::sleep(Duration::from_secs(24 * 3600 + 60)).await;
    assert_eq!(process.send(account(1), &ten, &["a@example.net"]).await, Ok(()));
    process.stop().await;
    let process = Process::start(&machine, &clock, 3).await;
    process.recounted().await;
    assert_eq!(process.sent(account(1)), 1);
}
