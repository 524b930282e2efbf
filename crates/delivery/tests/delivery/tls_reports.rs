//! Daily reports about TLS (TLSRPT, RFC 8460), from the sessions to the report
//! that arrives.

use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;
use mail_parser::{MessageParser, MimeHeaders};
use postrider_base::metrics::TlsReport;
use postrider_delivery::Settings;
use postrider_dns::Tlsa;
use serde_json::{Value, json};

use crate::rig::{DAY, HOUR, Rig, is_delivered, routes};
use crate::server::{Say, Server, Setup};
use crate::web::{Authority, Reply, Web};

const MX: &str = "198.51.100.1:25";
const REPORTS: &str = "198.51.100.2:25";

/// A domain with one host, whose certificate is for this name.
struct World {
    rig: Rig,
    authority: Authority,
    settings: Settings,
    /// The host; it refuses TLS when there is no name.
    mx: Server,
}

impl World {
    async fn new(certificate: Option<&str>) -> Self {
        let (rig, authority) = (Rig::new().await, Authority::new());
        rig.mx("example.com", "mx.example.com", "198.51.100.1");
        rig.mx("reports.example", "mx.reports.example", "198.51.100.2");
        let acceptor = certificate.map(|name| authority.acceptor(name));
        let mx = Server::with(&rig.net, MX, Setup { acceptor, ..Setup::default() }, |_| Say::Usual);
        let mut settings = routes(&[]);
        settings.tls.ca_file = Some(authority.file());
        settings.tls.reports.contact = Some("postmaster@example.net".parse().unwrap());
        settings.tls.reports.organization = Some("Example Ltd.".into());
        Self { rig, authority, settings, mx }
    }

    fn wants(&self, rua: &str) {
        self.rig.zones.add_txt("_smtp._tls.example.com", &format!("v=TLSRPTv1;rua={rua}"));
    }

    /// The domain's policy.
    fn publishes(&self, mode: &str, mx: &str) -> Web {
        self.rig.zones.add_txt("_mta-sts.example.com", "v=STSv1; id=1;");
        self.rig.zones.add_address("mta-sts.example.com", "198.51.100.80");
        let policy = format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 604800\n");
        let acceptor = self.authority.acceptor("mta-sts.example.com");
        Web::start(&self.rig.net, "198.51.100.80:443", acceptor, Reply::text(&policy))
    }

