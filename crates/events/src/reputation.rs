//! Counts what became of recipients for the reputation of their senders: hard bounces and
//! complaints against all that came to an end.

use std::borrow::Cow;
use std::time::Duration;

use postrider_account::{Accounts, Counted, Counts};
use postrider_base::{Clock, Scope};
use postrider_mail::{AccountId, EmailAddress, is_simulator};
use postrider_store::{Batch, Error as StoreError, Store, Table};
use serde::Deserialize;
use tracing::{error, warn};

use crate::error::Result;
use crate::handle::Events;
use crate::reader::Reader;
use crate::record::{Cursor, Kind, Line};
use crate::suppression::TABLE;

/// This reader's row in it.
const READER: &str = "reputation";

/// What was counted is written at the latest after so many events ...
const SAVE_EVERY: usize = 10_000;
/// ... so many senders, which take 1 KiB each in a batch of the store, 4 at the widest settings ...
const SAVE_SENDERS: usize = 500;
/// ... and so long.
const SAVE_AFTER: Duration = Duration::from_secs(10);
/// How often senders are forgotten of whom nothing counts any more.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// Between two attempts to write.
const PAUSE: Duration = Duration::from_secs(5);

impl Events {
    /// Starts to count outcomes for [`postrider_account::Reputation`], until the scope ends.
    /// It goes on where the last run's last write ended, whose counts are of exactly what
    /// comes before. `operator_domain` is where the mailbox simulator is.
    ///
    /// # Errors
    /// When the store can not be read.
    pub fn count_reputation(
        &self,
        accounts: &Accounts,
        store: &Store,
        operator_domain: &str,
        scope: &Scope,
    ) -> std::result::Result<(), StoreError> {
        let cursors: Table<String, Cursor> = store.table(TABLE);
        let start = self.start_of(READER, &cursors)?;
        let operator_domain = operator_domain.to_owned();
        let (accounts, clock) = (accounts.clone(), self.0.clock.clone());
        let mut counter = Counter { accounts, operator_domain, cursors, clock, last: None, unsaved: 0 };
        let reader = self.since(start);
        let ended = scope.clone();
        scope.spawn("reputation", async move {
            let result = tokio::select! {
                () = ended.cancelled() => Ok(()),
                result = counter.run(reader) => result,
            };
            if let Err(error) = result {
                error!(%error, "nothing is counted for reputations until the next start");
            }
            // What is not written is counted again.
            if let Err(error) = counter.try_save().await {
                warn!(%error, "the last counts of reputations are not kept");
            }
        });
        Ok(())
    }
}

struct Counter {
    accounts: Accounts,
    operator_domain: String,
    cursors: Table<String, Cursor>,
    clock: Clock,
    /// The last event that is counted.
    last: Option<Cursor>,
    /// Events since the last write.
    unsaved: usize,
}

impl Counter {
    async fn run(&mut self, mut reader: Reader) -> Result<()> {
        let mut save = tokio::time::interval(SAVE_AFTER);
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        loop {
            tokio::select! {
                lines = reader.follow_on("reputations") => {
                    for line in lines? {
                        self.take(&line);
                        if self.unsaved >= SAVE_EVERY || self.accounts.reputation().unsaved() >= SAVE_SENDERS {
                            self.save().await;
                        }
                    }
                }
                _ = save.tick() => self.save().await,
                _ = tidy.tick() => {
                    self.save().await;
                    if let Err(error) = self.accounts.reputation().tidy(self.clock.now()).await {
                        warn!(%error, "reputations that say nothing any more are kept");
                    }
                }
            }
        }
    }

    fn take(&mut self, line: &Line) {
        self.last = Some(line.cursor);
        self.unsaved += 1;
        let Some(ended) = Ended::of(line) else { return };
        let count = ended.recipients.iter().filter(|recipient| self.counts(ended.account, recipient)).count();
        if count > 0 {
            self.accounts.reputation().count(&Counted {
                account: ended.account,
                set: ended.set.as_deref(),
                accepted_at: line.id.timestamp(),
                at: line.at,
                what: ended.what,
                count: u32::try_from(count).unwrap_or(u32::MAX),
            });
        }
    }

    /// Mail to the simulator and to the sender's own addresses says nothing about a list, and
    /// must not make one look better.
    fn counts(&self, account: AccountId, recipient: &EmailAddress) -> bool {
        let is_own = || {
            let identity = self.accounts.identities().resolve(account, recipient);
            identity.is_some_and(|identity| identity.is_verified())
        };
        !is_simulator(recipient.domain(), &self.operator_domain) && !is_own()
    }

