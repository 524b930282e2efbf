//! The one reader of the journal that acts on what is read: it hands each record, decoded once,
//! to those who count what accounts send, what became of it, and whom to write to no more.
//!
//! Each of them keeps its own place in the store, together with what it made of all before, and
//! passes over what lies before that: reading begins at the earliest of the places.

use std::sync::Arc;
use std::time::Duration;

use postrider_account::Accounts;
use postrider_base::{Scope, Timestamp};
use postrider_mail::MessageId;
use postrider_spool::Spool;
use postrider_store::{Error as StoreError, Store, Table};
use postrider_wal::{Error as LogError, Lsn};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{error, warn};

use crate::ended::Ended;
use crate::error::{Error, Result};
use crate::handle::Events;
use crate::journal::{Journal, State, blocking};
use crate::record::{Acceptance, Cursor, Head, Kind, Life, kind_of};
use crate::reputation::Reputations;
use crate::suppression::{self, Suppressor};
use crate::usage::Usage;
use crate::view::Place;

/// Name of the table that holds how far each of them has come.
pub(crate) const TABLE: &str = "journal-cursors";

/// How long news are gathered before they are read.
const GATHER: Duration = Duration::from_millis(100);
/// Heads looked at in one go.
const HEAD_BYTES: usize = 64 << 10;
/// Between two attempts to read the same place.
const PAUSE: Duration = Duration::from_secs(1);
/// How long what was counted waits to be saved with more: a crash has it read again.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// How often senders are forgotten of whom nothing counts any more.
const TIDY_EVERY: Duration = Duration::from_hours(1);
/// For how long addresses that were suppressed are gathered into one record of the audit log:
/// changes by people must not be lost among those of the relay.
const AUDIT_EVERY: Duration = Duration::from_mins(10);

impl Events {
    /// Starts to act on what is journaled, until the scope ends: to keep what accounts send in
    /// the store, to count outcomes for [`postrider_account::Reputation`], and to put recipients
    /// of hard bounces and those who complain on the suppression lists, whose old entries are
    /// removed. All go on where the last run ended. Call once, after [`Events::run`] and before
    /// anything is accepted: until what was sent before is all counted, who has a bound for 24
    /// hours must wait. `operator_domain` is where the mailbox simulator is, whose recipients
    /// count for nothing.
    ///
    /// # Errors
    /// When the store can not be read.
    pub fn follow(
        &self,
        accounts: &Accounts,
        store: &Store,
        spool: &Spool,
        operator_domain: &str,
        scope: &Scope,
    ) -> std::result::Result<(), StoreError> {
        let follower = self.follower(accounts, store, spool.stat().synced, operator_domain, scope)?;
        let spool = spool.clone();
        scope.spawn("followers of the journal", follower.run(async move { spool.told(Self::FEED).await }));
        Ok(())
    }

    /// `spooled_before` is the last batch of the spool that an earlier process wrote.
    pub(crate) fn follower(
        &self,
        accounts: &Accounts,
        store: &Store,
        spooled_before: Lsn,
        operator_domain: &str,
        scope: &Scope,
    ) -> std::result::Result<Follower, StoreError> {
        let journal = self.0.clone();
        let places = |name| Places { name, table: store.table(TABLE) };
        scope.spawn("suppression entries", suppression::tend(accounts.clone(), journal.metrics.clone(), scope.clone()));
        let context = || Context {
            journal: journal.clone(),
            accounts: accounts.clone(),
            operator_domain: operator_domain.to_owned(),
            scope: scope.clone(),
        };
        Ok(Follower {
            usage: Usage::new(context(), places("usage"), store.clone(), spooled_before)?,
            reputations: Reputations::new(context(), places("reputation"))?,
            suppressor: Suppressor::new(context(), places("suppression"))?,
            scope: scope.clone(),
            journal,
        })
    }
}

/// What each of them works with.
pub(crate) struct Context {
    pub(crate) journal: Arc<Journal>,
    pub(crate) accounts: Accounts,
    pub(crate) operator_domain: String,
    pub(crate) scope: Scope,
}

impl Context {
    /// Waits, but not longer than the scope lasts.
    pub(crate) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.scope.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}

