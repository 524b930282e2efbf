//! The chain of those who passed a message on (RFC 8617): each says what it found and signs
//! that, so that a list's changes do not make the author's signature worthless.

use mail_auth::arc::{ChainValidation, Results, Seal, Signature};
use mail_auth::dkim::Canonicalization;
use serde::{Deserialize, Serialize};

use super::key::{Fault, Keys, Signed};
use super::message::{Field, Message, without_signature};
use super::tags::{check_list, printable};
use crate::verify::words::words;

/// Longest chain (RFC 8617 section 4.2.1).
pub const MOST_SETS: usize = 50;

const SEAL: &str = "ARC-Seal";
const SIGNATURE: &str = "ARC-Message-Signature";
const RESULTS: &str = "ARC-Authentication-Results";

/// What became of a chain (RFC 8617 section 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArcResult {
    /// There is none.
    None,
    /// It is whole, and the message is as its last link left it.
    Pass,
    /// It is broken.
    Fail,
    /// A key could not be asked for: it may pass later.
    TempError,
}

words! {
    /// The word of RFC 8601.
    ArcResult {
        None => "none",
        Pass => "pass",
        Fail => "fail",
        TempError => "temperror",
    }
}

/// What became of a chain, and who is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcReport {
    /// What became of it.
    pub result: ArcResult,
    /// The domains that sealed, the first link first. They are to be believed only on a pass,
    /// and then as far as one believes each of them.
    pub sealers: Vec<String>,
    /// Why, in a sentence for people.
    pub reason: String,
}

struct Set<'a> {
    seal: Seal,
    seal_field: Field<'a>,
    signature: Signature,
    signature_field: Field<'a>,
    results_field: Field<'a>,
}

enum Broken {
    Chain(String),
    Key(Fault),
}

/// Verifies the chain of a message at `now`, in seconds since 1970.
pub(super) async fn verify(message: &mut Message<'_>, keys: &mut Keys<'_>, now: u64) -> ArcReport {
    let none = [SEAL, SIGNATURE, RESULTS].iter().all(|name| message.all(name).next().is_none());
    if none {
        let reason = "nobody who passed it on has sealed it".to_owned();
        return ArcReport { result: ArcResult::None, sealers: Vec::new(), reason };
    }
    let sets = match sets(message) {
        Ok(sets) => sets,
        Err(reason) => return ArcReport { result: ArcResult::Fail, sealers: Vec::new(), reason },
    };
    let sealers = sets.iter().map(|set| printable(&set.seal.d)).collect();
    let (result, reason) = match chain(&sets, message, keys, now).await {
        Ok(()) => (ArcResult::Pass, "each link fits the one before, and the message the last".to_owned()),
        Err(Broken::Chain(reason)) => (ArcResult::Fail, reason),
        Err(Broken::Key(fault @ Fault::Temporary(_))) => (ArcResult::TempError, fault.into_reason()),
        Err(Broken::Key(fault)) => (ArcResult::Fail, fault.into_reason()),
    };
    ArcReport { result, sealers, reason }
}

/// The sets in their order: each number from one up exactly once (RFC 8617 section 5.2 step 3).
fn sets<'a>(message: &Message<'a>) -> Result<Vec<Set<'a>>, String> {
    let seals = numbered(message, SEAL, |value| {
        check_list(&String::from_utf8_lossy(value))?;
        Seal::parse(value).map(|seal| (seal.i, seal)).map_err(|error| error.to_string())
    })?;
    let signatures = numbered(message, SIGNATURE, |value| {
        check_list(&String::from_utf8_lossy(value))?;
        Signature::parse(value).map(|one| (one.i, one)).map_err(|error| error.to_string())
    })?;
    let results = numbered(message, RESULTS, |value| {
        Results::parse(value).map(|one| (one.i, ())).map_err(|error| error.to_string())
    })?;
    if seals.len() != signatures.len() || seals.len() != results.len() {
        return Err("a link of the chain is not whole".to_owned());
    }
    let whole = seals.into_iter().zip(signatures).zip(results);
    Ok(whole
        .map(|(((seal_field, seal), (signature_field, signature)), (results_field, ()))| Set {
            seal,
            seal_field,
            signature,
            signature_field,
            results_field,
        })
        .collect())
}