    /// Until it is written: nothing more is counted meanwhile.
    async fn save(&mut self) {
        while let Err(error) = self.try_save().await {
            warn!(%error, "counting of reputations waits");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_save(&mut self) -> std::result::Result<(), postrider_account::Error> {
        let reputation = self.accounts.reputation();
        // To pass over events that do not count is cheaper than a sync.
        let is_worth_it = self.unsaved >= SAVE_EVERY || reputation.unsaved() > 0;
        let Some(last) = self.last.filter(|_| is_worth_it) else { return Ok(()) };
        let mut batch = Batch::new();
        batch.put(&self.cursors, &READER.to_owned(), &last)?;
        reputation.save(batch).await?;
        self.unsaved = 0;
        Ok(())
    }
}

/// Recipients that have come to an end.
#[derive(Debug, PartialEq)]
struct Ended {
    account: AccountId,
    set: Option<String>,
    what: Counts,
    recipients: Vec<EmailAddress>,
}

impl Ended {
    /// `None` for every event that is none, or does not count: an address on the account's own
    /// suppression list has not been written to.
    fn of(line: &Line) -> Option<Self> {
        if !matches!(line.kind, Kind::Delivery | Kind::Bounce | Kind::Complaint) {
            return None;
        }
        let event: Event<'_> = serde_json::from_slice(&line.json).ok()?;
        let (what, recipients) = match (event.delivery, event.bounce, event.complaint) {
            (Some(delivery), None, None) => (Counts::Fine, delivery.recipients),
            (None, Some(bounce), None) => (bounce.counts()?, addresses(bounce.bounced_recipients)),
            (None, None, Some(complaint)) if !complaint.is_of_list() => {
                (Counts::Complained, addresses(complaint.complained_recipients))
            }
            _ => return None,
        };
        Some(Self {
            account: event.mail.sending_account_id.parse().ok()?,
            set: event.mail.tags.set.and_then(|mut set| set.pop()),
            what,
            recipients: recipients.iter().filter_map(|recipient| recipient.parse().ok()).collect(),
        })
    }
}

fn addresses(concerned: Vec<Concerned>) -> Vec<String> {
    concerned.into_iter().map(|recipient| recipient.email_address).collect()
}

/// What is read of an event.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    mail: Mail<'a>,
    delivery: Option<Delivery>,
    bounce: Option<Bounce>,
    complaint: Option<Complaint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail<'a> {
    #[serde(borrow)]
    sending_account_id: Cow<'a, str>,
    #[serde(default)]
    tags: Tags,
}

#[derive(Default, Deserialize)]
struct Tags {
    #[serde(rename = "ses:configuration-set")]
    set: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Delivery {
    recipients: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounce {
    bounce_type: String,
    bounce_sub_type: String,
    bounced_recipients: Vec<Concerned>,
}

impl Bounce {
    /// Hard bounces count, those of the global suppression list too. What blocks our addresses
    /// or is temporary bounces softly.
    fn counts(&self) -> Option<Counts> {
        match (self.bounce_type.as_str(), self.bounce_sub_type.as_str()) {
            ("Permanent", ON_LIST) => None,
            ("Permanent", _) => Some(Counts::Bounced),
            _ => Some(Counts::Fine),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Complaint {
    complained_recipients: Vec<Concerned>,
    complaint_sub_type: Option<String>,
}

impl Complaint {
    fn is_of_list(&self) -> bool {
        self.complaint_sub_type.as_deref() == Some(ON_LIST)
    }
}

const ON_LIST: &str = "OnAccountSuppressionList";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Concerned {
    email_address: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;

    use postrider_account::{Identity, Sender, Settings, Tally, Verification};
    use postrider_base::{Random, SimDisk, Timestamp};
    use postrider_mail::{BounceKind, Disposition, SuppressionList, SuppressionReason, SuppressionSource};

    use crate::samples::{ACCEPTED, accepted, message, open, options, outcome, outcomes, take};

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
            self.events.count_reputation(&self.accounts, &self.store, "relay.example.org", &self.scope).unwrap();
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

    fn line(kind: Kind, json: &str) -> Line {
        let id = crate::samples::id(1);
        Line { cursor: Cursor::default(), at: ACCEPTED, kind, id, json: json.to_owned().into() }
    }

    #[test]
    fn a_real_complaint_is_one_and_rubbish_is_nothing() {
        let complaint = |more: &str| {
            let json = format!(
                r#"{{"eventType":"Complaint","mail":{{"sendingAccountId":"000000000001","headers":[{{"name":"x","value":"y\"z"}}],"tags":{{}}}},"complaint":{{"complainedRecipients":[{{"emailAddress":"a@example.net"}}]{more}}}}}"#
            );
            Ended::of(&line(Kind::Complaint, &json))
        };
        let ended = complaint("").unwrap();
        assert_eq!((ended.what, ended.recipients.len(), ended.set), (Counts::Complained, 1, None));
        assert_eq!(complaint(r#","complaintSubType":null"#).map(|ended| ended.what), Some(Counts::Complained));
        assert_eq!(complaint(r#","complaintSubType":"OnAccountSuppressionList""#), None);
        assert_eq!(Ended::of(&line(Kind::Bounce, "{")), None);
        assert_eq!(Ended::of(&line(Kind::Bounce, r#"{"mail":{"sendingAccountId":"x"},"bounce":{}}"#)), None);
        assert_eq!(Ended::of(&line(Kind::Send, "{}")), None);
    }
}
