//! Local delivery to a real Dovecot, over a real socket and over TCP.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use postrider_base::TcpDialer;
use postrider_delivery::Delivery;
use postrider_mail::BounceKind;
use postrider_mail::Disposition;

use crate::rig::{Rig, is_delivered, routes};

const DOVECOT: &str = "/usr/sbin/dovecot";
/// Debian's user without rights.
const NOBODY: u32 = 65_534;

/// A Dovecot that takes mail for ann, bob and cid; but what is cid's, it can not
/// write.
struct Dovecot {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Dovecot {
    async fn start() -> Self {
        assert!(Path::new(DOVECOT).exists(), "Debian's dovecot-lmtpd is needed");
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
        let mut users = String::new();
        for user in ["ann", "bob", "cid"] {
            let home = root.join(user);
            fs::create_dir(&home).unwrap();
            if user != "cid" {
                chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            users.push_str(&format!("{user}::{NOBODY}:{NOBODY}::{}::\n", home.display()));
        }
        fs::write(root.join("users"), users).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = root.join("dovecot.conf");
        fs::write(&config, configuration(root, port)).unwrap();
        let mut command = Command::new(DOVECOT);
        command.arg("-F").arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let dovecot = Self { process, directory, port };
        for _ in 0..500 {
            if tokio::net::UnixStream::connect(dovecot.socket()).await.is_ok() {
                return dovecot;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{}", fs::read_to_string(dovecot.directory.path().join("log")).unwrap_or_default());
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/lmtp")
    }

    /// The messages that a user has.
    fn mail_of(&self, user: &str) -> Vec<String> {
        let new = self.directory.path().join(user).join("mail/new");
        let files = fs::read_dir(new).into_iter().flatten().flatten();
        files.map(|file| fs::read_to_string(file.path()).unwrap()).collect()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // Its own children go with it.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn configuration(root: &Path, port: u16) -> String {
    let root = root.display();
    format!(
        "protocols = lmtp\nssl = no\nlog_path = {root}/log\nbase_dir = {root}/run\nstate_dir = {root}/state\n\
         mail_location = maildir:~/mail\nuserdb {{\n driver = passwd-file\n args = username_format=%n {root}/users\n}}\n\
         passdb {{\n driver = passwd-file\n args = username_format=%n {root}/users\n}}\n\
         service lmtp {{\n unix_listener lmtp {{\n mode = 0666\n }}\n\
         inet_listener lmtp {{\n address = 127.0.0.1\n port = {port}\n }}\n}}\n"
    )
}

#[tokio::test]
async fn dovecot_answers_for_each_recipient() {
    let dovecot = Dovecot::start().await;
    let mut rig = Rig::new().await;
    let socket = format!("lmtp+unix://{}", dovecot.socket().display());
    let tcp = format!("lmtp://127.0.0.1:{}", dovecot.port);
    let mut deps = rig.deps(routes(&[("socket.example", &socket), ("tcp.example", &tcp)]));
    deps.dialer = Arc::new(TcpDialer);
    Delivery::start(deps, &rig.scope).unwrap();
    for (domain, number) in [("socket.example", 1), ("tcp.example", 2)] {
        let recipients = ["ann", "eve", "cid", "bob"].map(|user| format!("{user}@{domain}"));
        let id = rig.send(&recipients.each_ref().map(String::as_str)).await;
        let outcomes = rig.outcomes(id, 4).await;
        assert!(is_delivered(&outcomes[0]) && is_delivered(&outcomes[3]), "{outcomes:?}");
        assert!(outcomes[0].diagnostic.contains("Saved"), "{outcomes:?}");
        assert_eq!(outcomes[1].disposition, Disposition::Bounced(BounceKind::PermanentNoEmail), "{outcomes:?}");
        assert!(!outcomes[2].disposition.is_terminal(), "{outcomes:?}");
        assert_eq!(dovecot.mail_of("ann").len(), number);
        assert_eq!(dovecot.mail_of("bob").len(), number);
    }
    assert!(dovecot.mail_of("ann")[0].contains("\n.second line"));
}
