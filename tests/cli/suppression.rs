//! `postrider suppression`.

use std::fs;

use crate::support::{Node, feed, refusal, stdout};

#[test]
fn addresses_are_put_found_and_taken_off() {
    let node = Node::new();
    assert_eq!(node.told(&["suppression", "list"]), "no address is suppressed\n");
    node.told(&["suppression", "put", "Gone@Example.com"]);
    node.told(&["suppression", "put", "angry@example.com", "--reason", "COMPLAINT"]);
    assert!(node.told(&["suppression", "get", "gone@example.com"]).contains("BOUNCE"));
    let listed = node.told(&["suppression", "list", "--reason", "COMPLAINT"]);
    assert!(listed.contains("angry@example.com") && !listed.contains("gone@"), "{listed}");
    node.told(&["suppression", "delete", "gone@example.com"]);
    let gone = node.run(&["suppression", "get", "gone@example.com"]);
    assert!(refusal(&gone).contains("gone@example.com is not on the suppression list"));
    assert_eq!(gone.status.code(), Some(3));
}

#[test]
fn what_ses_prints_is_imported_and_exported() {
    let node = Node::new();
    let listing = "{\"SuppressedDestinationSummaries\": [\n\
        {\"EmailAddress\": \"a@example.com\", \"Reason\": \"COMPLAINT\", \"LastUpdateTime\": 1586552585.077},\n\
        {\"EmailAddress\": \"b@example.com\", \"Reason\": \"BOUNCE\", \"LastUpdateTime\": 1586552585.077}]}\n";
    fs::write(node.path("ses.json"), listing).unwrap();
    let file = node.path("ses.json");
    let told = node.told(&["suppression", "import", file.to_str().unwrap()]);
    assert_eq!(told, "2 added, 0 there already, 0 refused\n");
    let again = node.told(&["suppression", "import", file.to_str().unwrap()]);
    assert_eq!(again, "0 added, 2 there already, 0 refused\n");

    let exported = node.told(&["suppression", "export", "--format", "ses"]);
    let other = Node::new();
    let output = feed(other.command(&["suppression", "import", "-"]), &exported);
    assert!(stdout(&output).starts_with("2 added"), "{output:?}");
    assert_eq!(other.told(&["suppression", "export", "--format", "ses"]), exported);
}

#[test]
fn a_bad_line_is_named_and_the_others_are_taken() {
    let node = Node::new();
    let output = feed(node.command(&["suppression", "import", "-"]), "a@example.com, BOUNCE\nrubbish\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("1 added, 0 there already, 1 refused\n  line 2: "), "{}", stdout(&output));
    assert!(node.told(&["suppression", "list"]).contains("a@example.com"));
}

#[test]
fn a_long_list_goes_in_batches() {
    let node = Node::new();
    let lines: String = (0..2_500).map(|n| format!("user{n}@example.com, BOUNCE\n")).collect();
    let output = feed(node.command(&["suppression", "import", "-", "--json"]), &lines);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["added"], 2_500);
    assert_eq!(node.told(&["suppression", "export"]).lines().count(), 2_500);
}
