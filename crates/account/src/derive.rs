//! SES's SMTP password derivation, and what is kept of a password.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::Error;

/// First byte of a decoded SMTP password of the present signature version.
const VERSION: u8 = 0x04;

/// First byte of the passwords that SES made before January 2019. They were the
/// same for every region and are no longer handed out.
const OLD_VERSION: u8 = 0x02;

/// Length of a secret access key, in characters.
const SECRET_KEY_LEN: usize = 40;

/// Length of an SMTP password, in characters: base64 without padding.
const SMTP_PASSWORD_LEN: usize = 44;

/// Length of a decoded SMTP password: the version and an HMAC-SHA256.
const DECODED_LEN: usize = 33;

/// Derives the SMTP password that belongs to a secret access key in `region`,
/// exactly as SES does: any script that users already have for SES gives the
/// same 44 characters.
///
/// SES publishes its script with a list of AWS regions; the derivation itself
/// takes any string, and so does this function. A password of one region is
/// useless in another.
#[must_use]
pub fn derive_smtp_password(secret: &SecretString, region: &str) -> SecretString {
    let mut key = Zeroizing::new(format!("AWS4{}", secret.expose_secret()).into_bytes());
    for message in ["11111111", region, "ses", "aws4_request", "SendRawEmail"] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), message.as_bytes());
        key = Zeroizing::new(tag.as_ref().to_vec());
    }
    let mut versioned = Zeroizing::new(Vec::with_capacity(1 + key.len()));
    versioned.push(VERSION);
    versioned.extend_from_slice(&key);
    SecretString::from(STANDARD.encode(versioned.as_slice()))
}

/// What a user of SES may bring along for an existing user name.
#[derive(Debug)]
pub enum ImportedSecret {
    /// A secret access key (40 characters), from which SMTP passwords are derived.
    SecretKey(SecretString),
    /// An SMTP password (44 characters) that was derived before.
    SmtpPassword(SecretString),
}

impl ImportedSecret {
    /// Tells the two kinds apart by their length and checks what each must be.
    /// White space around the text (the newline of a file or a pipe) is ignored.
    ///
    /// # Errors
    /// [`Error::InvalidSecret`] with an explanation that never repeats the text.
    pub fn parse(text: &SecretString) -> Result<Self, Error> {
        let text = text.expose_secret().trim();
        let invalid = |why: &str| Err(Error::InvalidSecret(why.to_owned()));
        match text.len() {
            SECRET_KEY_LEN if text.bytes().all(is_base64) => Ok(Self::SecretKey(SecretString::from(text))),
            SECRET_KEY_LEN => invalid("a secret access key has only letters, digits, '+' and '/' in it"),
            SMTP_PASSWORD_LEN => match STANDARD.decode(text).map(Zeroizing::new) {
                Ok(bytes) if bytes.len() == DECODED_LEN && bytes[0] == VERSION => {
                    Ok(Self::SmtpPassword(SecretString::from(text)))
                }
                Ok(bytes) if bytes.len() == DECODED_LEN && bytes[0] == OLD_VERSION => invalid(
                    "this SMTP password has signature version 2 (made before January 2019), which \
                     is not accepted; derive a new one from the secret access key",
                ),
                Ok(_) => invalid(
                    "44 characters long like an SMTP password, but not one: it must begin with 'B' \
                     and not end in '='",
                ),
                Err(_) => invalid("44 characters long like an SMTP password, but not base64"),
            },
            0 => invalid("it is empty"),
            other => Err(Error::InvalidSecret(format!(
                "an SMTP password has {SMTP_PASSWORD_LEN} characters and a secret access key \
                 {SECRET_KEY_LEN}, this has {other}"
            ))),
        }
    }

    /// The SMTP password that this secret stands for in `region`.
    #[must_use]
    pub fn into_smtp_password(self, region: &str) -> SecretString {
        match self {
            Self::SecretKey(secret) => derive_smtp_password(&secret, region),
            Self::SmtpPassword(password) => password,
        }
    }
}

/// All that is kept of an SMTP password: its SHA-256.
///
/// A slow hash would be of no use: the password is 256 bits of a key derivation,
/// nothing can be guessed, and neither the password nor the secret access key
/// behind it can be computed from this.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verifier([u8; 32]);

impl Verifier {
    /// The verifier of a password.
    pub(crate) fn of(password: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, password).as_ref());
        Self(bytes)
    }

    /// A verifier that no password has, for unknown users: as good as
    /// impossible to hit, and comparing with it takes the same time.
    pub(crate) const fn unmatched() -> Self {
        Self([0; 32])
    }

    /// Compares without a hint, by time, on where the two differ.
    pub(crate) fn matches(&self, password: &[u8]) -> bool {
        self.0.ct_eq(&Self::of(password).0).into()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn parse(text: &str) -> Result<ImportedSecret, Error> {
        ImportedSecret::parse(&SecretString::from(text))
    }

    #[test]
    fn derivation_agrees_with_the_published_algorithm() {
        for (region, password) in [
            ("us-east-1", "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"),
            ("us-west-2", "BF2PynzbSCAjX08zhZZnP/kW+T9P5zs/1Er0pi5vTEmd"),
            ("eu-west-1", "BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk"),
            ("local", "BCPiDCcWtEfrAGeLF/0lxxX3gmO5OES+V3bZFxmF2VE9"),
        ] {
            let derived = derive_smtp_password(&SecretString::from(SECRET), region);
            assert_eq!(derived.expose_secret(), password, "{region}");
        }
    }

    #[test]
    fn imported_secrets_are_told_apart() {
        let password = "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9";
        assert!(matches!(parse(&format!("{SECRET}\n")), Ok(ImportedSecret::SecretKey(_))));
        assert!(matches!(parse(password), Ok(ImportedSecret::SmtpPassword(_))));
        // Both roads lead to the same password.
        for text in [SECRET, password] {
            let imported = parse(text).unwrap().into_smtp_password("us-east-1");
            assert_eq!(imported.expose_secret(), password);
        }
    }

    #[test]
    fn wrong_imports_are_explained_and_never_repeated() {
        let old = STANDARD.encode([&[OLD_VERSION][..], &[7; 32]].concat());
        let unversioned = STANDARD.encode([9; 33]);
        for (text, part) in [
            ("", "empty"),
            ("   \n", "empty"),
            ("hunter2", "has 7"),
            (old.as_str(), "version 2"),
            (unversioned.as_str(), "begin with 'B'"),
            ("BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWI=", "begin with 'B'"),
            ("BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLG???", "not base64"),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEK Y", "only letters"),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEK\u{e9}", "only letters"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text:?} gave {message}");
            assert!(text.trim().is_empty() || !message.contains(text));
        }
    }

    #[test]
    fn verifier_matches_only_its_password() {
        let verifier = Verifier::of(b"BLBM");
        assert!(verifier.matches(b"BLBM"));
        assert!(!verifier.matches(b"BLBM "));
        assert!(!Verifier::unmatched().matches(b""));
        assert_eq!(format!("{verifier:?}"), "Verifier(..)");
    }
}
