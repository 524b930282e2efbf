//! Networks, as operators write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An address or a range of them: `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
/// IPv4 addresses that are written as IPv6 (`::ffff:192.0.2.7`) are IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

/// Why a text is no network. The operator's to put right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Neither an address nor a range.
    #[error("{0:?} is neither an IP address nor a network such as 192.0.2.0/24")]
    Malformed(String),
    /// An address with bits behind the prefix: which of the two was meant is not clear.
    #[error("{0:?} has bits set behind its prefix; the network is {1}")]
    HostBits(String, Network),
}

impl Network {
    /// The range that an address counts as: so many leading bits of IPv4, so many of IPv6.
    /// More bits than an address has are all of them.
    #[must_use]
    pub fn around(address: IpAddr, bits_v4: u8, bits_v6: u8) -> Network {
        let network = match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = bits_v4.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpNet::new(Ipv4Addr::from_bits(address.to_bits() & mask).into(), bits)
            }
            IpAddr::V6(address) => {
                let bits = bits_v6.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpNet::new(Ipv6Addr::from_bits(address.to_bits() & mask).into(), bits)
            }
        };
        Network(network.expect("the length is within the address's"))
    }

    /// Whether the address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether the two ranges have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Network) -> bool {
        self.0.contains(&other.0.network()) || other.0.contains(&self.0.network())
    }

    /// Leading bits that all addresses of the range share.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.network()
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        Network(IpNet::from(address.to_canonical()))
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let network: IpNet = text.parse().map_err(|_| NetworkError::Malformed(text.to_owned()))?;
        if network.addr() != network.network() {
            return Err(NetworkError::HostBits(text.to_owned(), Network(network.trunc())));
        }
        Ok(Network(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => self.0.addr().fmt(f),
            false => self.0.fmt(f),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Network, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_ranges_are_read_and_written() {
        for text in ["192.0.2.7", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::1", "2001:db8::/32"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("192.0.2.7/32").to_string(), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), network("192.0.2.7"));
        let json = serde_json::to_string(&network("10.0.0.0/8")).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network("10.0.0.0/8"));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["", "example.com", "192.0.2.0/33", "192.0.2", "192.0.2.0/-1", "10.0.0.0/8 "] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Malformed(text.to_owned())));
        }
        let error = "192.0.2.7/24".parse::<Network>().unwrap_err();
        assert_eq!(error.to_string(), "\"192.0.2.7/24\" has bits set behind its prefix; the network is 192.0.2.0/24");
    }

    #[test]
    fn membership() {
        assert!(network("192.0.2.0/24").contains(address("::ffff:192.0.2.255")));
        assert!(!network("192.0.2.0/24").contains(address("192.0.3.0")));
        assert!(!network("0.0.0.0/0").contains(address("2001:db8::1")));
        assert!(network("192.0.2.0/24").overlaps(&network("192.0.2.7")));
        assert!(network("192.0.2.7").overlaps(&network("192.0.0.0/16")));
        assert!(!network("192.0.2.0/25").overlaps(&network("192.0.2.128/25")));
    }

    #[test]
    fn what_an_address_counts_as() {
        let around = |text| Network::around(address(text), 24, 48).to_string();
        assert_eq!(around("192.0.2.7"), "192.0.2.0/24");
        assert_eq!(around("::ffff:192.0.2.7"), "192.0.2.0/24");
        assert_eq!(around("2001:db8:1:2::3"), "2001:db8:1::/48");
        assert_eq!(Network::around(address("192.0.2.7"), 0, 0).to_string(), "0.0.0.0/0");
        assert_eq!(Network::around(address("2001:db8::1"), 99, 255).to_string(), "2001:db8::1");
    }
}
