//! How many connections there are, and from where.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All connections are taken.
    Total,
    /// All connections of this address are taken.
    Address,
}

/// Counts connections over all listeners. The lock is held for a look-up, once
/// when a connection comes and once when it goes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Admission(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl Admission {
    /// Counts one more connection from this address, within these bounds.
    pub(crate) fn admit(&self, address: IpAddr, total: usize, each: usize) -> Result<Admitted, Full> {
        let network = network(address);
        let mut counts = self.0.lock();
        if counts.total >= total {
            return Err(Full::Total);
        }
        let here = counts.by_network.entry(network).or_default();
        if *here >= each {
            return Err(Full::Address);
        }
        *here += 1;
        counts.total += 1;
        Ok(Admitted { admission: self.clone(), network })
    }
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    network: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.0.lock();
        counts.total -= 1;
        if let Some(here) = counts.by_network.get_mut(&self.network) {
            *here -= 1;
            if *here == 0 {
                counts.by_network.remove(&self.network);
            }
        }
    }
}

/// One customer has a whole /64 of IPv6 (RFC 6177), so that is what counts as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let admission = Admission::default();
        let admit = |address: &str| admission.admit(address.parse().unwrap(), 3, 2);
        let first = admit("192.0.2.1").unwrap();
        let second = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), Full::Address);
        let third = admit("2001:db8::1").unwrap();
        assert_eq!(admit("2001:db8::ffff").unwrap_err(), Full::Total);
        drop(first);
        let fourth = admit("2001:db8::ffff").unwrap();
        drop(second);
        assert_eq!(admit("2001:db8:0:0:1::").unwrap_err(), Full::Address);
        drop((third, fourth));
        assert_eq!(admission.0.lock().total, 0);
        assert!(admission.0.lock().by_network.is_empty());
    }
}
