//! State as a file declares it: the difference, applying, exporting.

use std::fmt::Write as _;
use std::fs;

use crate::support::{Node, refusal, stdout};

const STATE: &str = r#"
[[account]]
name = "The company"
contact = "ops@example.com"
daily_quota = 50000
max_rate = 14
tags = { team = "mail" }

[[account]]
id = "000000000007"
name = "Acme"
sandbox = true
suppressed_reasons = ["BOUNCE"]

[[pool]]
name = "bulk"

[[configuration_set]]
name = "news"
tls = "REQUIRE"
pool = "bulk"
max_lifetime = "14h"
retry = ["2m", "1h"]
tags = { kind = "bulk" }

[[configuration_set.event_destination]]
name = "hook"
matching = ["BOUNCE", "COMPLAINT"]
target = { webhook = "https://hooks.example.com/ses" }

[[identity]]
name = "example.com"
trusted = true
configuration_set = "news"
mail_from = "bounce.example.com"

[[identity]]
account = "000000000007"
name = "sales@acme.example"

[[policy]]
identity = "example.com"
name = "acme"
document = '''
{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000007:root"},
 "Action":"ses:SendRawEmail","Resource":"arn:aws:ses:us-east-1:000000000001:identity/example.com"}]}
'''
"#;

fn node_with(state: &str) -> Node {
    let node = Node::new();
    fs::write(node.path("state.toml"), state).unwrap();
    node
}

fn apply(node: &Node, more: &[&str]) -> std::process::Output {
    let file = node.path("state.toml");
    node.run(&[&["apply", "-f", file.to_str().unwrap()], more].concat())
}

