//! Whole sessions over loopback sockets.

use std::time::Duration;

use crate::support::{Client, LOGIN, LOGIN_PASSWORD, LOGIN_USER, Relay, World, connector};
use postrider_account::RecipientOverflow;
use postrider_base::metrics::{Listener, RefusalCode};
use postrider_base::{Late, Period};
use postrider_listener::Settings;
use rustls_pki_types::pem::PemObject;

const MAIL: &str = "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n";
const CONTENT: &str = "Subject: x\r\n\r\nbody\r\n.\r\n";

#[tokio::test]
async fn a_message_over_starttls() {
    let relay = Relay::start().await;
    let mut client = relay.clear().await;
    assert!(client.say("EHLO c\r\n").await.contains("250-STARTTLS\r\n"));
    assert_eq!(client.say("STARTTLS\r\n").await, "220 Ready to start TLS\r\n");
    let mut client = client.secure(&relay.tls()).await;
    let hello = client.say("EHLO c\r\n").await;
    assert!(hello.contains("250-AUTH PLAIN LOGIN\r\n") && hello.ends_with("250 Ok\r\n"), "{hello}");
    client.say(LOGIN).await;
    client.write(MAIL).await;
    for code in ["250 Ok", "250 Ok", "354 "] {
        assert!(client.reply().await.starts_with(code));
    }
    let accepted = client.say(CONTENT).await;
    let id = accepted.strip_prefix("250 Ok ").unwrap().trim_end();
    assert_eq!(id.len(), 60);
    let message = relay.world.spool.show(id.parse().unwrap()).await.unwrap();
    assert!(message.is_some());
    assert_eq!(client.say("QUIT\r\n").await, "221 Bye\r\n");
    assert_eq!(client.rest().await, "");
    assert_eq!(relay.world.metrics.messages_accepted.get(), 1);
    assert_eq!(relay.world.metrics.tls_handshakes.of(Listener::SubmissionStartTls).get(), 1);
}

#[tokio::test]
async fn a_whole_session_in_one_write_before_the_banner() {
    let relay = Relay::start().await;
    let mut client = Client::wrapped(relay.wrapper, &relay.tls()).await;
    let session = format!(
        "EHLO c\r\nAUTH LOGIN\r\n{LOGIN_USER}\r\n{LOGIN_PASSWORD}\r\n\
         MAIL FROM: a@example.com\r\nRCPT TO: b@example.org\r\nDATA\r\n{CONTENT}QUIT\r\n"
    );
    client.write(&session).await;
    // The end without an error is a close_notify.
    let answers = client.rest().await;
    let codes: Vec<&str> = answers.lines().filter(|line| &line[3..4] == " ").map(|line| &line[..3]).collect();
    assert_eq!(codes, ["220", "250", "334", "334", "235", "250", "250", "354", "250", "221"], "{answers}");
    assert!(answers.contains("334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"));
}

#[tokio::test]
async fn nothing_is_taken_in_clear() {
    let relay = Relay::start().await;
    let mut client = relay.clear().await;
    client.say("EHLO c\r\n").await;
    for command in [LOGIN, "MAIL FROM:<a@example.com>\r\n"] {
        assert_eq!(client.say(command).await, "530 Must issue a STARTTLS command first\r\n");
    }
    // What is sent in clear behind STARTTLS never reaches the session inside TLS.
    assert_eq!(client.say("STARTTLS\r\nEHLO evil\r\n").await, "220 Ready to start TLS\r\n");
    let mut client = client.secure(&relay.tls()).await;
    assert_eq!(client.say("MAIL FROM:<>\r\n").await, "530 Authentication required\r\n");
    assert_eq!(relay.world.metrics.refused.of(RefusalCode::C530).get(), 3);
}

