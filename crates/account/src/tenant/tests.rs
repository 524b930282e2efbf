//! Accounts as the rest of the relay asks for them.

use std::path::Path;
use std::sync::Arc;

use postrider_base::{Random, SimDisk};
use postrider_store::Options;

use super::*;
use crate::{Accounts, Identity, IdentityName, NewCredential};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const ACME: AccountId = AccountId::new(7).unwrap();

fn opened(store: &Store) -> Accounts {
    Accounts::open(store, &Clock::simulated(NOW), &Random::seeded(1), &Settings::default()).unwrap()
}

fn store(disk: &SimDisk, index: &tempfile::TempDir) -> Store {
    let options = Options { index_dir: Some(index.path().to_owned()), ..Options::default() };
    Store::open_with(Arc::new(disk.clone()), Path::new("/store"), options).unwrap()
}

#[tokio::test]
async fn an_account_is_as_it_was_after_a_restart() {
    let (disk, index) = (SimDisk::new(), tempfile::tempdir().unwrap());
    let store_ = store(&disk, &index);
    let accounts = opened(&store_);
    let tenant = Tenant { name: "Acme".into(), sandbox: true, daily_quota: Some(5), ..Tenant::new(ACME) };
    accounts.tenants().create(tenant.clone()).await.unwrap();
    let pause = Pause { by: PausedBy::Operator, at: NOW, reason: "unpaid".into(), hold: true };
    accounts.tenants().change(ACME, |tenant| tenant.sending = Sending::Paused(pause.clone())).await.unwrap();
    let again = accounts.tenants().create(tenant.clone()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    drop((accounts, store_));
    let accounts = opened(&store(&disk, &index));
    let found = accounts.tenants().find(ACME);
    assert!(found.created_at >= NOW);
    let expected = Tenant { sending: Sending::Paused(pause), created_at: found.created_at, ..tenant };
    assert_eq!(*found, expected);
    assert_eq!(accounts.tenants().list().len(), 1);
}

#[tokio::test]
async fn an_account_that_nobody_has_made_has_no_bounds() {
    let (disk, index) = (SimDisk::new(), tempfile::tempdir().unwrap());
    let accounts = opened(&store(&disk, &index));
    assert_eq!(*accounts.tenants().find(ACME), Tenant::new(ACME));
    assert!(accounts.tenants().list().is_empty());
    let before = accounts.tenants().revision();
    accounts.tenants().change(ACME, |tenant| tenant.max_rate = Some(14)).await.unwrap();
    assert_eq!(accounts.tenants().find(ACME).max_rate, Some(14));
    assert_ne!(accounts.tenants().revision(), before);
}

#[tokio::test]
async fn what_is_not_allowed_changes_nothing() {
    let (disk, index) = (SimDisk::new(), tempfile::tempdir().unwrap());
    let accounts = opened(&store(&disk, &index));
    let tenants = accounts.tenants();
    for change in [
        (|tenant: &mut Tenant| tenant.name = "x".repeat(65)) as fn(&mut Tenant),
        |tenant| tenant.name = "a\nb".into(),
        |tenant| tenant.daily_quota = Some(0),
        |tenant| tenant.max_rate = Some(0),
        |tenant| tenant.tags = BTreeMap::from([(String::new(), String::new())]),
    ] {
        assert!(matches!(tenants.change(ACME, change).await, Err(Error::Invalid { .. })));
        let mut tenant = Tenant::new(ACME);
        change(&mut tenant);
        assert!(matches!(tenants.put(vec![Tenant::new(ACME), tenant]).await, Err(Error::Invalid { .. })));
    }
    assert!(tenants.list().is_empty());
}

#[tokio::test]
async fn only_an_account_that_owns_nothing_is_deleted() {
    let (disk, index) = (SimDisk::new(), tempfile::tempdir().unwrap());
    let accounts = opened(&store(&disk, &index));
    assert!(matches!(accounts.delete_tenant(ACME).await, Err(Error::NotFound { .. })));
    accounts.tenants().create(Tenant::new(ACME)).await.unwrap();
    let name = "example.com".parse().unwrap();
    accounts.identities().create(Identity::new(ACME, name)).await.unwrap();
    let new = NewCredential { account: ACME, ..NewCredential::default() };
    let user = accounts.credentials().create(new).await.unwrap().credential.user_name;
    assert!(matches!(accounts.delete_tenant(ACME).await, Err(Error::InUse { .. })));
    accounts.credentials().delete(&user).await.unwrap();
    let error = accounts.delete_tenant(ACME).await.unwrap_err();
    assert_eq!(error.to_string(), "account 000000000007 is in use by its identities");
    accounts.identities().delete(ACME, &"example.com".parse().unwrap()).await.unwrap();
    accounts.delete_tenant(ACME).await.unwrap();
    assert!(accounts.tenants().made(ACME).is_none());
}

#[tokio::test]
async fn no_credential_is_made_while_its_account_goes() {
    let (disk, index) = (SimDisk::new(), tempfile::tempdir().unwrap());
    let accounts = opened(&store(&disk, &index));
    accounts.tenants().create(Tenant { sandbox: true, ..Tenant::new(ACME) }).await.unwrap();
    let gone = |_: usize, _: Option<&Tenant>| Ok::<_, Error>(None);
    for goes_with_others in [false, true] {
        accounts.tenants().put(vec![Tenant { sandbox: true, ..Tenant::new(ACME) }]).await.unwrap();
        // Another change is under way, behind which the account goes.
        let changing = accounts.tenants().0.changing.lock().await;
        let going = async {
            match goes_with_others {
                true => accounts.edit_tenants(&[ACME], gone).await,
                false => accounts.delete_tenant(ACME).await,
            }
        };
        let coming = async {
            let new = NewCredential { account: ACME, ..NewCredential::default() };
            let user = accounts.credentials().create(new).await.unwrap().credential.user_name;
            (user, accounts.tenants().made(ACME).is_some())
        };
        let later = async {
            tokio::task::yield_now().await;
            drop(changing);
        };
        let (gone, (user, was_there), ()) = tokio::join!(going, coming, later);
        gone.unwrap();
        assert!(!was_there, "it was made for an account in the sandbox, which then went");
        accounts.credentials().delete(&user).await.unwrap();
    }
}

#[tokio::test]
async fn of_many_that_go_all_do_or_none() {
    let (disk, index) = (SimDisk::new(), tempfile::tempdir().unwrap());
    let accounts = opened(&store(&disk, &index));
    let ids = [ACME, AccountId::new(8).unwrap()];
    accounts.tenants().put(ids.map(Tenant::new).to_vec()).await.unwrap();
    let name: IdentityName = "example.com".parse().unwrap();
    accounts.identities().create(Identity::new(ids[1], name.clone())).await.unwrap();
    let gone = |_: usize, _: Option<&Tenant>| Ok::<_, Error>(None);
    assert!(matches!(accounts.edit_tenants(&ids, gone).await, Err(Error::InUse { .. })));
    assert_eq!(accounts.tenants().list().len(), 2);
    accounts.identities().delete(ids[1], &name).await.unwrap();
    accounts.edit_tenants(&ids, gone).await.unwrap();
    assert!(accounts.tenants().list().is_empty());
}

#[tokio::test]
async fn ten_thousand_come_at_once() {
    let (disk, index) = (SimDisk::new(), tempfile::tempdir().unwrap());
    let accounts = opened(&store(&disk, &index));
    let tenants = (1..=10_000).map(|number| Tenant::new(AccountId::new(number).unwrap())).collect();
    accounts.tenants().put(tenants).await.unwrap();
    assert_eq!(accounts.tenants().list().len(), 10_000);
    let last = AccountId::new(10_000).unwrap();
    assert!(accounts.tenants().find(last).created_at >= NOW);
}
