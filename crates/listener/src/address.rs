//! Where to listen.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address to listen on: `192.0.2.1:587`, `[2001:db8::1]:587`, or `*:587`
/// for every address of this machine, IPv4 and, where there is IPv6, IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// One address; `0.0.0.0` is all of IPv4, `[::]` all of IPv6.
    One(SocketAddr),
    /// All addresses, with this port.
    All(u16),
}

impl ListenAddress {
    /// The addresses to bind. The second one may be missing on this machine.
    pub(crate) fn to_bind(self) -> Vec<SocketAddr> {
        match self {
            ListenAddress::One(address) => vec![address],
            ListenAddress::All(port) => {
                vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
            }
        }
    }
}

impl ListenAddress {
    /// Whether the system would not give both: one is the other, or all of what it is one of. Any
    /// port is another one each time.
    pub(crate) fn overlaps(self, other: ListenAddress) -> bool {
        let same_port = |one: SocketAddr, other: SocketAddr| one.port() != 0 && one.port() == other.port();
        let meets = |one: IpAddr, other: IpAddr| {
            one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
        };
        let others = other.to_bind();
        let all = self.to_bind();
        all.iter().any(|one| others.iter().any(|other| same_port(*one, *other) && meets(one.ip(), other.ip())))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::One(address) => address.fmt(f),
            ListenAddress::All(port) => write!(f, "*:{port}"),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let address = match text.strip_prefix("*:") {
            Some(port) => port.parse().map(ListenAddress::All).ok(),
            None => text.parse().map(ListenAddress::One).ok(),
        };
        address.ok_or_else(|| {
            format!(
                "{text:?} is not an address to listen on: expected as in \"*:587\", \"192.0.2.1:587\" or \"[::1]:587\""
            )
        })
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ListenAddress, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        for text in ["*:587", "0.0.0.0:25", "[::1]:465", "192.0.2.1:0"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for bad in ["", "587", "*", "*:", "*:99999", "localhost:25", "::1:25"] {
            assert!(bad.parse::<ListenAddress>().unwrap_err().contains("expected as in"), "{bad}");
        }
        assert_eq!("*:25".parse::<ListenAddress>().unwrap().to_bind().len(), 2);
    }
}
