//! A real `clamd`, with signatures of our own and nothing from anywhere.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The test file that every scanner knows, in two pieces: a scanner that looks at this file
/// must not find it.
pub(crate) fn eicar() -> String {
    ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!$H+H*"].concat()
}

/// The scanner and its files.
#[derive(Debug)]
pub(crate) struct Clamd {
    directory: TempDir,
    child: Option<Child>,
}

impl Clamd {
    /// Its files; it does not run yet.
    pub(crate) fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("clamd-").tempdir()?;
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("db"))?;
        let hex = |text: &str| {
            text.bytes().fold(String::new(), |mut hex, byte| {
                // Writing to a string does not fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        };
        // Name, any type of file, anywhere in it.
        fs::write(at("db/own.ndb"), format!("Own.Eicar:0:*:{}\nOwn.Worm:0:*:{}\n", hex(&eicar()), hex("I am a worm")))?;
        let path = directory.path().display();
        let configuration = format!(
            "Foreground yes\nLocalSocket {path}/clamd.ctl\nFixStaleSocket yes\nDatabaseDirectory {path}/db\n\
             TemporaryDirectory {path}\nStreamMaxLength 1M\nMaxThreads 4\nSelfCheck 0\n"
        );
        fs::write(at("clamd.conf"), configuration)?;
        Ok(Self { directory, child: None })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("clamd.ctl")
    }

    /// Starts it; it answers when this returns.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let log = fs::File::create(self.directory.path().join("log"))?;
        let child = Command::new("/usr/sbin/clamd")
            .arg("-c")
            .arg(self.directory.path().join("clamd.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        wait_for(&self.socket()).map_err(|error| {
            let said = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            io::Error::other(format!("clamd does not answer: {error}\n{said}"))
        })
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until somebody takes connections there.
pub(crate) fn wait_for(socket: &Path) -> io::Result<()> {
    let step = Duration::from_millis(20);
    let mut last = UnixStream::connect(socket).map(drop);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if last.is_ok() {
            return Ok(());
        }
        std::thread::sleep(step);
        last = UnixStream::connect(socket).map(drop);
    }
    last
}
