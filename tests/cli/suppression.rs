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
fn nobody_is_put_on_the_list_of_an_account_in_the_sandbox() {
    let node = Node::new();
    node.told(&["suppression", "put", "gone@example.com"]);
    node.told(&["accounts", "set", "1", "--sandbox", "on"]);
    let refused = "account 000000000001 is in the sandbox";
    assert!(refusal(&node.run(&["suppression", "put", "a@example.com"])).contains(refused));
    let import = |more: &[&str]| {
        let command = node.command(&[&["suppression", "import", "-"][..], more].concat());
        feed(command, "gone@example.com, BOUNCE\n")
    };
    assert!(refusal(&import(&[])).contains(refused));
    node.told(&["suppression", "put", "a@example.com", "--account", "7"]);
    node.told(&["suppression", "put", "a@example.com", "--global"]);
    assert!(node.told(&["suppression", "list"]).contains("gone@example.com"), "the list is there");
    assert!(import(&["--delete"]).status.success());
    node.told(&["accounts", "set", "1", "--sandbox", "off"]);
    assert!(import(&[]).status.success());
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
    assert_eq!((&report["AddedRecordsCount"], &report["ProcessedRecordsCount"]), (&2_500.into(), &2_500.into()));
    assert_eq!((&report["JobStatus"], &report["FailedRecordsCount"]), (&"COMPLETED".into(), &0.into()));
    let destination = &report["ImportDestination"]["SuppressionListDestination"];
    assert_eq!(destination["SuppressionListImportAction"], "PUT");
    assert_eq!(report["ImportDataSource"]["DataFormat"], "CSV");
    assert_eq!(node.told(&["suppression", "export"]).lines().count(), 2_500);

    let lines: String = (500..2_500).map(|n| format!("{{\"emailAddress\":\"user{n}@example.com\"}}\n")).collect();
    let output = feed(node.command(&["suppression", "import", "-", "--delete"]), &(lines + "{\"emailAddress\":1}\n"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).starts_with("2000 taken off, 0 not there, 1 refused\n  line 2001: "),
        "{}",
        stdout(&output)
    );
    assert_eq!(node.told(&["suppression", "export", "--format", "ndjson"]).lines().count(), 500);
}

#[test]
fn refused_lines_are_written_to_a_file() {
    let node = Node::new();
    let file = node.path("refused.csv");
    let lines: String =
        (0..1_200).map(|n| format!("user{n}@example.com, {}\n", if n < 1_100 { "SPAM" } else { "BOUNCE" })).collect();
    let import = ["suppression", "import", "-", "--refused", file.to_str().unwrap(), "--json"];
    let output = feed(node.command(&import), &lines);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["FailedRecordsCount"], 1_100);
    assert_eq!(report["FailedRecords"].as_array().unwrap().len(), 1_000);
    let refused = fs::read_to_string(file).unwrap();
    assert_eq!(refused.lines().count(), 1_100);
    assert_eq!(refused.lines().last(), Some("1100,the reason is neither BOUNCE nor COMPLAINT"));
}

#[test]
fn the_global_list_is_another_one() {
    let node = Node::new();
    node.told(&["suppression", "put", "gone@example.com", "--global"]);
    assert_eq!(node.told(&["suppression", "list"]), "no address is suppressed\n");
    let listed: serde_json::Value =
        serde_json::from_str(&node.told(&["suppression", "list", "--global", "--json"])).unwrap();
    let entry = &listed["SuppressedDestinationSummaries"][0];
    assert_eq!((&entry["EmailAddress"], &entry["Reason"]), (&"gone@example.com".into(), &"BOUNCE".into()));
    let days = (entry["ExpirationTime"].as_f64().unwrap() - entry["LastUpdateTime"].as_f64().unwrap()) / 86_400.0;
    assert!((days - 14.0).abs() < 1e-6, "{days}");
    assert!(node.told(&["suppression", "get", "Gone@example.com", "--global"]).contains("gone@example.com"));
    node.told(&["suppression", "delete", "gone@example.com", "--global"]);
    let gone = node.run(&["suppression", "get", "gone@example.com", "--global"]);
    assert!(refusal(&gone).contains("gone@example.com is not on the global suppression list"));
    let both = node.run(&["suppression", "list", "--global", "--account", "000000000001"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
}

#[test]
fn entries_are_told_in_the_words_of_ses_and_found_by_their_time() {
    let node = Node::new();
    feed(
        node.command(&["suppression", "import", "-"]),
        "{\"emailAddress\":\"a@example.com\",\"reason\":\"COMPLAINT\",\"lastUpdateTime\":1586552585.077}\n\
         {\"emailAddress\":\"b@example.com\",\"reason\":\"BOUNCE\"}\n",
    );
    let found: serde_json::Value =
        serde_json::from_str(&node.told(&["suppression", "get", "a@example.com", "--json"])).unwrap();
    let entry = serde_json::json!({
        "EmailAddress": "a@example.com", "Reason": "COMPLAINT", "LastUpdateTime": 1_586_552_585.077_f64,
    });
    assert_eq!(found, serde_json::json!({ "SuppressedDestination": entry }));
    let old = node.told(&["suppression", "list", "--until", "1586552586"]);
    assert!(old.contains("a@example.com") && !old.contains("b@example.com"), "{old}");
    let new = node.told(&["suppression", "list", "--since", "1h"]);
    assert!(new.contains("b@example.com") && !new.contains("a@example.com"), "{new}");
}

#[test]
fn what_is_not_damaged_is_not_repaired() {
    let node = Node::new();
    node.told(&["suppression", "put", "gone@example.net"]);
    assert_eq!(node.told(&["suppression", "repair"]), "no file is damaged\n");
    assert_eq!(node.told(&["suppression", "repair", "--json"]), "{\"lost\":0}\n");
    assert!(node.told(&["suppression", "list"]).contains("gone@example.net"));
}
