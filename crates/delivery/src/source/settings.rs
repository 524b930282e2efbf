//! What an operator can say about the addresses that mail leaves from.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::settings::is_host_name;

/// Most sources there may be.
const MOST: usize = 256;
/// Longest name of a source.
const MAX_NAME: usize = 64;
/// The largest weight.
const MAX_WEIGHT: u32 = 1_000;

/// An address of this machine that mail leaves from: one of IPv4, one of IPv6, or
/// one of each.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSettings {
    /// The IPv4 address. Without it no host is reached over IPv4 from here.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address. It is used once its reverse DNS is confirmed.
    pub ipv6: Option<Ipv6Addr>,
    /// The name given in EHLO. Without it, `delivery.ehlo_name`.
    pub ehlo_name: Option<String>,
    /// The name that reverse DNS has to give to the addresses. Without it any name
    /// will do that resolves to the address.
    pub ptr: Option<String>,
    /// The share of mail against other sources of the shared pool, which is all
    /// sources that are in no dedicated pool; 1 to 1,000.
    pub weight: u32,
    /// What becomes of mail to a site that blocks this address.
    pub on_block: OnBlock,
    /// How far it is warmed up when it is first seen, in percent: 0 for an address
    /// that has sent nothing yet, 100 for one that needs no warm-up.
    pub warm_up_start: u8,
    /// Send over IPv6 although its reverse DNS is not confirmed.
    pub allow_unconfirmed_ipv6: bool,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
            ehlo_name: None,
            ptr: None,
            weight: 1,
            on_block: OnBlock::Pause,
            warm_up_start: 0,
            allow_unconfirmed_ipv6: false,
        }
    }
}

impl SourceSettings {
    /// The address whose history counts: that of IPv4, where there is one.
    pub(super) fn main_address(&self) -> Option<IpAddr> {
        self.ipv4.map(IpAddr::V4).or(self.ipv6.map(IpAddr::V6))
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    fn validate(&self) -> Result<(), String> {
        if self.main_address().is_none() {
            return Err("ipv4: expected at least one of ipv4 and ipv6".to_owned());
        }
        if let Some(bad) = self.addresses().find(|ip| ip.is_unspecified() || ip.is_multicast()) {
            let key = if bad.is_ipv4() { "ipv4" } else { "ipv6" };
            return Err(format!("{key}: expected an address of this machine, found {bad}"));
        }
        for (key, name) in [("ehlo_name", &self.ehlo_name), ("ptr", &self.ptr)] {
            if let Some(name) = name.as_ref().filter(|name| !is_host_name(name)) {
                return Err(format!("{key}: expected a host name, found {name:?}"));
            }
        }
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            return Err(format!("weight: expected 1 to {MAX_WEIGHT}"));
        }
        if self.warm_up_start > 100 {
            return Err("warm_up_start: expected 0 to 100".to_owned());
        }
        Ok(())
    }
}

/// What becomes of mail to a site that blocks an address.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBlock {
    /// It waits until the block is over.
    #[default]
    Pause,
    /// It leaves from the pool's other addresses meanwhile.
    Move,
}

impl OnBlock {
    /// The word in the settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Move => "move",
        }
    }
}

/// Checks all sources. The error begins with the key.
pub(crate) fn validate(sources: &BTreeMap<String, SourceSettings>) -> Result<(), String> {
    if sources.len() > MOST {
        return Err(format!("sources: expected at most {MOST}"));
    }
    let mut owners: HashMap<IpAddr, &str> = HashMap::new();
    for (name, source) in sources {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(format!("sources.{name:?}: expected a name of 1 to 64 letters, digits, dots, - and _"));
        }
        source.validate().map_err(|error| format!("sources.{name}.{error}"))?;
        for address in source.addresses() {
            if let Some(other) = owners.insert(address, name) {
                return Err(format!("sources.{name}: {address} is the address of {other:?} already"));
            }
        }
    }
    Ok(())
}

