//! A receiver that judges what comes in: Postfix, which asks OpenDKIM and
//! OpenDMARC, which ask the test's name server.

use std::error::Error;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postrider_testkit::postfix::Postfix;
use tempfile::TempDir;

/// Where the programs take Postfix's questions, in the test's own network.
const DKIM: &str = "127.0.0.1:8891";
const DMARC: &str = "127.0.0.1:8893";
/// Who the receiver says that it is.
pub(crate) const NAME: &str = "receiver.example";

pub(crate) struct Receiver {
    postfix: Postfix,
    _programs: [Milter; 2],
    directory: TempDir,
}

impl Receiver {
    /// Takes mail at port 25 of `address` and passes it on to `sink`.
    pub(crate) fn start(address: Ipv4Addr, sink: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::Builder::new().prefix("receiver-").tempdir()?;
        let own = directory.path();
        fs::write(own.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        // What is below `example` is somebody's own.
        fs::write(own.join("suffixes"), "example\n")?;
        fs::write(own.join("none"), "")?;
        fs::write(own.join("history"), "")?;
        let programs = [
            Milter::start(own, "opendkim", DKIM, &opendkim())?,
            Milter::start(own, "opendmarc", DMARC, &opendmarc(own))?,
        ];
        let relayhost = format!("[127.0.0.1]:{}", sink.port());
        let milters = format!("inet:{DKIM}, inet:{DMARC}");
        let parameters = [
            ("myhostname", NAME),
            ("relayhost", relayhost.as_str()),
            ("smtp_dns_support_level", "disabled"),
            ("inet_interfaces", "all"),
            ("smtpd_peername_lookup", "no"),
            ("relay_domains", NAME),
            // It leaves mail as it was signed, whoever sends it.
            ("local_header_rewrite_clients", ""),
            ("smtpd_milters", milters.as_str()),
            ("milter_default_action", "tempfail"),
        ];
        let postfix = Postfix::start(&parameters, |configuration| {
            let file = configuration.join("master.cf");
            let services = fs::read_to_string(&file)?;
            fs::write(file, format!("{services}{address}:25 inet n - n - - smtpd\n"))
        })?;
        Ok(Self { postfix, _programs: programs, directory })
    }

    /// What OpenDMARC keeps of each message for the reports to its domain.
    pub(crate) fn history(&self) -> io::Result<String> {
        fs::read_to_string(self.directory.path().join("history"))
    }

    /// What the programs have to say.
    pub(crate) fn log(&self) -> String {
        let said = |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        self.postfix.log().unwrap_or_default() + &said("opendkim.log") + &said("opendmarc.log")
    }
}

fn opendkim() -> String {
    // Nobody's mail is signed here: the relay is a stranger, as all others.
    format!(
        "Mode v\nSocket inet:{}\nAuthservID {NAME}\nAlwaysAddARHeader yes\nNameservers 127.0.0.1\nBackground no\n\
         Syslog no\nInternalHosts 192.0.2.1\n",
        reversed(DKIM)
    )
}

fn opendmarc(own: &Path) -> String {
    let own = own.display();
    // It writes down what it would do and does not do it.
    format!(
        "Socket inet:{}\nAuthservID {NAME}\nTrustedAuthservIDs {NAME}\nBackground false\nSPFSelfValidate true\n\
         SPFIgnoreResults true\nPublicSuffixList {own}/suffixes\nIgnoreHosts {own}/none\nHistoryFile {own}/history\n\
         RejectFailures false\n",
        reversed(DMARC)
    )
}

/// `port@host`.
fn reversed(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    format!("{port}@{host}")
}

/// A program that Postfix asks; it ends with the value.
struct Milter(Child);

impl Milter {
    /// Starts it in a mount namespace of its own, where the system's resolver asks the test's
    /// name server; it answers when this returns.
    fn start(own: &Path, program: &str, address: &str, configuration: &str) -> io::Result<Self> {
        let file = own.join(format!("{program}.conf"));
        fs::write(&file, configuration)?;
        let output = fs::File::create(own.join(format!("{program}.log")))?;
        let option = if program == "opendkim" { "-x" } else { "-c" };
        let script = format!(
            "set -e; mount --make-rprivate /; mount --bind {}/resolv.conf /etc/resolv.conf; exec {program} -f {option} {}",
            own.display(),
            file.display()
        );
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut milter = Self(child);
        for _ in 0..400 {
            if TcpStream::connect(address).is_ok() {
                return Ok(milter);
            }
            if milter.0.try_wait()?.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        let said = fs::read_to_string(own.join(format!("{program}.log")))?;
        Err(io::Error::other(format!("{program} does not listen: {said}")))
    }
}

impl Drop for Milter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
