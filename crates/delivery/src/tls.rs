//! TLS towards other hosts.
//!
//! Between MX hosts encryption is opportunistic: a certificate that nobody
//! vouches for still keeps listeners out, so it is accepted and only recorded
//! whether it is good. The smarthost has to prove its name.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{BoxStream, Clock};
use postrider_mail::{TlsInfo, sanitize_text};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Error;
use crate::settings::Settings;

/// What handshakes with other hosts need. Sessions are resumed.
#[derive(Clone)]
pub(crate) struct TlsClient {
    /// Takes every certificate.
    lenient: Arc<ClientConfig>,
    /// For the smarthost, where its certificate is checked.
    strict: Option<Arc<ClientConfig>>,
    /// Says whether a certificate is good. `None` without authorities.
    judge: Option<Arc<WebPkiServerVerifier>>,
    clock: Clock,
}

/// Whether the host has to prove its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Proof {
    /// It has to.
    Needed,
    /// It is only recorded.
    Noted,
}

impl TlsClient {
    /// Reads the authorities.
    pub(crate) fn new(settings: &Settings, clock: &Clock) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = match &settings.tls.ca_file {
            Some(path) => read_authorities("tls.ca_file", path)?,
            None => system_authorities(),
        };
        let strict = match settings.smarthost.as_ref().filter(|smarthost| smarthost.verify) {
            Some(smarthost) => {
                let roots = match &smarthost.ca_file {
                    Some(path) => read_authorities("smarthost.ca_file", path)?,
                    None => roots.clone(),
                };
                let builder = config_builder(&provider, clock)?.with_root_certificates(roots);
                Some(Arc::new(builder.with_no_client_auth()))
            }
            None => None,
        };
        let lenient = config_builder(&provider, clock)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider.clone())))
            .with_no_client_auth();
        // Fails only without authorities: then no certificate is good.
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok();
        Ok(Self { lenient: Arc::new(lenient), strict, judge, clock: clock.clone() })
    }

    /// Makes `stream` a TLS session with the host of this name (or, where the
    /// name is no name for TLS, this address). The error is a printable line.
    pub(crate) async fn handshake(
        &self,
        stream: BoxStream,
        host: &str,
        ip: IpAddr,
        proof: Proof,
    ) -> Result<(BoxStream, TlsInfo), String> {
        let config = match (proof, &self.strict) {
            (Proof::Needed, Some(strict)) => strict.clone(),
            (Proof::Needed, None) => return Err("no authorities to check certificates with".to_owned()),
            (Proof::Noted, _) => self.lenient.clone(),
        };
        let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| ServerName::from(ip));
        let connected = TlsConnector::from(config).connect(name.clone(), stream).await;
        let stream = connected.map_err(|error| sanitize_text(error.to_string(), 200))?;
        let info = self.describe(&stream, &name, proof);
        Ok((Box::new(stream), info))
    }

    fn describe(&self, stream: &TlsStream<BoxStream>, name: &ServerName<'_>, proof: Proof) -> TlsInfo {
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
            authenticated: proof == Proof::Needed || self.is_good(session.peer_certificates(), name),
        }
    }

    /// Whether the certificate is one that a strict client would take. Looked
    /// at after the handshake, since a resumed session has none of its own.
    fn is_good(&self, chain: Option<&[CertificateDer<'_>]>, name: &ServerName<'_>) -> bool {
        let (Some(judge), Some([own, others @ ..])) = (&self.judge, chain) else { return false };
        judge.verify_server_cert(own, others, name, &[], now(&self.clock)).is_ok()
    }
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

/// Takes every certificate, but makes the host prove that it has the key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
