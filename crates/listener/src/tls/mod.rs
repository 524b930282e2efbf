//! TLS for all listeners: certificates that can change, and who clients are by theirs.

mod certificate;
mod failure;
mod identity;
mod key_log;
mod names;
mod self_signed;
mod settings;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postrider_base::{Disk, Scope, Timestamp};
use postrider_mail::TlsInfo;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::CertifiedKey;
use rustls::{KeyLog, NoKeyLog, ServerConfig, ServerConnection, version};

pub use certificate::CertificateError;
pub(crate) use failure::reason as failure_reason;
pub use identity::ClientCertificate;
pub use settings::{SniCertificate, TlsSettings, TlsVersion};

use crate::{Error, Listen};
use key_log::FileKeyLog;
use names::{Certificates, Current};

/// How often the certificates' files are looked at.
const WATCH: Duration = Duration::from_secs(30);
/// Sessions that TLS 1.2 clients without tickets can resume.
const CACHED_SESSIONS: usize = 4096;
/// A client that comes back uses one, and one more for a connection beside it.
const TICKETS: usize = 2;
/// How long before its end a certificate is worth a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

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
    /// By the file of the authorities that clients' certificates are asked from, if they are.
    /// Each has tickets of its own, so that a session can not be resumed, with the identity
    /// that came with it, where another authority is trusted, or none.
    configs: ArcSwap<Configs>,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    key_log: Arc<dyn KeyLog>,
    home: Home,
    authorities: Vec<PathBuf>,
    source: Mutex<Source>,
}

type Configs = HashMap<Option<PathBuf>, Arc<ServerConfig>>;

/// The settings, and how their files looked when they were read last.
#[derive(Debug)]
struct Source {
    settings: TlsSettings,
    seen: Vec<Look>,
}

/// `None` while a file is missing: a change either way.
type Look = Option<(SystemTime, u64)>;

