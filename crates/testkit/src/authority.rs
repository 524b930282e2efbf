//! A certificate authority for one test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A root that signs leaf certificates; ECDSA P-256 throughout.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, then the authority's.
    pub chain_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: String,
}

impl Authority {
    /// A new root with a key of its own.
    ///
    /// # Errors
    /// What rcgen reports; only a broken crypto library fails here.
    pub fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "postrider test root");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// A server certificate for these names or IP addresses.
    ///
    /// # Errors
    /// A name that is no valid DNS name.
    pub fn issue(&self, names: &[&str]) -> Result<Issued, rcgen::Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        Ok(Issued { chain_pem: certificate.pem() + &self.issuer.pem(), key_pem: key.serialize_pem() })
    }

    /// The root's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// Trust in the certificates of this PEM text.
///
/// # Errors
/// Text that holds no certificate.
pub fn roots(pem: &str) -> Result<rustls::RootCertStore, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| rustls::Error::General(error.to_string()))?;
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(rustls::Error::General("no certificate in the PEM text".to_owned()));
    }
    Ok(roots)
}
