//! TLS for all listeners: one configuration, one certificate that can change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postrider_base::{Disk, Scope};
use postrider_mail::TlsInfo;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, version};

use crate::{Error, TlsSettings, certificate, self_signed};

/// How often the certificate's files are looked at.
const WATCH: Duration = Duration::from_secs(30);
/// Sessions that TLS 1.2 clients without tickets can resume.
const CACHED_SESSIONS: usize = 4096;

/// Where self-signed certificates are kept, and for which name.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) hostname: String,
}

/// The TLS side of all listeners.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    home: Home,
    source: Mutex<Source>,
}

/// The certificate in use.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The files, and how they looked when they were read last.
#[derive(Debug)]
struct Source {
    settings: TlsSettings,
    seen: Option<Stamp>,
}

type Stamp = [(SystemTime, u64); 2];

impl Tls {
    /// Reads, or makes, the certificate.
    pub(crate) fn new(settings: &TlsSettings, home: Home) -> Result<Tls, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let seen = stamp(settings);
        let current = Arc::new(Current(ArcSwap::new(read(settings, &home, &provider)?)));
        // TLS 1.0 and 1.1 are deprecated by RFC 8996 and do not exist here.
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.session_storage = ServerSessionMemoryCache::new(CACHED_SESSIONS);
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        let source = Mutex::new(Source { settings: settings.clone(), seen });
        Ok(Tls { config: Arc::new(config), provider, current, home, source })
    }

    /// What a connection's handshake needs.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Reads the certificate again, from these files. After an error the one
    /// that was in use stays in use.
    pub(crate) fn reload(&self, settings: &TlsSettings) -> Result<(), Error> {
        let mut source = self.source.lock();
        // First the look, then the reading: what changes in between is seen next time.
        let seen = stamp(settings);
        let certified = read(settings, &self.home, &self.provider);
        source.seen = seen;
        self.current.0.store(certified?);
        source.settings = settings.clone();
        Ok(())
    }

    /// Reads the files again if they look different from last time.
    fn reload_if_changed(&self) {
        let (settings, seen) = {
            let source = self.source.lock();
            (source.settings.clone(), source.seen)
        };
        if settings.certificate.is_none() || stamp(&settings) == seen {
            return;
        }
        match self.reload(&settings) {
            Ok(()) => tracing::info!("TLS certificate replaced"),
            Err(error) => tracing::error!("the changed TLS certificate is not used, the old one stays: {error}"),
        }
    }

    /// Notices changed files, until the scope is cancelled.
    pub(crate) async fn watch(self: Arc<Tls>, scope: Scope) {
        loop {
            tokio::select! {
                () = scope.cancelled() => return,
                () = tokio::time::sleep(WATCH) => {}
            }
            let tls = self.clone();
            // A failed join is a panic, which has been logged.
            let _ = tokio::task::spawn_blocking(move || tls.reload_if_changed()).await;
        }
    }
}

/// What a session that is inside TLS says of it.
pub(crate) fn info(connection: &ServerConnection) -> TlsInfo {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let suite = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default();
    // The names of RFC 8446 have no version in them.
    TlsInfo { version: version.to_owned(), cipher: suite.replacen("TLS13_", "TLS_", 1), authenticated: false }
}

fn read(settings: &TlsSettings, home: &Home, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
        return Ok(certificate::load(certificate, key, provider)?);
    }
    let directory = &home.directory;
    tracing::warn!(
        "no TLS certificate is configured: clients see a self-signed one (kept in {}), which those that verify refuse",
        directory.display()
    );
    self_signed::load_or_make(&*home.disk, directory, &home.hostname, provider)
        .map_err(|source| Error::SelfSigned { directory: directory.clone(), source })
}

/// `None` while a file is missing: a change either way.
fn stamp(settings: &TlsSettings) -> Option<Stamp> {
    let look = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    Some([look(settings.certificate.as_deref()?)?, look(settings.key.as_deref()?)?])
}
