//! `postrider shaping`, `pause` and `resume`.

use std::fs;

use crate::support::{Node, refusal};

/// A node with a route, so that nothing is looked up, and rules of its own.
fn node() -> Node {
    let node = Node::new();
    let rules = node.path("shaping.toml");
    fs::write(&rules, "[site.\"smtp://192.0.2.9:25\"]\nconnections = 3\nrate = \"30/m\"\n").unwrap();
    node.configure(&format!(
        "[delivery.routes]\n\"static.example\" = \"smtp://192.0.2.9:25\"\n[delivery.shaping]\nfile = \"{}\"",
        rules.display()
    ));
    node
}

#[test]
fn rules_are_shown_with_where_they_are_from() {
    let node = node();
    let daemon = node.serve();
    let shown = node.told(&["shaping", "show", "static.example"]);
    let rules = node.path("shaping.toml");
    let from = format!("[site.\"smtp://192.0.2.9:25\"] in {}", rules.display());
    for words in [vec!["connections", "3", &from], vec!["rate", "30/m", &from], vec!["tls", "opportunistic"]] {
        let is_line = |line: &str| words.iter().all(|word| line.contains(word));
        // What no entry says is not listed.
        assert_eq!(shown.lines().any(is_line), words[0] != "tls", "{words:?} in\n{shown}");
    }
    assert!(shown.contains("not in use") && shown.contains("too-many-connections"), "{shown}");

    let google = node.told(&["shaping", "show", "google"]);
    assert!(google.starts_with("provider google (.google.com .googlemail.com)\n"), "{google}");
    assert!(google.contains("connections  0 of 20, at most 20, 0 waiting"), "{google}");
    let json: serde_json::Value = serde_json::from_str(&node.told(&["--json", "shaping", "show", "yahoo"])).unwrap();
    assert_eq!(json["provider"]["state"]["most"], 20);
    let names: Vec<_> =
        json["feedback"].as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"yahoo-deferred") && !names.contains(&"google-busy"), "{names:?}");

    let unknown = node.run(&["shaping", "show", "no such thing"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(refusal(&unknown).contains("no such thing is no provider, no site in use and no domain"));
    drop(daemon);
}

#[test]
fn what_is_paused_is_listed_survives_a_restart_and_is_lifted() {
    let node = node();
    let daemon = node.serve();
    assert_eq!(node.told(&["shaping", "list"]), "nothing pauses\n");
    let paused = node.told(&["pause", "Static.Example.", "--for", "4h", "--reason", "they called"]);
    assert!(paused.contains("static.example") && paused.contains("operator") && paused.contains("they called"));
    node.told(&["pause", "yahoo", "--source", "system"]);
    assert_eq!(node.run(&["pause", "yahoo", "--source", "nowhere"]).status.code(), Some(3));
    assert_eq!(node.run(&["pause", "no such thing"]).status.code(), Some(3));
    assert_eq!(node.run(&["pause", "yahoo", "--for", "soon"]).status.code(), Some(2));
    drop(daemon);

    let daemon = node.serve();
    let json: serde_json::Value = serde_json::from_str(&node.told(&["shaping", "list", "--json"])).unwrap();
    let pauses = json.as_array().unwrap();
    assert_eq!(pauses.len(), 2, "{json}");
    let of = |name: &str| pauses.iter().find(|pause| pause["name"] == name).unwrap();
    assert_eq!(
        (&of("static.example")["why"], &of("static.example")["kind"]),
        (&"they called".into(), &"operator".into())
    );
    assert!(of("static.example")["until"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&of("yahoo")["source"], &of("yahoo")["until"]), (&"system".into(), &serde_json::Value::Null));
    assert_eq!(node.told(&["resume", "static.example"]), "1 pause lifted\n");
    assert_eq!(node.told(&["resume", "static.example", "--json"]), "{\"lifted\":0}\n");
    assert_eq!(node.told(&["resume", "yahoo", "--source", "other"]), "0 pauses lifted\n");
    assert_eq!(node.told(&["resume", "yahoo"]), "1 pause lifted\n");
    assert_eq!(node.told(&["shaping", "list"]), "nothing pauses\n");
    drop(daemon);
}

#[test]
fn shaping_needs_a_daemon() {
    let node = node();
    for command in
        [&["shaping", "list"][..], &["shaping", "show", "google"], &["pause", "google"], &["resume", "google"]]
    {
        assert_eq!(node.run(command).status.code(), Some(4), "{command:?}");
    }
}

#[test]
fn a_wrong_file_of_rules_is_named_with_its_line_and_the_old_one_stays() {
    let node = node();
    let daemon = node.serve();
    let rules = node.path("shaping.toml");
    fs::write(&rules, "[provider.google]\nconnectoins = 3\n").unwrap();
    let refused = refusal(&node.run(&["reload"]));
    let place = format!("{}: line 2, [provider.google], key connectoins", rules.display());
    assert!(refused.contains("shaping.file") && refused.contains(&place), "{refused}");
    assert!(node.told(&["shaping", "show", "static.example"]).contains("30/m"));
    fs::write(&rules, "[provider.google]\nconnections = 3\n").unwrap();
    node.told(&["reload"]);
    assert!(node.told(&["shaping", "show", "google"]).contains("of 3, at most 3"));
    drop(daemon);
}
