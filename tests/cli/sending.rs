//! `postrider configuration-sets`, `postrider pools`, `postrider sources`.

use serde_json::{Value, json};

use crate::support::{Node, refusal};

const SOURCES: &str = "[delivery.sources.out1]\nipv4 = \"127.0.0.2\"\nwarm_up_start = 100\n\
     [delivery.sources.out2]\nipv4 = \"127.0.0.3\"\nipv6 = \"fd00::3\"\non_block = \"move\"\n";

fn json_of(node: &Node, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    serde_json::from_str(&node.told(&arguments)).unwrap()
}

#[test]
fn configuration_sets_are_made_changed_and_deleted() {
    let node = Node::new();
    assert_eq!(node.told(&["configuration-sets", "list"]), "no configuration sets\n");
    node.told(&["pools", "create", "bulk"]);
    let made = ["configuration-sets", "create", "news", "--tls", "require", "--pool", "bulk", "--retry", "1m,10m"];
    assert_eq!(node.told(&made), "done\n");
    let listed = node.told(&["configuration-sets", "list"]);
    assert!(listed.contains("news") && listed.contains("require") && listed.contains("1m 10m"), "{listed}");
    let set = ["configuration-sets", "set", "news", "--no-pool", "--max-lifetime", "14h", "--per-recipient", "--json"];
    assert_eq!(node.told(&set), "{\"changed\":1}\n");
    let expected = json!({
        "ConfigurationSetName": "news", "AccountId": "000000000001",
        "DeliveryOptions": {
            "TlsPolicy": "REQUIRE", "SendingPoolName": null,
            "MaxLifetime": "14h", "Retry": ["1m", "10m"], "PerRecipient": true,
        },
        "ReputationOptions": { "ReputationMetricsEnabled": false },
        "SendingOptions": { "SendingEnabled": true },
        "Tags": [], "EventDestinations": [],
    });
    assert_eq!(json_of(&node, &["configuration-sets", "show", "news"]), expected);
    assert_eq!(json_of(&node, &["configuration-sets", "list"]), json!([expected]));
    assert_eq!(json_of(&node, &["configuration-sets", "list", "--account", "2"]), json!([]));
    node.told(&["configuration-sets", "delete", "news"]);
    let gone = node.run(&["configuration-sets", "show", "news"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(refusal(&gone).contains("there is no configuration set \"news\""));
}

#[test]
fn a_set_has_the_options_that_it_has_in_ses() {
    let node = Node::new();
    node.told(&["identities", "create", "example.com", "--trust"]);
    let options = [
        "--sending",
        "off",
        "--suppression",
        "bounce",
        "--tracking-domain",
        "Click.Example.com",
        "--reputation-metrics",
        "on",
        "--fresh-start",
        "--tag",
        "team=billing",
        "--tag",
        "empty=",
    ];
    node.told(&[&["configuration-sets", "create", "news"][..], &options].concat());
    let shown = json_of(&node, &["configuration-sets", "show", "news"]);
    assert_eq!(shown["SendingOptions"]["SendingEnabled"], json!(false));
    assert_eq!(shown["SendingOptions"]["Pause"]["By"], json!("OPERATOR"));
    assert_eq!(shown["SuppressionOptions"], json!({ "SuppressedReasons": ["BOUNCE"] }));
    assert_eq!(shown["TrackingOptions"], json!({ "CustomRedirectDomain": "click.example.com" }));
    assert_eq!(shown["ReputationOptions"]["ReputationMetricsEnabled"], json!(true));
    assert!(shown["ReputationOptions"]["LastFreshStart"].as_str().unwrap().ends_with('Z'));
    assert_eq!(shown["Tags"], json!([{ "Key": "empty", "Value": "" }, { "Key": "team", "Value": "billing" }]));
    let told = node.told(&["configuration-sets", "show", "news"]);
    assert!(told.contains("sending:            off since") && told.contains("team=billing"), "{told}");

    let back = ["--sending", "on", "--suppression", "none", "--no-tracking-domain", "--untag", "empty"];
    node.told(&[&["configuration-sets", "set", "news"][..], &back].concat());
    let shown = json_of(&node, &["configuration-sets", "show", "news"]);
    assert_eq!(shown["SendingOptions"], json!({ "SendingEnabled": true }));
    assert_eq!(shown["SuppressionOptions"], json!({ "SuppressedReasons": [] }));
    assert_eq!(shown.get("TrackingOptions"), None);
    node.told(&["configuration-sets", "set", "news", "--suppression", "inherit"]);
    assert_eq!(json_of(&node, &["configuration-sets", "show", "news"]).get("SuppressionOptions"), None);
}

#[test]
fn a_set_has_event_destinations() {
    let node = Node::new();
    node.told(&["configuration-sets", "create", "news"]);
    let on_news = |arguments: &[&'static str]| {
        [&["configuration-sets", "event-destinations", arguments[0], "news"], &arguments[1..]].concat()
    };
    assert_eq!(node.told(&on_news(&["list"])), "no event destinations\n");
    let url = "https://events.example.com/ses";
    node.told(&on_news(&["create", "hook", "--webhook", url, "--types", "bounce,Delivery-Delay", "--disabled"]));
    node.told(&on_news(&["create", "counts", "--metrics", "tag:campaign=none,link:button=x", "--types", "send"]));
    let listed = json_of(&node, &on_news(&["list"]));
    let hook = json!({
        "Name": "hook", "Enabled": false, "MatchingEventTypes": ["BOUNCE", "DELIVERY_DELAY"],
        "WebhookDestination": { "Url": url },
    });
    let dimension = |name: &str, source: &str, default: &str| json!({ "DimensionName": name, "DimensionValueSource": source, "DefaultDimensionValue": default });
    let counts = json!({
        "Name": "counts", "Enabled": true, "MatchingEventTypes": ["SEND"],
        "MetricsDestination": { "DimensionConfigurations": [
            dimension("button", "LINK_TAG", "x"), dimension("campaign", "MESSAGE_TAG", "none"),
        ] },
    });
    assert_eq!(listed, json!({ "EventDestinations": [hook, counts] }));

    node.told(&on_news(&["set", "hook", "--enabled", "on", "--file", "/var/log/events.ndjson"]));
    node.told(&on_news(&["delete", "counts"]));
    let told = node.told(&on_news(&["list"]));
    assert!(told.contains("file /var/log/events.ndjson") && told.contains("BOUNCE DELIVERY_DELAY"), "{told}");
    for (arguments, code, reason) in [
        (&["create", "hook", "--file", "/x", "--types", "send"][..], 1, "event destination hook already exists"),
        (&["create", "b", "--file", "x", "--types", "send"], 1, "its file must be an absolute path"),
        (&["create", "b", "--types", "send"], 1, "name a target"),
        (&["create", "a b", "--file", "/x", "--types", "send"], 1, "letters, digits, - and _"),
        (&["create", "b", "--metrics", "campaign", "--types", "send"], 1, "\"campaign\" is no dimension"),
        (&["set", "hook"], 1, "nothing to change"),
        (&["set", "none", "--enabled", "off"], 3, "there is no event destination none"),
        (&["delete", "none"], 3, "there is no event destination none"),
        (&["create", "b", "--file", "/x", "--types", "sends"], 2, "its event types are send"),
    ] {
        let output = node.run(&on_news(arguments));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let refusal = if code == 2 { String::from_utf8_lossy(&output.stderr).into_owned() } else { refusal(&output) };
        assert!(refusal.contains(reason), "{refusal}");
    }
}

#[test]
fn bad_rules_are_refused_with_a_reason() {
    let node = Node::new();
    node.told(&["configuration-sets", "create", "news"]);
    for (arguments, code, reason) in [
        (&["create", "news"][..], 1, "configuration set news already exists"),
        (&["create", "a b"], 1, "letters, digits, - and _"),
        (&["set", "news", "--pool", "none"], 3, "there is no pool none"),
        (&["set", "news", "--max-lifetime", "1s"], 1, "1m to 30d"),
        (&["set", "news", "--retry", "0s"], 1, "longer than zero"),
        (&["set", "news"], 1, "nothing to change"),
        (&["set", "news", "--suppression", "none,bounce"], 1, "none and inherit stand alone"),
        (&["set", "news", "--tracking-domain", "click.example.org"], 1, "a verified domain of the account"),
        (&["set", "news", "--tag", "team"], 1, "is no tag: KEY=VALUE"),
        (&["set", "news", "--tag", "=x"], 1, "a tag has a key of 1 to 128"),
        (&["set", "old", "--no-pool"], 3, "there is no configuration set old"),
        (&["delete", "old"], 3, "there is no configuration set old"),
    ] {
        let output = node.run(&[&["configuration-sets"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let refusal = refusal(&output);
        assert!(refusal.contains(reason), "{refusal}");
    }
    let both = node.run(&["configuration-sets", "set", "news", "--pool", "a", "--no-pool"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn pools_have_sources_of_the_configuration() {
    let node = Node::new();
    node.configure(SOURCES);
    assert!(node.told(&["pools", "list"]).starts_with("no pools"));
    node.told(&["pools", "create", "bulk"]);
    node.told(&["pools", "create", "alerts"]);
    assert_eq!(node.told(&["pools", "assign", "bulk", "out1", "--weight", "3"]), "done\n");
    assert_eq!(node.told(&["pools", "assign", "alerts", "out1"]), "done; it has left pool bulk\n");
    assert_eq!(json_of(&node, &["pools", "assign", "bulk", "out2"]), json!({ "changed": 1, "left": null }));
    let expected = json!([
        { "account": "000000000001", "name": "alerts", "members": [{ "source": "out1", "weight": 1 }] },
        { "account": "000000000001", "name": "bulk", "members": [{ "source": "out2", "weight": 1 }] },
    ]);
    assert_eq!(json_of(&node, &["pools", "list"]), expected);

    let unknown = node.run(&["pools", "assign", "bulk", "out3"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(refusal(&unknown).contains("there is no source \"out3\" in the configuration"));
    assert!(refusal(&node.run(&["pools", "create", "Bulk"])).contains("lower-case letters"));
    node.told(&["configuration-sets", "create", "news", "--pool", "bulk"]);
    assert!(refusal(&node.run(&["pools", "delete", "bulk"])).contains("in use by configuration set news"));
    node.told(&["pools", "remove", "bulk", "out2"]);
    assert_eq!(node.run(&["pools", "remove", "bulk", "out2"]).status.code(), Some(3));
    node.told(&["configuration-sets", "set", "news", "--no-pool"]);
    node.told(&["pools", "delete", "bulk"]);
}

#[test]
fn sources_are_shown_and_warmed_up_by_a_running_daemon() {
    let node = Node::new();
    node.configure(SOURCES);
    assert_eq!(node.run(&["sources", "list"]).status.code(), Some(4), "no daemon");
    let daemon = node.serve();
    let listed = node.told(&["sources", "list"]);
    assert!(listed.contains("127.0.0.2") && listed.contains("complete") && listed.contains("1 %"), "{listed}");
    assert!(listed.contains("fd00::3 (not used)"), "{listed}");
    let out2 = json_of(&node, &["sources", "show", "out2"]);
    assert_eq!((&out2["on_block"], &out2["warm_up"]["percent"]), (&json!("move"), &json!(1)));
    assert_eq!((&out2["warm_up"]["status"], &out2["warm_up"]["daily"]), (&json!("in progress"), &json!(50)));

    assert_eq!(node.told(&["sources", "warm-up", "out2", "--percent", "60"]), "done\n");
    node.told(&["sources", "warm-up", "out1", "--restart"]);
    let shown = node.told(&["sources", "show", "out2"]);
    assert!(shown.contains("warm-up:       60 %") && shown.contains("it has sent nothing yet"), "{shown}");
    assert_eq!(json_of(&node, &["sources", "show", "out1"])["warm_up"]["percent"], 1);
    node.told(&["pools", "create", "bulk"]);
    node.told(&["pools", "assign", "bulk", "out2"]);
    assert_eq!(json_of(&node, &["sources", "show", "out2"])["pool"], "bulk");
    assert!(daemon.stop().success());

    // What was set is durable, and a source that goes from the configuration goes from here.
    node.configure("[delivery.sources.out2]\nipv4 = \"127.0.0.3\"\n");
    let daemon = node.serve();
    assert_eq!(json_of(&node, &["sources", "list"])[0]["warm_up"]["percent"], 60);
    assert!(!node.told(&["status"]).contains("warning:"));
    node.configure("");
    node.told(&["reload"]);
    let status = node.told(&["status"]);
    assert!(status.contains("warning:   pool bulk names source out2, which is not configured"), "{status}");
    node.configure("[delivery.sources.out2]\nipv4 = \"127.0.0.3\"\n");
    node.told(&["reload"]);
    assert_eq!(json_of(&node, &["sources", "list"])[0]["warm_up"]["percent"], 60);
    node.told(&["sources", "warm-up", "out2", "--complete"]);
    assert_eq!(json_of(&node, &["sources", "list"])[0]["warm_up"]["status"], "complete");
    let gone = node.run(&["sources", "warm-up", "out1", "--complete"]);
    assert_eq!(gone.status.code(), Some(3));
    for wrong in [&["--percent", "101"][..], &["--restart", "--complete"], &[]] {
        let output = node.run(&[&["sources", "warm-up", "out2"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_wrong_source_is_named_by_the_check() {
    let node = Node::new();
    node.configure("[delivery.sources.out1]\nehlo_name = \"a.example\"\n");
    let output = node.run(&["config", "check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(refusal(&output).contains("delivery.sources.out1.ipv4:"));
}
