//! `postrider accounts`, and credentials in the sandbox.

use postrider_base::Clock;
use postrider_testkit::{Policy, Received, Relay, RelayOptions, Security, Sink};
use serde_json::Value;

use crate::support::{Node, refusal};

/// A remote that has no time.
struct Deferring;

impl Policy for Deferring {
    fn recipient(&self, _: &str) -> String {
        "451 4.3.0 try again later".to_owned()
    }

    fn message(&self, _: Received) -> String {
        "451 4.3.0 try again later".to_owned()
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_account_lives_from_create_to_delete() {
    let node = Node::new();
    assert!(node.told(&["accounts", "list"]).contains("no account was made"));
    let options = ["--name", "Acme", "--daily-quota", "500", "--sandbox", "on", "--tag", "tier=gold", "--json"];
    let made = json(&node.told(&[&["accounts", "create", "7"][..], &options].concat()));
    assert_eq!((&made["id"], &made["daily_quota"]), (&Value::from("000000000007"), &Value::from(500)));
    assert!(refusal(&node.run(&["accounts", "create", "7"])).contains("account 000000000007 already exists"));

    let shown = node.told(&["accounts", "set", "7", "--no-daily-quota", "--max-rate", "14", "--untag", "tier"]);
    assert!(shown.contains("a second        14") && !shown.contains("tier"), "{shown}");
    assert!(refusal(&node.run(&["accounts", "set", "7", "--max-rate", "0"])).contains("a quota is at least 1"));
    assert!(
        refusal(&node.run(&["accounts", "set", "8", "--max-rate", "1"])).contains("there is no account 000000000008")
    );

    node.told(&["accounts", "pause", "7", "--hold", "--reason", "unpaid"]);
    let listed = node.told(&["accounts", "list"]);
    assert!(listed.contains("paused by hand, sandbox"), "{listed}");
    node.told(&["accounts", "resume", "7"]);

    node.told(&["identities", "create", "acme.example", "--trust", "--account", "7"]);
    assert!(refusal(&node.run(&["accounts", "delete", "7"])).contains("in use by its identities"));
    node.told(&["identities", "delete", "acme.example", "--account", "7"]);
    node.told(&["accounts", "delete", "7"]);
    assert_eq!(node.run(&["accounts", "show", "7"]).status.code(), Some(3));
}

#[test]
fn a_credential_is_in_the_sandbox_or_not() {
    let node = Node::new();
    let user = json(&node.told(&["credentials", "create", "--sandbox", "--json"]))["user_name"].clone();
    let user = user.as_str().unwrap();
    assert!(node.told(&["credentials", "list"]).contains("sandbox"));
    node.told(&["credentials", "sandbox", user, "off"]);
    assert!(!node.told(&["credentials", "list"]).contains("sandbox"));
}

#[test]
fn an_explanation_ends_with_the_decision() {
    let node = Node::new();
    node.configure("[submission]\nunverified_senders = \"reject\"\n");
    let explain = |more: &[&str]| node.told(&[&["explain", "--from", "ann@example.com"], more].concat());
    let told = explain(&[]);
    assert!(told.contains("senders: refused") && told.contains("Email address is not verified."), "{told}");
    node.told(&["identities", "create", "example.com", "--trust"]);
    let rows = json(&explain(&["--json"]));
    let last = rows.as_array().unwrap().last().unwrap();
    assert_eq!((&last["what"], &last["value"]), (&Value::from("decision"), &Value::from("accepted")), "{rows}");
    node.told(&["accounts", "set", "1", "--sandbox", "on"]);
    assert!(explain(&["--to", "you@example.org"]).contains("recipients: refused"));
    assert!(explain(&["--to", "bob@example.com"]).contains("recipients: passed"));

    let made = json(&node.told(&["credentials", "create", "--json"]))["user_name"].clone();
    let user = made.as_str().unwrap();
    assert!(explain(&["--credential", user]).contains("credential: passed"));
    node.told(&["credentials", "disable", user]);
    let told = explain(&["--credential", user]);
    assert!(told.contains("535 5.7.13 Account not subscribed to SES") && !told.contains("accepted"), "{told}");
    node.told(&["identities", "mail-from", "example.com", "bounce.example.com", "--on-failure", "reject"]);
    assert!(explain(&[]).contains("accepted"), "clients choose the return path");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_stays_as_long_as_its_mail_waits() {
    let sink = Sink::start(Deferring, Clock::system()).await.unwrap();
    let mut relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), "")).unwrap();
    for id in ["7", "8"] {
        relay.cli(&["accounts", "create", id, "--name", "Customer"]).unwrap();
    }
    let made = relay.cli(&["credentials", "create", "--account", "8", "--json"]).unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let text = |name: &str| made[name].as_str().unwrap();
    let mut client = relay.endpoint(Security::StartTls, false).unwrap().connect().await.unwrap();
    client.login(text("user_name"), text("smtp_password")).await.unwrap();
    let content = b"From: me@example.com\r\nSubject: Hello\r\n\r\nHello.\r\n";
    client.send("me@example.com", &["ann@example.net"], content).await.unwrap().expect(250).unwrap();
    drop(client);
    relay.cli(&["credentials", "delete", text("user_name")]).unwrap();
    relay.cli(&["accounts", "pause", "8", "--hold"]).unwrap();

    std::fs::write(relay.path("empty.toml"), "").unwrap();
    let empty = relay.path("empty.toml").display().to_string();
    let prune = ["apply", "-f", &empty, "--yes", "--prune"];
    let refused = |relay: &Relay, arguments: &[&str]| relay.cli(arguments).unwrap_err().to_string();
    // Through the daemon and on its files.
    for runs in [true, false] {
        for arguments in [&["accounts", "delete", "8"][..], &prune] {
            let told = refused(&relay, arguments);
            assert!(told.contains("account 000000000008 still has mail that waits, to example.net"), "{runs}: {told}");
        }
        let listed = relay.cli(&["accounts", "list"]).unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("000000000007") && listed.contains("000000000008"), "all go or none: {listed}");
        if runs {
            assert!(relay.stop().unwrap().success());
        }
    }
    relay.launch().unwrap();
    relay.cli(&["queue", "delete", "--all"]).unwrap();
    relay.cli(&prune).unwrap();
    let listed = relay.cli(&["accounts", "list"]).unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains("no account was made"));
}
