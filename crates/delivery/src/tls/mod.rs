//! TLS towards other hosts.
//!
//! Between MX hosts encryption is opportunistic: a certificate that nobody
//! vouches for still keeps listeners out, so it is accepted and only recorded
//! whether it is good. Where the operator, the sender or the recipient's domain
//! wants more, a session that is not what it has to be is none.

mod dane;
mod find;
mod level;
mod verifier;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{BoxStream, Clock};
use postrider_mail::TlsInfo;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Error;
use crate::settings::Settings;

pub(crate) use find::{Found, find};
pub(crate) use level::{Failure, FailureKind, HostPolicy, Level, Proof, Required, Session};
use verifier::{Rule, Verifier, check_chain};

/// What handshakes with other hosts need.
#[derive(Clone)]
pub(crate) struct TlsClient {
    provider: Arc<CryptoProvider>,
    /// Takes every certificate. Its sessions are resumed; those of handshakes
    /// that check a certificate never are, so that none gets in by what another
    /// policy found good.
    lenient: Arc<ClientConfig>,
    /// Those of the settings.
    authorities: Authorities,
    /// For HTTPS. `None` without authorities.
    web: Option<Arc<ClientConfig>>,
    clock: Clock,
}

/// Authorities whose signatures on certificates count. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// Reads a PEM file that `key` of the settings names.
    pub(crate) fn read(key: &'static str, path: &Path) -> Result<Self, Error> {
        Ok(Self(Arc::new(read_authorities(key, path)?)))
    }
}

impl TlsClient {
    /// Reads the authorities.
    pub(crate) fn new(settings: &Settings, clock: &Clock) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = match &settings.tls.ca_file {
            Some(path) => read_authorities("tls.ca_file", path)?,
            None => system_authorities(),
        };
        let web = (!roots.is_empty()).then(|| web_config(&provider, clock, roots.clone())).transpose()?;
        Ok(Self {
            lenient: Arc::new(client_config(&provider, clock, Rule::Any)?),
            authorities: Authorities(Arc::new(roots)),
            web,
            clock: clock.clone(),
            provider,
        })
    }

    /// What HTTPS connections are made with: a host has to prove its name. `None`
    /// without authorities.
    pub(crate) fn web(&self) -> Option<Arc<ClientConfig>> {
        self.web.clone()
    }

    /// Makes `stream` a TLS session with the host of this name (or, where the
    /// name is no name for TLS, this address), or fails when it would not be what
    /// `policy` asks.
    pub(crate) async fn handshake(
        &self,
        stream: BoxStream,
        host: &str,
        ip: IpAddr,
        policy: &HostPolicy,
    ) -> Result<(BoxStream, TlsInfo), Failure> {
        // RFC 7672 section 8.1
        let asked = if let Required::Dane(dane) = &policy.required { &dane.base } else { host };
        let name = ServerName::try_from(asked.to_owned()).unwrap_or_else(|_| ServerName::from(ip));
        let config = self.config_for(policy)?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        let stream = connected.map_err(|error| Failure::of(&error))?;
        let info = self.describe(&stream, host, policy);
        Ok((Box::new(stream), info))
    }

    fn config_for(&self, policy: &HostPolicy) -> Result<Arc<ClientConfig>, Failure> {
        let rule = match &policy.required {
            Required::Nothing | Required::Encryption => return Ok(self.lenient.clone()),
            Required::Dane(dane) => Rule::Dane(dane.clone()),
            Required::Webpki(names) => {
                Rule::Webpki { authorities: self.authorities(policy).clone(), names: names.clone() }
            }
        };
        let config = client_config(&self.provider, &self.clock, rule);
        let mut config = config.map_err(|error| Failure::new(FailureKind::ValidationFailure, error.to_string()))?;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn authorities<'a>(&'a self, policy: &'a HostPolicy) -> &'a Authorities {
        policy.authorities.as_ref().unwrap_or(&self.authorities)
    }

    fn describe(&self, stream: &TlsStream<BoxStream>, host: &str, policy: &HostPolicy) -> TlsInfo {
        let session = stream.get_ref().1;
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLS",
        };
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        TlsInfo {
            version: version.to_owned(),
            // The registered names do not repeat the version.
            cipher: cipher.unwrap_or_default().replacen("TLS13_", "TLS_", 1),
            authenticated: match policy.required {
                Required::Webpki(_) | Required::Dane(_) => true,
                Required::Nothing | Required::Encryption => self.is_good(session.peer_certificates(), host, policy),
            },
        }
    }

    /// Whether the certificate is one that a strict client would take. Looked
    /// at after the handshake, since a resumed session has none of its own.
    fn is_good(&self, chain: Option<&[CertificateDer<'_>]>, host: &str, policy: &HostPolicy) -> bool {
        let Some([own, others @ ..]) = chain else { return false };
        let (roots, names) = (&self.authorities(policy).0, [host.to_owned()]);
        check_chain(&self.provider, roots, &names, own, others, now(&self.clock)).is_ok()
    }
}

fn client_config(provider: &Arc<CryptoProvider>, clock: &Clock, rule: Rule) -> Result<ClientConfig, Error> {
    let verifier = Verifier { rule, provider: provider.clone() };
    let builder = config_builder(provider, clock)?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn web_config(provider: &Arc<CryptoProvider>, clock: &Clock, roots: RootCertStore) -> Result<Arc<ClientConfig>, Error> {
    let mut config = config_builder(provider, clock)?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn config_builder(
    provider: &Arc<CryptoProvider>,
    clock: &Clock,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_details(provider.clone(), Arc::new(Time(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Settings(format!("tls: {error}")))
}

fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        tracing::warn!("the system has no certificate authorities: no host's certificate can be checked");
    }
    roots
}

fn read_authorities(key: &'static str, path: &Path) -> Result<RootCertStore, Error> {
    let error = |reason: String| Error::File { key, path: path.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| error(e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| error(e.to_string()))?;
        roots.add(certificate).map_err(|e| error(e.to_string()))?;
    }
    if roots.is_empty() { Err(error("expected at least one PEM certificate".to_owned())) } else { Ok(roots) }
}

fn now(clock: &Clock) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(clock.now().as_millis()))
}

/// The injected clock, for rustls.
struct Time(Clock);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(now(&self.0))
    }
}

#[cfg(test)]
mod tests;
