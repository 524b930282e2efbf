//! Counting, the report's form, and what the store keeps.

use std::io::Read as _;

use flate2::read::GzDecoder;
use mail_parser::{MessageParser, MimeHeaders};
use postrider_base::{SimDisk, SimNet};
use postrider_dns::Zones;
use postrider_mail::EmailAddress;
use postrider_store::Change;
use serde_json::{Value, json};

use super::mail::{Letter, compose};
use super::report::{About, gzip};
use super::tally::{Detail, PolicyKind, PolicyTally};
use super::*;
use crate::tls::FailureKind;

/// RFC 8460 appendix B: but for the lists where its text has a single host, a
/// link, and an id of its own.
fn example() -> Value {
    json!({
        "organization-name": "Company-X",
        "date-range": { "start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z" },
        "contact-info": "sts-reporting@company-x.example",
        "report-id": "2016-04-01.company-y.example@company-x.example",
        "policies": [{
            "policy": {
                "policy-type": "sts",
                "policy-string": [
                    "version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"
                ],
                "policy-domain": "company-y.example",
                "mx-host": ["*.mail.company-y.example"]
            },
            "summary": { "total-successful-session-count": 5326, "total-failure-session-count": 303 },
            "failure-details": [{
                "result-type": "certificate-expired",
                "sending-mta-ip": "2001:db8:abcd:12::1",
                "receiving-mx-hostname": "mx1.mail.company-y.example",
                "failed-session-count": 100
            }, {
                "result-type": "starttls-not-supported",
                "sending-mta-ip": "2001:db8:abcd:13::1",
                "receiving-mx-hostname": "mx2.mail.company-y.example",
                "receiving-ip": "203.0.113.56",
                "failed-session-count": 200
            }, {
                "result-type": "validation-failure",
                "sending-mta-ip": "198.51.100.62",
                "receiving-ip": "203.0.113.58",
                "receiving-mx-hostname": "mx-backup.mail.company-y.example",
                "failed-session-count": 3,
                "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
            }]
        }]
    })
}

fn example_tally() -> Tally {
    let policy = b"version: STSv1\nmode: testing\nmx: *.mail.company-y.example\nmax_age: 86400\n";
    let detail = |result, sending: &str, host: &str, receiving: Option<&str>, reason, count| Detail {
        what: Failed {
            result,
            sending: sending.parse().ok(),
            host: Some(format!("{host}.mail.company-y.example")),
            helo: None,
            receiving: receiving.and_then(|ip| ip.parse().ok()),
            reason: Failed::reason(reason),
        },
        count,
    };
    let details = vec![
        detail(ResultType::CertificateExpired, "2001:db8:abcd:0012::1", "mx1", None, "", 100),
        detail(ResultType::StartTlsNotSupported, "2001:db8:abcd:0013::1", "mx2", Some("203.0.113.56"), "", 200),
        detail(
            ResultType::ValidationFailure,
            "198.51.100.62",
            "mx-backup",
            Some("203.0.113.58"),
            "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
            3,
        ),
    ];
    let applied = Applied::sts(&Policy::parse(policy).unwrap());
    Tally { policies: vec![PolicyTally { applied, successes: 5326, failures: 303, details }] }
}

fn about(domain: &Domain) -> About<'_> {
    About {
        organization: "Company-X",
        contact: "sts-reporting@company-x.example",
        submitter: "company-x.example",
        domain,
        day: Day::of(Timestamp::parse_rfc3339("2016-04-01T12:00:00Z").unwrap()),
    }
}

fn unzipped(bytes: &[u8]) -> Value {
    let mut json = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut json).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn the_example_of_the_rfc() {
    let domain = "company-y.example".parse().unwrap();
    let json = report::json(&about(&domain), &example_tally());
    assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), example());
    assert_eq!(unzipped(&gzip(&json)), example());
}

#[test]
fn the_mail_carries_it() {
    let domain = "company-y.example".parse().unwrap();
    let about = about(&domain);
    let (from, to): (EmailAddress, EmailAddress) =
        ("tls-reports@company-x.example".parse().unwrap(), "reports@company-y.example".parse().unwrap());
    let letter = Letter {
        from: &from,
        to: &to,
        message_id: "id@company-x.example",
        date: Timestamp::from_millis(1_459_555_200_000),
        boundary: 7,
    };
    let text = compose(&about, &letter, &gzip(&report::json(&about, &example_tally())));
    assert!(text.is_ascii() && text.split(|b| *b == b'\n').all(|line| line.len() < 200));
    let mail = MessageParser::new().parse(&text).unwrap();
    let id = "2016-04-01.company-y.example@company-x.example";
    assert_eq!(
        mail.subject().unwrap(),
        format!("Report Domain: company-y.example Submitter: company-x.example Report-ID: <{id}>")
    );
    for (name, value) in [
        ("TLS-Report-Domain", "company-y.example"),
        ("TLS-Report-Submitter", "company-x.example"),
        ("TLS-Required", "No"),
    ] {
        assert_eq!(mail.header(name).unwrap().as_text(), Some(value), "{name}");
    }
    let whole = mail.content_type().unwrap();
    assert_eq!((whole.ctype(), whole.subtype()), ("multipart", Some("report")));
    assert_eq!(whole.attribute("report-type"), Some("tlsrpt"));
    let part = mail.attachment(0).unwrap();
    assert_eq!(part.content_type().unwrap().subtype(), Some("tlsrpt+gzip"));
    let name = "company-x.example!company-y.example!1459468800!1459555199.json.gz";
    assert_eq!(part.attachment_name(), Some(name));
    assert_eq!(unzipped(part.contents()), example());
}

