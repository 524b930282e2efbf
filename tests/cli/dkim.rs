//! `postrider dkim`.

use std::fs;

use crate::support::{Node, feed, refusal, stdout};

const KEY: &str = include_str!("../../crates/mailauth/tests/keys/rsa-2048-pkcs1.pem");
const SHORT: &str = include_str!("../../crates/mailauth/tests/keys/rsa-1024-pkcs1.pem");
const PUBLIC: &str = include_str!("../../crates/mailauth/tests/keys/public.pem");

fn node() -> Node {
    let node = bare();
    node.told(&["identities", "create", "example.com", "--trust"]);
    node
}

/// Its name server does not answer, and nobody waits for it.
fn bare() -> Node {
    let (node, file) = (Node::new(), "postrider.toml");
    let text = fs::read_to_string(node.path(file)).unwrap();
    let quick = text.replace("[dns]\n", "[dns]\ndnssec = { validate = false }\ntimeout = \"200ms\"\nattempts = 1\n");
    fs::write(node.path(file), quick).unwrap();
    node
}

fn import(node: &Node, selector: &str, key: &str) -> std::process::Output {
    feed(node.command(&["dkim", "import", "example.com", selector]), key)
}

#[test]
fn three_keys_are_made_and_shown_as_a_zone_file_has_them() {
    let node = node();
    // Making the identity may have made its keys.
    let _ = node.run(&["dkim", "create", "example.com"]);
    let listed: serde_json::Value = serde_json::from_str(&node.told(&["dkim", "list", "--json"])).unwrap();
    let keys = listed.as_array().unwrap();
    assert_eq!(keys.len(), 3);
    for key in keys {
        assert_eq!(
            (&key["state"], &key["origin"], &key["algorithm"]),
            (&"next".into(), &"managed".into(), &"rsa-sha256".into())
        );
        let shown = node.told(&["dkim", "show", "example.com", key["selector"].as_str().unwrap()]);
        let line = shown.lines().last().unwrap();
        let strings: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        assert!(strings.len() > 1 && strings.iter().all(|string| string.len() <= 255), "{line}");
        assert_eq!(strings.concat(), key["record"].as_str().unwrap());
        assert!(!shown.contains("PRIVATE"));
    }
    assert!(refusal(&node.run(&["dkim", "create", "example.com"])).contains("managed keys"));
    assert!(refusal(&node.run(&["dkim", "rotate", "example.com"])).contains("has not been seen in the DNS"));
    node.told(&["dkim", "rotate", "example.com", "--force"]);
    let table = node.told(&["dkim", "list", "example.com"]);
    assert_eq!((table.matches(" current ").count(), table.matches(" next ").count()), (1, 2), "{table}");
}

#[test]
fn an_own_key_is_taken_or_refused_with_the_reason() {
    let node = node();
    let taken = import(&node, "mine", KEY);
    assert!(stdout(&taken).contains("mine._domainkey.example.com. 3600 IN TXT \"v=DKIM1; k=rsa; p="), "{taken:?}");
    for (selector, key, reason) in [
        ("mine", KEY, "mine._domainkey.example.com already exists"),
        ("old", SHORT, "openssl genrsa 2048"),
        ("cut", &KEY[..KEY.len() / 2], "not whole"),
        ("public", PUBLIC, "holds no PRIVATE KEY"),
        ("empty", "", "expected a private key"),
    ] {
        let said = refusal(&import(&node, selector, key));
        assert!(said.contains(reason) && !said.contains(&KEY[50..80]), "{said}");
    }
    let said = refusal(&feed(node.command(&["dkim", "import", "example.org", "s"]), KEY));
    assert!(said.contains("example.org is no domain identity"), "{said}");
    assert!(!node.run(&["dkim", "show", "example.com", "not a selector"]).status.success());
    assert_eq!(node.run(&["dkim", "show", "example.com", "nobody"]).status.code(), Some(3));
}

#[test]
fn a_key_that_was_used_is_not_deleted_by_mistake() {
    let node = node();
    import(&node, "mine", KEY);
    node.told(&["dkim", "rotate", "example.com", "--selector", "mine", "--force"]);
    let delete = ["dkim", "delete", "example.com", "mine"];
    assert!(refusal(&node.run(&delete)).contains("retire it and wait"));
    let retire = ["dkim", "retire", "example.com", "mine"];
    assert!(refusal(&node.run(&retire)).contains("mail would be sent unsigned"));
    node.told(&[&retire[..], &["--force"]].concat());
    assert!(node.told(&["dkim", "show", "example.com", "mine"]).contains("publish until  20"));
    assert!(refusal(&node.run(&delete)).contains("retire it and wait"));
    node.told(&[&delete[..], &["--force"]].concat());
    assert!(!node.told(&["dkim", "list", "--json"]).contains("mine"));
}

#[test]
fn keys_without_their_sealing_key_stop_the_start_and_can_be_deleted() {
    let node = node();
    import(&node, "mine", KEY);
    let file = node.path("state/keys/dkim-sealing.key");
    let original = fs::read(&file).unwrap();
    fs::write(&file, format!("{}\n", "ab".repeat(32))).unwrap();
    let said = refusal(&node.run(&["serve"]));
    assert!(said.contains(file.to_str().unwrap()) && said.contains("put the original file back"), "{said}");
    fs::write(&file, "cut").unwrap();
    assert!(refusal(&node.run(&["serve"])).contains("64 hexadecimal digits"));
    fs::remove_file(&file).unwrap();
    assert!(refusal(&node.run(&["serve"])).contains(file.to_str().unwrap()));
    assert!(
        refusal(&import(&node, "other", KEY)).contains(file.to_str().unwrap()),
        "nothing is sealed by a new key beside"
    );

    fs::write(&file, original).unwrap();
    drop(node.serve());
    fs::remove_file(&file).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&node.told(&["dkim", "list", "--json"])).unwrap();
    for key in listed.as_array().unwrap() {
        node.told(&["dkim", "delete", "example.com", key["selector"].as_str().unwrap(), "--force"]);
    }
    drop(node.serve());
    assert!(!file.exists(), "who only looks makes none");
    import(&node, "mine", KEY);
    assert!(file.exists(), "a new one is made where there is nothing to open");
}

#[test]
fn the_sealing_key_may_be_a_credential_of_the_service() {
    let node = bare();
    let credentials = node.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("dkim-sealing.key"), "cd".repeat(32)).unwrap();
    let with_it = |node: &Node, arguments: &[&str], input: &str| {
        let mut command = node.command(arguments);
        command.env("CREDENTIALS_DIRECTORY", &credentials);
        feed(command, input)
    };
    assert!(with_it(&node, &["identities", "create", "example.com", "--trust"], "").status.success());
    assert!(with_it(&node, &["dkim", "import", "example.com", "mine"], KEY).status.success());
    for said in [refusal(&node.run(&["serve"])), refusal(&import(&node, "other", KEY))] {
        assert!(said.contains("keys/dkim-sealing.key") && said.contains("dkim.sealing_key_file"), "{said}");
    }
    assert!(!node.path("state/keys/dkim-sealing.key").exists(), "no second one is made beside");

    let other = self::node();
    let said = refusal(&with_it(&other, &["serve"], ""));
    let own = other.path("state/keys/dkim-sealing.key");
    assert!(said.contains("credentials/dkim-sealing.key") && said.contains(own.to_str().unwrap()), "{said}");
}
