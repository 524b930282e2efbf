//! `postrider bans`, `postrider trace`, and what `config check` says of certificates.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use crate::support::{Node, refusal};

#[test]
fn bans_are_looked_at_without_a_daemon() {
    let node = Node::new();
    assert_eq!(node.told(&["bans", "list"]), "no address is banned\n");
    assert_eq!(node.told(&["bans", "list", "--json"]), "[]\n");
    assert_eq!(node.told(&["bans", "clear", "192.0.2.0/24"]), "0 bans lifted\n");
    assert_eq!(node.told(&["bans", "clear", "--all", "--json"]), "{\"lifted\":0}\n");
}

#[test]
fn what_to_lift_must_be_said_and_make_sense() {
    let node = Node::new();
    assert_eq!(node.run(&["bans", "clear"]).status.code(), Some(2));
    let output = node.run(&["bans", "clear", "192.0.2.7/24"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("192.0.2.0/24"));
    assert_eq!(node.run(&["trace"]).status.code(), Some(2), "everybody is too many");
}

#[test]
fn a_trace_needs_a_daemon() {
    let node = Node::new();
    assert_eq!(node.run(&["trace", "--peer", "127.0.0.1"]).status.code(), Some(4));
}

#[test]
fn a_trace_shows_what_is_said() {
    let node = Node::new();
    let daemon = node.serve();
    let mut trace = node.command(&["trace", "--peer", "127.0.0.1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(trace.stdout.take().unwrap()).lines();
    // The trace is on when it shows something: until then clients come and go.
    let (seen, stop) = std::sync::mpsc::channel();
    let port = node.starttls;
    let clients = std::thread::spawn(move || {
        while stop.try_recv().is_err() {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(b"EHLO watched.example\r\nAUTH PLAIN AHNlY3JldABzZWNyZXQ=\r\nQUIT\r\n").unwrap();
            client.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let mut text = String::new();
    while !text.contains("> 221 Bye") {
        text.push_str(&lines.next().unwrap().unwrap());
        text.push('\n');
    }
    seen.send(()).unwrap();
    clients.join().unwrap();
    trace.kill().unwrap();
    trace.wait().unwrap();
    assert!(text.contains(" 127.0.0.1 ") && text.contains(" < EHLO watched.example\n"), "{text}");
    assert!(text.contains(" < AUTH PLAIN ***\n") && !text.contains("AHNlY3"), "{text}");
    assert!(daemon.stop().success());
}

#[test]
fn certificates_are_opened_by_the_check() {
    let node = Node::new();
    node.configure("[tls]\ncertificate = \"/nowhere/chain.pem\"\nkey = \"/nowhere/key.pem\"\n");
    let output = node.run(&["config", "check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(refusal(&output).contains("/nowhere/chain.pem: No such file"));
}
