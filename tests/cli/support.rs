//! A state directory, a configuration and the program.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use postrider_testkit::ports::free_address;
use tempfile::TempDir;

/// How long anything may take before the test calls it hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, without a node.
pub(crate) fn postrider(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(arguments).stdin(Stdio::null()).env_remove("POSTRIDER_CONFIG").env_remove("NOTIFY_SOCKET");
    command
}

/// Runs a command with `input` on its standard input.
pub(crate) fn feed(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What the program said when it refused: one line, as operators' scripts expect.
pub(crate) fn refusal(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!output.status.success(), "it did not refuse: {}", stdout(output));
    assert_eq!(text.trim_end().lines().count(), 1, "more than one line: {text}");
    assert!(text.starts_with("postrider: "), "{text}");
    text.trim_end().to_owned()
}

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    free_address().unwrap().port()
}

/// A node of a test's own.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) starttls: u16,
    pub(crate) http: u16,
}

impl Node {
    pub(crate) fn new() -> Node {
        let node = Node { dir: tempfile::tempdir().unwrap(), starttls: free_port(), http: free_port() };
        node.configure("");
        node
    }

    /// Writes the configuration anew, with more at its end.
    pub(crate) fn configure(&self, more: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            "[server]\nhostname = \"relay.example.com\"\nstate_dir = \"{dir}/state\"\n\
             [[listener]]\naddress = \"127.0.0.1:{}\"\n\
             [control]\nsocket = \"{dir}/control.sock\"\n\
             [api]\nlisten = \"127.0.0.1:{}\"\n\
             [dns]\nservers = [\"127.0.0.1:9\"]\n\
             {}\n",
            self.starttls,
            self.http,
            postrider_testkit::accepting_everybody(more),
        );
        fs::write(self.path("postrider.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command with this node's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = postrider(arguments);
        command.arg("--config").arg(self.path("postrider.toml"));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command printed; it must succeed.
    pub(crate) fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "postrider {}: {errors}", arguments.join(" "));
        stdout(&output)
    }

    /// The daemon, once it says that it is ready.
    pub(crate) fn serve(&self) -> Daemon {
        let mut daemon = self.spawn(&[]);
        daemon.wait_for("READY=1");
        daemon
    }

    /// The daemon, with more in its environment; it may refuse to start.
    pub(crate) fn spawn(&self, environment: &[(&str, &str)]) -> Daemon {
        let path = self.path("notify");
        let _ = fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = self
            .command(&["serve"])
            .env("NOTIFY_SOCKET", &path)
            .envs(environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon { child, notify, told: Vec::new(), log: self.path("log") }
    }
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    notify: UnixDatagram,
    /// Lines that the service manager was told.
    pub(crate) told: Vec<String>,
    log: PathBuf,
}

impl Daemon {
    /// Waits until the service manager is told this line.
    pub(crate) fn wait_for(&mut self, line: &str) {
        self.wait_until(line, |daemon| daemon.told.iter().any(|told| told == line));
    }

    /// Waits until the service manager has been told this line so often.
    pub(crate) fn wait_for_nth(&mut self, line: &str, times: usize) {
        self.wait_until(line, |daemon| daemon.told.iter().filter(|told| *told == line).count() >= times);
    }

    /// Waits until the daemon has logged this.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        self.wait_until(text, |daemon| daemon.log().contains(text));
    }

    /// Reads what the service manager is told until `done`.
    fn wait_until(&mut self, what: &str, done: impl Fn(&Daemon) -> bool) {
        let mut patience = PATIENCE.as_millis() / 100;
        while !done(self) {
            let mut buffer = [0; 4096];
            match self.notify.recv(&mut buffer) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    self.told.extend(text.lines().map(str::to_owned));
                }
                Err(_) => patience -= 1,
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && patience > 0, "no {what}, ended: {ended:?}, log:\n{}", self.log());
        }
    }

    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        fs::File::open(&self.log).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What happens behind a reply is soon there to see.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..400 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}
