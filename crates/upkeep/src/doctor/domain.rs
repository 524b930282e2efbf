//! A domain that mail is sent from: its identity, its MAIL FROM domain, whether it takes mail.

use postrider_account::{KeyState, MailFrom, MailFromFailure};
use postrider_dns::{Answer, DnsError, Mx, Resolver};
use postrider_mail::Domain;

use super::{BounceFacts, Finding, SourceFact, Verdict};

/// What the relay knows of a domain.
#[derive(Clone, Debug)]
pub struct DomainFacts {
    /// The domain of From.
    pub domain: Domain,
    /// The identity that it belongs to, and whether that is verified; none when it is
    /// nobody's.
    pub identity: Option<(String, bool)>,
    /// Whether mail of the identity is signed.
    pub signs: bool,
    /// The domain whose keys sign (`d=`).
    pub key_domain: Domain,
    /// Its keys.
    pub keys: Vec<KeyFact>,
    /// Its custom MAIL FROM domain.
    pub mail_from: Option<MailFrom>,
    /// The domain of the return paths that receivers see.
    pub envelope: Domain,
    /// The host that takes bounces.
    pub bounce_host: String,
    /// Where return paths lead to the relay; none where they lead to who sent.
    pub bounces: Option<BounceFacts>,
    /// The addresses that mail leaves from.
    pub sources: Vec<SourceFact>,
}

/// A DKIM key, without its private half.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyFact {
    /// Its name.
    pub selector: String,
    /// The text of its record.
    pub record: String,
    /// What it is used for.
    pub state: KeyState,
}

pub(super) fn identity(facts: &DomainFacts) -> Finding {
    const CHECK: &str = "identity";
    match &facts.identity {
        Some((name, true)) => {
            Finding::pass(CHECK, &facts.domain, format!("it belongs to the verified identity {name}"))
        }
        Some((name, false)) => {
            let advice = format!("see what is missing: `postrider identities show {name}`");
            Finding::fail(CHECK, &facts.domain, format!("its identity {name} is not verified"), advice)
        }
        None => {
            let advice = format!("make one: `postrider identities create {}`", facts.domain);
            Finding::fail(CHECK, &facts.domain, "it belongs to no identity", advice)
        }
    }
}

/// The state that decides about mail, and the records as they are now.
pub(super) async fn mail_from(resolver: &dyn Resolver, facts: &DomainFacts) -> Vec<Finding> {
    const CHECK: &str = "mail-from";
    let Some(mail_from) = &facts.mail_from else {
        let words = format!("no MAIL FROM domain: return paths are in {}", facts.envelope);
        return vec![Finding::skip(CHECK, &facts.domain, words)];
    };
    let domain = &mail_from.domain;
    let state = mail_from.status.as_str();
    let finding = if facts.bounces.is_none() {
        let words = format!("its state is {state}, but return paths are what clients say: it is of no effect");
        Finding::warn(CHECK, domain, words, "set submission.return_path = \"verp\", or take the domain away")
    } else if mail_from.is_usable() {
        Finding::pass(CHECK, domain, format!("its state is {state}: return paths are in it"))
    } else {
        let words = match mail_from.on_failure {
            MailFromFailure::UseDefault => format!("its state is {state}: return paths are in {}", facts.envelope),
            MailFromFailure::Reject => format!("its state is {state}: mail of the identity is refused"),
        };
        let wrong = mail_from.found_wrong.as_ref().map_or_else(String::new, |wrong| format!("; last seen: {wrong}"));
        let advice = format!("publish its records: `postrider dns plan {}`", facts.domain);
        let verdict = match mail_from.on_failure {
            MailFromFailure::UseDefault => Verdict::Warn,
            MailFromFailure::Reject => Verdict::Fail,
        };
        Finding::new(CHECK, domain, verdict, format!("{words}{wrong}")).advise(advice)
    };
    vec![finding, exchanger("mail-from-mx", domain, resolver.mx(domain).await, &facts.bounce_host)]
}

/// SES wants exactly one MX record: with several, bounces may go astray.
pub(super) fn exchanger(
    check: &str,
    domain: &Domain,
    answer: Result<Answer<Vec<Mx>>, DnsError>,
    bounce_host: &str,
) -> Finding {
    let advice = format!("publish MX 10 {bounce_host}. and no other");
    let mx = match answer {
        Ok(answer) if answer.is_null_mx() => {
            let words = "it says that it takes no mail (MX 0 .): bounces cannot come back, and receivers may refuse";
            return Finding::fail(check, domain, words, advice);
        }
        Ok(answer) => answer.value,
        Err(error) if error.is_absence() => return Finding::fail(check, domain, "it has no MX record", advice),
        Err(error) => return Finding::warn(check, domain, format!("not known: {error}"), "ask again"),
    };
    match &mx[..] {
        [one] if one.exchange.eq_ignore_ascii_case(bounce_host) => {
            Finding::pass(check, domain, format!("its one MX record names {bounce_host}"))
        }
        [one] => Finding::fail(check, domain, format!("its MX record names {}, not us", one.exchange), advice),
        several => Finding::fail(check, domain, format!("it has {} MX records", several.len()), advice),
    }
}

/// A domain that takes no mail is refused as a sender by many (RFC 7505 section 4.2).
pub(super) async fn takes_mail(resolver: &dyn Resolver, facts: &DomainFacts) -> Finding {
    const CHECK: &str = "mx";
    let domain = &facts.domain;
    let is_envelope = facts.bounces.is_none();
    match resolver.mx(domain).await {
        Ok(answer) if answer.is_null_mx() => {
            let advice = "give it a host that takes mail, or send from another domain";
            let words = "it says that it takes no mail (MX 0 .): replies fail, and receivers refuse such senders";
            match is_envelope {
                true => Finding::fail(CHECK, domain, words, advice),
                false => Finding::warn(CHECK, domain, words, advice),
            }
        }
        Ok(answer) => {
            let hosts: Vec<&str> = answer.value.iter().take(4).map(|mx| mx.exchange.as_str()).collect();
            Finding::pass(CHECK, domain, format!("it takes mail: {}", hosts.join(", ")))
        }
        Err(error) if !error.is_absence() => Finding::warn(CHECK, domain, format!("not known: {error}"), "ask again"),
        // RFC 5321 section 5.1: without MX records its addresses are asked.
        Err(_) => match resolver.addresses(domain.as_str()).await {
            Ok(_) => Finding::pass(CHECK, domain, "it has no MX record, and mail goes to its address"),
            Err(error) if error.is_absence() => {
                let words = "it has neither MX records nor an address: replies fail, and receivers refuse such senders";
                Finding::fail(CHECK, domain, words, "give it an MX record")
            }
            Err(error) => Finding::warn(CHECK, domain, format!("not known: {error}"), "ask again"),
        },
    }
}
