//! Sessions with servers that bring feedback.

use std::path::PathBuf;
use std::sync::Arc;

use postrider_account::RecipientOverflow;
use postrider_base::metrics::{Listener, Refusal, RefusalCode, Verified};
use postrider_base::{SimDisk, Size};
use postrider_dns::Zones;
use postrider_events::{Events, EventsOptions, Issuer};
use postrider_feedback::{Feedback, FeedbackOptions, FeedbackRules};
use postrider_listener::{Error, FeedbackSettings, Listen, ListenTls, Listeners, Settings, TlsSettings};
use postrider_mail::{MessageId, Verp, VerpScope};
use postrider_mailauth::MacKey;
use postrider_mailauth::verify::Verifier;
use postrider_spool::Selector;
use postrider_submission::ReturnPaths;
use tokio::io::AsyncWriteExt;

use crate::support::{Client, Relay, World};

const KEY: [u8; 32] = [7; 32];
const DOMAIN: &str = "bounces.example.com";

/// A relay whose first listener is for feedback, and second one for submission.
async fn relay(change: fn(&mut FeedbackSettings)) -> Relay {
    relay_on(feedback_listener(), change).await
}

fn feedback_listener() -> Listen {
    Listen::feedback_on("127.0.0.1:0".parse().unwrap())
}

async fn relay_on(listen: Listen, change: fn(&mut FeedbackSettings)) -> Relay {
    let mut world = World::new(RecipientOverflow::Reject).await;
    world.deps.feedback = Some(feedback(&world).await);
    let mut settings = Settings::default();
    change(&mut settings.feedback);
    let list = [listen, Listen::on("127.0.0.1:0".parse().unwrap(), ListenTls::TlsWrapper)];
    Relay::run_on(&list, world, &settings)
}

async fn feedback(world: &World) -> Feedback {
    let deps = &world.deps;
    let events = Events::open(EventsOptions {
        disk: Arc::new(SimDisk::new()),
        dir: PathBuf::from("/journal"),
        view_dir: None,
        driver: postrider_events::Driver::Task,
        clock: deps.clock.clone(),
        settings: Default::default(),
        metrics: deps.metrics.clone(),
        issuer: Issuer {
            partition: "aws".into(),
            region: "us-east-1".into(),
            hostname: "mail.example.com".into(),
            operator_domain: "example.com".into(),
        },
        accept_loss: false,
    });
    let zones = Zones::new();
    zones.add_txt("example.net", "v=spf1 -all");
    let receiver = "mail.example.com".to_owned();
    let verifier =
        Verifier::new(Arc::new(zones), deps.clock.clone(), deps.metrics.clone(), receiver, Default::default());
    Feedback::new(FeedbackOptions {
        return_paths: return_paths(world),
        events: events.await.unwrap(),
        verifier,
        submission: deps.submission.clone(),
        clock: deps.clock.clone(),
        random: deps.random.clone(),
        metrics: deps.metrics.clone(),
        rules: FeedbackRules {
            settings: Default::default(),
            operator: Some("operator@example.org".parse().unwrap()),
            forwarding: true,
        },
    })
}

fn return_paths(world: &World) -> ReturnPaths {
    ReturnPaths::new(world.accounts.clone(), MacKey::new(&KEY), DOMAIN.parse().unwrap())
}

/// A return path that the relay could have written.
fn return_path(relay: &Relay) -> String {
    let deps = &relay.world.deps;
    let id = MessageId::new(0x0100, deps.clock.now(), deps.random.uuid_v4());
    let verp = Verp { id, scope: VerpScope::One(0) };
    format!("{}@{DOMAIN}", verp.encode(|named| MacKey::new(&KEY).short_tag("return path", named)))
}

/// What servers say up to the first RCPT.
const BEGIN: &str = "EHLO mx.example.net\r\nMAIL FROM:<>\r\n";

async fn begin(relay: &Relay) -> Client {
    let mut client = relay.clear().await;
    client.write(BEGIN).await;
    assert!(client.reply().await.starts_with("250-mail.example.com"));
    assert_eq!(client.reply().await, "250 2.1.0 Ok\r\n");
    client
}

