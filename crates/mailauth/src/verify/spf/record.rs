//! The text of an SPF record (RFC 7208 sections 4.6.1 and 12).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::SpfResult;
use super::macros::MacroString;
use crate::verify::tags::printable;

/// A record that keeps to the grammar.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) directives: Vec<Directive>,
    pub(super) redirect: Option<(MacroString, String)>,
    pub(super) explanation: Option<MacroString>,
}

/// What to say of an address, and which addresses.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) result: SpfResult,
    pub(super) mechanism: Mechanism,
    /// As it is written.
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) enum Mechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Prefix),
    Mx(Option<MacroString>, Prefix),
    Ptr(Option<MacroString>),
    Ip(IpAddr, u8),
    Exists(MacroString),
}

/// The lengths of an IPv4 and of an IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    v4: u8,
    v6: u8,
}

impl Prefix {
    pub(super) fn holds(self, network: IpAddr, ip: IpAddr) -> bool {
        in_network(network, if network.is_ipv4() { self.v4 } else { self.v6 }, ip)
    }
}

/// Whether an address lies in a network. Addresses of different families never do.
pub(super) fn in_network(network: IpAddr, length: u8, ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            (u32::from(network) ^ u32::from(ip)) & mask == 0
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            (u128::from(network) ^ u128::from(ip)) & mask == 0
        }
        _ => false,
    }
}

/// Whether a TXT record is an SPF record: the version, then a space or the end.
/// RFC 7208 section 4.5
pub(super) fn is_spf(text: &str) -> bool {
    let version = text.get(..6).is_some_and(|version| version.eq_ignore_ascii_case("v=spf1"));
    version && matches!(text.as_bytes().get(6), None | Some(b' '))
}

impl Record {
    /// Reads a record. Any error anywhere is one of the whole (RFC 7208 section 4.6); the error
    /// names the term.
    pub(super) fn parse(text: &str) -> Result<Record, String> {
        let mut record = Record { directives: Vec::new(), redirect: None, explanation: None };
        for term in text.get(6..).unwrap_or_default().split(' ').filter(|term| !term.is_empty()) {
            record.add(term).ok_or_else(|| format!("the term \"{}\" is not understood", printable(term)))?;
        }
        Ok(record)
    }

    fn add(&mut self, term: &str) -> Option<()> {
        let Some((name, value)) = modifier(term) else {
            self.directives.push(directive(term)?);
            return Some(());
        };
        // RFC 7208 section 6: each may appear once; unknown ones are ignored.
        match name.to_ascii_lowercase().as_str() {
            "redirect" if self.redirect.is_none() => {
                self.redirect = Some((MacroString::domain(value)?, term.to_owned()));
            }
            "exp" if self.explanation.is_none() => self.explanation = Some(MacroString::domain(value)?),
            "redirect" | "exp" => return None,
            _ => drop(MacroString::text(value)?),
        }
        Some(())
    }
}

/// RFC 7208 section 12: `unknown-modifier = name "=" macro-string`.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let first = name.bytes().next()?.is_ascii_alphabetic();
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (first && rest).then_some((name, value))
}

fn directive(term: &str) -> Option<Directive> {
    let (result, bare) = match term.as_bytes().first()? {
        b'+' => (SpfResult::Pass, &term[1..]),
        b'-' => (SpfResult::Fail, &term[1..]),
        b'~' => (SpfResult::SoftFail, &term[1..]),
        b'?' => (SpfResult::Neutral, &term[1..]),
        _ => (SpfResult::Pass, term),
    };
    let end = bare.find([':', '/']).unwrap_or(bare.len());
    let (name, rest) = bare.split_at(end);
    let mechanism = mechanism(&name.to_ascii_lowercase(), rest)?;
    Some(Directive { result, mechanism, text: term.to_owned() })
}