#[test]
fn days_are_those_of_utc() {
    let day = |at: &str| Day::of(Timestamp::parse_rfc3339(at).unwrap());
    assert_eq!(day("2016-04-01T23:59:59Z"), day("2016-04-01T00:00:00Z"));
    assert_eq!(day("2016-04-02T01:00:00+02:00"), day("2016-04-01T00:00:00Z"));
    assert!(day("2016-04-01T23:59:59Z") < day("2016-04-02T00:00:00Z"));
}

struct Rig {
    clock: Clock,
    metrics: Metrics,
    settings: Settings,
    disk: SimDisk,
    state: tempfile::TempDir,
    domain: Domain,
}

impl Rig {
    fn new() -> Self {
        let mut settings = Settings::default();
        settings.tls.reports.contact = Some("postmaster@example.net".parse().unwrap());
        Self {
            clock: Clock::simulated(Timestamp::from_millis(1_700_000_000_000)),
            metrics: Metrics::new(),
            settings,
            disk: SimDisk::new(),
            state: tempfile::tempdir().unwrap(),
            domain: "example.com".parse().unwrap(),
        }
    }

    fn open(&self) -> TlsReports {
        let mut options = postrider_store::Options::default();
        // Simulated time stands still while it writes.
        options.log.driver = postrider_spool::Driver::Task;
        let store = Store::open_with(Arc::new(self.disk.clone()), self.state.path(), options).unwrap();
        let sts = Sts::new(&store, Arc::new(Zones::new()), Arc::new(SimNet::new()), &self.clock, &self.metrics, 1);
        TlsReports::new(&store, sts, &self.clock, &self.metrics)
    }

    fn session(&self) -> Session<'_> {
        Session {
            domain: &self.domain,
            mx: "mx.example.com",
            helo: None,
            ip: Some([198, 51, 100, 1].into()),
            source_ip: None,
            tlsa: None,
            tls: None,
            failure: None,
        }
    }

    fn tally(&self, reports: &TlsReports) -> Option<Tally> {
        let at = (Day::of(self.clock.now()), self.domain.clone());
        reports.0.state.lock().days.get(&at).map(|entry| entry.tally.clone())
    }
}

fn tls() -> TlsInfo {
    TlsInfo { version: "TLSv1.3".into(), cipher: String::new(), authenticated: false }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_told_apart_by_policy_and_failure() {
    let rig = Rig::new();
    let (reports, tls) = (rig.open(), tls());
    reports.note(&rig.settings, &rig.session());
    reports.note(&rig.settings, &Session { tls: Some(&tls), ..rig.session() });
    let (records, failure) = (vec!["3 1 1 00".to_owned()], Failure::new(FailureKind::CertificateExpired, "too\r\nold"));
    reports.note(&rig.settings, &Session { tlsa: Some(&records), failure: Some(&failure), ..rig.session() });
    let policies = rig.tally(&reports).unwrap().policies;
    let [none, tlsa] = policies.as_slice() else { panic!("{policies:?}") };
    assert_eq!((none.applied.kind, none.successes, none.failures), (PolicyKind::NoPolicyFound, 1, 1));
    assert_eq!(none.details[0].what.result, ResultType::StartTlsNotSupported);
    assert_eq!((tlsa.applied.kind, tlsa.applied.strings.as_slice()), (PolicyKind::Tlsa, records.as_slice()));
    assert_eq!(tlsa.details[0].what.reason.as_deref(), Some("too??old"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_unless_it_is_wanted() {
    let rig = Rig::new();
    let reports = rig.open();
    reports.note(&Settings::default(), &rig.session());
    assert_eq!(rig.tally(&reports), None);
    reports.0.state.lock().silent.insert(rig.domain.clone());
    reports.note(&rig.settings, &rig.session());
    assert_eq!(rig.tally(&reports), None);
}

#[tokio::test(start_paused = true)]
async fn domains_beyond_the_bound_are_not_counted_and_that_is() {
    let mut rig = Rig::new();
    rig.settings.limits.tls_reports = 1;
    let reports = rig.open();
    let other = "example.org".parse().unwrap();
    for domain in [&rig.domain, &other, &rig.domain] {
        reports.note(&rig.settings, &Session { domain, ..rig.session() });
    }
    assert_eq!(rig.tally(&reports).unwrap().policies[0].failures, 2);
    assert_eq!((reports.0.state.lock().days.len(), rig.metrics.tls_report_uncounted.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_what_was_saved() {
    let rig = Rig::new();
    let reports = rig.open();
    reports.note(&rig.settings, &rig.session());
    reports.0.state.lock().days.values_mut().for_each(|entry| entry.wanted = true);
    reports.save().await;
    drop(reports);
    let reports = rig.open();
    reports.note(&rig.settings, &rig.session());
    assert_eq!(rig.tally(&reports).unwrap().policies[0].failures, 2);
    reports.save().await;
    // On the next day it is no longer today's.
    drop(reports);
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    assert_eq!(rig.tally(&rig.open()), None);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_too_large_keeps_no_other_from_being_saved() {
    let rig = Rig::new();
    let reports = rig.open();
    let row = |place: &str| Row::V1(Stored { done: vec![place.to_owned()], ..Stored::default() });
    let [first, large, last] = ["00000001/a.example", "00000001/b.example", "00000001/c.example"].map(str::to_owned);
    reports.write(vec![Change::Put(large.clone(), row("before"))]).await;
    let changes = vec![
        Change::Put(first.clone(), row("x")),
        Change::Put(large.clone(), row(&"x".repeat(70_000))),
        Change::Put(last.clone(), row("x")),
    ];
    reports.write(changes).await;
    let kept = |key: &String| reports.0.table.get(key).unwrap().is_some();
    assert_eq!([&first, &large, &last].map(kept), [true, false, true]);
    assert_eq!(rig.metrics.tls_report_uncounted.get(), 1);
}
