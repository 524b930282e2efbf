//! Checks of a message that somebody hands over: SPF, DKIM, ARC, DMARC.
//!
//! mail-auth parses signatures and keys and does the cryptography. Its own evaluation asks a
//! resolver of its own, on a clock of its own; here all questions go through
//! [`postrider_dns::Resolver`], so that the daemon has one resolver and tests have zones, and
//! the time is passed in.
//!
//! Nothing that a stranger writes makes this long: at most [`Limits::signatures`] signatures
//! are looked at, keys are waited for [`Limits::time`] in all, SPF has its own limits, a walk
//! up the tree asks eight questions.

pub mod arc;
pub mod dkim;
pub mod dmarc;
mod key;
pub(crate) mod message;
pub mod spf;
pub(crate) mod tags;
#[cfg(test)]
mod tests;
mod verifier;
mod words;

use std::net::IpAddr;
use std::time::Duration;

use mail_parser::parsers::MessageStream;
use mail_parser::{Address, HeaderValue};
use postrider_base::Clock;
use postrider_dns::Resolver;
use postrider_mail::Domain;
use serde::{Deserialize, Serialize};

use arc::ArcReport;
use dkim::{DkimReport, DkimResult};
use dmarc::{DmarcReport, DmarcResult, Identifier};
use key::Keys;
use message::Message;
use spf::{SpfLimits, SpfQuery, SpfReport, SpfResult};

pub use verifier::{Looked, VerificationSettings, Verifier};

/// What is known of the connection that a message came over.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// The client's address; without it there is no SPF.
    pub ip: Option<IpAddr>,
    /// The name it gave in EHLO, empty if unknown.
    pub helo: &'a str,
    /// MAIL FROM without the brackets, empty for `<>`.
    pub mail_from: &'a str,
    /// Our own name, as in our `Authentication-Results`.
    pub receiver: &'a str,
}

/// How much work one message may make.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// DKIM signatures that are looked at, from the top; the others count as if absent.
    pub signatures: usize,
    /// Keys that are asked for, of DKIM signatures and ARC seals together. What needs one more
    /// does not pass.
    pub keys: usize,
    /// What SPF may ask.
    pub spf: SpfLimits,
    /// Header fields; a message with more is refused.
    pub fields: usize,
    /// Octets of the header; a message with more is refused. Each ARC link signs all before it.
    pub header: usize,
    /// Octets; a larger message is refused. The body is hashed at most twice, once for each
    /// canonical form.
    pub size: usize,
    /// The time to wait for all keys, and as much again for DMARC.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            signatures: 10,
            keys: 50,
            spf: SpfLimits::default(),
            fields: 2_000,
            header: 1 << 20,
            size: 64 << 20,
            time: Duration::from_secs(20),
        }
    }
}

/// Why a message was not looked at. It is the message's fault and does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is larger than [`Limits::size`].
    #[error("the message has more than {0} octets")]
    TooLarge(usize),
    /// Its header is larger than [`Limits::header`].
    #[error("the header of the message has more than {0} octets")]
    HeaderTooLarge(usize),
    /// It has more fields than [`Limits::fields`].
    #[error("the message has more than {0} header fields")]
    TooManyFields(usize),
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// SPF of MAIL FROM, or of the EHLO name where MAIL FROM is empty (RFC 7208 section 2.4).
    pub spf: Option<SpfReport>,
    /// Whether [`Verdict::spf`] is of the EHLO name.
    pub spf_of_helo: bool,
    /// Each signature looked at, from the top.
    pub dkim: Vec<DkimReport>,
    /// How many more there are.
    pub dkim_ignored: usize,
    /// The chain of those who passed it on.
    pub arc: ArcReport,
    /// What follows for the domain of From.
    pub dmarc: DmarcReport,
}

