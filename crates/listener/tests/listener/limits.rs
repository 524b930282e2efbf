//! What clients may take: places, time, memory.

use std::time::Duration;

use postrider_account::RecipientOverflow;
use postrider_base::metrics::{Listener, Refusal, RefusalCode};
use postrider_base::{Period, Size};
use postrider_listener::Settings;

use crate::support::{Client, LOGIN, Relay, World};

const FULL: &str = "421 Too many concurrent SMTP connections\r\n";
const TIMEOUT: &str = "451 Timeout waiting for data from client\r\n";
const NO_ROOM: &str = "452 Insufficient system storage\r\n";
const ENVELOPE: &str = "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n";

/// Begins a message: the client stands behind 354.
async fn begin(client: &mut Client) {
    client.write(&format!("{ENVELOPE}DATA\r\n")).await;
    for code in ["250", "250", "354"] {
        assert!(client.reply().await.starts_with(code));
    }
}

/// Waits for what another task does a moment later.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not happen");
}

#[tokio::test]
async fn connections_are_bounded_and_places_given_back() {
    let relay = Relay::with(|settings| settings.max_connections = 2).await;
    let mut first = relay.ready().await;
    let _second = relay.ready().await;
    let mut third = Client::plain(relay.starttls).await;
    assert_eq!(third.rest().await, FULL);
    let metrics = &relay.world.metrics;
    assert_eq!(metrics.connections_refused_reason.of(Refusal::TooMany).get(), 1);
    first.say("QUIT\r\n").await;
    first.rest().await;
    until(|| metrics.connections_open.of(Listener::SubmissionTls).get() == 1).await;
    assert!(Client::plain(relay.starttls).await.reply().await.starts_with("220 "));
}

#[tokio::test]
async fn strangers_give_way_to_newer_ones_and_known_clients_stay() {
    let relay = Relay::with(|settings| settings.max_unauthenticated = 2).await;
    let mut known = relay.ready().await;
    let mut oldest = relay.clear().await;
    let _older = relay.clear().await;
    let mut newest = relay.clear().await;
    assert_eq!(oldest.rest().await, FULL);
    assert_eq!(newest.say("NOOP\r\n").await, "250 Ok\r\n");
    assert_eq!(known.say("NOOP\r\n").await, "250 Ok\r\n");
    assert_eq!(relay.world.metrics.connections_given_way.of(Listener::SubmissionStartTls).get(), 1);
    // In the middle of a handshake too.
    let relay = Relay::with(|settings| settings.max_unauthenticated = 1).await;
    let mut shaking = Client::plain(relay.wrapper).await;
    let _newer = relay.clear().await;
    assert_eq!(shaking.rest().await, "");
    assert_eq!(relay.world.metrics.connections_given_way.of(Listener::SubmissionTls).get(), 1);
}

#[tokio::test]
async fn connections_from_one_address_or_network_are_bounded() {
    for (change, reason) in [
        ((|settings| settings.max_connections_per_address = 1) as fn(&mut Settings), Refusal::TooManyFromAddress),
        (|settings| settings.max_connections_per_network = 1, Refusal::TooManyFromNetwork),
    ] {
        let relay = Relay::with(change).await;
        let _first = relay.clear().await;
        let mut second = Client::plain(relay.starttls).await;
        assert_eq!(second.rest().await, FULL);
        assert_eq!(relay.world.metrics.connections_refused_reason.of(reason).get(), 1);
    }
}

#[tokio::test]
async fn messages_of_a_connection_are_bounded() {
    let relay = Relay::with(|settings| settings.max_messages = 2).await;
    let mut client = relay.ready().await;
    assert!(client.say("EHLO c\r\n").await.contains("MAILMAX=2"));
    for _ in 0..2 {
        assert_eq!(client.say("MAIL FROM:<a@example.com>\r\n").await, "250 Ok\r\n");
        assert_eq!(client.say("RSET\r\n").await, "250 Ok\r\n");
    }
    client.write("MAIL FROM:<a@example.com>\r\n").await;
    assert!(client.rest().await.starts_with("421 "));
}

