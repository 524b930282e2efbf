//! Which certificates a handshake takes.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Authorities;
use super::dane::DanePolicy;

/// Takes the certificates that its rule takes. Whatever the rule, the host has to
/// prove that it has the certificate's key.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) rule: Rule,
    pub(super) provider: Arc<CryptoProvider>,
}

/// Which certificates are good.
#[derive(Debug)]
pub(super) enum Rule {
    /// Every one.
    Any,
    /// Those for one of these names that an authority signed.
    Webpki { authorities: Authorities, names: Vec<String> },
    /// Those that the host's zone knows.
    Dane(Arc<DanePolicy>),
}

impl Verifier {
    /// Whether the rule takes this certificate, sent with these others.
    pub(super) fn check(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        match &self.rule {
            Rule::Any => Ok(()),
            Rule::Webpki { authorities, names } => check_chain(&self.provider, &authorities.0, names, own, others, now),
            Rule::Dane(policy) if policy.knows(own) => Ok(()),
            // RFC 7672 section 3.1.2
            Rule::Dane(policy) => {
                let roots = policy.authorities(others);
                check_chain(&self.provider, &roots, policy.names(), own, others, now)
            }
        }
    }
}

/// Whether one of `roots` signed the certificate, directly or not, and it is for
/// one of `names`, now.
pub(super) fn check_chain(
    provider: &CryptoProvider,
    roots: &RootCertStore,
    names: &[String],
    own: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), Error> {
    if roots.is_empty() {
        return Err(CertificateError::UnknownIssuer.into());
    }
    let parsed = ParsedCertificate::try_from(own)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, algorithms)?;
    let has_name = |name: &String| {
        let name = ServerName::try_from(name.as_str()).map_err(|_| CertificateError::NotValidForName)?;
        verify_server_name(&parsed, &name)
    };
    let mut last = Error::from(CertificateError::NotValidForName);
    for name in names {
        match has_name(name) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(own, others, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
