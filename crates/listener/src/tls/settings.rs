//! What the operator chooses about TLS.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The certificates that clients see. All files are read again when they
/// change and on reload. Without any a self-signed certificate is made once
/// and kept; clients that verify certificates do not accept it unasked.
#[derive(Deserialize, Serialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// PEM file with the server's certificate, then those of its issuers.
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key, without pass phrase.
    pub key: Option<PathBuf>,
    /// The oldest version that clients may use.
    pub min_version: TlsVersion,
    /// Further certificates, for clients that ask for one of their names (SNI, RFC 6066
    /// section 3). Who asks for another name, or for none, sees the one above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sni: Vec<SniCertificate>,
}

/// A certificate for those who ask for it by name.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SniCertificate {
    /// PEM file with the certificate, then those of its issuers. The names are its own.
    pub certificate: PathBuf,
    /// PEM file with its private key, without pass phrase.
    pub key: PathBuf,
}

/// A version of TLS. What is older is broken, and not there (RFC 8996).
#[derive(Deserialize, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V13,
}

impl TlsSettings {
    /// Checks what the types can not; it does not read the files.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn validate(&self) -> Result<(), String> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => Err("key: is needed beside certificate".to_owned()),
            (None, Some(_)) => Err("certificate: is needed beside key".to_owned()),
            _ => Ok(()),
        }
    }

    /// Every file with a certificate, and its key.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&PathBuf, &PathBuf)> {
        let named = self.sni.iter().map(|sni| (&sni.certificate, &sni.key));
        self.certificate.iter().zip(&self.key).chain(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_needs_a_key() {
        let half = TlsSettings { certificate: Some("c.pem".into()), ..TlsSettings::default() };
        assert!(half.validate().unwrap_err().starts_with("key:"));
        let half = TlsSettings { key: Some("k.pem".into()), ..TlsSettings::default() };
        assert!(half.validate().unwrap_err().starts_with("certificate:"));
        assert_eq!(TlsSettings::default().validate(), Ok(()));
    }

    #[test]
    fn versions_and_names_are_read() {
        let text = "min_version = \"1.3\"\n[[sni]]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
        let settings: TlsSettings = toml::from_str(text).unwrap();
        assert_eq!((settings.min_version, settings.pairs().count()), (TlsVersion::V13, 1));
        assert!(toml::from_str::<TlsSettings>("min_version = \"1.1\"").is_err());
        assert!(toml::from_str::<TlsSettings>("[[sni]]\ncertificate = \"a.pem\"").is_err());
    }
}
