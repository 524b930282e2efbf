//! Account state over a store, as the daemon uses it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    Accounts, AuthError, Error, Filter, Format, ImportEntry, ImportedSecret, NewCredential, RecipientOverflow,
    Settings, derive_smtp_password, export,
};
use postrider_base::{Clock, Random, SimDisk, Timestamp};
use postrider_mail::{AccountId, EmailAddress, SuppressionList, SuppressionReason};
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
        let index = tempfile::tempdir().unwrap();
        let options = postrider_store::Options {
            index_dir: Some(index.path().to_owned()),
            ..postrider_store::Options::default()
        };
        let disk = Arc::new(SimDisk::new());
        let store = Store::open_with(disk, Path::new("/store"), options).unwrap();
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

fn address(text: &str) -> EmailAddress {
    text.parse().unwrap()
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
    credentials.set_recipient_overflow(USER, RecipientOverflow::Defer).await.unwrap();
    let who = credentials.authenticate(USER, password).unwrap();
    assert_eq!(who.recipient_overflow, RecipientOverflow::Defer);

    credentials.delete(USER).await.unwrap();
    assert_eq!(credentials.authenticate(USER, password), Err(AuthError::Invalid));
    assert!(matches!(credentials.delete(USER).await, Err(Error::NoSuchUser(_))));
    assert!(matches!(credentials.enable(USER).await, Err(Error::NoSuchUser(_))));
    assert!(world.accounts().credentials().list().is_empty());
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

#[tokio::test(start_paused = true)]
async fn suppressed_addresses_are_found_in_any_case() {
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let (one, two) = (address("One@Example.com"), address("two@example.com"));
    assert_eq!(list.check(ME(), &one), None);
    list.put(ME(), &one, SuppressionReason::Bounce).await.unwrap();
    let hit = list.check(ME(), &address("oNE@example.COM")).unwrap();
    assert_eq!((hit.list, hit.reason), (SuppressionList::Account, SuppressionReason::Bounce));
    assert_eq!(list.check(ME(), &two), None);
    let other = AccountId::new(2).unwrap();
    assert_eq!(list.check(other, &one), None);

    tokio::time::advance(Duration::from_secs(60)).await;
    list.put(ME(), &one, SuppressionReason::Complaint).await.unwrap();
    let entry = list.get(ME(), &one).unwrap().unwrap();
    assert_eq!((entry.address.as_str(), entry.reason), ("one@example.com", SuppressionReason::Complaint));
    assert_eq!(entry.updated_at, START.saturating_add(Duration::from_secs(60)));
    assert!(world.accounts().suppression().check(ME(), &one).is_some());

    assert!(list.delete(ME(), &one).await.unwrap());
    assert!(!list.delete(ME(), &one).await.unwrap());
    assert_eq!(list.check(ME(), &one), None);
    assert_eq!(list.get(ME(), &one).unwrap(), None);
}

#[tokio::test]
async fn hard_bounces_can_be_told_twice() {
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let (one, two) = (address("one@example.com"), address("two@example.com"));
    let later = START.saturating_add(Duration::from_secs(5));
    assert!(list.record_hard_bounce(ME(), &one, later).await.unwrap());
    assert!(!list.record_hard_bounce(ME(), &one, later).await.unwrap());
    assert!(!list.record_hard_bounce(ME(), &one, START).await.unwrap());
    assert_eq!(list.get(ME(), &one).unwrap().unwrap().updated_at, later);
    // A complaint weighs more, however old.
    list.put(ME(), &two, SuppressionReason::Complaint).await.unwrap();
    assert!(!list.record_hard_bounce(ME(), &two, later).await.unwrap());
    assert_eq!(list.check(ME(), &two).unwrap().reason, SuppressionReason::Complaint);
}

#[tokio::test]
async fn lists_are_filtered() {
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let at = |seconds| Some(START.saturating_add(Duration::from_secs(seconds)));
    let entries = [
        ("b@example.com", SuppressionReason::Bounce, at(1)),
        ("a@example.org", SuppressionReason::Complaint, at(2)),
        ("c@example.com", SuppressionReason::Bounce, at(3)),
    ]
    .map(|(text, reason, updated_at)| ImportEntry { address: address(text), reason, updated_at });
    assert_eq!(list.add(ME(), entries.to_vec()).await.unwrap(), 3);
    let other = AccountId::new(2).unwrap();
    list.put(other, &address("d@example.com"), SuppressionReason::Bounce).await.unwrap();
    let found = |filter: Filter| -> String {
        let mut letters = String::new();
        for entry in list.list(ME(), filter) {
            letters.push_str(&entry.unwrap().address[..1]);
        }
        letters
    };
    assert_eq!(found(Filter::default()), "abc");
    assert_eq!(found(Filter { reason: Some(SuppressionReason::Bounce), ..Filter::default() }), "bc");
    assert_eq!(found(Filter { since: at(2), ..Filter::default() }), "ac");
    assert_eq!(found(Filter { until: at(2), ..Filter::default() }), "b");
    assert_eq!(found(Filter { matching: Some("EXAMPLE.c".into()), ..Filter::default() }), "bc");
    assert_eq!(found(Filter { matching: Some("nobody".into()), ..Filter::default() }), "");
}

#[tokio::test]
async fn imports_are_reported_and_can_be_repeated() {
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let text = "{\"SuppressedDestinationSummaries\":[\n\
                {\"EmailAddress\":\"a@example.com\",\"Reason\":\"BOUNCE\",\"LastUpdateTime\":1400000000.5},\n\
                {\"EmailAddress\":\"nonsense\",\"Reason\":\"BOUNCE\",\"LastUpdateTime\":1}\n]}";
    let report = list.import(ME(), text, |_| {}).await.unwrap();
    assert_eq!((report.format, report.added, report.unchanged, report.refused), (Format::Ses, 1, 0, 1));
    assert_eq!(report.refused_lines[0].line, 3);
    let again = list.import(ME(), text, |_| {}).await.unwrap();
    assert_eq!((again.added, again.unchanged), (0, 1));

    let mut out = Vec::new();
    let entries = list.list(ME(), Filter::default()).map(Result::unwrap);
    export(Format::Ses, entries, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("1400000000.5"));
}

#[tokio::test]
async fn large_imports_are_batched_and_bounded() {
    let world = World::new();
    let accounts = world.open(&Settings { max_suppressed: 2_500, ..Settings::default() });
    let list = accounts.suppression();
    let text: String = (0..2_500).map(|n| format!("user{n}@example.com, BOUNCE\n")).collect();
    let mut steps = Vec::new();
    let report = list.import(ME(), &text, |done| steps.push(done)).await.unwrap();
    assert_eq!((report.added, report.refused), (2_500, 0));
    assert_eq!(steps, [1_000, 2_000, 2_500]);
    assert!(list.check(ME(), &address("user2499@example.com")).is_some());
    assert_eq!(list.check(ME(), &address("user2500@example.com")), None);

    let one_more = list.put(ME(), &address("more@example.com"), SuppressionReason::Bounce).await;
    assert!(matches!(one_more, Err(Error::Full { setting: "max_suppressed", bound: 2_500 })));
    // What is on the list already takes no room.
    list.put(ME(), &address("user1@example.com"), SuppressionReason::Complaint).await.unwrap();
}
