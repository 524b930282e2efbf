//! The log over a simulated disk, with its failures.

use std::path::PathBuf;

use postrider_base::{OpenMode, RealDisk, SimDisk, Size};
use postrider_mail::AccountId;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn settings() -> Settings {
    Settings::default()
}

fn dir() -> PathBuf {
    PathBuf::from("/audit")
}

fn open(disk: &SimDisk, settings: &Settings) -> Audit {
    Audit::open(Arc::new(disk.clone()), &dir(), &Clock::simulated(NOW), &Random::seeded(1), settings).unwrap()
}

fn alice() -> Actor {
    Actor::Peer(UserIdentity::user(1000, Some("alice".to_owned()), Some(77)))
}

fn entry(name: &str, parameters: Value) -> AuditEntry {
    AuditEntry::new(alice(), name, parameters)
}

fn records(audit: &Audit, filter: &AuditFilter) -> Vec<AuditRecord> {
    let mut all = Vec::new();
    let mut each = |record| {
        all.push(record);
        ControlFlow::Continue(())
    };
    audit.read(filter, &mut each).unwrap();
    all
}

fn names(audit: &Audit) -> Vec<String> {
    records(audit, &AuditFilter::default()).into_iter().map(|record| record.event_name).collect()
}

#[test]
fn of_a_webhook_a_record_has_the_host_alone() {
    let whole = json!({ "target": { "webhook": "https://user:secret@hooks.example.com:8443/secret?token=secret" } });
    assert_eq!(shortened(&whole), json!({ "target": { "webhook": "https://hooks.example.com:8443/..." } }));
    let bare = json!({ "webhook": "https://hooks.example.com" });
    assert_eq!(shortened(&bare), bare);
    assert_eq!(shortened(&json!({ "webhook": "secret" })), json!({ "webhook": "..." }));
}

#[tokio::test]
async fn a_record_says_who_when_what_and_from_where() {
    let audit = open(&SimDisk::new(), &settings());
    let mut made = entry("CreateEmailIdentity", json!({ "name": "example.com" }));
    made.account = Some(AccountId::default());
    made.previously = Some(json!({ "trusted": false }));
    let begun = audit.begin(vec![made]).await.unwrap();
    audit.failed(begun, "NotFound", "there is no such thing").await;
    audit.by_relay("suppression", "PutSuppressedDestination", json!({ "count": 3 })).await;

    let all = records(&audit, &AuditFilter::default());
    let first = serde_json::to_value(&all[0]).unwrap();
    assert_eq!(first["eventTime"], "2023-11-14T22:13:20.000Z");
    assert_eq!(first["eventName"], "CreateEmailIdentity");
    assert_eq!(first["userIdentity"], json!({ "type": "User", "userName": "alice", "uid": 1000, "pid": 77 }));
    assert_eq!(first["sourceIPAddress"], "control-socket");
    assert_eq!(first["recipientAccountId"], "000000000001");
    assert_eq!(first["requestParameters"], json!({ "name": "example.com" }));
    assert_eq!(first["previousState"], json!({ "trusted": false }));
    assert_eq!(first.get("errorCode"), None);
    assert_eq!((&all[1].request_id, all[1].error_code.as_deref()), (&all[0].request_id, Some("NotFound")));
    assert_ne!(all[1].event_id, all[0].event_id);
    assert_eq!((all[2].source.as_str(), all[2].user_identity.invoked_by.as_deref()), ("internal", Some("suppression")));
}

#[tokio::test]
async fn records_outlive_a_crash_and_one_cut_short_is_dropped() {
    let disk = SimDisk::new();
    drop(open(&disk, &settings()).begin(vec![entry("One", Value::Null)]).await.unwrap());
    let file = disk.open(&dir().join("audit.jsonl"), OpenMode::ReadWrite).unwrap();
    file.write_all_at(b"{\"eventName\":\"Tw", file.len().unwrap()).unwrap();
    file.sync_all().unwrap();
    let audit = open(&disk, &settings());
    assert_eq!(names(&audit), ["One"]);
    let _ = audit.begin(vec![entry("Three", Value::Null)]).await.unwrap();
    disk.crash_dropping_all();
    assert_eq!(names(&open(&disk, &settings())), ["One", "Three"]);
}

#[tokio::test]
async fn what_can_not_be_written_is_refused_and_later_changes_are_not() {
    let disk = SimDisk::new();
    let audit = open(&disk, &settings());
    let _ = audit.begin(vec![entry("One", Value::Null)]).await.unwrap();
    disk.fail_sync(1);
    let error = audit.begin(vec![entry("Two", Value::Null)]).await.unwrap_err();
    assert!(error.to_string().starts_with("the audit log can not be written"), "{error}");
    assert_eq!(names(&audit), ["One"]);
    let _ = audit.begin(vec![entry("Three", Value::Null)]).await.unwrap();
    assert_eq!(names(&audit), ["One", "Three"]);
    assert_eq!(names(&open(&disk, &settings())), ["One", "Three"]);
}