/// How new addresses get used to sending.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmUpSettings {
    /// Whether sources are warmed up. Without it each gets its full share of mail at
    /// once, and its operator has to see to it that this is not too much.
    pub enabled: bool,
    /// Days from 0 to 100 percent, 1 to 365. They pass whatever is sent.
    pub days: u16,
    /// Most messages of a new source to one site (where its provider is known: to the
    /// provider) on the first day (UTC), the second and so on; the last number holds
    /// until the end of the warm-up. Empty: no such bound.
    pub daily: Vec<u32>,
    /// What becomes of messages beyond that when no warmed up source can take them.
    pub excess: Excess,
}

impl Default for WarmUpSettings {
    fn default() -> Self {
        let daily = [
            50, 100, 150, 250, 400, 600, 900, 1_300, 1_900, 2_800, 4_000, 6_000, 9_000, 13_000, 20_000, 30_000, 45_000,
            70_000, 100_000,
        ];
        Self { enabled: true, days: 45, daily: daily.to_vec(), excess: Excess::Send }
    }
}

/// What becomes of messages that a warm-up has no room for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Excess {
    /// They are sent all the same: late mail is worse than a slow start.
    #[default]
    Send,
    /// They wait for the next day.
    Wait,
}

impl WarmUpSettings {
    /// Checks what serde cannot. The error begins with the key.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if !(1..=365).contains(&self.days) {
            return Err("warm_up.days: expected 1 to 365".to_owned());
        }
        if self.daily.len() > 365 || self.daily.contains(&0) || !self.daily.is_sorted() {
            return Err(
                "warm_up.daily: expected at most 365 numbers, from 1 on, none less than the one before".to_owned()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(ipv4: &str) -> SourceSettings {
        SourceSettings { ipv4: Some(ipv4.parse().unwrap()), ..SourceSettings::default() }
    }

    fn error(spoil: impl FnOnce(&mut SourceSettings)) -> String {
        let mut settings = source("192.0.2.1");
        spoil(&mut settings);
        validate(&BTreeMap::from([("out1".to_owned(), settings)])).unwrap_err()
    }

    #[test]
    fn sources_are_refused_by_key() {
        let good =
            BTreeMap::from([("out1".to_owned(), source("192.0.2.1")), ("o.2_b-C".to_owned(), source("192.0.2.2"))]);
        assert_eq!(validate(&good), Ok(()));
        assert!(error(|s| s.ipv4 = None).starts_with("sources.out1.ipv4:"));
        assert!(error(|s| s.ipv4 = Some(Ipv4Addr::UNSPECIFIED)).starts_with("sources.out1.ipv4:"));
        assert!(error(|s| s.ipv6 = Some("ff02::1".parse().unwrap())).starts_with("sources.out1.ipv6:"));
        assert!(error(|s| s.ehlo_name = Some("a b".into())).starts_with("sources.out1.ehlo_name:"));
        assert!(error(|s| s.ptr = Some(String::new())).starts_with("sources.out1.ptr:"));
        assert!(error(|s| s.weight = 0).starts_with("sources.out1.weight:"));
        assert!(error(|s| s.warm_up_start = 101).starts_with("sources.out1.warm_up_start:"));
        let twice = BTreeMap::from([("a".to_owned(), source("192.0.2.1")), ("b".to_owned(), source("192.0.2.1"))]);
        assert_eq!(validate(&twice).unwrap_err(), "sources.b: 192.0.2.1 is the address of \"a\" already");
        let unnamed = BTreeMap::from([("a b".to_owned(), source("192.0.2.1"))]);
        assert!(validate(&unnamed).unwrap_err().starts_with("sources.\"a b\":"));
        let many = (0..257).map(|n| (format!("s{n}"), source("192.0.2.1"))).collect();
        assert!(validate(&many).unwrap_err().starts_with("sources:"));
    }

    #[test]
    fn warm_ups_are_refused_by_key() {
        let check = |spoil: fn(&mut WarmUpSettings)| {
            let mut settings = WarmUpSettings::default();
            spoil(&mut settings);
            settings.validate()
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|s| s.daily.clear()), Ok(()));
        assert!(check(|s| s.days = 0).unwrap_err().starts_with("warm_up.days:"));
        let bad: [fn(&mut WarmUpSettings); 3] =
            [|s| s.daily = vec![0, 1], |s| s.daily = vec![2, 1], |s| s.daily = vec![1; 366]];
        for spoil in bad {
            assert!(check(spoil).unwrap_err().starts_with("warm_up.daily:"));
        }
    }
}
