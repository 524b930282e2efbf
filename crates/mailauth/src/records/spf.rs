//! SPF records (RFC 7208): the operator's, and ours beside what a domain has already.

use std::net::IpAddr;

use super::{Data, Need, Place, Record, TTL};

/// Longest text of one record: with the rest of an answer it fits into 512 octets (RFC 7208
/// section 3.4).
const LONGEST: usize = 450;

/// The name at which the operator lists the source addresses.
#[must_use]
pub fn include_of(operator_domain: &str) -> String {
    format!("_spf.{operator_domain}")
}

/// The operator's records: the addresses themselves where they fit into one record, else one
/// record that includes several. Each record beyond the first costs those who include it one
/// DNS lookup more of the ten that RFC 7208 section 4.6.4 allows.
pub(super) fn operator_records(operator_domain: &str, sources: &[IpAddr]) -> Vec<Record> {
    let name = include_of(operator_domain);
    let mut parts = parts(sources);
    let why = "the addresses that mail leaves from: the SPF records of sending domains include it";
    if parts.len() == 1
        && let Some(part) = parts.pop()
    {
        return vec![record(name, format!("v=spf1{part} ~all"), why)];
    }
    let names: Vec<String> = (1..=parts.len()).map(|number| format!("_spf{number}.{operator_domain}")).collect();
    let includes: String = names.iter().map(|name| format!(" include:{name}")).collect();
    let mut records = vec![record(name, format!("v=spf1{includes} ~all"), why)];
    for (name, part) in names.into_iter().zip(parts) {
        records.push(record(name, format!("v=spf1{part} ~all"), "a part of the addresses that mail leaves from"));
    }
    records
}

/// DNS lookups that an evaluation of the operator's include costs, itself counted.
pub(super) fn lookups(sources: &[IpAddr]) -> usize {
    match parts(sources).len() {
        0 | 1 => 1,
        several => 1 + several,
    }
}

/// The SPF record `existing` with the terms of ours that it lacks (`include:...`) put in before
/// its end.
#[must_use]
pub fn merged(existing: &str, ours: &str) -> String {
    let mut terms: Vec<&str> = existing.split_ascii_whitespace().collect();
    let ends = |term: &&str| is_all(term) || term.to_ascii_lowercase().starts_with("redirect=");
    let end = terms.iter().position(ends).unwrap_or(terms.len());
    let lacking: Vec<&str> = ours.split_ascii_whitespace().filter(|term| !has(existing, term)).collect();
    terms.splice(end..end, lacking);
    terms.join(" ")
}

/// The terms of an SPF record that say which addresses pass, and not what becomes of others.
pub(super) fn passing(record: &str) -> String {
    let terms = record.split_ascii_whitespace().skip(1).filter(|term| !is_all(term));
    terms.collect::<Vec<_>>().join(" ")
}

/// Whether a term says what becomes of all other addresses.
fn is_all(term: &str) -> bool {
    term.strip_prefix(['+', '-', '~', '?']).unwrap_or(term).eq_ignore_ascii_case("all")
}

/// Whether a record has all of these terms, with the result *pass*.
pub(super) fn has(record: &str, terms: &str) -> bool {
    terms.split_ascii_whitespace().all(|ours| record.split_ascii_whitespace().any(|term| same_mechanism(term, ours)))
}

fn same_mechanism(term: &str, mechanism: &str) -> bool {
    term.strip_prefix('+').unwrap_or(term).eq_ignore_ascii_case(mechanism)
}

fn record(name: String, text: String, why: &str) -> Record {
    Record {
        name,
        data: Data::Txt(text),
        ttl: TTL,
        place: Place::Operator,
        need: Need::Must,
        why: why.to_owned(),
        replaces: None,
        state: None,
    }
}

/// The mechanisms, each with a space before it, in texts that are short enough.
fn parts(sources: &[IpAddr]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for source in sources {
        let mechanism = match source {
            IpAddr::V4(v4) => format!(" ip4:{v4}"),
            IpAddr::V6(v6) => format!(" ip6:{v6}"),
        };
        match parts.last_mut() {
            Some(part) if part.len() + mechanism.len() <= LONGEST => part.push_str(&mechanism),
            _ => parts.push(mechanism),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(records: &[Record]) -> Vec<(&str, String)> {
        records.iter().map(|record| (record.name.as_str(), record.data.to_string())).collect()
    }

    #[test]
    fn few_addresses_are_one_record() {
        let sources = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let records = operator_records("relay.example", &sources);
        let text = "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 ~all".to_owned();
        assert_eq!(texts(&records), [("_spf.relay.example", text)]);
        assert_eq!(lookups(&sources), 1);
    }

    #[test]
    fn many_addresses_are_several_short_records() {
        let sources: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([198, 51, 100, n])).collect();
        let records = operator_records("relay.example", &sources);
        assert_eq!(lookups(&sources), records.len());
        assert!(records[0].data.to_string().starts_with("v=spf1 include:_spf1.relay.example include:_spf2."));
        let all = texts(&records[1..]).into_iter().map(|(_, text)| text).collect::<String>();
        for source in &sources {
            assert!(all.contains(&format!("ip4:{source} ")), "{source}");
        }
        assert!(records.iter().all(|record| record.data.to_string().len() < 512));
    }

    #[test]
    fn what_passes_is_all_but_the_end() {
        for (record, terms) in [
            ("v=spf1 include:_spf.acme.football a:all ~all", "include:_spf.acme.football a:all"),
            ("v=spf1 mx ip4:192.0.2.1 -ALL", "mx ip4:192.0.2.1"),
            ("v=spf1 all", ""),
        ] {
            assert_eq!(passing(record), terms);
        }
    }

    #[test]
    fn an_include_is_put_before_the_end() {
        let ours = "include:_spf.relay.example";
        for (before, after) in [
            ("v=spf1 -all", "v=spf1 include:_spf.relay.example -all"),
            ("v=spf1 mx ~ALL", "v=spf1 mx include:_spf.relay.example ~ALL"),
            ("v=spf1 redirect=x.example", "v=spf1 include:_spf.relay.example redirect=x.example"),
            ("v=spf1 mx", "v=spf1 mx include:_spf.relay.example"),
            ("v=spf1", "v=spf1 include:_spf.relay.example"),
            ("v=spf1 +Include:_spf.Relay.example -all", "v=spf1 +Include:_spf.Relay.example -all"),
            ("v=spf1 -include:_spf.relay.example a", "v=spf1 -include:_spf.relay.example a include:_spf.relay.example"),
        ] {
            assert_eq!(merged(before, ours), after);
            assert!(has(after, ours));
        }
    }
}
