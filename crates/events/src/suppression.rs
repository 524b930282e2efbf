//! Automatic suppression: an address whose mailbox a server said does not exist gets no more mail
//! of its account, as far as the account and the configuration set want that; nor, for some days,
//! of any other.

use std::time::Duration;

use postrider_account::{Accounts, ConfigurationSet};
use postrider_base::{Metrics, Scope};
use postrider_mail::{AccountId, EmailAddress, SuppressionReason, is_simulator};
use postrider_store::{Error as StoreError, Store, Table};
use serde::Deserialize;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::error::Result;
use crate::handle::Events;
use crate::reader::Reader;
use crate::record::{Cursor, Kind, Line};

/// Name of the table that holds how far readers of the journal have come.
pub(crate) const TABLE: &str = "journal-cursors";

/// Events after which the place is kept although nothing came of them: a sync is dearer than
/// reading as many again at the next start.
const SAVE_EVERY: usize = 10_000;

/// Between two attempts to record a bounce.
const PAUSE: Duration = Duration::from_secs(5);

/// How often a file is tried that can not be read: the disk may recover, but a damaged block
/// must not end the suppression of all other addresses.
const TRIES: u32 = 3;

/// For how long addresses that were added are gathered into one record of the audit log:
/// changes by people must not be lost among those of the relay.
const GATHER: Duration = Duration::from_mins(10);

/// This reader's row in it.
const READER: &str = "suppression";

/// Between two looks for entries that have had their time. Nothing depends on it but space.
const SWEEP_EVERY: Duration = Duration::from_hours(6);

/// How often entries are counted for the metrics in that time: twice a minute.
const COUNTS_PER_SWEEP: u32 = 720;

impl Events {
    /// Starts to put the recipients of hard bounces on their account's suppression list and on
    /// the global one, and to remove what has had its time there, until the scope ends. It goes
    /// on where the last run ended; telling the lists of a bounce twice changes nothing.
    /// `operator_domain` is where the mailbox simulator is, whose bounces count for nothing.
    ///
    /// # Errors
    /// When the store can not be read.
    pub fn suppress(
        &self,
        accounts: &Accounts,
        store: &Store,
        operator_domain: &str,
        scope: &Scope,
    ) -> std::result::Result<(), StoreError> {
        let cursors: Table<String, Cursor> = store.table(TABLE);
        let start = self.start_of(READER, &cursors)?;
        let operator_domain = operator_domain.to_owned();
        let metrics = self.0.metrics.clone();
        let mut suppressor =
            Suppressor { accounts: accounts.clone(), operator_domain, cursors, metrics, bounced: 0, unsaved: 0 };
        let reader = self.since(start);
        let (lists, metrics, ended) = (accounts.clone(), self.0.metrics.clone(), scope.clone());
        scope.spawn("suppression entries", async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = tend(&lists, &metrics) => {}
            }
        });
        let ended = scope.clone();
        scope.spawn("suppression", async move {
            tokio::select! {
                () = ended.cancelled() => {}
                result = suppressor.run(reader) => {
                    if let Err(error) = result {
                        error!(%error, "automatic suppression has stopped until the next start");
                    }
                }
            }
            suppressor.audit().await;
        });
        Ok(())
    }
}

/// Removes what has had its time, and counts what there is.
async fn tend(accounts: &Accounts, metrics: &Metrics) {
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
            tokio::time::sleep(SWEEP_EVERY / COUNTS_PER_SWEEP).await;
        }
    }
}

struct Suppressor {
    accounts: Accounts,
    operator_domain: String,
    cursors: Table<String, Cursor>,
    metrics: Metrics,
    /// Recipients of hard bounces that the audit log does not have.
    bounced: u64,
    /// Events since the place was kept.
    unsaved: usize,
}

