//! The report (RFC 8460 section 4.4).

use std::io::Write as _;
use std::net::IpAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use postrider_mail::Domain;
use serde::Serialize;

use super::Day;
use super::tally::{Detail, PolicyTally, Tally};

/// The media type of a report (RFC 8460 section 6.5).
pub(crate) const MEDIA_TYPE: &str = "application/tlsrpt+gzip";

/// Who reports on whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    /// The sending organization's name.
    pub(crate) organization: &'a str,
    /// Who answers questions.
    pub(crate) contact: &'a str,
    /// The sending organization's domain.
    pub(crate) submitter: &'a str,
    pub(crate) domain: &'a Domain,
    pub(crate) day: Day,
}

impl About<'_> {
    /// The same for all that is sent of one domain's day, so that receivers know
    /// what they have already.
    pub(crate) fn id(&self) -> String {
        format!("{}.{}@{}", self.day.date(), self.domain, self.submitter)
    }

    /// RFC 8460 section 5.1
    pub(crate) fn file_name(&self) -> String {
        let (begin, end) = (self.day.begin().as_millis() / 1000, self.day.end().as_millis() / 1000);
        format!("{}!{}!{begin}!{end}.json.gz", self.submitter, self.domain)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    organization_name: &'a str,
    date_range: DateRange,
    contact_info: &'a str,
    report_id: String,
    policies: Vec<PolicyReport<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyReport<'a> {
    policy: Policy<'a>,
    summary: Summary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_details: Vec<FailureDetails<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Policy<'a> {
    policy_type: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    policy_string: &'a [String],
    policy_domain: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mx_host: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct FailureDetails<'a> {
    result_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sending_mta_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_helo: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_ip: Option<IpAddr>,
    failed_session_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason_code: Option<&'a str>,
}

/// The report as JSON.
pub(crate) fn json(about: &About<'_>, tally: &Tally) -> Vec<u8> {
    let report = Report {
        organization_name: about.organization,
        date_range: DateRange { start_datetime: about.day.first_second(), end_datetime: about.day.last_second() },
        contact_info: about.contact,
        report_id: about.id(),
        policies: tally.policies.iter().map(|policy| policy_report(about.domain, policy)).collect(),
    };
    // Strings, numbers and addresses always have a form in JSON.
    serde_json::to_vec(&report).unwrap_or_default()
}

fn policy_report<'a>(domain: &'a Domain, tally: &'a PolicyTally) -> PolicyReport<'a> {
    PolicyReport {
        policy: Policy {
            policy_type: tally.applied.kind.as_str(),
            policy_string: &tally.applied.strings,
            policy_domain: domain.as_str(),
            mx_host: &tally.applied.mx,
        },
        summary: Summary {
            total_successful_session_count: tally.successes,
            total_failure_session_count: tally.failures,
        },
        failure_details: tally.details.iter().map(failure_details).collect(),
    }
}

fn failure_details(Detail { what, count }: &Detail) -> FailureDetails<'_> {
    FailureDetails {
        result_type: what.result.as_str(),
        sending_mta_ip: what.sending,
        receiving_mx_hostname: what.host.as_deref(),
        receiving_mx_helo: what.helo.as_deref(),
        receiving_ip: what.receiving,
        failed_session_count: *count,
        failure_reason_code: what.reason.as_deref(),
    }
}

/// `bytes` in the gzip format, without a time.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}
