//! Mail programs whose Debian packages can not be installed beside each other:
//! unpacked below `target/peers`, and run as if they were installed, in a mount
//! namespace of their own. It needs root.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// Users that the packages' programs look for.
const USERS: [&str; 5] = ["Debian-exim", "smmta", "smmsp", "opensmtpd", "opensmtpq"];
/// Their numbers begin here: above the system's, below people's.
const FIRST_ID: u32 = 980;

/// A name for the relay that is not `localhost`, which some programs take for themselves.
pub const HOST: &str = "relay.test";

/// A directory for one program's configuration, queue and log, and the
/// packages that it sees as installed.
#[derive(Debug)]
pub struct Peer {
    directory: TempDir,
    roots: Vec<PathBuf>,
}

impl Peer {
    /// For these packages, as `cargo xtask test` unpacks them.
    ///
    /// # Errors
    /// A package that is not there; a directory that can not be made.
    pub fn new(workspace: &Path, packages: &[&str]) -> io::Result<Self> {
        let roots: Vec<PathBuf> = packages.iter().map(|name| workspace.join("target/peers").join(name)).collect();
        for root in &roots {
            if !root.join("usr").is_dir() {
                let text = format!("{} is not there: `cargo xtask test` unpacks it", root.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
        }
        let directory = tempfile::Builder::new().prefix("peer-").tempdir()?;
        // The programs give root up, and read their files all the same.
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let (mut passwd, mut group) = (fs::read_to_string("/etc/passwd")?, fs::read_to_string("/etc/group")?);
        for (id, user) in (FIRST_ID..).zip(USERS) {
            passwd.push_str(&format!("{user}:x:{id}:{id}::/nonexistent:/usr/sbin/nologin\n"));
            group.push_str(&format!("{user}:x:{id}:\n"));
        }
        fs::write(directory.path().join("passwd"), passwd)?;
        // Nobody is asked for a name: there may be no network to ask.
        fs::write(directory.path().join("hosts"), format!("127.0.0.1 localhost peer.test peer\n127.0.0.1 {HOST}\n"))?;
        fs::write(directory.path().join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n")?;
        fs::write(directory.path().join("group"), group)?;
        Ok(Self { directory, roots })
    }

    /// A path in the program's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into it.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Runs a shell script to its end, with `input`.
    ///
    /// # Errors
    /// A script that fails; the message is what it printed.
    pub fn run(&self, script: &str, input: &[u8]) -> io::Result<Output> {
        let mut child =
            self.command(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input says why itself.
            let _ = stdin.write_all(input);
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(output);
        }
        let printed = [output.stdout, output.stderr].concat();
        Err(io::Error::other(format!("{script}: {}", String::from_utf8_lossy(&printed))))
    }

    /// Starts a shell script that goes on.
    ///
    /// # Errors
    /// The system's.
    pub fn spawn(&self, script: &str) -> io::Result<Running> {
        let log = fs::File::create(self.path("output"))?;
        let child = self.command(script).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Running(child))
    }

    /// `unshare` makes the namespace; what is mounted there is nobody else's.
    fn command(&self, script: &str) -> Command {
        let own = self.directory.path().display();
        let layers: Vec<String> = self.roots.iter().map(|root| root.join("usr").display().to_string()).collect();
        let script = format!(
            "set -e; mount --make-rprivate /\n\
             for file in passwd group hosts nsswitch.conf; do mount --bind {own}/$file /etc/$file; done\n\
             hostname peer.test\n\
             mount -t overlay overlay -o lowerdir={}:/usr /usr\n{script}",
            layers.join(":")
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "bash", "-c", &script]);
        command
    }
}

/// A program that runs; it and its children end with the value.
#[derive(Debug)]
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