impl Tls {
    /// Reads, or makes, the certificates.
    pub(crate) fn new(
        settings: &TlsSettings,
        listen: &[Listen],
        key_log: Option<&Path>,
        home: Home,
    ) -> Result<Tls, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let authorities: Vec<PathBuf> = listen.iter().filter_map(|listen| listen.client_ca.clone()).collect();
        let seen = look(settings, &authorities);
        let current = Arc::new(Current(ArcSwap::from_pointee(read(settings, &home, &provider)?)));
        let tls = Tls {
            configs: ArcSwap::default(),
            provider,
            current,
            key_log: open_key_log(key_log)?,
            home,
            authorities,
            source: Mutex::new(Source { settings: settings.clone(), seen }),
        };
        tls.configs.store(Arc::new(tls.build(settings, &Configs::new())?));
        Ok(tls)
    }

    /// What a handshake needs where clients' certificates are asked from these authorities.
    pub(crate) fn config(&self, authorities: &Option<PathBuf>) -> Arc<ServerConfig> {
        let configs = self.configs.load();
        configs.get(authorities).or_else(|| configs.get(&None)).expect("there is one without authorities").clone()
    }

    /// Reads all files again, with these settings. After an error everything stays as it was.
    pub(crate) fn reload(&self, settings: &TlsSettings) -> Result<(), Error> {
        let mut source = self.source.lock();
        // First the look, then the reading: what changes in between is seen next time. A
        // change that is wrong is looked at once.
        source.seen = look(settings, &self.authorities);
        let certificates = read(settings, &self.home, &self.provider)?;
        let kept = match source.settings.min_version == settings.min_version {
            // Sessions of those who are not asked for a certificate can still be resumed.
            true => self.configs.load().iter().filter(|(asked, _)| asked.is_none()).map(clone).collect(),
            false => Configs::new(),
        };
        let configs = self.build(settings, &kept)?;
        self.current.0.store(Arc::new(certificates));
        self.configs.store(Arc::new(configs));
        source.settings = settings.clone();
        Ok(())
    }

    /// Reads the files again if they look different from last time.
    fn reload_if_changed(&self) {
        let (settings, seen) = {
            let source = self.source.lock();
            (source.settings.clone(), source.seen.clone())
        };
        if look(&settings, &self.authorities) == seen {
            return;
        }
        match self.reload(&settings) {
            Ok(()) => tracing::info!("TLS certificates replaced"),
            Err(error) => tracing::error!("changed TLS certificates are not used, the old ones stay: {error}"),
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

    /// A configuration for each set of authorities, those of `kept` as they are.
    fn build(&self, settings: &TlsSettings, kept: &Configs) -> Result<Configs, Error> {
        let mut configs = kept.clone();
        for asked in std::iter::once(None).chain(self.authorities.iter().cloned().map(Some)) {
            if let Entry::Vacant(place) = configs.entry(asked) {
                let config = self.server_config(settings.min_version, place.key().as_deref())?;
                place.insert(Arc::new(config));
            }
        }
        Ok(configs)
    }

    fn server_config(&self, oldest: TlsVersion, authorities: Option<&Path>) -> Result<ServerConfig, Error> {
        // TLS 1.0 and 1.1 are deprecated by RFC 8996 and do not exist here.
        let versions: &[_] = match oldest {
            TlsVersion::V12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::V13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(self.provider.clone()).with_protocol_versions(versions)?;
        let builder = match authorities {
            Some(file) => builder.with_client_cert_verifier(identity::verifier(file, &self.provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(self.current.clone());
        config.session_storage = ServerSessionMemoryCache::new(CACHED_SESSIONS);
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = TICKETS;
        config.key_log = self.key_log.clone();
        Ok(config)
    }
}

/// Something about a certificate that will hurt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateWarning {
    /// The certificate's file.
    pub file: PathBuf,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether that is past.
    pub expired: bool,
}

/// Reads all certificates, keys and authorities that the configuration names, without
/// listening. Returns what is right and will not stay so.
///
/// # Errors
/// [`Error::Certificate`]: what is wrong with which file.
pub fn check_certificates(
    settings: &TlsSettings,
    listen: &[Listen],
    now: Timestamp,
) -> Result<Vec<CertificateWarning>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (mut warnings, mut all) = (Vec::new(), Vec::new());
    for (file, key) in settings.pairs() {
        let certified = certificate::load(file, key, &provider)?;
        all.push(certified.clone());
        let expires = certified.cert.first().and_then(certificate::expires_at);
        if let Some(expires) = expires.filter(|expires| *expires < now.saturating_add(SOON)) {
            warnings.push(CertificateWarning { file: file.clone(), expires, expired: expires <= now });
        }
    }
    check_names(settings, &all)?;
    for authorities in listen.iter().filter_map(|listen| listen.client_ca.as_deref()) {
        identity::verifier(authorities, &provider)?;
    }
    Ok(warnings)
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

fn read(settings: &TlsSettings, home: &Home, provider: &CryptoProvider) -> Result<Certificates, Error> {
    let mut others = Vec::new();
    for (file, key) in settings.pairs() {
        others.push(certificate::load(file, key, provider)?);
    }
    check_names(settings, &others)?;
    let default = match &settings.certificate {
        Some(_) => others.remove(0),
        None => own(home, provider)?,
    };
    Ok(Certificates::new(default, others))
}

/// A certificate that is chosen by name needs one.
fn check_names(settings: &TlsSettings, all: &[Arc<CertifiedKey>]) -> Result<(), CertificateError> {
    for (sni, certified) in settings.sni.iter().rev().zip(all.iter().rev()) {
        if certified.cert.first().is_none_or(|certificate| certificate::dns_names(certificate).is_empty()) {
            let reason = "it is for no DNS name, so nobody can ask for it".to_owned();
            return Err(CertificateError::Malformed { path: sni.certificate.clone(), reason });
        }
    }
    Ok(())
}

fn own(home: &Home, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let directory = &home.directory;
    tracing::warn!(
        "no TLS certificate is configured: clients see a self-signed one (kept in {}), which those that verify refuse",
        directory.display()
    );
    self_signed::load_or_make(&*home.disk, directory, &home.hostname, provider)
        .map_err(|source| Error::SelfSigned { directory: directory.clone(), source })
}

fn open_key_log(path: Option<&Path>) -> Result<Arc<dyn KeyLog>, Error> {
    let Some(path) = path else { return Ok(Arc::new(NoKeyLog {})) };
    let failed = |source: io::Error| Error::KeyLog { path: path.to_owned(), source };
    let log = FileKeyLog::open(path).map_err(failed)?;
    tracing::warn!("the keys of all TLS sessions are written to {}: who reads it reads all mail", path.display());
    Ok(Arc::new(log))
}

fn look(settings: &TlsSettings, authorities: &[PathBuf]) -> Vec<Look> {
    let files = settings.pairs().flat_map(|(file, key)| [file, key]).chain(authorities);
    files
        .map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
        .collect()
}

fn clone((asked, config): (&Option<PathBuf>, &Arc<ServerConfig>)) -> (Option<PathBuf>, Arc<ServerConfig>) {
    (asked.clone(), config.clone())
}
