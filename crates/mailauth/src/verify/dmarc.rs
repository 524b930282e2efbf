//! DMARC (RFC 9989): what a domain asks receivers to do with mail in its name that is not
//! authenticated, and whether a message is. The organizational domain is found by walking up
//! the tree of the DNS: no list of public suffixes.
//!
//! mail-auth's parser gives up on a record with one bad tag; RFC 9989 section 4.10.1 has it
//! used for reports still, so the tags are read here.

use postrider_dns::{DnsError, Resolver};
use postrider_mail::Domain;
use serde::{Deserialize, Serialize};

use super::tags::{printable, tag, tags};
use crate::verify::words::words;

/// What a domain asks for (RFC 9989 section 4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// Treat it as any mail; reports are wanted.
    None,
    /// It is suspicious: the spam folder.
    Quarantine,
    /// Refuse it.
    Reject,
}

words! {
    /// The word of the record.
    Disposition {
        None => "none",
        Quarantine => "quarantine",
        Reject => "reject",
    }
}

impl Disposition {
    fn parse(text: &str) -> Option<Disposition> {
        let all = [Disposition::None, Disposition::Quarantine, Disposition::Reject];
        all.into_iter().find(|word| word.as_str().eq_ignore_ascii_case(text))
    }
}

/// The policy that holds for a domain, and where it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainPolicy {
    /// The domain whose `_dmarc` record it is: the one asked about or one above it.
    pub found_at: String,
    /// The record, printable.
    pub record: String,
    /// What the record asks for mail of the domain asked about, as it is published: `p`, `sp` or `np`.
    pub published: Disposition,
    /// What receivers are to do: one step less than published in test mode (`t=y`).
    pub disposition: Disposition,
    /// The organizational domain.
    pub organization: String,
    /// Whether DKIM's domain must equal that of From (`adkim=s`).
    pub strict_dkim: bool,
    /// Whether SPF's domain must (`aspf=s`).
    pub strict_spf: bool,
    /// Where aggregate reports go (`rua`), as they are written.
    pub reports_to: Vec<String>,
}

/// What DMARC says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DmarcResult {
    /// There is no policy, or From does not name one domain.
    None,
    /// SPF or DKIM passes for a domain that is aligned with that of From.
    Pass,
    /// Neither does.
    Fail,
    /// The DNS could not be asked, and nothing else decides. It may pass.
    TempError,
}

words! {
    /// The word of RFC 8601 section 2.7.
    DmarcResult {
        None => "none",
        Pass => "pass",
        Fail => "fail",
        TempError => "temperror",
    }
}

/// What DMARC says, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmarcReport {
    /// What DMARC says.
    pub result: DmarcResult,
    /// The domain of From, empty when there is not exactly one.
    pub domain: String,
    /// The policy in force for it.
    pub policy: Option<DomainPolicy>,
    /// Whether SPF passes, aligned.
    pub spf: bool,
    /// Whether a DKIM signature passes, aligned.
    pub dkim: bool,
    /// Why, in a sentence for people.
    pub reason: String,
}

/// An identifier that SPF or DKIM looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifier<'a> {
    /// The domain.
    pub domain: &'a str,
    /// Whether it passed.
    pub passes: bool,
    /// Whether the check could not be made for now.
    pub temporary: bool,
}

/// The policy that holds for a domain: its own record, else that of its organizational domain,
/// else that of the public suffix. None when nobody in the tree asks for anything.
///
/// # Errors
/// A temporary failure of the DNS.
pub async fn policy_of(resolver: &dyn Resolver, domain: &Domain) -> Result<Option<DomainPolicy>, DnsError> {
    let walk = walk(resolver, domain.as_str()).await?;
    let organization = organization(&walk, domain.as_str());
    let own = walk.iter().find(|found| found.at == domain.as_str());
    let Some(found) = own.or_else(|| walk.iter().find(|found| found.at == organization)).or(walk.last()) else {
        return Ok(None);
    };
    let record = &found.record;
    let published = match record.policies() {
        Some(policies) if own.is_some() => policies.p,
        Some(policies) if policies.sp != policies.np && !exists(resolver, domain).await? => policies.np,
        Some(policies) => policies.sp,
        // RFC 9989 section 4.10.1: without a valid policy the record may still want reports.
        None if !record.reports_to.is_empty() => Disposition::None,
        None => return Ok(None),
    };
    Ok(Some(DomainPolicy {
        found_at: found.at.clone(),
        record: printable(&record.text),
        published,
        disposition: if record.testing { lowered(published) } else { published },
        organization,
        strict_dkim: record.strict_dkim,
        strict_spf: record.strict_spf,
        reports_to: record.reports_to.clone(),
    }))
}

