//! `postrider spool`, and whose spool it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider_base::Clock;
use postrider_testkit::{Policy, Received, Relay, RelayOptions, Security, Sink};
use serde_json::Value;

use crate::support::{Node, refusal, stdout};

/// A remote that has no time until it is open.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Policy for Gate {
    fn recipient(&self, _: &str) -> String {
        if self.0.load(Ordering::SeqCst) { "250 Ok".to_owned() } else { "451 4.3.0 closed".to_owned() }
    }

    fn message(&self, _: Received) -> String {
        "250 Ok".to_owned()
    }
}

struct Scene {
    gate: Gate,
    relay: Relay,
    _sink: Sink,
}

impl Scene {
    async fn new() -> Scene {
        let gate = Gate::default();
        let sink = Sink::start(gate.clone(), Clock::system()).await.unwrap();
        let configuration = "[spool]\nsegment_bytes = \"1MiB\"\n";
        let options = RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), configuration);
        Scene { gate, relay: Relay::start(options).unwrap(), _sink: sink }
    }

    /// Ids of messages that wait, each deferred once.
    async fn fill(&self, count: usize) -> Vec<String> {
        self.fill_with(count, 0).await
    }

    /// As [`Scene::fill`], with so many bytes more in each.
    async fn fill_with(&self, count: usize, more: usize) -> Vec<String> {
        let more = "0123456789\r\n".repeat(more / 12);
        let mut client = self.relay.endpoint(Security::StartTls, false).unwrap().connect().await.unwrap();
        let (user, password) = self.relay.credentials();
        client.login(user, password).await.unwrap();
        let mut ids = Vec::new();
        for number in 0..count {
            let content = format!("From: me@example.com\r\nSubject: Number {number}\r\n\r\nbody of {number}\r\n{more}");
            let sent = client.send("me@example.com", &["you@example.net"], content.as_bytes()).await.unwrap();
            ids.push(sent.expect(250).unwrap().text().split_whitespace().last().unwrap().to_owned());
        }
        let deferred = || {
            let rows: Value = self.asked(&["queue", "list", "--json"]);
            rows.as_array().unwrap().iter().filter(|row| row["state"] == "deferred").count()
        };
        for _ in 0..400 {
            if deferred() == count {
                return ids;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never deferred");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.args(arguments).arg("--config").arg(self.relay.path("relay.toml"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn told(&self, arguments: &[&str]) -> String {
        stdout(&self.relay.cli(arguments).unwrap())
    }

    fn asked(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.told(arguments)).unwrap()
    }

    /// Waits until this is told of a message.
    async fn until_life_of(&self, id: &str, what: &str) {
        for _ in 0..400 {
            if self.told(&["message", id]).contains(what) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {what}: {}", self.told(&["message", id]));
    }

    /// The segment that has this text, and where.
    fn find(&self, text: &str) -> (PathBuf, usize) {
        for entry in fs::read_dir(self.relay.state().join("spool")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("segment-") {
                let bytes = fs::read(&path).unwrap();
                let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
                if let Some(at) = found {
                    return (path, at);
                }
            }
        }
        panic!("{text} is in no segment");
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_spool_of_another_node_is_held_until_it_is_released() {
    let (here, there) = (Node::new(), Node::new());
    for node in [&here, &there] {
        assert!(!node.told(&["status"]).contains("held"));
    }
    fs::remove_dir_all(there.path("state/spool")).unwrap();
    copy(&here.path("state/spool"), &there.path("state/spool"));

    let mut daemon = there.serve();
    daemon.wait_for_log("was restored or copied from another node: everything in it is held");
    let status = there.told(&["status"]);
    assert!(status.contains("held         everything, until `postrider queue release --all`"), "{status}");
    assert!(daemon.stop().success());
    // Held it stays, though it is this node's by now.
    assert!(there.told(&["spool"]).contains("held "));
    there.told(&["queue", "release", "--all"]);
    assert!(!there.told(&["spool"]).contains("held "));
    assert!(!here.told(&["spool"]).contains("held "));

    // A copy of everything has a node of its own without its node.toml.
    fs::remove_file(there.path("state/node.toml")).unwrap();
    assert!(there.told(&["queue", "summary"]).contains("the queue is empty"));
    assert!(there.told(&["spool"]).contains("held "));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_named_and_repaired_where_that_is_possible() {
    let mut scene = Scene::new().await;
    let ids = scene.fill(3).await;
    let refused = scene.run(&["spool", "check"]);
    assert!(refusal(&refused).contains("the daemon is running"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(scene.relay.stop().unwrap().success());

    let told = scene.told(&["spool", "check"]);
    assert!(told.contains("messages     3 waiting") && told.contains("index        agrees with the log"), "{told}");
    assert!(told.ends_with("no damage\n"), "{told}");
    assert_eq!(scene.asked(&["spool", "check", "--json"])["sound"], true);
    // Seals the segment.
    scene.told(&["queue", "summary"]);

    let (segment, _) = scene.find("body of 1");
    let length = fs::read(&segment).unwrap().len();
    for (at, part) in [(2050, "copy of the header"), (length - 70, "footer"), (length - 10, "trailer")] {
        flip(&segment, at);
        let found = scene.run(&["spool", "check"]);
        assert!(refusal(&found).contains("the spool is damaged"));
        assert!(stdout(&found).contains(&format!(": {part}, ")), "{part}: {}", stdout(&found));
        let repaired = scene.told(&["spool", "check", "--repair"]);
        let (before, after) = repaired.split_once("After the repair:").unwrap();
        assert!(before.contains("damaged") && after.ends_with("no damage\n"), "{part}: {repaired}");
        assert!(after.contains("3 waiting"), "{after}");
    }

    let (segment, at) = scene.find("body of 1");
    flip(&segment, at);
    let found = scene.run(&["spool", "check", "--json"]);
    let report: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((found.status.code(), &report["sound"]), (Some(1), &Value::Bool(false)));
    assert_eq!(report["damaged"], serde_json::json!([ids[1]]));
    let repaired = scene.run(&["spool", "check", "--repair"]);
    assert_eq!(repaired.status.code(), Some(1), "what is lost stays lost");
    assert!(stdout(&repaired).ends_with(&format!("message {} does not read back\ndamaged\n", ids[1])));
    assert_eq!(scene.asked(&["queue", "show", &ids[1], "--json"])["held"], true);
    scene.told(&["queue", "delete", &ids[1]]);
    let given_up = stdout(&scene.run(&["spool", "check"]));
    assert!(given_up.contains("nothing that waits is damaged") && given_up.ends_with("damaged\n"), "{given_up}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_made_anew_by_a_repair() {
    let mut scene = Scene::new().await;
    scene.fill(2).await;
    assert!(scene.relay.stop().unwrap().success());
    let index = scene.relay.state().join("spool/index/0");
    for entry in fs::read_dir(index).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(path, "not a database").unwrap();
        }
    }
    let found = scene.run(&["spool", "check"]);
    assert!(stdout(&found).contains("index        does not read"), "{}", stdout(&found));
    assert_eq!(found.status.code(), Some(1));
    let repaired = scene.told(&["spool", "check", "--repair"]);
    assert!(repaired.ends_with("no damage\n") && repaired.contains("index        agrees with the log"), "{repaired}");
}

#[test]
fn there_is_nothing_to_verify_where_no_spool_is() {
    let node = Node::new();
    assert!(refusal(&node.run(&["spool", "check"])).contains("there is no spool in"));
    assert!(!node.path("state").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_messages_move_to_another_relay_and_arrive_once() {
    let (mut here, mut there) = (Scene::new().await, Scene::new().await);
    let ids = here.fill(3).await;
    let file = here.relay.path("mail");
    let file = file.to_str().unwrap();
    assert!(refusal(&here.run(&["spool", "export", file])).contains("the daemon is running"));
    assert!(here.relay.stop().unwrap().success());
    let told = here.told(&["spool", "export", file]);
    assert!(told.contains("3 messages, ") && told.contains("3 of them wait here no more"), "{told}");
    assert_eq!(here.told(&["queue", "summary"]), "the queue is empty\n");
    assert!(refusal(&here.run(&["spool", "export", file])).contains("File exists"));
    let none = here.relay.path("none");
    let told = here.told(&["spool", "export", none.to_str().unwrap()]);
    assert_eq!((&*told, none.exists()), ("no such message waits here, and no file was written\n", false));
    let one = here.run(&["spool", "export", "--id", &ids[0], none.to_str().unwrap()]);
    assert!(refusal(&one).contains("is not queued") && !none.exists());

    assert!(refusal(&there.run(&["spool", "import", file])).contains("the daemon is running"));
    assert!(there.relay.stop().unwrap().success());
    let whole = fs::read(file).unwrap();
    let cut = there.relay.path("cut");
    fs::write(&cut, &whole[..whole.len() - 40]).unwrap();
    assert!(refusal(&there.run(&["spool", "import", cut.to_str().unwrap()])).contains("cut short"));
    flip(&cut, 1000);
    assert!(refusal(&there.run(&["spool", "import", cut.to_str().unwrap()])).contains("damaged (at byte "));
    assert!(refusal(&there.run(&["spool", "import", "/nowhere"])).contains("/nowhere"));
    assert_eq!(there.told(&["queue", "summary"]), "the queue is empty\n");

    assert!(there.told(&["spool", "import", file]).starts_with("3 messages, "));
    let again = there.told(&["spool", "import", file]);
    assert!(again.starts_with("0 messages, ") && again.contains("3 were taken from this file before"), "{again}");
    let again = there.told(&["spool", "import", file, "--again"]);
    assert!(again.contains("3 wait here already") && again.contains(&ids[2]), "{again}");
    let moved = there.asked(&["queue", "show", &ids[1], "--json"]);
    assert_eq!((&moved["recipients"][0]["attempts"], &moved["held"]), (&1.into(), &false.into()));
    assert!(there.told(&["spool", "check"]).ends_with("no damage\n"));

    there.gate.0.store(true, Ordering::SeqCst);
    there.relay.launch().unwrap();
    there.told(&["queue", "retry", "--all"]);
    for id in &ids {
        there.until_life_of(id, "delivered").await;
    }
    assert!(there.relay.stop().unwrap().success());
    let again = there.asked(&["spool", "import", file, "--json"]);
    assert_eq!((&again["messages"], &again["taken_before"]), (&0.into(), &3.into()));
    here.relay.launch().unwrap();
    here.until_life_of(&ids[1], "moved to another machine with the file mail").await;
    let told = here.told(&["events", "since", "1h"]);
    assert!(told.contains("\"Send\"") && !told.contains("\"Bounce\""), "{told}");
    there.relay.launch().unwrap();
    let told = there.told(&["events", "since", "1h"]);
    assert!(told.contains("\"Delivery\"") && !told.contains("\"eventType\":\"Send\""), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn space_is_given_back_with_a_daemon_and_without() {
    let mut scene = Scene::new().await;
    let ids = scene.fill_with(6, 700_000).await;
    let compact = |scene: &Scene| {
        let told = scene.asked(&["spool", "compact", "--json"]);
        (told["before"].as_u64().unwrap(), told["after"].as_u64().unwrap())
    };
    let (before, after) = compact(&scene);
    assert!(before > 6 * 700_000 && after > 6 * 700_000, "what waits is not given back: {before}, {after}");
    assert!(scene.relay.stop().unwrap().success());
    for id in &ids[1..] {
        scene.told(&["queue", "delete", id]);
    }
    let (before, after) = compact(&scene);
    assert!(after + 1_000_000 < before, "{before}, {after}");
    let told = scene.told(&["spool", "compact"]);
    assert!(told.contains(" on disk before, ") && told.ends_with(" now\n"), "{told}");
    assert!(scene.told(&["spool", "check"]).contains("1 waiting"));
    for stat in [&["spool"][..], &["spool", "stat"]] {
        assert!(scene.told(stat).starts_with("messages     1 waiting"));
    }
    scene.relay.launch().unwrap();
    assert_eq!(scene.asked(&["queue", "list", "--json"])[0]["id"], ids[0].as_str());
    scene.until_life_of(&ids[1], "deleted by the operator").await;
}
