//! The life of a message, as operators see it: queue, message, events, suppression.

use std::process::Stdio;

use postrider_base::Clock;
use postrider_testkit::{Accept, Policy, Received, Relay, RelayOptions, Security, Sink};
use serde_json::Value;

use crate::support::eventually;

/// A remote that knows everybody but `gone@`, and that has no time for `later@`.
struct Choosy;

impl Policy for Choosy {
    fn recipient(&self, address: &str) -> String {
        match address {
            address if address.starts_with("gone@") => "550 5.1.1 user unknown".to_owned(),
            address if address.starts_with("evil@") => "550 5.1.1 \u{1b}[31mno such\u{7}user".to_owned(),
            address if address.starts_with("later@") => "451 4.3.0 try again later".to_owned(),
            address => Accept.recipient(address),
        }
    }

    fn message(&self, message: Received) -> String {
        Accept.message(message)
    }
}

fn ask(relay: &Relay, arguments: &[&str]) -> Value {
    let output = relay.cli(arguments).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

async fn send(relay: &Relay, recipients: &[&str]) -> String {
    let endpoint = relay.endpoint(Security::StartTls, false).unwrap();
    let mut client = endpoint.connect().await.unwrap();
    let (user, password) = relay.credentials();
    client.login(user, password).await.unwrap();
    let content = b"From: me@example.com\r\nSubject: Hello\r\n\r\nHello.\r\n";
    let reply = client.send("me@example.com", recipients, content).await.unwrap().expect(250).unwrap();
    reply.text().split_whitespace().last().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_told_and_a_hard_bounce_suppresses() {
    let sink = Sink::start(Choosy, Clock::system()).await.unwrap();
    let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), "")).unwrap();
    let id = send(&relay, &["ok@example.net", "gone@example.net", "later@example.net"]).await;

    let life = eventually("three attempts", || {
        let life = ask(&relay, &["message", &id, "--json"]);
        (life["steps"].as_array()?.len() == 4).then_some(life)
    })
    .await;
    let step = |what: &str| {
        let steps = life["steps"].as_array().unwrap();
        steps.iter().find(|step| step["what"] == what).unwrap_or_else(|| panic!("no {what} in {life}")).clone()
    };
    assert!(step("accepted")["detail"].as_str().unwrap().contains("3 recipients"));
    assert_eq!(step("delivered")["recipient"], "ok@example.net");
    assert_eq!(step("bounced")["recipient"], "gone@example.net");
    assert!(step("bounced")["detail"].as_str().unwrap().contains("550 5.1.1 user unknown (Permanent/NoEmail)"));
    assert!(step("deferred")["next_attempt"].is_string());
    assert!(step("delivered")["remote"].as_str().unwrap().contains(&sink.address().port().to_string()));
    let told = String::from_utf8(relay.cli(&["message", &id]).unwrap().stdout).unwrap();
    assert!(told.contains("Still waiting") && told.contains("451 4.3.0 try again later"), "{told}");

    let entry =
        eventually("suppression", || relay.cli(&["suppression", "get", "gone@example.net", "--json"]).ok()).await;
    assert!(String::from_utf8_lossy(&entry.stdout).contains("BOUNCE"));

    let again = send(&relay, &["gone@example.net"]).await;
    eventually("suppressed", || {
        let life = ask(&relay, &["message", &again, "--json"]);
        life["steps"].as_array()?.iter().any(|step| step["what"] == "suppressed").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_messages_are_held_released_retried_and_deleted() {
    let sink = Sink::start(Choosy, Clock::system()).await.unwrap();
    let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), "")).unwrap();
    let id = send(&relay, &["later@example.net"]).await;
    let attempts = |attempts: u64| {
        let rows = ask(&relay, &["queue", "list", "--json"]);
        (rows[0]["attempts"].as_u64()? >= attempts && rows[0]["state"] == "deferred").then_some(rows)
    };
    let rows = eventually("a deferral", || attempts(1)).await;
    assert_eq!(rows[0]["id"], id.as_str());
    assert_eq!(rows[0]["last_reply"], "451 4.3.0 try again later");
    assert_eq!(ask(&relay, &["queue", "summary", "--json"])[0]["messages"], 1);

    assert_eq!(ask(&relay, &["queue", "retry", &id, "--json"])["changed"], 1);
    eventually("another attempt", || attempts(2)).await;

    relay.cli(&["queue", "hold", &id]).unwrap();
    assert_eq!(ask(&relay, &["queue", "show", &id, "--json"])["held"], true);
    relay.cli(&["queue", "release", &id]).unwrap();
    assert_eq!(ask(&relay, &["queue", "show", &id, "--json"])["held"], false);

    assert_eq!(ask(&relay, &["queue", "delete", "--domain", "example.net", "--json"])["changed"], 1);
    assert_eq!(ask(&relay, &["queue", "list", "--json"]), Value::Array(Vec::new()));
    assert!(relay.cli(&["queue", "show", &id]).unwrap_err().to_string().contains("does not wait here"));
    // The journal follows the queue: it is waited for.
    let life = ask(&relay, &["message", &id, "--json"]);
    assert!(life["steps"].as_array().unwrap().iter().any(|step| step["what"] == "deleted"), "{life}");
    let mut unknown = id.clone();
    let last = unknown.len() - "-000000".len() - 1;
    unknown.replace_range(last..=last, if id.as_bytes()[last] == b'0' { "1" } else { "0" });
    assert!(relay.cli(&["message", &unknown]).unwrap_err().to_string().contains("neither in the queue"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_in_each_attempt_is_shown() {
    let sink = Sink::start(Choosy, Clock::system()).await.unwrap();
    let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), "")).unwrap();
    let id = send(&relay, &["ok@example.net", "evil@example.org"]).await;
    let life = eventually("two attempts", || {
        let life = ask(&relay, &["message", &id, "--json"]);
        (life["steps"].as_array()?.len() == 3).then_some(life)
    })
    .await;
    let attempt = |what: &str| {
        let steps = life["steps"].as_array().unwrap();
        steps.iter().find(|step| step["what"] == what).unwrap_or_else(|| panic!("no {what} in {life}"))["attempt"]
            .clone()
    };
    let (delivered, bounced) = (attempt("delivered"), attempt("bounced"));
    assert_eq!((delivered["number"].as_u64(), delivered["hosts"].as_array().unwrap().len()), (Some(1), 1));
    assert!(delivered["hosts"][0]["exchanges"][0]["reply"].as_str().unwrap().starts_with("250"), "{delivered}");
    let host = &bounced["hosts"][0];
    assert_eq!(host["level"]["identity"], "configured", "{bounced}");
    let exchanges = host["exchanges"].as_array().unwrap();
    let refused = exchanges.iter().find(|it| it["command"] == "RCPT TO:<evil@example.org>").unwrap();
    assert_eq!(refused["reply"], "550 5.1.1 ?[31mno such?user");
    assert!(bounced["began"].is_string() && refused["ms"].is_u64(), "{bounced}");

    let told = String::from_utf8(relay.cli(&["message", &id]).unwrap().stdout).unwrap();
    for line in ["Attempt 1 for evil@example.org", "> RCPT TO:<evil@example.org>", "< 550 5.1.1 ?[31mno such?user ("] {
        assert!(told.contains(line), "no {line:?} in {told}");
    }
    assert!(!told.chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_message_has_not_left_is_told_with_what_to_do() {
    let sink = Sink::start(Choosy, Clock::system()).await.unwrap();
    let mut relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), "")).unwrap();
    let id = send(&relay, &["later@example.net", "ok@example.net"]).await;
    let why = |id: &str| ask(&relay, &["queue", "why", id, "--json"]);
    let told = eventually("a deferral", || {
        let told = why(&id);
        (told["recipients"].as_array()?.len() == 1 && told["recipients"][0]["reason"] == "not-due").then_some(told)
    })
    .await;
    let recipient = &told["recipients"][0];
    assert_eq!((&told["ended"], &recipient["address"]), (&false.into(), &"later@example.net".into()));
    assert_eq!((recipient["attempts"].as_u64(), recipient["until"].is_string()), (Some(1), true));
    let explanation = recipient["explanation"].as_str().unwrap();
    assert!(
        explanation.contains("after attempt 1") && explanation.contains("451 4.3.0 try again later"),
        "{explanation}"
    );
    let text = String::from_utf8(relay.cli(&["queue", "why", &id]).unwrap().stdout).unwrap();
    assert!(text.starts_with("later@example.net: not-due\n") && text.contains("postrider queue retry"), "{text}");

    let sites = ask(&relay, &["queue", "sites", "--json"]);
    assert_eq!(sites[0]["refusals"][0]["text"], "451 4.3.0 try again later", "{sites}");
    let table = String::from_utf8(relay.cli(&["queue", "sites"]).unwrap().stdout).unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    let name = sites[0]["name"].as_str().unwrap();
    let detail = String::from_utf8(relay.cli(&["queue", "sites", "--site", name]).unwrap().stdout).unwrap();
    assert!(detail.contains("x1): 451 4.3.0 try again later"), "{detail}");
    assert_eq!(ask(&relay, &["queue", "sites", "--site", "nowhere.example", "--json"]), Value::Array(Vec::new()));

    relay.cli(&["queue", "hold", "--domain", "example.net"]).unwrap();
    let held = why(&id)["recipients"][0].clone();
    assert_eq!(held["reason"], "held");
    assert_eq!(held["advice"], "let it go: `postrider queue release --domain example.net`");
    relay.cli(&["queue", "release", "--domain", "example.net"]).unwrap();

    let ended = send(&relay, &["ok@example.net"]).await;
    eventually("its end", || (why(&ended)["ended"] == true).then_some(())).await;
    let unknown = relay.cli(&["queue", "why", "0000000000000000000000000000000000"]);
    assert!(unknown.is_err());

    // Without a daemon that is the reason, once it is due.
    assert!(relay.stop().unwrap().success());
    relay.cli(&["queue", "retry", &id]).unwrap();
    assert_eq!(ask(&relay, &["queue", "why", &id, "--json"])["recipients"][0]["reason"], "no-daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_and_read_back() {
    let sink = Sink::start(Choosy, Clock::system()).await.unwrap();
    let mut relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), "")).unwrap();
    let mut tail = tokio::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["events", "tail", "--config"])
        .arg(relay.path("relay.toml"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(tail.stdout.take().unwrap()));
    eventually("the tail", || relay.log().ok().filter(|log| log.contains("events-tail"))).await;
    let id = send(&relay, &["ok@example.net"]).await;
    for kind in ["Send", "Delivery"] {
        let line = lines.next_line().await.unwrap().unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&event["eventType"], &event["mail"]["messageId"]), (&kind.into(), &id.as_str().into()));
    }
    drop(tail);

    // The journal is read without the daemon too.
    assert!(relay.stop().unwrap().success());
    let since = String::from_utf8(relay.cli(&["events", "since", "1h"]).unwrap().stdout).unwrap();
    assert_eq!(since.lines().count(), 2, "{since}");
    assert_eq!(ask(&relay, &["message", &id, "--json"])["steps"].as_array().unwrap().len(), 2);
}
