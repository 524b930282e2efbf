//! The daemon as a child process: started, asked, killed, started again.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::authority::{Authority, Issued, roots};
use crate::client::{Client, Endpoint, Security};
use crate::ports::free_address;

/// How long a start or a stop may take before the test calls it hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a relay for a test looks like.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The `postrider` program.
    pub binary: PathBuf,
    /// Domain (or `*`) and where its mail goes, as in the configuration.
    pub routes: Vec<(String, String)>,
    /// Further lines for the end of the configuration. Clients may send as anybody, unless
    /// they name `unverified_senders`.
    pub configuration: String,
    /// Where the state is kept, if not in a folder of the relay's own.
    pub state: Option<PathBuf>,
    /// Words that stand before the program when it is run, such as `nsenter`'s.
    /// What they name must end in the program itself, not in a child.
    pub prefix: Vec<String>,
}

impl RelayOptions {
    /// A relay that sends all mail to one address, with `configuration` beside
    /// the defaults.
    #[must_use]
    pub fn to(binary: impl Into<PathBuf>, remote: SocketAddr, configuration: &str) -> Self {
        Self {
            binary: binary.into(),
            routes: vec![("*".to_owned(), format!("smtp://{remote}"))],
            configuration: configuration.to_owned(),
            state: None,
            prefix: Vec::new(),
        }
    }
}

/// A relay with state, configuration and ports of its own.
#[derive(Debug)]
pub struct Relay {
    directory: TempDir,
    options: RelayOptions,
    child: Option<Child>,
    authority: Authority,
    starttls: SocketAddr,
    wrapper: SocketAddr,
    http: SocketAddr,
    user: String,
    password: String,
}

impl Relay {
    /// Makes state and configuration, one credential, and starts the daemon;
    /// it accepts mail when this returns.
    ///
    /// # Errors
    /// A daemon that ends or is not ready in time; the message holds its log.
    pub fn start(options: RelayOptions) -> io::Result<Self> {
        let authority = Authority::new().map_err(io::Error::other)?;
        let certificate = authority.issue(&["localhost", "127.0.0.1"]).map_err(io::Error::other)?;
        let mut relay = Self {
            directory: tempfile::Builder::new().prefix("postrider-").tempdir()?,
            options,
            child: None,
            authority,
            starttls: free_address()?,
            wrapper: free_address()?,
            http: free_address()?,
            user: String::new(),
            password: String::new(),
        };
        relay.write_files(&certificate)?;
        let created = relay.cli(&["credentials", "create", "--json"])?;
        let created: serde_json::Value = serde_json::from_slice(&created.stdout).map_err(io::Error::other)?;
        relay.user = field(&created, "user_name")?;
        relay.password = field(&created, "smtp_password")?;
        relay.launch()?;
        Ok(relay)
    }

    /// Where STARTTLS is spoken.
    ///
    /// # Errors
    /// Never, unless the authority's certificate is broken.
    pub fn endpoint(&self, security: Security, resume: bool) -> io::Result<Endpoint> {
        let address = if security == Security::Wrapper { self.wrapper } else { self.starttls };
        let trust = roots(&self.authority.pem()).map_err(io::Error::other)?;
        Endpoint::new(address, security, "localhost", trust, resume).map_err(io::Error::other)
    }

    /// The address of the STARTTLS listener.
    #[must_use]
    pub fn starttls(&self) -> SocketAddr {
        self.starttls
    }

    /// The address of the TLS wrapper listener.
    #[must_use]
    pub fn wrapper(&self) -> SocketAddr {
        self.wrapper
    }

    /// The address of metrics and health.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// User name and SMTP password of the one credential.
    #[must_use]
    pub fn credentials(&self) -> (&str, &str) {
        (&self.user, &self.password)
    }

    /// A session over STARTTLS that has authenticated with them.
    ///
    /// # Errors
    /// The network's, or a relay that does not take it.
    pub async fn connect(&self) -> io::Result<Client> {
        let mut client = self.endpoint(Security::StartTls, true)?.connect().await?;
        client.login(&self.user, &self.password).await?;
        Ok(client)
    }

