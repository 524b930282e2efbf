//! `postrider auth check` and `postrider dmarc report`.

use std::fs;

use crate::support::{Node, feed, refusal, stdout};

const MESSAGE: &str = "Return-Path: <a@bounce.example.com>\nDKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s1; h=From; bh=AAAA; b=AAAA\nFrom: a@example.com\nSubject: b\n\nc\n";

const REPORT: &str = "<feedback><report_metadata><org_name>receiver.example</org_name><report_id>1</report_id>\
<date_range><begin>1500000000</begin><end>1500086399</end></date_range></report_metadata>\
<policy_published><domain>example.com</domain><p>reject</p></policy_published>\
<record><row><source_ip>192.0.2.1</source_ip><count>7</count>\
<policy_evaluated><disposition>reject</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>\
<identifiers><header_from>example.com</header_from></identifiers>\
<auth_results><dkim><domain>other.example</domain><result>pass</result></dkim></auth_results></record></feedback>";

/// No name server answers at the address that the node asks.
fn node() -> Node {
    let node = Node::new();
    node.configure("timeout = \"200ms\"\nattempts = 1\n");
    node
}

#[test]
fn a_message_is_looked_at_as_a_receiver_does() {
    let node = node();
    let file = node.path("message.eml");
    fs::write(&file, MESSAGE).unwrap();
    let file = file.to_str().unwrap();
    let told = node.told(&["auth", "check", file, "--ip", "192.0.2.1", "--helo", "mx.example.com"]);
    let row =
        |name: &str| told.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{told}")).to_owned();
    assert!(row("spf").contains("temperror") && row("spf").contains("bounce.example.com"), "{told}");
    assert!(row("dkim").contains("fail") && row("dkim").contains("the body was changed"), "{told}");
    assert!(row("dmarc").contains("temperror") && row("arc").contains("none"), "{told}");
    assert!(told.contains("do: ") && told.contains("Authentication-Results: relay.example.com;"), "{told}");
    let json = node.told(&["auth", "check", file, "--json"]);
    assert!(json.contains("\"spf\": null") && json.contains("\"authentication_results\": \""), "{json}");
}

#[test]
fn what_is_no_file_is_said() {
    let node = node();
    assert!(refusal(&node.run(&["auth", "check", "/nowhere"])).contains("cannot read /nowhere"));
    assert_eq!(node.run(&["auth", "check", "-", "--ip", "localhost"]).status.code(), Some(2));
    assert_eq!(node.run(&["dmarc", "report"]).status.code(), Some(2));
}

#[test]
fn reports_are_summed_up() {
    let node = node();
    let told = stdout(&feed(node.command(&["dmarc", "report", "-"]), REPORT));
    assert!(told.starts_with("receiver.example: 7 of example.com (p=reject), 2017-07-14 02:40:00Z to "), "{told}");
    let row = told.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(row, "192.0.2.1 example.com 7 0 0 0 0 7 other.example pass -");

    let inbox = node.path("inbox");
    fs::create_dir_all(inbox.join("new")).unwrap();
    fs::write(inbox.join("new").join("1"), REPORT).unwrap();
    fs::write(inbox.join("2"), REPORT).unwrap();
    fs::write(inbox.join("3"), "Subject: hello\n\nno report\n").unwrap();
    let json = node.told(&["dmarc", "report", "--inbox", inbox.to_str().unwrap(), "--json"]);
    assert!(json.contains("\"repeated\": 1") && json.contains("\"skipped\": 1") && json.contains("\"rejected\": 7"));
    let named = node.run(&["dmarc", "report", inbox.join("3").to_str().unwrap()]);
    assert!(refusal(&named).contains("there is no aggregate report in it"));
}