/// Where one of them has come to.
pub(crate) struct Places {
    /// Its row.
    name: &'static str,
    pub(crate) table: Table<String, Cursor>,
}

impl Places {
    pub(crate) fn row(&self) -> String {
        self.name.to_owned()
    }

    /// The first record that it has not seen; none when it has never run.
    pub(crate) fn next(&self, journal: &Journal) -> std::result::Result<Option<Cursor>, StoreError> {
        let last = self.table.get(&self.row())?;
        Ok(last.map(|last| journal.clamp(last).next()))
    }
}

pub(crate) struct Follower {
    journal: Arc<Journal>,
    usage: Usage,
    reputations: Reputations,
    suppressor: Suppressor,
    scope: Scope,
}

impl Follower {
    /// `told` resolves when all that an earlier process accepted is journaled.
    pub(crate) async fn run(mut self, told: impl Future<Output = ()>) {
        let scope = self.scope.clone();
        let followed = tokio::select! {
            biased;
            () = scope.cancelled() => Ok(()),
            followed = self.follow(told) => followed,
        };
        let ended = self.end().await;
        if let Err(error) = followed.and(ended)
            && *self.journal.state.borrow() == State::Running
        {
            error!(%error, "usage, reputations and suppression stand still until the next start");
        }
    }

    /// May be dropped at any of its waits: no place is beyond what was made of the records before.
    async fn follow(&mut self, told: impl Future<Output = ()>) -> Result<()> {
        // Senders wait for this one, and for none of the others.
        self.usage.catch_up(told).await?;
        self.reputations.tidy().await;
        let mut synced = self.journal.log.committed();
        synced.mark_changed();
        let journal = self.journal.clone();
        let (mut save, mut tidy, mut audit) = (every(SAVE_EVERY), every(TIDY_EVERY), every(AUDIT_EVERY));
        loop {
            tokio::select! {
                biased;
                () = journal.stopped() => return Err(LogError::Closed.into()),
                _ = save.tick() => {
                    self.usage.save_if_possible().await;
                    self.reputations.save_if_possible().await;
                }
                _ = tidy.tick() => self.reputations.tidy().await,
                _ = audit.tick() => self.suppressor.audit().await,
                () = self.suppressor.waited() => self.read_on().await?,
                changed = synced.changed() => {
                    changed.map_err(|_| LogError::Closed)?;
                    tokio::time::sleep(GATHER).await;
                    self.read_on().await?;
                }
            }
        }
    }

    /// Reads as far as the journal is synced.
    async fn read_on(&mut self) -> Result<()> {
        loop {
            let next = self.usage.next().min(self.reputations.next());
            // One that waits for the store reads its part later, and holds nobody up.
            let next = self.suppressor.next().map_or(next, |of_suppressor| of_suppressor.min(next));
            if next.batch <= self.journal.last.get() {
                self.journal.recovered().await?;
            }
            let Some(chunk) = read_patiently(&self.journal, next).await? else { continue };
            if chunk.after == next {
                return Ok(());
            }
            self.usage.take(&chunk).await;
            self.reputations.take(&chunk).await;
            self.suppressor.take(&chunk).await;
        }
    }

    /// What is journaled by now is known at once at the next start, unless it is too much.
    async fn end(&mut self) -> Result<()> {
        let read = self.usage.end().await;
        self.reputations.end().await;
        self.suppressor.audit().await;
        read
    }
}

/// Ticks for the first time when so much time has passed.
fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.reset();
    interval
}

/// Records, and where they end.
pub(crate) struct Chunk {
    pub(crate) records: Vec<Record>,
    /// The record to look at after them; where they begin at the end of the journal alone.
    pub(crate) after: Cursor,
}

impl Chunk {
    /// The records from `next` on.
    pub(crate) fn since(&self, next: Cursor) -> &[Record] {
        &self.records[self.records.partition_point(|record| record.cursor < next)..]
    }
}

/// A record that says something to one of them.
pub(crate) struct Record {
    pub(crate) cursor: Cursor,
    pub(crate) source: Lsn,
    pub(crate) id: MessageId,
    pub(crate) at: Timestamp,
    pub(crate) what: What,
}

