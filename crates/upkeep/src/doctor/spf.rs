//! Whether SPF lets every source address send, within the lookups that receivers make.

use postrider_base::Timestamp;
use postrider_dns::Resolver;
use postrider_mailauth::verify::spf::{
    MOST_LOOKUPS, MOST_VOID_LOOKUPS, SpfQuery, SpfReport, SpfResult, evaluate, survey,
};

use super::address::is_private;
use super::domain::DomainFacts;
use super::{Finding, SourceFact, Verdict};

const CHECK: &str = "spf";
/// From here on the next include that somebody adds may be one too many.
const MANY_LOOKUPS: usize = MOST_LOOKUPS - 1;

pub(super) async fn examine(resolver: &dyn Resolver, now: Timestamp, facts: &DomainFacts) -> Vec<Finding> {
    let domain = facts.envelope.as_str();
    let public: Vec<&SourceFact> = facts.sources.iter().filter(|source| !is_private(source.address)).collect();
    if public.is_empty() {
        let why = match facts.sources.is_empty() {
            true => "no source address is configured ([delivery.sources])",
            false => "all source addresses are private: which one others see is not known here",
        };
        return vec![Finding::skip(CHECK, domain, why)];
    }
    let mut wrong = Vec::new();
    for source in &public {
        let sender = format!("postmaster@{domain}");
        let query = SpfQuery {
            ip: source.address,
            domain,
            sender: &sender,
            helo: &source.host,
            receiver: "localhost",
            at: now,
        };
        let report = evaluate(resolver, &query).await;
        if report.result != SpfResult::Pass {
            wrong.push((source.address, report));
        }
    }
    let mut findings = vec![addresses(domain, public.len(), &wrong, facts)];
    let survey = survey(resolver, domain).await;
    if survey.record.is_some() {
        findings.push(lookups(domain, &survey));
    }
    findings
}

fn addresses(domain: &str, count: usize, wrong: &[(std::net::IpAddr, SpfReport)], facts: &DomainFacts) -> Finding {
    let Some((_, first)) = wrong.first() else {
        let words = match count {
            1 => "the source address passes".to_owned(),
            _ => format!("all {count} source addresses pass"),
        };
        return Finding::pass(CHECK, domain, words);
    };
    let shown: Vec<String> = wrong.iter().take(8).map(|(ip, report)| format!("{ip}: {}", report.result)).collect();
    let more = if wrong.len() > 8 { format!(" and {} more", wrong.len() - 8) } else { String::new() };
    let words = format!("{}{more}; {}", shown.join(", "), first.reason);
    let verdict = |result| match result {
        SpfResult::Fail | SpfResult::PermError => Verdict::Fail,
        _ => Verdict::Warn,
    };
    let worst = wrong.iter().map(|(_, report)| verdict(report.result)).max().unwrap_or(Verdict::Warn);
    let advice = match first.result {
        SpfResult::TempError => "ask again; if it stays, mend the name servers of the domain".to_owned(),
        SpfResult::PermError => format!("mend the record of {domain}: there must be one, without mistakes"),
        _ => format!("let the SPF record of {domain} include them: `postrider dns plan {} --check`", facts.domain),
    };
    Finding::new(CHECK, domain, worst, words).advise(advice)
}

/// RFC 7208 section 4.6.4: beyond its limits a receiver says *permerror*, which is no pass.
fn lookups(domain: &str, survey: &SpfReport) -> Finding {
    let (count, void) = (survey.lookups.len(), survey.void);
    let words = format!("it takes {count} of {MOST_LOOKUPS} DNS lookups");
    if count > MOST_LOOKUPS {
        let eleventh = survey.lookups.get(MOST_LOOKUPS).map_or("", |lookup| &lookup.term);
        let words = format!("{words}: from {eleventh} on receivers give up, and nothing passes that comes later");
        return Finding::fail("spf-lookups", domain, words, "take out what is not needed, or list addresses (ip4:)");
    }
    if void > MOST_VOID_LOOKUPS {
        let terms: Vec<&str> =
            survey.lookups.iter().filter(|lookup| lookup.void).map(|lookup| lookup.term.as_str()).collect();
        let words = format!("{void} terms lead to nothing, and receivers bear {MOST_VOID_LOOKUPS}");
        let advice = format!("take out {}", terms.join(", "));
        return Finding::fail("spf-lookups", domain, words, advice);
    }
    match count {
        MANY_LOOKUPS.. => {
            let advice = "take out what is not needed before somebody adds another";
            Finding::warn("spf-lookups", domain, words, advice)
        }
        _ => Finding::pass("spf-lookups", domain, words),
    }
}
