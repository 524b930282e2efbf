//! The ladder as it is climbed, in simulated time.

use postrider_account::{ConfigurationOption, Counted, Counts, EnforcementStatus, PausedBy, Sender, Sending, Tally};
use postrider_base::metrics::Enforcement;
use postrider_mail::AccountId;

use crate::tests::World;

fn me() -> Sender {
    Sender::account(AccountId::default())
}

fn news() -> Sender {
    Sender::set(AccountId::default(), "news")
}

/// Counts recipients of messages that are accepted now.
fn count(world: &World, set: Option<&str>, what: Counts, count: u32) {
    let now = world.clock.now();
    let account = AccountId::default();
    world.accounts.reputation().count(&Counted { account, set, accepted_at: now, at: now, what, count });
}

fn status(world: &World, sender: &Sender) -> EnforcementStatus {
    world.accounts.reputation().standing(sender).status
}

/// Who was mailed, and about what.
async fn subjects(world: &World) -> Vec<(String, String)> {
    let mails = world.mails().await.into_iter().map(|(to, mail)| {
        let subject = mail.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned();
        (to, subject)
    });
    mails.collect()
}

async fn world(auto_pause: bool) -> World {
    let world = World::new().await;
    let owner = Some("owner@example.com".parse().unwrap());
    let change = |tenant: &mut postrider_account::Tenant| (tenant.auto_pause, tenant.contact) = (auto_pause, owner);
    world.accounts.tenants().change(AccountId::default(), change).await.unwrap();
    world
}

async fn with_set(auto_pause: bool) -> World {
    let world = world(auto_pause).await;
    let options = vec![ConfigurationOption::ReputationMetrics(true)];
    world.accounts.configuration_sets().create(AccountId::default(), "news", options).await.unwrap();
    world
}

