//! Automatic suppression: an address whose mailbox a server said does not exist gets no more mail
//! of its account, as far as the account and the configuration set want that; nor, for some days,
//! of any other.

use std::time::Duration;

use postrider_account::{Accounts, ConfigurationSet};
use postrider_base::{Metrics, Scope};
use postrider_mail::{EmailAddress, SuppressionReason, is_simulator};
use postrider_store::Error as StoreError;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::ended::{Bounce, Ended, How};
use crate::follower::{Chunk, Context, Places, Record, What};
use crate::record::Cursor;

/// Records after which the place is kept although nothing came of them: a sync is dearer than
/// reading as many again at the next start.
const SAVE_EVERY: usize = 10_000;

/// Between two attempts to record an address.
const PAUSE: Duration = Duration::from_secs(5);

/// Between two looks for entries that have had their time. Nothing depends on it but space.
const SWEEP_EVERY: Duration = Duration::from_hours(6);

/// How often entries are counted for the metrics in that time: twice a minute.
const COUNTS_PER_SWEEP: u32 = 720;

/// Removes what has had its time, and counts what there is, until the scope ends.
pub(crate) async fn tend(accounts: Accounts, metrics: Metrics, scope: Scope) {
    tokio::select! {
        () = scope.cancelled() => {}
        () = keep_tending(&accounts, &metrics) => {}
    }
}

async fn keep_tending(accounts: &Accounts, metrics: &Metrics) {
    let lists = accounts.suppression();
    let gauge = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
    loop {
        match lists.sweep(accounts.audit()).await {
            Ok(0) => {}
            Ok(removed) => info!(removed, "suppression entries have had their time"),
            Err(error) => warn!(%error, "suppression entries that have had their time stay"),
        }
        for _ in 0..COUNTS_PER_SWEEP {
            metrics.suppression_entries.set(gauge(lists.usage().rows));
            metrics.suppression_global_entries.set(gauge(lists.global().usage().rows));
            metrics.suppression_damaged_files.set(gauge(lists.damaged_files()));
            tokio::time::sleep(SWEEP_EVERY / COUNTS_PER_SWEEP).await;
        }
    }
}

/// Puts recipients on the lists. To tell these of the same event twice changes nothing.
pub(crate) struct Suppressor {
    context: Context,
    places: Places,
    /// The next record to look at.
    next: Cursor,
    /// Recipients of hard bounces that the audit log does not have.
    bounced: u64,
    /// Those who complained.
    complained: u64,
    /// Records since the place was kept.
    unsaved: usize,
    /// When the store is tried again, which did not take what comes next.
    waits_until: Option<Instant>,
}

impl Suppressor {
    pub(crate) fn new(context: Context, places: Places) -> Result<Self, StoreError> {
        let next = places.next(&context.journal)?.unwrap_or_default();
        Ok(Self { context, places, next, bounced: 0, complained: 0, unsaved: 0, waits_until: None })
    }

    /// What it is to be shown; nothing while it waits for the store.
    pub(crate) fn next(&self) -> Option<Cursor> {
        self.waits_until.is_none().then_some(self.next)
    }

    /// Resolves when it has waited for the store, if it does, and is to be shown more.
    pub(crate) async fn waited(&mut self) {
        match self.waits_until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
        self.waits_until = None;
    }

    /// Takes what it has not seen, up to what the store does not take now.
    pub(crate) async fn take(&mut self, chunk: &Chunk) {
        if chunk.after <= self.next || self.waits_until.is_some() {
            return;
        }
        let before = self.bounced + self.complained;
        let mut after = chunk.after;
        for record in chunk.since(self.next) {
            if let What::Ended(ended) = &record.what
                && !self.suppress(record, ended).await
            {
                // What is passed over is never looked at again.
                after = record.cursor;
                self.waits_until = Some(self.context.journal.clock.instant() + PAUSE);
                break;
            }
            self.unsaved += 1;
        }
        self.next = after;
        if self.bounced + self.complained == before && self.unsaved < SAVE_EVERY {
            return;
        }
        self.unsaved = 0;
        if let Err(error) = self.places.table.put(&self.places.row(), &self.next.previous()).await {
            warn!(%error, "the place in the journal is not kept");
        }
    }

    /// One record each for what came together.
    pub(crate) async fn audit(&mut self) {
        for (reason, count) in [("BOUNCE", &mut self.bounced), ("COMPLAINT", &mut self.complained)] {
            let count = std::mem::take(count);
            if count > 0 {
                let parameters = serde_json::json!({ "reason": reason, "count": count });
                self.context.accounts.audit().by_relay("suppression", "PutSuppressedDestination", parameters).await;
            }
        }
    }