/// Looks at a message with CRLF line ends.
///
/// # Errors
/// When it exceeds the limits.
pub async fn verify(
    resolver: &dyn Resolver,
    clock: &Clock,
    message: &[u8],
    connection: &Connection<'_>,
    limits: &Limits,
) -> Result<Verdict, VerifyError> {
    if message.len() > limits.size {
        return Err(VerifyError::TooLarge(limits.size));
    }
    let mut message = Message::split(message, limits.fields).ok_or(VerifyError::TooManyFields(limits.fields))?;
    if message.header_size() > limits.header {
        return Err(VerifyError::HeaderTooLarge(limits.header));
    }
    let (spf, spf_of_helo) = check_spf(resolver, clock, connection, &limits.spf).await;
    let mut keys = Keys::new(resolver, limits.keys, clock.instant() + limits.time);
    let now = clock.now().as_millis() / 1000;
    let signatures: Vec<_> = message.all("DKIM-Signature").collect();
    let looked_at = || signatures.iter().take(limits.signatures);
    message.expect_limits(looked_at().filter_map(|field| dkim::limit_of(field.value)).collect());
    let mut dkim = Vec::new();
    for field in looked_at() {
        dkim.push(dkim::verify(&mut message, *field, &mut keys, now).await);
    }
    let arc = arc::verify(&mut message, &mut keys, now).await;
    let dmarc = check_dmarc(resolver, &message, spf.as_ref(), &dkim, limits).await;
    let dkim_ignored = signatures.len() - dkim.len();
    Ok(Verdict { spf, spf_of_helo, dkim, dkim_ignored, arc, dmarc })
}

async fn check_spf(
    resolver: &dyn Resolver,
    clock: &Clock,
    connection: &Connection<'_>,
    limits: &SpfLimits,
) -> (Option<SpfReport>, bool) {
    let of_helo = connection.mail_from.is_empty();
    let Some(ip) = connection.ip else { return (None, of_helo) };
    let domain = connection.mail_from.rsplit_once('@').map_or(connection.helo, |(_, domain)| domain);
    let query = SpfQuery {
        ip,
        domain,
        sender: connection.mail_from,
        helo: connection.helo,
        receiver: connection.receiver,
        at: clock.now(),
    };
    (Some(spf::evaluate_within(resolver, &query, limits).await), of_helo)
}

async fn check_dmarc(
    resolver: &dyn Resolver,
    message: &Message<'_>,
    spf: Option<&SpfReport>,
    dkim: &[DkimReport],
    limits: &Limits,
) -> DmarcReport {
    let nothing = |result, domain, reason: &str| DmarcReport {
        result,
        domain,
        policy: None,
        spf: false,
        dkim: false,
        reason: reason.to_owned(),
    };
    let from = match authors(message).as_slice() {
        [Some(from)] => from.clone(),
        [] | [None] => return nothing(DmarcResult::None, String::new(), "From names no domain"),
        // RFC 9989 section 5.3.1
        _ => return nothing(DmarcResult::None, String::new(), "From names more than one domain"),
    };
    let spf: Vec<_> = spf
        .map(|spf| Identifier {
            domain: &spf.domain,
            passes: spf.result == SpfResult::Pass,
            temporary: spf.result == SpfResult::TempError,
        })
        .into_iter()
        .collect();
    let dkim: Vec<_> = dkim
        .iter()
        .map(|one| Identifier {
            domain: &one.domain,
            passes: one.result == DkimResult::Pass,
            temporary: one.result == DkimResult::TempError,
        })
        .collect();
    let evaluation = dmarc::evaluate(resolver, &from, &spf, &dkim);
    match tokio::time::timeout(limits.time, evaluation).await {
        Ok(report) => report,
        Err(_) => nothing(DmarcResult::TempError, from.to_string(), "the DNS did not answer in time"),
    }
}

/// The domains of all authors, each once; `None` stands for those without one.
fn authors(message: &Message<'_>) -> Vec<Option<Domain>> {
    let mut domains = Vec::new();
    for field in message.all("From") {
        let HeaderValue::Address(address) = MessageStream::new(field.value).parse_address() else { continue };
        let mailboxes: Vec<_> = match &address {
            Address::List(list) => list.iter().collect(),
            Address::Group(groups) => groups.iter().flat_map(|group| &group.addresses).collect(),
        };
        for mailbox in mailboxes {
            let address = mailbox.address.as_deref().unwrap_or_default();
            let domain = address.rsplit_once('@').and_then(|(_, domain)| domain.parse::<Domain>().ok());
            let domain = domain.filter(|domain| domain.literal().is_none());
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
    }
    domains
}
