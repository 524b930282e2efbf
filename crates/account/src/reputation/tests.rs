//! What is counted over restarts, and from when on.

use std::time::Duration;

use postrider_base::{Clock, Random, SimDisk, Timestamp};
use postrider_mail::AccountId;
use postrider_store::{Batch, Store, Table};

use crate::samples;
use crate::{
    Accounts, Counted, Counts, EnforcementStatus, Error, Pause, PausedBy, ReputationSettings, Sender, Sending,
    Settings, Situation, Tally,
};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct World {
    store: Store,
    clock: Clock,
    _index: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (store, index) = samples::store(&SimDisk::new());
        Self { store, clock: Clock::simulated(START), _index: index }
    }

    /// As after a start: what was not written is forgotten.
    fn open(&self) -> Accounts {
        let reputation = ReputationSettings { volume: 1000, min_sample: 100, ..ReputationSettings::default() };
        let settings = Settings { reputation, ..Settings::default() };
        Accounts::open(&self.store, &self.clock, &Random::seeded(7), &settings).unwrap()
    }

    fn cursors(&self) -> Table<String, u64> {
        self.store.table("cursors")
    }

    /// Writes the counts together with a place.
    async fn save(&self, accounts: &Accounts, place: u64) {
        let mut batch = Batch::new();
        batch.put(&self.cursors(), &"place".to_owned(), &place).unwrap();
        accounts.reputation().save(batch).await.unwrap();
    }
}

fn me() -> Sender {
    Sender::account(AccountId::default())
}

fn news() -> Sender {
    Sender::set(AccountId::default(), "news")
}

fn at(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

/// Something about a message of the set news, accepted at that time.
fn of(accepted_at: Timestamp, what: Counts, count: u32) -> Counted<'static> {
    Counted { account: AccountId::default(), set: Some("news"), accepted_at, at: at(100), what, count }
}

fn tally(accounts: &Accounts, sender: &Sender) -> Tally {
    accounts.reputation().tally(sender, at(100))
}

fn by(by: PausedBy, reason: &str) -> Sending {
    Sending::Paused(Pause { by, at: START, reason: reason.to_owned(), hold: false })
}

#[tokio::test]
async fn counts_and_the_place_that_they_are_of_are_written_together() {
    let world = World::new();
    let accounts = world.open();
    accounts.reputation().count(&of(START, Counts::Fine, 9));
    assert_eq!(accounts.reputation().unsaved(), 1);
    world.save(&accounts, 1).await;
    accounts.reputation().count(&of(START, Counts::Bounced, 1));
    assert_eq!(tally(&accounts, &me()), Tally { recipients: 10, bounces: 1, complaints: 0 });
    // After a crash, what comes behind the place is counted again.
    let accounts = world.open();
    assert_eq!(world.cursors().get(&"place".to_owned()).unwrap(), Some(1));
    assert_eq!(tally(&accounts, &me()), Tally { recipients: 9, bounces: 0, complaints: 0 });
    accounts.reputation().count(&of(START, Counts::Bounced, 1));
    world.save(&accounts, 2).await;
    assert_eq!(accounts.reputation().unsaved(), 0);
    assert_eq!(tally(&world.open(), &me()), Tally { recipients: 10, bounces: 1, complaints: 0 });
}

