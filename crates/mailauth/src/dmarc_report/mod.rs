//! Aggregate reports (RFC 9990, and RFC 7489 appendix C before it): what receivers say about
//! mail in the name of a domain. Who publishes `rua=` gets one a day from each of them.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mail_auth::report::{ActionDisposition, DmarcResult, PolicyOverride, Record};
use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

pub use mail_auth::report::Report;
pub use read::{Limits, ReportError, read};

use crate::verify::tags::printable;

/// Several reports, counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The reports, each once however often it came.
    pub reports: Vec<Head>,
    /// How many came again.
    pub repeated: usize,
    /// What came from where, the most first.
    pub sources: Vec<Source>,
}

/// Who reports on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The receiver.
    pub organization: String,
    /// Its name of the report.
    pub id: String,
    /// The domain whose policy was applied.
    pub domain: String,
    /// The policy that the receiver saw: `none`, `quarantine`, `reject`.
    pub policy: String,
    /// The beginning of the time that it covers.
    pub begin: Timestamp,
    /// The end.
    pub end: Timestamp,
    /// Messages.
    pub count: u64,
}

/// What came from an address in the name of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The address; none where the report has nothing readable.
    pub address: Option<IpAddr>,
    /// The domain of From.
    pub from: String,
    /// Messages.
    pub count: u64,
    /// Of them, those that DMARC passed.
    pub passed: u64,
    /// Those with an aligned DKIM signature.
    pub dkim: u64,
    /// Those with aligned SPF.
    pub spf: u64,
    /// Those that were put aside as suspicious.
    pub quarantined: u64,
    /// Those that were refused.
    pub rejected: u64,
    /// Why receivers did otherwise than the policy asks: `forwarded`, `mailing list`, ...
    pub overrides: BTreeSet<String>,
    /// Who signed, aligned or not, with the result: `example.com pass`.
    pub signers: BTreeSet<String>,
    /// The domains of MAIL FROM or EHLO, with the result.
    pub envelopes: BTreeSet<String>,
}

/// Names that one source keeps of a kind; who sends in a thousand names is not told apart.
const MOST_NAMES: usize = 20;
/// Sources that are told apart; what comes from more is counted as from one without a name.
const MOST_SOURCES: usize = 100_000;

/// Counts reports together, one after the other.
#[derive(Debug, Default)]
pub struct Counter {
    reports: Vec<Head>,
    seen: BTreeSet<(String, String, String)>,
    repeated: usize,
    sources: BTreeMap<(Option<IpAddr>, String), Source>,
}

impl Counter {
    /// Counts a report, unless it has been: it is known by its organization, domain and id.
    pub fn add(&mut self, report: &Report) {
        let head = head(report);
        if !self.seen.insert((head.organization.clone(), head.domain.clone(), head.id.clone())) {
            self.repeated += 1;
            return;
        }
        self.reports.push(head);
        for record in &report.record {
            let from = printable(&record.identifiers.header_from).to_ascii_lowercase();
            let mut key = (record.row.source_ip, from);
            if self.sources.len() >= MOST_SOURCES && !self.sources.contains_key(&key) {
                key = (None, String::new());
            }
            let new = || Source { address: key.0, from: key.1.clone(), ..Source::default() };
            self.sources.entry(key.clone()).or_insert_with(new).add(record);
        }
    }

    /// What came from where, the most first.
    #[must_use]
    pub fn finish(self) -> Summary {
        let mut sources: Vec<Source> = self.sources.into_values().collect();
        sources.sort_by_key(|source| std::cmp::Reverse(source.count));
        Summary { reports: self.reports, repeated: self.repeated, sources }
    }
}

fn head(report: &Report) -> Head {
    let meta = &report.report_metadata;
    let time = |seconds: u64| Timestamp::from_millis(seconds.saturating_mul(1000));
    Head {
        organization: printable(&meta.org_name),
        id: printable(&meta.report_id),
        domain: printable(&report.policy_published.domain).to_ascii_lowercase(),
        policy: format!("{:?}", report.policy_published.p).to_ascii_lowercase(),
        begin: time(meta.date_range.begin),
        end: time(meta.date_range.end),
        count: report.record.iter().map(|record| u64::from(record.row.count)).sum(),
    }
}

impl Source {
    fn add(&mut self, record: &Record) {
        let count = u64::from(record.row.count);
        let evaluated = &record.row.policy_evaluated;
        let dkim = evaluated.dkim == DmarcResult::Pass;
        let spf = evaluated.spf == DmarcResult::Pass;
        self.count += count;
        self.dkim += if dkim { count } else { 0 };
        self.spf += if spf { count } else { 0 };
        self.passed += if dkim || spf { count } else { 0 };
        match evaluated.disposition {
            ActionDisposition::Quarantine => self.quarantined += count,
            ActionDisposition::Reject => self.rejected += count,
            _ => {}
        }
        for reason in &evaluated.reason {
            keep(&mut self.overrides, override_name(reason.type_).to_owned());
        }
        for one in &record.auth_results.dkim {
            keep(&mut self.signers, format!("{} {}", printable(&one.domain), word(&one.result)));
        }
        for one in &record.auth_results.spf {
            keep(&mut self.envelopes, format!("{} {}", printable(&one.domain), word(&one.result)));
        }
    }
}

fn keep(names: &mut BTreeSet<String>, name: String) {
    if names.len() < MOST_NAMES {
        names.insert(name);
    }
}

fn word(result: &impl std::fmt::Debug) -> String {
    format!("{result:?}").to_ascii_lowercase()
}

fn override_name(reason: PolicyOverride) -> &'static str {
    match reason {
        PolicyOverride::LocalPolicy => "local policy",
        PolicyOverride::MailingList => "mailing list",
        PolicyOverride::PolicyTestMode => "test mode",
        PolicyOverride::TrustedForwarder => "trusted forwarder",
        PolicyOverride::Other => "other",
    }
}