impl Suppressor {
    async fn run(&mut self, mut reader: Reader) -> Result<()> {
        let mut audit = tokio::time::interval(GATHER);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                lines = reader.follow_on("automatic suppression") => self.take_all(&lines?).await,
                _ = audit.tick() => self.audit().await,
            }
        }
    }

    async fn take_all(&mut self, lines: &[Line]) {
        let mut bounced = 0;
        for line in lines.iter().filter(|line| line.kind == Kind::Bounce) {
            let recipients = self.take(line).await;
            bounced += recipients;
            self.bounced += recipients;
        }
        self.unsaved += lines.len();
        let Some(last) = lines.last().filter(|_| bounced > 0 || self.unsaved >= SAVE_EVERY) else { return };
        self.unsaved = 0;
        if let Err(error) = self.cursors.put(&READER.to_owned(), &last.cursor).await {
            warn!(%error, "the place in the journal is not kept");
        }
    }

    /// One record for what came together.
    async fn audit(&mut self) {
        let count = std::mem::take(&mut self.bounced);
        if count > 0 {
            let parameters = serde_json::json!({ "reason": "BOUNCE", "count": count });
            self.accounts.audit().by_relay("suppression", "PutSuppressedDestination", parameters).await;
        }
    }

    /// How many recipients the event was a hard bounce of.
    async fn take(&self, line: &Line) -> u64 {
        let Some(bounce) = hard_bounce(&line.json) else { return 0 };
        let is_real = |address: &&EmailAddress| !is_simulator(address.domain(), &self.operator_domain);
        let mut count = 0;
        for address in bounce.recipients.iter().filter(is_real) {
            self.record(&bounce, address, line).await;
            count += 1;
        }
        count
    }

    /// Tells both lists, each by itself: one that is full or damaged is not the other's affair.
    async fn record(&self, bounce: &HardBounce, address: &EmailAddress, line: &Line) {
        let lists = self.accounts.suppression();
        let set = bounce.set.as_ref().and_then(|name| self.accounts.configuration_sets().find(bounce.account, name));
        let reasons = set.as_deref().and_then(|set: &ConfigurationSet| set.suppressed_reasons.as_ref());
        self.until_told(line, || lists.record(bounce.account, reasons, address, SuppressionReason::Bounce, line.at))
            .await;
        self.until_told(line, || lists.record_globally(address, line.at)).await;
    }

    /// Tells a list until it knows, since what is passed over is never looked at again; but no
    /// longer than others can wait for this one address.
    async fn until_told<F>(&self, line: &Line, tell: impl Fn() -> F)
    where
        F: Future<Output = std::result::Result<bool, postrider_account::Error>>,
    {
        for tries in 1.. {
            match tell().await {
                Ok(_) => return,
                Err(error) if is_lost(&error, tries) => {
                    self.metrics.suppression_failures.inc();
                    return error!(%error, id = %line.id, "the recipient of a hard bounce is not suppressed");
                }
                Err(error) => warn!(%error, id = %line.id, "automatic suppression waits"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether an error is about one address or one list and does not pass soon; whatever else
/// there is stops all that the store has, and there is nothing to be done but to wait.
fn is_lost(error: &postrider_account::Error, tries: u32) -> bool {
    use postrider_account::Error::{Full, Store};
    match error {
        Full { .. } | Store(StoreError::Format { .. } | StoreError::TooLarge(_)) => true,
        Store(StoreError::File { .. }) => tries >= TRIES,
        _ => false,
    }
}

#[derive(Debug, PartialEq)]
struct HardBounce {
    account: AccountId,
    /// The message's configuration set.
    set: Option<String>,
    recipients: Vec<EmailAddress>,
}

/// Only a reply that calls the mailbox unknown (`NoEmail`) suppresses: every other permanent
/// failure may be about the message or about us.
fn hard_bounce(json: &[u8]) -> Option<HardBounce> {
    let event: Event = serde_json::from_slice(json).ok()?;
    if event.bounce.bounce_type != "Permanent" || event.bounce.bounce_sub_type != "NoEmail" {
        return None;
    }
    let addresses = event.bounce.bounced_recipients.iter().map(|recipient| recipient.email_address.parse());
    Some(HardBounce {
        account: event.mail.sending_account_id.parse().ok()?,
        set: event.mail.tags.configuration_set.into_iter().next(),
        recipients: addresses.flatten().collect(),
    })
}

/// What is read of an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    bounce: Bounce,
    mail: Mail,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounce {
    bounce_type: String,
    bounce_sub_type: String,
    bounced_recipients: Vec<Bounced>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounced {
    email_address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail {
    sending_account_id: String,
    #[serde(default)]
    tags: Tags,
}

#[derive(Default, Deserialize)]
struct Tags {
    #[serde(default, rename = "ses:configuration-set")]
    configuration_set: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;

    use postrider_account::{Audit, AuditFilter, AuditRecord, Settings};
    use postrider_base::{Clock, Random, SimDisk};
    use postrider_mail::{BounceKind, Disposition, SuppressionReason};

    use crate::samples::{ACCEPTED, accepted, message, open, options, outcome, outcomes, take};

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
        events.suppress(&accounts, &store, "example.org", &scope).unwrap();
        // The other list takes it all the same.
        until(|| list.global().get(&address("one@example.net")).unwrap().is_some()).await;
        let cursors: Table<String, Cursor> = store.table(TABLE);
        until(|| cursors.get(&READER.to_owned()).unwrap().is_some()).await;
        assert_eq!(list.get(account, &address("one@example.net")).unwrap(), None);
        assert_eq!(events.0.metrics.suppression_failures.get(), 1);
        list.delete(account, &by_hand).await.unwrap();
        bounce_of(&events, 2, "two@example.net").await;
        until(|| list.get(account, &address("two@example.net")).unwrap().is_some()).await;
        scope.close(Duration::from_secs(10)).await.unwrap();
    }

    #[test]
    fn only_a_store_that_takes_nothing_is_waited_for() {
        let file = || StoreError::File { path: "run".to_owned(), reason: "damaged".to_owned() }.into();
        assert!(!is_lost(&file(), 1), "the disk may recover");
        assert!(is_lost(&file(), TRIES));
        assert!(is_lost(&postrider_account::Error::Full { setting: "max_suppressed", bound: 1 }, 1));
        assert!(is_lost(&StoreError::TooLarge("a key").into(), 1));
        let failed = StoreError::Log(postrider_wal::Error::Poisoned("no disk".to_owned()));
        assert!(!is_lost(&failed.into(), 1_000));
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
        events.suppress(&accounts, &store, "example.org", &scope).unwrap();
        for number in 1..6 {
            let gone = format!("gone-{number}@example.net");
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
        events.suppress(&accounts, &store, "example.org", &scope).unwrap();
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
        events.suppress(&accounts, &store, "example.org", &scope).unwrap();
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
            events.suppress(&accounts, &store, "example.org", &scope).unwrap();
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

    fn bounce(kind: &str, sub_type: &str) -> String {
        format!(
            r#"{{"eventType":"Bounce","bounce":{{"bounceType":"{kind}","bounceSubType":"{sub_type}","bouncedRecipients":[{{"emailAddress":"gone@example.com","action":"failed"}}]}},"mail":{{"sendingAccountId":"000000000001"}}}}"#
        )
    }

    #[test]
    fn only_unknown_mailboxes_are_hard() {
        let hard = hard_bounce(bounce("Permanent", "NoEmail").as_bytes()).unwrap();
        assert_eq!(hard.account, AccountId::default());
        assert_eq!(hard.recipients, ["gone@example.com".parse().unwrap()]);
        for (kind, sub_type) in
            [("Permanent", "General"), ("Permanent", "OnAccountSuppressionList"), ("Transient", "MailboxFull")]
        {
            assert_eq!(hard_bounce(bounce(kind, sub_type).as_bytes()), None);
        }
    }

    #[test]
    fn other_events_and_rubbish_are_not() {
        assert_eq!(hard_bounce(br#"{"eventType":"Send","mail":{"sendingAccountId":"000000000001"}}"#), None);
        assert_eq!(hard_bounce(b"{"), None);
    }
}
