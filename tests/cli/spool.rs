//! `postrider spool`, and whose spool it is.

use std::fs;
use std::path::Path;

use crate::support::Node;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_spool_of_another_node_is_held_until_it_is_released() {
    let (here, there) = (Node::new(), Node::new());
    for node in [&here, &there] {
        assert!(!node.told(&["status"]).contains("held"));
    }
    fs::remove_dir_all(there.path("state/spool")).unwrap();
    copy(&here.path("state/spool"), &there.path("state/spool"));

    let mut daemon = there.serve();
    daemon.wait_for_log("was restored or copied from another node: everything in it is held");
    let status = there.told(&["status"]);
    assert!(status.contains("held         everything, until `postrider queue release --all`"), "{status}");
    assert!(daemon.stop().success());
    // Held it stays, though it is this node's by now.
    assert!(there.told(&["spool"]).contains("held "));
    there.told(&["queue", "release", "--all"]);
    assert!(!there.told(&["spool"]).contains("held "));
    assert!(!here.told(&["spool"]).contains("held "));
}
