//! A certificate authority for one test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
        self.issue_until(names, None)
    }

    fn issue_until(&self, names: &[&str], year: Option<i32>) -> Result<Issued, rcgen::Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        if let Some(year) = year {
            params.not_before = date_time_ymd(year - 1, 1, 1);
            params.not_after = date_time_ymd(year, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { chain_pem: certificate.pem() + &self.issuer.pem(), key_pem: key.serialize_pem() })
    }

    /// As [`Authority::issue`], but the certificate's time is over since long.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_expired(&self, names: &[&str]) -> Result<Issued, rcgen::Error> {
        self.issue_until(names, Some(2001))
    }

    /// The root's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }
}

impl Issued {
    /// A TLSA record's value that knows this certificate and no other, in full
    /// (RFC 6698: usage 3, selector 0, matching type 0).
    #[must_use]
    pub fn tlsa(&self) -> String {
        let mut chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).flatten();
        let own = chain.next().map(|own| own.to_vec()).unwrap_or_default();
        own.iter().fold("3 0 0 ".to_owned(), |text, octet| text + &format!("{octet:02x}"))
    }

    /// For a server that shows this certificate.
    ///
    /// # Errors
    /// What rustls says of a certificate or key that it does not take.
    pub fn server(&self) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
        let general = |error: rustls_pki_types::pem::Error| rustls::Error::General(error.to_string());
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(general)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain.map_err(general)?, key)?;
        Ok(Arc::new(config))
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
