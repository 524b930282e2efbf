//! Account state over a store, as the daemon uses it.

use crate::samples;
use crate::{
    Accounts, AuthError, CredentialOption, Error, ImportedSecret, Limits, NewCredential, RecipientOverflow, Settings,
    derive_smtp_password,
};
use postrider_base::{Clock, Random, SimDisk, Timestamp};
use postrider_mail::AccountId;
use postrider_store::Store;
use secrecy::{ExposeSecret as _, SecretString};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const USER: &str = "AKIAIOSFODNN7EXAMPLE";
const START: Timestamp = Timestamp::from_millis(1_500_000_000_000);
const ME: fn() -> AccountId = AccountId::default;

/// A store and a disk that outlive the accounts, for reopening.
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

    fn open(&self, settings: &Settings) -> Accounts {
        Accounts::open(&self.store, &self.clock, &Random::seeded(7), settings).unwrap()
    }

    fn accounts(&self) -> Accounts {
        self.open(&Settings::default())
    }
}

fn new(label: &str) -> NewCredential {
    NewCredential { label: label.to_owned(), region: "us-east-1".to_owned(), ..NewCredential::default() }
}

fn imported(text: &str) -> ImportedSecret {
    ImportedSecret::parse(&SecretString::from(text)).unwrap()
}

