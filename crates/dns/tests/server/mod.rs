//! The name server NSD, with zones that a test writes.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postrider_base::Period;
use postrider_dns::{NameServer, Settings};

/// A running name server; it ends with the test.
pub(crate) struct Nsd {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Nsd {
    /// Serves these zones, each a name and a file's text.
    pub(crate) fn start(zones: &[(&str, String)]) -> Nsd {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        for (n, (_, text)) in zones.iter().enumerate() {
            fs::write(dir.path().join(format!("zone{n}")), text).unwrap();
        }
        fs::write(dir.path().join("nsd.conf"), config(dir.path(), port, zones)).unwrap();
        let child = Command::new(nsd_program())
            .arg("-d")
            .arg("-c")
            .arg(dir.path().join("nsd.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsd starts");
        let mut nsd = Nsd { child, port, _dir: dir };
        nsd.wait_until_it_answers();
        nsd
    }

    fn wait_until_it_answers(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a real server runs in real time")]
        let start = Instant::now();
        while !self.answers() {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || start.elapsed() > Duration::from_secs(30) {
                let _ = self.child.kill();
                let mut words = String::new();
                let _ = self.child.stderr.take().unwrap().read_to_string(&mut words);
                panic!("nsd does not answer: {words}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it says anything to a question for the root. It takes connections
    /// before it has read its zones.
    fn answers(&self) -> bool {
        const QUESTION: [u8; 17] = [7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 512];
        socket.send(&QUESTION).is_ok() && socket.recv(&mut answer).is_ok_and(|length| length >= 12)
    }

    pub(crate) fn settings(&self) -> Settings {
        settings(self.port)
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nsd_program() -> &'static str {
    ["/usr/sbin/nsd", "/usr/local/sbin/nsd", "/usr/bin/nsd"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .or_else(|| Command::new("nsd").arg("-v").output().ok().map(|_| "nsd"))
        .expect("this test needs the name server NSD: install the Debian package `nsd`")
}

fn config(dir: &Path, port: u16, zones: &[(&str, String)]) -> String {
    let dir = dir.display();
    let server = format!(
        "server:\n ip-address: 127.0.0.1\n port: {port}\n username: \"\"\n zonesdir: \"{dir}\"\n \
         database: \"\"\n pidfile: \"\"\n xfrdfile: \"{dir}/xfrd.state\"\n zonelistfile: \"{dir}/zone.list\"\n \
         xfrdir: \"{dir}\"\n logfile: \"\"\n server-count: 1\n verbosity: 1\n\
         remote-control:\n control-enable: no\n"
    );
    let zone =
        |(n, (name, _)): (usize, &(&str, String))| format!("zone:\n name: {name}\n zonefile: \"{dir}/zone{n}\"\n");
    zones.iter().enumerate().map(zone).fold(server, |all, one| all + &one)
}

/// A port that is free for both transports.
fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn settings(port: u16) -> Settings {
    Settings {
        servers: vec![NameServer((Ipv4Addr::LOCALHOST, port).into())],
        timeout: Period::from_secs(2),
        ..Settings::default()
    }
}
