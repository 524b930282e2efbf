//! Whether what is published of our DKIM keys is what we sign with.

use postrider_account::KeyState;
use postrider_dns::{DnsError, Resolver};
use postrider_mailauth::records::{Data, Need, Place, Record, State, compare};

use super::domain::{DomainFacts, KeyFact};
use super::{Finding, Verdict};

const CHECK: &str = "dkim";

/// The findings, and whether a key signs whose record is right.
pub(super) async fn examine(resolver: &dyn Resolver, facts: &DomainFacts) -> (Vec<Finding>, bool) {
    let domain = facts.key_domain.to_string();
    if !facts.signs {
        let advice = "switch it on, or let the clients sign: see `postrider identities`";
        let finding = Finding::warn(CHECK, &facts.domain, "signing is switched off for this identity", advice);
        return (vec![finding], false);
    }
    if facts.keys.iter().all(|key| key.state == KeyState::Retired) {
        let advice = format!("make keys: `postrider dkim create {domain}`");
        return (vec![Finding::fail(CHECK, domain, "there is no key that signs for this domain", advice)], false);
    }
    let mut findings = Vec::with_capacity(facts.keys.len() + 1);
    if !facts.keys.iter().any(|key| key.state == KeyState::Current) {
        let words = "no key signs yet: the first begins when the daemon has seen its record";
        let advice = format!("publish the records, then let it look: `postrider identities verify {domain}`");
        findings.push(Finding::fail(CHECK, &domain, words, advice));
    }
    let mut signs = false;
    for key in &facts.keys {
        let finding = key_record(resolver, &domain, key).await;
        signs |= key.state == KeyState::Current && finding.verdict == Verdict::Pass;
        findings.push(finding);
    }
    (findings, signs)
}

async fn key_record(resolver: &dyn Resolver, domain: &str, key: &KeyFact) -> Finding {
    let name = format!("{}._domainkey.{domain}", key.selector);
    let texts = match resolver.txt(&name).await {
        Ok(answer) => answer.value,
        Err(error) => return no_record(&name, key, &error, domain),
    };
    let found: Vec<Data> = texts.iter().cloned().map(Data::Txt).collect();
    let plan = format!("what to publish: `postrider dns plan {domain}`");
    if let [text] = &texts[..] {
        let tag = |name: &str| tag(text, name);
        if tag("p").is_some_and(str::is_empty) {
            let words = "the key is revoked: its record has an empty p=";
            return judged(&name, key, words, &format!("put our key there, or use another; {plan}"));
        }
        if tag("t").is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == "y")) {
            let words = "the record is ours, but says that the domain only tries DKIM (t=y): receivers may ignore it";
            return Finding::warn(CHECK, &name, words, "take t=y out of the record");
        }
        if tag("k").unwrap_or("rsa") != self::tag(&key.record, "k").unwrap_or("rsa") {
            return judged(&name, key, "the record is of a key of another kind (k=)", &plan);
        }
        if tag("h").is_some_and(|hashes| !hashes.split(':').any(|hash| hash.trim() == "sha256")) {
            return judged(&name, key, "the record does not allow SHA-256 (h=)", "take h= out of the record");
        }
    }
    match compare(&wanted(&name, &key.record), &found) {
        State::Right => Finding::pass(CHECK, &name, format!("the {} key is published as it is", key.state)),
        State::Differs { advice, .. } if texts.len() > 1 => {
            let words = format!("there are {} TXT records, and there must be one", texts.len());
            judged(&name, key, &words, &advice)
        }
        _ => judged(&name, key, "another key is published: signatures of ours do not verify", &plan),
    }
}

fn no_record(name: &str, key: &KeyFact, error: &DnsError, domain: &str) -> Finding {
    if !error.is_absence() {
        let advice = "ask again; if it stays, mend the name servers of the domain: receivers cannot verify either";
        return Finding::warn(CHECK, name, format!("not known: {error}"), advice);
    }
    let words = match error {
        DnsError::NoSuchDomain { .. } => "nothing is published: the name, or where it is an alias to, does not exist",
        _ => "nothing is published: the name has no TXT record",
    };
    judged(name, key, words, &format!("publish it: `postrider dns plan {domain}`"))
}

/// A key that signs must be right; for others there is time, or was.
fn judged(name: &str, key: &KeyFact, words: &str, advice: &str) -> Finding {
    let (verdict, rest) = match key.state {
        KeyState::Current => (Verdict::Fail, "; it signs now, and receivers cannot verify that"),
        KeyState::Next => (Verdict::Warn, "; it will not sign before its record is right"),
        KeyState::Retired => (Verdict::Warn, "; mail that it signed may still be under way"),
    };
    Finding::new(CHECK, name, verdict, format!("{words}{rest}")).advise(advice)
}

fn wanted(name: &str, record: &str) -> Record {
    Record {
        name: name.to_owned(),
        data: Data::Txt(record.to_owned()),
        ttl: 0,
        place: Place::Domain,
        need: Need::Must,
        why: String::new(),
        replaces: None,
        state: None,
    }
}

/// The value of a tag (RFC 6376 section 3.2).
fn tag<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.split(';').find_map(|part| {
        let (found, value) = part.split_once('=')?;
        (found.trim() == name).then(|| value.trim())
    })
}
