//! What SMTP extensions ask of acceptance.

use std::time::Duration;

use postrider_account::ConfigurationOption;
use postrider_base::Period;
use postrider_mail::{AccountId, BodyType};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn simple() -> SubmissionRequest {
    request(Some("a@example.com"), &["b@example.org"], &["Subject: x\r\n\r\n"])
}

#[tokio::test(start_paused = true)]
async fn a_held_message_waits_and_lives_from_its_release() {
    let world = world().await;
    let until = NOW.saturating_add(50 * HOUR);
    let id = world.submission.submit(SubmissionRequest { hold: Some(until), ..simple() }).await.unwrap();
    let queued = world.spool.show(id).await.unwrap().unwrap();
    assert_eq!(queued.recipients[0].next_attempt, Some(until));
    let (message, _) = world.due().await;
    assert_eq!((message.accepted_at, message.not_before), (id.timestamp(), Some(until)));
    assert_eq!(message.expires_at, until.saturating_add(96 * HOUR));
}

#[tokio::test]
async fn a_hold_that_has_passed_is_none_and_one_too_long_is_refused() {
    let world = world().await;
    let past = Some(Timestamp::from_millis(1));
    world.submission.submit(SubmissionRequest { hold: past, ..simple() }).await.unwrap();
    assert_eq!(world.due().await.0.not_before, None);
    let week = 7 * 24 * HOUR;
    assert_eq!(world.submission.check_hold(NOW.saturating_add(week)), Ok(()));
    let too_long = NOW.saturating_add(2 * week);
    let refusal = Refusal::HoldTooLong(604_800);
    assert_eq!(world.submission.check_hold(too_long), Err(refusal.clone()));
    assert_eq!(world.submission.submit(SubmissionRequest { hold: Some(too_long), ..simple() }).await, Err(refusal));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_set_makes_the_life_of_its_messages_shorter_and_never_longer() {
    for (set, hours, expected) in [("codes", Some(1), 1), ("letters", Some(13), 13), ("plain", None, 96)] {
        let world = world_with(|settings| settings.expiry = Period::from_hours(96), Default::default()).await;
        let options = vec![ConfigurationOption::MaxLifetime(hours.map(Period::from_hours))];
        world.accounts.configuration_sets().create(AccountId::default(), set, options).await.unwrap();
        let content: &'static str = format!("X-SES-CONFIGURATION-SET: {set}\r\nSubject: x\r\n\r\n").leak();
        let request = request(Some("a@example.com"), &["b@example.org"], &[content]);
        world.submission.submit(request).await.unwrap();
        let (message, _) = world.due().await;
        assert_eq!(message.origin.configuration_set.as_deref(), Some(set));
        assert_eq!(message.expires_at, message.accepted_at.saturating_add(expected * HOUR), "{set}");
    }
}

#[tokio::test]
async fn tls_required_no_is_carried_and_required_tls_wins() {
    for (field, require_tls, optional) in [
        ("TLS-Required: No\r\n", false, true),
        ("tls-required:\r\n nO\r\n", false, true),
        ("TLS-Required: No\r\n", true, false),
        ("TLS-Required: Yes\r\n", false, false),
        ("TLS-Required: No\r\nTLS-Required: No\r\n", false, false),
        ("", false, false),
    ] {
        let world = world().await;
        let content: &'static str = format!("{field}Subject: x\r\n\r\n").leak();
        let mut request = request(Some("a@example.com"), &["b@example.org"], &[content]);
        request.envelope.require_tls = require_tls;
        world.submission.submit(request).await.unwrap();
        let (message, bytes) = world.due().await;
        assert_eq!((message.tls_optional, message.envelope.require_tls), (optional, require_tls), "{field:?}");
        assert!(bytes.contains(field), "the field goes on with the message");
    }
}

#[tokio::test]
async fn binary_content_is_not_touched() {
    let world = world().await;
    let body: &'static [u8] = b"\0\r\n.\r\n..\n\r\xff\xfe\r\r\n\nSubject: no\n";
    let mut request = request(Some("a@example.com"), &["b@example.org"], &["Subject: x\r\n\r\n"]);
    request.envelope.body = BodyType::BinaryMime;
    request.content.extend([Bytes::from_static(&body[..5]), Bytes::from_static(&body[5..])]);
    world.submission.submit(request).await.unwrap();
    let claim = world.spool.take_due(1).await.pop().unwrap();
    assert_eq!(claim.message.envelope.body, BodyType::BinaryMime);
    let content = claim.content().await.unwrap().to_bytes();
    let at = memchr::memmem::find(&content, b"\r\n\r\n").unwrap();
    assert_eq!(&content[at + 4..], body);
}

#[tokio::test]
async fn a_raw_utf8_header_passes_without_smtputf8() {
    let world = world().await;
    let text = "Subject: Gr\u{fc}\u{df}e\r\n\r\n";
    world.submission.submit(request(Some("a@example.com"), &["b@example.org"], &[text])).await.unwrap();
    let (message, bytes) = world.due().await;
    assert!(!message.envelope.smtp_utf8 && bytes.contains("Subject: Gr\u{fc}\u{df}e\r\n"));
}

#[tokio::test]
async fn own_mail_about_a_message_that_required_tls_requires_it() {
    let world = world().await;
    for require_tls in [true, false] {
        let id = world.submission.new_id();
        let own = world.submission.own_message(OwnMessage {
            id,
            account: AccountId::default(),
            to: "a@example.com".parse().unwrap(),
            kind: OriginKind::Dsn { of: id },
            require_tls,
            content: b"Subject: x\r\n\r\n".to_vec(),
        });
        assert_eq!(own.envelope.require_tls, require_tls);
    }
}
