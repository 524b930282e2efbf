//! Each event as its reader gets it.

use super::*;
use crate::samples::{ACCEPTED, id, issuer, later, message, outcome};
use postrider_base::Period;
use postrider_mail::SuppressionSource;
use serde_json::{Value, json};

fn send(record: &AcceptedRecord) -> (BytesMut, Cuts) {
    let mut out = BytesMut::from("before");
    let cuts = write_send(&mut out, record, &issuer()).unwrap();
    let event = out.split_off(6);
    (event, cuts)
}

/// The event that `write` makes of a message to a@ and b@example.net.
fn event(write: impl FnOnce(&Subject<'_>, &mut BytesMut) -> Result<()>) -> Value {
    let record = message(1, &["a@example.net", "b@example.net"]);
    let (sent, cuts) = send(&record);
    let recipients: Vec<EmailAddress> = record.envelope.recipients.into_iter().map(|r| r.address).collect();
    let subject = Subject {
        id: id(1),
        accepted_at: ACCEPTED,
        expires_at: record.expires_at,
        recipients: &recipients,
        mail: &Mail::of_send(&sent, cuts).unwrap(),
        issuer: &issuer(),
    };
    let mut out = BytesMut::new();
    write(&subject, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn mail() -> Value {
    json!({
        "timestamp": "2017-08-05T00:40:02.012Z",
        "source": "bounces@mail.example.com",
        "sourceArn": "arn:aws:ses:us-east-1:000000000001:identity/example.com",
        "sendingAccountId": "000000000001",
        "messageId": id(1).to_string(),
        "destination": ["a@example.net", "b@example.net"],
        "headersTruncated": false,
        "headers": [
            {"name": "From", "value": "\"Doe, Jane\" <jane@example.com>"},
            {"name": "to", "value": "a@example.net, B <b@example.net>"},
            {"name": "Subject", "value": "Say \"hi\"\u{2028}"},
            {"name": "Message-ID", "value": "<own@example.com>"},
        ],
        "commonHeaders": {
            "from": ["\"Doe, Jane\" <jane@example.com>"],
            "to": ["a@example.net", "B <b@example.net>"],
            "messageId": id(1).to_string(),
            "subject": "Say \"hi\"\u{2028}",
        },
        "tags": {
            "ses:configuration-set": ["ConfigSet"],
            "ses:source-ip": ["192.0.2.10"],
            "ses:from-domain": ["example.com"],
            "ses:caller-identity": ["AKIAEXAMPLE000000001"],
            "campaign": ["book", "two"],
        },
    })
}

#[test]
fn send_has_the_whole_mail_object() {
    let (sent, _) = send(&message(1, &["a@example.net", "b@example.net"]));
    assert!(!sent.contains(&b'\n'));
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent, json!({"eventType": "Send", "mail": mail(), "send": {}}));
}

#[test]
fn the_identity_that_acceptance_found_is_the_source() {
    let mut record = message(1, &["a@example.net"]);
    let arn = "arn:aws:ses:us-east-1:000000000002:identity/jane@example.com";
    record.origin.tags.push((SOURCE_ARN_TAG.to_owned(), arn.to_owned()));
    let sent: Value = serde_json::from_slice(&send(&record).0).unwrap();
    assert_eq!(sent["mail"]["sourceArn"], json!(arn));
    assert_eq!(sent["mail"]["tags"], mail()["tags"], "it is no tag that is shown");
}

#[test]
fn a_bare_message_has_what_is_known() {
    let mut record = message(1, &["a@example.net"]);
    record.envelope.sender = None;
    record.origin = postrider_spool::Origin::default();
    let (sent, cuts) = send(&record);
    let parsed: Value = serde_json::from_slice(&sent).unwrap();
    let mail = &parsed["mail"];
    assert_eq!((&mail["source"], &mail["tags"]), (&json!(""), &json!({})));
    assert_eq!(mail.get("sourceArn"), None);
    let mut out = BytesMut::new();
    let mail = Mail::of_send(&sent, cuts).unwrap();
    mail.write_with_outgoing_ip(&mut out, "192.0.2.1".parse().unwrap()).unwrap();
    let mail: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(mail["tags"], json!({"ses:outgoing-ip": ["192.0.2.1"]}));
}

#[test]
fn what_is_no_send_event_is_refused() {
    let (sent, cuts) = send(&message(1, &["a@example.net"]));
    let elsewhere = Cuts { tags: 1 << 20, ..cuts };
    assert!(Mail::of_send(&sent, elsewhere).is_err());
    assert!(Mail::of_send(&sent[1..], cuts).is_err());
    assert!(Mail::of_send(b"", cuts).is_err());
}

#[test]
fn deliveries() {
    let at = ACCEPTED.saturating_add(std::time::Duration::from_millis(11_893));
    let [a, b] = [0, 1].map(|r| outcome(r, at, Disposition::Delivered, "250 2.6.0 Message received"));
    let mut expected = mail();
    expected["tags"]["ses:outgoing-ip"] = json!(["192.0.2.1"]);
    assert_eq!(
        event(|subject, out| subject.write_delivery(out, &[&a, &b])),
        json!({"eventType": "Delivery", "mail": expected, "delivery": {
            "timestamp": "2017-08-05T00:40:13.905Z",
            "processingTimeMillis": 11893,
            "recipients": ["a@example.net", "b@example.net"],
            "smtpResponse": "250 2.6.0 Message received",
            "reportingMTA": "mta.example.com",
        }})
    );
}

#[test]
fn delays_leave_the_headers_out() {
    let delay = DelayType::TransientCommunicationFailure;
    let reply = "421 4.4.1 Unable to connect to remote host";
    let b = outcome(1, later(Period::from_mins(1)), Disposition::Deferred(delay), reply);
    let mut expected = mail();
    expected.as_object_mut().unwrap().retain(|name, _| name != "headers" && name != "commonHeaders");
    assert_eq!(
        event(|subject, out| subject.write_delay(out, &[&b], delay)),
        json!({"eventType": "DeliveryDelay", "mail": expected, "deliveryDelay": {
            "timestamp": "2017-08-05T00:41:02.012Z",
            "delayType": "TransientCommunicationFailure",
            "expirationTime": "2017-08-09T00:40:02.012Z",
            "delayedRecipients": [{
                "emailAddress": "b@example.net", "status": "4.4.1",
                "diagnosticCode": "smtp; 421 4.4.1 Unable to connect to remote host",
            }],
        }})
    );
}

#[test]
fn bounces_have_an_id_of_their_own() {
    let kind = BounceKind::PermanentGeneral;
    let at = later(Period::from_mins(1));
    let a = outcome(0, at, Disposition::Bounced(kind), "550 5.1.1 user unknown");
    let bounce = |lsn| event(|subject, out| subject.write_bounce(out, &[&a], kind, (Lsn::new(lsn), 0)));
    let made = bounce(7);
    let feedback: MessageId = made["bounce"]["feedbackId"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        made,
        json!({"eventType": "Bounce", "mail": mail(), "bounce": {
            "bounceType": "Permanent",
            "bounceSubType": "General",
            "bouncedRecipients": [{
                "emailAddress": "a@example.net", "action": "failed", "status": "5.1.1",
                "diagnosticCode": "smtp; 550 5.1.1 user unknown",
            }],
            "timestamp": "2017-08-05T00:41:02.012Z",
            "feedbackId": feedback.to_string(),
            "reportingMTA": "dns; mta.example.com",
        }})
    );
    assert_eq!(feedback.timestamp(), at);
    assert_eq!(made, bounce(7), "made again it has another id");
    assert_ne!(made, bounce(8), "another bounce has the same id");
}

#[test]
fn rejections_have_a_reason() {
    let made = event(|subject, out| {
        subject.write_reject(out);
        Ok(())
    });
    assert_eq!(made, json!({"eventType": "Reject", "mail": mail(), "reject": {"reason": "Bad content"}}));
}

#[test]
fn the_suppressed_bounce_or_complain() {
    use SuppressionList::{Account, Global};
    use SuppressionReason::{Bounce, Complaint};
    assert_eq!(bounce_of_suppressed(Account, Bounce), Some(BounceKind::PermanentOnAccountSuppressionList));
    assert_eq!(bounce_of_suppressed(Global, Complaint), Some(BounceKind::PermanentSuppressed));
    assert_eq!(bounce_of_suppressed(Account, Complaint), None);
    let source = SuppressionSource { list: Account, reason: Complaint };
    let b = outcome(1, ACCEPTED, Disposition::Suppressed(source), "on the list");
    let made = event(|subject, out| subject.write_complaint(out, &[&b], (Lsn::new(7), 0)));
    assert_eq!(made["eventType"], "Complaint");
    assert_eq!(made["complaint"]["complainedRecipients"], json!([{"emailAddress": "b@example.net"}]));
    assert_eq!(made["complaint"]["complaintSubType"], "OnAccountSuppressionList");
}