#[tokio::test]
async fn a_created_credential_authenticates_and_shows_its_secret_once() {
    let world = World::new();
    let accounts = world.accounts();
    let issued = accounts.credentials().create(new("shop")).await.unwrap();
    let user = &issued.credential.user_name;
    let password = issued.smtp_password.expose_secret();
    assert!(user.starts_with("AKIA") && user.len() == 20);
    assert!(user.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
    assert_eq!(issued.secret_access_key.expose_secret().len(), 40);
    assert_eq!(derive_smtp_password(&issued.secret_access_key, "us-east-1").expose_secret(), password);

    // The same before and after a restart.
    for accounts in [accounts, world.accounts()] {
        let who = accounts.credentials().authenticate(user, password.as_bytes()).unwrap();
        assert_eq!((who.account, &who.user_name), (ME(), user));
        let listed = accounts.credentials().list();
        assert_eq!(listed, std::slice::from_ref(&issued.credential));
        let shown = format!("{listed:?} {accounts:?}");
        assert!(!shown.contains(password) && !shown.contains(issued.secret_access_key.expose_secret()));
    }
}

#[tokio::test]
async fn wrong_passwords_and_users_are_not_told_apart() {
    let world = World::new();
    let accounts = world.accounts();
    let credentials = accounts.credentials();
    credentials.import(USER, imported(SECRET), new("")).await.unwrap();
    let password = derive_smtp_password(&SecretString::from(SECRET), "us-east-1");
    let other_region = derive_smtp_password(&SecretString::from(SECRET), "us-west-2");
    let right = password.expose_secret().as_bytes();
    assert!(credentials.authenticate(USER, right).is_ok());
    for (user, password) in [
        (USER, SECRET.as_bytes()),
        (USER, other_region.expose_secret().as_bytes()),
        (USER, b""),
        (USER, &[right, b"\0"].concat()),
        ("AKIAIOSFODNN7EXAMPL2", right),
        ("akiaiosfodnn7example", right),
        ("", right),
    ] {
        assert_eq!(credentials.authenticate(user, password), Err(AuthError::Invalid), "{user}");
    }
}

#[tokio::test]
async fn disabling_is_told_only_to_who_knows_the_password() {
    let world = World::new();
    let accounts = world.accounts();
    let credentials = accounts.credentials();
    credentials.import(USER, imported(SECRET), new("")).await.unwrap();
    let password = derive_smtp_password(&SecretString::from(SECRET), "us-east-1");
    let password = password.expose_secret().as_bytes();

    assert!(credentials.disable(USER).await.unwrap().disabled);
    credentials.disable(USER).await.unwrap();
    assert_eq!(credentials.authenticate(USER, password), Err(AuthError::Disabled));
    assert_eq!(credentials.authenticate(USER, b"guess"), Err(AuthError::Invalid));
    let reopened = world.accounts();
    assert_eq!(reopened.credentials().authenticate(USER, password), Err(AuthError::Disabled));

    credentials.enable(USER).await.unwrap();
    credentials.set(USER, [CredentialOption::RecipientOverflow(RecipientOverflow::Defer)]).await.unwrap();
    let who = credentials.authenticate(USER, password).unwrap();
    assert_eq!(who.recipient_overflow, RecipientOverflow::Defer);

    credentials.delete(USER).await.unwrap();
    assert_eq!(credentials.authenticate(USER, password), Err(AuthError::Invalid));
    assert!(matches!(credentials.delete(USER).await, Err(Error::NoSuchUser(_))));
    assert!(matches!(credentials.enable(USER).await, Err(Error::NoSuchUser(_))));
    assert!(world.accounts().credentials().list().is_empty());
}

#[tokio::test]
async fn quotas_of_a_credential_hold_at_once_and_outlive_a_restart() {
    let world = World::new();
    let accounts = world.accounts();
    let credentials = accounts.credentials();
    let wanted = NewCredential { daily_quota: Some(10_000), ..new("shop") };
    credentials.import(USER, imported(SECRET), wanted).await.unwrap();
    assert_eq!(credentials.limits(USER), Limits { per_day: Some(10_000), per_second: None });
    let options = [CredentialOption::MaxRate(Some(5)), CredentialOption::DailyQuota(None)];
    let changed = credentials.set(USER, options).await.unwrap();
    assert_eq!((changed.daily_quota, changed.max_rate, changed.label.as_str()), (None, Some(5), "shop"));
    for accounts in [&accounts, &world.accounts()] {
        let credentials = accounts.credentials();
        assert_eq!(credentials.limits(USER), Limits { per_day: None, per_second: Some(5) });
        assert_eq!(credentials.limits("AKIAIOSFODNN7EXAMPL2"), Limits::default());
    }
    credentials.set(USER, [CredentialOption::Sandbox(true)]).await.unwrap();
    assert_eq!(credentials.limits(USER), Limits { per_day: Some(200), per_second: Some(5) });
    for bad in [CredentialOption::MaxRate(Some(0)), CredentialOption::DailyQuota(Some(0))] {
        let refused = credentials.set(USER, [bad]).await.unwrap_err().to_string();
        assert!(refused.contains("a quota is at least 1"), "{refused}");
    }
    let none = NewCredential { max_rate: Some(0), ..new("") };
    assert!(matches!(credentials.create(none).await, Err(Error::Invalid { .. })));
    assert!(matches!(credentials.set("AKIA", []).await, Err(Error::NoSuchUser(_))));
}

#[tokio::test]
async fn credentials_are_refused_with_the_reason() {
    let world = World::new();
    let accounts = world.open(&Settings { max_credentials: 1, ..Settings::default() });
    let credentials = accounts.credentials();
    for (user, part) in [
        ("AKIA", "20 characters"),
        ("ASIAIOSFODNN7EXAMPLE", "temporary"),
        ("BKIAIOSFODNN7EXAMPLE", "AKIA"),
        ("AKIAIOSFODNN7example", "A-Z"),
        ("AKIA\r\nSFODNN7EXAMPLE", "A-Z"),
    ] {
        let error = credentials.import(user, imported(SECRET), new("")).await.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
    for label in ["x".repeat(65), "a\nb".to_owned()] {
        assert!(matches!(credentials.create(new(&label)).await, Err(Error::InvalidLabel(_))));
    }
    credentials.import(USER, imported(SECRET), new(&"\u{e4}".repeat(64))).await.unwrap();
    let again = credentials.import(USER, imported(SECRET), new("")).await;
    assert!(matches!(again, Err(Error::UserExists(user)) if user == USER));
    let full = credentials.create(new("")).await.unwrap_err().to_string();
    assert!(full.contains("max_credentials = 1"), "{full}");
}
