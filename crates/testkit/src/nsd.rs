//! A real name server, NSD, with zones that a test or benchmark writes.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// How long it may take to read its zones, in steps of 10 ms.
const STEPS: u32 = 2_000;

/// A zone: its name, and its lines in the form of RFC 1035 section 5, after
/// SOA and NS, which are written for it.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    name: String,
    lines: String,
    /// SOA and NS are among the lines.
    complete: bool,
}

impl Zone {
    /// An empty zone.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// A zone whose lines are all there.
    pub(crate) fn complete(name: &str, lines: String) -> Self {
        Self { name: name.to_owned(), lines, complete: true }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All lines, for the name server at `server`.
    pub(crate) fn text(&self, server: Ipv4Addr, ttl: Duration) -> String {
        let Self { name, lines, complete } = self;
        if *complete {
            return lines.clone();
        }
        let seconds = ttl.as_secs();
        // The root has no name server of its own here.
        let ns = if name.is_empty() { "ns.test.".to_owned() } else { format!("ns\nns IN A {server}") };
        format!(
            "$ORIGIN {name}.\n$TTL {seconds}\n@ IN SOA {name}. nobody.invalid. 1 3600 600 86400 {seconds}\n@ IN NS {ns}\n{lines}"
        )
    }

    /// Adds a line such as `mx 60 IN A 192.0.2.1`.
    pub fn line(&mut self, line: &str) -> &mut Self {
        self.lines.push_str(line);
        self.lines.push('\n');
        self
    }

    /// Adds a domain below the zone with one MX host, which has this address.
    pub fn domain(&mut self, label: &str, address: Ipv4Addr) -> &mut Self {
        self.line(&format!("{label} IN MX 10 mx.{label}\nmx.{label} IN A {address}"))
    }

    /// Adds a host with an address.
    pub fn host(&mut self, label: &str, address: Ipv4Addr) -> &mut Self {
        self.line(&format!("{label} IN A {address}"))
    }

    /// Adds a domain whose mail goes to these hosts of the zone.
    pub fn mx(&mut self, label: &str, hosts: &[&str]) -> &mut Self {
        for host in hosts {
            self.line(&format!("{label} IN MX 10 {host}"));
        }
        self
    }
}

/// A running name server; it ends with the value.
#[derive(Debug)]
pub struct Nsd {
    child: Child,
    directory: TempDir,
    address: SocketAddr,
}

impl Nsd {
    /// Serves these zones at `address`, by UDP and TCP, to this thread's
    /// network; it answers when this returns. Times to live are `ttl` unless a
    /// line has its own.
    ///
    /// # Errors
    /// A missing program or a zone that it does not take; with its words.
    pub fn start(address: SocketAddr, zones: &[Zone], ttl: Duration) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("nsd-").tempdir()?;
        let own = directory.path().display();
        let IpAddr::V4(ip) = address.ip() else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
        let mut config = format!(
            "server:\n ip-address: {ip}\n port: {}\n username: \"\"\n zonesdir: \"{own}\"\n database: \"\"\n pidfile: \"\"\n \
             xfrdfile: \"{own}/xfrd.state\"\n zonelistfile: \"{own}/zone.list\"\n xfrdir: \"{own}\"\n logfile: \"{own}/log\"\n \
             server-count: 1\n verbosity: 1\n rrl-ratelimit: 0\nremote-control:\n control-enable: no\n",
            address.port()
        );
        for zone in zones {
            let path = directory.path().join(format!("zone.{}", zone.name));
            fs::write(&path, zone.text(ip, ttl))?;
            config.push_str(&format!("zone:\n name: {}.\n zonefile: \"{}\"\n", zone.name, path.display()));
        }
        fs::write(directory.path().join("conf"), config)?;
        let child = run(&directory)?;
        let mut nsd = Self { child, directory, address };
        nsd.wait_until_it_answers()?;
        Ok(nsd)
    }

    /// Kills it: who asks hears that nobody is there.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(&mut self) -> io::Result<()> {
        let family = self.signal("KILL")?;
        self.child.wait()?;
        // A question to a child that is still on its way out would hear nothing.
        for _ in 0..STEPS {
            if family.iter().all(|pid| has_ended(*pid)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("nsd does not end"))
    }

    /// Stops it where it is: who asks hears nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal("STOP").map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The system's.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal("CONT").map(drop)
    }

    /// Starts it again after [`Nsd::kill`].
    ///
    /// # Errors
    /// As [`Nsd::start`].
    pub fn start_again(&mut self) -> io::Result<()> {
        self.child = run(&self.directory)?;
        self.wait_until_it_answers()
    }

    /// What it does is done by its children too: all of them get the signal. Who
    /// got it.
    fn signal(&self, name: &str) -> io::Result<Vec<u32>> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            family.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            next += 1;
        }
        for pid in &family {
            crate::postfix::run("kill", &["-s", name, &pid.to_string()])?;
        }
        Ok(family)
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        for _ in 0..STEPS {
            if answers(self.address).unwrap_or_default() {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        Err(io::Error::other(format!("nsd does not answer: {log}")))
    }
}

/// Whether a question is answered. That a connection is taken says nothing: it is
/// before zones are read, and by a server that is about to give up.
fn answers(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    // RFC 1035 section 4.2.2: the length, then the question for the NS of the root.
    stream.write_all(&[0, 17, 7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1])?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    Ok(head[2..] == [7, 7])
}

/// Whether a process is gone, or has let go of all that it had.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

fn run(directory: &TempDir) -> io::Result<Child> {
    Command::new("/usr/sbin/nsd")
        .args(["-d", "-c"])
        .arg(directory.path().join("conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("/usr/sbin/nsd: {error}; `cargo xtask test` installs it"))
        })
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // One that is frozen does not hear of the end of its parent.
        let _ = self.thaw();
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::Network;

    /// The question for the MX of `one.test`, and whether two answers came.
    fn ask(socket: &UdpSocket) -> io::Result<bool> {
        let header = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let question = [&header[..], b"\x03one\x04test\x00\x00\x0f\x00\x01"].concat();
        socket.send(&question)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok(length > question.len() && answer[..2] == [7, 7] && answer[7] == 1)
    }

    #[test]
    fn a_zone_is_served_until_the_server_is_gone_and_again() {
        let network = Network::new().unwrap();
        let answers = network.within(|| {
            let mut zone = Zone::new("test");
            zone.domain("one", Ipv4Addr::new(198, 18, 0, 1));
            let address = "127.0.0.1:53".parse().unwrap();
            let mut nsd = Nsd::start(address, &[zone], Duration::from_secs(5))?;
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            let mut answers = vec![ask(&socket)];
            nsd.kill()?;
            answers.push(ask(&socket));
            nsd.start_again()?;
            answers.push(ask(&socket));
            nsd.freeze()?;
            answers.push(ask(&socket));
            Ok(answers)
        });
        let answers: Vec<_> = answers.unwrap().into_iter().map(|answer| answer.map_err(|error| error.kind())).collect();
        assert_eq!(
            answers,
            [Ok(true), Err(io::ErrorKind::ConnectionRefused), Ok(true), Err(io::ErrorKind::WouldBlock)]
        );
    }
}
