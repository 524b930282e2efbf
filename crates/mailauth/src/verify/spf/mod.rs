//! SPF (RFC 7208): whether a domain lets an address send in its name.
//!
//! mail-auth's evaluation asks a resolver of its own and keeps no account of its lookups;
//! this one asks [`Resolver`] and reports each, because "which of your includes is the
//! eleventh" is what an operator has to know.

mod evaluate;
mod macros;
mod record;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_dns::Resolver;
use serde::{Deserialize, Serialize};

use crate::verify::words::words;
use evaluate::Evaluation;

/// Terms that ask the DNS, in all records of one evaluation (RFC 7208 section 4.6.4).
pub const MOST_LOOKUPS: usize = 10;
/// Such terms that find nothing (RFC 7208 section 4.6.4).
pub const MOST_VOID_LOOKUPS: usize = 2;
/// A survey goes on beyond the limit up to here, to say by how much it is exceeded.
const MOST_SURVEYED: usize = 50;
/// The time for one evaluation; RFC 7208 section 4.6.4 asks for at least 20 s.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// What SPF says (RFC 7208 section 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpfResult {
    /// The domain publishes nothing, or is no domain.
    None,
    /// The domain says nothing about this address.
    Neutral,
    /// The address may send in the domain's name.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// The DNS could not be asked: it may pass later.
    TempError,
    /// The published records can not be understood, or need too many lookups.
    PermError,
}

words! {
    /// The word of RFC 8601 section 2.7.2.
    SpfResult {
        None => "none",
        Neutral => "neutral",
        Pass => "pass",
        Fail => "fail",
        SoftFail => "softfail",
        TempError => "temperror",
        PermError => "permerror",
    }
}

/// How much one evaluation may ask. The defaults are the RFC's: with less, records that others
/// understand do not pass here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpfLimits {
    /// Terms that ask the DNS, in all records together.
    pub lookups: usize,
    /// Such terms that find nothing.
    pub void: usize,
    /// The time for all of them.
    pub time: Duration,
}

impl Default for SpfLimits {
    fn default() -> SpfLimits {
        SpfLimits { lookups: MOST_LOOKUPS, void: MOST_VOID_LOOKUPS, time: TIME_LIMIT }
    }
}

/// The question of RFC 7208 section 4.1.
#[derive(Clone, Copy, Debug)]
pub struct SpfQuery<'a> {
    /// The address of the client.
    pub ip: IpAddr,
    /// The domain whose record is looked up: of MAIL FROM, or of the EHLO name.
    pub domain: &'a str,
    /// The whole address of MAIL FROM; empty for `<>` and for a check of the EHLO name.
    pub sender: &'a str,
    /// The EHLO name.
    pub helo: &'a str,
    /// Our own name, for explanations (`%{r}`).
    pub receiver: &'a str,
    /// The time, for explanations (`%{t}`).
    pub at: Timestamp,
}

/// The answer, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpfReport {
    /// What SPF says.
    pub result: SpfResult,
    /// The domain that was asked about.
    pub domain: String,
    /// Its own record, printable; none when there is not exactly one.
    pub record: Option<String>,
    /// The term that decided, as `-all` or `include:example.net`, with the domain of its
    /// record when that is another.
    pub matched: Option<String>,
    /// Why, in a sentence for people.
    pub reason: String,
    /// The domain's own words on a failure (RFC 7208 section 6.2), printable, at most 500
    /// characters. A stranger wrote them.
    pub explanation: Option<String>,
    /// Each term that asked the DNS, in their order.
    pub lookups: Vec<Lookup>,
    /// How many of them found nothing.
    pub void: usize,
}

/// A term that asked the DNS and counts among the ten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Whose record the term is in.
    pub domain: String,
    /// The term, as `include:_spf.example.net`.
    pub term: String,
    /// The name that it asked for.
    pub target: String,
    /// How deep the record is: 0 for the domain's own.
    pub depth: usize,
    /// Whether there was nothing.
    pub void: bool,
}

/// Asks whether `query.ip` may send in the name of `query.domain`: `check_host()` of RFC
/// 7208 section 4. Takes at most 20 s, and at most 10 counted lookups of which 2 find nothing.
pub async fn evaluate(resolver: &dyn Resolver, query: &SpfQuery<'_>) -> SpfReport {
    evaluate_within(resolver, query, &SpfLimits::default()).await
}

/// As [`evaluate`], within other bounds.
pub async fn evaluate_within(resolver: &dyn Resolver, query: &SpfQuery<'_>, limits: &SpfLimits) -> SpfReport {
    run(resolver, query, limits).await
}

/// Follows all that the record of `domain` names, for an address that none of it lists: what
/// a receiver has to look up in the worst case. It counts on beyond the limits, to 50, so that
/// the result is not that of a receiver: look at `lookups` and `void`.
pub async fn survey(resolver: &dyn Resolver, domain: &str) -> SpfReport {
    let query = SpfQuery {
        // Of the block for documentation (RFC 5737): nobody's source address.
        ip: IpAddr::from([203, 0, 113, 255]),
        domain,
        sender: "",
        helo: domain,
        receiver: "unknown",
        at: Timestamp::default(),
    };
    let limits = SpfLimits { lookups: MOST_SURVEYED, void: MOST_SURVEYED, ..SpfLimits::default() };
    run(resolver, &query, &limits).await
}

async fn run(resolver: &dyn Resolver, query: &SpfQuery<'_>, limits: &SpfLimits) -> SpfReport {
    let mut evaluation = Evaluation::new(resolver, query, limits.lookups, limits.void);
    let result = tokio::time::timeout(limits.time, evaluation.whole()).await;
    match result {
        Ok(result) => evaluation.into_report(result),
        Err(_) => {
            evaluation.say(format!("the DNS did not answer within {} s", limits.time.as_secs()));
            evaluation.into_report(SpfResult::TempError)
        }
    }
}
