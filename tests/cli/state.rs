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
fn the_example_of_the_manual_applies_as_it_stands() {
    let page = fs::read_to_string(format!("{}/docs/state.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let node = node_with(example);
    node.configure("[delivery.sources.a]\nipv4 = \"127.0.0.2\"\n[delivery.sources.b]\nipv4 = \"127.0.0.3\"\n");
    assert!(applied(&node, &["--yes"]).ends_with("5 changes made\n"));
    // The credential of the example is not there, which is pointed out.
    assert!(applied(&node, &["--dry-run"]).ends_with("nothing to change\n"));
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
    fs::write(node.path("state.toml"), export.replace("\"web\"", "\"shop\"\nmax_rate = 5")).unwrap();
    let told = applied(&node, &["--yes"]);
    assert!(told.contains("    ~ label = \"web\" -> \"shop\"\n") && told.contains("max_rate = 5"), "{told}");
    assert!(node.told(&["credentials", "show", user]).contains("a second        5"));
    fs::write(node.path("state.toml"), export.replace("\"web\"", "\"shop\"\nmax_rate = 0")).unwrap();
    assert!(refusal(&apply(&node, &["--yes"])).contains("a quota is at least 1"));
    // Elsewhere there is none of that name, and none can be made of a file.
    let other = node_with(&node.told(&["export"]));
    let told = applied(&other, &["--yes"]);
    assert!(told.contains(&format!("postrider credentials import --user {user}")), "{told}");
}

const ALLOW: &str =
    r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ses:SendRawEmail","Resource":"*"}}"#;

/// A credential, and the policies that it gets.
fn credential(node: &Node, policies: &[&str]) -> String {
    let made: serde_json::Value = serde_json::from_str(&node.told(&["credentials", "create", "--json"])).unwrap();
    let user = made["user_name"].as_str().unwrap().to_owned();
    fs::write(node.path("policy.json"), ALLOW).unwrap();
    for name in policies {
        node.told(&["policy", "put", "--credential", &user, name, node.path("policy.json").to_str().unwrap()]);
    }
    user
}

#[test]
fn what_is_not_declared_goes_with_its_policies() {
    let node = node_with(STATE);
    applied(&node, &["--yes"]);
    let user = credential(&node, &["a", "b"]);
    // Of a credential that stays, a policy goes by itself.
    let stays = credential(&node, &["c"]);
    let declared = format!("[[credential]]\nuser = \"{stays}\"\n");
    fs::write(node.path("state.toml"), &declared).unwrap();
    let pruned = applied(&node, &["--yes", "--prune"]);
    let gone: Vec<_> = pruned.lines().filter(|line| line.starts_with('-')).collect();
    assert_eq!(
        gone,
        [
            &format!("- policy c of {stays}"),
            &format!("- credential {user}"),
            "- identity example.com of account 000000000001",
            "- identity sales@acme.example of account 000000000007",
            "- configuration set news of account 000000000001",
            "- pool bulk of account 000000000001",
            "- account 000000000007",
        ]
    );
    let export = node.told(&["export"]);
    assert!(export.contains(&stays) && !export.contains(&user) && !export.contains("[[policy]]"), "{export}");
    assert_eq!(applied(&node, &["--dry-run", "--prune"]), "nothing to change\n");
}

#[test]
fn accounts_that_are_needed_stay() {
    let node = node_with("[[identity]]\naccount = \"000000000007\"\nname = \"example.com\"\n");
    applied(&node, &["--yes"]);
    node.told(&["accounts", "set", "1", "--daily-quota", "500"]);
    node.told(&["accounts", "set", "7", "--daily-quota", "500"]);
    assert_eq!(applied(&node, &["--yes", "--prune"]), "nothing to change\n");

    // One that can not go is told with what to do, and no other goes either.
    node.told(&["accounts", "create", "8"]);
    node.told(&["accounts", "create", "9"]);
    node.told(&["suppression", "put", "gone@example.net", "--account", "9"]);
    let refused = refusal(&apply(&node, &["--yes", "--prune"]));
    assert!(refused.contains("`postrider suppression import --delete`"), "{refused}");
    assert!(refused.ends_with("nothing was changed"), "{refused}");
    assert!(node.told(&["accounts", "list"]).contains("000000000008"));
    node.told(&["suppression", "delete", "gone@example.net", "--account", "9"]);
    assert!(applied(&node, &["--yes", "--prune"]).ends_with("2 changes made\n"));
}

#[test]
fn a_pool_can_get_another_name() {
    let state = "[[pool]]\nname = \"bulk\"\nsources = { a = 1, b = 1 }\n\
                 [[configuration_set]]\nname = \"news\"\npool = \"bulk\"\n";
    let node = node_with(state);
    node.configure("[delivery.sources.a]\nipv4 = \"127.0.0.2\"\n[delivery.sources.b]\nipv4 = \"127.0.0.3\"\n");
    applied(&node, &["--yes"]);
    let renamed = state.replace("bulk", "bulk-2").replace(", b = 1", "");
    fs::write(node.path("state.toml"), &renamed).unwrap();
    // Without being told to, nothing leaves a pool.
    assert!(refusal(&apply(&node, &["--yes"])).contains("in use by pool bulk"));
    assert!(applied(&node, &["--yes", "--prune"]).ends_with("4 changes made\n"));
    assert_eq!(applied(&node, &["--dry-run", "--prune"]), "nothing to change\n");
}

#[test]
fn a_policy_waits_for_its_credential() {
    let node = node_with("");
    let user = credential(&node, &["a"]);
    let export = node.told(&["export"]);
    let other = node_with(&format!("{export}\n[[identity]]\nname = \"example.com\"\n"));
    let told = applied(&other, &["--yes"]);
    assert!(told.contains(&format!("! policy a of {user}: left out until that credential is here\n")), "{told}");
    assert!(told.ends_with("1 changes made\n"), "{told}");
    let exported = other.told(&["export"]);
    assert!(exported.contains("example.com") && !exported.contains("[[policy]]"), "{exported}");
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
