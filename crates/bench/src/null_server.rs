//! The server with a spool that forgets: listener, session, submission and the
//! spool's memory, without a disk and without delivery. A process of its own.

use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use postrider_account::{Accounts, NewCredential};
use postrider_base::{Clock, Metrics, Random, RealDisk, Scope, Traces};
use postrider_listener::{Deps, Listen, ListenTls, Listeners, Settings, TlsSettings};
use postrider_spool::{Driver, Spool, SpoolOptions};
use postrider_store::Store;
use postrider_submission::{Submission, SubmissionDeps};
use postrider_testkit::client::{Endpoint, Security};
use postrider_testkit::{Authority, authority};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::null_disk::NullDisk;
use crate::{ALLOCATOR, failed};

/// Serves until stdin closes; each line on it asks for the allocator's counts.
pub(crate) async fn serve() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let authority = Authority::new().map_err(io::Error::other)?;
    let certificate = authority.issue(&["localhost"]).map_err(io::Error::other)?;
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    std::fs::write(&chain, &certificate.chain_pem)?;
    std::fs::write(&key, &certificate.key_pem)?;
    let (clock, random, metrics) = (Clock::system(), Random::system(), Metrics::new());
    let (accounts, user, password) = accounts(directory.path(), &clock, &random).await?;
    let spool = spool(directory.path(), &clock, &metrics).await?;
    let deps =
        SubmissionDeps { spool, accounts, clock: clock.clone(), random: random.clone(), metrics: metrics.clone() };
    let rules = postrider_submission::Settings {
        hostname: Some("localhost".to_owned()),
        unverified_senders: postrider_submission::UnverifiedSenders::Accept,
        ..Default::default()
    };
    let deps = Deps {
        submission: Submission::new(deps, rules),
        feedback: None,
        clock,
        random,
        metrics,
        disk: Arc::new(RealDisk),
        keys: directory.path().to_owned(),
        traces: Traces::new(),
        key_log: None,
    };
    let tls = TlsSettings { certificate: Some(chain), key: Some(key), ..TlsSettings::default() };
    let listen = [Listen::on("127.0.0.1:0".parse().map_err(io::Error::other)?, ListenTls::TlsWrapper)];
    let scope = Scope::new("bench");
    let listeners = Listeners::start(&listen, &Settings::default(), &tls, deps, &scope).map_err(failed)?;
    let address = listeners.addresses().map(|(address, _)| address.to_string()).next();
    answer(&json!({ "address": address, "user": user, "password": password, "authority": authority.pem() }))?;
    tokio::task::spawn_blocking(|| {
        for line in io::stdin().lock().lines() {
            line?;
            let stats = ALLOCATOR.stats();
            answer(&json!({ "allocations": stats.allocations, "reallocations": stats.reallocations, "bytes": stats.bytes_allocated }))?;
        }
        io::Result::Ok(())
    })
    .await?
}

fn answer(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

async fn accounts(directory: &Path, clock: &Clock, random: &Random) -> io::Result<(Accounts, String, String)> {
    let options = postrider_store::Options { index_dir: Some(directory.join("tables")), ..Default::default() };
    let store = Store::open_with(Arc::new(NullDisk::default()), Path::new("/store"), options).map_err(failed)?;
    let accounts = Accounts::open(&store, clock, random, &postrider_account::Settings::default()).map_err(failed)?;
    let issued = accounts.credentials().create(NewCredential::default()).await.map_err(failed)?;
    let password = issued.smtp_password.expose_secret().to_owned();
    Ok((accounts, issued.credential.user_name, password))
}

async fn spool(directory: &Path, clock: &Clock, metrics: &Metrics) -> io::Result<Spool> {
    let options = SpoolOptions {
        disk: Arc::new(NullDisk::default()),
        dir: PathBuf::from("/spool"),
        index_dir: Some(directory.join("index")),
        clock: clock.clone(),
        settings: postrider_spool::Settings::default(),
        metrics: metrics.clone(),
        feeds: &[],
        start_held: false,
        accept_loss: false,
        driver: Driver::Thread,
    };
    Spool::open(options).await.map_err(failed)
}

/// The server as a child.
pub(crate) struct NullServer {
    child: Child,
    input: Option<ChildStdin>,
    output: io::BufReader<ChildStdout>,
    about: Value,
}

/// What the allocator has done since the start.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    pub(crate) times: u64,
    pub(crate) bytes: u64,
}

impl NullServer {
    pub(crate) fn start() -> io::Result<NullServer> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve-null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let mut server = NullServer { child, input, output: io::BufReader::new(output), about: Value::Null };
        server.about = server.read()?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn endpoint(&self, resume: bool) -> io::Result<Endpoint> {
        let address = self.text("address").parse().map_err(io::Error::other)?;
        let trust = authority::roots(self.text("authority")).map_err(io::Error::other)?;
        Endpoint::new(address, Security::Wrapper, "localhost", trust, resume).map_err(io::Error::other)
    }

    pub(crate) fn credentials(&self) -> (String, String) {
        (self.text("user").to_owned(), self.text("password").to_owned())
    }

    pub(crate) fn allocated(&mut self) -> io::Result<Allocated> {
        let input = self.input.as_mut().ok_or_else(|| io::Error::other("no input"))?;
        input.write_all(b"\n")?;
        let counts = self.read()?;
        let count = |name: &str| counts[name].as_u64().unwrap_or_default();
        Ok(Allocated { times: count("allocations") + count("reallocations"), bytes: count("bytes") })
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    fn text(&self, name: &str) -> &str {
        self.about[name].as_str().unwrap_or_default()
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
