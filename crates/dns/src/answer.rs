//! Questions and answers.

use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use postrider_mail::Domain;

use crate::dnssec::Validation;

/// A boxed future that may be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a question ends in.
pub type Reply<T> = Result<Answer<Vec<T>>, DnsError>;

/// Asks the DNS. An answer holds at least one record; that there are none is
/// an error, because every caller must decide about it.
pub trait Resolver: Send + Sync {
    /// The mail exchangers of a domain, best preference first, among equals by
    /// name, proved by DNSSEC where that can be. An address literal has none
    /// ([`DnsError::NoRecords`]).
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Reply<Mx>>;

    /// The addresses of a host, IPv4 first, as the name servers say: nothing is
    /// validated, because operators name hosts that the public DNS does not
    /// know. A text that is an address is its own answer. When one family can not be looked
    /// up, the other's records are the answer, which says so ([`Answer::partial`]); without
    /// any the failure is.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>>;

    /// [`Resolver::addresses`] of a host that a stranger named, proved by DNSSEC
    /// where that can be: says of the answer whether it is, and which name the
    /// addresses are really those of. What should be proved and is not, is
    /// [`DnsError::Bogus`]. Unless implemented nothing is proved.
    fn proved_addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>> {
        self.addresses(host)
    }

    /// The certificates that belong to the service at a port of a host
    /// (RFC 6698 section 3): the TLSA records of `_25._tcp.host`. An answer that
    /// is not authenticated must not be used (RFC 6698 section 4.1). Unless
    /// implemented there are none.
    fn tlsa<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Reply<Tlsa>> {
        let _ = (host, port);
        Box::pin(async { Err(DnsError::NoRecords { ttl: Duration::ZERO, proved: false }) })
    }

    /// The texts of a name, each record's strings joined (RFC 7208 section
    /// 3.3). They are the remote's words: not made printable.
    fn txt<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Reply<String>>;

    /// The names of an address, lower case, without the final dot.
    fn ptr<'a>(&'a self, ip: IpAddr) -> BoxFuture<'a, Reply<String>>;

    /// Whether answers are validated at the moment.
    fn validation(&self) -> Validation {
        Validation::Off
    }
}

/// An answer of the DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The records.
    pub value: T,
    /// How long they may be kept.
    pub ttl: Duration,
    /// Whether DNSSEC proved them, with every alias on the way to them.
    pub authenticated: bool,
    /// Where they were found, when the name that was asked for is an alias.
    pub alias: Option<Alias>,
    /// Whether there may be more: of a host's addresses those of one family could not be
    /// looked up. That there are none of that family must not be concluded then.
    pub partial: bool,
}

/// What CNAME records made of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The name at the end of them, lower case, without the final dot.
    pub target: Arc<str>,
    /// Whether the first of them is proved by DNSSEC: then the zone of the name
    /// that was asked for is signed, wherever the name leads (RFC 7672 section
    /// 2.2.2).
    pub first_proved: bool,
}

/// What a domain says about a certificate (RFC 6698 section 2.1). The numbers
/// are as they came: what they mean, and whether anything, is the reader's
/// business.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tlsa {
    /// Certificate usage.
    pub usage: u8,
    /// Selector: what of the certificate is compared.
    pub selector: u8,
    /// Matching type: how.
    pub matching: u8,
    /// With what.
    pub data: Vec<u8>,
}

/// A mail exchanger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mx {
    /// Lower is better.
    pub preference: u16,
    /// The host, lower case, without the final dot; empty for the root, which
    /// names no host.
    pub exchange: String,
}

impl Answer<Vec<Mx>> {
    /// Whether the domain says that it takes no mail: `MX 0 .` (RFC 7505
    /// section 3). Several records that all name the root say the same.
    pub fn is_null_mx(&self) -> bool {
        !self.value.is_empty() && self.value.iter().all(|mx| mx.exchange.is_empty())
    }
}

