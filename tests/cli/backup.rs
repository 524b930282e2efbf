//! Copies of a node's state, made while it works, and nodes made from them.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Node, refusal};

#[test]
fn a_copy_made_under_load_has_all_that_was_acknowledged_before() {
    let node = Node::new();
    let daemon = node.serve();
    node.told(&["identities", "create", "example.com", "--trust"]);
    let (made, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let to = node.path("copy.tar");
    let before = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                node.told(&["suppression", "put", &format!("user{n}@example.com")]);
                node.told(&["configuration-sets", "create", &format!("set{n}")]);
                made.store(n + 1, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        while made.load(Ordering::SeqCst) < 5 {
            std::thread::yield_now();
        }
        let before = made.load(Ordering::SeqCst);
        let told = node.told(&["backup", to.to_str().unwrap()]);
        assert!(told.contains("all checksums right"), "{told}");
        stop.store(true, Ordering::SeqCst);
        before
    });
    assert!(daemon.stop().success());

    let other = Node::new();
    let told = other.told(&["restore", to.to_str().unwrap()]);
    assert!(told.contains("the queue is empty"), "{told}");
    let (sets, suppressed) = (other.told(&["configuration-sets", "list"]), other.told(&["suppression", "list"]));
    for n in 0..before {
        assert!(sets.contains(&format!("set{n}")) && suppressed.contains(&format!("user{n}@example.com")), "{n}");
    }
    let daemon = other.serve();
    assert!(other.told(&["identities", "list"]).contains("example.com"));
    let keys = |node: &Node| node.told(&["dkim", "list", "--json"]);
    assert_eq!(keys(&other), keys(&node), "and the keys that open them");
    assert!(other.told(&["audit"]).contains("Restore"));
    let instance = |node: &Node| fs::read_to_string(node.path("state/node.toml")).unwrap();
    assert_ne!(instance(&other), instance(&node));
    assert!(daemon.stop().success());
}

#[test]
fn a_restore_refuses_what_it_would_spoil() {
    let node = Node::new();
    node.told(&["configuration-sets", "create", "news"]);
    let to = node.path("copy");
    let to = to.to_str().unwrap();
    node.told(&["backup", to, "--journal"]);
    assert!(refusal(&node.run(&["backup", to])).contains("is there already"));
    assert!(refusal(&node.run(&["restore", to])).contains("is not written over"));
    let daemon = node.serve();
    assert!(refusal(&node.run(&["restore", to])).contains("the daemon is running"));
    assert!(daemon.stop().success());

    let other = Node::new();
    let text = fs::read_to_string(other.path("postrider.toml")).unwrap();
    fs::write(other.path("postrider.toml"), text.replace("[server]\n", "[server]\nnode = \"0200\"\n")).unwrap();
    assert!(refusal(&other.run(&["restore", to])).contains("the backup is of node 0100"));
    assert!(!other.path("state").exists());

    let third = Node::new();
    assert!(third.told(&["restore", "--verify", to]).contains("all checksums right"));
    let mut rows = fs::read(node.path("copy/store.rows")).unwrap();
    let middle = rows.len() / 2;
    rows[middle] ^= 1;
    fs::write(node.path("copy/store.rows"), rows).unwrap();
    assert!(refusal(&third.run(&["restore", "--verify", to])).contains("store.rows is damaged"));
    assert!(refusal(&third.run(&["restore", to])).contains("store.rows is damaged"));
    assert!(!third.path("state").exists(), "nothing was begun");
}