fn applied(node: &Node, more: &[&str]) -> String {
    let output = apply(node, more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stdout(&output)
}

#[test]
fn a_file_is_compared_applied_and_exported() {
    let node = node_with(STATE);
    let daemon = node.serve();
    let dry = apply(&node, &["--dry-run"]);
    assert_eq!(dry.status.code(), Some(2));
    let difference = stdout(&dry);
    assert!(difference.contains("+ identity example.com of account 000000000001\n"), "{difference}");
    assert!(difference.contains("    + tls = \"REQUIRE\"\n"), "{difference}");
    assert!(difference.ends_with("7 to add, 0 to change, 0 to remove\n"), "{difference}");
    assert!(!node.told(&["export"]).contains("example.com"), "a dry run changes nothing");

    assert!(applied(&node, &["--yes"]).ends_with("7 changes made\n"));
    assert_eq!(applied(&node, &["--dry-run"]), "nothing to change\n");
    let shown = node.told(&["identities", "show", "example.com"]);
    assert!(shown.contains("bounce.example.com"), "{shown}");

    // A field that is not named any more is as by default; what is not in the file stays.
    let smaller = STATE.replace("tls = \"REQUIRE\"\n", "").replace("\"14h\"", "\"10h\"");
    let smaller = smaller.replace("[[identity]]\naccount = \"000000000007\"\nname = \"sales@acme.example\"\n", "");
    fs::write(node.path("state.toml"), &smaller).unwrap();
    let changed = applied(&node, &["--yes"]);
    assert!(changed.contains("~ configuration set news of account 000000000001\n"), "{changed}");
    assert!(changed.contains("    - tls = \"REQUIRE\"\n"), "{changed}");
    assert!(changed.contains("    ~ max_lifetime = \"14h\" -> \"10h\"\n"), "{changed}");
    let export = node.told(&["export"]);
    assert!(export.contains("sales@acme.example"), "{export}");

    let pruned = applied(&node, &["--yes", "--prune"]);
    assert!(pruned.contains("- identity sales@acme.example of account 000000000007\n"), "{pruned}");
    let export = node.told(&["export"]);
    assert!(!export.contains("sales@acme.example"), "{export}");
    assert!(daemon.stop().success());

    // The same state in an empty node, without a daemon.
    let other = node_with(&export);
    applied(&other, &["--yes"]);
    assert_eq!(other.told(&["export"]), export);
    assert_eq!(applied(&other, &["--dry-run", "--prune"]), "nothing to change\n");
}

#[test]
fn refusals_name_the_line_and_change_nothing() {
    for (state, place, reason) in [
        (
            "[[identity]]\nname = \"example.com\"\nconfiguration_set = \"news\"\n",
            "state.toml:1:",
            "there is no configuration set news",
        ),
        (
            "[[pool]]\nname = \"bulk\"\nsources = { nowhere = 1 }\n",
            "state.toml:3:1: ",
            "there is no source \"nowhere\"",
        ),
        ("[[configuration_set]]\nname = \"a b\"\n", "state.toml:1:", "1 to 64 letters"),
        ("[[account]]\ndaily_quota = 0\n", "state.toml:1:", "at least 1"),
        ("[[identity]]\nname = \"no domain\"\n", "state.toml:2:8: ", "domain"),
        ("[[configuration_set]]\nname = \"x\"\nmax_lifetime = \"long\"\n", "state.toml:3:16: ", "long"),
    ] {
        let node = node_with(state);
        let output = apply(&node, &["--yes"]);
        assert_eq!(output.status.code(), Some(78), "{state}");
        let refused = refusal(&output);
        assert!(refused.contains(place) && refused.contains(reason), "{refused}");
        assert!(!node.told(&["export"]).contains("[["), "{state}");
    }
    let node = node_with("");
    assert!(refusal(&apply(&node, &[])).contains("there is nobody to ask"));
}

#[test]
fn credentials_are_declared_without_their_secrets() {
    let node = node_with("");
    let made = node.told(&["credentials", "create", "--label", "web", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let user = made["user_name"].as_str().unwrap();
    let export = node.told(&["export"]);
    assert!(export.contains(user) && export.contains("label = \"web\""), "{export}");
    for secret in ["smtp_password", "secret_access_key"] {
        assert!(!export.contains(made[secret].as_str().unwrap()), "{export}");
    }
    fs::write(node.path("state.toml"), export.replace("\"web\"", "\"shop\"")).unwrap();
    assert!(applied(&node, &["--yes"]).contains("    ~ label = \"web\" -> \"shop\"\n"));
    // Elsewhere there is none of that name, and none can be made of a file.
    let other = node_with(&node.told(&["export"]));
    let told = applied(&other, &["--yes"]);
    assert!(told.contains(&format!("postrider credentials import --user {user}")), "{told}");
}

/// So many accounts, each with an identity, a set and a policy.
fn tenants(count: usize) -> String {
    let mut state = String::new();
    for n in 100..100 + count {
        let id = format!("{n:012}");
        write!(
            state,
            "[[account]]\nid = \"{id}\"\nname = \"Tenant {n}\"\ndaily_quota = 1000\n\
             [[configuration_set]]\naccount = \"{id}\"\nname = \"main\"\ntls = \"REQUIRE\"\n\
             [[identity]]\naccount = \"{id}\"\nname = \"t{n}.example.com\"\ntrusted = true\nconfiguration_set = \"main\"\n\
             [[policy]]\naccount = \"{id}\"\nidentity = \"t{n}.example.com\"\nname = \"deny\"\n\
             document = '{{\"Version\":\"2012-10-17\",\"Statement\":{{\"Effect\":\"Deny\",\"Principal\":\"*\",\"Action\":\"ses:*\",\
             \"Resource\":\"arn:aws:ses:us-east-1:{id}:identity/t{n}.example.com\"}}}}'\n",
        )
        .unwrap();
    }
    state
}

#[test]
fn ten_thousand_tenants_are_one_apply() {
    let node = node_with(&tenants(10_000));
    let told = applied(&node, &["--yes"]);
    assert!(told.ends_with("40000 changes made\n"));
    assert_eq!(applied(&node, &["--dry-run", "--prune"]), "nothing to change\n");
}

#[test]
fn an_apply_that_was_cut_off_is_finished_by_the_next() {
    let node = node_with(&tenants(1_000));
    let mut daemon = node.serve();
    let file = node.path("state.toml");
    let mut command = node.command(&["apply", "--yes", "-f", file.to_str().unwrap()]);
    let mut applying = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Killed when some of it is there.
    let audit = node.path("state/audit/audit.jsonl");
    while fs::metadata(&audit).map_or(0, |audit| audit.len()) < 100_000 {
        assert!(applying.try_wait().unwrap().is_none(), "it was quicker than this test");
        std::thread::yield_now();
    }
    daemon.child.kill().unwrap();
    assert!(!applying.wait().unwrap().success());
    drop(daemon);
    applied(&node, &["--yes"]);
    assert_eq!(applied(&node, &["--dry-run", "--prune"]), "nothing to change\n");
}
