//! `postrider policy`.

use serde_json::{Value, json};

use crate::support::{Node, feed, refusal};

/// A policy of a credential that writes to colleagues only.
const STAFF: &str = r#"{"Version": "2012-10-17", "Statement": [
  {"Sid": "Staff", "Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": "*",
   "Condition": {"ForAllValues:StringLike": {"ses:Recipients": "*@example.com"}}},
  {"Effect": "Deny", "Action": "ses:Send*", "Resource": "*",
   "Condition": {"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}]}
"#;

fn json_of(node: &Node, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    serde_json::from_str(&node.told(&arguments)).unwrap()
}

fn file(node: &Node, text: &str) -> String {
    let path = node.path("policy.json");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn user(node: &Node, more: &[&str]) -> String {
    let made = json_of(node, &[&["credentials", "create", "--label", "a"], more].concat());
    made["user_name"].as_str().unwrap().to_owned()
}

#[test]
fn the_examples_of_the_manual_are_policies() {
    let page = std::fs::read_to_string(format!("{}/docs/policies.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let node = Node::new();
    let user = user(&node, &[]);
    node.told(&["identities", "create", "example.com", "--trust"]);
    let examples = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    for (number, example) in examples.enumerate() {
        let (name, file) = (format!("example-{number}"), file(&node, example));
        let owner = if example.contains("Principal") { ["--identity", "example.com"] } else { ["--credential", &user] };
        assert_eq!(node.told(&[&["policy", "put"][..], &owner, &[&name, &file]].concat()), "done\n", "{example}");
    }
    let of_user = json_of(&node, &["policy", "list", "--credential", &user]);
    assert_eq!(of_user.as_array().unwrap().len(), 3);
}

#[test]
fn policies_are_put_shown_and_taken_away() {
    let node = Node::new();
    let (user, file) = (user(&node, &[]), file(&node, STAFF));
    let of = ["--credential", &user];
    assert_eq!(node.told(&[&["policy", "list"][..], &of].concat()), "no policies\n");
    assert_eq!(node.told(&[&["policy", "put"][..], &of, &["staff", &file]].concat()), "done\n");
    assert_eq!(node.told(&[&["policy", "show"][..], &of, &["staff"]].concat()), STAFF);
    assert_eq!(json_of(&node, &[&["policy", "list"][..], &of].concat()), json!([{ "name": "staff", "text": STAFF }]));
    let put = node.command(&["policy", "put", "--credential", &user, "staff-2", "-"]);
    assert!(feed(put, STAFF).status.success());
    assert!(node.told(&[&["policy", "list"][..], &of].concat()).contains("staff-2"));
    assert_eq!(node.told(&[&["policy", "delete"][..], &of, &["staff"]].concat()), "done\n");
    let absent = node.run(&[&["policy", "show"][..], &of, &["staff"]].concat());
    assert_eq!(absent.status.code(), Some(3));
    assert_eq!(refusal(&absent), format!("postrider: credential {user} has no policy \"staff\""));

    assert_eq!(node.told(&["credentials", "delete", &user]), "done\n");
    let gone = node.run(&[&["policy", "list"][..], &of].concat());
    assert_eq!(refusal(&gone), format!("postrider: there is no credential {user}"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let node = Node::new();
    let user = user(&node, &[]);
    let wrong = file(&node, &STAFF.replace("ses:Recipients", "ses:ToEmail"));
    let refused = refusal(&node.run(&["policy", "put", "--credential", &user, "staff", &wrong]));
    let start = "postrider: the policy can not be used: Statement 1, Condition, ForAllValues:StringLike, ses:ToEmail: \
                 there is no such condition key; the keys are ses:Recipients, ";
    assert!(refused.starts_with(start), "{refused}");
    let good = file(&node, STAFF);
    let unnamed = node.run(&["policy", "put", "--credential", &user, "a b", &good]);
    assert!(refusal(&unnamed).ends_with("the name of a policy must be 1 to 64 letters, digits, - and _"));
    let nobody = node.run(&["policy", "put", "--credential", "AKIANOBODY", "a", &good]);
    assert_eq!(refusal(&nobody), "postrider: there is no credential with user name AKIANOBODY");
    let both = node.run(&["policy", "list", "--credential", &user, "--identity", "example.com"]);
    assert_eq!(both.status.code(), Some(2));
    assert_eq!(node.run(&["policy", "list"]).status.code(), Some(2));
    node.told(&["identities", "create", "example.com", "--trust"]);
    let elsewhere = node.run(&["policy", "put", "--identity", "example.com", "a", &good]);
    assert!(refusal(&elsewhere).contains("Statement 1, Resource: it must be the identity"), "{}", refusal(&elsewhere));
}

#[test]
fn a_test_says_which_statement_decides() {
    let node = Node::new();
    let user = user(&node, &[]);
    node.told(&["identities", "create", "example.com", "--trust"]);
    let ask = ["policy", "test", "--credential", &user, "--from", "me@example.com"];
    let free = node.told(&[&ask[..], &["--to", "ann@example.net"]].concat());
    let arn = "arn:aws:ses:us-east-1:000000000001:identity/example.com";
    let expected = format!(
        "{arn}\n  credential  allowed: it has no policies, and may do all\n  \
         identity    allowed: no policy denies it\nallowed\n"
    );
    assert_eq!(free, expected);

    node.told(&["policy", "put", "--credential", &user, "staff", &file(&node, STAFF)]);
    let colleague = node.told(&[&ask[..], &["--to", "ann@example.com,bob@example.com", "--ip", "192.0.2.7"]].concat());
    assert!(colleague.contains("  credential  allowed by statement 1 (Staff) of policy staff\n"), "{colleague}");
    let outside = node.told(&[&ask[..], &["--to", "ann@example.com,bob@example.net", "--ip", "192.0.2.7"]].concat());
    assert!(outside.contains("  credential  denied: no statement allows it\n"), "{outside}");
    let reply = format!(
        "554 Access denied: User `arn:aws:iam::000000000001:user/{user}' is not authorized to perform \
         `ses:SendRawEmail' on resource `{arn}'"
    );
    assert!(outside.ends_with(&format!("refused: {reply}\n")), "{outside}");
    let elsewhere = json_of(&node, &[&ask[..], &["--to", "ann@example.com", "--ip", "198.51.100.1"]].concat());
    assert_eq!((&elsewhere["allowed"], &elsewhere["reply"]), (&json!(false), &json!(reply)));
    let deny = json!({ "verdict": "deny", "policy": "staff", "statement": 2 });
    assert_eq!(elsewhere["decisions"][0]["credential"], deny);
    let late = node.run(&[&ask[..], &["--to", "ann@example.com", "--at", "soon"]].concat());
    assert_eq!(late.status.code(), Some(2));
}

#[test]
fn a_test_knows_the_identities_of_others() {
    let node = Node::new();
    let user = user(&node, &["--account", "000000000002"]);
    for name in ["example.com", "ann@example.com"] {
        node.told(&["identities", "create", name, "--trust"]);
    }
    let put = |identity: &str, effect: &str| {
        let arn = format!("arn:aws:ses:us-east-1:000000000001:identity/{identity}");
        let text = format!(
            r#"{{"Statement": {{"Effect": "{effect}", "Principal": {{"AWS": "000000000002"}},
                "Action": "ses:SendRawEmail", "Resource": "{arn}"}}}}"#
        );
        node.told(&["policy", "put", "--identity", identity, "lend", &file(&node, &text)]);
    };
    let arn = "arn:aws:ses:us-east-1:000000000001:identity/example.com";
    let ask = |from: &str, arn: &str| {
        node.run(&["policy", "test", "--credential", &user, "--from", from, "--to", "x@y.example", "--source-arn", arn])
    };
    let told = |from: &str| crate::support::stdout(&ask(from, arn));
    assert!(told("bob@example.com").contains("  identity    denied: no statement allows it\n"));
    put("example.com", "Allow");
    put("ann@example.com", "Deny");
    let bob = told("bob@example.com");
    assert!(bob.contains("  identity    allowed by statement 1 of policy lend of example.com\n"), "{bob}");
    let ann = told("ann@example.com");
    assert!(ann.contains("  identity    denied by statement 1 of policy lend of ann@example.com\n"), "{ann}");
    let elsewhere = refusal(&ask("bob@example.com", "arn:aws:ses:eu-west-1:000000000001:identity/example.com"));
    assert_eq!(elsewhere, "postrider: X-SES-SOURCE-ARN: it is of another region: here it is us-east-1");
    let absent = refusal(&ask("bob@example.org", arn));
    assert!(absent.contains("has no identity example.com that bob@example.org belongs to"), "{absent}");
}
