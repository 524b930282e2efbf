//! The lists over a store, as the daemon uses them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Suppression};
use crate::samples;
use crate::{
    Accounts, Audit, AuditFilter, AuditRecord, Error, Filter, Format, ImportEntry, Pause, PausedBy, Sending, Settings,
    export,
};
use postrider_base::{Clock, Disk as _, Random, SimDisk, Timestamp};
use postrider_mail::{AccountId, EmailAddress, SuppressionList, SuppressionReason};
use postrider_store::{BulkOptions, Store};

const START: Timestamp = Timestamp::from_millis(1_500_000_000_000);
const DAY: Duration = Duration::from_hours(24);
const ME: fn() -> AccountId = AccountId::default;

/// A store and a disk that outlive the accounts, for reopening.
struct World {
    disk: SimDisk,
    store: Store,
    clock: Clock,
    _index: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::new();
        let (store, index) = samples::store(&disk);
        Self { disk, store, clock: Clock::simulated(START), _index: index }
    }

    fn open(&self, settings: &Settings) -> Accounts {
        Accounts::open(&self.store, &self.clock, &Random::seeded(7), settings).unwrap()
    }

    fn accounts(&self) -> Accounts {
        self.open(&Settings::default())
    }

    /// Accounts with the global list in force.
    fn global(&self) -> Accounts {
        self.open(&Settings { global_suppression: true, ..Settings::default() })
    }
}

fn address(text: &str) -> EmailAddress {
    text.parse().unwrap()
}

fn reasons(of: &[SuppressionReason]) -> BTreeSet<SuppressionReason> {
    of.iter().copied().collect()
}

#[tokio::test(start_paused = true)]
async fn suppressed_addresses_are_found_in_any_case() {
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let (one, two) = (address("One@Example.com"), address("two@example.com"));
    assert_eq!(list.check(ME(), None, &one), None);
    list.put(ME(), &one, SuppressionReason::Bounce).await.unwrap();
    let hit = list.check(ME(), None, &address("oNE@example.COM")).unwrap();
    assert_eq!((hit.list, hit.reason), (SuppressionList::Account, SuppressionReason::Bounce));
    assert_eq!(list.check(ME(), None, &two), None);
    let other = AccountId::new(2).unwrap();
    assert_eq!(list.check(other, None, &one), None);

    tokio::time::advance(Duration::from_secs(60)).await;
    list.put(ME(), &one, SuppressionReason::Complaint).await.unwrap();
    let entry = list.get(ME(), &one).unwrap().unwrap();
    assert_eq!((entry.address.as_str(), entry.reason), ("one@example.com", SuppressionReason::Complaint));
    assert_eq!(entry.updated_at, START.saturating_add(Duration::from_secs(60)));
    assert!(world.accounts().suppression().check(ME(), None, &one).is_some());

    assert!(list.delete(ME(), &one).await.unwrap());
    assert!(!list.delete(ME(), &one).await.unwrap());
    assert_eq!(list.check(ME(), None, &one), None);
    assert_eq!(list.get(ME(), &one).unwrap(), None);
}

#[tokio::test]
async fn hard_bounces_can_be_told_twice() {
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let (one, two) = (address("one@example.com"), address("two@example.com"));
    let later = START.saturating_add(Duration::from_secs(5));
    assert!(list.record(ME(), None, &one, SuppressionReason::Bounce, later).await.unwrap());
    assert!(!list.record(ME(), None, &one, SuppressionReason::Bounce, later).await.unwrap());
    assert!(!list.record(ME(), None, &one, SuppressionReason::Bounce, START).await.unwrap());
    assert_eq!(list.get(ME(), &one).unwrap().unwrap().updated_at, later);
    // A complaint weighs more, however old.
    list.put(ME(), &two, SuppressionReason::Complaint).await.unwrap();
    assert!(!list.record(ME(), None, &two, SuppressionReason::Bounce, later).await.unwrap());
    assert_eq!(list.check(ME(), None, &two).unwrap().reason, SuppressionReason::Complaint);
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
    assert!(list.check(ME(), None, &address("user2499@example.com")).is_some());
    assert_eq!(list.check(ME(), None, &address("user2500@example.com")), None);

    let one_more = list.put(ME(), &address("more@example.com"), SuppressionReason::Bounce).await;
    assert!(matches!(one_more, Err(Error::Full { setting: "max_suppressed", bound: 2_500 })));
    // What is on the list already takes no room.
    list.put(ME(), &address("user1@example.com"), SuppressionReason::Complaint).await.unwrap();
}

