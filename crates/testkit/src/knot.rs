//! A real name server that takes dynamic updates, Knot DNS.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::nsd::Zone;
use crate::ports::free_address;

/// How long it may take to start, in steps of 10 ms.
const STEPS: u32 = 2_000;
/// 32 octets in base64, which is no secret.
pub const SECRET: &str = "bm90IGEgc2VjcmV0IGF0IGFsbCwgb25seSBhIHRlc3Q=";
/// The key that may change every zone.
pub const MAY: &str = "may.change";
/// A key that the server knows, and that may change nothing.
pub const MAY_NOT: &str = "may-not.change";

/// A running name server; it ends with the value.
#[derive(Debug)]
pub struct Knot {
    child: Child,
    directory: TempDir,
    address: SocketAddr,
}

impl Knot {
    /// Serves these zones at a free port of 127.0.0.1; it answers when this returns. It knows
    /// the keys [`MAY`] and [`MAY_NOT`], both hmac-sha256 with [`SECRET`].
    ///
    /// # Errors
    /// A missing program or a zone that it does not take; with its words.
    pub fn start(zones: &[Zone]) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("knot-").tempdir()?;
        let address = free_address()?;
        let own = directory.path().display();
        let key = |name| format!(" - id: {name}\n   algorithm: hmac-sha256\n   secret: {SECRET}\n");
        let mut config = format!(
            "server:\n rundir: \"{own}\"\n listen: {}@{}\n udp-workers: 1\n tcp-workers: 1\n background-workers: 1\n\
             log:\n - target: \"{own}/log\"\n   any: info\ndatabase:\n storage: \"{own}/db\"\n\
             key:\n{}{}acl:\n - id: change\n   key: {MAY}\n   action: update\nzone:\n",
            address.ip(),
            address.port(),
            key(MAY),
            key(MAY_NOT),
        );
        for zone in zones {
            let path = directory.path().join(format!("{}.zone", zone.name()));
            fs::write(&path, zone.text(Ipv4Addr::LOCALHOST, Duration::from_secs(300)))?;
            let (name, path) = (zone.name(), path.display());
            config.push_str(&format!(" - domain: {name}\n   file: \"{path}\"\n   acl: change\n"));
        }
        fs::write(directory.path().join("conf"), config)?;
        fs::create_dir(directory.path().join("db"))?;
        let child = Command::new("/usr/sbin/knotd")
            .arg("-c")
            .arg(directory.path().join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("/usr/sbin/knotd: {error}; `cargo xtask test` installs it"))
            })?;
        let mut knot = Self { child, directory, address };
        knot.wait_until_it_answers()?;
        Ok(knot)
    }

    /// Where it listens, by UDP and TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        for _ in 0..STEPS {
            let log = self.log();
            if log.contains("server started") && TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("knotd does not answer: {}", self.log())))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
