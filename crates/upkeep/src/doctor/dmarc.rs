//! Whether what authenticates the mail stands for the domain of From, and what the domain asks
//! of receivers otherwise.

use postrider_dns::Resolver;
use postrider_mailauth::verify::dmarc::{Disposition, DmarcReport, DmarcResult, DomainPolicy, Identifier, evaluate};

use super::Finding;
use super::domain::DomainFacts;

/// `signs`: a published key signs. `passes`: SPF passes for all sources.
pub(super) async fn examine(resolver: &dyn Resolver, facts: &DomainFacts, signs: bool, passes: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.signs && !facts.keys.is_empty() {
        findings.push(alignment("alignment-dkim", "signatures (d=)", facts, facts.key_domain.as_str()));
    }
    findings.push(alignment("alignment-spf", "return paths", facts, facts.envelope.as_str()));
    let identifier = |domain, passes| [Identifier { domain, passes, temporary: false }];
    let spf = identifier(facts.envelope.as_str(), passes);
    let dkim = identifier(facts.key_domain.as_str(), signs);
    let report = evaluate(resolver, &facts.domain, &spf, &dkim).await;
    findings.push(policy(facts, &report));
    findings
}

fn alignment(check: &str, what: &str, facts: &DomainFacts, domain: &str) -> Finding {
    let from = facts.domain.as_str();
    let within = |inner: &str, outer: &str| inner.strip_suffix(outer).is_some_and(|rest| rest.ends_with('.'));
    if domain == from {
        return Finding::pass(check, domain, format!("{what} are in the domain of From: aligned, strict and relaxed"));
    }
    if within(domain, from) || within(from, domain) {
        let words = format!("{what} are in {domain}: aligned where the policy is relaxed, not where it is strict");
        return Finding::pass(check, domain, words);
    }
    let words = format!("{what} are in {domain}, which does not stand for {from}: not aligned");
    Finding::warn(check, domain, words, format!("give {from} a MAIL FROM domain or a key of its own"))
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
