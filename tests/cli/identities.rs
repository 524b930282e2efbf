//! `postrider identities`, and the page that a mailed link leads to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use postrider_base::Clock;
use postrider_testkit::{Accept, Policy, Received, Relay, RelayOptions, Sink};
use serde_json::{Value, json};

use crate::support::{Node, eventually, refusal};

fn json_of(node: &Node, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    serde_json::from_str(&node.told(&arguments)).unwrap()
}

#[test]
fn a_domain_is_made_with_its_keys_and_shown_with_what_to_publish() {
    let node = Node::new();
    assert_eq!(node.told(&["identities", "list"]), "no identities\n");
    let made = json_of(&node, &["identities", "create", "Example.com"]);
    assert_eq!((&made["IdentityName"], &made["IdentityType"]), (&json!("example.com"), &json!("DOMAIN")));
    assert_eq!(made["VerificationStatus"], "PENDING");
    assert_eq!(made["VerifiedForSendingStatus"], false);
    let dkim = &made["DkimAttributes"];
    assert_eq!((&dkim["SigningEnabled"], &dkim["SigningAttributesOrigin"]), (&json!(true), &json!("AWS_SES")));
    let tokens = dkim["Tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 3);
    let shown = node.told(&["identities", "show", "example.com"]);
    for token in tokens {
        assert!(shown.contains(&format!("{}._domainkey.example.com. ", token.as_str().unwrap())), "{shown}");
    }
    assert_eq!(made["Records"].as_array().unwrap().len(), 3);

    let with = ["identities", "mail-from", "example.com", "bounce.example.com", "--on-failure", "reject"];
    let with = json_of(&node, &with);
    let own = &with["MailFromAttributes"];
    assert_eq!(
        (&own["MailFromDomain"], &own["MailFromDomainStatus"]),
        (&json!("bounce.example.com"), &json!("PENDING"))
    );
    assert_eq!(own["BehaviorOnMxFailure"], "REJECT_MESSAGE");
    let shown = node.told(&["identities", "show", "example.com"]);
    assert!(shown.contains("bounce.example.com. 3600 IN MX 10 relay.example.com"), "{shown}");
    assert!(shown.contains("mail is refused"), "{shown}");
    let without = json_of(&node, &["identities", "mail-from", "example.com", "--none"]);
    assert_eq!(without["MailFromAttributes"], Value::Null);

    let off = json_of(&node, &["identities", "dkim", "example.com", "--signing", "off"]);
    assert_eq!(off["DkimAttributes"]["SigningEnabled"], false);
    let trusted = json_of(&node, &["identities", "trust", "example.com"]);
    assert_eq!((&trusted["Trusted"], &trusted["VerifiedForSendingStatus"]), (&json!(true), &json!(true)));
    assert!(node.told(&["identities", "list"]).contains("trusted"));
    let untrusted = json_of(&node, &["identities", "untrust", "example.com"]);
    assert_eq!(untrusted["VerifiedForSendingStatus"], false);
    assert_eq!(node.told(&["identities", "delete", "example.com"]), "done\n");
    assert_eq!(json_of(&node, &["identities", "list"]), json!([]));
}

#[test]
fn tags_are_put_on_and_taken_off() {
    let node = Node::new();
    let made = json_of(&node, &["identities", "create", "example.com", "--tag", "team=shop", "--tag", "empty="]);
    let (team, empty) = (json!({ "Key": "team", "Value": "shop" }), json!({ "Key": "empty", "Value": "" }));
    assert_eq!(made["Tags"], json!([empty, team]));
    let set = ["identities", "set-tags", "example.com", "--tag", "team=web", "--untag", "empty"];
    assert_eq!(json_of(&node, &set)["Tags"], json!([{ "Key": "team", "Value": "web" }]));
    assert!(node.told(&["identities", "show", "example.com"]).contains("tag                team=web\n"));
    let no_tag = refusal(&node.run(&["identities", "set-tags", "example.com", "--tag", "team"]));
    assert!(no_tag.contains("KEY=VALUE"), "{no_tag}");
    let long = format!("{}=x", "k".repeat(129));
    let too_long = refusal(&node.run(&["identities", "set-tags", "example.com", "--tag", &long]));
    assert!(too_long.contains("1 to 128 characters"), "{too_long}");
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let node = Node::new();
    node.told(&["identities", "create", "example.com"]);
    for (arguments, code, reason) in [
        (&["create", "example.com"][..], 1, "identity example.com already exists"),
        (&["create", "example.org", "--configuration-set", "none"], 3, "there is no configuration set none"),
        (&["mail-from", "example.com", "bounce.example.org"], 1, "must lie inside the identity's domain"),
        (&["mail-from", "example.com", "example.com"], 1, "must lie inside the identity's domain"),
        (&["mail-from", "nobody.example", "b.nobody.example"], 3, "there is no identity nobody.example"),
        (&["show", "nobody.example"], 3, "there is no identity nobody.example"),
        (&["delete", "ann@example.com"], 3, "there is no identity ann@example.com"),
        (&["verify", "example.com"], 4, "only a daemon can do this"),
    ] {
        let output = node.run(&[&["identities"], arguments].concat());
        let refusal = refusal(&output);
        assert!(refusal.contains(reason), "{arguments:?}: {refusal}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {refusal}");
    }
    for wrong in [&["create", "not an@address"][..], &["mail-from", "example.com"], &["dkim", "example.com"]] {
        assert_eq!(node.run(&[&["identities"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn return_paths_that_nobody_listens_on_are_refused() {
    let node = Node::new();
    node.configure("[submission]\nreturn_path = \"verp\"\n");
    let checked = node.run(&["config", "check"]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(refusal(&checked).contains("submission.return_path: "), "{}", refusal(&checked));
}

/// Keeps the mail that it takes.
struct Keeps(Arc<Mutex<Vec<Received>>>);

impl Policy for Keeps {
    fn recipient(&self, address: &str) -> String {
        Accept.recipient(address)
    }

    fn message(&self, message: Received) -> String {
        self.0.lock().unwrap().push(message.clone());
        Accept.message(message)
    }
}

fn http(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_verified_by_the_button_behind_its_link() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let sink = Sink::start(Keeps(kept.clone()), Clock::system()).await.unwrap();
    let more = "[upkeep]\nlink_url = \"https://relay.example.net/mail\"\noperator_address = \"op@example.net\"\n";
    let relay = Relay::start(RelayOptions::to(env!("CARGO_BIN_EXE_postrider"), sink.address(), more)).unwrap();
    let show = || -> Value {
        let output = relay.cli(&["identities", "show", "ann@example.com", "--json"]).unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    relay.cli(&["identities", "create", "ann@example.com"]).unwrap();
    let mail_to = |address: &str| {
        let kept = kept.lock().unwrap();
        let mail = kept.iter().find(|mail| mail.recipients == [address])?;
        Some((mail.sender.clone(), String::from_utf8(mail.content.to_vec()).unwrap()))
    };
    let (sender, mail) = eventually("a link", || mail_to("ann@example.com")).await;
    assert_eq!(sender, "", "nobody answers it");
    assert!(mail.contains("Auto-Submitted: auto-generated\r\n"), "{mail}");
    let (_, rest) = mail.split_once("https://relay.example.net/mail/verify?t=").unwrap();
    let token = rest.split_whitespace().next().unwrap();

    let path = format!("/verify?t={token}");
    let page = http(relay.http(), "GET", &path);
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("ann@example.com"), "{page}");
    assert_eq!(show()["VerificationStatus"], "PENDING");
    let forged = http(relay.http(), "POST", &format!("{}A", &path[..path.len() - 1]));
    assert!(forged.starts_with("HTTP/1.1 400 ") || token.ends_with('A'), "{forged}");
    let confirmed = http(relay.http(), "POST", &path);
    assert!(confirmed.starts_with("HTTP/1.1 200 ") && confirmed.contains("is confirmed"), "{confirmed}");
    let shown = show();
    assert_eq!(
        (&shown["VerificationStatus"], &shown["VerifiedForSendingStatus"], &shown["IdentityType"]),
        (&json!("SUCCESS"), &json!(true), &json!("EMAIL_ADDRESS"))
    );
    let (_, told) = eventually("a note to the operator", || mail_to("op@example.net")).await;
    assert!(told.contains("Now:    SUCCESS") && told.contains("ann@example.com"), "{told}");
}