    /// The certificate that clients must trust, PEM.
    #[must_use]
    pub fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    /// A path inside the relay's directory: `relay.toml`, `log`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.options.state.clone().unwrap_or_else(|| self.path("state"))
    }

    /// The daemon's process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What the daemon logged so far.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn log(&self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.path("log"))?).into_owned())
    }

    /// Runs a command of the program with this relay's configuration.
    ///
    /// # Errors
    /// A command that fails; the message is what it printed.
    pub fn cli(&self, arguments: &[&str]) -> io::Result<Output> {
        let output = self
            .program()
            .args(arguments)
            .arg("--config")
            .arg(self.path("relay.toml"))
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(output);
        }
        let printed = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("postrider {}: {printed}", arguments.join(" "))))
    }

    /// Kills the daemon as `kill -9` does and reaps it.
    ///
    /// # Errors
    /// A daemon that is not running.
    pub fn kill(&mut self) -> io::Result<()> {
        let mut child = self.child.take().ok_or_else(|| io::Error::other("the daemon is not running"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks the daemon to stop and waits for its exit status.
    ///
    /// # Errors
    /// A daemon that is not running.
    pub fn stop(&mut self) -> io::Result<std::process::ExitStatus> {
        self.ask_to_stop()?;
        let mut child = self.child.take().ok_or_else(|| io::Error::other("the daemon is not running"))?;
        child.wait()
    }

    /// Asks the daemon to stop and does not wait.
    ///
    /// # Errors
    /// A daemon that is not running.
    pub fn ask_to_stop(&self) -> io::Result<()> {
        let pid = self.pid().ok_or_else(|| io::Error::other("the daemon is not running"))?;
        Command::new("kill").arg(pid.to_string()).status().map(drop)
    }

    /// Waits until the daemon ends by itself.
    ///
    /// # Errors
    /// A daemon that is not running, or that does not end.
    pub fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        let child = self.child.as_mut().ok_or_else(|| io::Error::other("the daemon is not running"))?;
        let step = Duration::from_millis(20);
        for _ in 0..PATIENCE.as_millis() / step.as_millis() {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            std::thread::sleep(step);
        }
        Err(io::Error::other(format!("the daemon still runs after {PATIENCE:?}:\n{}", self.log()?)))
    }

    /// Starts the daemon on the state that is there; it is ready on return.
    ///
    /// # Errors
    /// As [`Relay::start`].
    pub fn launch(&mut self) -> io::Result<()> {
        let socket = self.spawn()?;
        self.wait_until_ready(&socket)
    }

    /// Starts the daemon on the state that is there and does not wait; the
    /// socket hears what it tells its supervisor.
    ///
    /// # Errors
    /// The system's.
    pub fn spawn(&mut self) -> io::Result<UnixDatagram> {
        let notify = self.path("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log"))?;
        let child = self
            .program()
            .args(["serve", "--config"])
            .arg(self.path("relay.toml"))
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(socket)
    }

    fn program(&self) -> Command {
        let mut words = self.options.prefix.iter();
        let Some(first) = words.next() else { return Command::new(&self.options.binary) };
        let mut command = Command::new(first);
        command.args(words).arg(&self.options.binary);
        command
    }

    /// The daemon says READY=1 to the notification socket, as to systemd.
    fn wait_until_ready(&mut self, socket: &UnixDatagram) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let tries = PATIENCE.as_millis() / 100;
        let mut silent = 0;
        while silent < tries {
            match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(_) => silent += 1,
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                self.child = None;
                return Err(io::Error::other(format!("the daemon ended with {status}:\n{}", self.log()?)));
            }
        }
        Err(io::Error::other(format!("the daemon is not ready after {PATIENCE:?}:\n{}", self.log()?)))
    }

    fn write_files(&self, certificate: &Issued) -> io::Result<()> {
        fs::create_dir_all(self.state())?;
        fs::write(self.path("certificate.pem"), &certificate.chain_pem)?;
        fs::write(self.path("key.pem"), &certificate.key_pem)?;
        fs::write(self.path("relay.toml"), self.configuration())
    }

    fn configuration(&self) -> String {
        let directory = self.directory.path().display();
        let state = self.state();
        let mut text = format!(
            "[server]\nhostname = \"localhost\"\nstate_dir = \"{}\"\n\n\
             [tls]\ncertificate = \"{directory}/certificate.pem\"\nkey = \"{directory}/key.pem\"\n\n\
             [control]\nsocket = \"{directory}/control.sock\"\n\n\
             [api]\nlisten = \"{}\"\n\n\
             [[listener]]\naddress = \"{}\"\ntls = \"starttls\"\n\n\
             [[listener]]\naddress = \"{}\"\ntls = \"tls-wrapper\"\n\n\
             [delivery.routes]\n",
            state.display(),
            self.http,
            self.starttls,
            self.wrapper
        );
        for (domain, route) in &self.options.routes {
            text.push_str(&format!("\"{domain}\" = \"{route}\"\n"));
        }
        text + "\n" + &accepting_everybody(&self.options.configuration)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A test that failed leaves the daemon behind otherwise.
        let _ = self.kill();
    }
}

/// A configuration under which clients may send as anybody, unless it says who may: most tests
/// are about something else.
#[must_use]
pub fn accepting_everybody(configuration: &str) -> String {
    const SECTION: &str = "[submission]\n";
    const KEY: &str = "unverified_senders";
    if configuration.contains(KEY) {
        return configuration.to_owned();
    }
    let accepting = format!("{SECTION}{KEY} = \"accept\"\n");
    match configuration.contains(SECTION) {
        true => configuration.replacen(SECTION, &accepting, 1),
        false => format!("{configuration}\n{accepting}"),
    }
}

/// A port that was free a moment ago.
fn field(value: &serde_json::Value, name: &str) -> io::Result<String> {
    let text = value[name].as_str().ok_or_else(|| io::Error::other(format!("no {name} in {value}")))?;
    Ok(text.to_owned())
}

/// The program that cargo built beside this one, for benchmarks; tests use
/// `env!("CARGO_BIN_EXE_postrider")`.
///
/// # Errors
/// No such program: it must be built first.
pub fn built_beside(current: &Path) -> io::Result<PathBuf> {
    let binary = current.with_file_name("postrider");
    if binary.exists() {
        return Ok(binary);
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is not built", binary.display())))
}
