//! What the DNS has of what is to be published.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postrider_dns::{DnsError, Resolver};
use postrider_mail::{Domain, sanitize_text};
use serde::{Deserialize, Serialize};

use super::{Data, Plan, Record, spf, tag};

/// Longest text of a stranger's that is shown.
const SHOWN: usize = 500;

/// What the DNS has of a record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum State {
    /// It is published, or something that does the same.
    Right,
    /// It is not published.
    Missing,
    /// Something else is published in its place.
    Differs {
        /// What, in one printable line.
        found: String,
        /// What it should be changed to.
        advice: String,
    },
    /// The DNS did not answer.
    Unknown {
        /// Why, in one printable line.
        reason: String,
    },
}

impl Plan {
    /// Asks the DNS about each record and keeps what it says as the record's state.
    pub async fn check(&mut self, resolver: &dyn Resolver) {
        for record in &mut self.records {
            record.state = Some(look_up(resolver, record).await);
        }
    }
}

/// What `found`, all records of the same name and type, are of `record`.
#[must_use]
pub fn compare(record: &Record, found: &[Data]) -> State {
    if found.is_empty() {
        return State::Missing;
    }
    match &record.data {
        Data::Txt(text) if is_key(&record.name) => key(text, found),
        Data::Txt(text) => text_of_kind(text, found),
        Data::Mx { exchange, .. } => {
            let same = |data: &Data| matches!(data, Data::Mx { exchange: other, .. } if other == exchange);
            match found {
                [one] if same(one) => State::Right,
                _ => State::differs(found, format!("make {} the only MX record", record.data)),
            }
        }
        data if found.contains(data) => State::Right,
        Data::Ptr(_) => State::differs(found, format!("change it to {}", record.data)),
        _ => State::Missing,
    }
}

impl State {
    fn differs(found: &[Data], advice: String) -> State {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        State::Differs { found: sanitize_text(found.join(" | "), SHOWN), advice: sanitize_text(advice, SHOWN) }
    }
}

fn is_key(name: &str) -> bool {
    name.contains("._domainkey.")
}

fn key(ours: &str, found: &[Data]) -> State {
    match found {
        [Data::Txt(text)] if serves(text, ours) => State::Right,
        [_] => State::differs(found, "put ours in its place".to_owned()),
        _ => State::differs(found, "leave ours there alone: of several, receivers take any".to_owned()),
    }
}

/// Whether `found` is the key record `ours`, whoever has written it down.
pub(crate) fn is_key_record(found: &Data, ours: &str) -> bool {
    matches!(found, Data::Txt(text) if serves(text, ours))
}

/// Whether receivers that find this record verify what our key signs (RFC 6376 section 3.6.1):
/// white space means nothing, nor does the order of tags.
fn serves(found: &str, ours: &str) -> bool {
    let kind = |record| key_tag(record, "k").unwrap_or_else(|| "rsa".to_owned());
    let allows = |tag, wanted: &[&str]| {
        key_tag(found, tag).is_none_or(|list| list.split(':').any(|item| wanted.contains(&item)))
    };
    key_tag(found, "p") == key_tag(ours, "p")
        && kind(found) == kind(ours)
        && allows("v", &["DKIM1"])
        && allows("h", &["sha256"])
        && allows("s", &["*", "email"])
}

/// What a key record says under this name, without white space.
fn key_tag(record: &str, name: &str) -> Option<String> {
    let mut tags = record.split(';').filter_map(|part| part.split_once('='));
    let (_, value) = tags.find(|(other, _)| other.trim() == name)?;
    Some(value.chars().filter(|c| !c.is_ascii_whitespace()).collect())
}

