//! What DKIM calls its keys, and how they sign.

use std::fmt;
use std::str::FromStr;

use postrider_base::Random;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Domain;

/// As in SES; also the longest label of the DNS.
const MAX_SELECTOR: usize = 63;

/// Length of a selector that nobody chose, as in SES.
const TOKEN_LEN: usize = 32;

/// What tells one key of a domain from another (RFC 6376 section 3.1): labels of letters,
/// digits, hyphens and underscores with dots between them, at most 63 octets in all, in
/// lower case, because the DNS has no case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(String);

/// A text that is no selector. Whoever wrote it is at fault; it does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a selector is 1 to 63 letters, digits, hyphens, underscores and dots between them")]
pub struct SelectorError;

impl Selector {
    /// One that nobody has guessed or used: 32 letters and digits, the form of SES's tokens.
    #[must_use]
    pub fn random(random: &Random) -> Self {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let letter = |_| {
            let index = usize::try_from(random.below(36)).unwrap_or_default();
            char::from(ALPHABET[index])
        };
        Self((0..TOKEN_LEN).map(letter).collect())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the public key of `domain` is published: `SELECTOR._domainkey.DOMAIN`.
    /// RFC 6376 section 3.6.2.1
    #[must_use]
    pub fn record_name(&self, domain: &Domain) -> String {
        format!("{self}._domainkey.{domain}")
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
        };
        if text.len() > MAX_SELECTOR || !text.split('.').all(label) {
            return Err(SelectorError);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.0)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DkimAlgorithm {
    /// `rsa-sha256`, which everybody verifies (RFC 6376 section 3.3.2).
    RsaSha256,
    /// `ed25519-sha256` (RFC 8463), which few verify yet: for a second signature.
    Ed25519Sha256,
}

impl DkimAlgorithm {
    /// As the `a=` tag says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

impl fmt::Display for DkimAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DkimAlgorithm {
    type Err = &'static str;

    /// By its name, or the name of the kind of key: `rsa`, `ed25519`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "rsa" | "rsa-sha256" => Ok(Self::RsaSha256),
            "ed25519" | "ed25519-sha256" => Ok(Self::Ed25519Sha256),
            _ => Err("the algorithm must be rsa or ed25519"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "Mail-2026", "s1._x", "a.b", &"a".repeat(63)] {
            assert_eq!(good.parse::<Selector>().unwrap().as_str(), good.to_ascii_lowercase());
        }
        for bad in ["", ".", "a.", "a..b", "-a", "a-", "a b", "a;b", "é", "a\r\nb", &"a".repeat(64)] {
            assert_eq!(bad.parse::<Selector>(), Err(SelectorError), "{bad:?}");
        }
    }

    #[test]
    fn tokens_look_like_those_of_ses_and_differ() {
        let random = Random::seeded(1);
        let (one, other) = (Selector::random(&random), Selector::random(&random));
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), 32);
        assert_eq!(one.as_str().parse(), Ok(one.clone()));
        let name = one.record_name(&"example.com".parse().unwrap());
        assert_eq!(name, format!("{one}._domainkey.example.com"));
    }

    #[test]
    fn algorithms_have_two_names() {
        for algorithm in [DkimAlgorithm::RsaSha256, DkimAlgorithm::Ed25519Sha256] {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        }
        assert_eq!("rsa".parse(), Ok(DkimAlgorithm::RsaSha256));
        assert!("dsa".parse::<DkimAlgorithm>().is_err());
    }
}
