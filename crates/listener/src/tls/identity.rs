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

/// A client that is known by its certificate.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// A DNS name or mail address that the certificate is for, or `sha256:` and the
    /// certificate's fingerprint in hex.
    pub name: String,
    /// User name of the credential that it stands for.
    pub credential: String,
}

impl ClientCertificate {
    /// The credential that this certificate, which has been verified, stands for.
    pub(crate) fn credential<'l>(list: &'l [ClientCertificate], certificate: &CertificateDer<'_>) -> Option<&'l str> {
        if list.is_empty() {
            return None;
        }
        let names = certificate::names_of_client(certificate);
        let known = |listed: &&ClientCertificate| names.contains(&listed.name.to_ascii_lowercase());
        list.iter().find(known).map(|listed| listed.credential.as_str())
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