#[tokio::test]
async fn a_server_needs_neither_tls_nor_a_password() {
    let relay = relay(|_| {}).await;
    let mut client = relay.clear().await;
    let hello = client.say("EHLO mx.example.net\r\n").await;
    for offered in
        ["250-STARTTLS\r\n", "250-SIZE 16777216\r\n", "250-8BITMIME\r\n", "250-PIPELINING\r\n", "RCPTMAX=100"]
    {
        assert!(hello.contains(offered), "{offered} in {hello}");
    }
    assert!(!hello.contains("AUTH"), "{hello}");
    assert!(client.say("AUTH PLAIN AA==\r\n").await.starts_with('5'));
    assert_eq!(client.say("MAIL FROM:<>\r\n").await, "250 2.1.0 Ok\r\n");
    let known = format!("RCPT TO:<{}>\r\n", return_path(&relay).to_ascii_uppercase());
    assert_eq!(client.say(&known).await, "250 2.1.5 Ok\r\n");
    // TLS is there for those who want it.
    assert_eq!(client.say("RSET\r\n").await, "250 2.0.0 Ok\r\n");
    assert!(client.say("STARTTLS\r\n").await.starts_with("220 "));
    let mut client = client.secure(&relay.tls()).await;
    assert!(client.say("EHLO mx.example.net\r\n").await.contains("250-REQUIRETLS\r\n"));
    assert_eq!(client.say("MAIL FROM:<> REQUIRETLS\r\n").await, "250 2.1.0 Ok\r\n");
    assert_eq!(relay.world.metrics.tls_handshakes.of(Listener::Feedback).get(), 1);
    assert_eq!(relay.world.metrics.connections_accepted.of(Listener::Feedback).get(), 1);
}

#[tokio::test]
async fn it_is_no_way_into_anybody_elses_mailbox() {
    let relay = relay(|settings| settings.max_unknown_recipients = 3).await;
    let mut client = begin(&relay).await;
    let forged = return_path(&relay).replacen('a', "b", 1).replacen('2', "3", 1);
    for address in ["ann@example.org", &forged, "ann@bounces.example.com"] {
        assert_eq!(client.say(&format!("RCPT TO:<{address}>\r\n")).await, "550 5.1.1 There is no such mailbox\r\n");
    }
    assert_eq!(client.say("DATA\r\n").await, "503 5.5.1 Error: need RCPT command\r\n");
    client.write("RCPT TO:<bob@example.org>\r\n").await;
    assert_eq!(client.rest().await, "421 4.7.0 Too many unknown recipients\r\n");
    assert_eq!(relay.world.metrics.refused.of(RefusalCode::C55x).get(), 3);
}

#[tokio::test]
async fn what_is_for_the_operator_is_in_the_queue_when_it_is_accepted() {
    let relay = relay(|_| {}).await;
    let mut client = begin(&relay).await;
    client.write("RCPT TO:<Postmaster@bounces.example.com>\r\nDATA\r\n").await;
    assert_eq!(client.reply().await, "250 2.1.5 Ok\r\n");
    assert!(client.reply().await.starts_with("354 "));
    let content = "From: ann@example.net\r\nSubject: your mail\r\n\r\nStop it.\r\n.\r\n";
    assert_eq!(client.say(content).await, "250 2.0.0 Ok\r\n");
    let queued = relay.world.spool.list(&Selector::All, 10).await.unwrap();
    assert_eq!(queued.len(), 1);
    // Who it is from was looked at, and refused nothing.
    assert_eq!(relay.world.metrics.verified_dmarc.of(Verified::None).get(), 1);
    assert_eq!(client.say("QUIT\r\n").await, "221 2.0.0 Bye\r\n");
    assert_eq!(relay.world.metrics.messages_accepted.get(), 0, "nobody has submitted anything");
}

#[tokio::test]
async fn a_crowd_takes_nobody_elses_place() {
    let relay = relay(|settings| settings.max_connections = 2).await;
    let mut oldest = begin(&relay).await;
    // An address that everybody knows makes nobody known.
    assert_eq!(oldest.say("RCPT TO:<postmaster@bounces.example.com>\r\n").await, "250 2.1.5 Ok\r\n");
    let mut named = begin(&relay).await;
    assert_eq!(named.say(&format!("RCPT TO:<{}>\r\n", return_path(&relay))).await, "250 2.1.5 Ok\r\n");
    let mut newest = begin(&relay).await;
    // The one that has named no return path gives way; who has stays.
    assert_eq!(oldest.rest().await, "421 4.7.0 Too many concurrent SMTP connections\r\n");
    assert_eq!(named.say("NOOP\r\n").await, "250 2.0.0 Ok\r\n");
    assert_eq!(relay.world.metrics.connections_given_way.of(Listener::Feedback).get(), 1);
    newest.say(&format!("RCPT TO:<{}>\r\n", return_path(&relay))).await;
    let mut late = Client::plain(relay.starttls).await;
    assert_eq!(late.rest().await, "421 4.7.0 Too many concurrent SMTP connections\r\n");
    assert_eq!(relay.world.metrics.connections_refused_reason.of(Refusal::TooMany).get(), 1);
    // Customers notice nothing.
    relay.ready().await;
}