    /// Messages over a connection each.
    async fn send(&mut self, count: usize) {
        for n in 0..count {
            let id = self.rig.send(&[&format!("ann{n}@example.com")]).await;
            self.rig.outcome(id).await;
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    }
}

fn unzipped(bytes: &[u8]) -> Value {
    let mut json = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut json).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// The report in a message as it arrived.
fn report_in(message: &str) -> Value {
    let mail = MessageParser::new().parse(message.as_bytes()).unwrap();
    assert_eq!(mail.header("TLS-Report-Domain").unwrap().as_text(), Some("example.com"));
    assert_eq!(mail.header("TLS-Report-Submitter").unwrap().as_text(), Some("relay.example.net"));
    let part = mail.attachment(0).unwrap();
    assert_eq!(part.content_type().unwrap().subtype(), Some("tlsrpt+gzip"));
    unzipped(part.contents())
}

#[tokio::test(start_paused = true)]
async fn a_day_of_sessions_becomes_one_report_by_mail() {
    let mut world = World::new(Some("mx.example.com")).await;
    world.wants("mailto:tls@reports.example");
    // It takes mail without TLS, and the report says `TLS-Required: No`.
    let reports = Server::start(&world.rig.net, REPORTS);
    world.rig.deliver(world.settings.clone());
    world.send(3).await;
    assert_eq!(world.mx.seen().connections, 3);
    reports.until(|seen| !seen.messages.is_empty()).await;
    let message = reports.seen().messages.remove(0);
    assert_eq!(
        report_in(&message),
        json!({
            "organization-name": "Example Ltd.",
            "date-range": { "start-datetime": "2023-11-14T00:00:00Z", "end-datetime": "2023-11-14T23:59:59Z" },
            "contact-info": "postmaster@example.net",
            "report-id": "2023-11-14.example.com@relay.example.net",
            "policies": [{
                "policy": { "policy-type": "no-policy-found", "policy-domain": "example.com" },
                "summary": { "total-successful-session-count": 3, "total-failure-session-count": 0 }
            }]
        })
    );
    assert!(reports.seen().with("MAIL")[0].starts_with("MAIL FROM:<>"));
    // Within the first hours of the next day, and once.
    assert!(world.rig.clock.now().rfc3339().as_str() < "2023-11-15T04:05");
    tokio::time::sleep(3 * DAY).await;
    assert_eq!(reports.seen().messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_enforcement_kept_from_leaving_is_reported_over_https() {
    let mut world = World::new(Some("other.example.com")).await;
    world.publishes("enforce", "mx.example.com");
    world.wants("https://reports.example/v1/tlsrpt");
    world.rig.zones.add_address("reports.example", "198.51.100.81");
    let acceptor = world.authority.acceptor("reports.example");
    let web = Web::start(&world.rig.net, "198.51.100.81:443", acceptor, Reply::status("503 Later", "text/plain", ""));
    world.rig.deliver(world.settings.clone());
    let id = world.rig.send(&["ann@example.com"]).await;
    assert_eq!(world.rig.outcome(id).await.status.to_string(), "4.7.5");
    tokio::time::sleep(7 * HOUR).await;
    let refused = web.requests().len();
    assert!(refused > 0);
    web.now_replies(Reply::status("201 Created", "text/plain", ""));
    tokio::time::sleep(5 * HOUR).await;
    let requests = web.requests();
    assert_eq!(requests.len(), refused + 1, "once it is taken it is not sent again");
    let request = requests.last().unwrap();
    let head = request.head.to_lowercase();
    assert!(head.starts_with("post /v1/tlsrpt http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/tlsrpt+gzip\r\n"), "{head}");
    let policy = &unzipped(&request.body)["policies"][0];
    assert_eq!(policy["policy"]["policy-type"], "sts");
    assert_eq!(policy["policy"]["policy-string"][2], "mx: mx.example.com");
    assert_eq!(policy["summary"]["total-successful-session-count"], 0);
    let details = &policy["failure-details"][0];
    assert_eq!(details["result-type"], "certificate-host-mismatch");
    assert_eq!(details["receiving-mx-hostname"], "mx.example.com");
    assert_eq!(details["receiving-ip"], "198.51.100.1");
    assert_eq!(details["failed-session-count"], policy["summary"]["total-failure-session-count"]);
    assert_eq!(world.rig.metrics.tls_reports.of(TlsReport::Sent).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_testing_would_have_kept_is_reported_and_delivered() {
    for (certificate, names, expected) in [
        (None, "mx.example.com", "starttls-not-supported"),
        (Some("other.example.com"), "mx.example.com", "certificate-not-trusted"),
        (Some("mx.example.com"), "*.mail.example.com", "validation-failure"),
    ] {
        let mut world = World::new(certificate).await;
        world.publishes("testing", names);
        world.wants("mailto:tls@reports.example");
        let reports = Server::start(&world.rig.net, REPORTS);
        world.rig.deliver(world.settings.clone());
        world.send(2).await;
        assert_eq!(world.mx.seen().messages.len(), 2);
        reports.until(|seen| !seen.messages.is_empty()).await;
        let report = report_in(&reports.seen().messages[0]);
        assert_eq!(report["policies"][0]["policy"]["policy-type"], "sts");
        let details = &report["policies"][0]["failure-details"];
        assert_eq!((&details[0]["result-type"], &details[0]["failed-session-count"]), (&json!(expected), &json!(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn tlsa_records_of_which_none_counts_are_reported_and_mail_is_encrypted() {
    let mut world = World::new(Some("mx.example.com")).await;
    world.wants("mailto:tls@reports.example");
    let zones = &world.rig.zones;
    zones.set_authenticated(true).remove("example.com").remove("mx.example.com");
    zones.add_tlsa("mx.example.com", 25, Tlsa { usage: 1, selector: 1, matching: 1, data: vec![1; 32] });
    world.rig.mx("example.com", "mx.example.com", "198.51.100.1");
    let reports = Server::start(&world.rig.net, REPORTS);
    world.rig.deliver(world.settings.clone());
    world.send(2).await;
    assert_eq!(world.mx.seen().messages.len(), 2);
    reports.until(|seen| !seen.messages.is_empty()).await;
    let report = report_in(&reports.seen().messages.remove(0));
    let [policy] = report["policies"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!(policy["policy"]["policy-type"], "tlsa");
    let details = &policy["failure-details"][0];
    assert_eq!((&details["result-type"], &details["failed-session-count"]), (&json!("tlsa-invalid"), &json!(2)));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_had_is_reported() {
    let mut world = World::new(Some("mx.example.com")).await;
    world.publishes("enforce", "mx.example.com").now_replies(Reply::text("version: STSv2\n"));
    world.wants("mailto:tls@reports.example");
    let reports = Server::start(&world.rig.net, REPORTS);
    world.rig.deliver(world.settings.clone());
    world.send(1).await;
    reports.until(|seen| !seen.messages.is_empty()).await;
    let policy = &report_in(&reports.seen().messages[0])["policies"][0];
    assert_eq!(policy["policy"]["policy-type"], "no-policy-found");
    assert_eq!(policy["failure-details"][0]["result-type"], "sts-policy-invalid");
    assert_eq!(policy["summary"], json!({ "total-successful-session-count": 1, "total-failure-session-count": 1 }));
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_a_report_who_does_not_ask_or_without_a_contact() {
    for (asks, contact) in [(false, true), (true, false)] {
        let mut world = World::new(Some("mx.example.com")).await;
        if asks {
            world.wants("mailto:tls@reports.example");
        }
        if !contact {
            world.settings.tls.reports.contact = None;
        }
        let reports = Server::start(&world.rig.net, REPORTS);
        world.rig.deliver(world.settings.clone());
        world.send(2).await;
        tokio::time::sleep(2 * DAY).await;
        assert_eq!(reports.seen().connections, 0);
        let questions = world.rig.zones.queries("_smtp._tls.example.com");
        assert_eq!(questions, usize::from(contact), "asked once a day, if at all");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_never_takes_the_report_is_given_up_after_a_day() {
    let mut world = World::new(Some("mx.example.com")).await;
    world.wants("https://reports.example/");
    world.rig.deliver(world.settings.clone());
    let id = world.rig.send(&["ann@example.com"]).await;
    assert!(is_delivered(&world.rig.outcome(id).await));
    let given_up = || world.rig.metrics.tls_reports.of(TlsReport::Failed).get();
    tokio::time::sleep(20 * HOUR).await;
    assert_eq!(given_up(), 0);
    tokio::time::sleep(14 * HOUR).await;
    assert_eq!(given_up(), 1);
    assert_eq!(world.rig.metrics.tls_reports.of(TlsReport::Sent).get(), 0);
}
