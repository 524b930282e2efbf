//! A relay's front on loopback sockets, and a client that says what it is told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{Accounts, ImportedSecret, NewCredential, RecipientOverflow};
use postrider_base::{BoxStream, Clock, Metrics, Random, RealDisk, Scope, SimDisk, Timestamp, Traces};
use postrider_listener::{Deps, Error, Listen, ListenTls, Listeners, Settings, TlsSettings};
use postrider_spool::{Driver, Spool, SpoolOptions};
use postrider_store::Store;
use postrider_submission::{Submission, SubmissionDeps};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) const LOGIN: &str =
    "AUTH PLAIN AEFLSUFJT1NGT0ROTjdFWEFNUExFAEJMQk0vOWhTVUVMZnE4R3crclUxWWNCamtPeEdiaFQyWEc3NjN4VkxHV0w5\r\n";
pub(crate) const LOGIN_USER: &str = "QUtJQUlPU0ZPRE5ON0VYQU1QTEU=";
pub(crate) const LOGIN_PASSWORD: &str = "QkxCTS85aFNVRUxmcThHdytyVTFZY0Jqa094R2JoVDJYRzc2M3hWTEdXTDk=";
pub(crate) const USER: &str = "AKIAIOSFODNN7EXAMPLE";
const PASSWORD: &str = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9";

/// Everything behind the sockets.
pub(crate) struct World {
    pub(crate) deps: Deps,
    pub(crate) accounts: Accounts,
    pub(crate) spool: Spool,
    pub(crate) metrics: Metrics,
    pub(crate) scope: Scope,
    pub(crate) directory: TempDir,
}

/// A world whose listeners run.
pub(crate) struct Relay {
    pub(crate) world: World,
    pub(crate) listeners: Listeners,
    pub(crate) starttls: SocketAddr,
    pub(crate) wrapper: SocketAddr,
}

impl World {
    pub(crate) async fn new(overflow: RecipientOverflow) -> World {
        let directory = tempfile::tempdir().unwrap();
        let (clock, random, metrics) =
            (Clock::simulated(Timestamp::from_millis(1_501_893_662_669)), Random::seeded(3), Metrics::new());
        let options = postrider_store::Options {
            index_dir: Some(directory.path().join("index")),
            ..postrider_store::Options::default()
        };
        let store = Store::open_with(Arc::new(SimDisk::new()), Path::new("/store"), options).unwrap();
        let accounts = Accounts::open(&store, &clock, &random, &postrider_account::Settings::default()).unwrap();
        let secret = ImportedSecret::parse(&SecretString::from(PASSWORD)).unwrap();
        let credential = NewCredential { recipient_overflow: overflow, ..NewCredential::default() };
        accounts.credentials().import(USER, secret, credential).await.unwrap();
        let spool = SpoolOptions {
            disk: Arc::new(SimDisk::new()),
            dir: PathBuf::from("/spool"),
            index_dir: None,
            clock: clock.clone(),
            settings: postrider_spool::Settings::default(),
            metrics: metrics.clone(),
            feeds: &[],
            start_held: false,
            accept_loss: false,
            driver: Driver::Task,
        };
        let spool = Spool::open(spool).await.unwrap();
        let submission = SubmissionDeps {
            spool: spool.clone(),
            accounts: accounts.clone(),
            clock: clock.clone(),
            random: random.clone(),
            metrics: metrics.clone(),
        };
        let settings = postrider_submission::Settings {
            hostname: Some("mail.example.com".into()),
            unverified_senders: postrider_submission::UnverifiedSenders::Accept,
            ..Default::default()
        };
        let deps = Deps {
            submission: Submission::new(submission, settings),
            feedback: None,
            clock,
            random,
            metrics: metrics.clone(),
            disk: Arc::new(RealDisk),
            keys: directory.path().join("keys"),
            traces: Traces::new(),
            key_log: None,
        };
        World { deps, accounts, spool, metrics, scope: Scope::new("test"), directory }
    }

    pub(crate) fn start(&self, settings: &Settings, tls: &TlsSettings) -> Result<Listeners, Error> {
        Listeners::start(&listen(), settings, tls, self.deps.clone(), &self.scope)
    }