#[expect(clippy::large_enum_variant, reason = "read, used and gone")]
pub(crate) enum What {
    Sent(Acceptance),
    Ended(Ended),
}

/// What to read, to save reading the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Sent,
    All,
}

/// As [`read`]; none when it could not be read and is to be tried again: a segment went while
/// it was read, or the disk recovers.
async fn read_patiently(journal: &Arc<Journal>, next: Cursor) -> Result<Option<Chunk>> {
    match read(journal, next, Wanted::All).await {
        Err(error @ Error::Log(LogError::Closed)) => return Err(error),
        Err(error) if *journal.state.borrow() != State::Running => return Err(error),
        Err(error) => warn!(%error, "the journal is read once more"),
        Ok(chunk) => return Ok(Some(chunk)),
    }
    tokio::time::sleep(PAUSE).await;
    Ok(None)
}

/// Records from `next` on.
pub(crate) async fn read(journal: &Arc<Journal>, next: Cursor, wanted: Wanted) -> Result<Chunk> {
    let journal = journal.clone();
    blocking(move || read_blocking(&journal, next, wanted)).await
}

fn read_blocking(journal: &Journal, mut next: Cursor, wanted: Wanted) -> Result<Chunk> {
    let mut records = Vec::new();
    let replayed = journal.log.read_from(Lsn::new(next.batch), HEAD_BYTES)?;
    for replayed in &replayed {
        let Place { cursor, location } = Place::of(replayed);
        if cursor < next {
            continue;
        }
        next = cursor.next();
        let (Ok(Head { source, id, at }), Ok(kind)) = (Head::decode(replayed), kind_of(replayed)) else { continue };
        let is_wanted = match kind {
            Kind::Send => true,
            Kind::Delivery | Kind::Bounce | Kind::Complaint | Kind::Internal => wanted == Wanted::All,
            _ => false,
        };
        if !is_wanted {
            continue;
        }
        let Some(body) = journal.read(location)? else { continue };
        let what = match kind {
            Kind::Send => match body.life() {
                Ok(Life::Accepted { acceptance, .. }) => Some(What::Sent(acceptance)),
                Ok(_) => None,
                Err(error) => {
                    error!(%cursor, %error, "a message is in no quota");
                    None
                }
            },
            _ => Ended::of(&body).map(What::Ended),
        };
        records.extend(what.map(|what| Record { cursor, source, id, at, what }));
    }
    // Batches come whole: one that lies before `next` and was all that came is not the end.
    let behind = replayed.last().map(|last| Cursor { batch: last.lsn.next().get(), index: 0 });
    Ok(Chunk { records, after: behind.unwrap_or(next) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use postrider_account::{Sender, Settings, Tally};
    use postrider_base::sim_disk::{Fault, Operation};
    use postrider_base::{Clock, Random, SimDisk};
    use postrider_mail::{AccountId, BounceKind, Disposition};
    use postrider_wal::Driver;

    use crate::handle::EventsOptions;
    use crate::reader::Start;
    use crate::samples::{ACCEPTED, accepted, follow, message, open, options, outcome, outcomes, take};

    /// More than enough.
    const PATIENCE: Duration = Duration::from_secs(60);

    struct World {
        accounts: Accounts,
        store: Store,
        events: Events,
        /// The journal's.
        disk: SimDisk,
        scope: Scope,
        _index: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            Self::with_store_on(SimDisk::new()).await
        }

        async fn with_store_on(of_store: SimDisk) -> Self {
            let (disk, index) = (SimDisk::new(), tempfile::tempdir().unwrap());
            let mut options_of =
                postrider_store::Options { index_dir: Some(index.path().into()), ..Default::default() };
            options_of.log.segment_bytes = 64 << 10;
            // Paused time would fly while a thread writes.
            options_of.log.driver = Driver::Task;
            let store = Store::open_with(Arc::new(of_store), Path::new("/store"), options_of).unwrap();
            let clock = Clock::simulated(ACCEPTED);
            let accounts = Accounts::open(&store, &clock, &Random::seeded(1), &Settings::default()).unwrap();
            let events = open(EventsOptions { driver: Driver::Task, ..options(&disk, clock) }).await;
            Self { accounts, store, events, disk, scope: Scope::new("test"), _index: index }
        }

        /// A message of this number to a mailbox that does not exist.
        async fn bounce(&self, number: u8) {
            let bounced = Disposition::Bounced(BounceKind::PermanentNoEmail);
            let lsn = u64::from(number) * 2;
            let end = outcomes(lsn + 1, number.into(), vec![outcome(0, ACCEPTED, bounced, "550 5.1.1 unknown")]);
            let to = format!("gone-{number}@example.net");
            take(&self.events.0, vec![accepted(lsn, message(number.into(), &[&to])), end]).await;
        }

        fn follow(&self) {
            follow(&self.events, &self.accounts, &self.store, "example.org", &self.scope);
        }

        fn is_suppressed(&self, number: u8) -> bool {
            let address = format!("gone-{number}@example.net").parse().unwrap();
            self.accounts.suppression().get(AccountId::default(), &address).unwrap().is_some()
        }

        fn place(&self, name: &str) -> Option<Cursor> {
            self.store.table::<String, Cursor>(TABLE).get(&name.to_owned()).unwrap()
        }
    }

    async fn until(what: impl Fn() -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("it never happens");
    }

    #[tokio::test]
    async fn each_goes_on_at_its_own_place() {
        let world = World::new().await;
        for number in 1..=3 {
            world.bounce(number).await;
        }
        let (mut reader, mut lines) = (world.events.since(Start::Oldest), Vec::new());
        while lines.len() < 6 {
            lines.extend(reader.follow().await.unwrap());
        }
        let places = world.store.table::<String, Cursor>(TABLE);
        places.put(&"reputation".to_owned(), &lines[1].cursor).await.unwrap();
        places.put(&"suppression".to_owned(), &lines[3].cursor).await.unwrap();
        world.events.close().await.unwrap();
        let events = open(options(&world.disk, Clock::simulated(ACCEPTED))).await;
        let world = World { events, ..world };
        world.follow();
        until(|| world.is_suppressed(3) && world.place("usage").is_some()).await;
        assert!(!world.is_suppressed(1) && !world.is_suppressed(2), "they were taken off the list since");
        let tally = world.accounts.reputation().tally(&Sender::account(AccountId::default()), ACCEPTED);
        assert_eq!(tally, Tally { recipients: 2, bounces: 2, complaints: 0 });
        world.scope.clone().close(PATIENCE).await.unwrap();
        let end = lines[5].cursor;
        for name in ["usage", "reputation", "suppression"] {
            assert!(world.place(name).unwrap() >= end, "{name} is read once more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_is_full_reputations_are_counted_and_suppression_waits() {
        let disk = SimDisk::new();
        let world = World::with_store_on(disk.clone()).await;
        world.follow();
        world.bounce(1).await;
        until(|| world.is_suppressed(1)).await;
        disk.set_capacity(Some(1));
        let (filler, mut key) = (world.store.table::<u64, String>("filler"), 0);
        for bytes in [8_000, 500, 0] {
            while filler.put(&key, &"x".repeat(bytes)).await.is_ok() {
                key += 1;
            }
        }
        let bounces = || world.accounts.reputation().tally(&Sender::account(AccountId::default()), ACCEPTED).bounces;
        for number in 2..=4 {
            world.bounce(number).await;
            until(|| bounces() == u32::from(number)).await;
        }
        assert!(!world.is_suppressed(2) && !world.is_suppressed(4));
        disk.set_capacity(None);
        until(|| (2..=4).all(|number| world.is_suppressed(number))).await;
        world.scope.clone().close(PATIENCE).await.unwrap();
        assert_eq!(bounces(), 4, "none is counted twice");
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_read_once_more_and_a_closed_journal_is_the_end() {
        let world = World::new().await;
        world.follow();
        world.bounce(1).await;
        until(|| world.is_suppressed(1)).await;
        world.disk.fail(Operation::Read, 1, Fault::InputOutput);
        world.bounce(2).await;
        until(|| world.is_suppressed(2)).await;
        world.events.close().await.unwrap();
        world.scope.clone().close(PATIENCE).await.unwrap();
        assert!(world.place("suppression").is_some());
    }
}
