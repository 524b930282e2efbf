//! Clients that are known by their certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::certificate::{self, CertificateError};

/// What a name that is a fingerprint begins with.
const FINGERPRINT: &str = "sha256:";

/// A client that is known by its certificate.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// A DNS name or mail address that the certificate is for, or `sha256:` and the
    /// certificate's fingerprint in hex, with or without colons.
    pub name: String,
    /// User name of the credential that it stands for.
    pub credential: String,
}

impl ClientCertificate {
    /// The credential that this certificate, which has been verified, stands for.
    pub(crate) fn credential<'l>(list: &'l [ClientCertificate], certificate: &CertificateDer<'_>) -> Option<&'l str> {
        let found = list.iter().find(|listed| listed.is(certificate));
        found.map(|listed| listed.credential.as_str())
    }

    /// Each kind of name is compared with its own: an authority that signs strange names
    /// must not be able to make a certificate that passes for a fingerprint.
    fn is(&self, certificate: &CertificateDer<'_>) -> bool {
        let name = self.name.to_ascii_lowercase();
        match name.strip_prefix(FINGERPRINT) {
            Some(digits) => certificate::fingerprint(certificate) == digits.replace(':', ""),
            None if name.contains('@') => certificate::mail_names(certificate).contains(&name),
            None => certificate::dns_names(certificate).contains(&name),
        }
    }

    /// Checks what the types can not.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let name = self.name.to_ascii_lowercase();
        let digits = name.strip_prefix(FINGERPRINT).map(|digits| digits.replace(':', ""));
        let is_fingerprint = |digits: &String| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match digits {
            _ if name.is_empty() => Err("client_certificates: an entry has no name".to_owned()),
            _ if self.credential.is_empty() => Err(format!("client_certificates: {name} has no credential")),
            Some(digits) if !is_fingerprint(&digits) => {
                Err(format!("client_certificates: {name} is not {FINGERPRINT} and 64 hexadecimal digits"))
            }
            _ => Ok(()),
        }
    }
}

/// Asks for certificates that an authority of this file has signed. Who has none goes on without.
pub(super) fn verifier(
    authorities: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let malformed = |reason: String| CertificateError::Malformed { path: PathBuf::from(authorities), reason };
    let mut roots = RootCertStore::empty();
    for authority in certificate::load_chain(authorities)? {
        roots.add(authority).map_err(|error| malformed(format!("not an authority's certificate: {error}")))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| malformed(error.to_string()))
}
