//! How many connections there are, from where, and who gives way.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_base::Network;
use tokio::sync::Notify;

/// Connections above the bound on all that may be on their way out.
const MAX_LEAVING: usize = 64;

/// Bounds of connections, over all listeners.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// In all.
    pub(crate) total: usize,
    /// From one address, or one /64 of IPv6.
    pub(crate) address: usize,
    /// From one /24 of IPv4, or one /48 of IPv6.
    pub(crate) network: usize,
    /// Of clients that we do not know yet.
    pub(crate) strangers: usize,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All connections are taken, by clients that have authenticated.
    Total,
    /// All connections of this address are taken.
    Address,
    /// All connections of this network are taken.
    Network,
}

/// Counts connections over all listeners. The lock is held for some look-ups:
/// when a connection comes, when its client is known, and when it goes.
///
/// A client that has not authenticated yet is a stranger. When there is no place
/// for another one, the stranger that is there for the longest time gives way:
/// who means well is known within moments, who floods us waits for ever. So
/// no number of strangers can shut customers out.
#[derive(Debug, Default, Clone)]
pub(crate) struct Admission(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_network: HashMap<Network, usize>,
    /// In the order in which they came.
    strangers: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

impl Admission {
    /// Counts one more connection from this address, within these bounds.
    pub(crate) fn admit(&self, address: IpAddr, bounds: &Bounds) -> Result<Admitted, Full> {
        let networks = [Network::around(address, 32, 64), Network::around(address, 24, 48)];
        let mut counts = self.0.lock();
        for (network, bound, full) in
            [(networks[0], bounds.address, Full::Address), (networks[1], bounds.network, Full::Network)]
        {
            if counts.by_network.get(&network).is_some_and(|here| *here >= bound) {
                return Err(full);
            }
        }
        if counts.strangers.len() >= bounds.strangers {
            counts.give_way();
        }
        // The place of who gives way is free when its connection has ended; that is soon.
        // Where many are slow to go, nobody new comes.
        let leaving = counts.total.saturating_sub(bounds.total);
        if counts.total >= bounds.total && (leaving >= MAX_LEAVING || !counts.give_way()) {
            return Err(Full::Total);
        }
        let given_way = Arc::new(Notify::new());
        let stranger = counts.next;
        counts.next += 1;
        counts.strangers.insert(stranger, given_way.clone());
        for network in networks {
            *counts.by_network.entry(network).or_default() += 1;
        }
        counts.total += 1;
        Ok(Admitted { admission: self.clone(), networks, stranger, given_way })
    }
}

impl Counts {
    /// Sends the oldest stranger away; false when there is none.
    fn give_way(&mut self) -> bool {
        self.strangers.pop_first().map(|(_, oldest)| oldest.notify_one()).is_some()
    }
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    networks: [Network; 2],
    stranger: u64,
    given_way: Arc<Notify>,
}

impl Admitted {
    /// The client is no stranger any more.
    pub(crate) fn known(&self) {
        self.admission.0.lock().strangers.remove(&self.stranger);
    }

    /// Waits until this connection has to give way to another one.
    pub(crate) async fn given_way(&self) {
        self.given_way.notified().await;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.0.lock();
        counts.total -= 1;
        counts.strangers.remove(&self.stranger);
        for network in self.networks {
            if let Some(here) = counts.by_network.get_mut(&network) {
                *here -= 1;
                if *here == 0 {
                    counts.by_network.remove(&network);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { total: 4, address: 2, network: 3, strangers: 4 };

    fn admit(admission: &Admission, address: &str) -> Result<Admitted, Full> {
        admission.admit(address.parse().unwrap(), &BOUNDS)
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let admission = Admission::default();
        let first = admit(&admission, "192.0.2.1").unwrap();
        let second = admit(&admission, "::ffff:192.0.2.1").unwrap();
        assert_eq!(admit(&admission, "192.0.2.1").unwrap_err(), Full::Address);
        let third = admit(&admission, "192.0.2.2").unwrap();
        assert_eq!(admit(&admission, "192.0.2.3").unwrap_err(), Full::Network);
        [&first, &second, &third].into_iter().for_each(Admitted::known);
        let fourth = admit(&admission, "2001:db8::1").unwrap();
        fourth.known();
        assert_eq!(admit(&admission, "198.51.100.1").unwrap_err(), Full::Total);
        drop(first);
        let fifth = admit(&admission, "2001:db8::ffff").unwrap();
        drop(second);
        assert_eq!(admit(&admission, "2001:db8:0:0:1::").unwrap_err(), Full::Address);
        drop((third, fourth, fifth));
        let counts = admission.0.lock();
        assert_eq!((counts.total, counts.by_network.len(), counts.strangers.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn the_oldest_stranger_gives_way() {
        let admission = Admission::default();
        let bounds = Bounds { strangers: 2, ..BOUNDS };
        let admit = |address: &str| admission.admit(address.parse().unwrap(), &bounds).unwrap();
        let known = admit("192.0.2.1");
        known.known();
        let oldest = admit("198.51.100.1");
        let older = admit("203.0.113.1");
        let young = admit("2001:db8::1");
        // Ready at once for the one that has to go, and for nobody else.
        oldest.given_way().await;
        for stays in [&known, &older, &young] {
            let waits = std::pin::pin!(stays.given_way());
            assert!(futures_util::poll!(waits).is_pending());
        }
        drop(oldest);
        assert_eq!(admission.0.lock().strangers.len(), 2);
    }

    #[test]
    fn those_who_are_slow_to_go_keep_others_out() {
        let admission = Admission::default();
        let bounds = Bounds { total: 1, address: 1_000, network: 1_000, strangers: 1_000 };
        let admit = || admission.admit("192.0.2.1".parse().unwrap(), &bounds);
        let mut stuck: Vec<Admitted> = (0..=MAX_LEAVING).map(|_| admit().unwrap()).collect();
        assert_eq!(admit().unwrap_err(), Full::Total);
        drop(stuck.remove(0));
        assert!(admit().is_ok());
    }

    #[tokio::test]
    async fn strangers_give_way_where_all_places_are_taken() {
        let admission = Admission::default();
        let bounds = Bounds { total: 1, ..BOUNDS };
        let stranger = admission.admit("192.0.2.1".parse().unwrap(), &bounds).unwrap();
        let next = admission.admit("198.51.100.1".parse().unwrap(), &bounds).unwrap();
        stranger.given_way().await;
        next.known();
        drop(stranger);
        assert_eq!(admission.admit("192.0.2.1".parse().unwrap(), &bounds).unwrap_err(), Full::Total);
    }
}