#[tokio::test]
async fn sessions_are_resumed_with_both_versions() {
    let relay = Relay::start().await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let tls = connector(relay.world.root(), &[version]);
        for round in 0..2 {
            let mut client = Client::wrapped(relay.wrapper, &tls).await;
            client.reply().await;
            assert_eq!(client.resumed, round == 1, "{version:?}");
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let relay = Relay::start().await;
    let mut client = relay.wrapped().await;
    client.say("EHLO c\r\n").await;
    for _ in 0..3 {
        let refused = client.say("AUTH PLAIN AEFLSUEAeA==\r\n").await;
        assert_eq!(refused, "535 Authentication Credentials Invalid\r\n");
    }
    assert_eq!(client.rest().await, "421 Error: too many errors\r\n");
}

#[tokio::test]
async fn too_long_messages_are_drained_and_refused() {
    let relay = Relay::start().await;
    let mut client = relay.ready().await;
    assert_eq!(client.say("MAIL FROM:<a@example.com> SIZE=99999999\r\n").await, "552 Message is too long.\r\n");
    client.write(MAIL).await;
    for _ in 0..3 {
        client.reply().await;
    }
    let line = "x".repeat(998) + "\r\n";
    for _ in 0..11 {
        client.write(&line.repeat(1000)).await;
    }
    assert_eq!(client.say(".\r\n").await, "552 Message is too long.\r\n");
    assert_eq!(client.say("NOOP\r\n").await, "250 Ok\r\n");
}

#[tokio::test]
async fn large_messages_arrive_whole() {
    let relay = Relay::start().await;
    let mut client = relay.ready().await;
    client.write(MAIL).await;
    for _ in 0..3 {
        client.reply().await;
    }
    let line = "x".repeat(76) + "\r\n";
    client.write("Subject: x\r\n\r\n").await;
    for _ in 0..100 {
        client.write(&line.repeat(1000)).await;
    }
    assert!(client.say(".\r\n").await.starts_with("250 Ok "));
    let bytes = relay.world.metrics.messages_accepted_bytes.get();
    assert!((7_800_014..7_801_500).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn the_credential_decides_about_too_many_recipients() {
    for (overflow, last) in
        [(RecipientOverflow::Reject, "250 Ok\r\n"), (RecipientOverflow::Defer, "452 Too many recipients\r\n")]
    {
        let relay = Relay::run(World::new(overflow).await, &Settings::default());
        let mut client = relay.ready().await;
        client.say("MAIL FROM:<a@example.com>\r\n").await;
        for _ in 0..50 {
            assert_eq!(client.say("RCPT TO:<b@example.org>\r\n").await, "250 Ok\r\n");
        }
        assert_eq!(client.say("RCPT TO:<b@example.org>\r\n").await, last);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session() {
    let relay = Relay::start().await;
    let began = relay.world.deps.clock.instant();
    let mut client = relay.clear().await;
    assert_eq!(client.rest().await, "451 Timeout waiting for data from client\r\n");
    let passed = relay.world.deps.clock.instant() - began;
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&passed), "{passed:?}");

    let mut client = relay.ready().await;
    let began = relay.world.deps.clock.instant();
    assert_eq!(client.rest().await, "451 Timeout waiting for data from client\r\n");
    let passed = relay.world.deps.clock.instant() - began;
    assert!((Duration::from_secs(300)..Duration::from_secs(301)).contains(&passed), "{passed:?}");
    assert_eq!(relay.world.metrics.connections_timed_out.of(Listener::SubmissionStartTls).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn busy_clients_that_never_authenticate_are_ended() {
    let relay = Relay::with(|settings| settings.auth_within = Period::from_secs(30)).await;
    let mut client = relay.clear().await;
    for _ in 0..5 {
        assert_eq!(client.say("NOOP\r\n").await, "250 Ok\r\n");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(client.say("NOOP\r\n").await, "250 Ok\r\n");
    assert_eq!(client.rest().await, "451 Timeout waiting for data from client\r\n");
}

#[tokio::test(start_paused = true)]
async fn handshakes_that_do_not_end_or_make_no_sense() {
    let relay = Relay::start().await;
    assert_eq!(Client::plain(relay.wrapper).await.rest().await, "");
    let mut client = Client::plain(relay.wrapper).await;
    client.write("EHLO c\r\nthis is no TLS\r\n").await;
    let mut alert = Vec::new();
    // An alert of TLS, then the end.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut alert).await;
    assert_eq!(relay.world.metrics.tls_failures.of(Listener::SubmissionTls).get(), 2);
}

#[tokio::test]
async fn draining_lets_messages_end() {
    let relay = Relay::start().await;
    let mut idle = relay.ready().await;
    let mut busy = relay.ready().await;
    busy.write(MAIL).await;
    for _ in 0..3 {
        busy.reply().await;
    }
    let drained = async {
        relay.listeners.drain(Duration::from_secs(20)).await.unwrap();
    };
    let clients = async {
        assert_eq!(idle.rest().await, "421 Service shutting down, try again later\r\n");
        assert!(busy.say(CONTENT).await.starts_with("250 Ok "));
        assert_eq!(busy.rest().await, "421 Service shutting down, try again later\r\n");
    };
    tokio::join!(drained, clients);
    assert!(tokio::net::TcpStream::connect(relay.starttls).await.is_err(), "nothing listens any more");
}

#[tokio::test(start_paused = true)]
async fn sessions_that_are_late_are_cut_off() {
    let relay = Relay::start().await;
    let mut busy = relay.ready().await;
    busy.write(MAIL).await;
    for _ in 0..3 {
        busy.reply().await;
    }
    let late = relay.listeners.drain(Duration::from_secs(30)).await;
    assert_eq!(late, Err(Late { names: vec!["test/listener/session".into()] }));
}

#[tokio::test]
async fn a_failed_spool_turns_clients_away() {
    let relay = Relay::start().await;
    let mut before = relay.ready().await;
    relay.world.spool.close().await.unwrap();
    let mut client = Client::plain(relay.starttls).await;
    assert_eq!(client.rest().await, "421 Temporary service failure\r\n");
    assert_eq!(before.say("MAIL FROM:<a@example.com>\r\n").await, "451 Temporary service failure\r\n");
}

/// The certificate that clients see can be read back as what is kept.
#[tokio::test]
async fn the_self_signed_certificate_is_kept() {
    let relay = Relay::start().await;
    let kept = relay.world.root();
    relay.listeners.reload(&crate::support::listen(), &Settings::default(), &Default::default()).unwrap();
    assert_eq!(kept, relay.world.root());
    let key = relay.world.directory.path().join("keys/self-signed-key.pem");
    rustls_pki_types::PrivateKeyDer::from_pem_file(key).unwrap();
}
