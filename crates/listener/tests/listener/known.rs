//! Clients that are known by something else than a password, and those that
//! somebody else brings; and watching what they say.

use std::sync::Arc;

use postrider_account::RecipientOverflow;
use postrider_base::metrics::Refusal;
use postrider_base::{Speaker, TraceFilter, TraceLine, TraceReader};
use postrider_listener::{Listen, RelayFrom, Settings};
use postrider_mail::MessageId;
use postrider_spool::Message;

use crate::support::{Client, LOGIN, Relay, USER, World, listen};

const ENVELOPE: &str = "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n";
const CONTENT: &str = "Subject: x\r\n\r\nsecret body\r\n.\r\n";

async fn relay(change: impl Fn(&mut Listen)) -> Relay {
    let mut list = listen();
    list.iter_mut().for_each(change);
    Relay::run_on(&list, World::new(RecipientOverflow::Reject).await, &Settings::default())
}

fn known(network: &str, credential: &str) -> Vec<RelayFrom> {
    vec![RelayFrom { network: network.parse().unwrap(), credential: credential.to_owned() }]
}

/// Sends a message and shows how it is kept.
async fn send(relay: &Relay, client: &mut Client) -> Arc<Message> {
    client.write(ENVELOPE).await;
    for code in ["250", "250", "354"] {
        let reply = client.reply().await;
        assert!(reply.starts_with(code), "{reply}");
    }
    let accepted = client.say(CONTENT).await;
    let id: MessageId = accepted.strip_prefix("250 Ok ").unwrap().trim_end().parse().unwrap();
    relay.world.spool.show(id).await.unwrap().unwrap().message
}

#[tokio::test]
async fn a_listed_address_needs_neither_password_nor_tls() {
    let relay = relay(|listen| listen.relay_from = known("127.0.0.0/8", USER)).await;
    let mut client = relay.clear().await;
    client.say("EHLO printer\r\n").await;
    let message = send(&relay, &mut client).await;
    assert_eq!((message.origin.credential.as_deref(), message.origin.protocol.as_str()), (Some(USER), "ESMTP"));
    // It may do better.
    let mut client = relay.wrapped().await;
    client.say("EHLO printer\r\n").await;
    assert_eq!(send(&relay, &mut client).await.origin.protocol, "ESMTPS");
    assert_eq!(client.say(LOGIN).await, "235 Authentication successful.\r\n");
}

#[tokio::test]
async fn others_on_the_same_listener_authenticate() {
    for list in [known("192.0.2.7", USER), known("127.0.0.1", "AKIAXXXXXXXXXXXXXXXX"), Vec::new()] {
        let relay = relay(|listen| listen.relay_from = list.clone()).await;
        let mut client = relay.clear().await;
        client.say("EHLO c\r\n").await;
        assert_eq!(client.say("MAIL FROM:<>\r\n").await, "530 Must issue a STARTTLS command first\r\n");
        let mut client = relay.wrapped().await;
        client.say("EHLO c\r\n").await;
        assert_eq!(client.say("MAIL FROM:<>\r\n").await, "530 Authentication required\r\n");
    }
}

