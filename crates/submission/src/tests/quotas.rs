//! Quotas on the way of a message.

use postrider_account::{CredentialOption, Holder, Identity, Tenant};
use postrider_base::metrics::QuotaBound;

use super::*;

const CONTENT: &str = "From: ann@example.com\r\n\r\nHello\r\n";

async fn bounded(world: &World, daily_quota: Option<u64>, max_rate: Option<u32>) {
    let bounds = |tenant: &mut Tenant| (tenant.daily_quota, tenant.max_rate) = (daily_quota, max_rate);
    world.accounts.tenants().change(AccountId::default(), bounds).await.unwrap();
}

async fn send(world: &World, to: &[&str]) -> Result<(), Refusal> {
    world.submission.submit(request(Some("ann@example.com"), to, &[CONTENT])).await.map(drop)
}

fn sent(world: &World) -> u64 {
    world.accounts.quotas().usage(AccountId::default(), NOW).sent_last_24_hours
}

#[tokio::test(start_paused = true)]
async fn recipients_count_and_those_of_the_simulator_do_not() {
    let world = world().await;
    bounded(&world, Some(3), None).await;
    let simulator = ["success@simulator.amazonses.com", "bounce@simulator.example.net"];
    assert_eq!(send(&world, &["a@example.org", "b@example.org", simulator[0]]).await, Ok(()));
    assert_eq!(send(&world, &["c@example.org", "d@example.org"]).await, Err(Refusal::DailyQuotaExceeded));
    assert_eq!(send(&world, &["c@example.org"]).await, Ok(()));
    assert_eq!(send(&world, &["d@example.org", simulator[1]]).await, Err(Refusal::DailyQuotaExceeded));
    assert_eq!(send(&world, &simulator).await, Ok(()), "it is outside");
    assert_eq!(sent(&world), 3);
    assert_eq!(world.metrics.quota_refused.of(QuotaBound::Daily).get(), 2);
    bounded(&world, Some(4), None).await;
    assert_eq!(send(&world, &["d@example.org"]).await, Ok(()), "a change holds for the next message");
    tokio::time::sleep(Duration::from_secs(24 * 3600 + 60)).await;
    assert_eq!(send(&world, &["e@example.org"]).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn too_fast_is_put_off_until_the_second_is_over() {
    let world = world().await;
    bounded(&world, None, Some(2)).await;
    assert_eq!(send(&world, &["a@example.org", "b@example.org"]).await, Ok(()));
    assert_eq!(send(&world, &["c@example.org"]).await, Err(Refusal::RateExceeded));
    assert_eq!(world.metrics.quota_refused.of(QuotaBound::Rate).get(), 1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(send(&world, &["c@example.org"]).await, Ok(()));
    assert_eq!(sent(&world), 3, "what is put off does not count");
}

#[tokio::test]
async fn what_the_spool_has_no_room_for_does_not_count() {
    let small = postrider_spool::Settings { max_messages: 1, ..postrider_spool::Settings::default() };
    let world = world_with(|_| {}, small).await;
    bounded(&world, Some(10), None).await;
    assert_eq!(send(&world, &["a@example.org"]).await, Ok(()));
    assert_eq!(send(&world, &["b@example.org"]).await, Err(Refusal::NoRoom));
    assert_eq!(sent(&world), 1);
}

#[tokio::test]
async fn what_the_relay_writes_itself_does_not_count() {
    let world = world().await;
    bounded(&world, Some(1), None).await;
    let to = "ann@example.com".parse().unwrap();
    let letter = crate::Letter { account: AccountId::default(), to: &to, subject: "News", text: "All is well.\n" };
    world.submission.write(letter).await.unwrap();
    assert_eq!(sent(&world), 0);
}

#[tokio::test]
async fn while_what_was_sent_before_is_counted_only_the_bounded_wait() {
    let world = world().await;
    world.accounts.quotas().recounting();
    assert_eq!(send(&world, &["a@example.org"]).await, Ok(()));
    bounded(&world, Some(100), None).await;
    assert_eq!(send(&world, &["a@example.org"]).await, Err(Refusal::Unavailable));
    world.accounts.quotas().recounted();
    assert_eq!(send(&world, &["a@example.org"]).await, Ok(()));
}

/// Another credential of the account, and what sends with it.
async fn credential(world: &World, new: NewCredential) -> Authenticated {
    let user_name = world.accounts.credentials().create(new).await.unwrap().credential.user_name;
    world.accounts.credentials().find(&user_name).unwrap()
}

async fn send_as(world: &World, authenticated: &Authenticated, to: &[&str]) -> Result<(), Refusal> {
    let request = request(Some("ann@example.com"), to, &[CONTENT]);
    let request = SubmissionRequest { authenticated: authenticated.clone(), ..request };
    world.submission.submit(request).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_credential_has_its_part_of_the_account_s_quota() {
    let world = world().await;
    bounded(&world, Some(6), None).await;
    let shop = credential(&world, NewCredential { daily_quota: Some(2), ..NewCredential::default() }).await;
    let set = async |option| world.accounts.credentials().set(&shop.user_name, [option]).await.unwrap();
    assert_eq!(send_as(&world, &shop, &["a@example.org", "b@example.org"]).await, Ok(()));
    assert_eq!(send_as(&world, &shop, &["c@example.org"]).await, Err(Refusal::DailyQuotaExceeded));
    assert_eq!(send_as(&world, &shop, &["success@simulator.amazonses.com"]).await, Ok(()), "it is outside");
    assert_eq!(send(&world, &["c@example.org", "d@example.org"]).await, Ok(()), "the others have theirs");
    assert_eq!(world.metrics.quota_refused.of(QuotaBound::CredentialDaily).get(), 1);

    set(CredentialOption::DailyQuota(Some(3))).await;
    assert_eq!(send_as(&world, &shop, &["e@example.org"]).await, Ok(()), "a change holds for the next message");
    set(CredentialOption::DailyQuota(None)).await;
    assert_eq!(send_as(&world, &shop, &["f@example.org", "g@example.org"]).await, Err(Refusal::DailyQuotaExceeded));
    assert_eq!(world.metrics.quota_refused.of(QuotaBound::Daily).get(), 1, "by the account's bound");
    assert_eq!(send_as(&world, &shop, &["f@example.org"]).await, Ok(()));
    set(CredentialOption::DailyQuota(Some(4))).await;
    tokio::time::sleep(Duration::from_secs(24 * 3600 + 60)).await;
    for _ in 0..4 {
        assert_eq!(send_as(&world, &shop, &["h@example.org"]).await, Ok(()), "a day later all of it is there");
    }
    assert_eq!(send_as(&world, &shop, &["h@example.org"]).await, Err(Refusal::DailyQuotaExceeded));
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_too_fast_takes_nothing_from_the_others() {
    let world = world().await;
    bounded(&world, None, Some(3)).await;
    let shop = credential(&world, NewCredential { max_rate: Some(1), ..NewCredential::default() }).await;
    assert_eq!(send_as(&world, &shop, &["a@example.org"]).await, Ok(()));
    for _ in 0..5 {
        assert_eq!(send_as(&world, &shop, &["b@example.org"]).await, Err(Refusal::RateExceeded));
    }
    assert_eq!(world.metrics.quota_refused.of(QuotaBound::CredentialRate).get(), 5);
    assert_eq!(send(&world, &["b@example.org", "c@example.org"]).await, Ok(()));
    assert_eq!(send(&world, &["d@example.org"]).await, Err(Refusal::RateExceeded), "the account's second is over");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(send_as(&world, &shop, &["b@example.org"]).await, Ok(()));
}

#[tokio::test]
async fn a_message_that_the_account_may_not_send_does_not_count_for_the_credential() {
    let world = world().await;
    bounded(&world, Some(2), None).await;
    let shop = credential(&world, NewCredential { daily_quota: Some(10), ..NewCredential::default() }).await;
    let three = ["a@example.org", "b@example.org", "c@example.org"];
    assert_eq!(send_as(&world, &shop, &three).await, Err(Refusal::DailyQuotaExceeded));
    assert_eq!(send_as(&world, &shop, &three[..1]).await, Ok(()));
    let holder = Holder::Credential(shop.user_name);
    assert_eq!(world.accounts.quotas().usage(holder, NOW).sent_last_24_hours, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_account_may_not_send_now_does_not_slow_its_credential() {
    let world = world().await;
    bounded(&world, None, Some(3)).await;
    let shop = credential(&world, NewCredential { max_rate: Some(1), ..NewCredential::default() }).await;
    assert_eq!(send(&world, &["a@example.org"]).await, Ok(()));
    let five = ["a@example.org", "b@example.org", "c@example.org", "d@example.org", "e@example.org"];
    for _ in 0..3 {
        assert_eq!(send_as(&world, &shop, &five).await, Err(Refusal::RateExceeded));
    }
    assert_eq!(world.metrics.quota_refused.of(QuotaBound::Rate).get(), 3, "by the account's bound each time");
    tokio::time::sleep(Duration::from_millis(334)).await;
    assert_eq!(send_as(&world, &shop, &five).await, Ok(()), "as soon as the account may");
}

#[tokio::test]
async fn what_comes_after_the_spool_is_closed_does_not_count() {
    let world = world().await;
    assert_eq!(send(&world, &["a@example.org"]).await, Ok(()));
    world.spool.close().await.unwrap();
    assert_eq!(send(&world, &["a@example.org"]).await, Err(Refusal::Unavailable));
    assert_eq!(sent(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn a_credential_in_the_sandbox_has_a_quota_of_its_own() {
    let world = world().await;
    let own = Identity { trusted: true, ..Identity::new(AccountId::default(), "example.com".parse().unwrap()) };
    world.accounts.identities().create(own).await.unwrap();
    let sandboxed = credential(&world, NewCredential { sandbox: true, ..NewCredential::default() }).await;
    let send_sandboxed = async || send_as(&world, &sandboxed, &["b@example.com"]).await;
    assert_eq!(send_sandboxed().await, Ok(()));
    assert_eq!(send_sandboxed().await, Err(Refusal::RateExceeded));
    for _ in 0..3 {
        assert_eq!(send(&world, &["b@example.com"]).await, Ok(()), "with another credential");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(send_sandboxed().await, Ok(()));
    assert_eq!(sent(&world), 5, "it is in its account's too");
}
