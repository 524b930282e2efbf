//! Counts what became of recipients for the reputation of their senders: hard bounces and
//! complaints against all that came to an end.

use std::time::Duration;

use postrider_account::{Counted, Counts};
use postrider_mail::{AccountId, EmailAddress, is_simulator};
use postrider_store::{Batch, Error as StoreError};
use tracing::warn;

use crate::ended::{Bounce, Ended, How};
use crate::follower::{Chunk, Context, Places, Record, What};
use crate::record::Cursor;

/// What was counted is written at the latest after so many events ...
const SAVE_EVERY: usize = 10_000;
/// ... and so many senders, which take 1 KiB each in a batch of the store, 4 at the widest
/// settings.
const SAVE_SENDERS: usize = 500;
/// Between two attempts to write.
const PAUSE: Duration = Duration::from_secs(5);

/// The counts of exactly what comes before its place are in the store.
pub(crate) struct Reputations {
    context: Context,
    places: Places,
    /// The next record to count.
    next: Cursor,
    /// Records since the last write.
    unsaved: usize,
}

impl Reputations {
    pub(crate) fn new(context: Context, places: Places) -> Result<Self, StoreError> {
        let next = places.next(&context.journal)?.unwrap_or_default();
        Ok(Self { context, places, next, unsaved: 0 })
    }

    pub(crate) fn next(&self) -> Cursor {
        self.next
    }

    /// Takes what it has not seen.
    pub(crate) async fn take(&mut self, chunk: &Chunk) {
        for record in chunk.since(self.next) {
            if let What::Ended(ended) = &record.what {
                self.count(record, ended);
            }
            self.next = record.cursor.next();
            self.unsaved += 1;
            if self.unsaved >= SAVE_EVERY || self.context.accounts.reputation().unsaved() >= SAVE_SENDERS {
                self.save().await;
            }
        }
        self.next = self.next.max(chunk.after);
    }

    fn count(&self, record: &Record, ended: &Ended) {
        let what = match (ended.how, ended.late) {
            (How::Complained, _) => Counts::Complained,
            (How::Delivered | How::Gone, _) | (How::Bounced(Bounce::Soft), false) => Counts::Fine,
            // Its recipients are counted by what the dialogue says of them.
            (How::Bounced(Bounce::Soft), true) => return,
            (How::Bounced(Bounce::NoMailbox | Bounce::Permanent), true) => Counts::Returned,
            (How::Bounced(Bounce::NoMailbox | Bounce::Permanent), false) => Counts::Bounced,
        };
        let count = ended.recipients.iter().filter(|recipient| self.counts(ended.account, recipient)).count();
        if count > 0 {
            self.context.accounts.reputation().count(&Counted {
                account: ended.account,
                set: ended.set.as_deref(),
                accepted_at: record.id.timestamp(),
                at: record.at,
                what,
                count: u32::try_from(count).unwrap_or(u32::MAX),
            });
        }
    }

    /// Mail to the simulator and to the sender's own addresses says nothing about a list, and
    /// must not make one look better.
    fn counts(&self, account: AccountId, recipient: &EmailAddress) -> bool {
        let is_own = || {
            let identity = self.context.accounts.identities().resolve(account, recipient);
            identity.is_some_and(|identity| identity.is_verified())
        };
        !is_simulator(recipient.domain(), &self.context.operator_domain) && !is_own()
    }

    /// Forgets senders of whom nothing counts any more; another time, where the store takes
    /// nothing now.
    pub(crate) async fn tidy(&mut self) {
        if !self.save_if_possible().await {
            return;
        }
        if let Err(error) = self.context.accounts.reputation().tidy(self.context.journal.clock.now()).await {
            warn!(%error, "reputations that say nothing any more are kept");
        }
    }

    /// Writes what was counted; later, where the store takes nothing. Whether it is written.
    pub(crate) async fn save_if_possible(&mut self) -> bool {
        let saved = self.try_save().await;
        if let Err(error) = &saved {
            warn!(%error, "the counts of reputations are not saved yet");
        }
        saved.is_ok()
    }

    /// What is not written is counted again.
    pub(crate) async fn end(&mut self) {
        if let Err(error) = self.try_save().await {
            warn!(%error, "the last counts of reputations are not kept");
        }
    }

