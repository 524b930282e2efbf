//! Domain names and address literals, in one canonical spelling.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::AddressError;

/// RFC 5321 section 4.5.3.1.2
const MAX_DOMAIN: usize = 255;
/// RFC 1035 section 2.3.4
const MAX_LABEL: usize = 63;
/// Longer input is refused before the costly mapping of international names.
const MAX_INPUT: usize = 1024;

/// A domain name in A-label lower case form, or an address literal such as
/// `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
///
/// Equal domains are equal bytes. Cloning copies a pointer. At most 255
/// octets; always ASCII, without control characters or spaces.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

impl Domain {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address inside an address literal, or `None` for a domain name.
    pub fn literal(&self) -> Option<IpAddr> {
        parse_literal(self.0.strip_prefix('[')?)
    }

    /// The name itself, then the domains it lies in, the nearest first, down to the top-level
    /// one. A literal lies in none.
    pub fn with_parents(&self) -> impl Iterator<Item = &str> {
        let is_name = !self.0.starts_with('[');
        std::iter::successors(Some(self.as_str()), move |name| {
            name.split_once('.').map(|(_, parent)| parent).filter(|_| is_name)
        })
    }

    /// A literal's domain: what mail to `user@[address]` is sent to.
    pub fn from_ip(ip: IpAddr) -> Domain {
        Domain(canonical_literal(ip).into())
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    /// Reads a domain in any case, in U-label or A-label form, or a literal.
    fn from_str(text: &str) -> Result<Domain, AddressError> {
        canonical(text).map(|text| Domain(text.into()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.0)
    }
}

impl AsRef<str> for Domain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Domain, D::Error> {
        crate::text::deserialize_from_str(deserializer, "a domain")
    }
}

/// The one spelling of a domain or literal, borrowed when `text` is it already.
fn canonical(text: &str) -> Result<Cow<'_, str>, AddressError> {
    if text.len() > MAX_INPUT {
        return Err(AddressError::DomainTooLong);
    }
    if let Some(inside) = text.strip_prefix('[') {
        let ip = parse_literal(inside).ok_or(AddressError::Literal)?;
        return Ok(Cow::Owned(canonical_literal(ip)));
    }
    let name = if text.is_ascii() {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        }
    } else {
        // RFC 5891 section 4, with the mapping of UTS 46 that mail clients apply.
        Cow::Owned(idna::domain_to_ascii(text).map_err(|_| AddressError::Domain)?)
    };
    check_host_name(&name)?;
    Ok(name)
}

/// RFC 5321 section 4.1.2: `Domain = sub-domain *("." sub-domain)`.
fn check_host_name(name: &str) -> Result<(), AddressError> {
    if name.len() > MAX_DOMAIN {
        return Err(AddressError::DomainTooLong);
    }
    for label in name.split('.') {
        if label.len() > MAX_LABEL {
            return Err(AddressError::DomainTooLong);
        }
        let bytes = label.as_bytes();
        let letters_only = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if bytes.is_empty() || !letters_only || bytes.first() == Some(&b'-') || bytes.last() == Some(&b'-') {
            return Err(AddressError::Domain);
        }
    }
    Ok(())
}

/// Reads what follows the opening bracket. RFC 5321 section 4.1.3; other
/// tagged literals have never been registered.
fn parse_literal(inside: &str) -> Option<IpAddr> {
    let inside = inside.strip_suffix(']')?;
    match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inside[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inside.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn canonical_literal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<String, AddressError> {
        text.parse::<Domain>().map(|d| d.as_str().to_owned())
    }

    #[test]
    fn names_are_lower_case_a_labels() {
        assert_eq!(parse("Example.COM").unwrap(), "example.com");
        assert_eq!(parse("bücher.example").unwrap(), "xn--bcher-kva.example");
        assert_eq!(parse("BÜCHER.example").unwrap(), "xn--bcher-kva.example");
        assert_eq!(parse("localhost").unwrap(), "localhost");
    }

    #[test]
    fn a_name_lies_in_its_parents() {
        let lineage = |text: &str| {
            let domain: Domain = text.parse().unwrap();
            domain.with_parents().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lineage("a.Example.com"), ["a.example.com", "example.com", "com"]);
        assert_eq!(lineage("localhost"), ["localhost"]);
        assert_eq!(lineage("[192.0.2.1]"), ["[192.0.2.1]"]);
    }

    #[test]
    fn literals_are_canonical() {
        assert_eq!(parse("[192.0.2.1]").unwrap(), "[192.0.2.1]");
        assert_eq!(parse("[ipv6:2001:DB8:0::1]").unwrap(), "[IPv6:2001:db8::1]");
        let domain: Domain = "[192.0.2.1]".parse().unwrap();
        assert_eq!(domain.literal(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(Domain::from_ip("192.0.2.1".parse().unwrap()), domain);
        assert_eq!("example.com".parse::<Domain>().unwrap().literal(), None);
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a.b",
            "a-.b",
            "a b",
            "a_b",
            "a\r\nb",
            "ex\u{7f}.com",
            "a\u{200b}\u{2028}b.c",
        ] {
            assert_eq!(parse(bad), Err(AddressError::Domain), "{bad:?}");
        }
        for bad in ["[", "[]", "[1.2.3]", "[2001:db8::1]", "[192.0.2.1", "[x:y]"] {
            assert_eq!(parse(bad), Err(AddressError::Literal), "{bad:?}");
        }
        let label = "a".repeat(64);
        assert_eq!(parse(&label), Err(AddressError::DomainTooLong));
        let long = ["abcdefg"; 33].join(".");
        assert_eq!(parse(&long), Err(AddressError::DomainTooLong));
    }

    proptest! {
        #[test]
        fn display_parses_back(text in "[a-zA-Z0-9.äöüß\\[\\]:-]{0,40}") {
            if let Ok(domain) = text.parse::<Domain>() {
                prop_assert_eq!(domain.to_string().parse::<Domain>().unwrap(), domain);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Ok(domain) = text.parse::<Domain>() {
                prop_assert!(domain.as_str().bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
