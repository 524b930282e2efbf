//! The doctor: looks at the world and says what is right, what is doubtful and what is wrong,
//! each with what was found and what to do.
//!
//! Each check is a function of what it is told and of what the resolver and the dialer answer;
//! none changes anything.

mod address;
mod clock;
mod dkim;
mod dmarc;
mod domain;
mod feedback;
mod host;
mod settings;
mod source;
mod spf;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use postrider_base::{Clock, Dialer};
use postrider_dns::Resolver;
use postrider_mail::sanitize_text;
use serde::{Deserialize, Serialize};

pub use domain::{DomainFacts, KeyFact};
pub use feedback::BounceFacts;
pub use host::{CertificateFact, DiskFact, HostFacts};
pub use settings::Settings;

/// Longest text of a finding.
const LONGEST: usize = 1_000;

/// What the doctor thinks of something. A later word is worse.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was not looked at: nothing says how, or it does not apply.
    Skip,
    /// It is as it should be.
    Pass,
    /// It works, or may; something should be done.
    Warn,
    /// Mail suffers.
    Fail,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one check found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Finding {
    /// Which check: a word of a closed set.
    pub check: String,
    /// What was looked at: a name or an address.
    pub subject: String,
    /// What the doctor thinks of it.
    pub verdict: Verdict,
    /// What was found, in one printable line.
    pub found: String,
    /// What to do, where there is something to do.
    pub advice: Option<String>,
}

impl Finding {
    fn new(check: &str, subject: impl fmt::Display, verdict: Verdict, found: impl AsRef<str>) -> Finding {
        Finding {
            check: check.to_owned(),
            subject: sanitize_text(subject.to_string(), LONGEST),
            verdict,
            found: sanitize_text(found.as_ref(), LONGEST),
            advice: None,
        }
    }

    fn pass(check: &str, subject: impl fmt::Display, found: impl AsRef<str>) -> Finding {
        Finding::new(check, subject, Verdict::Pass, found)
    }

    fn skip(check: &str, subject: impl fmt::Display, found: impl AsRef<str>) -> Finding {
        Finding::new(check, subject, Verdict::Skip, found)
    }

    fn warn(check: &str, subject: impl fmt::Display, found: impl AsRef<str>, advice: impl AsRef<str>) -> Finding {
        Finding::new(check, subject, Verdict::Warn, found).advise(advice)
    }

    fn fail(check: &str, subject: impl fmt::Display, found: impl AsRef<str>, advice: impl AsRef<str>) -> Finding {
        Finding::new(check, subject, Verdict::Fail, found).advise(advice)
    }

    fn advise(mut self, advice: impl AsRef<str>) -> Finding {
        self.advice = Some(sanitize_text(advice.as_ref(), LONGEST));
        self
    }
}

/// The worst of them.
#[must_use]
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass)
}

/// An address that mail leaves from.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceFact {
    /// What the configuration calls it.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The name that it gives in EHLO.
    pub host: String,
    /// The name that its reverse DNS has to give, where the configuration says so.
    pub ptr: Option<String>,
}

/// What checks look at the world with.
#[derive(Clone, Copy)]
pub struct Doctor<'a> {
    /// Asks the DNS.
    pub resolver: &'a dyn Resolver,
    /// Opens connections.
    pub dialer: &'a dyn Dialer,
    /// Says what time it is.
    pub clock: &'a Clock,
    /// What the operator chose.
    pub settings: &'a Settings,
}

impl Doctor<'_> {
    /// Looks at everything that decides about mail of a domain.
    pub async fn examine_domain(&self, facts: &DomainFacts) -> Vec<Finding> {
        let mut findings = vec![domain::identity(facts)];
        let (dkim, signs) = dkim::examine(self.resolver, facts).await;
        findings.extend(dkim);
        findings.extend(domain::mail_from(self.resolver, facts).await);
        findings.extend(self.return_path(facts).await);
        let spf = spf::examine(self.resolver, self.clock.now(), facts).await;
        let passes = spf.iter().all(|finding| finding.verdict == Verdict::Pass);
        findings.extend(spf);
        findings.extend(dmarc::examine(self.resolver, facts, signs, passes).await);
        findings.push(domain::takes_mail(self.resolver, facts).await);
        findings
    }

    /// Whether bounces come back. The MX record of a MAIL FROM domain has been looked at already.
    async fn return_path(&self, facts: &DomainFacts) -> Vec<Finding> {
        let Some(bounces) = &facts.bounces else {
            let words = "return paths are what clients say (submission.return_path): bounces go there";
            return vec![Finding::skip("return-path-mx", &facts.domain, words)];
        };
        match facts.mail_from.as_ref().is_some_and(|own| own.domain == bounces.domain) {
            true => feedback::answers(self, bounces).await,
            false => feedback::examine(self, bounces).await,
        }
    }

    /// Looks at this machine and at the addresses that mail leaves from.
    pub async fn examine_host(&self, facts: &HostFacts) -> Vec<Finding> {
        let mut findings = Vec::new();
        if facts.sources.is_empty() {
            findings.push(Finding::skip(
                "sources",
                "-",
                "no source address is configured ([delivery.sources]): the system chooses, and nothing can be said of it",
            ));
        }
        for source in &facts.sources {
            findings.push(source::reverse(self.resolver, source).await);
            findings.extend(source::listed(self.resolver, &self.settings.dnsbl, source).await);
        }
        findings.extend(source::outbound(self, &facts.sources).await);
        if let Some(bounces) = &facts.bounces {
            findings.extend(feedback::examine(self, bounces).await);
        }
        findings.extend(facts.certificates.iter().map(|fact| host::certificate(fact, self.clock.now())));
        findings.push(host::dnssec(self.resolver, &facts.hostname).await);
        findings.push(clock::examine(self).await);
        findings.extend(facts.disks.iter().map(host::disk));
        findings.extend(host::sealing(facts));
        findings
    }
}