/// Whether mail of `from` is authenticated by one of these (RFC 9989 section 5.3).
pub async fn evaluate(
    resolver: &dyn Resolver,
    from: &Domain,
    spf: &[Identifier<'_>],
    dkim: &[Identifier<'_>],
) -> DmarcReport {
    let mut report = DmarcReport {
        result: DmarcResult::None,
        domain: from.to_string(),
        policy: None,
        spf: false,
        dkim: false,
        reason: String::new(),
    };
    match aligned_all(resolver, from, spf, dkim, &mut report).await {
        Ok(result) => report.result = result,
        Err(error) => {
            report.result = DmarcResult::TempError;
            report.reason = error.to_string();
        }
    }
    report
}

async fn aligned_all(
    resolver: &dyn Resolver,
    from: &Domain,
    spf: &[Identifier<'_>],
    dkim: &[Identifier<'_>],
    report: &mut DmarcReport,
) -> Result<DmarcResult, DnsError> {
    let Some(policy) = policy_of(resolver, from).await? else {
        report.reason = format!("neither {from} nor a domain above it publishes a DMARC policy");
        return Ok(DmarcResult::None);
    };
    let policy = report.policy.insert(policy);
    let mut temporary = false;
    for (identifiers, strict, passes) in
        [(spf, policy.strict_spf, &mut report.spf), (dkim, policy.strict_dkim, &mut report.dkim)]
    {
        for identifier in identifiers.iter().filter(|identifier| identifier.passes || identifier.temporary) {
            match is_aligned(resolver, identifier.domain, from, &policy.organization, strict).await {
                Ok(true) if identifier.passes => *passes = true,
                Ok(true) | Err(_) => temporary = true,
                Ok(false) => {}
            }
        }
    }
    report.reason = reason(from, spf, dkim, report);
    Ok(if report.spf || report.dkim {
        DmarcResult::Pass
    } else if temporary {
        DmarcResult::TempError
    } else {
        DmarcResult::Fail
    })
}

fn reason(from: &Domain, spf: &[Identifier<'_>], dkim: &[Identifier<'_>], report: &DmarcReport) -> String {
    let of = |name: &str, aligned: bool, all: &[Identifier<'_>]| {
        let passing: Vec<&str> = all.iter().filter(|one| one.passes).map(|one| one.domain).collect();
        match (aligned, passing.is_empty()) {
            (true, _) => format!("{name} passes, aligned with {from}"),
            (false, true) => format!("{name} does not pass"),
            (false, false) => format!("{name} passes for {}, which is not aligned with {from}", passing.join(", ")),
        }
    };
    format!("{}; {}", of("SPF", report.spf, spf), of("DKIM", report.dkim, dkim))
}

/// Whether a domain stands for that of From (RFC 9989 section 4.10.2), whose organizational
/// domain [`DomainPolicy::organization`] says.
///
/// # Errors
/// A temporary failure of the DNS.
pub async fn is_aligned(
    resolver: &dyn Resolver,
    domain: &str,
    from: &Domain,
    organization_of_from: &str,
    strict: bool,
) -> Result<bool, DnsError> {
    let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
    if domain == from.as_str() {
        return Ok(true);
    }
    // Only a name at or below the organizational domain can have it for its own.
    if strict || !is_within(&domain, organization_of_from) {
        return Ok(false);
    }
    let walk = walk(resolver, &domain).await?;
    Ok(organization(&walk, &domain) == organization_of_from)
}

fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

struct Found {
    at: String,
    record: Record,
}

/// RFC 9989 section 4.10: the records from a name upwards, at most eight questions.
async fn walk(resolver: &dyn Resolver, domain: &str) -> Result<Vec<Found>, DnsError> {
    let mut found = Vec::new();
    let mut name = domain;
    while !name.is_empty() {
        if let Some(record) = record_at(resolver, name).await? {
            let ends = record.suffix.is_some();
            found.push(Found { at: name.to_owned(), record });
            if ends {
                break;
            }
        }
        let labels = name.split('.').count();
        let dropped = if labels > 8 { labels - 7 } else { 1 };
        name = name.splitn(dropped + 1, '.').nth(dropped).unwrap_or_default();
    }
    Ok(found)
}

/// The one DMARC record of a name; several are none (RFC 9989 section 4.10 step 2).
async fn record_at(resolver: &dyn Resolver, name: &str) -> Result<Option<Record>, DnsError> {
    let texts = match resolver.txt(&format!("_dmarc.{name}")).await {
        Ok(answer) => answer.value,
        Err(error) if error.is_temporary() => return Err(error),
        Err(_) => return Ok(None),
    };
    let mut records = texts.iter().filter_map(|text| Record::parse(text));
    let record = records.next();
    Ok(if records.next().is_some() { None } else { record })
}

/// RFC 9989 section 4.10.2: the organizational domain of the name where a walk began.
fn organization(walk: &[Found], start: &str) -> String {
    for found in walk {
        match found.record.suffix {
            Some(false) => return found.at.clone(),
            Some(true) if found.at != start => return one_below(&found.at, start).to_owned(),
            _ => {}
        }
    }
    walk.last().map_or(start, |found| &found.at).to_owned()
}

/// The name one label longer than `suffix` on the way to `start`.
fn one_below<'a>(suffix: &str, start: &'a str) -> &'a str {
    let rest = start.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.')).unwrap_or(start);
    let label = rest.rfind('.').map_or(0, |dot| dot + 1);
    &start[label..]
}

/// Whether the name of a domain exists (RFC 9989 section 4.7, `np`).
async fn exists(resolver: &dyn Resolver, domain: &Domain) -> Result<bool, DnsError> {
    match resolver.addresses(domain.as_str()).await {
        Err(DnsError::NoSuchDomain { .. }) => Ok(false),
        Err(error) if error.is_temporary() => Err(error),
        _ => Ok(true),
    }
}

fn lowered(disposition: Disposition) -> Disposition {
    match disposition {
        Disposition::Reject => Disposition::Quarantine,
        Disposition::Quarantine | Disposition::None => Disposition::None,
    }
}

/// A policy record (RFC 9989 section 4.7).
#[derive(Debug)]
struct Record {
    text: String,
    strict_dkim: bool,
    strict_spf: bool,
    testing: bool,
    /// `psd=y`, `psd=n`.
    suffix: Option<bool>,
    reports_to: Vec<String>,
}

struct Policies {
    p: Disposition,
    sp: Disposition,
    np: Disposition,
}

impl Record {
    /// Reads what begins with the version, which has case; a value that is not understood is
    /// as if the tag were not there.
    fn parse(text: &str) -> Option<Record> {
        if tags(text).next() != Some(("v", "DMARC1")) {
            return None;
        }
        let is = |name: &str, value: &str| tag(text, name).is_some_and(|found| found.eq_ignore_ascii_case(value));
        let reports = tag(text, "rua").unwrap_or_default().split(',').map(str::trim);
        let reports = reports.filter(|uri| uri.to_ascii_lowercase().starts_with("mailto:") && uri.contains('@'));
        Some(Record {
            text: text.to_owned(),
            strict_dkim: is("adkim", "s"),
            strict_spf: is("aspf", "s"),
            testing: is("t", "y"),
            suffix: if is("psd", "y") { Some(true) } else { is("psd", "n").then_some(false) },
            reports_to: reports.map(printable).collect(),
        })
    }

    /// The policies, none when `p` is missing or one of them is not understood.
    fn policies(&self) -> Option<Policies> {
        let read = |name, default| match tag(&self.text, name) {
            Some(word) => Disposition::parse(word),
            None => default,
        };
        let p = read("p", None)?;
        let sp = read("sp", Some(p))?;
        Some(Policies { p, sp, np: read("np", Some(sp))? })
    }
}

#[cfg(test)]
mod tests {
    use postrider_dns::Zones;
    use postrider_dns::zones::Failure;

    use super::*;

    fn domain(name: &str) -> Domain {
        name.parse().unwrap()
    }

    fn passes(domain: &str) -> [Identifier<'_>; 1] {
        [Identifier { domain, passes: true, temporary: false }]
    }

    #[tokio::test]
    async fn the_policy_is_found_up_the_tree() {
        let zones = Zones::new();
        zones
            .add_txt(
                "_dmarc.example.com",
                "v=DMARC1; p=reject; sp=quarantine; np=none; rua=mailto:a@example.com, x:y@z",
            )
            .add_address("exists.example.com", "192.0.2.1");
        let policy = policy_of(&zones, &domain("example.com")).await.unwrap().unwrap();
        assert_eq!((policy.published, policy.found_at.as_str()), (Disposition::Reject, "example.com"));
        assert_eq!(policy.reports_to, ["mailto:a@example.com"]);
        let below = policy_of(&zones, &domain("exists.example.com")).await.unwrap().unwrap();
        assert_eq!((below.published, below.organization.as_str()), (Disposition::Quarantine, "example.com"));
        let absent = policy_of(&zones, &domain("absent.example.com")).await.unwrap().unwrap();
        assert_eq!(absent.published, Disposition::None);
        assert_eq!(policy_of(&zones, &domain("example.net")).await, Ok(None));
    }

    #[tokio::test]
    async fn public_suffixes_say_that_they_are() {
        let zones = Zones::new();
        zones
            .add_txt("_dmarc.co.example", "v=DMARC1; p=reject; psd=y")
            .add_txt("_dmarc.unit.corp.example", "v=DMARC1; p=none; psd=n")
            .add_txt("_dmarc.corp.example", "v=DMARC1; p=reject");
        let policy = policy_of(&zones, &domain("a.b.co.example")).await.unwrap().unwrap();
        assert_eq!((policy.organization.as_str(), policy.found_at.as_str()), ("b.co.example", "co.example"));
        let unit = policy_of(&zones, &domain("x.unit.corp.example")).await.unwrap().unwrap();
        assert_eq!((unit.organization.as_str(), unit.published), ("unit.corp.example", Disposition::None));
        // The other side of a public suffix is somebody else.
        let other = evaluate(&zones, &domain("b.co.example"), &passes("c.co.example"), &[]).await;
        assert_eq!(other.result, DmarcResult::Fail);
        let sibling = evaluate(&zones, &domain("mail.corp.example"), &[], &passes("unit.corp.example")).await;
        assert_eq!(sibling.result, DmarcResult::Fail);
    }

    #[tokio::test]
    async fn a_long_name_costs_eight_questions() {
        let zones = Zones::new();
        let name = format!("{}example.com", "a.".repeat(40));
        assert_eq!(policy_of(&zones, &domain(&name)).await, Ok(None));
        assert_eq!(zones.queries_total(), 8);
        assert_eq!(zones.queries("_dmarc.a.a.a.a.a.example.com"), 1);
        assert_eq!(zones.queries("_dmarc.com"), 1);
    }

    #[tokio::test]
    async fn alignment_is_relaxed_or_strict() {
        let zones = Zones::new();
        zones
            .add_txt("_dmarc.example.com", "v=DMARC1; p=reject")
            .add_txt("_dmarc.strict.example", "v=DMARC1; p=reject; aspf=s; adkim=s");
        for (from, identifier, expected) in [
            ("example.com", "example.com", DmarcResult::Pass),
            ("example.com", "bounce.example.com", DmarcResult::Pass),
            ("news.example.com", "example.com", DmarcResult::Pass),
            ("news.example.com", "bounce.example.com", DmarcResult::Pass),
            ("example.com", "badexample.com", DmarcResult::Fail),
            ("example.com", "example.net", DmarcResult::Fail),
            ("strict.example", "strict.example", DmarcResult::Pass),
            ("strict.example", "bounce.strict.example", DmarcResult::Fail),
            ("nothing.example", "nothing.example", DmarcResult::None),
        ] {
            let spf = evaluate(&zones, &domain(from), &passes(identifier), &[]).await;
            assert_eq!(spf.result, expected, "{from} {identifier}: {}", spf.reason);
            let dkim = evaluate(&zones, &domain(from), &[], &passes(identifier)).await;
            assert_eq!((dkim.result, dkim.dkim), (expected, expected == DmarcResult::Pass), "{from} {identifier}");
        }
    }

    #[tokio::test]
    async fn what_is_broken_is_no_policy_and_what_is_silent_may_pass() {
        let zones = Zones::new();
        zones
            .add_txt("_dmarc.twice.example", "v=DMARC1; p=reject")
            .add_txt("_dmarc.twice.example", "v=DMARC1; p=none")
            .add_txt("_dmarc.later.example", "p=reject; v=DMARC1")
            .add_txt("_dmarc.case.example", "v=dmarc1; p=reject")
            .add_txt("_dmarc.typo.example", "v=DMARC1; p=rejcet")
            .add_txt("_dmarc.reports.example", "v=DMARC1; p=rejcet; rua=mailto:a@example.com")
            .add_txt("_dmarc.testing.example", "v=DMARC1; p=reject; t=y")
            .fail("_dmarc.silent.example", Failure::ServFail);
        for name in ["twice", "later", "case", "typo"] {
            assert_eq!(policy_of(&zones, &domain(&format!("{name}.example"))).await, Ok(None), "{name}");
        }
        let reports = policy_of(&zones, &domain("reports.example")).await.unwrap().unwrap();
        assert_eq!(reports.disposition, Disposition::None);
        let testing = policy_of(&zones, &domain("testing.example")).await.unwrap().unwrap();
        assert_eq!((testing.published, testing.disposition), (Disposition::Reject, Disposition::Quarantine));
        assert!(policy_of(&zones, &domain("silent.example")).await.is_err());
        let silent = evaluate(&zones, &domain("silent.example"), &passes("silent.example"), &[]).await;
        assert_eq!(silent.result, DmarcResult::TempError);
        let unsure = [Identifier { domain: "testing.example", passes: false, temporary: true }];
        let report = evaluate(&zones, &domain("testing.example"), &[], &unsure).await;
        assert_eq!(report.result, DmarcResult::TempError);
    }
}