#[tokio::test]
async fn a_balancer_says_whom_it_brings() {
    let relay = relay(|listen| {
        listen.proxy_from = vec!["127.0.0.1".parse().unwrap()];
        listen.relay_from = known("192.0.2.0/24", USER);
    })
    .await;
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n";
    let mut client = Client::plain(relay.starttls).await;
    client.write(header).await;
    client.reply().await;
    client.say("EHLO printer\r\n").await;
    assert_eq!(send(&relay, &mut client).await.origin.client_ip, Some("192.0.2.7".parse().unwrap()));
    // Before TLS, where the connection begins with it.
    let mut client = Client::plain(relay.wrapper).await;
    client.write("PROXY TCP6 2001:db8::7 ::1 4711 465\r\n").await;
    let mut client = client.secure(&relay.tls()).await;
    client.reply().await;
    client.say("EHLO c\r\n").await;
    client.say(LOGIN).await;
    assert_eq!(send(&relay, &mut client).await.origin.client_ip, Some("2001:db8::7".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_says_nothing_is_not_served() {
    let relay = relay(|listen| listen.proxy_from = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let mut silent = Client::plain(relay.starttls).await;
    assert_eq!(silent.rest().await, "");
    let mut wrong = Client::plain(relay.starttls).await;
    // Exactly as much as is read, so that the end is no reset.
    wrong.write("EHLO client.").await;
    assert_eq!(wrong.rest().await, "");
    assert_eq!(relay.world.metrics.connections_refused_reason.of(Refusal::NoProxyHeader).get(), 2);
}

#[tokio::test]
async fn without_a_balancers_word_no_address_stands_for_a_credential() {
    let with = |proxy: &str, known_network: &str| {
        let (proxy, list) = (proxy.parse().unwrap(), known(known_network, USER));
        relay(move |listen| {
            listen.proxy_from = vec![proxy];
            listen.relay_from = list.clone();
        })
    };
    // Past the balancer.
    let relay = with("192.0.2.1", "127.0.0.1").await;
    let mut client = relay.clear().await;
    client.say("EHLO c\r\n").await;
    assert_eq!(client.say("MAIL FROM:<>\r\n").await, "530 Must issue a STARTTLS command first\r\n");
    // The balancer itself, which looks whether we are alive.
    let relay = with("127.0.0.1", "127.0.0.0/8").await;
    let mut client = Client::plain(relay.starttls).await;
    client.write("PROXY UNKNOWN\r\n").await;
    client.reply().await;
    client.say("EHLO c\r\n").await;
    assert_eq!(client.say("MAIL FROM:<>\r\n").await, "530 Must issue a STARTTLS command first\r\n");
}

#[tokio::test]
async fn a_header_is_no_use_to_those_who_are_not_trusted() {
    let relay = relay(|_| {}).await;
    let mut client = relay.clear().await;
    assert!(client.say("PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n").await.starts_with("500 "));
}

#[tokio::test]
async fn a_message_waits_as_long_as_its_client_wants() {
    let relay = Relay::start().await;
    let now = relay.world.deps.clock.now();
    let mut client = relay.ready().await;
    assert!(client.say("EHLO c\r\n").await.contains("250-FUTURERELEASE 604800 "));
    for (parameter, wait) in [
        ("HOLDFOR=3600", Some(3_600_000)),
        ("HOLDUNTIL=2017-08-06T00:00:00Z", Some(83_937_000)),
        ("HOLDUNTIL=2001-01-01T00:00:00Z", None),
    ] {
        client.write(&format!("MAIL FROM:<a@example.com> {parameter}\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")).await;
        for code in ["250", "250", "354"] {
            assert!(client.reply().await.starts_with(code), "{parameter}");
        }
        let accepted = client.say(CONTENT).await;
        let id: MessageId = accepted.strip_prefix("250 Ok ").unwrap().trim_end().parse().unwrap();
        let message = relay.world.spool.show(id).await.unwrap().unwrap().message;
        let held = message.not_before.map(|time| time.saturating_since(now).as_millis());
        // The clock goes on while the test runs.
        assert_eq!(held.map(|held| held / 1_000_000), wait.map(|wait: u128| wait / 1_000_000), "{parameter}");
    }
    let reply = client.say("MAIL FROM:<a@example.com> HOLDUNTIL=2030-01-01T00:00:00Z\r\n").await;
    assert!(reply.starts_with("501 "), "{reply}");
}

#[tokio::test]
async fn an_operator_watches_a_session_without_its_secrets() {
    let relay = Relay::start().await;
    let traces = &relay.world.deps.traces;
    let mut by_peer = traces.add(TraceFilter { peer: Some("127.0.0.1".parse().unwrap()), user: None }).unwrap();
    let mut by_user = traces.add(TraceFilter { peer: None, user: Some(USER.to_owned()) }).unwrap();
    let mut other = traces.add(TraceFilter { peer: Some("192.0.2.7".parse().unwrap()), user: None }).unwrap();
    let mut client = relay.ready().await;
    send(&relay, &mut client).await;
    client.say("QUIT\r\n").await;
    client.rest().await;
    let (peer, user) = (lines(&mut by_peer).await, lines(&mut by_user).await);
    assert_eq!(peer, user);
    let text = peer.iter().map(|line| format!("{}\n", line.text)).collect::<String>();
    for said in [
        "EHLO client.example",
        "AUTH PLAIN ***",
        "235 Authentication",
        "MAIL FROM:<a@example.com>",
        "[30 octets]",
        "250 Ok 0100",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert!(!text.contains("AEFLSUF") && !text.contains("secret"), "{text}");
    assert!(peer.iter().any(|line| line.speaker == Speaker::Note && line.text.starts_with("TLSv1.3 ")));
    drop((by_peer, by_user));
    // Nothing is written down any more.
    let mut client = relay.ready().await;
    client.say("NOOP\r\n").await;
    assert!(tokio::time::timeout(std::time::Duration::ZERO, other.next()).await.is_err());
}

/// All up to the goodbye.
async fn lines(reader: &mut TraceReader) -> Vec<TraceLine> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &TraceLine| !line.text.starts_with("221")) {
        lines.push(reader.next().await.unwrap());
    }
    lines
}

#[tokio::test]
async fn a_trace_can_begin_in_the_middle() {
    let relay = Relay::start().await;
    let mut client = relay.ready().await;
    let filter = TraceFilter { peer: None, user: Some(USER.to_owned()) };
    let mut reader = relay.world.deps.traces.add(filter).unwrap();
    client.say("NOOP\r\n").await;
    assert_eq!(reader.next().await.unwrap().text, "NOOP");
    assert_eq!(reader.next().await.unwrap().text, "250 Ok");
}