#[tokio::test]
async fn only_entries_whose_reason_is_in_force_hold() {
    use SuppressionReason::{Bounce, Complaint};
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let (gone, angry) = (address("gone@example.com"), address("angry@example.com"));
    list.put(ME(), &gone, Bounce).await.unwrap();
    list.put(ME(), &angry, Complaint).await.unwrap();
    let sets = [None, Some(vec![]), Some(vec![Bounce]), Some(vec![Complaint]), Some(vec![Bounce, Complaint])];
    // By the account's reasons: who is suppressed without a set's, with none, with one, with both.
    for (account, expected) in [
        (vec![Bounce, Complaint], [(true, true), (false, false), (true, false), (false, true), (true, true)]),
        (vec![Complaint], [(false, true), (false, false), (true, false), (false, true), (true, true)]),
        (vec![], [(false, false), (false, false), (true, false), (false, true), (true, true)]),
    ] {
        accounts.tenants().change(ME(), |tenant| tenant.suppressed_reasons = reasons(&account)).await.unwrap();
        for (set, expected) in sets.iter().zip(expected) {
            let set = set.as_ref().map(|set| reasons(set));
            let is = |address| list.check(ME(), set.as_ref(), address).is_some();
            assert_eq!((is(&gone), is(&angry)), expected, "account {account:?}, set {set:?}");
        }
    }
}

#[tokio::test]
async fn outcomes_add_by_the_reasons_in_force() {
    use SuppressionReason::{Bounce, Complaint};
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let one = address("one@example.com");
    accounts.tenants().change(ME(), |tenant| tenant.suppressed_reasons = reasons(&[Complaint])).await.unwrap();
    assert!(!list.record(ME(), None, &one, Bounce, START).await.unwrap());
    assert!(!list.record(ME(), Some(&reasons(&[])), &one, Complaint, START).await.unwrap());
    assert_eq!(list.get(ME(), &one).unwrap(), None);
    assert!(list.record(ME(), Some(&reasons(&[Bounce])), &one, Bounce, START).await.unwrap());
    // A complaint weighs more than a bounce, also than a later one.
    assert!(list.record(ME(), None, &one, Complaint, START).await.unwrap());
    let later = START.saturating_add(DAY);
    assert!(!list.record(ME(), Some(&reasons(&[Bounce])), &one, Bounce, later).await.unwrap());
    assert_eq!(list.get(ME(), &one).unwrap().unwrap().reason, Complaint);
}

#[tokio::test(start_paused = true)]
async fn the_global_list_keeps_longer_with_each_bounce() {
    let world = World::new();
    let accounts = world.global();
    let (list, global) = (accounts.suppression(), accounts.suppression().global());
    let gone = address("Gone@example.com");
    let other = AccountId::new(2).unwrap();
    for days in [1, 2, 4, 8, 14, 14] {
        assert_eq!(list.check(ME(), None, &gone), None);
        let now = world.clock.now();
        assert!(list.record_globally(&gone, now).await.unwrap());
        assert!(!list.record_globally(&gone, now).await.unwrap(), "told twice");
        // For all accounts, whatever their own lists do.
        for account in [ME(), other] {
            let source = list.check(account, Some(&reasons(&[])), &gone).unwrap();
            assert_eq!((source.list, source.reason), (SuppressionList::Global, SuppressionReason::Bounce));
        }
        assert_eq!(global.get(&gone).unwrap().unwrap().until, now.saturating_add(DAY * days));
        tokio::time::advance(DAY * days - Duration::from_millis(1)).await;
        assert!(list.check(ME(), None, &gone).is_some(), "{days} days");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(global.get(&gone).unwrap(), None);
        assert_eq!(global.list(None).count(), 0);
    }
    // The number is remembered for a while, and then the row goes.
    tokio::time::advance(DAY * 34).await;
    assert_eq!(list.sweep(accounts.audit()).await.unwrap(), 0);
    tokio::time::advance(DAY).await;
    assert_eq!(list.sweep(accounts.audit()).await.unwrap(), 1);
    assert_eq!(global.usage().rows, 0);
    list.record_globally(&gone, world.clock.now()).await.unwrap();
    assert_eq!(global.get(&gone).unwrap().unwrap().bounces, 1);
}

