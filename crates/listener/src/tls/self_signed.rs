//! The certificate of a relay that has been given none.

use std::io;
use std::path::Path;
use std::sync::Arc;

use postrider_base::{Disk, OpenMode};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;

use super::certificate::certified_key;

const CHAIN: &str = "self-signed.pem";
const KEY: &str = "self-signed-key.pem";

/// A certificate and its key in PEM.
pub(crate) struct Generated {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// The certificate kept in `directory`, made now if there is none for this
/// host name. Files are readable by their owner only.
pub(crate) fn load_or_make(
    disk: &dyn Disk,
    directory: &Path,
    hostname: &str,
    provider: &CryptoProvider,
) -> io::Result<Arc<CertifiedKey>> {
    if let Some(kept) = load(disk, directory, provider)
        && fits(&kept, hostname)
    {
        return Ok(kept);
    }
    let made = generate(hostname).map_err(io::Error::other)?;
    disk.create_dir_all(directory)?;
    // The key first: a chain without its key is made again.
    for (name, text) in [(KEY, &made.key), (CHAIN, &made.chain)] {
        write(disk, directory, name, text.as_bytes())?;
    }
    load(disk, directory, provider).ok_or_else(|| io::Error::other("what was written can not be read back"))
}

/// A fresh ECDSA P-256 key and a certificate for this host, `localhost` and the loopback addresses.
pub(crate) fn generate(hostname: &str) -> Result<Generated, rcgen::Error> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if hostname != "localhost" {
        names.insert(0, hostname.to_owned());
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, hostname);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Whoever pins it must not be surprised by its end.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(Generated { chain: certificate.pem(), key: key.serialize_pem() })
}

/// `None` where there is no usable pair, whatever the reason: it is made again.
fn load(disk: &dyn Disk, directory: &Path, provider: &CryptoProvider) -> Option<Arc<CertifiedKey>> {
    let (chain, key) = (directory.join(CHAIN), directory.join(KEY));
    let (chain_pem, key_pem) = (read(disk, &chain).ok()?, read(disk, &key).ok()?);
    certified_key((&chain, &chain_pem), (&key, &key_pem), provider).ok()
}

fn fits(certified: &CertifiedKey, hostname: &str) -> bool {
    let Ok(name) = ServerName::try_from(hostname) else { return false };
    let parsed = certified.cert.first().map(ParsedCertificate::try_from);
    matches!(parsed, Some(Ok(parsed)) if rustls::client::verify_server_name(&parsed, &name).is_ok())
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = usize::try_from(file.len()?.min(1 << 20)).unwrap_or_default();
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Whole or not at all: written aside, synced, then given its name.
fn write(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (aside, path) = (directory.join(format!("{name}.new")), directory.join(name));
    if disk.exists(&aside) {
        disk.remove_file(&aside)?;
    }
    let file = disk.open(&aside, OpenMode::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    disk.rename(&aside, &path)?;
    disk.sync_dir(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use postrider_base::RealDisk;
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    #[test]
    fn it_is_made_once_and_kept_private() {
        let state = tempfile::tempdir().unwrap();
        let keys = state.path().join("keys");
        let make = |hostname| load_or_make(&RealDisk, &keys, hostname, &default_provider()).unwrap();
        let first = make("mail.example.com");
        assert_eq!(first.cert, make("mail.example.com").cert);
        let mode = std::fs::metadata(keys.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for name in ["mail.example.com", "localhost", "127.0.0.1"] {
            assert!(fits(&first, name), "{name}");
        }
        assert!(!fits(&first, "other.example.com"));
        // Another name, or a damaged file: made again.
        assert_ne!(first.cert, make("other.example.com").cert);
        std::fs::write(keys.join(CHAIN), "damaged").unwrap();
        make("other.example.com");
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(load_or_make(&RealDisk, &file.join("keys"), "localhost", &default_provider()).is_err());
    }
}
