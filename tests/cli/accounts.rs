//! `postrider accounts`, and credentials in the sandbox.

use serde_json::Value;

use crate::support::{Node, refusal};

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
