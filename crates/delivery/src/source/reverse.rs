//! Whether the reverse DNS of an address is confirmed: its PTR record names a host that
//! has the address (RFC 8499 calls it forward-confirmed). Large receivers refuse IPv6
//! connections from addresses without.

use std::net::IpAddr;

use postrider_dns::Resolver;
use postrider_mail::sanitize_text;
use serde::{Deserialize, Serialize};

/// Names of one address that are looked at.
const MOST_NAMES: usize = 8;
/// Longest host name (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;

/// What is known of the reverse DNS of an address.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReverseDns {
    /// It has not been looked up yet.
    #[default]
    Unknown,
    /// It is of no use to others: the address is a private one.
    Private,
    /// It names this host, which has the address.
    Confirmed(String),
    /// It does not; why, in one line.
    Unconfirmed(String),
}

impl ReverseDns {
    /// Looks it up. A failure that may pass changes nothing about what is known.
    pub(super) async fn look_up(&self, resolver: &dyn Resolver, address: IpAddr, wanted: Option<&str>) -> Self {
        if is_private(address) {
            return Self::Private;
        }
        let names: Vec<String> = match resolver.ptr(address).await {
            // The words of strangers, which are shown.
            Ok(answer) => answer.value.iter().map(|name| sanitize_text(name, MAX_NAME)).collect(),
            Err(error) if error.is_temporary() => return self.clone(),
            Err(_) => return Self::Unconfirmed(format!("{address} has no PTR record")),
        };
        if let Some(wanted) = wanted
            && !names.iter().any(|name| name.eq_ignore_ascii_case(wanted))
        {
            let found = names.first().map_or("", String::as_str);
            return Self::Unconfirmed(format!("the PTR record of {address} is {found}, not {wanted}"));
        }
        let candidates = names.iter().filter(|name| wanted.is_none_or(|wanted| name.eq_ignore_ascii_case(wanted)));
        let mut refuted = None;
        for name in candidates.take(MOST_NAMES) {
            match resolver.addresses(name).await {
                Ok(answer) if answer.value.contains(&address) => return Self::Confirmed(name.clone()),
                Ok(answer) if answer.partial => return self.clone(),
                Err(error) if error.is_temporary() => return self.clone(),
                _ => refuted = Some(name),
            }
        }
        let refuted = refuted.map_or("", String::as_str);
        Self::Unconfirmed(format!("{refuted}, which the PTR record of {address} names, does not have that address"))
    }

    /// Whether others can confirm it.
    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self, Self::Confirmed(_))
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use postrider_dns::Zones;
    use postrider_dns::zones::Failure;

    use super::*;

    const ADDRESS: &str = "2001:db8::25";

    async fn look_up(zones: &Zones, wanted: Option<&str>) -> ReverseDns {
        ReverseDns::Unknown.look_up(zones, ADDRESS.parse().unwrap(), wanted).await
    }

    fn why(reverse: &ReverseDns) -> &str {
        match reverse {
            ReverseDns::Unconfirmed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_back_confirms() {
        let zones = Zones::new();
        assert_eq!(why(&look_up(&zones, None).await), "2001:db8::25 has no PTR record");
        zones.add_ptr(ADDRESS, "a.example").add_ptr(ADDRESS, "b.example").add_address("a.example", "192.0.2.1");
        assert!(why(&look_up(&zones, None).await).contains("does not have that address"));
        zones.add_address("b.example", ADDRESS);
        assert_eq!(look_up(&zones, None).await, ReverseDns::Confirmed("b.example".into()));
        assert_eq!(look_up(&zones, Some("B.example")).await, ReverseDns::Confirmed("b.example".into()));
        assert!(why(&look_up(&zones, Some("a.example")).await).contains("a.example, which the PTR record"));
        assert!(why(&look_up(&zones, Some("c.example")).await).contains("not c.example"));
    }

    #[tokio::test]
    async fn what_may_pass_changes_nothing() {
        let zones = Zones::new();
        zones.add_ptr(ADDRESS, "a.example").fail("a.example", Failure::ServFail);
        assert_eq!(look_up(&zones, None).await, ReverseDns::Unknown);
        let known = ReverseDns::Confirmed("a.example".into());
        zones.remove("a.example").add_address("a.example", "2001:db8::1").fail("a.example", Failure::OtherFamily);
        assert_eq!(known.look_up(&zones, ADDRESS.parse().unwrap(), None).await, known);
        zones.fail(ADDRESS, Failure::Timeout);
        assert_eq!(known.look_up(&zones, ADDRESS.parse().unwrap(), None).await, known);
    }

    #[tokio::test]
    async fn private_addresses_are_not_asked_about() {
        let zones = Zones::new();
        for private in ["127.0.0.2", "10.0.0.1", "fd00::1", "::1"] {
            let found = ReverseDns::Unknown.look_up(&zones, private.parse().unwrap(), None).await;
            assert_eq!(found, ReverseDns::Private);
        }
        assert_eq!(zones.queries_total(), 0);
    }
}