    /// A reply that calls the mailbox unknown suppresses, and a complaint; every other permanent
    /// failure may be about the message or about us. Says whether that is done.
    async fn suppress(&mut self, record: &Record, ended: &Ended) -> bool {
        let reason = match ended.how {
            How::Bounced(Bounce::NoMailbox) => SuppressionReason::Bounce,
            How::Complained => SuppressionReason::Complaint,
            How::Delivered | How::Gone | How::Bounced(Bounce::Permanent | Bounce::Soft) => return true,
        };
        for address in &ended.recipients {
            if is_simulator(address.domain(), &self.context.operator_domain) {
                continue;
            }
            let Some(is_put) = self.record(ended, reason, address, record).await else { return false };
            match reason {
                SuppressionReason::Bounce => self.bounced += u64::from(is_put),
                SuppressionReason::Complaint => self.complained += u64::from(is_put),
            }
        }
        true
    }

    /// Tells both lists, each by itself: one that is full or damaged is not the other's affair.
    /// What one account's recipient complains of is nothing to the others. Says whether one of
    /// them has changed; nothing where one has to be told later.
    async fn record(
        &self,
        ended: &Ended,
        reason: SuppressionReason,
        address: &EmailAddress,
        record: &Record,
    ) -> Option<bool> {
        let accounts = &self.context.accounts;
        let (lists, account) = (accounts.suppression(), ended.account);
        let set = ended.set.as_ref().and_then(|name| accounts.configuration_sets().find(account, name));
        let reasons = set.as_deref().and_then(|set: &ConfigurationSet| set.suppressed_reasons.as_ref());
        let is_put = self.told(record, lists.record(account, reasons, address, reason, record.at).await)?;
        if reason != SuppressionReason::Bounce {
            return Some(is_put);
        }
        Some(self.told(record, lists.record_globally(address, record.at).await)? || is_put)
    }

    /// What a list said: whether it has changed; nothing where the store takes nothing now.
    fn told(&self, record: &Record, said: Result<bool, postrider_account::Error>) -> Option<bool> {
        match said {
            Ok(is_put) => Some(is_put),
            Err(error) if is_lost(&error) => {
                self.context.journal.metrics.suppression_failures.inc();
                error!(%error, id = %record.id, "a recipient is not suppressed");
                Some(false)
            }
            Err(error) => {
                warn!(%error, id = %record.id, "automatic suppression waits");
                None
            }
        }
    }
}

