//! DKIM signatures of a message (RFC 6376, RFC 8301, RFC 8463).

use mail_auth::common::crypto::Algorithm;
use mail_auth::dkim::Signature;
use serde::{Deserialize, Serialize};

use super::key::{Fault, Keys, Signed};
use super::message::{Field, Message, without_signature};
use super::tags::{check_list, printable, tag};
use crate::verify::words::words;

/// Names that a signature may list: it is compared with every field for each.
const MOST_NAMES: usize = 256;

/// What became of a signature (RFC 8601 section 2.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DkimResult {
    /// The domain signed this message.
    Pass,
    /// It did not, or the message was changed since, or the signature has expired.
    Fail,
    /// It did, but of the body only the beginning.
    Policy,
    /// The signature can not be understood.
    Neutral,
    /// The key could not be asked for: it may pass later.
    TempError,
    /// There is no key, or none that counts, or the signature breaks a rule.
    PermError,
}

words! {
    /// The word of RFC 8601.
    DkimResult {
        Pass => "pass",
        Fail => "fail",
        Policy => "policy",
        Neutral => "neutral",
        TempError => "temperror",
        PermError => "permerror",
    }
}

/// A signature, and what became of it. All texts are printable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimReport {
    /// What became of it.
    pub result: DkimResult,
    /// Who takes responsibility (`d=`); empty when that can not be read.
    pub domain: String,
    /// Which key (`s=`).
    pub selector: String,
    /// On whose behalf (`i=`), where it is said.
    pub identity: Option<String>,
    /// `rsa-sha256`, `ed25519-sha256`, `rsa-sha1`.
    pub algorithm: String,
    /// The beginning of the signature, which tells it from others (RFC 6008).
    pub signature: String,
    /// The length of an RSA key.
    pub bits: Option<usize>,
    /// The domain is trying DKIM out (`t=y`).
    pub testing: bool,
    /// Why, in a sentence for people.
    pub reason: String,
}

/// Verifies one signature at `now`, in seconds since 1970.
pub(super) async fn verify(message: &mut Message<'_>, field: Field<'_>, keys: &mut Keys<'_>, now: u64) -> DkimReport {
    let text = String::from_utf8_lossy(field.value);
    let mut report = as_written(&text);
    let (result, reason) = match Signature::parse(field.value).map(|signature| (signature, check_list(&text))) {
        Err(error) => (DkimResult::Neutral, format!("the signature can not be understood: {error}")),
        Ok((_, Err(fault))) => (DkimResult::PermError, fault),
        Ok((signature, Ok(()))) => {
            report.understood(&signature);
            match check(message, field, &signature, keys, now, &mut report).await {
                Ok(reason) => (DkimResult::Pass, reason),
                Err(fault) => fault,
            }
        }
    };
    report.result = result;
    report.reason = reason;
    report
}

/// What a signature says of itself, for people: it may not be what it is verified by.
fn as_written(text: &str) -> DkimReport {
    let said = |name: &str| {
        let value = tag(text, name).map(|value| value.split_ascii_whitespace().collect::<String>());
        value.map(|value| printable(&value))
    };
    DkimReport {
        result: DkimResult::Neutral,
        domain: said("d").map(|value| value.to_ascii_lowercase()).unwrap_or_default(),
        selector: said("s").unwrap_or_default(),
        identity: said("i"),
        algorithm: said("a").unwrap_or_default(),
        signature: said("b").map(|value| value.chars().take(8).collect()).unwrap_or_default(),
        bits: None,
        testing: false,
        reason: String::new(),
    }
}

impl DkimReport {
    /// Says what the signature is verified by: who signed must be the one whose key is asked for.
    fn understood(&mut self, signature: &Signature) {
        self.domain = printable(&signature.d).to_ascii_lowercase();
        self.selector = printable(&signature.s);
        self.algorithm = match signature.a {
            Algorithm::RsaSha1 => "rsa-sha1",
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
        .to_owned();
    }
}

/// RFC 6376 section 6.1
async fn check(
    message: &mut Message<'_>,
    field: Field<'_>,
    signature: &Signature,
    keys: &mut Keys<'_>,
    now: u64,
    report: &mut DkimReport,
) -> Result<String, (DkimResult, String)> {
    keeps_the_rules(signature, now)?;
    let limit = limit_of(field.value);
    let hash = message.body_hash(signature.cb, limit).await;
    if hash.digest.as_ref() != signature.bh.as_slice() {
        return Err((DkimResult::Fail, "the body was changed after it was signed".to_owned()));
    }
    let signed = Signed {
        domain: &signature.d,
        selector: &signature.s,
        algorithm: signature.a,
        form: signature.ch,
        signature: &signature.b,
    };
    let key = keys.of(&signed).await.map_err(fault)?;
    report.bits = key.bits;
    report.testing = key.testing;
    let identity = identity_domain(signature);
    if key.strict && identity != signature.d {
        return Err((DkimResult::PermError, format!("the key is for identities of {} itself (t=s)", report.domain)));
    }
    let bare = without_signature(field.value);
    let mut fields = message.signed(&signature.h);
    fields.push(Field { name: field.name, value: &bare });
    key.verify(&signed, &fields).map_err(fault)?;
    match limit {
        Some(limit) if limit < hash.length => {
            let said = format!("only {limit} of {} octets of the body are signed (l=)", hash.length);
            Err((DkimResult::Policy, said))
        }
        _ => Ok(format!("signed by {}", report.domain)),
    }
}

fn keeps_the_rules(signature: &Signature, now: u64) -> Result<(), (DkimResult, String)> {
    let broken = |reason: &str| Err((DkimResult::PermError, reason.to_owned()));
    if signature.v != 1 {
        return broken("it has no version (v=1)");
    }
    if signature.h.len() > MOST_NAMES {
        return broken("it lists too many header fields");
    }
    if !signature.h.iter().any(|name| name.eq_ignore_ascii_case("From")) {
        return broken("it does not cover From");
    }
    let identity = identity_domain(signature);
    let below = identity.strip_suffix(signature.d.as_str());
    if !below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) {
        return broken("its identity (i=) is not of its domain (d=)");
    }
    if signature.x != 0 && signature.x <= signature.t {
        return broken("it expires before it was made");
    }
    if signature.x != 0 && signature.x <= now {
        return Err((DkimResult::Fail, "it has expired".to_owned()));
    }
    Ok(())
}

/// The domain of `i=`, else of `d=` (RFC 6376 section 3.5).
fn identity_domain(signature: &Signature) -> &str {
    signature.i.rsplit_once('@').map_or(&signature.d, |(_, domain)| domain)
}

/// `l=`, where it is there. What is no number covers nothing.
pub(super) fn limit_of(value: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(value);
    tag(&text, "l").map(|digits| digits.parse().unwrap_or(0))
}

fn fault(fault: Fault) -> (DkimResult, String) {
    let result = match fault {
        Fault::Temporary(_) => DkimResult::TempError,
        Fault::Permanent(_) => DkimResult::PermError,
        Fault::Mismatch => DkimResult::Fail,
    };
    (result, fault.into_reason())
}