#[tokio::test(start_paused = true)]
async fn the_global_list_is_asked_edited_and_off_unless_wanted() {
    let world = World::new();
    let gone = address("Gone@example.com");
    {
        let accounts = world.accounts();
        let (list, global) = (accounts.suppression(), accounts.suppression().global());
        assert!(!list.record_globally(&gone, START).await.unwrap(), "it is off");
        assert_eq!(global.usage().rows, 0);
        global.put(&gone).await.unwrap();
        assert_eq!(list.check(ME(), None, &gone), None);
    }
    let accounts = world.global();
    let (list, global) = (accounts.suppression(), accounts.suppression().global());
    assert!(list.check(ME(), None, &gone).is_some());
    let entry = global.get(&gone).unwrap().unwrap();
    assert_eq!((entry.address.as_str(), entry.bounces), ("gone@example.com", 0));
    assert_eq!(entry.until, START.saturating_add(DAY * 14));
    // A bounce does not shorten what was put there by hand.
    list.record_globally(&gone, START.saturating_add(DAY)).await.unwrap();
    assert_eq!(global.get(&gone).unwrap().unwrap().until, entry.until);
    assert_eq!(global.list(Some("GONE")).count(), 1);
    assert_eq!(global.list(Some("here")).count(), 0);
    assert!(global.delete(&gone).await.unwrap());
    assert!(!global.delete(&gone).await.unwrap());
    assert_eq!(list.check(ME(), None, &gone), None);
    // The account's own list is asked first.
    global.put(&gone).await.unwrap();
    list.put(ME(), &gone, SuppressionReason::Complaint).await.unwrap();
    assert_eq!(list.check(ME(), None, &gone).unwrap().list, SuppressionList::Account);
}

