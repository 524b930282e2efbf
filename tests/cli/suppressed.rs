//! What becomes of mail to suppressed addresses, by list and reason: SES's comparison of its two lists.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::{Accept, Record, Relay, RelayOptions, Security, Sink};
use serde_json::Value;

/// More than enough for what happens behind the 250.
const TRIES: usize = 400;

/// An address, what puts it on a list, and what its sender gets.
struct Row {
    address: &'static str,
    put: &'static [&'static str],
    event: &'static str,
    kind: Option<&'static str>,
    sub_type: Option<&'static str>,
}

const ROWS: [Row; 4] = [
    Row { address: "ok@example.net", put: &[], event: "Delivery", kind: None, sub_type: None },
    Row {
        address: "bounced@example.net",
        put: &["--reason", "BOUNCE"],
        event: "Bounce",
        kind: Some("Permanent"),
        sub_type: Some("OnAccountSuppressionList"),
    },
    Row {
        address: "complained@example.net",
        put: &["--reason", "COMPLAINT"],
        event: "Complaint",
        kind: None,
        sub_type: Some("OnAccountSuppressionList"),
    },
    Row {
        address: "global@example.net",
        put: &["--global"],
        event: "Bounce",
        kind: Some("Permanent"),
        sub_type: Some("Suppressed"),
    },
];

fn recipients() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.address).collect()
}

async fn send(relay: &Relay, recipients: &[&str]) {
    let endpoint = relay.endpoint(Security::StartTls, false).unwrap();
    let mut client = endpoint.connect().await.unwrap();
    let (user, password) = relay.credentials();
    client.login(user, password).await.unwrap();
    let content = b"From: me@example.com\r\nSubject: Hello\r\n\r\nHello.\r\n";
    // NOTIFY is not given and the sender is null, so that nobody is written to but the recipients.
    client.send("", recipients, content).await.unwrap().expect(250).unwrap();
}

fn events(relay: &Relay) -> Vec<Value> {
    let output = relay.cli(&["events", "since", "1h"]).unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events beside Send, by recipient.
fn by_recipient(events: &[Value]) -> BTreeMap<String, Value> {
    let addresses = |event: &Value| -> Vec<String> {
        let lists = [
            &event["delivery"]["recipients"],
            &event["bounce"]["bouncedRecipients"],
            &event["complaint"]["complainedRecipients"],
        ];
        let all = lists.into_iter().filter_map(Value::as_array).flatten();
        all.filter_map(|one| one["emailAddress"].as_str().or(one.as_str())).map(str::to_owned).collect()
    };
    events
        .iter()
        .filter(|event| event["eventType"] != "Send")
        .flat_map(|event| addresses(event).into_iter().map(|address| (address, event.clone())))
        .collect()
}

async fn all_events(relay: &Relay) -> Vec<Value> {
    for _ in 0..TRIES {
        let found = events(relay);
        if by_recipient(&found).len() == ROWS.len() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not every recipient has an event: {:?}", events(relay));
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_counted_not_sent_and_told_by_list_and_reason() {
    let host = Record::default();
    let sink = Sink::start(host.clone(), Clock::system()).await.unwrap();
    let configuration = "[account]\nglobal_suppression = true\n";
    let options = RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), configuration);
    let relay = Relay::start(options).unwrap();
    for row in ROWS.iter().filter(|row| !row.put.is_empty()) {
        relay.cli(&[&["suppression", "put", row.address], row.put].concat()).unwrap();
    }
    send(&relay, &recipients()).await;

    let events = all_events(&relay).await;
    let sent: Vec<_> = events.iter().filter(|event| event["eventType"] == "Send").collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["mail"]["destination"].as_array().unwrap().len(), ROWS.len(), "all are in the Send event");
    let told = by_recipient(&events);
    for row in &ROWS {
        let event = &told[row.address];
        assert_eq!(event["eventType"], row.event, "{}", row.address);
        match row.event {
            "Bounce" => {
                assert_eq!(event["bounce"]["bounceType"].as_str(), row.kind, "{}", row.address);
                assert_eq!(event["bounce"]["bounceSubType"].as_str(), row.sub_type, "{}", row.address);
            }
            "Complaint" => assert_eq!(event["complaint"]["complaintSubType"].as_str(), row.sub_type, "{}", row.address),
            _ => {}
        }
    }
    let received: Vec<_> = host.messages().into_iter().flat_map(|message| message.recipients).collect();
    assert_eq!(received, ["ok@example.net"], "nobody else is named to the host");

    let quota = relay.cli(&["quota", "--json"]).unwrap();
    let quota: Value = serde_json::from_slice(&quota.stdout).unwrap();
    assert_eq!(quota[0]["SentLast24Hours"], ROWS.len(), "{quota}");
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_off_the_lists_everybody_gets_mail() {
    let sink = Sink::start(Accept, Clock::system()).await.unwrap();
    let configuration = "[account]\nglobal_suppression = true\n";
    let options = RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), configuration);
    let relay = Relay::start(options).unwrap();
    for row in ROWS.iter().filter(|row| !row.put.is_empty()) {
        relay.cli(&[&["suppression", "put", row.address], row.put].concat()).unwrap();
        let list: &[&str] = if row.put == ["--global"] { row.put } else { &[] };
        relay.cli(&[&["suppression", "delete", row.address], list].concat()).unwrap();
    }
    send(&relay, &recipients()).await;
    let told = by_recipient(&all_events(&relay).await);
    assert!(told.values().all(|event| event["eventType"] == "Delivery"), "{told:?}");
}