#[tokio::test(start_paused = true)]
async fn a_command_must_end() {
    let relay = Relay::with(|settings| settings.command_time = Period::from_secs(20)).await;
    let mut client = relay.ready().await;
    for _ in 0..3 {
        client.write("N").await;
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    assert_eq!(client.rest().await, TIMEOUT);
    // A client that only waits has longer.
    let mut client = relay.ready().await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(client.say("NOOP\r\n").await, "250 Ok\r\n");
    assert_eq!(relay.world.metrics.connections_timed_out.of(Listener::SubmissionTls).get(), 1);
}

/// Writes a line of content time and again until the server has something to say to it.
async fn trickle(client: &mut Client) -> String {
    loop {
        client.write("X: y\r\n").await;
        if let Ok(reply) = tokio::time::timeout(Duration::from_millis(50), client.reply()).await {
            return reply;
        }
    }
}

#[tokio::test]
async fn content_must_come_at_a_rate_and_end() {
    let slow = |settings: &mut Settings| {
        settings.data_grace = Period::from_millis(300);
        settings.min_data_rate = Size::from_mib(1);
    };
    let endless = |settings: &mut Settings| settings.message_time = Period::from_millis(300);
    for change in [slow as fn(&mut Settings), endless] {
        let relay = Relay::with(change).await;
        let mut client = relay.ready().await;
        begin(&mut client).await;
        assert_eq!(trickle(&mut client).await, TIMEOUT);
        assert_eq!(relay.world.metrics.connections_timed_out.of(Listener::SubmissionTls).get(), 1);
    }
}

#[tokio::test]
async fn memory_for_content_is_bounded_and_given_back() {
    let world = World::new(RecipientOverflow::Reject).await;
    // Less than the configuration allows: messages need not be so large.
    let settings = Settings { content_memory: Size::from_kib(192), ..Settings::default() };
    let relay = Relay::run(world, &settings);
    let metrics = &relay.world.metrics;
    let mut holder = relay.ready().await;
    begin(&mut holder).await;
    holder.write(&format!("Subject: x\r\n\r\n{}", "0123456789abcdef\r\n".repeat(7_000))).await;
    until(|| metrics.content_memory.get() >= 120 << 10).await;
    // A message that turns out too large for what is left is read and refused.
    let mut late = relay.ready().await;
    begin(&mut late).await;
    late.write(&format!("Subject: x\r\n\r\n{}", "0123456789abcdef\r\n".repeat(7_000))).await;
    assert_eq!(late.say(".\r\n").await, NO_ROOM);
    // One more is refused before it begins, by DATA and by BDAT, and the session goes on.
    let mut other = relay.ready().await;
    begin(&mut other).await;
    late.write(&format!("{ENVELOPE}DATA\r\nRSET\r\n")).await;
    let replies = [late.reply().await, late.reply().await, late.reply().await, late.reply().await];
    assert_eq!(replies, ["250 Ok\r\n", "250 Ok\r\n", NO_ROOM, "250 Ok\r\n"]);
    late.write(&format!("{ENVELOPE}BDAT 4 LAST\r\nNOOPRSET\r\n")).await;
    let replies = [late.reply().await, late.reply().await, late.reply().await, late.reply().await];
    assert_eq!(replies, ["250 Ok\r\n", "250 Ok\r\n", NO_ROOM, "250 Ok\r\n"]);
    // What was there before is kept.
    assert!(holder.say(".\r\n").await.starts_with("250 Ok "));
    assert_eq!(metrics.content_refused.get(), 3);
    assert_eq!(metrics.refused.of(RefusalCode::C452).get(), 3);
    // A client that is gone gives its share back.
    drop(other);
    until(|| metrics.content_memory.get() == 0).await;
    begin(&mut late).await;
    assert!(late.say("Subject: x\r\n\r\n.\r\n").await.starts_with("250 Ok "));
}

#[tokio::test]
async fn clients_that_vanish_leave_nothing_behind() {
    let relay = Relay::start().await;
    let metrics = &relay.world.metrics;
    let mut clients =
        vec![Client::plain(relay.starttls).await, Client::plain(relay.wrapper).await, relay.clear().await];
    let mut half = relay.ready().await;
    half.write("MAIL FR").await;
    let mut busy = relay.ready().await;
    begin(&mut busy).await;
    busy.write("Subject: x\r\n\r\nhalf").await;
    clients.extend([half, busy]);
    until(|| metrics.content_memory.get() > 0).await;
    drop(clients);
    until(|| Listener::SubmissionStartTls.open(metrics) + Listener::SubmissionTls.open(metrics) == 0).await;
    assert_eq!((metrics.content_memory.get(), metrics.messages_accepted.get()), (0, 0));
}

trait Open {
    fn open(self, metrics: &postrider_base::Metrics) -> i64;
}

impl Open for Listener {
    fn open(self, metrics: &postrider_base::Metrics) -> i64 {
        metrics.connections_open.of(self).get()
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_passwords_wait_longer_each_time_and_earn_a_ban() {
    let relay = Relay::with(|settings| settings.max_auth_failures = 100).await;
    let clock = relay.world.deps.clock.clone();
    let mut client = relay.wrapped().await;
    client.say("EHLO c\r\n").await;
    let mut waits = Vec::new();
    for guess in ["AAB1c2VyADE=", "AAB1c2VyADI=", "AAB1c2VyADM="] {
        let before = clock.instant();
        let reply = client.say(&format!("AUTH PLAIN {guess}\r\n")).await;
        assert_eq!(reply, "535 Authentication Credentials Invalid\r\n");
        waits.push((clock.instant() - before).as_millis() / 250);
    }
    assert_eq!(waits, [1, 2, 4]);
    for guess in 4..=10 {
        let plain = base64(&format!("\0user\0{guess}"));
        client.say(&format!("AUTH PLAIN {plain}\r\n")).await;
    }
    // Who is there is not thrown out, who comes anew is.
    assert_eq!(client.say("NOOP\r\n").await, "250 Ok\r\n");
    let mut next = Client::plain(relay.starttls).await;
    assert_eq!(next.rest().await, "421 Too many authentication failures, try again later\r\n");
    assert_eq!(Client::plain(relay.wrapper).await.rest().await, "");
    assert_eq!(relay.world.metrics.connections_refused_reason.of(Refusal::Banned).get(), 2);
    // It ends by itself.
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    let mut client = relay.wrapped().await;
    client.say("EHLO c\r\n").await;
    assert_eq!(client.say(LOGIN).await, "235 Authentication successful.\r\n");
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Chunks that are answered one by one do not buy a message more time.
#[tokio::test]
async fn chunks_have_the_time_of_one_message() {
    let relay = Relay::with(|settings| settings.message_time = Period::from_millis(300)).await;
    let mut client = relay.ready().await;
    client.write(ENVELOPE).await;
    for _ in 0..2 {
        client.reply().await;
    }
    let chunk = format!("BDAT 2048\r\n{}", "0123456789abcde\n".repeat(128));
    let last = loop {
        client.write(&chunk).await;
        match client.reply().await {
            ok if ok.starts_with("250 ") => tokio::time::sleep(Duration::from_millis(50)).await,
            other => break other,
        }
    };
    assert_eq!(last, TIMEOUT);
}
