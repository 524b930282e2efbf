//! A real Postfix of our own, beside whatever the machine runs: own
//! configuration, queue and port, gone with the value. It needs root, as
//! Postfix's master does.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A running Postfix.
#[derive(Debug)]
pub struct Postfix {
    directory: TempDir,
    port: u16,
}

impl Postfix {
    /// Starts an instance that takes mail from loopback on a free port.
    /// `parameters` are further lines of `main.cf`; `prepare` may put files
    /// into the configuration's directory first.
    ///
    /// # Errors
    /// No Postfix installed, no root, or a configuration that it refuses: the
    /// message holds what Postfix printed.
    pub fn start(parameters: &[(&str, &str)], prepare: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("postfix-").tempdir()?;
        // The tempdir is private to root, but Postfix's daemons run as its own user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let configuration = directory.path().join("conf");
        for name in ["conf", "queue", "data"] {
            fs::create_dir(directory.path().join(name))?;
        }
        fs::write(configuration.join("master.cf"), master(port))?;
        prepare(&configuration)?;
        let instance = Self { directory, port };
        fs::write(configuration.join("main.cf"), instance.main(parameters))?;
        run("chown", &["postfix:postfix", &instance.path("data")])?;
        instance.postfix("start")?;
        Ok(instance)
    }

    /// The port on 127.0.0.1 where it takes mail.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged so far.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.path("log"))
    }

    /// The process id of its master.
    ///
    /// # Errors
    /// A pid file that is not there or not a number.
    pub fn pid(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.path("queue/pid/master.pid"))?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Runs a tool of Postfix on this instance: `postsuper`, `postqueue`.
    ///
    /// # Errors
    /// As [`run`].
    pub fn tool(&self, name: &str, arguments: &[&str]) -> io::Result<()> {
        let configuration = self.path("conf");
        run(&format!("/usr/sbin/{name}"), &[&["-c", &configuration], arguments].concat())
    }

    fn main(&self, parameters: &[(&str, &str)]) -> String {
        let path = |name: &str| self.path(name);
        let defaults = [
            ("compatibility_level", "3.6"),
            ("config_directory", &path("conf")),
            ("queue_directory", &path("queue")),
            ("data_directory", &path("data")),
            ("maillog_file", &path("log")),
            ("maillog_file_prefixes", &self.directory.path().display().to_string()),
            ("myhostname", "postfix.test"),
            ("mydestination", ""),
            ("local_transport", "error:no local mail"),
            ("inet_interfaces", "127.0.0.1"),
            ("inet_protocols", "ipv4"),
            ("mynetworks", "127.0.0.0/8"),
            ("alias_maps", ""),
            ("alias_database", ""),
            ("biff", "no"),
        ];
        let given = |name: &str| parameters.iter().any(|(parameter, _)| *parameter == name);
        let all = defaults.iter().filter(|(name, _)| !given(name)).chain(parameters);
        all.map(|(name, value)| format!("{name} = {value}\n")).collect()
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn postfix(&self, verb: &str) -> io::Result<()> {
        run("/usr/sbin/postfix", &["-c", &self.path("conf"), verb])
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Nothing is left to tell in a destructor; a Postfix that is gone already is fine.
        let _ = self.postfix("stop");
    }
}

/// A free-standing `master.cf`: no chroot, smtpd on one port.
fn master(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd\n\
         pickup unix n - n 60 1 pickup\n\
         cleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\n\
         rewrite unix - - n - - trivial-rewrite\n\
         bounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\n\
         verify unix - - n - 1 verify\n\
         flush unix n - n 1000? 0 flush\n\
         proxymap unix - - n - - proxymap\n\
         smtp unix - - n - - smtp\n\
         relay unix - - n - - smtp\n\
         showq unix n - n - - showq\n\
         error unix - - n - - error\n\
         retry unix - - n - - error\n\
         discard unix - - n - - discard\n\
         anvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}

/// Runs a program to its end; what it printed is the error when it fails.
///
/// # Errors
/// A program that is missing or fails.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {printed}", arguments.join(" "))))
}

/// The parameters that make a Postfix use `server:port` as its smarthost with
/// STARTTLS and AUTH, as SES's guide has them; the password file and the
/// authority's certificate stand in `configuration`.
///
/// # Errors
/// Files that cannot be written, or a `postmap` that fails.
pub fn smarthost_files(
    configuration: &Path,
    relayhost: &str,
    user: &str,
    password: &str,
    authority_pem: &str,
) -> io::Result<PathBuf> {
    let passwords = configuration.join("sasl_passwd");
    fs::write(&passwords, format!("{relayhost} {user}:{password}\n"))?;
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600))?;
    run("/usr/sbin/postmap", &[&format!("hash:{}", passwords.display())])?;
    fs::write(configuration.join("ca.pem"), authority_pem)?;
    Ok(passwords)
}
