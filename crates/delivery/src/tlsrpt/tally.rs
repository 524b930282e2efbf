//! What is counted of a domain's day, within bounds: a row of the store holds it.

use std::net::IpAddr;

use postrider_mail::sanitize_text;
use serde::{Deserialize, Serialize};

use crate::sts::policy::Policy;
use crate::tls::FailureKind;

/// Policies of one domain that a day's report has. Sessions under others are not
/// counted.
const MOST_POLICIES: usize = 8;

/// Kinds of failures that are told apart, all policies together. Others count in
/// the sum alone.
const MOST_DETAILS: usize = 32;

/// Bytes of a policy that are repeated in the report.
const MOST_TEXT: usize = 2 * 1024;

/// A domain's day.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Tally {
    pub(crate) policies: Vec<PolicyTally>,
}

/// What came of sessions under one policy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct PolicyTally {
    pub(crate) applied: Applied,
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    pub(crate) details: Vec<Detail>,
}

/// A policy as it was found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Applied {
    pub(crate) kind: PolicyKind,
    /// The policy's lines, or the TLSA records.
    pub(crate) strings: Vec<String>,
    /// The mail hosts that it is for.
    pub(crate) mx: Vec<String>,
}

/// Where a policy comes from (RFC 8460 section 4.2).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PolicyKind {
    Tlsa,
    Sts,
    NoPolicyFound,
}

impl PolicyKind {
    /// As reports spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tlsa => "tlsa",
            Self::Sts => "sts",
            Self::NoPolicyFound => "no-policy-found",
        }
    }
}

impl Applied {
    pub(crate) fn none() -> Self {
        Self { kind: PolicyKind::NoPolicyFound, strings: Vec::new(), mx: Vec::new() }
    }

    pub(crate) fn sts(policy: &Policy) -> Self {
        let mx = policy.mx.iter().map(ToString::to_string).collect();
        Self { kind: PolicyKind::Sts, strings: cut(policy.lines()), mx: cut(mx) }
    }

    pub(crate) fn tlsa(records: &[String], host: &str) -> Self {
        Self { kind: PolicyKind::Tlsa, strings: cut(records.to_vec()), mx: vec![host.to_owned()] }
    }
}

fn cut(mut texts: Vec<String>) -> Vec<String> {
    let mut room = MOST_TEXT;
    texts.retain(|text| {
        let fits = text.len() <= room;
        room = room.saturating_sub(text.len());
        fits
    });
    texts
}

/// Failures of one kind, with one host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Detail {
    pub(crate) what: Failed,
    pub(crate) count: u64,
}

/// What tells failures apart.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Failed {
    pub(crate) result: ResultType,
    /// Our address.
    pub(crate) sending: Option<IpAddr>,
    pub(crate) host: Option<String>,
    /// What the host calls itself.
    pub(crate) helo: Option<String>,
    /// The host's address.
    pub(crate) receiving: Option<IpAddr>,
    /// One printable line.
    pub(crate) reason: Option<String>,
}

impl Failed {
    /// Words that may be a stranger's, as one printable line.
    pub(crate) fn reason(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| sanitize_text(text, 200))
    }
}

/// What went wrong, in the words of RFC 8460 section 4.3.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum ResultType {
    StartTlsNotSupported,
    CertificateHostMismatch,
    CertificateExpired,
    CertificateNotTrusted,
    ValidationFailure,
    DnssecInvalid,
    StsPolicyFetchError,
    StsPolicyInvalid,
    StsWebpkiInvalid,
    // Rows of the store know these by their order.
    TlsaInvalid,
}

impl ResultType {
    /// As reports spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::StartTlsNotSupported => "starttls-not-supported",
            Self::CertificateHostMismatch => "certificate-host-mismatch",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotTrusted => "certificate-not-trusted",
            Self::ValidationFailure => "validation-failure",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::StsPolicyFetchError => "sts-policy-fetch-error",
            Self::StsPolicyInvalid => "sts-policy-invalid",
            Self::StsWebpkiInvalid => "sts-webpki-invalid",
            Self::TlsaInvalid => "tlsa-invalid",
        }
    }
}

impl From<FailureKind> for ResultType {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::StartTlsNotSupported => Self::StartTlsNotSupported,
            FailureKind::CertificateHostMismatch => Self::CertificateHostMismatch,
            FailureKind::CertificateExpired => Self::CertificateExpired,
            FailureKind::CertificateNotTrusted => Self::CertificateNotTrusted,
            FailureKind::DnssecInvalid => Self::DnssecInvalid,
            FailureKind::TlsaInvalid => Self::TlsaInvalid,
            FailureKind::ValidationFailure => Self::ValidationFailure,
        }
    }
}

impl Tally {
    /// Counts a session under a policy. False when it could not be counted.
    pub(crate) fn count(&mut self, applied: &Applied, failed: Option<Failed>) -> bool {
        let details: usize = self.policies.iter().map(|policy| policy.details.len()).sum();
        let known = self.policies.iter().position(|policy| policy.applied == *applied);
        let at = match known {
            Some(at) => at,
            None if self.policies.len() < MOST_POLICIES => {
                let details = Vec::new();
                self.policies.push(PolicyTally { applied: applied.clone(), successes: 0, failures: 0, details });
                self.policies.len() - 1
            }
            None => return false,
        };
        let policy = &mut self.policies[at];
        let Some(failed) = failed else {
            policy.successes += 1;
            return true;
        };
        policy.failures += 1;
        match policy.details.iter_mut().find(|detail| detail.what == failed) {
            Some(detail) => detail.count += 1,
            None if details < MOST_DETAILS => policy.details.push(Detail { what: failed, count: 1 }),
            None => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: &str) -> Option<Failed> {
        Some(Failed {
            result: ResultType::ValidationFailure,
            sending: Some([192, 0, 2, 1].into()),
            host: Some("mx.example".repeat(25)),
            helo: Some("mx.example".repeat(25)),
            receiving: Some([0xffff; 8].into()),
            reason: Failed::reason(reason),
        })
    }

    #[test]
    fn equal_failures_are_one_line() {
        let mut tally = Tally::default();
        assert!(tally.count(&Applied::none(), None) && tally.count(&Applied::none(), failed("a")));
        assert!(tally.count(&Applied::none(), failed("a")) && tally.count(&Applied::none(), failed("b")));
        let [policy] = tally.policies.as_slice() else { panic!("{tally:?}") };
        assert_eq!((policy.successes, policy.failures), (1, 3));
        assert_eq!(policy.details.iter().map(|detail| detail.count).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn the_worst_day_fits_a_row_of_the_store() {
        let mut tally = Tally::default();
        for n in 0..100 {
            let long: Vec<_> = (0..300).map(|line| format!("{n} {line} {}", "x".repeat(99))).collect();
            let counted = tally.count(&Applied::tlsa(&long, &"mx.example".repeat(25)), failed(&n.to_string()));
            assert_eq!(counted, n < MOST_POLICIES - 1, "one of them is no policy");
            tally.count(&Applied::none(), failed(&format!("{n} {}", "y".repeat(900))));
        }
        assert_eq!(tally.policies.iter().map(|policy| policy.failures).sum::<u64>(), 100 + 7);
        let size = serde_json::to_vec(&tally).unwrap().len();
        assert!(size < 60 * 1024, "{size}");
    }
}
