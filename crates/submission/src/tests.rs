//! Acceptance from AUTH to the spool, as the listener and delivery use it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_account::{Accounts, Authenticated, ImportedSecret, NewCredential};
use postrider_base::metrics::AuthResult;
use postrider_base::{Clock, Metrics, Random, SimDisk, Timestamp};
use postrider_mail::dsn::{Action, DsnRequest};
use postrider_mail::{AccountId, EmailAddress, Envelope, MessageId, Notify, Recipient, Ret, TlsInfo};
use postrider_spool::{Driver, Message, NewMessage, OriginKind, Spool, SpoolOptions};
use postrider_store::Store;
use secrecy::SecretString;

use crate::{
    AuthStep, Client, Notification, OwnMessage, Refusal, Settings, Submission, SubmissionDeps, SubmissionRequest,
    UnverifiedSenders, Verdict,
};

mod authorization;
mod extensions;
mod identities;
mod quotas;

const USER: &str = "AKIAIOSFODNN7EXAMPLE";
const PASSWORD: &str = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9";
const NOW: Timestamp = Timestamp::from_millis(1_501_893_662_669);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

struct World {
    disk: SimDisk,
    accounts: Accounts,
    spool: Spool,
    metrics: Metrics,
    submission: Submission,
    _index: tempfile::TempDir,
}

async fn world_with(change: fn(&mut Settings), spool_settings: postrider_spool::Settings) -> World {
    let index = tempfile::tempdir().unwrap();
    let options =
        postrider_store::Options { index_dir: Some(index.path().to_owned()), ..postrider_store::Options::default() };
    let disk = SimDisk::new();
    let (clock, random, metrics) = (Clock::simulated(NOW), Random::seeded(3), Metrics::new());
    let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
    let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
    let secret = ImportedSecret::parse(&SecretString::from(PASSWORD)).unwrap();
    accounts.credentials().import(USER, secret, NewCredential::default()).await.unwrap();
    let spool = Spool::open(SpoolOptions {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from("/spool"),
        index_dir: None,
        clock: clock.clone(),
        settings: spool_settings,
        metrics: metrics.clone(),
        feeds: &[],
        start_held: false,
        accept_loss: false,
        driver: Driver::Task,
    });
    let spool = spool.await.unwrap();
    let mut settings = Settings {
        hostname: Some("mx.example.net".into()),
        operator_domain: Some("example.net".into()),
        unverified_senders: UnverifiedSenders::Accept,
        ..Settings::default()
    };
    change(&mut settings);
    let deps =
        SubmissionDeps { spool: spool.clone(), accounts: accounts.clone(), clock, random, metrics: metrics.clone() };
    World { disk, accounts, spool, metrics, submission: Submission::new(deps, settings), _index: index }
}

async fn world() -> World {
    world_with(|_| {}, postrider_spool::Settings::default()).await
}

impl World {
    fn auth(&self, mechanism: &str, initial: Option<&[u8]>, responses: &[&[u8]]) -> Vec<AuthStep> {
        let mut exchange = self.submission.sasl(CLIENT);
        let mut steps = vec![exchange.start(mechanism, initial.map(<[u8]>::to_vec))];
        steps.extend(responses.iter().map(|response| exchange.respond(response.to_vec())));
        steps
    }

    fn counted(&self, result: AuthResult) -> u64 {
        self.metrics.auth.of(result).get()
    }

    /// The one message that is due, and its bytes.
    async fn due(&self) -> (Arc<Message>, String) {
        let claims = self.spool.take_due(10).await;
        let content = claims[0].content().await.unwrap().to_bytes();
        (claims[0].message.clone(), String::from_utf8(content.to_vec()).unwrap())
    }
}

fn success() -> AuthStep {
    let account = AccountId::default();
    AuthStep::Success(Authenticated {
        account,
        user_name: USER.into(),
        recipient_overflow: postrider_account::RecipientOverflow::Reject,
    })
}

