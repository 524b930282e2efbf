use super::*;
use crate::Stage;
use proptest::prelude::*;

struct Case {
    to: EmailAddress,
    address: EmailAddress,
    remote: Remote,
    original: Vec<Bytes>,
    diagnostic: String,
    orcpt: Option<String>,
}

fn case() -> Case {
    Case {
        to: "sender@example.org".parse().unwrap(),
        address: "bob@example.com".parse().unwrap(),
        remote: Remote { host: "mx.example.com".into(), ip: None, port: 25, source_ip: None, stage: Stage::RcptTo },
        original: vec![
            Bytes::from_static(b"From: sender@example.org\r\nSubj"),
            Bytes::from_static(b"ect: Minutes\r\n\r\nThe secret body\r\n"),
        ],
        diagnostic: "550 5.1.1 user unknown".into(),
        orcpt: Some("rfc822;Bob@example.com".into()),
    }
}

fn build_text(case: &Case, action: Action, ret: Ret) -> String {
    let from = "mailer-daemon@relay.example.org".parse().unwrap();
    let writer = DsnWriter {
        reporting_mta: "relay.example.org",
        from: &from,
        message_id: "1@relay.example.org",
        date: Timestamp::from_millis(1_501_893_662_669),
        boundary: 7,
    };
    let request = DsnRequest {
        action,
        to: &case.to,
        id: MessageId::from_bytes([1; 24]),
        arrival: Timestamp::from_millis(1_501_893_000_000),
        retry_until: Some(Timestamp::from_millis(1_501_999_000_000)),
        envid: Some("QQ314159"),
        recipients: &[DsnRecipient {
            address: &case.address,
            orcpt: case.orcpt.as_deref(),
            status: EnhancedStatus::new(5, 1, 1),
            diagnostic: &case.diagnostic,
            remote: Some(&case.remote),
            at: Timestamp::from_millis(1_501_893_661_000),
        }],
        original: &case.original,
        ret,
    };
    String::from_utf8(build(&writer, &request)).unwrap()
}

fn lines(text: &str) -> Vec<&str> {
    text.split("\r\n").collect()
}

#[test]
fn a_failure_tells_person_and_program() {
    let text = build_text(&case(), Action::Failed, Ret::Headers);
    let lines = lines(&text);
    for line in [
        "To: <sender@example.org>",
        "Auto-Submitted: auto-replied",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "    Reason (mx.example.com was tried last):",
        "    550 5.1.1 user unknown",
        "Subject of your message: Minutes",
        "Content-Type: message/delivery-status",
        "Original-Envelope-Id: QQ314159",
        "Reporting-MTA: dns; relay.example.org",
        "Original-Recipient: rfc822;Bob@example.com",
        "Final-Recipient: rfc822; bob@example.com",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; mx.example.com",
        "Diagnostic-Code: smtp; 550 5.1.1 user unknown",
        "Last-Attempt-Date: Sat, 05 Aug 2017 00:41:01 +0000",
        "Content-Type: text/rfc822-headers",
        "Subject: Minutes",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("secret body"));
    assert!(!text.contains("Will-Retry-Until"));
    assert!(text.ends_with("--postrider-00000000000000000000000000000007--\r\n"));
    assert_eq!(text.matches("\r\n--postrider-").count(), 4);
}

#[test]
fn the_whole_message_returns_only_with_a_failure() {
    let text = build_text(&case(), Action::Failed, Ret::Full);
    assert!(text.contains("Content-Type: message/rfc822\r\n"));
    assert!(text.contains("\r\n\r\nThe secret body\r\n"));
    let text = build_text(&case(), Action::Delayed, Ret::Full);
    assert!(!text.contains("secret body"));
    assert!(text.contains("Will-Retry-Until: "));
    assert!(text.contains("Action: delayed\r\n"));
    let text = build_text(&case(), Action::Relayed, Ret::Full);
    assert!(!text.contains("secret body"));
}

