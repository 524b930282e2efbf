//! Whether what authenticates the mail stands for the domain of From, and what the domain asks
//! of receivers otherwise.

use postrider_dns::{DnsError, Resolver};
use postrider_mail::Domain;
use postrider_mailauth::verify::dmarc::{
    Disposition, DmarcReport, DmarcResult, DomainPolicy, Identifier, evaluate, is_aligned,
};

use super::Finding;
use super::domain::DomainFacts;

/// `signs`: a published key signs. `passes`: SPF passes for all sources.
pub(super) async fn examine(resolver: &dyn Resolver, facts: &DomainFacts, signs: bool, passes: bool) -> Vec<Finding> {
    let identifier = |domain, passes| [Identifier { domain, passes, temporary: false }];
    let spf = identifier(facts.envelope.as_str(), passes);
    let dkim = identifier(facts.key_domain.as_str(), signs);
    let report = evaluate(resolver, &facts.domain, &spf, &dkim).await;
    let mut findings = Vec::new();
    if facts.signs && !facts.keys.is_empty() {
        let aligned = is_relaxed(resolver, facts, &facts.key_domain, &report).await;
        findings.push(alignment("alignment-dkim", "signatures (d=)", facts, &facts.key_domain, aligned));
    }
    let aligned = is_relaxed(resolver, facts, &facts.envelope, &report).await;
    findings.push(alignment("alignment-spf", "return paths", facts, &facts.envelope, aligned));
    findings.push(policy(facts, &report));
    findings
}

/// Whether a domain stands for that of From where the policy is relaxed. Without a policy
/// there is no organizational domain: then what lies within the other is taken to have the same.
async fn is_relaxed(
    resolver: &dyn Resolver,
    facts: &DomainFacts,
    domain: &Domain,
    report: &DmarcReport,
) -> Result<bool, DnsError> {
    let Some(policy) = &report.policy else {
        let within = |inner: &str, outer: &str| inner.strip_suffix(outer).is_some_and(|rest| rest.ends_with('.'));
        let (domain, from) = (domain.as_str(), facts.domain.as_str());
        return Ok(within(domain, from) || within(from, domain));
    };
    is_aligned(resolver, domain.as_str(), &facts.domain, &policy.organization, false).await
}

fn alignment(
    check: &str,
    what: &str,
    facts: &DomainFacts,
    domain: &Domain,
    relaxed: Result<bool, DnsError>,
) -> Finding {
    let from = &facts.domain;
    if domain == from {
        return Finding::pass(check, domain, format!("{what} are in the domain of From: aligned, strict and relaxed"));
    }
    match relaxed {
        Ok(true) => {
            let words = format!("{what} are in {domain}: aligned where the policy is relaxed, not where it is strict");
            Finding::pass(check, domain, words)
        }
        Ok(false) => {
            let words = format!("{what} are in {domain}, which does not stand for {from}: not aligned");
            Finding::warn(check, domain, words, format!("give {from} a MAIL FROM domain or a key of its own"))
        }
        Err(error) => Finding::warn(check, domain, format!("not known: {error}"), "ask again"),
    }
}

fn policy(facts: &DomainFacts, report: &DmarcReport) -> Finding {
    const CHECK: &str = "dmarc";
    let domain = &facts.domain;
    if report.result == DmarcResult::TempError && report.policy.is_none() {
        let advice = "ask again; if it stays, mend the name servers of the domain and of those above it";
        return Finding::warn(CHECK, domain, format!("not known: {}", report.reason), advice);
    }
    let Some(policy) = &report.policy else {
        let advice = format!("publish one, p=none to begin with: `postrider dns plan {domain}`");
        let words = match report.reason.as_str() {
            "" => "there is no DMARC policy",
            reason => reason,
        };
        return Finding::warn(CHECK, domain, format!("{words}; large receivers ask bulk senders for one"), advice);
    };
    let stated = format!("{} (from _dmarc.{})", stated(policy), policy.found_at);
    let both = report.spf && report.dkim;
    if report.spf || report.dkim {
        let words = format!("{stated}; mail passes: {}", report.reason);
        return match both {
            true => Finding::pass(CHECK, domain, words),
            false if report.dkim => Finding::pass(CHECK, domain, format!("{words}; a second leg would be safer")),
            false => Finding::warn(CHECK, domain, format!("{words}; forwarded mail fails"), "let DKIM pass too"),
        };
    }
    let advice = "let DKIM or SPF pass, aligned: see the findings above";
    let words = |will: &str| format!("{stated}; mail does not pass ({}) and {will}", report.reason);
    match policy.disposition {
        Disposition::Reject => Finding::fail(CHECK, domain, words("is refused: it shows as bounces"), advice),
        Disposition::Quarantine => Finding::fail(CHECK, domain, words("goes to junk"), advice),
        Disposition::None => Finding::warn(CHECK, domain, words("is delivered for now"), advice),
    }
}

fn stated(policy: &DomainPolicy) -> String {
    let strict = match (policy.strict_dkim, policy.strict_spf) {
        (true, true) => ", strict alignment",
        (true, false) => ", strict alignment of DKIM",
        (false, true) => ", strict alignment of SPF",
        (false, false) => "",
    };
    let tested = if policy.disposition == policy.published { "" } else { ", in test mode" };
    format!("policy {}{strict}{tested}", policy.published.as_str())
}
