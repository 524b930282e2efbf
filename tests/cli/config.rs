//! `postrider config`, and what every command says about a wrong configuration.

use std::fs;

use crate::support::{Node, postrider, refusal, stdout};

#[test]
fn a_right_configuration_is_called_right() {
    let node = Node::new();
    assert!(node.told(&["config", "check"]).trim_end().ends_with("postrider.toml: right"));
    assert!(node.told(&["config", "check", "--json"]).contains("\"ok\":true"));
}

#[test]
fn the_installed_configuration_is_right() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/postrider.toml");
    let output = postrider(&["config", "check", "--config", file]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn return_paths_need_somewhere_to_come_back_to() {
    let node = Node::new();
    let listener = "[[listener]]\naddress = \"127.0.0.2:25\"\nrole = \"feedback\"\n";
    node.configure(&format!("{listener}[submission]\nreturn_path = \"verp\""));
    assert!(node.told(&["config", "check"]).trim_end().ends_with("postrider.toml: right"));
    // With a listener alone the domain must be one: return paths of the past are read.
    node.configure(&format!("{listener}[submission]\nreturn_path_domain = \"not a domain\""));
    assert!(refusal(&node.run(&["config", "check"])).contains("submission.return_path_domain: "));
}

#[test]
fn errors_are_one_line_with_the_place_and_exit_78() {
    let node = Node::new();
    for (more, expected) in [
        ("[spool]\nmax_bites = \"1GB\"", "unknown field `max_bites`, expected one of `max_bytes`"),
        ("[spool]\nmax_bytes = \"lots\"", "expected an amount of bytes"),
        ("[spool]\nready_batch = 0", "spool.ready_batch: must be at least 1"),
        ("[spoool]\n", "unknown field `spoool`"),
        ("[delivery]\nretry = []", "delivery.retry: expected at least one wait"),
        ("[log]\nlevel = \"postrider=loud\"", "log.level"),
        ("[[listener]]\naddress = \"nowhere\"", "is not an address to listen on"),
        (
            "[submission]\nreturn_path = \"verp\"",
            "submission.return_path: bounces would come back to nobody: \"verp\" needs a [[listener]] with role",
        ),
        (
            "[[listener]]\naddress = \"*:25\"\n[[listener]]\naddress = \"192.0.2.1:25\"\nrole = \"feedback\"",
            "listener.address: 192.0.2.1:25 (feedback) is listened on by *:25 (submission) already",
        ),
        ("[verification]\nat_once = 0", "verification.at_once: must be at least 1"),
        ("[sessions.feedback]\nidle = \"0s\"", "sessions.feedback.idle: must be longer than 0s"),
        ("[tls]\ncertificate = \"/x.pem\"", "tls.key: is needed beside certificate"),
        ("[", "postrider.toml:"),
    ] {
        node.configure(more);
        let output = node.run(&["config", "check"]);
        let refusal = refusal(&output);
        assert!(refusal.contains(expected), "{more}: {refusal}");
        assert_eq!(output.status.code(), Some(78), "{refusal}");
        assert!(refusal.contains("postrider.toml:"), "{refusal}");
    }
}

#[test]
fn the_place_is_line_and_column() {
    let node = Node::new();
    fs::write(node.path("postrider.toml"), "# first\n[server]\nregoin = \"x\"\n").unwrap();
    let refusal = refusal(&node.run(&["serve"]));
    assert!(refusal.contains("postrider.toml:3:1: unknown field `regoin`"), "{refusal}");
}

#[test]
fn a_missing_configuration_is_named() {
    let output = postrider(&["config", "check", "--config", "/nowhere/p.toml"]).output().unwrap();
    assert!(refusal(&output).contains("/nowhere/p.toml: cannot read the configuration"));
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn what_is_in_effect_can_be_read_back() {
    let node = Node::new();
    let shown = node.told(&["config", "show"]);
    assert!(shown.contains("region = \"us-east-1\""), "{shown}");
    fs::write(node.path("postrider.toml"), &shown).unwrap();
    assert_eq!(node.told(&["config", "show"]), shown);
    let json: serde_json::Value = serde_json::from_str(&node.told(&["config", "show", "--json"])).unwrap();
    assert_eq!(json["server"]["hostname"], "relay.example.com");
}

#[test]
fn the_reference_pages_are_what_the_code_says() {
    for (page, arguments) in [("configuration.md", ["config", "reference"].as_slice()), ("metrics.md", &["metrics"])] {
        let written = fs::read_to_string(format!("{}/docs/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let said = stdout(&postrider(arguments).output().unwrap());
        assert!(written == said, "docs/{page} is stale: run `cargo xtask docs`");
    }
}

#[test]
fn the_reference_has_every_section() {
    let page = stdout(&postrider(&["config", "reference"]).output().unwrap());
    for section in ["[server]", "[[listener]]", "[tls]", "[spool]", "[delivery.limits]", "[log]"] {
        assert!(page.contains(section), "{section}");
    }
}

#[test]
fn completions_and_the_manual_are_made_from_the_commands() {
    let script = stdout(&postrider(&["completions", "bash"]).output().unwrap());
    assert!(script.contains("suppression"));
    let page = stdout(&postrider(&["man"]).output().unwrap());
    assert!(page.contains(".TH postrider") && page.contains("quickstart"));
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    assert_eq!(postrider(&["dance"]).output().unwrap().status.code(), Some(2));
    assert_eq!(postrider(&["queue", "delete"]).output().unwrap().status.code(), Some(2));
    assert_eq!(postrider(&["message", "no-id"]).output().unwrap().status.code(), Some(2));
}