#[tokio::test]
async fn a_save_that_is_dropped_has_saved_nothing() {
    let world = World::new();
    let accounts = world.open();
    accounts.reputation().count(&of(START, Counts::Fine, 9));
    tokio::select! {
        biased;
        () = world.save(&accounts, 1) => panic!("it writes without a wait"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(accounts.reputation().unsaved(), 1);
    world.save(&accounts, 2).await;
    assert_eq!(accounts.reputation().unsaved(), 0);
    assert_eq!(tally(&world.open(), &me()), Tally { recipients: 9, bounces: 0, complaints: 0 });
}

#[tokio::test]
async fn only_sets_that_ask_for_it_have_rates_of_their_own() {
    let world = World::new();
    let accounts = world.open();
    accounts.reputation().count(&of(START, Counts::Bounced, 1));
    let sets = accounts.configuration_sets();
    sets.create(AccountId::default(), "news", Vec::new()).await.unwrap();
    accounts.reputation().count(&of(START, Counts::Bounced, 1));
    sets.change(AccountId::default(), "news", |set| set.reputation_metrics = true).await.unwrap();
    accounts.reputation().count(&of(START, Counts::Fine, 1));
    assert_eq!(tally(&accounts, &me()), Tally { recipients: 3, bounces: 2, complaints: 0 });
    assert_eq!(tally(&accounts, &news()), Tally { recipients: 1, bounces: 0, complaints: 0 });
    assert_eq!(accounts.reputation().senders(), [me(), news()]);
    sets.delete(AccountId::default(), "news").await.unwrap();
    world.save(&accounts, 1).await;
    accounts.reputation().tidy(at(100)).await.unwrap();
    assert_eq!(accounts.reputation().senders(), [me()]);
    assert_eq!(world.open().reputation().senders(), [me()]);
}

#[tokio::test]
async fn a_fresh_start_counts_only_messages_that_are_accepted_after_it() {
    let world = World::new();
    let accounts = world.open();
    let reputation = accounts.reputation();
    reputation.count(&of(at(1), Counts::Bounced, 5));
    world.save(&accounts, 1).await;
    reputation.start_afresh(&me(), at(10)).await.unwrap();
    assert_eq!(tally(&accounts, &me()), Tally::default());
    assert_eq!(tally(&world.open(), &me()), Tally::default());
    reputation.count(&of(at(9), Counts::Bounced, 1));
    assert_eq!(tally(&accounts, &me()), Tally::default());
    reputation.count(&of(at(10), Counts::Bounced, 1));
    assert_eq!(tally(&accounts, &me()), Tally { recipients: 1, bounces: 1, complaints: 0 });
    world.save(&accounts, 2).await;
    assert_eq!(tally(&world.open(), &me()), Tally { recipients: 1, bounces: 1, complaints: 0 });
    assert!(matches!(reputation.start_afresh(&news(), at(10)).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_rule_does_not_take_the_place_of_an_operator_and_to_resume_is_a_fresh_start() {
    let world = World::new();
    let accounts = world.open();
    let reputation = accounts.reputation();
    accounts.configuration_sets().create(AccountId::default(), "news", Vec::new()).await.unwrap();
    for sender in [me(), news()] {
        reputation.set_sending(&sender, by(PausedBy::Operator, "spam"), at(1)).await.unwrap();
        let by_rule =
            async |seen, now| reputation.pause_by_rule(&sender, "bounces".to_owned(), seen, now).await.unwrap();
        assert!(!by_rule(Timestamp::default(), at(2)).await);
        assert_eq!(reputation.pause_of(&sender).unwrap().reason, "spam");
        assert_eq!(reputation.fresh_start(&sender), Timestamp::default());
        reputation.set_sending(&sender, Sending::Enabled, at(3)).await.unwrap();
        assert_eq!((reputation.pause_of(&sender), reputation.fresh_start(&sender)), (None, at(3)));
        assert!(!by_rule(Timestamp::default(), at(4)).await, "by rates that count no more");
        assert_eq!(reputation.pause_of(&sender), None);
        assert!(by_rule(at(3), at(4)).await);
        let pause = reputation.pause_of(&sender).unwrap();
        assert_eq!((pause.by, pause.at, pause.hold), (PausedBy::Rule, at(4), false));
    }
    let unknown = Sender::set(AccountId::default(), "nobodys");
    let refused = reputation.set_sending(&unknown, Sending::Enabled, at(3)).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
}

#[tokio::test]
async fn where_a_sender_stands_is_kept() {
    let world = World::new();
    let accounts = world.open();
    let reputation = accounts.reputation();
    let situation = Situation {
        tally: Tally { recipients: 100, bounces: 6, complaints: 0 },
        paused_by: None,
        auto_pause: false,
        fresh_start: Timestamp::default(),
        now: START,
    };
    let step = reputation.standing(&me()).step(&situation, reputation.settings());
    assert_eq!(step.standing.status, EnforcementStatus::UnderReview);
    reputation.stand(&me(), &step.standing).await.unwrap();
    assert_eq!(world.open().reputation().standing(&me()), step.standing);
    // Nothing counts any more, but the review is not over.
    reputation.tidy(START).await.unwrap();
    assert_eq!(world.open().reputation().standing(&me()), step.standing);
}