/// A text of which a name may have one of a kind, among others of other kinds.
fn text_of_kind(ours: &str, found: &[Data]) -> State {
    let Some(kind) = tag(ours) else {
        let is_there = found.iter().any(|data| matches!(data, Data::Txt(text) if text == ours));
        return if is_there { State::Right } else { State::Missing };
    };
    let of_kind: Vec<Data> =
        found.iter().filter(|data| data.tag().is_some_and(|other| other.eq_ignore_ascii_case(kind))).cloned().collect();
    match (kind, of_kind.as_slice()) {
        (_, []) => State::Missing,
        ("v=spf1", [Data::Txt(text)]) => {
            let wanted = spf::passing(ours);
            match spf::has(text, &wanted) {
                true => State::Right,
                false => State::differs(&of_kind, format!("change it to \"{}\"", spf::merged(text, &wanted))),
            }
        }
        // What a domain says about itself is its own choice.
        (_, [_]) => State::Right,
        (kind, _) => State::differs(&of_kind, format!("leave one of them: several with {kind} count as none")),
    }
}

async fn look_up(resolver: &dyn Resolver, record: &Record) -> State {
    match records(resolver, &record.name, &record.data).await {
        Ok(found) => compare(record, &found),
        Err(error) if error.is_absence() => State::Missing,
        Err(error) => State::Unknown { reason: error.to_string() },
    }
}

/// The records of a name of the same type as `like`.
async fn records(resolver: &dyn Resolver, name: &str, like: &Data) -> Result<Vec<Data>, DnsError> {
    Ok(match like {
        Data::Txt(_) => resolver.txt(name).await?.value.into_iter().map(Data::Txt).collect(),
        Data::Mx { .. } => {
            let domain: Domain = name.parse().map_err(|_| DnsError::Invalid)?;
            let found = resolver.mx(&domain).await?.value.into_iter();
            found.map(|mx| Data::Mx { preference: mx.preference, exchange: mx.exchange }).collect()
        }
        Data::Ptr(_) => {
            let address = address_of(name).ok_or(DnsError::Invalid)?;
            resolver.ptr(address).await?.value.into_iter().map(Data::Ptr).collect()
        }
        Data::A(_) | Data::Aaaa(_) => {
            let answer = resolver.addresses(name).await?;
            let found = answer.value.into_iter().map(Data::address);
            let found: Vec<Data> = found.filter(|data| data.kind() == like.kind()).collect();
            if found.is_empty() && answer.partial {
                return Err(DnsError::Temporary {
                    reason: format!("{} records can not be looked up", like.kind()).into(),
                });
            }
            found
        }
    })
}

/// The address that a reverse name is of.
fn address_of(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = rest.rsplit('.').map(|octet| octet.parse().ok()).collect::<Option<_>>()?;
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    let nibbles: String = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    let is_whole = nibbles.len() == 32;
    is_whole.then(|| u128::from_str_radix(&nibbles, 16).ok().map(|bits| Ipv6Addr::from(bits).into())).flatten()
}

#[cfg(test)]
mod tests {
    use postrider_dns::Zones;
    use postrider_dns::zones::Failure;

    use super::*;
    use crate::records::plan::tests::input;
    use crate::records::{Need, Place, plan, reverse_name};

    fn text(name: &str, ours: &str) -> Record {
        let data = Data::Txt(ours.into());
        Record {
            name: name.into(),
            data,
            ttl: 1,
            place: Place::Domain,
            need: Need::Must,
            why: String::new(),
            replaces: None,
            state: None,
        }
    }

    fn texts(found: &[&str]) -> Vec<Data> {
        found.iter().map(|text| Data::Txt((*text).into())).collect()
    }

