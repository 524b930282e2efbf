//! `postrider credentials`.

use std::process::Stdio;

use crate::support::{Node, feed, postrider, refusal, stdout};

/// The secret of SES's documentation.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// What SES's published script makes of it.
const PASSWORDS: [(&str, &str); 4] = [
    ("us-east-1", "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"),
    ("us-west-2", "BF2PynzbSCAjX08zhZZnP/kW+T9P5zs/1Er0pi5vTEmd"),
    ("eu-west-1", "BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk"),
    ("local", "BCPiDCcWtEfrAGeLF/0lxxX3gmO5OES+V3bZFxmF2VE9"),
];

#[test]
fn passwords_are_derived_as_ses_does() {
    for (region, password) in PASSWORDS {
        let from_stdin = feed(postrider(&["credentials", "derive", "--region", region]), &format!("{SECRET}\n"));
        assert_eq!(stdout(&from_stdin), format!("{password}\n"));
        let from_environment = postrider(&["credentials", "derive", "--region", region])
            .env("POSTRIDER_SECRET_ACCESS_KEY", SECRET)
            .output()
            .unwrap();
        assert_eq!(stdout(&from_environment), format!("{password}\n"));
    }
}

#[test]
fn a_secret_is_not_taken_from_the_command_line() {
    let output = postrider(&["credentials", "derive", "--region", "us-east-1", SECRET]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let nothing = feed(postrider(&["credentials", "derive", "--region", "us-east-1"]), "\n");
    assert!(refusal(&nothing).contains("expected the secret access key on stdin"));
    let words = feed(postrider(&["credentials", "derive", "--region", "us-east-1"]), "two words\n");
    let words = refusal(&words);
    assert!(words.contains("several words") && !words.contains("two"), "{words}");
}

#[test]
fn credentials_live_without_a_daemon() {
    let node = Node::new();
    let created: serde_json::Value =
        serde_json::from_str(&node.told(&["credentials", "create", "--label", "billing", "--json"])).unwrap();
    let user = created["user_name"].as_str().unwrap();
    assert_eq!(user.len(), 20);
    assert_eq!(created["smtp_password"].as_str().unwrap().len(), 44);
    assert_eq!(created["secret_access_key"].as_str().unwrap().len(), 40);

    let listed = node.told(&["credentials", "list"]);
    assert!(listed.contains(user) && listed.contains("billing") && listed.contains("enabled"), "{listed}");
    assert!(!listed.contains(created["smtp_password"].as_str().unwrap()));

    node.told(&["credentials", "disable", user]);
    assert!(node.told(&["credentials", "list"]).contains("disabled"));
    node.told(&["credentials", "enable", user]);
    node.told(&["credentials", "delete", user]);
    assert_eq!(node.told(&["credentials", "list"]), "no credentials\n");

    let gone = node.run(&["credentials", "delete", user]);
    assert!(refusal(&gone).contains("no credential with user name"));
    assert_eq!(gone.status.code(), Some(3));
}

#[test]
fn a_credential_has_quotas_that_can_be_changed() {
    let node = Node::new();
    let made = node.told(&["credentials", "create", "--daily-quota", "10000", "--max-rate", "5", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let user = made["user_name"].as_str().unwrap();
    let listed = node.told(&["credentials", "list"]);
    assert!(listed.contains("A SECOND") && listed.contains("10000"), "{listed}");

    let set = |options: &[&str]| node.run(&[&["credentials", "set", user][..], options].concat());
    let shown = stdout(&set(&["--no-daily-quota", "--max-rate", "7", "--label", "web shop", "--overflow", "defer"]));
    for line in ["in 24 hours     -, 0 sent", "a second        7", "label           web shop", "put off"] {
        assert!(shown.contains(line), "{line} not in\n{shown}");
    }
    assert_eq!(node.told(&["credentials", "show", user]), shown);
    let view: serde_json::Value = serde_json::from_str(&node.told(&["credentials", "show", user, "--json"])).unwrap();
    assert_eq!((&view["daily_quota"], &view["max_rate"]), (&serde_json::Value::Null, &7.into()));

    assert!(refusal(&set(&["--max-rate", "0"])).contains("a quota is at least 1; to have it send nothing, disable it"));
    assert!(!set(&[]).status.success(), "nothing is to be changed");
    assert!(!set(&["--max-rate", "7", "--no-max-rate"]).status.success());
    let nobody = node.run(&["credentials", "set", "AKIAIOSFODNN7EXAMPLE", "--max-rate", "1"]);
    assert_eq!(nobody.status.code(), Some(3));
    let audited = node.told(&["audit", "--json", "--name", "UpdateAccessKey"]);
    let first: serde_json::Value = serde_json::from_str(audited.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["recipientAccountId"], &first["previousState"]["max_rate"]),
        (&"000000000001".into(), &5.into())
    );
    assert_eq!(first["requestParameters"]["options"][3], serde_json::json!({ "max-rate": 7 }), "{audited}");

    let sandboxed = stdout(&set(&["--sandbox", "on"]));
    assert!(
        sandboxed.contains("in 24 hours     200, 0 sent") && sandboxed.contains("a second        7"),
        "{sandboxed}"
    );
    let view: serde_json::Value = serde_json::from_str(&node.told(&["credentials", "list", "--json"])).unwrap();
    assert_eq!((&view[0]["daily_quota"], &view[0]["max_rate"]), (&200.into(), &7.into()), "{view}");
    assert_eq!(stdout(&set(&["--sandbox", "off"])), shown);
}

#[test]
fn existing_credentials_are_imported() {
    let node = Node::new();
    let import = |user: &str, secret: &str| feed(node.command(&["credentials", "import", "--user", user]), secret);
    assert!(import("AKIAIOSFODNN7EXAMPLE", SECRET).status.success());
    assert!(import("AKIAIOSFODNN7EXAMPL2", PASSWORDS[0].1).status.success());
    assert!(refusal(&import("AKIAIOSFODNN7EXAMPLE", SECRET)).contains("already exists"));
    let short = refusal(&import("AKIAIOSFODNN7EXAMPL3", "secret"));
    assert!(short.contains("44 characters"), "{short}");
    assert!(refusal(&import("bob", SECRET)).contains("can not be used"));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let node = Node::new();
    node.told(&["credentials", "create"]);
    let mut child =
        node.command(&["config", "reference"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
