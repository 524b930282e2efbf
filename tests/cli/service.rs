//! What comes with the program for a service: the certificate hook, and root's manners.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Output};

use postrider_testkit::authority::roots;
use postrider_testkit::{Authority, Endpoint, Issued, Security};

use crate::support::{Node, refusal};

const HOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/deploy-certificate.sh");

fn deploy(node: &Node, issued: &Issued, reload: &str) -> Output {
    fs::write(node.path("new.pem"), &issued.chain_pem).unwrap();
    fs::write(node.path("new-key.pem"), &issued.key_pem).unwrap();
    Command::new("sh")
        .arg(HOOK)
        .args([node.path("new.pem"), node.path("new-key.pem")])
        .env("POSTRIDER_TLS_DIR", node.path("tls"))
        .env("POSTRIDER_GROUP", fs::metadata(node.dir.path()).unwrap().gid().to_string())
        .env("POSTRIDER_RELOAD", reload)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_certificate_is_the_one_that_clients_see() {
    let node = Node::new();
    let (old, new) = (Authority::new().unwrap(), Authority::new().unwrap());
    let first = deploy(&node, &old.issue(&["relay.example.com"]).unwrap(), "true");
    assert!(first.status.success(), "{first:?}");
    let mode = |file: &str| fs::metadata(node.path(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("tls"), mode("tls/privkey.pem"), mode("tls/fullchain.pem")), (0o750, 0o640, 0o644));

    let tls = node.path("tls").display().to_string();
    node.configure(&format!("[tls]\ncertificate = \"{tls}/fullchain.pem\"\nkey = \"{tls}/privkey.pem\""));
    let mut daemon = node.serve();
    let trusts = |authority: &Authority| {
        let roots = roots(&authority.pem()).unwrap();
        let address = ([127, 0, 0, 1], node.starttls).into();
        Endpoint::new(address, Security::StartTls, "relay.example.com", roots, false).unwrap()
    };
    assert!(trusts(&old).connect().await.is_ok());

    let reload = format!("kill -s HUP {}", daemon.child.id());
    let second = deploy(&node, &new.issue(&["relay.example.com"]).unwrap(), &reload);
    assert!(second.status.success(), "{second:?}");
    daemon.wait_for_nth("READY=1", 2);
    assert!(trusts(&new).connect().await.is_ok());
    assert!(trusts(&old).connect().await.is_err());
    assert!(daemon.stop().success());
}

#[test]
fn the_hook_says_what_it_wants() {
    let output = Command::new("sh").arg(HOOK).env_remove("RENEWED_LINEAGE").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage:"));
}

/// Only root can be taken for somebody else, so that this test says nothing for others.
#[test]
fn root_leaves_no_files_of_its_own() {
    const SOMEBODY: u32 = 12_345;
    let node = Node::new();
    fs::create_dir(node.path("state")).unwrap();
    fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if chown(node.path("state"), Some(SOMEBODY), Some(SOMEBODY)).is_err() {
        return;
    }
    node.told(&["credentials", "create"]);
    node.told(&["queue", "summary"]);
    for file in all_files(&node.path("state")) {
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (SOMEBODY, SOMEBODY), "{}", file.display());
    }
    assert!(refusal(&node.run(&["serve"])).contains("belongs to user 12345"));
}

fn all_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}

#[test]
fn systemd_finds_the_unit_right_and_well_confined() {
    let node = Node::new();
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/postrider.service")).unwrap();
    // The program stands elsewhere on a machine where it is not installed.
    let here = node.path("postrider.service");
    fs::write(&here, unit.replace("/usr/bin/postrider", env!("CARGO_BIN_EXE_postrider"))).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&here).output();
        let output = output.expect("the Debian package systemd has systemd-analyze; `cargo xtask test` installs it");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (right, said) = analyze(&["verify", "--man=no"]);
    assert!(right && !said.contains("postrider.service:"), "{said}");
    let (confined, said) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=20"]);
    assert!(confined, "the exposure level is above 2.0: {said}");
}