/// Why there is no answer. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// NXDOMAIN: the name does not exist. Whoever wrote the name or keeps its
    /// zone is at fault; asking again within `ttl` does not help.
    #[error("domain does not exist")]
    NoSuchDomain {
        /// How long this may be kept (RFC 2308 section 5).
        ttl: Duration,
        /// Whether DNSSEC proved it.
        proved: bool,
    },
    /// The name exists and has no record of this type. Asking again within
    /// `ttl` does not help.
    #[error("no such records")]
    NoRecords {
        /// How long this may be kept (RFC 2308 section 5).
        ttl: Duration,
        /// Whether DNSSEC proved it.
        proved: bool,
    },
    /// No name server gave a usable answer: SERVFAIL, time out, network. The
    /// zone's or our own servers are at fault, and it may pass.
    #[error("temporary DNS failure: {reason}")]
    Temporary {
        /// One printable line for the log.
        reason: Arc<str>,
    },
    /// DNSSEC says that the answer should be proved and it is not: it was
    /// tampered with, its signatures have expired, or its zone is in disorder.
    /// Nothing of it may be believed (RFC 4035 section 4.3). Not our fault, and
    /// it may pass.
    #[error("DNSSEC validation failed: {reason}")]
    Bogus {
        /// One printable line for the log.
        reason: Arc<str>,
    },
    /// The question is no DNS name. The caller is at fault; it does not pass.
    #[error("not a DNS name")]
    Invalid,
    /// The system's or the configured resolver settings can not be used. The
    /// operator is at fault; it does not pass.
    #[error("the resolver can not be set up: {reason}")]
    Setup {
        /// What is wrong with them.
        reason: Arc<str>,
    },
}

impl DnsError {
    /// A temporary failure with this reason.
    pub(crate) fn temporary(reason: &str) -> DnsError {
        let reason = postrider_mail::sanitize_text(reason, 200).into();
        DnsError::Temporary { reason }
    }

    /// An answer that must not be believed, for this reason.
    pub(crate) fn bogus(reason: &str) -> DnsError {
        let reason = postrider_mail::sanitize_text(reason, 200).into();
        DnsError::Bogus { reason }
    }

    /// Whether asking later may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, DnsError::Temporary { .. } | DnsError::Bogus { .. })
    }

    /// Whether there surely is nothing of the kind.
    pub fn is_absence(&self) -> bool {
        matches!(self, DnsError::NoSuchDomain { .. } | DnsError::NoRecords { .. })
    }
}

/// The answer to an address question that is an address already, in brackets
/// or not, with or without the tag of RFC 5321 section 4.1.3.
pub fn literal_address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let tagged =
        bare.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).and_then(|_| bare[5..].parse::<Ipv6Addr>().ok());
    tagged.map(IpAddr::V6).or_else(|| bare.parse().ok())
}

/// The longest that anything is kept: a week (RFC 8767 section 4).
pub(crate) const FOREVER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// [`literal_address`] as an answer.
pub(crate) fn literal_answer(host: &str) -> Option<Answer<Vec<IpAddr>>> {
    literal_address(host).map(|ip| Answer {
        value: vec![ip],
        ttl: FOREVER,
        authenticated: true,
        alias: None,
        partial: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(exchanges: &[&str]) -> Answer<Vec<Mx>> {
        let mx = |exchange: &&str| Mx { preference: 0, exchange: (*exchange).to_owned() };
        let value = exchanges.iter().map(mx).collect();
        Answer { value, ttl: Duration::ZERO, authenticated: false, alias: None, partial: false }
    }

    #[test]
    fn null_mx() {
        assert!(answer(&[""]).is_null_mx());
        assert!(!answer(&["mx.example.com"]).is_null_mx());
        assert!(!answer(&["", "mx.example.com"]).is_null_mx());
    }

    #[test]
    fn addresses_answer_themselves() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(literal_address("2001:db8::1"), Some(v6));
        assert_eq!(literal_address("[2001:db8::1]"), Some(v6));
        assert_eq!(literal_address("[IPv6:2001:db8::1]"), Some(v6));
        assert!(literal_address("[192.0.2.1]").is_some());
        assert_eq!(literal_address("mx.example.com"), None);
        assert_eq!(literal_address("[192.0.2.1"), None);
    }

    #[test]
    fn a_reason_is_one_line() {
        let error = DnsError::temporary("a\nb");
        assert_eq!(error.to_string(), "temporary DNS failure: a?b");
    }
}