    #[test]
    fn texts_are_compared_by_what_they_mean() {
        let spf = text("example.com", "v=spf1 include:_spf.relay.example ~all");
        let key = text("k._domainkey.example.com", "v=DKIM1; k=rsa; p=AAAA");
        let ed25519 = text("e._domainkey.example.com", "v=DKIM1; k=ed25519; p=AAAA");
        let dmarc = text("_dmarc.example.com", "v=DMARC1; p=none");
        let plain = text("example.com", "hello");
        let right = |record: &Record, found: &[&str]| compare(record, &texts(found)) == State::Right;
        for (record, found, is_right) in [
            (&spf, &["other", "v=spf1 mx include:_spf.relay.example -all"][..], true),
            (&spf, &["v=spf1 mx -all"], false),
            (&spf, &["v=spf1 include:_spf.relay.example -all", "v=spf1 -all"], false),
            (&key, &["p=AA AA ; v = DKIM1"], true),
            (&key, &["p=AAAA; h=sha1 : sha256; s=tlsrpt:email"], true),
            (&key, &["p=AAAA; s=*"], true),
            (&key, &["v=DKIM1; k=ed25519; p=AAAA"], false),
            (&key, &["v=DKIM1; h=sha1; p=AAAA"], false),
            (&key, &["v=DKIM1; s=tlsrpt; p=AAAA"], false),
            (&key, &["v=DKIM2; p=AAAA"], false),
            (&ed25519, &["v=DKIM1; k=ed25519; p=AAAA"], true),
            (&ed25519, &["v=DKIM1; p=AAAA"], false),
            (&key, &["v=DKIM1; p="], false),
            (&key, &["v=DKIM1; p=AAAB"], false),
            (&key, &["v=DKIM1; p=AAAA", "v=DKIM1; p=AAAB"], false),
            (&dmarc, &["v=DMARC1;p=reject"], true),
            (&dmarc, &["v=DMARC1; p=none", "v=DMARC1; p=reject"], false),
            (&plain, &["hello"], true),
            (&plain, &["hallo"], false),
        ] {
            assert_eq!(right(record, found), is_right, "{found:?}");
        }
        assert_eq!(compare(&spf, &texts(&["unrelated"])), State::Missing);
        let State::Differs { advice, .. } = compare(&spf, &texts(&["v=spf1 mx -all"])) else { panic!() };
        assert_eq!(advice, "change it to \"v=spf1 mx include:_spf.relay.example -all\"");
    }

    #[test]
    fn reverse_names_are_read_back() {
        for address in ["192.0.2.5", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(address_of(&reverse_name(address)), Some(address));
        }
        for bad in ["2.0.192.in-addr.arpa", "x.2.0.192.in-addr.arpa", "1.ip6.arpa", "example.com"] {
            assert_eq!(address_of(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_plan_is_compared_with_the_dns() {
        let zones = Zones::new();
        let mut plan = plan(&input());
        for record in &plan.records {
            match &record.data {
                Data::Txt(text) => zones.add_txt(&record.name, text),
                Data::Mx { preference, exchange } => zones.add_mx(&record.name, *preference, exchange),
                Data::Ptr(host) => zones.add_ptr(&address_of(&record.name).unwrap().to_string(), host),
                data => zones.add_address(&record.name, &data.to_string()),
            };
        }
        plan.check(&zones).await;
        assert!(plan.records.iter().all(|record| record.state == Some(State::Right)), "{plan:#?}");

        zones.fail("_dmarc.example.com", Failure::ServFail);
        zones.add_mx("bounce.example.com", 20, "mx.other.example").add_ptr("192.0.2.1", "other.example");
        zones.remove("2001:db8::1").add_ptr("2001:db8::1", "evil\nname.example");
        zones.remove("out1.relay.example").add_address("out1.relay.example", "192.0.2.9");
        plan.check(&zones).await;
        let state = |name: &str, kind: &str| {
            let found = plan.records.iter().find(|record| record.name == name && record.data.kind() == kind);
            found.unwrap().state.clone().unwrap()
        };
        assert!(matches!(state("_dmarc.example.com", "TXT"), State::Unknown { .. }));
        let State::Differs { found, advice } = state("bounce.example.com", "MX") else { panic!() };
        assert_eq!(found, "10 mx.relay.example. | 20 mx.other.example.");
        assert_eq!(advice, "make 10 mx.relay.example. the only MX record");
        assert_eq!(state("1.2.0.192.in-addr.arpa", "PTR"), State::Right, "one of the names is ours");
        let State::Differs { found, .. } = state(&reverse_name("2001:db8::1".parse().unwrap()), "PTR") else {
            panic!()
        };
        assert_eq!(found, "evil?name.example.");
        assert_eq!(state("out1.relay.example", "A"), State::Missing);
    }
}
