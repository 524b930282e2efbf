//! Certificates and keys from PEM files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use postrider_base::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::key_log::hex;

/// Largest PEM file that is read: chains take a few KiB.
const MAX_FILE: u64 = 1 << 20;

/// Why a certificate and its key can not be used. The operator's to put right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file can not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is too large to be a certificate or key.
    #[error("{}: larger than 1 MiB, so it is neither a certificate nor a key", .0.display())]
    TooLarge(PathBuf),
    /// The file has no certificate.
    #[error("{}: no certificate in it; expected PEM with -----BEGIN CERTIFICATE-----", .0.display())]
    NoCertificate(PathBuf),
    /// The file has no private key.
    #[error("{}: no private key in it; expected PEM with -----BEGIN PRIVATE KEY-----", .0.display())]
    NoKey(PathBuf),
    /// The key is protected by a pass phrase.
    #[error("{}: the key is encrypted; a key without pass phrase is needed", .0.display())]
    EncryptedKey(PathBuf),
    /// The file is damaged.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// Reads a certificate chain and its key and checks that they belong together.
pub(crate) fn load(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    certified_key((certificate, &read(certificate)?), (key, &read(key)?), provider)
}

/// As [`load`], from the files' bytes.
pub(crate) fn certified_key(
    (certificate, chain_pem): (&Path, &[u8]),
    (key, key_pem): (&Path, &[u8]),
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = parse_chain(certificate, chain_pem)?;
    let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| match error {
        PemError::NoItemsFound if contains(key_pem, b"ENCRYPTED PRIVATE KEY") => {
            CertificateError::EncryptedKey(key.to_owned())
        }
        PemError::NoItemsFound => CertificateError::NoKey(key.to_owned()),
        error => malformed(key, format!("damaged PEM: {error:?}")),
    })?;
    let signing = provider
        .key_provider
        .load_private_key(private)
        .map_err(|error| malformed(key, format!("the key can not be used: {error}")))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(CertificateError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() })
        }
        // Unknown: the key can not tell its public half. The handshake would show it.
        _ => Ok(Arc::new(certified)),
    }
}

/// Certificates of a PEM file, at least one.
pub(super) fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    parse_chain(path, &read(path)?)
}

fn parse_chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(path, format!("damaged PEM: {error:?}")))?;
    let Some(first) = chain.first() else {
        return Err(CertificateError::NoCertificate(path.to_owned()));
    };
    ParsedCertificate::try_from(first)
        .map_err(|error| malformed(path, format!("the first certificate is damaged: {error}")))?;
    Ok(chain)
}

fn malformed(path: &Path, reason: String) -> CertificateError {
    CertificateError::Malformed { path: path.to_owned(), reason }
}

/// The DNS names that a certificate is for, in lower case, wildcards among them.
pub(super) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, |name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    })
}

/// The mail addresses that a certificate is for, in lower case.
pub(super) fn mail_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, |name| match name {
        GeneralName::RFC822Name(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    })
}

/// SHA-256 over the certificate, in hex.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(digest::digest(&digest::SHA256, certificate).as_ref())
}

fn alternative_names(
    certificate: &CertificateDer<'_>,
    wanted: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    match parsed.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(wanted).collect(),
        _ => Vec::new(),
    }
}

/// When a certificate ends to be valid.
pub(super) fn expires_at(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(Timestamp::from_millis(seconds.saturating_mul(1000)))
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(CertificateError::TooLarge(path.to_owned()));
    }
    std::fs::read(path).map_err(failed)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;
    use crate::tls::self_signed::generate;

    fn check(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, String> {
        let (certificate, key_path) = (Path::new("chain.pem"), Path::new("key.pem"));
        certified_key((certificate, chain.as_bytes()), (key_path, key.as_bytes()), &default_provider())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_pair_is_taken_and_anything_else_named() {
        let pair = generate("mail.example.com").unwrap();
        let other = generate("mail.example.com").unwrap();
        check(&pair.chain, &pair.key).unwrap();
        assert_eq!(
            check(&pair.chain, &other.key).unwrap_err(),
            "the key in key.pem does not belong to the certificate in chain.pem"
        );
        assert!(check("", &pair.key).unwrap_err().starts_with("chain.pem: no certificate in it"));
        assert!(check(&pair.key, &pair.key).unwrap_err().starts_with("chain.pem: no certificate in it"));
        assert!(check(&pair.chain, &pair.chain).unwrap_err().starts_with("key.pem: no private key in it"));
        let encrypted = pair.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert!(check(&pair.chain, &encrypted).unwrap_err().starts_with("key.pem: the key is encrypted"));
        let cut = &pair.key[..pair.key.len() / 2];
        assert!(check(&pair.chain, cut).unwrap_err().starts_with("key.pem: damaged PEM"));
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(check(damaged, &pair.key).unwrap_err().starts_with("chain.pem: the first certificate is damaged"));
        let damaged = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(check(&pair.chain, damaged).unwrap_err().starts_with("key.pem: the key can not be used"));
    }

    #[test]
    fn files_that_are_missing_or_no_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing.pem");
        let error = load(&missing, &missing, &default_provider()).unwrap_err().to_string();
        assert!(error.contains("missing.pem: No such file"), "{error}");
        assert!(load(directory.path(), directory.path(), &default_provider()).is_err());
        let large = directory.path().join("large.pem");
        std::fs::write(&large, vec![b'x'; 2 << 20]).unwrap();
        assert!(matches!(load(&large, &large, &default_provider()), Err(CertificateError::TooLarge(_))));
    }
}