fn challenge(text: &str) -> AuthStep {
    AuthStep::Challenge(text.as_bytes().to_vec())
}

fn plain(authzid: &str, user: &str, password: &str) -> Vec<u8> {
    [authzid, "\0", user, "\0", password].concat().into_bytes()
}

fn request(sender: Option<&str>, recipients: &[&str], content: &[&'static str]) -> SubmissionRequest {
    let address = |text: &str| text.parse::<EmailAddress>().unwrap();
    SubmissionRequest {
        envelope: Envelope {
            sender: sender.map(address),
            recipients: recipients.iter().map(|text| Recipient::new(address(text))).collect(),
            ..Envelope::default()
        },
        content: content.iter().map(|text| Bytes::from_static(text.as_bytes())).collect(),
        authenticated: Authenticated {
            account: AccountId::default(),
            user_name: USER.into(),
            recipient_overflow: postrider_account::RecipientOverflow::Reject,
        },
        client: Client {
            ip: CLIENT,
            name: "app.example.com".into(),
            protocol: "ESMTPSA".into(),
            tls: Some(TlsInfo { version: "TLSv1.3".into(), cipher: "AES".into(), authenticated: false }),
        },
        hold: None,
    }
}

#[tokio::test]
async fn every_way_to_authenticate_that_clients_take() {
    let world = world().await;
    let (user, password) = (USER.as_bytes(), PASSWORD.as_bytes());
    let whole = plain("", USER, PASSWORD);
    assert_eq!(world.auth("PLAIN", Some(&whole), &[]), [success()]);
    assert_eq!(world.auth("plain", Some(&plain("root", USER, PASSWORD)), &[]), [success()]);
    assert_eq!(world.auth("Plain", None, &[&whole]), [challenge(""), success()]);
    let (name, word) = (challenge("Username:"), challenge("Password:"));
    assert_eq!(world.auth("LOGIN", None, &[user, password]), [name, word.clone(), success()]);
    assert_eq!(world.auth("login", Some(user), &[password]), [word, success()]);
    assert_eq!(world.counted(AuthResult::Success), 5);
}

/// Why an exchange failed.
fn refusal(step: &AuthStep) -> Option<Refusal> {
    match step {
        AuthStep::Failure { refusal, .. } => Some(refusal.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_and_banned() {
    let world = world().await;
    let guess = |n: u32| match world.auth("PLAIN", Some(&plain("", USER, &n.to_string())), &[]).remove(0) {
        AuthStep::Failure { delay, .. } => delay,
        step => panic!("{step:?}"),
    };
    assert_eq!([guess(1), guess(2), guess(3)], [250, 500, 1000].map(Duration::from_millis));
    assert_eq!(world.submission.guard().check(CLIENT), Verdict::Welcome);
    let last = (4..=10).map(guess).fold(Duration::ZERO, Duration::max);
    assert_eq!(last, Duration::from_secs(5), "the longest delay");
    assert!(matches!(world.submission.guard().check(CLIENT), Verdict::Banned { .. }));
    assert_eq!((world.metrics.bans.get(), world.metrics.auth_delayed.get()), (1, 10));
}

#[tokio::test]
async fn a_success_protects_the_address() {
    let world = world().await;
    world.auth("PLAIN", Some(&plain("", USER, PASSWORD)), &[]);
    for n in 0..50 {
        world.auth("PLAIN", Some(&plain("", USER, &n.to_string())), &[]);
    }
    assert_eq!(world.submission.guard().check(CLIENT), Verdict::Welcome);
}

#[tokio::test]
async fn credentials_are_found_by_name_unless_they_are_disabled() {
    let world = world().await;
    assert_eq!(world.submission.credential(USER).unwrap().user_name, USER);
    assert_eq!(world.submission.credential("AKIAIOSFODNN7EXAMPL2"), Err(Refusal::InvalidCredentials));
    world.accounts.credentials().disable(USER).await.unwrap();
    assert_eq!(world.submission.credential(USER), Err(Refusal::Disabled));
}

#[tokio::test]
async fn wrong_credentials_are_refused_in_every_way() {
    let world = world().await;
    let refused = Some(Refusal::InvalidCredentials);
    let last = |steps: Vec<AuthStep>| refusal(steps.last().unwrap());
    for (user, password) in [(USER, "guess"), ("AKIAIOSFODNN7EXAMPL2", PASSWORD), ("x", "y")] {
        assert_eq!(last(world.auth("PLAIN", Some(&plain("", user, password)), &[])), refused);
        assert_eq!(last(world.auth("LOGIN", Some(user.as_bytes()), &[password.as_bytes()])), refused);
    }
    assert_eq!(world.counted(AuthResult::Invalid), 6);
    assert_eq!(last(world.auth("LOGIN", None, &[b"", b""])), refused);

    world.accounts.credentials().disable(USER).await.unwrap();
    let steps = world.auth("PLAIN", Some(&plain("", USER, PASSWORD)), &[]);
    assert_eq!(refusal(&steps[0]), Some(Refusal::Disabled));
    assert_eq!(world.counted(AuthResult::Disabled), 1);
    assert_eq!(world.counted(AuthResult::Success), 0);
}

#[tokio::test]
async fn nonsense_ends_the_exchange() {
    let world = world().await;
    let refused = Some(Refusal::InvalidCredentials);
    let three_nuls = [plain("", USER, PASSWORD), b"\0x".to_vec()].concat();
    for nonsense in [&b""[..], b"\0\0\0\0", b"\xff\xfe\0\xff\0\xff", USER.as_bytes(), b"\0\0password", &three_nuls] {
        assert_eq!(refusal(&world.auth("PLAIN", Some(nonsense), &[])[0]), refused, "{nonsense:?}");
        let steps = world.auth("PLAIN", None, &[nonsense]);
        assert_eq!((&steps[0], refusal(&steps[1])), (&challenge(""), refused.clone()));
    }
    assert_eq!(refusal(&world.auth("LOGIN", Some(b"\xff"), &[])[0]), refused);
    for mechanism in ["CRAM-MD5", "", "SCRAM-SHA-256", "PLAIN LOGIN", "\u{e4}", &"X".repeat(1000)] {
        assert_eq!(refusal(&world.auth(mechanism, None, &[])[0]), Some(Refusal::UnknownMechanism));
    }
}

#[tokio::test]
async fn an_exchange_that_is_over_does_not_go_on() {
    let world = world().await;
    let fault = AuthStep::Failure { refusal: Refusal::AuthFault, delay: Duration::ZERO };
    let mut exchange = world.submission.sasl(CLIENT);
    assert_eq!(exchange.respond(plain("", USER, PASSWORD)), fault);
    exchange.start("PLAIN", None);
    exchange.cancel();
    assert_eq!(exchange.respond(plain("", USER, PASSWORD)), fault);
    // A new AUTH begins anew.
    assert_eq!(exchange.start("LOGIN", None), challenge("Username:"));
    assert_eq!(exchange.start("PLAIN", Some(plain("", USER, PASSWORD))), success());
    assert_eq!(exchange.respond(PASSWORD.into()), fault);
    assert!(!format!("{exchange:?}").contains(PASSWORD));
}

#[tokio::test]
async fn an_accepted_message_is_in_the_spool_byte_for_byte() {
    let world = world().await;
    world.accounts.configuration_sets().create(AccountId::default(), "news", Vec::new()).await.unwrap();
    let content = [
        "X-SES-CONFIGURATION-SET: news\r\nFrom:Sender Name <a@example.com>\r\nBcc: x@example.org\r\nSub",
        "ject: hi\r\n\r\n.body\r\n",
        "more\r\n",
    ];
    let id = world.submission.submit(request(Some("a@example.com"), &["b@example.org"], &content)).await.unwrap();
    assert_eq!(id.node(), 0x0100);
    let date = id.timestamp().rfc5322();
    let (message, bytes) = world.due().await;
    assert_eq!(
        bytes,
        format!(
            "Received: from app.example.com ([192.0.2.7])\r\n\tby mx.example.net with ESMTPSA id {id}\r\n\t\
             (version=TLSv1.3 cipher=AES)\r\n\tfor <b@example.org>;\r\n\t{date}\r\n\
             From:Sender Name <a@example.com>\r\nSubject: hi\r\nDate: {date}\r\n\
             Message-ID: <{id}@us-east-1.example.net>\r\n\r\n.body\r\nmore\r\n"
        )
    );
    assert_eq!((message.id, message.accepted_at), (id, id.timestamp()));
    assert_eq!(message.origin.credential.as_deref(), Some(USER));
    assert_eq!(message.origin.client_ip, Some(CLIENT));
    assert_eq!(message.origin.configuration_set.as_deref(), Some("news"));
    assert_eq!(message.origin.headers.fields.len(), 4);
    assert_eq!(message.expires_at.saturating_since(message.accepted_at).as_secs(), 4 * 24 * 3600);
    assert_eq!(world.metrics.messages_accepted.get(), 1);
    assert_eq!(world.metrics.messages_accepted_bytes.get(), bytes.len() as u64);
    assert_eq!(world.metrics.recipients_accepted.get(), 1);
}

#[tokio::test]
async fn several_recipients_are_not_named_and_the_null_sender_is_taken() {
    let world = world().await;
    let bounce = request(None, &["a@example.com", "b@example.com"], &["Subject: bounce\r\n\r\n"]);
    world.submission.submit(bounce).await.unwrap();
    let (message, bytes) = world.due().await;
    assert_eq!(message.envelope.sender, None);
    assert!(!bytes.contains("@example.com"), "{bytes}");
}

#[tokio::test(start_paused = true)]
async fn as_many_recipients_as_the_settings_allow_are_taken() {
    let most = u32::from(postrider_spool::MAX_RECIPIENTS);
    let world = world_with(
        |settings| settings.max_recipients = u32::from(postrider_spool::MAX_RECIPIENTS),
        postrider_spool::Settings::default(),
    )
    .await;
    let recipients: Vec<_> = (0..most).map(|n| format!("a@{0}.{0}.{0}.{n:060}", "d".repeat(63))).collect();
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    world.submission.submit(request(None, &recipients, &["Subject: x\r\n\r\n"])).await.unwrap();
    assert_eq!(world.metrics.recipients_accepted.get(), u64::from(most));
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused() {
    let world =
        world_with(|s| s.max_message_bytes = postrider_base::Size::from_bytes(70_000), Default::default()).await;
    let submission = &world.submission;
    let one = ["b@example.org"];
    let many = vec!["b@example.org"; 51];
    let text = ["Subject: x\r\n\r\n"];
    let refused = async |request| submission.submit(request).await.unwrap_err();
    assert_eq!(refused(request(None, &many, &text)).await, Refusal::TooManyRecipients(50));
    let long: &'static str = "x".repeat(69_990).leak();
    assert_eq!(refused(request(None, &one, &["A: b\r\n\r\n", long, "xxx"])).await, Refusal::TooLong);
    assert_eq!(submission.check_mail(70_001), Err(Refusal::TooLong));
    assert_eq!(submission.check_mail(70_000), Ok(()));

    assert_eq!(refused(request(Some("\u{e4}@example.com"), &one, &text)).await, Refusal::NonAsciiAddress);
    assert_eq!(refused(request(None, &["\u{e4}@example.com"], &text)).await, Refusal::NonAsciiAddress);
    let mut international = request(None, &["\u{e4}@example.com"], &text);
    international.envelope.smtp_utf8 = true;
    submission.submit(international).await.unwrap();

    let twice = request(None, &one, &["Subject: x\r\nSubject: y\r\n\r\n"]);
    assert_eq!(refused(twice).await, Refusal::DuplicateHeader("Subject"));
    assert_eq!(world.metrics.messages_accepted.get(), 1);
}

#[tokio::test]
async fn a_full_spool_is_a_passing_refusal() {
    let full = postrider_spool::Settings { max_messages: 1, ..Default::default() };
    let world = world_with(|_| {}, full).await;
    let message = || request(None, &["b@example.org"], &["Subject: x\r\n\r\n"]);
    world.submission.submit(message()).await.unwrap();
    assert_eq!(world.submission.submit(message()).await, Err(Refusal::NoRoom));
    assert_eq!(world.submission.check_mail(0), Err(Refusal::NoRoom));
}

#[tokio::test]
async fn a_failed_disk_is_never_acknowledged() {
    let world = world().await;
    let message = || request(None, &["b@example.org"], &["Subject: x\r\n\r\n"]);
    world.submission.submit(message()).await.unwrap();
    world.disk.halt();
    assert_eq!(world.submission.submit(message()).await, Err(Refusal::Unavailable));
    assert_eq!(world.submission.submit(message()).await, Err(Refusal::Unavailable));
    assert_eq!(world.metrics.messages_accepted.get(), 1);
}

#[tokio::test]
async fn own_mail_has_the_null_sender_and_asks_for_no_report() {
    let world = world().await;
    let id = MessageId::new(1, Timestamp::from_millis(1), 7);
    let own = |to: &str, content: &str| -> NewMessage {
        world.submission.own_message(OwnMessage {
            id,
            account: AccountId::default(),
            to: to.parse().unwrap(),
            kind: OriginKind::Dsn { of: id },
            require_tls: false,
            content: content.as_bytes().to_vec(),
        })
    };
    let message = own("a@example.com", "Subject: x\r\n\r\n");
    assert_eq!(message.envelope.sender, None);
    assert_eq!(message.envelope.recipients[0].notify, Notify::NEVER);
    assert_eq!(message.envelope.body.as_str(), "7BIT");
    assert_eq!(message.id, id);
    assert!(message.accepted_at >= NOW, "however old its id is");
    assert!(!message.envelope.smtp_utf8);
    let message = own("\u{e4}@example.com", "Subject: \u{e4}\r\n\r\n");
    assert_eq!(message.envelope.body.as_str(), "8BITMIME");
    assert!(message.envelope.smtp_utf8);
}

#[tokio::test]
async fn a_notification_is_of_its_message_and_comes_from_the_operators_domain() {
    let told = async |change: fn(&mut Settings)| {
        let submission = world_with(change, postrider_spool::Settings::default()).await.submission;
        let (id, of, to) = (submission.new_id(), submission.new_id(), "a@example.com".parse().unwrap());
        let report = DsnRequest {
            action: Action::Delayed,
            to: &to,
            id: of,
            arrival: NOW,
            retry_until: None,
            envid: None,
            recipients: &[],
            original: &[],
            ret: Ret::Headers,
        };
        let own =
            submission.notification(&Notification { id, account: AccountId::default(), require_tls: true, report })?;
        assert_eq!((own.id, own.kind, &own.to, own.require_tls), (id, OriginKind::Dsn { of }, &to, true));
        let text = String::from_utf8(own.content).unwrap();
        assert!(text.contains(&format!("\r\nMessage-ID: <{id}@us-east-1.")), "{text}");
        Some(text)
    };
    let text = told(|_| {}).await.unwrap();
    assert!(text.contains("\r\nFrom: Mail Delivery System <MAILER-DAEMON@example.net>\r\n"), "{text}");
    assert!(text.contains("\r\nReporting-MTA: dns; mx.example.net\r\n"), "{text}");
    // Settings that were not validated.
    assert_eq!(told(|settings| settings.operator_domain = Some("no domain".to_owned())).await, None);
}