fn numbered<'a, T>(
    message: &Message<'a>,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<(u32, T), String>,
) -> Result<Vec<(Field<'a>, T)>, String> {
    let mut found = Vec::new();
    for field in message.all(name) {
        if found.len() == MOST_SETS {
            return Err(format!("the chain has more than {MOST_SETS} links"));
        }
        let (number, parsed) = parse(field.value).map_err(|error| format!("{name} can not be understood: {error}"))?;
        found.push((number, field, parsed));
    }
    found.sort_by_key(|(number, ..)| *number);
    let counted = found.iter().zip(1..).all(|((number, ..), expected)| *number == expected);
    if !counted {
        return Err(format!("the {name} fields are not numbered from 1 without a gap"));
    }
    Ok(found.into_iter().map(|(_, field, parsed)| (field, parsed)).collect())
}

/// RFC 8617 section 5.2, steps 2 to 7
async fn chain(sets: &[Set<'_>], message: &mut Message<'_>, keys: &mut Keys<'_>, now: u64) -> Result<(), Broken> {
    for (index, set) in sets.iter().enumerate() {
        let right = if index == 0 { ChainValidation::None } else { ChainValidation::Pass };
        if set.seal.cv != right {
            return Err(Broken::Chain(format!("link {} found the chain broken already", index + 1)));
        }
    }
    let Some(latest) = sets.last() else { return Ok(()) };
    last_signature(latest, message, keys, now).await?;
    for (index, set) in sets.iter().enumerate().rev() {
        let signed = Signed {
            domain: &set.seal.d,
            selector: &set.seal.s,
            algorithm: set.seal.a,
            form: Canonicalization::Relaxed,
            signature: &set.seal.b,
        };
        let key = keys.of(&signed).await.map_err(Broken::Key)?;
        let bare = without_signature(set.seal_field.value);
        // RFC 8617 section 5.1.1: all sets so far, this one's seal last and without signature.
        let mut fields: Vec<Field<'_>> =
            sets[..=index].iter().flat_map(|set| [set.results_field, set.signature_field, set.seal_field]).collect();
        fields.pop();
        fields.push(Field { name: set.seal_field.name, value: &bare });
        key.verify(&signed, &fields).map_err(Broken::Key)?;
    }
    Ok(())
}

/// The message is as the last link left it.
async fn last_signature(set: &Set<'_>, message: &mut Message<'_>, keys: &mut Keys<'_>, now: u64) -> Result<(), Broken> {
    let signature = &set.signature;
    let broken = |reason: &str| Err(Broken::Chain(reason.to_owned()));
    if signature.h.len() > 256 || signature.l != 0 {
        return broken("the last signature is not one over the whole message");
    }
    if signature.h.iter().any(|name| name.eq_ignore_ascii_case(SEAL)) {
        return broken("the last signature covers a seal (RFC 8617 section 4.1.2)");
    }
    if signature.x != 0 && signature.x <= now {
        return broken("the last signature has expired");
    }
    if message.body_hash(signature.cb, None).await.digest.as_ref() != signature.bh.as_slice() {
        return broken("the body was changed after the last link");
    }
    let signed = Signed {
        domain: &signature.d,
        selector: &signature.s,
        algorithm: signature.a,
        form: signature.ch,
        signature: &signature.b,
    };
    let key = keys.of(&signed).await.map_err(Broken::Key)?;
    let bare = without_signature(set.signature_field.value);
    let mut fields = message.signed(&signature.h);
    fields.push(Field { name: set.signature_field.name, value: &bare });
    key.verify(&signed, &fields).map_err(Broken::Key)
}