#[tokio::test]
async fn nothing_is_cut_into_two_lines_and_nothing_is_long() {
    let audit = open(&SimDisk::new(), &settings());
    let long = "x".repeat(10_000);
    let many: Vec<_> = (0..1_000).map(|n| format!("user{n}@example.com")).collect();
    let hostile = json!({ "a\nb": "c\r\n{\"eventName\":\"Forged\"}\u{2028}\u{202e}", "long": long, "many": many });
    let wide: Value = (0..60).map(|n| (format!("f{n}"), Value::from("y".repeat(300)))).collect();
    let _ = audit.begin(vec![entry("Bad\nName", hostile), entry("Wide", wide)]).await.unwrap();
    let all = records(&audit, &AuditFilter::default());
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].event_name, "Bad?Name");
    assert_eq!(all[0].request_parameters["many"], json!({ "count": 1_000 }));
    assert_eq!(all[0].request_parameters["a?b"], "c??{\"eventName\":\"Forged\"}??");
    assert_eq!(all[0].request_parameters["long"].as_str().map(str::len), Some(256));
    assert!(all[1].request_parameters["omittedBytes"].as_u64() > Some(8_192));
}

#[tokio::test]
async fn files_are_rotated_and_bounded() {
    let disk = SimDisk::new();
    let settings = Settings { audit_file_size: Size::from_kib(4), audit_files: 3, ..settings() };
    let audit = open(&disk, &settings);
    for n in 0..100 {
        let _ = audit.begin(vec![entry(&format!("Change{n}"), Value::Null)]).await.unwrap();
    }
    let files = disk.read_dir(&dir()).unwrap();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        assert!(disk.open(file, OpenMode::Read).unwrap().len().unwrap() <= 4_096);
    }
    let kept = names(&audit);
    assert_eq!(kept.last().map(String::as_str), Some("Change99"));
    let first: usize = kept[0].strip_prefix("Change").unwrap().parse().unwrap();
    assert_eq!(kept.len(), 100 - first, "what is kept is without gaps");
    assert_eq!(names(&open(&disk, &settings)), kept);
}

#[tokio::test]
async fn records_are_found_by_time_and_name() {
    let at = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::ahead(Arc::clone(&at));
    let audit = Audit::open(Arc::new(RealDisk), place.path(), &clock, &Random::seeded(1), &settings()).unwrap();
    let _ = audit.begin(vec![entry("CreateEmailIdentity", Value::Null)]).await.unwrap();
    at.store(3_600_000, std::sync::atomic::Ordering::Relaxed);
    let later = clock.now();
    let _ = audit.begin(vec![entry("DeleteEmailIdentity", Value::Null)]).await.unwrap();
    let found = |since, name: Option<&str>| {
        let filter = AuditFilter { since, name: name.map(str::to_owned) };
        records(&audit, &filter).into_iter().map(|record| record.event_name).collect::<Vec<_>>()
    };
    assert_eq!(found(Some(later), None), ["DeleteEmailIdentity"]);
    assert_eq!(found(None, Some("createemail")), ["CreateEmailIdentity"]);
    assert!(found(Some(later), Some("create")).is_empty());
}

#[tokio::test]
async fn without_a_log_nothing_is_recorded_and_nothing_refused() {
    let audit = Audit::default();
    let begun = audit.begin(vec![entry("One", Value::Null)]).await.unwrap();
    audit.failed(begun, "Failed", "for a test").await;
    assert!(records(&audit, &AuditFilter::default()).is_empty());
}

#[tokio::test]
async fn files_that_were_opened_are_whole_after_a_rotation() {
    let disk = SimDisk::new();
    let audit = open(&disk, &Settings { audit_file_size: Size::from_kib(4), ..settings() });
    let _ = audit.begin(vec![entry("First", Value::Null)]).await.unwrap();
    let opened = audit.files().unwrap();
    for _ in 0..30 {
        let _ = audit.begin(vec![entry("Later", Value::Null)]).await.unwrap();
    }
    assert!(audit.files().unwrap().len() > 1, "it was rotated");
    assert_eq!(opened.len(), 1);
    let mut text = vec![0; usize::try_from(opened[0].length).unwrap()];
    opened[0].file.read_exact_at(&mut text, 0).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("First"));
}
