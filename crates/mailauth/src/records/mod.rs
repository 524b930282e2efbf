//! What a domain should publish so that its mail is authenticated, and whether it does.
//!
//! [`plan`] makes the records from what the relay knows, [`Plan::check`] compares them with
//! the DNS, and [`Format`] writes them in the forms that DNS servers and consoles read.

mod check;
mod plan;
mod spf;
mod write;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub(crate) use check::is_key_record;
pub use check::{State, compare};
pub use plan::{PlanInput, PlannedKey, PlannedSource, plan};
pub use spf::{include_of, merged};
pub use write::Format;
pub(crate) use write::strings;

/// How long resolvers may keep what we ask people to publish, in seconds: short enough to
/// mend a mistake within the hour.
pub const TTL: u32 = 3600;

/// Everything to publish for one domain.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Plan {
    /// The domain that sends.
    pub domain: String,
    /// What to publish, the most important first within each place.
    pub records: Vec<Record>,
    /// What cannot be planned and why, one line each.
    pub notes: Vec<String>,
}

/// One record to publish.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// The whole name, lower case, without the final dot.
    pub name: String,
    /// Type and value.
    #[serde(flatten)]
    pub data: Data,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
    /// In whose DNS it belongs.
    pub place: Place,
    /// What happens without it.
    pub need: Need,
    /// What it is for, in one line.
    pub why: String,
    /// What we had published under its name before, and nobody needs any more: it takes the place of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// What the DNS has at the moment; none when nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// The type and value of a record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", content = "value", rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A host that takes mail.
    Mx {
        /// Lower is better.
        preference: u16,
        /// The host, without the final dot.
        exchange: String,
    },
    /// The name of an address.
    Ptr(String),
    /// A text, however long; it is cut into strings where it is written.
    Txt(String),
}

impl Data {
    /// The record of an address.
    #[must_use]
    pub fn address(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::A(v4),
            IpAddr::V6(v6) => Self::Aaaa(v6),
        }
    }

    /// The name of the type.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::A(_) => "A",
            Self::Aaaa(_) => "AAAA",
            Self::Mx { .. } => "MX",
            Self::Ptr(_) => "PTR",
            Self::Txt(_) => "TXT",
        }
    }

    /// The tag that a text of its kind begins with (`v=DMARC1`), by which another version of
    /// the same record is known.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Txt(text) => tag(text),
            _ => None,
        }
    }
}

/// `v=...` at the beginning of a text.
fn tag(text: &str) -> Option<&str> {
    let first = text.split([';', ' ']).next().unwrap_or_default().trim();
    first.starts_with("v=").then_some(first)
}

impl fmt::Display for Data {
    /// The value for people: texts without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(ip) => ip.fmt(f),
            Self::Aaaa(ip) => ip.fmt(f),
            Self::Mx { preference, exchange } => write!(f, "{preference} {exchange}."),
            Self::Ptr(name) => write!(f, "{name}."),
            Self::Txt(text) => f.write_str(text),
        }
    }
}

/// Who has to publish a record.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Whoever keeps the DNS of the domain that sends.
    Domain,
    /// Whoever runs this relay, in the DNS of their own domain.
    Operator,
    /// Whoever the source addresses come from: their reverse DNS.
    Network,
}

impl Place {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Domain => "the DNS of the sending domain",
            Self::Operator => "the DNS of whoever runs the relay",
            Self::Network => "the reverse DNS, kept by whoever the addresses come from",
        }
    }
}

/// How much a record is needed, in the sense of RFC 2119.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Mail is not authenticated, or refused, without.
    Must,
    /// Large receivers ask for it.
    Should,
    /// It helps.
    May,
}

impl Need {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::May => "may",
        }
    }
}

/// The name under which the names of an address are found (RFC 1035 section 3.5, RFC 3596
/// section 2.5), without the final dot.
#[must_use]
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_those_of_the_rfcs() {
        assert_eq!(reverse_name("192.0.2.5".parse().unwrap()), "5.2.0.192.in-addr.arpa");
        // RFC 3596 section 2.5
        assert_eq!(
            reverse_name("4321:0:1:2:3:4:567:89ab".parse().unwrap()),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa"
        );
    }

    #[test]
    fn tags_tell_versions_of_a_record() {
        assert_eq!(tag("v=spf1 -all"), Some("v=spf1"));
        assert_eq!(tag("v=DMARC1;p=none"), Some("v=DMARC1"));
        assert_eq!(tag("v=DKIM1 ; k=rsa"), Some("v=DKIM1"));
        assert_eq!(tag("site-verification=v=spf1"), None);
    }
}
