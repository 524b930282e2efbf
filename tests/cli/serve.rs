//! `postrider serve`: starts, refuses to start, answers commands, stops.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Clock, RealDisk, Timestamp};
use postrider_delivery::sts::policy::Policy;
use postrider_store::Store;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::{Node, refusal};

fn greeting(node: &Node) -> std::io::Result<String> {
    let stream = TcpStream::connect(("127.0.0.1", node.starttls))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

#[test]
fn ready_means_accepting_and_a_stop_is_clean() {
    let node = Node::new();
    let daemon = node.serve();
    assert!(daemon.told.iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "{:?}", daemon.told);
    assert!(daemon.told.iter().any(|line| line.starts_with("STATUS=")));
    assert!(greeting(&node).unwrap().starts_with("220 relay.example.com ESMTP"));
    let log = node.path("log");
    assert_eq!(daemon.stop().code(), Some(0), "{}", fs::read_to_string(log).unwrap());
    assert!(greeting(&node).is_err());
    assert!(!node.path("control.sock").exists());
}

#[test]
fn a_second_start_finds_what_the_first_left() {
    let node = Node::new();
    node.told(&["suppression", "put", "gone@example.com"]);
    assert!(node.serve().stop().success());
    let daemon = node.serve();
    assert!(node.told(&["suppression", "list"]).contains("gone@example.com"));
    assert!(daemon.stop().success());
}

#[test]
fn commands_go_through_the_running_daemon() {
    let node = Node::new();
    let daemon = node.serve();
    let status: serde_json::Value = serde_json::from_str(&node.told(&["status", "--json"])).unwrap();
    assert_eq!(status["pid"], daemon.child.id());
    assert_eq!(status["hostname"], "relay.example.com");
    assert_eq!(node.told(&["queue", "summary"]), "the queue is empty\n");
    assert_eq!(node.told(&["queue", "list", "--json"]).trim(), "[]");
    assert_eq!(node.told(&["sites"]), "no site is in use\n");
    node.told(&["credentials", "create"]);
    assert!(daemon.log().contains("uid"), "the peer is not logged: {}", daemon.log());
    let mode = fs::metadata(node.path("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    let unknown = node.run(&["message", "0100019a00000000-00000000-0000-4000-8000-000000000000-000000"]);
    assert!(refusal(&unknown).contains("neither in the queue nor in the journal"));
    assert_eq!(unknown.status.code(), Some(3));
    let unknown = node.run(&["sts", "show", "example.com"]);
    assert!(refusal(&unknown).contains("no MTA-STS policy of example.com is kept"));
    assert_eq!(unknown.status.code(), Some(3));
    assert!(daemon.stop().success());
}

/// A row of the table of policies, as delivery keeps it: policy, id, and when it
/// was fetched and used.
#[derive(Deserialize, Serialize)]
enum KeptPolicy {
    V1((Policy, String, Timestamp, Timestamp)),
}

#[test]
fn a_policy_that_is_kept_is_shown() {
    let node = Node::new();
    // Makes the state.
    assert!(node.serve().stop().success());
    let policy = b"version: STSv1\nmode: enforce\nmx: mx.example.com\nmx: *.example.net\nmax_age: 86400\n";
    let now = Clock::system().now();
    let kept = KeptPolicy::V1((Policy::parse(policy).unwrap(), "2026".to_owned(), now, now));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(Arc::new(RealDisk), &node.path("state/store")).unwrap();
        store.table("sts-policies").put(&"example.com".to_owned(), &kept).await.unwrap();
        store.close().await.unwrap();
    });
    let daemon = node.serve();
    let shown = node.told(&["sts", "show", "example.com"]);
    for line in ["mode     enforce\n", "mx       mx.example.com *.example.net\n", "id       2026\n"] {
        assert!(shown.contains(line), "{shown}");
    }
    let json: Value = serde_json::from_str(&node.told(&["sts", "show", "Example.COM", "--json"])).unwrap();
    assert_eq!(
        (&json["domain"], &json["mode"], &json["mx"][1]),
        (&"example.com".into(), &"enforce".into(), &"*.example.net".into())
    );
    let fetched = Timestamp::parse_rfc3339(json["fetched"].as_str().unwrap()).unwrap();
    let expires = Timestamp::parse_rfc3339(json["expires"].as_str().unwrap()).unwrap();
    assert_eq!(expires.saturating_since(fetched), Duration::from_secs(86_400));
    assert!(daemon.stop().success());
}

#[test]
fn without_a_daemon_only_a_daemon_can_do_some_things() {
    let node = Node::new();
    for command in [&["reload"][..], &["sites"], &["sts", "show", "example.com"], &["events", "tail"]] {
        let output = node.run(command);
        assert!(refusal(&output).contains("no daemon runs"));
        assert_eq!(output.status.code(), Some(4));
    }
    assert!(node.told(&["status"]).contains("running:   no"));
}

#[test]
fn the_control_socket_is_strict_and_bounded() {
    let node = Node::new();
    let daemon = node.serve();
    let ask = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(node.path("control.sock")).unwrap();
        // The daemon may hang up before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(ask(b"{\"dance\":1}\n").contains("\"error\""));
    assert!(ask(b"\xff\xfe\n").contains("\"error\""));
    assert!(!ask(&vec![b'x'; 2 << 20]).contains("\"item\""));
    assert!(ask(b"\"status\"\n").contains("relay.example.com"));
    assert!(daemon.stop().success());
}

#[test]
fn a_second_daemon_is_told_who_has_the_state() {
    let node = Node::new();
    let daemon = node.serve();
    let refusal = refusal(&node.run(&["serve"]));
    assert!(refusal.contains(&format!("in use by process {}", daemon.child.id())), "{refusal}");
    assert!(greeting(&node).is_ok());
    assert!(daemon.stop().success());
}

#[test]
fn a_taken_port_is_named() {
    let node = Node::new();
    let _taken = TcpListener::bind(("127.0.0.1", node.starttls)).unwrap();
    let refusal = refusal(&node.run(&["serve"]));
    assert!(refusal.contains(&format!("127.0.0.1:{}", node.starttls)) && refusal.contains("taken"), "{refusal}");
}

#[test]
fn a_bad_certificate_is_named() {
    let node = Node::new();
    fs::write(node.path("c.pem"), "hello").unwrap();
    let path = node.path("c.pem");
    let path = path.display();
    node.configure(&format!("[tls]\ncertificate = \"{path}\"\nkey = \"{path}\""));
    let refusal = refusal(&node.run(&["serve"]));
    assert!(refusal.contains("c.pem: no certificate in it"), "{refusal}");
}

#[test]
fn foreign_and_unusable_state_directories_are_refused() {
    let node = Node::new();
    fs::create_dir(node.path("state")).unwrap();
    fs::write(node.path("state/photo.jpg"), "x").unwrap();
    let foreign = refusal(&node.run(&["serve"]));
    assert!(foreign.contains("is not a postrider state directory") && foreign.contains("photo.jpg"), "{foreign}");
    assert!(!node.path("state/spool").exists());

    fs::remove_file(node.path("state/photo.jpg")).unwrap();
    fs::write(node.path("state/node.toml"), "format = 7\nnode = 256\ninstance = \"x\"\n").unwrap();
    assert!(refusal(&node.run(&["serve"])).contains("format 7"));

    fs::remove_dir_all(node.path("state")).unwrap();
    fs::write(node.path("state"), "a file").unwrap();
    assert!(refusal(&node.run(&["serve"])).contains("is not a directory"));
}

#[test]
fn another_nodes_state_is_refused() {
    let node = Node::new();
    node.told(&["credentials", "list"]);
    let text = fs::read_to_string(node.path("postrider.toml")).unwrap();
    fs::write(node.path("postrider.toml"), text.replace("[server]", "[server]\nnode = \"0200\"")).unwrap();
    let refusal = refusal(&node.run(&["serve"]));
    assert!(refusal.contains("belongs to node 0100"), "{refusal}");
}

#[test]
fn a_reload_applies_routes_and_says_what_must_wait() {
    let node = Node::new();
    let mut daemon = node.serve();
    node.configure("[delivery.routes]\n\"example.net\" = \"hold:\"\n[spool]\nready_batch = 65");
    let told = node.told(&["reload"]);
    assert!(told.contains("in effect: delivery.routes.example.net"), "{told}");
    assert!(told.contains("needs a restart: spool.ready_batch"), "{told}");

    node.configure("[spool]\nready_batch = 0");
    let wrong = node.run(&["reload"]);
    assert!(refusal(&wrong).contains("spool.ready_batch"));

    node.configure("[log]\nlevel = \"debug\"");
    daemon.signal("HUP");
    daemon.wait_for_log("reload: log.level in effect");
    daemon.wait_for("RELOADING=1");
    assert!(daemon.stop().success());
}

#[test]
fn the_watchdog_is_fed() {
    let node = Node::new();
    let mut daemon = node.spawn(&[("WATCHDOG_USEC", "200000")]);
    daemon.wait_for("READY=1");
    let before = daemon.told.iter().filter(|line| *line == "WATCHDOG=1").count();
    daemon.wait_for_nth("WATCHDOG=1", before + 3);
    assert!(daemon.stop().success());
}
