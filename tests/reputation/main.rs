//! Rates of bounces with the real daemon and a peer that refuses: a rule pauses, a restart loses
//! nothing, a person resumes; and pauses by hand, with and without what is queued.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::{Accept, Client, Policy, Received, Relay, RelayOptions, Security, Sink};
use serde_json::Value;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSED_BY_RULE: &str = "454 Throttling failure: Sending paused";

/// Knows no address that begins with `gone`.
struct Picky;

impl Policy for Picky {
    fn recipient(&self, address: &str) -> String {
        if address.starts_with("gone") {
            return "550 5.1.1 user unknown".to_owned();
        }
        Accept.recipient(address)
    }

    fn message(&self, message: Received) -> String {
        Accept.message(message)
    }
}

struct World {
    relay: Relay,
    sink: Sink,
    client: Option<Client>,
    /// Numbers the recipients.
    sent: usize,
}

impl World {
    async fn start(reputation: &str) -> Self {
        let sink = Sink::start(Picky, Clock::system()).await.unwrap();
        let configuration =
            format!("[delivery]\nfeedback_forwarding = false\n[reputation]\ncheck_interval = \"1s\"\n{reputation}");
        let options = RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), &configuration);
        let relay = tokio::task::spawn_blocking(|| Relay::start(options)).await.unwrap().unwrap();
        Self { relay, sink, client: None, sent: 0 }
    }

    /// Submits a message to so many fresh addresses that begin so; the last reply.
    async fn send(&mut self, headers: &str, name: &str, count: usize) -> String {
        let recipients: Vec<String> =
            (0..count).map(|number| format!("{name}-{}@example.net", self.sent + number)).collect();
        self.sent += count;
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let content = format!("From: a@example.com\r\nSubject: x\r\n{headers}\r\nx\r\n");
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                let endpoint = self.relay.endpoint(Security::StartTls, false).unwrap();
                let mut client = endpoint.connect().await.unwrap();
                let (user, password) = self.relay.credentials();
                client.login(user, password).await.unwrap();
                client
            }
        };
        let reply = client.send("a@example.com", &recipients, content.as_bytes()).await.unwrap();
        self.client = Some(client);
        format!("{} {}", reply.code, reply.text())
    }

    async fn accepted(&mut self, headers: &str, name: &str, count: usize) {
        let reply = self.send(headers, name, count).await;
        assert!(reply.starts_with("250 "), "{reply}");
    }

    async fn restart(&mut self) {
        self.client = None;
        self.relay.stop().unwrap();
        self.relay.launch().unwrap();
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.relay.cli(arguments).unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn account(&self) -> Value {
        self.ask(&["reputation", "--account", "000000000001", "--json"])[0].clone()
    }

    /// The records of this name in the audit log: what did it by itself, and with what.
    fn audited(&self, name: &str) -> Vec<(String, Value)> {
        let told = String::from_utf8(self.relay.cli(&["audit", "--name", name, "--json"]).unwrap().stdout).unwrap();
        let records = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let by_relay = records.filter(|record| record["userIdentity"]["type"] == "Service");
        let of = |record: Value| {
            let part = record["userIdentity"]["invokedBy"].as_str().unwrap().to_owned();
            (part, record["requestParameters"].clone())
        };
        by_relay.map(of).collect()
    }

    /// How many addresses are on the account's list.
    fn suppressed(&self) -> usize {
        let listed = self.relay.cli(&["suppression", "list"]).unwrap().stdout;
        String::from_utf8(listed).unwrap().lines().filter(|line| line.contains("gone-")).count()
    }

    /// Waits until the account's row is as it should be.
    async fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let row = self.account();
                if is_so(&row) {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        match waited.await {
            Ok(row) => row,
            Err(_) => panic!("{}\n{}", self.account(), self.relay.log().unwrap()),
        }
    }

    async fn counted(&self, recipients: u64, bounces: u64) -> Value {
        self.until(|row| row["recipients"] == recipients && row["bounces"] == bounces).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_pauses_at_the_threshold_and_over_restarts_until_a_person_resumes() {
    let mut world = World::start("volume = 200\nmin_sample = 40\n").await;
    world.relay.cli(&["accounts", "set", "000000000001", "--auto-pause", "on"]).unwrap();
    world.accepted("", "here", 20).await;
    world.accepted("", "gone", 10).await;
    // 33 %, and too few to say anything.
    let row = world.counted(30, 10).await;
    assert_eq!((&row["status"], &row["representative"]), (&"healthy".into(), &false.into()));
    world.until(|_| world.suppressed() == 10).await;
    world.restart().await;
    let row = world.counted(30, 10).await;
    assert_eq!(row["bounce_rate"].as_f64().unwrap(), 10.0 / 30.0);
    world.accepted("", "here", 9).await;
    world.counted(39, 10).await;
    world.accepted("", "here", 1).await;
    let row = world.until(|row| row["paused_by"] == "rule").await;
    assert_eq!((&row["recipients"], &row["bounces"]), (&40.into(), &10.into()));
    world.until(|row| row["status"] == "sending-paused" && row["bounce_status"] == "sending-pause").await;
    assert_eq!(world.send("", "here", 1).await, PAUSED_BY_RULE);
    // Whoever asks who did that is told.
    let [(part, parameters)] = &world.audited("UpdateAccountSendingEnabled")[..] else { panic!("not one pause") };
    assert_eq!((part.as_str(), &parameters["account"]), ("reputation", &"000000000001".into()));
    assert_eq!(parameters["reason"], "10 hard bounces among the last 40 recipients");
    let [(part, parameters)] = &world.audited("PutSuppressedDestination")[..] else { panic!("not one record") };
    assert_eq!((part.as_str(), &parameters["count"]), ("suppression", &10.into()), "of the first run, at its end");
    world.restart().await;
    assert_eq!(world.send("", "here", 1).await, PAUSED_BY_RULE);
    world.relay.cli(&["accounts", "resume", "000000000001"]).unwrap();
    assert_eq!(world.audited("UpdateAccountSendingEnabled").len(), 1, "a person did that");
    // The rates are of nothing at once; the next look at them says what follows.
    let row = world.until(|row| row["recipients"] == 0 && row["status"] == "healthy").await;
    assert_eq!((&row["bounces"], &row["paused_by"]), (&0.into(), &Value::Null));
    world.accepted("", "here", 2).await;
    world.counted(2, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_paused_before_its_account_and_the_audit_log_has_both() {
    let mut world = World::start("volume = 200\nmin_sample = 40\n").await;
    world.relay.cli(&["configuration-sets", "create", "news", "--reputation-metrics", "on"]).unwrap();
    world.relay.cli(&["accounts", "set", "000000000001", "--auto-pause", "on"]).unwrap();
    world.accepted("X-SES-CONFIGURATION-SET: news\r\n", "gone", 40).await;
    // One after the other: there is none before anything is counted, either.
    world.until(|_| !world.audited("ReputationFreshStart").is_empty()).await;
    let row = world.until(|row| row["recipients"] == 0).await;
    assert_eq!((&row["status"], &row["paused_by"]), (&"healthy".into(), &Value::Null), "it starts afresh");
    let refused = world.send("X-SES-CONFIGURATION-SET: news\r\n", "here", 1).await;
    assert_eq!(refused, PAUSED_BY_RULE);
    world.accepted("", "here", 1).await;
    let [(part, parameters)] = &world.audited("UpdateConfigurationSetSendingEnabled")[..] else {
        panic!("not one pause")
    };
    assert_eq!((part.as_str(), &parameters["name"]), ("reputation", &"news".into()));
    let [(part, parameters)] = &world.audited("ReputationFreshStart")[..] else { panic!("not one fresh start") };
    assert_eq!((part.as_str(), &parameters["pausedSet"]), ("reputation", &"news".into()));
    assert_eq!(world.audited("UpdateAccountSendingEnabled"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_counts_nothing_twice_and_loses_nothing() {
    let mut world = World::start("").await;
    for _ in 0..5 {
        world.accepted("", "here", 30).await;
        world.accepted("", "gone", 5).await;
    }
    world.counted(175, 25).await;
    world.client = None;
    world.relay.kill().unwrap();
    world.relay.launch().unwrap();
    world.counted(175, 25).await;
    world.accepted("", "gone", 1).await;
    world.counted(176, 26).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_waits_where_a_pause_says_so_and_leaves_when_it_is_resumed() {
    const NEWS: &str = "X-SES-CONFIGURATION-SET: news\r\n";
    let mut world = World::start("").await;
    world.relay.cli(&["configuration-sets", "create", "news"]).unwrap();
    world.relay.cli(&["queue", "hold", "--all"]).unwrap();
    world.accepted(NEWS, "here", 1).await;
    world.accepted("", "here", 1).await;
    world.relay.cli(&["configuration-sets", "pause", "news", "--hold", "--reason", "wrong list"]).unwrap();
    assert_eq!(world.send(NEWS, "here", 1).await, "554 Message rejected: Sending paused for this configuration set.");
    world.relay.cli(&["queue", "release", "--all"]).unwrap();
    // The other message of the same queue goes by.
    tokio::time::timeout(PATIENCE, world.sink.wait_for(1)).await.unwrap();
    let waiting = world.ask(&["queue", "list", "--json"]);
    let [message] = &waiting.as_array().unwrap()[..] else { panic!("{waiting}") };
    let why = world.ask(&["queue", "why", message["id"].as_str().unwrap(), "--json"]);
    assert_eq!(why["recipients"][0]["reason"], "sender-paused", "{why}");
    let said = "configuration set news is paused, and what is queued waits too: wrong list";
    assert_eq!(why["recipients"][0]["explanation"], said);
    world.restart().await;
    assert_eq!(world.sink.accepted(), 1);
    world.relay.cli(&["configuration-sets", "resume", "news"]).unwrap();
    tokio::time::timeout(PATIENCE, world.sink.wait_for(2)).await.unwrap();
    // An account, and without a word about the queue.
    world.relay.cli(&["accounts", "pause", "000000000001"]).unwrap();
    assert_eq!(world.send("", "here", 1).await, "554 Message rejected: Sending paused for this account.");
    world.relay.cli(&["accounts", "resume", "000000000001"]).unwrap();
    world.accepted("", "here", 1).await;
    assert!(world.relay.cli(&["accounts", "resume", "000000000001"]).is_err(), "it is not paused");
}