#[tokio::test(start_paused = true)]
async fn entries_of_a_paused_account_end_after_90_days() {
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let (paused, resumed) = (AccountId::new(2).unwrap(), AccountId::new(3).unwrap());
    let entries: Vec<_> = (0..2_300)
        .map(|n| address(&format!("user{n}@example.com")))
        .map(|address| ImportEntry { address, reason: SuppressionReason::Bounce, updated_at: None })
        .collect();
    for account in [ME(), paused, resumed] {
        assert_eq!(list.add(account, entries.clone()).await.unwrap(), 2_300);
    }
    let pause = Pause { by: PausedBy::Operator, at: START, reason: String::new(), hold: false };
    for account in [paused, resumed] {
        let pause = Sending::Paused(pause.clone());
        accounts.tenants().change(account, |tenant| tenant.sending = pause).await.unwrap();
    }
    tokio::time::advance(DAY * 90 - Duration::from_secs(1)).await;
    assert_eq!(list.sweep(accounts.audit()).await.unwrap(), 0);
    accounts.tenants().change(resumed, |tenant| tenant.sending = Sending::Enabled).await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(list.sweep(accounts.audit()).await.unwrap(), 2_300);
    let left = |account| list.list(account, Filter::default()).count();
    assert_eq!((left(ME()), left(paused), left(resumed)), (2_300, 0, 2_300));
    assert_eq!(list.usage().rows, 4_600);
    // What it gets before it is resumed stays, over a restart too.
    list.add(paused, entries[..10].to_vec()).await.unwrap();
    tokio::time::advance(DAY).await;
    assert_eq!(list.sweep(accounts.audit()).await.unwrap(), 0);
    drop(accounts);
    let accounts = world.accounts();
    let list = accounts.suppression();
    assert_eq!(list.sweep(accounts.audit()).await.unwrap(), 0);
    assert_eq!(list.list(paused, Filter::default()).count(), 10);
    // Another pause is another time.
    for sending in [Sending::Enabled, Sending::Paused(Pause { at: world.clock.now(), ..pause })] {
        accounts.tenants().change(paused, |tenant| tenant.sending = sending).await.unwrap();
    }
    tokio::time::advance(DAY * 90).await;
    assert_eq!(list.sweep(accounts.audit()).await.unwrap(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_resumed_keeps_what_is_left_and_the_audit_log_says_what_went() {
    let world = World::new();
    let log = Audit::open(
        Arc::new(SimDisk::new()),
        "/audit".as_ref(),
        &world.clock,
        &Random::seeded(2),
        &Settings::default(),
    );
    let accounts = world.accounts().with_audit(log.unwrap());
    let list = accounts.suppression();
    list.put(ME(), &address("one@example.com"), SuppressionReason::Complaint).await.unwrap();
    let pause = Pause { by: PausedBy::Rule, at: START, reason: String::new(), hold: false };
    let set =
        async |sending: Sending| accounts.tenants().change(ME(), |tenant| tenant.sending = sending).await.unwrap();
    set(Sending::Paused(pause)).await;
    tokio::time::advance(DAY * 90).await;
    // As if it were resumed while it is swept.
    set(Sending::Enabled).await;
    assert_eq!(list.clear(ME(), START).await.unwrap(), 0);
    set(Sending::Paused(Pause { by: PausedBy::Rule, at: START, reason: String::new(), hold: false })).await;
    assert_eq!(list.sweep(accounts.audit()).await.unwrap(), 1);
    let mut names = Vec::new();
    let mut each = |record: AuditRecord| {
        names.push(record.event_name);
        std::ops::ControlFlow::Continue(())
    };
    accounts.audit().read(&AuditFilter::default(), &mut each).unwrap();
    assert_eq!(names, ["ClearSuppressionList"]);
}

#[tokio::test]
async fn of_lines_for_one_address_the_last_holds() {
    use SuppressionReason::{Bounce, Complaint};
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let text = "a@example.com, BOUNCE\nb@example.com, COMPLAINT\nA@example.com, COMPLAINT\n";
    let report = list.import(ME(), text, |_| {}).await.unwrap();
    assert_eq!((report.added, report.unchanged), (2, 1));
    let reason = |of: &str| list.get(ME(), &address(of)).unwrap().unwrap().reason;
    assert_eq!((reason("a@example.com"), reason("b@example.com")), (Complaint, Complaint));
    // Also of what is of another time: the newer one.
    let at = |seconds| Some(START.saturating_add(Duration::from_secs(seconds)));
    let entry = |reason, updated_at| ImportEntry { address: address("c@example.com"), reason, updated_at };
    list.add(ME(), vec![entry(Complaint, at(2)), entry(Bounce, at(1))]).await.unwrap();
    assert_eq!(reason("c@example.com"), Complaint);
}

#[tokio::test(start_paused = true)]
async fn mail_that_is_under_way_does_not_keep_an_address_listed_for_longer() {
    let world = World::new();
    let accounts = world.global();
    let (list, gone) = (accounts.suppression(), address("gone@example.com"));
    for seconds in 0..5 {
        let told = list.record_globally(&gone, START.saturating_add(Duration::from_secs(seconds))).await.unwrap();
        assert_eq!(told, seconds == 0, "{seconds}");
    }
    let entry = list.global().get(&gone).unwrap().unwrap();
    assert_eq!((entry.bounces, entry.until), (1, START.saturating_add(DAY)));
}

#[tokio::test]
async fn of_a_damaged_file_any_reason_that_is_in_force_holds() {
    use SuppressionReason::{Bounce, Complaint};
    let world = World::new();
    let tenants = crate::Tenants::open(&world.store, world.clock.clone(), &Settings::default()).unwrap();
    let options = BulkOptions { max_rows: 100, recent_rows: 8, seed: 1 };
    let list = Suppression(Arc::new(Inner {
        entries: world.store.bulk(super::TABLE, options).unwrap(),
        global: super::GlobalList::open(&world.store, world.clock.clone(), options).unwrap(),
        is_global_on: false,
        removals: super::Removals::open(&world.store, options).unwrap(),
        swept: world.store.table(super::SWEPT),
        tenants,
        clock: world.clock.clone(),
    }));
    for number in 0..8 {
        list.put(ME(), &address(&format!("user{number}@example.com")), Complaint).await.unwrap();
    }
    while list.usage().runs == 0 || list.usage().recent > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let file = world.disk.read_dir(Path::new("/store/bulk")).unwrap().remove(0);
    world.disk.damage(&file, 100, 0x10).unwrap();
    let one = address("user1@example.com");
    assert!(list.get(ME(), &one).is_err());
    for (of_set, expected) in
        [(vec![], None), (vec![Complaint], Some(Complaint)), (vec![Bounce, Complaint], Some(Bounce))]
    {
        let found = list.check(ME(), Some(&reasons(&of_set)), &one);
        assert_eq!(found.map(|source| source.reason), expected);
    }
}

#[tokio::test]
async fn many_are_taken_off_at_once() {
    let world = World::new();
    let accounts = world.accounts();
    let list = accounts.suppression();
    let addresses: Vec<_> = (0..1_000).map(|n| address(&format!("user{n}@example.com"))).collect();
    for address in &addresses[..10] {
        list.put(ME(), address, SuppressionReason::Bounce).await.unwrap();
    }
    assert_eq!(list.remove(ME(), &addresses[3..]).await.unwrap(), 7);
    assert_eq!(list.list(ME(), Filter::default()).count(), 3);
}

/// A reader of the journal that dies before it has kept its place tells all again.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_told_again_does_not_put_back_who_was_taken_off() {
    let world = World::new();
    let accounts = world.global();
    let list = accounts.suppression();
    let (gone, bounce) = (address("gone@example.com"), SuppressionReason::Bounce);
    let bounced = world.clock.now();
    assert!(list.record(ME(), None, &gone, bounce, bounced).await.unwrap());
    assert!(list.record_globally(&gone, bounced).await.unwrap());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(list.delete(ME(), &address("Gone@Example.com")).await.unwrap());
    assert!(list.global().delete(&gone).await.unwrap());
    for accounts in [accounts.clone(), world.global()] {
        let list = accounts.suppression();
        assert!(!list.record(ME(), None, &gone, bounce, bounced).await.unwrap());
        assert!(!list.record_globally(&gone, bounced).await.unwrap());
        assert_eq!(list.check(ME(), None, &gone), None);
    }
    // Other lists know nothing of it, and what becomes of later mail counts.
    let other = AccountId::new(2).unwrap();
    assert!(list.record(other, None, &gone, bounce, bounced).await.unwrap());
    tokio::time::advance(Duration::from_secs(1)).await;
    let again = world.clock.now();
    assert!(list.record(ME(), None, &gone, bounce, again).await.unwrap());
    assert!(list.record_globally(&gone, again).await.unwrap());
    assert_eq!(list.global().get(&gone).unwrap().unwrap().bounces, 1);
    // It is not remembered for ever.
    list.delete(ME(), &gone).await.unwrap();
    tokio::time::advance(DAY * 7).await;
    list.sweep(accounts.audit()).await.unwrap();
    assert!(list.record(ME(), None, &gone, bounce, again).await.unwrap());
}
