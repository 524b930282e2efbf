//! Keys: made, read, and what of them is published.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_mail::DkimAlgorithm as Algorithm;
use zeroize::Zeroizing;

use super::pem;

/// Shorter keys can be factored (RFC 8301 section 3.2), and aws-lc does not sign with them.
pub const MIN_RSA_BITS: usize = 2048;

/// Longer keys need not be verified by anybody (RFC 6376 section 3.3.3) and do not fit
/// into the DNS easily.
pub const MAX_RSA_BITS: usize = 4096;

/// Why a key can not be used. Whoever gave the key is at fault, and it does not pass; only
/// [`KeyError::Crypto`] is the machine's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Neither PEM nor base64, or damaged on its way.
    #[error("this is no private key in PEM: {0}")]
    Damaged(&'static str),
    /// A passphrase would be needed.
    #[error("the key is encrypted with a passphrase; decrypt it first: openssl pkey -in KEY -out PLAIN")]
    Encrypted,
    /// An RSA key that anybody can factor.
    #[error(
        "the RSA key is shorter than 2048 bits; such signatures are not trusted any more (RFC 8301), and cannot be made here. \
         Make a new key under a new selector: openssl genrsa 2048, or let postrider make one"
    )]
    TooShort,
    /// An RSA key that does not fit.
    #[error("the RSA key has {0} bits; receivers need not verify more than 4096 (RFC 6376); make one of 2048")]
    TooLong(usize),
    /// A key for something else.
    #[error("the key is neither RSA nor Ed25519, the two kinds that DKIM knows")]
    Kind,
    /// aws-lc failed.
    #[error("a key could not be made or used")]
    Crypto,
}

/// A private key. It is wiped from memory when it is dropped, and shows itself nowhere.
pub struct PrivateKey {
    pair: Pair,
    der: Zeroizing<Vec<u8>>,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl PrivateKey {
    /// A new key: RSA of 2048 bits, or Ed25519. RSA takes tens of milliseconds of CPU.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] when the system has no randomness.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let (pair, der) = match algorithm {
            Algorithm::RsaSha256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Crypto)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Crypto)?;
                let der = der.as_ref().to_vec();
                (Pair::Rsa(Box::new(pair)), der)
            }
            Algorithm::Ed25519Sha256 => {
                let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Crypto)?;
                let der = pair.to_pkcs8v1().map_err(|_| KeyError::Crypto)?.as_ref().to_vec();
                (Pair::Ed25519(Box::new(pair)), der)
            }
        };
        Ok(Self { pair, der: Zeroizing::new(der) })
    }

    /// Reads a key in PEM, PKCS#1 (`RSA PRIVATE KEY`) or PKCS#8 (`PRIVATE KEY`), or the
    /// base64 of either on one line, as SES's API takes it.
    ///
    /// # Errors
    /// A [`KeyError`] that says what is wrong and what to do.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_der(&pem::private_key(text)?)
    }

    /// Reads a key in DER, PKCS#1 or PKCS#8.
    ///
    /// # Errors
    /// As [`PrivateKey::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = match RsaKeyPair::from_pkcs8(der).or_else(|first| {
            // What PKCS#8 says of a key that is RSA and unfit is the better answer.
            RsaKeyPair::from_der(der).map_err(|second| if is_too_small(&first) { first } else { second })
        }) {
            Ok(pair) => {
                let bits = pair.public_modulus_len() * 8;
                if bits > MAX_RSA_BITS {
                    return Err(KeyError::TooLong(bits));
                }
                Pair::Rsa(Box::new(pair))
            }
            Err(error) if is_too_small(&error) => return Err(KeyError::TooShort),
            Err(_) => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| pem::not_ours(der))?;
                Pair::Ed25519(Box::new(pair))
            }
        };
        Ok(Self { pair, der: Zeroizing::new(der.to_vec()) })
    }

    /// The key in DER, as [`PrivateKey::from_der`] reads it: a secret.
    #[must_use]
    pub fn to_der(&self) -> &Zeroizing<Vec<u8>> {
        &self.der
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match &self.pair {
            Pair::Rsa(_) => Algorithm::RsaSha256,
            Pair::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// What is published of it.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] when there is no memory for it.
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        let bytes = match &self.pair {
            Pair::Rsa(pair) => {
                let der: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| KeyError::Crypto)?;
                der.as_ref().to_vec()
            }
            // RFC 8463 section 4.2: the bare key.
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        };
        Ok(PublicKey { algorithm: self.algorithm(), bytes })
    }

    /// The signature over `data`, without any canonical form: `b=` before its base64.
    pub(super) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        let hash = digest(&SHA256, data);
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, &hash, &mut signature).map_err(|_| KeyError::Crypto)?;
                Ok(signature)
            }
            // RFC 8463 section 3: what is signed is the hash.
            Pair::Ed25519(pair) => Ok(pair.sign(hash.as_ref()).as_ref().to_vec()),
        }
    }
}

fn is_too_small(error: &aws_lc_rs::error::KeyRejected) -> bool {
    // The type tells its reasons apart by this text alone.
    error.to_string() == "TooSmall"
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

/// The public half of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl PublicKey {
    /// How its other half signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The text of the TXT record to publish (RFC 6376 section 3.6.1). One of an RSA key is
    /// longer than the 255 octets of a string of the DNS: it is published as several strings,
    /// which receivers join without anything between them.
    #[must_use]
    pub fn record(&self) -> String {
        let kind = match self.algorithm {
            Algorithm::RsaSha256 => "rsa",
            Algorithm::Ed25519Sha256 => "ed25519",
        };
        format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(&self.bytes))
    }

    /// SHA-256 of the published key in hexadecimal, to compare keys by eye.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let hash = digest(&SHA256, &self.bytes);
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