    /// What clients trust: the self-signed certificate.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.directory.path().join("keys/self-signed.pem")).unwrap()
    }
}

/// Two listeners on ports of the system's choice.
pub(crate) fn listen() -> Vec<Listen> {
    let on = |tls| Listen::on("127.0.0.1:0".parse().unwrap(), tls);
    vec![on(ListenTls::StartTls), on(ListenTls::TlsWrapper)]
}

impl Relay {
    pub(crate) async fn start() -> Relay {
        Relay::with(|_| {}).await
    }

    pub(crate) async fn with(change: fn(&mut Settings)) -> Relay {
        let mut settings = Settings::default();
        change(&mut settings);
        Relay::run(World::new(RecipientOverflow::Reject).await, &settings)
    }

    pub(crate) fn run(world: World, settings: &Settings) -> Relay {
        Relay::run_on(&listen(), world, settings)
    }

    /// On other listeners: one with STARTTLS, then one with the wrapper.
    pub(crate) fn run_on(list: &[Listen], world: World, settings: &Settings) -> Relay {
        let tls = TlsSettings::default();
        let listeners = Listeners::start(list, settings, &tls, world.deps.clone(), &world.scope).unwrap();
        let addresses: Vec<SocketAddr> = listeners.addresses().map(|(address, _)| address).collect();
        Relay { world, listeners, starttls: addresses[0], wrapper: addresses[1] }
    }

    pub(crate) fn tls(&self) -> TlsConnector {
        connector(self.world.root(), rustls::ALL_VERSIONS)
    }

    /// In clear, the banner read.
    pub(crate) async fn clear(&self) -> Client {
        let mut client = Client::plain(self.starttls).await;
        assert!(client.reply().await.starts_with("220 mail.example.com ESMTP postrider "));
        client
    }

    /// Inside TLS, the banner read.
    pub(crate) async fn wrapped(&self) -> Client {
        let mut client = Client::wrapped(self.wrapper, &self.tls()).await;
        client.reply().await;
        client
    }

    /// Authenticated.
    pub(crate) async fn ready(&self) -> Client {
        let mut client = self.wrapped().await;
        client.say("EHLO client.example\r\n").await;
        assert_eq!(client.say(LOGIN).await, "235 Authentication successful.\r\n");
        client
    }
}

pub(crate) fn connector(root: CertificateDer<'static>, versions: &[&'static SupportedProtocolVersion]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// A client of SMTP that knows nothing of it.
pub(crate) struct Client {
    pub(crate) stream: BoxStream,
    pub(crate) resumed: bool,
}

impl Client {
    pub(crate) async fn plain(address: SocketAddr) -> Client {
        Client { stream: Box::new(TcpStream::connect(address).await.unwrap()), resumed: false }
    }

    pub(crate) async fn wrapped(address: SocketAddr, tls: &TlsConnector) -> Client {
        Client::plain(address).await.secure(tls).await
    }

    pub(crate) async fn secure(self, tls: &TlsConnector) -> Client {
        let stream = tls.connect(ServerName::try_from("mail.example.com").unwrap(), self.stream).await.unwrap();
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Client { stream: Box::new(stream), resumed }
    }

    pub(crate) async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next reply, with all its lines.
    pub(crate) async fn reply(&mut self) -> String {
        let mut reply = Vec::new();
        loop {
            let start = reply.len();
            while !reply.ends_with(b"\n") || reply.len() == start {
                reply.push(self.stream.read_u8().await.expect("a reply"));
            }
            if reply.get(start + 3) == Some(&b' ') {
                return String::from_utf8(reply).unwrap();
            }
        }
    }

    pub(crate) async fn say(&mut self, text: &str) -> String {
        self.write(text).await;
        self.reply().await
    }

    /// All until the server closes; inside TLS an error unless it says so.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = String::new();
        tokio::time::timeout(Duration::from_secs(3600), self.stream.read_to_string(&mut rest)).await.unwrap().unwrap();
        rest
    }
}