#[tokio::test(start_paused = true)]
async fn who_names_no_recipient_is_cut_off_however_busy() {
    let relay = relay(|settings| settings.recipient_within = postrider_base::Period::from_secs(60)).await;
    let (mut idler, mut named) = (begin(&relay).await, begin(&relay).await);
    named.say(&format!("RCPT TO:<{}>\r\n", return_path(&relay))).await;
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_secs(25)).await;
        let _ = idler.stream.write_all(b"NOOP\r\n").await;
    }
    assert!(idler.rest().await.ends_with("451 4.4.2 Timeout waiting for data from client\r\n"));
    assert_eq!(named.say("NOOP\r\n").await, "250 2.0.0 Ok\r\n");
    assert_eq!(relay.world.metrics.connections_timed_out.of(Listener::Feedback).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_stays_for_ever() {
    let relay = relay(|settings| settings.session_time = postrider_base::Period::from_secs(600)).await;
    let mut known = begin(&relay).await;
    known.say(&format!("RCPT TO:<{}>\r\n", return_path(&relay))).await;
    for _ in 0..2 {
        tokio::time::sleep(std::time::Duration::from_secs(290)).await;
        assert_eq!(known.say("NOOP\r\n").await, "250 2.0.0 Ok\r\n");
    }
    assert_eq!(known.rest().await, "421 4.4.2 This session takes too long, connect again\r\n");
    assert_eq!(relay.world.metrics.connections_timed_out.of(Listener::Feedback).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_was_told_to_send_content_may_send_it_whatever_the_time() {
    let relay = relay(|settings| settings.session_time = postrider_base::Period::from_secs(600)).await;
    let mut known = begin(&relay).await;
    known.say(&format!("RCPT TO:<{}>\r\n", return_path(&relay))).await;
    for _ in 0..2 {
        tokio::time::sleep(std::time::Duration::from_secs(290)).await;
        known.say("NOOP\r\n").await;
    }
    assert!(known.say("DATA\r\n").await.starts_with("354 "));
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let answer = known.say("Subject: x\r\n\r\nx\r\n.\r\n").await;
    assert!(!answer.contains(" 4.4.2 "), "{answer}");
    assert_eq!(known.rest().await, "421 4.4.2 This session takes too long, connect again\r\n");
}

#[tokio::test(start_paused = true)]
async fn nobody_stays_by_beginning_a_message_with_the_end_of_another() {
    let relay = relay(|settings| settings.session_time = postrider_base::Period::from_secs(600)).await;
    let mut known = begin(&relay).await;
    known.say(&format!("RCPT TO:<{}>\r\n", return_path(&relay))).await;
    for _ in 0..2 {
        tokio::time::sleep(std::time::Duration::from_secs(290)).await;
        known.say("NOOP\r\n").await;
    }
    assert!(known.say("DATA\r\n").await.starts_with("354 "));
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let next = format!("MAIL FROM:<>\r\nRCPT TO:<{}>\r\nDATA\r\n", return_path(&relay));
    known.stream.write_all(format!("Subject: x\r\n\r\nx\r\n.\r\n{next}").as_bytes()).await.unwrap();
    let rest = known.rest().await;
    assert!(rest.ends_with("421 4.4.2 This session takes too long, connect again\r\n"), "{rest}");
    assert!(!rest.contains("354 "), "{rest}");
}

#[tokio::test]
async fn content_has_memory_of_its_own() {
    let relay = relay(|settings| settings.content_memory = Size::from_bytes(0)).await;
    let mut client = begin(&relay).await;
    client.say(&format!("RCPT TO:<{}>\r\n", return_path(&relay))).await;
    assert_eq!(client.say("DATA\r\n").await, "452 4.3.1 Insufficient system storage\r\n");
    let mut customer = relay.ready().await;
    customer.write("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n").await;
    for code in ["250", "250", "354"] {
        assert!(customer.reply().await.starts_with(code));
    }
}

#[tokio::test]
async fn a_proxy_says_who_comes() {
    let listen = Listen { proxy_from: vec!["127.0.0.1".parse().unwrap()], ..feedback_listener() };
    let relay = relay_on(listen, |settings| settings.max_connections_per_address = 1).await;
    let mut all = Vec::new();
    for client in ["192.0.2.1", "198.51.100.1", "192.0.2.1"] {
        let mut stream = Client::plain(relay.starttls).await;
        stream.write(&format!("PROXY TCP4 {client} 203.0.113.1 40000 25\r\n")).await;
        all.push((stream.reply().await, stream));
    }
    let begun: Vec<bool> = all.iter().map(|(reply, _)| reply.starts_with("220 ")).collect();
    assert_eq!(begun, [true, true, false], "{:?}", all[2].0);
}

#[tokio::test]
async fn without_anybody_who_takes_feedback_nothing_listens() {
    let world = World::new(RecipientOverflow::Reject).await;
    let started = Listeners::start(
        &[feedback_listener()],
        &Settings::default(),
        &TlsSettings::default(),
        world.deps.clone(),
        &world.scope,
    );
    assert!(matches!(started, Err(Error::NoFeedback { .. })));
}