/// Whether an error is about one address or one list; whatever else there is stops all that the
/// store has, and there is nothing to be done but to wait. Files that can not be read are no
/// error here: their rows are taken as there.
fn is_lost(error: &postrider_account::Error) -> bool {
    use StoreError::{Damaged, File, Format, TooLarge};
    use postrider_account::Error::{Full, Store};
    matches!(error, Full { .. } | Store(Format { .. } | TooLarge(_) | File { .. } | Damaged { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;

    use postrider_account::{Audit, AuditFilter, AuditRecord, Settings};
    use postrider_base::{Clock, Random, SimDisk};
    use postrider_mail::{AccountId, BounceKind, Disposition};
    use postrider_store::{Store, Table};

    use crate::follower::TABLE;
    use crate::handle::Events;
    use crate::returned::ReturnedKind;
    use crate::samples::{
        ACCEPTED, accepted, complaint, follow, give_back, late_bounce, message, open, options, outcome, outcomes, take,
    };

    /// More than enough, and paused time flies.
    const PATIENCE: Duration = Duration::from_hours(24);

    fn store(disk: &SimDisk) -> (Store, tempfile::TempDir) {
        let index = tempfile::tempdir().unwrap();
        let options = postrider_store::Options { index_dir: Some(index.path().to_owned()), ..Default::default() };
        (Store::open_with(Arc::new(disk.clone()), Path::new("/store"), options).unwrap(), index)
    }

    fn accounts(store: &Store, max_suppressed: u64) -> Accounts {
        let settings = Settings { max_suppressed, ..Settings::default() };
        Accounts::open(store, &Clock::simulated(ACCEPTED), &Random::seeded(1), &settings).unwrap()
    }

    /// A message of this number to `to`, whose mailbox does not exist.
    async fn bounce_of(events: &Events, number: u8, to: &str) {
        let bounced = Disposition::Bounced(BounceKind::PermanentNoEmail);
        let lsn = u64::from(number) * 2;
        let end = outcomes(lsn + 1, number.into(), vec![outcome(0, ACCEPTED, bounced, "550 5.1.1 unknown")]);
        take(&events.0, vec![accepted(lsn, message(number.into(), &[to])), end]).await;
    }

    async fn until(what: impl Fn() -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("it never happens");
    }

    /// A message of this number to `to`, which is delivered, and what comes back for it.
    async fn returns(events: &Events, number: u8, to: &str, what: ReturnedKind) {
        let lsn = u64::from(number) * 2;
        let end = outcomes(lsn + 1, number.into(), vec![outcome(0, ACCEPTED, Disposition::Delivered, "250 ok")]);
        take(&events.0, vec![accepted(lsn, message(number.into(), &[to])), end]).await;
        give_back(&events.0, number.into(), 0, what).await;
    }

    #[tokio::test]
    async fn what_comes_back_later_suppresses_as_what_is_said_in_the_dialogue() {
        let disk = SimDisk::new();
        let (store, _index) = store(&disk);
        let settings = Settings { global_suppression: true, ..Settings::default() };
        let accounts = Accounts::open(&store, &Clock::simulated(ACCEPTED), &Random::seeded(1), &settings).unwrap();
        let (account, lists) = (AccountId::default(), accounts.suppression());
        let events = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        let scope = Scope::new("test");
        returns(&events, 1, "general@example.net", late_bounce(BounceKind::PermanentGeneral)).await;
        returns(&events, 2, "full@example.net", late_bounce(BounceKind::TransientMailboxFull)).await;
        returns(&events, 3, "content@example.net", complaint("not-spam")).await;
        returns(&events, 4, "gone@example.net", late_bounce(BounceKind::PermanentNoEmail)).await;
        returns(&events, 5, "angry@example.net", complaint("abuse")).await;
        follow(&events, &accounts, &store, "example.org", &scope);
        let reason = |to: &str| lists.get(account, &to.parse().unwrap()).unwrap().map(|entry| entry.reason);
        until(|| reason("angry@example.net").is_some()).await;
        assert_eq!(reason("angry@example.net"), Some(SuppressionReason::Complaint));
        assert_eq!(reason("gone@example.net"), Some(SuppressionReason::Bounce));
        assert_eq!(
            (lists.usage().rows, lists.global().usage().rows),
            (2, 1),
            "no others are, and complaints are of one account"
        );
        scope.close(Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test]
    async fn a_list_that_is_full_does_not_stop_what_comes_behind_it() {
        let disk = SimDisk::new();
        let (store, _index) = store(&disk);
        let settings = Settings { max_suppressed: 1, global_suppression: true, ..Settings::default() };
        let accounts = Accounts::open(&store, &Clock::simulated(ACCEPTED), &Random::seeded(1), &settings).unwrap();
        let (account, list) = (AccountId::default(), accounts.suppression());
        let address = |text: &str| text.parse::<EmailAddress>().unwrap();
        let by_hand = address("by-hand@example.net");
        list.put(account, &by_hand, SuppressionReason::Complaint).await.unwrap();
        let events = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        let scope = Scope::new("test");
        bounce_of(&events, 1, "one@example.net").await;
        follow(&events, &accounts, &store, "example.org", &scope);
        // The other list takes it all the same.
        until(|| list.global().get(&address("one@example.net")).unwrap().is_some()).await;
        let cursors: Table<String, Cursor> = store.table(TABLE);
        until(|| cursors.get(&"suppression".to_owned()).unwrap().is_some()).await;
        assert_eq!(list.get(account, &address("one@example.net")).unwrap(), None);
        assert_eq!(events.0.metrics.suppression_failures.get(), 1);
        list.delete(account, &by_hand).await.unwrap();
        bounce_of(&events, 2, "two@example.net").await;
        until(|| list.get(account, &address("two@example.net")).unwrap().is_some()).await;
        scope.close(Duration::from_secs(10)).await.unwrap();
    }

    #[test]
    fn only_a_store_that_takes_nothing_is_waited_for() {
        let file = StoreError::File { path: "run".to_owned(), reason: "damaged".to_owned() };
        assert!(is_lost(&file.into()));
        assert!(is_lost(&postrider_account::Error::Full { setting: "max_suppressed", bound: 1 }));
        assert!(is_lost(&StoreError::TooLarge("a key").into()));
        let failed = StoreError::Log(postrider_wal::Error::Poisoned("no disk".to_owned()));
        assert!(!is_lost(&failed.into()));
    }

    #[tokio::test]
    async fn what_was_added_is_one_record_of_the_audit_log() {
        let disk = SimDisk::new();
        let (store, _index) = store(&disk);
        let clock = Clock::simulated(ACCEPTED);
        let log =
            Audit::open(Arc::new(disk.clone()), Path::new("/audit"), &clock, &Random::seeded(2), &Settings::default());
        let accounts = accounts(&store, 100).with_audit(log.unwrap());
        let events = open(options(&disk, clock)).await;
        let scope = Scope::new("test");
        follow(&events, &accounts, &store, "example.org", &scope);
        for number in 1..=6 {
            // The first bounces twice, and is put once.
            let gone = format!("gone-{}@example.net", number.max(2));
            bounce_of(&events, number, &gone).await;
            let gone = gone.parse().unwrap();
            until(|| accounts.suppression().get(AccountId::default(), &gone).unwrap().is_some()).await;
        }
        scope.close(Duration::from_secs(10)).await.unwrap();
        let mut counts = Vec::new();
        let mut each = |record: AuditRecord| {
            counts.push(record.request_parameters["count"].clone());
            std::ops::ControlFlow::Continue(())
        };
        accounts.audit().read(&AuditFilter::default(), &mut each).unwrap();
        assert_eq!(counts, [5]);
    }

    #[tokio::test]
    async fn sets_accounts_and_the_global_list_take_what_is_theirs() {
        let disk = SimDisk::new();
        let (store, _index) = store(&disk);
        let settings = Settings { global_suppression: true, ..Settings::default() };
        let accounts = Accounts::open(&store, &Clock::simulated(ACCEPTED), &Random::seeded(1), &settings).unwrap();
        let (account, lists) = (AccountId::default(), accounts.suppression());
        // Messages of the samples have this set.
        accounts.configuration_sets().create(account, "ConfigSet", vec![]).await.unwrap();
        let events = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        let scope = Scope::new("test");
        follow(&events, &accounts, &store, "example.org", &scope);
        let is_listed = |text: &str| lists.get(account, &text.parse().unwrap()).unwrap().is_some();
        let is_global = |text: &str| lists.global().get(&text.parse().unwrap()).unwrap().is_some();
        let off = BTreeSet::new();
        accounts
            .configuration_sets()
            .change(account, "ConfigSet", |set| set.suppressed_reasons = Some(off))
            .await
            .unwrap();
        bounce_of(&events, 1, "off@example.net").await;
        until(|| is_global("off@example.net")).await;
        assert!(!is_listed("off@example.net"), "the set adds nothing");
        accounts.configuration_sets().change(account, "ConfigSet", |set| set.suppressed_reasons = None).await.unwrap();
        bounce_of(&events, 2, "gone@example.net").await;
        until(|| is_global("gone@example.net")).await;
        assert!(is_listed("gone@example.net"), "the account's reasons hold");
        scope.close(Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test]
    async fn the_simulator_adds_to_no_list() {
        let disk = SimDisk::new();
        let (store, _index) = store(&disk);
        let settings = Settings { global_suppression: true, ..Settings::default() };
        let accounts = Accounts::open(&store, &Clock::simulated(ACCEPTED), &Random::seeded(1), &settings).unwrap();
        let events = open(options(&disk, Clock::simulated(ACCEPTED))).await;
        let scope = Scope::new("test");
        follow(&events, &accounts, &store, "example.org", &scope);
        let lists = accounts.suppression();
        bounce_of(&events, 1, "bounce@simulator.amazonses.com").await;
        bounce_of(&events, 2, "bounce@simulator.example.org").await;
        bounce_of(&events, 3, "gone@example.net").await;
        until(|| lists.usage().rows > 0).await;
        until(|| lists.global().usage().rows > 0).await;
        assert_eq!((lists.usage().rows, lists.global().usage().rows), (1, 1));
        scope.close(Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test]
    async fn a_journal_made_anew_is_read_from_its_beginning() {
        let (disk, renewed) = (SimDisk::new(), SimDisk::new());
        let (store, _index) = store(&disk);
        let accounts = accounts(&store, 100);
        for (disk, numbers) in [(&disk, 1..9), (&renewed, 11..13)] {
            let events = open(options(disk, Clock::simulated(ACCEPTED))).await;
            let scope = Scope::new("test");
            let address = |number: u8| format!("gone-{number}@example.net");
            bounce_of(&events, numbers.start, &address(numbers.start)).await;
            follow(&events, &accounts, &store, "example.org", &scope);
            for number in numbers.clone().skip(1) {
                bounce_of(&events, number, &address(number)).await;
            }
            for number in numbers {
                let address = address(number).parse().unwrap();
                until(|| accounts.suppression().get(AccountId::default(), &address).unwrap().is_some()).await;
            }
            scope.close(Duration::from_secs(10)).await.unwrap();
            events.close().await.unwrap();
        }
    }
}