fn mechanism(name: &str, rest: &str) -> Option<Mechanism> {
    let argument = rest.strip_prefix(':');
    Some(match name {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(MacroString::domain(argument?)?),
        "exists" => Mechanism::Exists(MacroString::domain(argument?)?),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(MacroString::domain(argument?)?)),
        "a" | "mx" => {
            let (rest, prefix) = dual_prefix(rest)?;
            let domain = match rest.strip_prefix(':') {
                Some(domain) => Some(MacroString::domain(domain)?),
                None if rest.is_empty() => None,
                None => return None,
            };
            if name == "a" { Mechanism::A(domain, prefix) } else { Mechanism::Mx(domain, prefix) }
        }
        "ip4" => {
            let (address, length) = single_prefix(argument?, 32)?;
            Mechanism::Ip(address.parse::<Ipv4Addr>().ok()?.into(), length)
        }
        "ip6" => {
            let (address, length) = single_prefix(argument?, 128)?;
            Mechanism::Ip(address.parse::<Ipv6Addr>().ok()?.into(), length)
        }
        _ => return None,
    })
}

/// Takes `[/length][//length]` off the end. What is no length stays, and is then no domain.
fn dual_prefix(text: &str) -> Option<(&str, Prefix)> {
    let (text, v6) = match text.rsplit_once("//") {
        Some((rest, digits)) => (rest, length(digits, 128)?),
        None => (text, 128),
    };
    match text.rsplit_once('/').and_then(|(rest, digits)| Some((rest, number(digits)?))) {
        Some((rest, v4)) if v4 <= 32 => Some((rest, Prefix { v4, v6 })),
        Some(_) => None,
        None => Some((text, Prefix { v4: 32, v6 })),
    }
}

fn single_prefix(text: &str, most: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        Some((address, digits)) => Some((address, length(digits, most)?)),
        None => Some((text, most)),
    }
}

fn length(digits: &str, most: u8) -> Option<u8> {
    number(digits).filter(|length| *length <= most)
}

/// A number without leading zeros.
fn number(digits: &str) -> Option<u8> {
    let plain = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
    (plain && !digits.is_empty() && digits.len() <= 3).then(|| digits.parse().unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_ends() {
        assert!(is_spf("v=spf1") && is_spf("V=SPF1 -all"));
        assert!(!is_spf("v=spf10 -all") && !is_spf("v=spf1\t-all") && !is_spf("v=spf") && !is_spf("äv=spf1"));
    }

    /// Terms, with bars between.
    const GOOD: &str = "all | -all | ?ALL | a | a:example.com | a/24 | a//64 | a/0//0 | mx:%{d}/8//9 | ptr | ptr:a.b | \
        ip4:192.0.2.0/24 | ip6:2001:db8::/32 | ip6:::1 | include:_spf.example.com | \
        exists:%{ir}.list.example | redirect=%{d} | exp=a.b | moo= | x.y-z_1=%{s} | a:example.com.";

    /// What is none, or comes twice.
    const BAD: &str = "all:a | all/8 | - | include | include: | include:a.b/24 | exists | a: | a:/24 | a/33 | a//129 | \
        a/024 | a:foo-bar | a:a.b/ | a:1.2.3.4 | a:a.-b | ip4 | ip4:1.2.3 | ip4:1.2.3.4/33 | ip4:1.2.3.4/ | \
        ip4:1.2.3.4//32 | ip6:1.2.3.4 | ip6:::1/129 | moo | redirect:a.b | redirect= | exp= | a:%{x}.b | \
        a:%{d0}.b | a:%(d).b | a:%{d | a:% | exists:%{c}.b | exists:%{t}.b | redirect=a.b redirect=a.b | \
        exp=a.b exp=a.b | moo=% | ip4:äää | --all";

    #[test]
    fn terms_keep_to_the_grammar() {
        for (terms, is_good) in [(GOOD, true), (BAD, false)] {
            for term in terms.split(" | ") {
                assert_eq!(Record::parse(&format!("v=spf1 {term}")).is_ok(), is_good, "{term}");
            }
        }
    }

    #[test]
    fn networks() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(in_network(ip("192.0.2.0"), 24, ip("192.0.2.255")));
        assert!(!in_network(ip("192.0.2.0"), 24, ip("192.0.3.0")));
        assert!(in_network(ip("10.0.0.0"), 0, ip("192.0.3.0")));
        assert!(in_network(ip("2001:db8::"), 32, ip("2001:db8:ffff::1")));
        assert!(!in_network(ip("2001:db8::"), 128, ip("2001:db8::1")));
        assert!(!in_network(ip("::"), 0, ip("192.0.2.1")));
    }
}
