//! Public keys of DKIM and ARC (RFC 6376 section 3.6).

use std::collections::HashMap;
use std::sync::Arc;

use mail_auth::common::crypto::Algorithm;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::{Canonicalization, DkimError};
use postrider_dns::Resolver;
use tokio::time::Instant;

use super::message::Field;
use super::tags::{check_list, tag};

/// RFC 8301 section 3.2: a shorter RSA key proves nothing.
const LEAST_BITS: usize = 1024;
/// The key is longer than any this program can verify with.
const MOST_BITS: usize = 8192;

/// A published key.
pub(super) struct Key {
    key: DomainKey,
    /// `t=y`: the domain is trying DKIM out.
    pub(super) testing: bool,
    /// `t=s`: the identity must be of the domain itself.
    pub(super) strict: bool,
    /// Of an RSA key.
    pub(super) bits: Option<usize>,
}

/// Why a signature could not be verified.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The DNS could not be asked.
    Temporary(String),
    /// There is no usable key.
    Permanent(String),
    /// The key does not fit the signature.
    Mismatch,
}

impl Fault {
    pub(super) fn into_reason(self) -> String {
        match self {
            Fault::Temporary(reason) | Fault::Permanent(reason) => reason,
            Fault::Mismatch => "the signature does not fit the signed header fields and the published key".to_owned(),
        }
    }
}

/// A signature over header fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) domain: &'a str,
    pub(super) selector: &'a str,
    pub(super) algorithm: Algorithm,
    pub(super) form: Canonicalization,
    pub(super) signature: &'a [u8],
}

/// The keys of one message, each looked up once, all before a deadline.
pub(super) struct Keys<'a> {
    resolver: &'a dyn Resolver,
    deadline: Instant,
    most: usize,
    known: HashMap<String, Result<Arc<Key>, Fault>>,
}

impl<'a> Keys<'a> {
    /// At most so many are looked up.
    pub(super) fn new(resolver: &'a dyn Resolver, most: usize, deadline: Instant) -> Keys<'a> {
        Keys { resolver, deadline, most, known: HashMap::new() }
    }

    /// The key that a signature names.
    pub(super) async fn of(&mut self, signed: &Signed<'_>) -> Result<Arc<Key>, Fault> {
        if signed.algorithm == Algorithm::RsaSha1 {
            // RFC 8301 section 3.1
            return Err(Fault::Permanent("it uses SHA-1, which proves nothing (RFC 8301)".to_owned()));
        }
        let name = format!("{}._domainkey.{}", signed.selector, signed.domain).to_ascii_lowercase();
        if let Some(known) = self.known.get(&name) {
            return known.clone();
        }
        if self.known.len() >= self.most {
            return Err(Fault::Permanent(format!("it takes more than {} keys to verify this message", self.most)));
        }
        let found = self.fetch(&name).await.map(Arc::new);
        self.known.insert(name, found.clone());
        found
    }

    async fn fetch(&self, name: &str) -> Result<Key, Fault> {
        let reply = tokio::time::timeout_at(self.deadline, self.resolver.txt(name)).await;
        let Ok(reply) = reply else {
            return Err(Fault::Temporary("the DNS did not answer in time".to_owned()));
        };
        let texts = match reply {
            Ok(answer) => answer.value,
            Err(error) if error.is_temporary() => return Err(Fault::Temporary(format!("key {name}: {error}"))),
            Err(error) => return Err(Fault::Permanent(format!("there is no key at {name}: {error}"))),
        };
        let mut fault = format!("there is no key at {name}");
        for text in texts {
            match Key::parse(&text) {
                Ok(key) => return Ok(key),
                Err(reason) => fault = format!("the key at {name} can not be used: {reason}"),
            }
        }
        Err(Fault::Permanent(fault))
    }
}

impl Key {
    fn parse(text: &str) -> Result<Key, String> {
        check_list(text)?;
        // RFC 6376 section 3.6.1: a key may be for some hash and some service alone.
        let allows = |name: &str, words: &[&str]| {
            tag(text, name).is_none_or(|list| list.split(':').any(|word| words.contains(&word.trim())))
        };
        if !allows("h", &["sha256"]) {
            return Err("it is not for SHA-256 (h=)".to_owned());
        }
        if !allows("s", &["*", "email"]) {
            return Err("it is not for mail (s=)".to_owned());
        }
        let key = DomainKey::parse(text.as_bytes()).map_err(|error| match error {
            mail_auth::Error::Dkim(DkimError::RevokedPublicKey) => "it is revoked (p= is empty)".to_owned(),
            mail_auth::Error::Dkim(DkimError::UnsupportedKeyType) => "its type is unknown (k=)".to_owned(),
            _ => "it is no DKIM key record".to_owned(),
        })?;
        // Ed25519 keys have one length, which mail-auth says as the largest number.
        let bits = Some(key.p.public_key_bits()).filter(|bits| *bits != usize::MAX);
        if let Some(bits) = bits.filter(|bits| !(LEAST_BITS..=MOST_BITS).contains(bits)) {
            return Err(format!("it has {bits} bits, where {LEAST_BITS} to {MOST_BITS} count (RFC 8301)"));
        }
        let flag = |flag: &str| tag(text, "t").is_some_and(|flags| flags.split(':').any(|word| word.trim() == flag));
        Ok(Key { key, testing: flag("y"), strict: flag("s"), bits })
    }

    /// Whether the key made a signature over these fields.
    pub(super) fn verify(&self, signed: &Signed<'_>, fields: &[Field<'_>]) -> Result<(), Fault> {
        let mut pairs = fields.iter().map(|field| (field.name, field.value));
        let done = self.key.p.verify(&mut pairs, signed.signature, signed.form, signed.algorithm);
        done.map_err(|error| match error {
            mail_auth::Error::Crypto(mail_auth::common::crypto::CryptoError::IncompatibleAlgorithms) => {
                Fault::Permanent("signature and key are of different algorithms".to_owned())
            }
            _ => Fault::Mismatch,
        })
    }
}