    /// Until it is written: nothing more is counted meanwhile.
    pub(crate) async fn save(&mut self) {
        while let Err(error) = self.try_save().await {
            warn!(%error, "counting of reputations waits");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_save(&mut self) -> Result<(), postrider_account::Error> {
        let reputation = self.context.accounts.reputation();
        // To pass over events that do not count is cheaper than a sync.
        if self.unsaved < SAVE_EVERY && reputation.unsaved() == 0 {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(&self.places.table, &self.places.row(), &self.next.previous())?;
        reputation.save(batch).await?;
        self.unsaved = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;

    use postrider_account::{Accounts, Identity, Sender, Settings, Tally, Verification};
    use postrider_base::{Clock, Random, Scope, SimDisk, Timestamp};
    use postrider_mail::{BounceKind, Disposition, SuppressionList, SuppressionReason, SuppressionSource};

    use postrider_store::Store;

    use crate::handle::Events;
    use crate::samples::{
        ACCEPTED, accepted, complaint, follow, give_back, late_bounce, message, open, options, outcome, outcomes, take,
    };

    /// More than enough.
    const PATIENCE: Duration = Duration::from_secs(60);

    struct World {
        disk: SimDisk,
        store: Store,
        accounts: Accounts,
        events: Events,
        scope: Scope,
        /// The number of the next message.
        next: u8,
        _index: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            Self::on(SimDisk::new(), 1).await
        }

        async fn on(disk: SimDisk, next: u8) -> Self {
            let index = tempfile::tempdir().unwrap();
            let options_of = postrider_store::Options { index_dir: Some(index.path().into()), ..Default::default() };
            let store = Store::open_with(Arc::new(disk.clone()), Path::new("/store"), options_of).unwrap();
            let events = open(options(&disk, Clock::simulated(ACCEPTED))).await;
            let accounts = reopen(&store);
            Self { disk, store, accounts, events, scope: Scope::new("test"), next, _index: index }
        }

        /// A message of the set `ConfigSet` to these recipients, and what becomes of it.
        async fn send(&mut self, to: &[&str], disposition: Disposition) {
            let (number, lsn) = (self.next, u64::from(self.next) * 2);
            self.next += 1;
            let ends = (0..to.len()).map(|at| outcome(u16::try_from(at).unwrap(), ACCEPTED, disposition, "550 no"));
            let end = outcomes(lsn + 1, number.into(), ends.collect());
            take(&self.events.0, vec![accepted(lsn, message(number.into(), to)), end]).await;
        }

        fn start(&self) {
            follow(&self.events, &self.accounts, &self.store, "relay.example.org", &self.scope);
        }

        async fn restart(&mut self) {
            std::mem::replace(&mut self.scope, Scope::new("test")).close(PATIENCE).await.unwrap();
            self.events.close().await.unwrap();
            self.events = open(options(&self.disk, Clock::simulated(ACCEPTED))).await;
            self.accounts = reopen(&self.store);
        }

        /// Goes on with what is on the disk at this moment. Gives the world that was: whoever
        /// still runs there changes another disk.
        async fn crash(&mut self) -> Self {
            let world = Self::on(self.disk.fork(), self.next).await;
            std::mem::replace(self, world)
        }

        async fn until(&self, recipients: u32, bounces: u32) {
            let wanted = Tally { recipients, bounces, complaints: 0 };
            let waited = tokio::time::timeout(PATIENCE, async {
                while self.tally(&me()) != wanted {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            assert!(waited.await.is_ok(), "{:?} and not {wanted:?}", self.tally(&me()));
        }

        fn tally(&self, sender: &Sender) -> Tally {
            self.accounts.reputation().tally(sender, ACCEPTED)
        }
    }

    fn reopen(store: &Store) -> Accounts {
        Accounts::open(store, &Clock::simulated(ACCEPTED), &Random::seeded(1), &Settings::default()).unwrap()
    }

    fn me() -> Sender {
        Sender::account(AccountId::default())
    }

    fn suppressed(list: SuppressionList, reason: SuppressionReason) -> Disposition {
        Disposition::Suppressed(SuppressionSource { list, reason })
    }

    #[tokio::test]
    async fn a_restart_loses_nothing_and_counts_nothing_twice() {
        let mut world = World::new().await;
        world.send(&["a@example.net", "b@example.net"], Disposition::Delivered).await;
        world.start();
        world.until(2, 0).await;
        world.send(&["c@example.net"], Disposition::Bounced(BounceKind::PermanentGeneral)).await;
        world.until(3, 1).await;
        world.restart().await;
        assert_eq!(world.tally(&me()), Tally { recipients: 3, bounces: 1, complaints: 0 });
        world.send(&["d@example.net"], Disposition::Bounced(BounceKind::PermanentNoEmail)).await;
        world.start();
        world.until(4, 2).await;
        let killed = world.crash().await;
        assert_eq!(world.tally(&me()), Tally { recipients: 3, bounces: 1, complaints: 0 }, "it was written in time");
        // What had not been written is counted again.
        world.start();
        world.until(4, 2).await;
        world.restart().await;
        drop(killed);
        assert_eq!(world.tally(&me()), Tally { recipients: 4, bounces: 2, complaints: 0 });
    }

    #[tokio::test]
    async fn each_outcome_counts_for_what_it_is() {
        let mut world = World::new().await;
        let verified = Verification { status: postrider_account::VerificationStatus::Success, ..pending() };
        let own =
            Identity { verification: verified, ..Identity::new(AccountId::default(), "own.example".parse().unwrap()) };
        world.accounts.identities().create(own).await.unwrap();
        let pending = Identity {
            verification: pending(),
            ..Identity::new(AccountId::default(), "wished.example".parse().unwrap())
        };
        world.accounts.identities().create(pending).await.unwrap();
        world.start();
        let hard = Disposition::Bounced(BounceKind::PermanentNoEmail);
        let (mut recipients, mut bounces) = (0, 0);
        for (to, disposition, counts, is_bounce) in [
            ("a@example.net", Disposition::Delivered, 1, 0),
            ("a@example.net", hard, 1, 1),
            ("a@example.net", Disposition::Bounced(BounceKind::PermanentGeneral), 1, 1),
            ("a@example.net", Disposition::Bounced(BounceKind::TransientGeneral), 1, 0),
            ("a@example.net", Disposition::Bounced(BounceKind::TransientMailboxFull), 1, 0),
            ("a@example.net", Disposition::Bounced(BounceKind::Undetermined), 1, 0),
            ("a@example.net", Disposition::Deleted, 0, 0),
            ("a@example.net", suppressed(SuppressionList::Account, SuppressionReason::Bounce), 0, 0),
            ("a@example.net", suppressed(SuppressionList::Account, SuppressionReason::Complaint), 0, 0),
            ("a@example.net", suppressed(SuppressionList::Global, SuppressionReason::Bounce), 1, 1),
            ("bounce@simulator.amazonses.com", hard, 0, 0),
            ("bounce@simulator.relay.example.org", hard, 0, 0),
            ("gone@own.example", hard, 0, 0),
            ("gone@deep.own.example", Disposition::Delivered, 0, 0),
            ("gone@wished.example", hard, 1, 1),
        ] {
            world.send(&[to], disposition).await;
            (recipients, bounces) = (recipients + counts, bounces + is_bounce);
            // Shows that the one before was not counted too late.
            world.send(&["b@example.net"], Disposition::Delivered).await;
            recipients += 1;
            world.until(recipients, bounces).await;
        }
    }

    fn pending() -> Verification {
        Verification::pending(Timestamp::default())
    }

    #[tokio::test]
    async fn what_comes_back_later_counts_without_another_recipient() {
        let mut world = World::new().await;
        world.send(&["a@example.net", "b@example.net", "c@example.net"], Disposition::Delivered).await;
        world.send(&["complaint@simulator.amazonses.com"], Disposition::Delivered).await;
        let journal = world.events.0.clone();
        give_back(&journal, 1, 0, late_bounce(BounceKind::TransientMailboxFull)).await;
        give_back(&journal, 1, 0, late_bounce(BounceKind::PermanentNoEmail)).await;
        give_back(&journal, 1, 1, complaint("abuse")).await;
        give_back(&journal, 1, 1, complaint("not-spam")).await;
        give_back(&journal, 1, 2, complaint("auth-failure")).await;
        // Shows that those before were not counted too late.
        world.send(&["d@example.net"], Disposition::Delivered).await;
        world.start();
        let wanted = Tally { recipients: 4, bounces: 1, complaints: 1 };
        let waited = tokio::time::timeout(PATIENCE, async {
            while world.tally(&me()) != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{:?} and not {wanted:?}", world.tally(&me()));
    }

    #[tokio::test]
    async fn who_came_back_and_is_suppressed_at_the_next_attempt_is_one_recipient_and_one_bounce() {
        let mut world = World::new().await;
        world.start();
        let (journal, gone) = (world.events.0.clone(), "a@example.net".parse().unwrap());
        for (list, count) in [(SuppressionList::Account, 1), (SuppressionList::Global, 2)] {
            // The reply was lost.
            let number = world.next;
            world.next += 1;
            take(&journal, vec![accepted(u64::from(number) * 2, message(number.into(), &["a@example.net"]))]).await;
            give_back(&journal, number.into(), 0, late_bounce(BounceKind::PermanentNoEmail)).await;
            while world.accounts.suppression().get(AccountId::default(), &gone).unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let end = outcome(0, ACCEPTED, suppressed(list, SuppressionReason::Bounce), "on the list");
            take(&journal, vec![outcomes(u64::from(number) * 2 + 1, number.into(), vec![end])]).await;
            world.until(count, count).await;
        }
        let lines = world.events.since(crate::reader::Start::Oldest).next().await.unwrap();
        assert_eq!(lines.iter().filter(|line| line.kind == crate::record::Kind::Bounce).count(), 2);
    }

    #[tokio::test]
    async fn a_set_with_metrics_and_its_account_are_both_counted() {
        let mut world = World::new().await;
        let sets = world.accounts.configuration_sets();
        sets.create(AccountId::default(), "ConfigSet", Vec::new()).await.unwrap();
        sets.change(AccountId::default(), "ConfigSet", |set| set.reputation_metrics = true).await.unwrap();
        world.send(&["a@example.net"], Disposition::Bounced(BounceKind::PermanentNoEmail)).await;
        world.start();
        world.until(1, 1).await;
        let of_set = world.tally(&Sender::set(AccountId::default(), "ConfigSet"));
        assert_eq!(of_set, Tally { recipients: 1, bounces: 1, complaints: 0 });
    }
}
