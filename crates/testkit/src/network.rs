//! A network of a test's own: a network namespace in which addresses that are
//! nobody's may be everybody's, and no packet ever leaves. It needs root.

use std::io::{self, BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use rustix::thread::LinkNameSpaceType;

use crate::postfix;

/// All of these addresses are at home in every [`Network`]: 198.18.0.0/15,
/// which RFC 2544 sets aside for tests of networks. Whoever listens at
/// 0.0.0.0 listens at every one of them, and sees at which it was dialled.
pub const HOME: &str = "198.18.0.0/15";

/// Set to anything, it turns the failure of tests that need a [`Network`] and
/// may not have one into a line on their output.
pub const OPTIONAL: &str = "POSTRIDER_WITHOUT_NAMESPACES";

/// A network namespace; it is gone with the value, however the test ends.
#[derive(Debug)]
pub struct Network {
    /// Holds the namespace until its input ends.
    anchor: Child,
}

impl Network {
    /// A new network with nothing in it but its loopback.
    ///
    /// # Errors
    /// What the machine does not allow, with what it said.
    pub fn new() -> io::Result<Self> {
        // One listener plays a thousand hosts: more may dial at once than one host's backlog holds.
        let script = format!(
            "set -e; ip link set lo up; ip route add local {HOME} dev lo; \
             echo 65535 > /proc/sys/net/core/somaxconn; echo up; exec cat > /dev/null"
        );
        let mut anchor = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(output) = anchor.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let network = Self { anchor };
        match said.trim() {
            "up" => Ok(network),
            _ => Err(io::Error::other("no network namespace can be made here: it needs root and the package iproute2")),
        }
    }

    /// As [`Network::new`], or `None` where none can be had and the
    /// environment says by [`OPTIONAL`] that this is fine.
    ///
    /// # Errors
    /// As [`Network::new`].
    #[expect(clippy::print_stdout, reason = "a test that is left out says so")]
    pub fn if_allowed() -> io::Result<Option<Self>> {
        match Self::new() {
            Ok(network) => Ok(Some(network)),
            Err(error) if std::env::var_os(OPTIONAL).is_some() => {
                println!("NOT TESTED, the machine forbids it: {error}");
                Ok(None)
            }
            Err(error) => Err(io::Error::other(format!("{error}; {OPTIONAL}=1 leaves such tests out"))),
        }
    }

    /// Moves the calling thread into the network, and with it all threads and
    /// programs that it starts from here on. Sockets stay where they were made.
    ///
    /// # Errors
    /// The system's.
    pub fn enter(&self) -> io::Result<()> {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.anchor.id()))?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    /// Does something in the network, on a thread of its own: a listener that
    /// is made there hears who is there, whichever thread uses it.
    ///
    /// # Errors
    /// As [`Network::enter`], and what `work` says.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter()?;
                work()
            });
            worker.join().unwrap_or_else(|_| Err(io::Error::other("the work in the network panicked")))
        })
    }

    /// Runs a shell script in the network.
    ///
    /// # Errors
    /// A script that fails; the message is what it printed.
    pub fn run(&self, script: &str) -> io::Result<()> {
        let namespace = format!("--net=/proc/{}/ns/net", self.anchor.id());
        postfix::run("nsenter", &[&namespace, "--", "sh", "-c", &format!("set -e; {script}")])
    }

    /// Lays a cable to another network: this end has the address `own`, the
    /// other `far`, each with its prefix length.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(&self, other: &Self, own: &str, far: &str) -> io::Result<()> {
        self.run(&format!("ip link add cable type veth peer name cable netns {}", other.anchor.id()))?;
        self.run(&format!("ip addr add {own} dev cable; ip link set cable up"))?;
        other.run(&format!("ip addr add {far} dev cable; ip link set cable up"))
    }

    /// Pulls the cable out of this end. What is on its way is lost, and nobody
    /// is told.
    ///
    /// # Errors
    /// The system's.
    pub fn pull(&self) -> io::Result<()> {
        self.run("ip link set cable down")
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// The system's.
    pub fn plug(&self) -> io::Result<()> {
        self.run("ip link set cable up")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.anchor.stdin.take());
        let _ = self.anchor.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn addresses_are_at_home_and_others_do_not_see_them() {
        let network = Network::new().unwrap();
        let listener = network.within(|| TcpListener::bind("0.0.0.0:25")).unwrap();
        let dialled = network.within(|| TcpStream::connect("198.19.7.9:25")).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!(accepted.local_addr().unwrap().to_string(), "198.19.7.9:25");
        assert_eq!(dialled.local_addr().unwrap(), from);
        let other = Network::new().unwrap();
        assert!(other.within(|| TcpStream::connect("198.19.7.9:25")).is_err());
    }

    #[test]
    fn two_networks_have_a_cable_between_them() {
        let (near, far) = (Network::new().unwrap(), Network::new().unwrap());
        near.connect(&far, "192.0.2.1/24", "192.0.2.2/24").unwrap();
        let listener = far.within(|| TcpListener::bind("192.0.2.2:25")).unwrap();
        near.within(|| TcpStream::connect("192.0.2.2:25")).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip().to_string(), "192.0.2.1");
    }
}