#[test]
fn international_addresses_and_headers() {
    let mut case = case();
    case.address = "jürgen@bücher.example".parse().unwrap();
    case.original = vec![Bytes::from("Subject: Grüße\r\n\r\n")];
    let text = build_text(&case, Action::Failed, Ret::Headers);
    assert!(text.contains("Content-Type: message/global-delivery-status\r\n"));
    assert!(text.contains("Final-Recipient: utf-8; j=C3=BCrgen@xn--bcher-kva.example\r\n"));
    assert!(text.contains("Content-Type: message/global-headers\r\n"));
    assert!(text.contains("\r\nSubject: Gr=C3=BC=C3=9Fe\r\n"));
    assert!(text.is_ascii(), "every host can take it");
    assert_eq!(text.matches("Content-Transfer-Encoding: quoted-printable\r\n").count(), 3);
    // In another encoding than UTF-8.
    case.original = vec![Bytes::from_static(b"Subject: Gr\xfc\xdfe\r\n\r\n")];
    let text = build_text(&case, Action::Failed, Ret::Headers);
    assert!(text.contains("Content-Type: text/rfc822-headers\r\n") && text.contains("Subject: Gr=FC=DFe\r\n"));
}

#[test]
fn what_is_returned_whole_stays_as_it_was() {
    let mut case = case();
    case.original = vec![Bytes::from("Subject: x\r\n\r\nGrüße\r\n")];
    let text = build_text(&case, Action::Failed, Ret::Full);
    assert!(text.contains("Content-Type: message/rfc822\r\n"));
    assert!(text.contains("Content-Transfer-Encoding: 8bit\r\n\r\nSubject: x\r\n\r\nGrüße\r\n"));
}

#[test]
fn a_reply_in_another_language_is_quoted_for_people_alone() {
    let mut case = case();
    case.diagnostic = "550 5.1.1 unbekannter Empfänger".into();
    let text = build_text(&case, Action::Failed, Ret::Headers);
    assert!(text.contains("unbekannter Empf=C3=A4nger"));
    assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.1 unbekannter Empf?nger\r\n"));
    case.address = "jürgen@bücher.example".parse().unwrap();
    let text = build_text(&case, Action::Failed, Ret::Headers);
    assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.1 unbekannter Empf=C3=A4nger\r\n"));
}

#[test]
fn a_quoted_local_part_keeps_its_blanks() {
    let mut case = case();
    case.to = "\"a  b\"@example.org".parse().unwrap();
    let text = build_text(&case, Action::Failed, Ret::Headers);
    assert!(text.contains("\r\nTo: <\"a  b\"@example.org>\r\n"));
}

#[test]
fn own_words_are_no_smtp_reply() {
    let mut case = case();
    case.diagnostic = "connection refused".into();
    let text = build_text(&case, Action::Failed, Ret::Headers);
    assert!(text.contains("Diagnostic-Code: x-postrider; connection refused\r\n"));
}

#[test]
fn hostile_text_adds_no_line() {
    let mut case = case();
    case.diagnostic = "550 a\r\nAction: delivered\r\n\r\n--x".into();
    case.orcpt = Some("rfc822;x\r\nStatus: 2.0.0".into());
    case.remote.host = "mx\r\nBcc: y".into();
    let text = build_text(&case, Action::Failed, Ret::Headers);
    let lines = lines(&text);
    assert!(!lines.iter().any(|l| l.starts_with("Action: delivered")));
    assert!(!lines.iter().any(|l| l.starts_with("Status: 2")));
    assert!(!lines.iter().any(|l| l.starts_with("Bcc")));
}

proptest! {
    #[test]
    fn any_diagnostic_keeps_the_form(diagnostic in any::<String>()) {
        let text = build_text(&Case { diagnostic, ..case() }, Action::Failed, Ret::Headers);
        prop_assert_eq!(text.matches("\r\nAction: ").count(), 1);
        prop_assert!(text.split("\r\n").all(|line| line.len() <= 998));
        prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    }
}