#[tokio::test(start_paused = true)]
async fn rules_only_tell_people_and_each_thing_once() {
    let world = world(false).await;
    count(&world, None, Counts::Fine, 980);
    count(&world, None, Counts::Bounced, 19);
    world.pass(0).await;
    assert_eq!(subjects(&world).await, [], "too few recipients");
    count(&world, None, Counts::Bounced, 1);
    world.pass(1).await;
    let about = |what: &str| {
        let subject = format!("account 000000000001 {what}");
        [("operator@example.net".to_owned(), subject.clone()), ("owner@example.com".to_owned(), subject)]
    };
    assert_eq!(subjects(&world).await, about("has a high rate of bounces or complaints"));
    count(&world, None, Counts::Bounced, 40);
    world.pass(1).await;
    assert_eq!(subjects(&world).await, about("is under review"));
    assert_eq!(status(&world, &me()), EnforcementStatus::UnderReview);
    count(&world, None, Counts::Bounced, 70);
    world.pass(1).await;
    assert_eq!(subjects(&world).await, about("should be paused"));
    world.pass(24).await;
    assert_eq!(subjects(&world).await, []);
    assert_eq!(world.accounts.tenants().find(AccountId::default()).sending, Sending::Enabled);
    assert_eq!(world.metrics.reputation_accounts.of(Enforcement::PendingSendingPause).get(), 1);
    let metrics = world.metrics.encode();
    let gauge = "postrider_reputation_bounce_rate{account=\"000000000001\",configuration_set=\"\"} 0.117";
    assert!(metrics.contains(gauge), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn complaints_and_late_bounces_climb_the_ladder_too() {
    let world = world(true).await;
    count(&world, None, Counts::Fine, 2000);
    world.pass(1).await;
    assert_eq!((status(&world, &me()), subjects(&world).await.len()), (EnforcementStatus::Healthy, 0));
    count(&world, None, Counts::Complained, 2);
    world.pass(1).await;
    assert_eq!((status(&world, &me()), subjects(&world).await.len()), (EnforcementStatus::UnderReview, 2));
    count(&world, None, Counts::Returned, 199);
    world.pass(1).await;
    assert_eq!(status(&world, &me()), EnforcementStatus::UnderReview);
    count(&world, None, Counts::Complained, 8);
    world.pass(1).await;
    let pause = world.accounts.reputation().pause_of(&me()).unwrap();
    assert_eq!(pause.reason, "199 hard bounces and 10 complaints among the last 2000 recipients");
    let metrics = world.metrics.encode();
    let gauge = "postrider_reputation_complaint_rate{account=\"000000000001\",configuration_set=\"\"} 0.005";
    assert!(metrics.contains(gauge), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_says_so_is_paused_and_stays_so_until_a_person_resumes_it() {
    let world = world(true).await;
    count(&world, None, Counts::Fine, 900);
    count(&world, None, Counts::Bounced, 100);
    world.pass(1).await;
    let pause = world.accounts.reputation().pause_of(&me()).unwrap();
    assert_eq!((pause.by, pause.hold), (PausedBy::Rule, false));
    assert_eq!(pause.reason, "100 hard bounces among the last 1000 recipients");
    assert_eq!((status(&world, &me()), subjects(&world).await.len()), (EnforcementStatus::SendingPaused, 2));
    assert_eq!(world.metrics.reputation_pauses.get(), 1);
    world.pass(40 * 24).await;
    assert_eq!(status(&world, &me()), EnforcementStatus::SendingPaused);
    let reputation = world.accounts.reputation();
    reputation.set_sending(&me(), Sending::Enabled, world.clock.now()).await.unwrap();
    world.pass(1).await;
    assert_eq!(reputation.tally(&me(), world.clock.now()), Tally::default());
    assert_eq!((status(&world, &me()), subjects(&world).await.len()), (EnforcementStatus::Healthy, 0));
    assert_eq!(reputation.pause_of(&me()), None);
}

#[tokio::test(start_paused = true)]
async fn a_set_is_paused_before_its_account_and_then_only_if_the_rest_is_bad_too() {
    let world = with_set(true).await;
    count(&world, Some("news"), Counts::Bounced, 600);
    count(&world, Some("news"), Counts::Fine, 400);
    count(&world, None, Counts::Fine, 1000);
    world.pass(1).await;
    let reputation = world.accounts.reputation();
    assert_eq!(reputation.pause_of(&news()).unwrap().by, PausedBy::Rule);
    assert_eq!(reputation.pause_of(&me()), None, "the set alone is to blame");
    let told = subjects(&world).await;
    assert_eq!(told[0].1, "configuration set news of account 000000000001 is paused");
    assert_eq!(told.len(), 2);
    // The rest shows by itself, and it is no better.
    count(&world, None, Counts::Fine, 800);
    count(&world, None, Counts::Bounced, 200);
    world.pass(1).await;
    assert_eq!(reputation.pause_of(&me()).unwrap().by, PausedBy::Rule);
}

#[tokio::test(start_paused = true)]
async fn the_pause_of_a_set_forgives_its_account_nothing_that_comes_later() {
    let world = with_set(true).await;
    // 2 % of the account, and not its pause that is asked for.
    count(&world, Some("news"), Counts::Bounced, 150);
    count(&world, Some("news"), Counts::Fine, 850);
    count(&world, None, Counts::Fine, 6000);
    let queued = world.clock.now();
    world.pass(1).await;
    let reputation = world.accounts.reputation();
    assert!(reputation.pause_of(&news()).is_some());
    subjects(&world).await;
    // What the set had in the queue when it was paused is not held against its account.
    let (account, now) = (AccountId::default(), world.clock.now());
    let late = Counted { account, set: Some("news"), accepted_at: queued, at: now, what: Counts::Bounced, count: 5000 };
    reputation.count(&late);
    world.pass(1).await;
    assert_eq!((reputation.pause_of(&me()), reputation.tally(&me(), now)), (None, Tally::default()));
    world.pass(20 * 24).await;
    count(&world, None, Counts::Fine, 880);
    count(&world, None, Counts::Bounced, 120);
    world.pass(1).await;
    assert_eq!(reputation.pause_of(&me()).unwrap().by, PausedBy::Rule);
    let told = subjects(&world).await;
    assert_eq!(told.first().unwrap().1, "account 000000000001 is paused");
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_which_nobody_was_told_is_told_of_after_a_restart() {
    let world = with_set(true).await;
    count(&world, Some("news"), Counts::Bounced, 1000);
    // As if the process had ended there.
    let reputation = world.accounts.reputation();
    let seen = reputation.fresh_start(&news());
    assert!(reputation.pause_by_rule(&news(), "bounces".to_owned(), seen, world.clock.now()).await.unwrap());
    world.pass(1).await;
    let told = subjects(&world).await;
    assert!(told.iter().any(|(_, subject)| subject == "configuration set news of account 000000000001 is paused"));
    world.pass(1).await;
    let again = subjects(&world).await;
    assert!(!again.iter().any(|(_, subject)| subject.starts_with("configuration set")), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn to_switch_a_set_on_again_is_a_fresh_start_however_it_is_done() {
    let world = with_set(true).await;
    count(&world, Some("news"), Counts::Bounced, 1000);
    world.pass(1).await;
    let reputation = world.accounts.reputation();
    assert!(reputation.pause_of(&news()).is_some());
    let sets = world.accounts.configuration_sets();
    sets.set_sending(AccountId::default(), "news", Sending::Enabled).await.unwrap();
    world.pass(1).await;
    assert_eq!(reputation.tally(&news(), world.clock.now()), Tally::default());
    assert_eq!((status(&world, &news()), reputation.pause_of(&news())), (EnforcementStatus::Healthy, None));
}

#[tokio::test(start_paused = true)]
async fn a_pause_by_hand_is_nobodys_news() {
    let world = with_set(true).await;
    let by_hand = Sending::Paused(postrider_account::Pause {
        by: PausedBy::Operator,
        at: world.clock.now(),
        reason: "moving".to_owned(),
        hold: true,
    });
    let reputation = world.accounts.reputation();
    reputation.set_sending(&news(), by_hand, world.clock.now()).await.unwrap();
    count(&world, Some("news"), Counts::Bounced, 2000);
    world.pass(1).await;
    assert_eq!(reputation.pause_of(&news()).unwrap().by, PausedBy::Operator);
    assert_eq!(status(&world, &news()), EnforcementStatus::SendingPaused);
    let told = subjects(&world).await;
    assert!(told.iter().all(|(_, subject)| subject.starts_with("account ")), "{told:?}");
}
