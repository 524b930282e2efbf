//! The log of who changed what.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::support::{Node, feed, refusal};

fn records(node: &Node, more: &[&str]) -> Vec<Value> {
    let told = node.told(&[&["audit", "--json"], more].concat());
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn changes_are_recorded_with_who_and_without_secrets() {
    let node = Node::new();
    node.told(&["configuration-sets", "create", "news", "--tls", "require"]);
    let daemon = node.serve();
    node.told(&["configuration-sets", "set", "news", "--tls", "optional"]);
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let import = node.command(&["credentials", "import", "--user", "AKIAIOSFODNN7EXAMPLE"]);
    assert!(feed(import, secret).status.success());
    let made: Value = serde_json::from_str(&node.told(&["credentials", "create", "--json"])).unwrap();
    node.told(&["configuration-sets", "list"]);
    assert_eq!(node.run(&["configuration-sets", "delete", "nothing"]).status.code(), Some(3));

    let all = records(&node, &[]);
    let names: Vec<_> = all.iter().map(|record| record["eventName"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "CreateConfigurationSet",
            "UpdateConfigurationSet",
            "CredentialsImport",
            "CreateAccessKey",
            "DeleteConfigurationSet",
            "DeleteConfigurationSet",
        ]
    );
    assert_eq!(
        (&all[0]["sourceIPAddress"], &all[1]["sourceIPAddress"]),
        (&"command-line".into(), &"control-socket".into())
    );
    for record in &all {
        assert_eq!(record["userIdentity"]["uid"], u64::from(rustix_uid()));
        assert!(record["userIdentity"]["pid"].as_u64() > Some(1));
    }
    assert_eq!(all[1]["previousState"]["tls"], "REQUIRE");
    assert_eq!(all[1]["requestParameters"]["options"][0]["tls"], "OPTIONAL");
    assert_eq!(all[5]["errorCode"], "NotFound");
    assert_eq!(all[5]["requestID"], all[4]["requestID"]);
    let text = fs::read_to_string(node.path("state/audit/audit.jsonl")).unwrap();
    for secret in [secret, made["smtp_password"].as_str().unwrap(), made["secret_access_key"].as_str().unwrap()] {
        assert!(!text.contains(secret));
    }

    assert_eq!(records(&node, &["--name", "accesskey"]).len(), 1);
    assert_eq!(records(&node, &["--since", "1h"]).len(), 6);
    assert_eq!(records(&node, &["--since", "2999-01-01T00:00:00Z"]).len(), 0);
    assert!(node.told(&["audit"]).contains("not done: there is no configuration set nothing"));
    assert!(daemon.stop().success());
}

fn rustix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn what_can_not_be_recorded_is_not_changed() {
    let node = Node::new();
    node.told(&["configuration-sets", "create", "news"]);
    let file = node.path("state/audit/audit.jsonl");
    fs::remove_file(&file).unwrap();
    symlink("/dev/full", &file).unwrap();
    let daemon = node.serve();
    for _ in 0..2 {
        let refused = refusal(&node.run(&["configuration-sets", "delete", "news"]));
        assert!(refused.contains("the audit log can not be written"), "{refused}");
    }
    assert!(node.told(&["configuration-sets", "list"]).contains("news"), "reading goes on");
    assert!(daemon.stop().success());
}
