//! `postrider quickstart`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use postrider_testkit::authority::roots;
use postrider_testkit::{Endpoint, Security};

use crate::support::{Node, free_port, postrider};

struct Quickstart {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Quickstart {
    fn start(node: &Node, starttls: u16) -> Quickstart {
        let wrapper = free_port().to_string();
        let mut child =
            postrider(&["quickstart", "--starttls-port", &starttls.to_string(), "--wrapper-port", &wrapper])
                .current_dir(node.dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Quickstart { child, lines }
    }

    /// The first line that holds all of these.
    fn line_with(&mut self, parts: &[&str]) -> String {
        let mut found = self.lines.by_ref().map(Result::unwrap);
        found
            .find(|line| parts.iter().all(|part| line.contains(part)))
            .unwrap_or_else(|| panic!("no line with {parts:?}"))
    }

    fn credential(&mut self) -> (String, String) {
        let value = |line: String| line.split_whitespace().last().unwrap().to_owned();
        (value(self.line_with(&["user name"])), value(self.line_with(&["password"])))
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_printed_credential_keeps_working_and_is_private() {
    let node = Node::new();
    let mut first = Quickstart::start(&node, free_port());
    let credential = first.credential();
    assert_eq!((credential.0.len(), credential.1.len()), (20, 44));
    drop(first);
    let mut second = Quickstart::start(&node, free_port());
    assert_eq!(second.credential(), credential);
    second.line_with(&["Ctrl-C"]);
    let file = fs::metadata(node.path("postrider-data/credential.toml")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);

    // The other commands find it from the same directory, without a word of configuration.
    let mut listing = postrider(&["credentials", "list"]);
    let output = listing.current_dir(node.dir.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&credential.0), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_arrives_in_view_and_nothing_leaves() {
    let node = Node::new();
    let port = free_port();
    let mut quickstart = Quickstart::start(&node, port);
    let (user, password) = quickstart.credential();
    quickstart.line_with(&["Ctrl-C"]);

    // As the printed Python does: the self-signed certificate is verified, by pinning it.
    let pem = fs::read_to_string(node.path("postrider-data/keys/self-signed.pem")).unwrap();
    let address = ([127, 0, 0, 1], port).into();
    let endpoint = Endpoint::new(address, Security::StartTls, "127.0.0.1", roots(&pem).unwrap(), false).unwrap();
    let mut client = endpoint.connect().await.unwrap();
    client.login(&user, &password).await.unwrap();
    let recipients = ["you@inbox.test", "bob@example.com"];
    let content = b"From: me@example.com\r\nSubject: Hello there\r\n\r\nIt works.\r\n";
    let reply = client.send("me@example.com", &recipients, content).await.unwrap().expect(250).unwrap();
    let id = reply.text().split_whitespace().last().unwrap().to_owned();

    quickstart.line_with(&["accepted", &id, "for you@inbox.test, bob@example.com"]);
    quickstart.line_with(&["held", "bob@example.com"]);
    quickstart.line_with(&["delivered", &id, "to you@inbox.test"]);
    quickstart.line_with(&["inbox", "\"Hello there\" from me@example.com for you@inbox.test"]);

    let list = postrider(&["queue", "list", "--json"]).current_dir(node.dir.path()).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list[0]["id"], id.as_str());
    assert_eq!(list[0]["recipients"], serde_json::json!(["bob@example.com"]));
    assert_eq!(list[0]["state"], "held");
}
