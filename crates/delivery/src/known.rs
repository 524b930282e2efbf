//! What became of connections to hosts, so that the next ones go where mail was
//! taken and not, first of all, where nobody answered.
//!
//! It only changes the order in which addresses are dialled, and spares a host
//! whose STARTTLS is broken the next handshake where TLS is only an offer.
//! Nothing is left out because of it, and nothing that is required of a session
//! becomes less.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::metrics::Gauge;
use tokio::time::Instant;

use crate::route::Host;

/// How long an address, a host or a family of addresses that could not be
/// reached is dialled last.
const LAST_FOR: Duration = Duration::from_secs(5 * 60);

/// How long a host is not asked for a handshake that failed.
const NO_TLS_FOR: Duration = Duration::from_secs(60 * 60);

/// Addresses of one host that are known as unreachable.
const MOST_FAILED: usize = 16;

/// A host and its port.
pub(crate) type Place = (Host, u16);

/// What is known of hosts. At most so many: two generations, of which the older
/// one is forgotten when the younger one has half of them.
pub(crate) struct KnownHosts {
    state: Mutex<State>,
    bound: usize,
    count: Gauge,
}

#[derive(Default)]
struct State {
    young: HashMap<Place, Known>,
    old: HashMap<Place, Known>,
    /// When no network led to IPv4 and to IPv6 addresses.
    cut_off: [Option<Instant>; 2],
}

#[derive(Default)]
struct Known {
    /// Took the last connection.
    good: Option<IpAddr>,
    failed: Vec<(IpAddr, Instant)>,
    /// The last address that was dialled did not answer.
    down: Option<Instant>,
    broken_tls: Option<Instant>,
}

impl KnownHosts {
    /// Nothing is known; at most `bound` hosts will be, counted by `count`.
    pub(crate) fn new(bound: usize, count: Gauge) -> Self {
        Self { state: Mutex::default(), bound, count }
    }

    /// The host has greeted us at this address.
    pub(crate) fn answered(&self, place: &Place, ip: IpAddr) {
        self.note(place, |known| {
            known.good = Some(ip);
            known.failed.retain(|(failed, _)| *failed != ip);
            known.down = None;
        });
        self.state.lock().cut_off[usize::from(ip.is_ipv6())] = None;
    }

    /// No connection could be opened to this address.
    pub(crate) fn failed(&self, place: &Place, ip: IpAddr, why: Option<io::ErrorKind>, now: Instant) {
        if why == Some(io::ErrorKind::NetworkUnreachable) {
            self.state.lock().cut_off[usize::from(ip.is_ipv6())] = Some(now);
        }
        self.note(place, |known| {
            known.good.take_if(|good| *good == ip);
            known.failed.retain(|(failed, since)| *failed != ip && is_fresh(*since, LAST_FOR, now));
            if known.failed.len() == MOST_FAILED {
                known.failed.remove(0);
            }
            known.failed.push((ip, now));
            known.down = Some(now);
        });
    }

    /// The host did not take what was to be sent: another address may be better.
    pub(crate) fn turned_away(&self, place: &Place, ip: IpAddr) {
        self.note(place, |known| {
            known.good.take_if(|good| *good == ip);
        });
    }

    /// A handshake failed that was only an offer.
    pub(crate) fn tls_failed(&self, place: &Place, now: Instant) {
        self.note(place, |known| known.broken_tls = Some(now));
    }

    /// Whether a handshake with this host has lately failed.
    pub(crate) fn has_broken_tls(&self, place: &Place, now: Instant) -> bool {
        let broken = |known: &Known| known.broken_tls.is_some_and(|since| is_fresh(since, NO_TLS_FOR, now));
        self.state.lock().look(place).is_some_and(broken)
    }

    /// Whether the last address of this host that was dialled did not answer.
    pub(crate) fn is_down(&self, place: &Place, now: Instant) -> bool {
        let down = |known: &Known| known.down.is_some_and(|since| is_fresh(since, LAST_FOR, now));
        self.state.lock().look(place).is_some_and(down)
    }

    /// Puts the address that last answered first, and those last that lately did
    /// not.
    pub(crate) fn sort(&self, place: &Place, addresses: &mut [IpAddr], now: Instant) {
        let state = self.state.lock();
        let known = state.look(place);
        let is_good = |ip: IpAddr| known.is_some_and(|known| known.good == Some(ip));
        let has_failed = |ip: IpAddr| {
            let failed = |(failed, since): &(IpAddr, Instant)| *failed == ip && is_fresh(*since, LAST_FOR, now);
            let cut_off = state.cut_off[usize::from(ip.is_ipv6())];
            known.is_some_and(|known| known.failed.iter().any(failed))
                || cut_off.is_some_and(|since| is_fresh(since, LAST_FOR, now))
        };
        addresses.sort_by_cached_key(|ip| (has_failed(*ip), !is_good(*ip)));
    }

    fn note(&self, place: &Place, change: impl FnOnce(&mut Known)) {
        let mut state = self.state.lock();
        let known = state.old.remove(place);
        if !state.young.contains_key(place) && state.young.len() >= (self.bound / 2).max(1) {
            state.old = std::mem::take(&mut state.young);
        }
        change(state.young.entry(place.clone()).or_insert_with(|| known.unwrap_or_default()));
        self.count.set(i64::try_from(state.young.len() + state.old.len()).unwrap_or(i64::MAX));
    }
}

impl State {
    fn look(&self, place: &Place) -> Option<&Known> {
        self.young.get(place).or_else(|| self.old.get(place))
    }
}

fn is_fresh(since: Instant, lasts: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) < lasts
}

#[cfg(test)]
mod tests {
    use postrider_base::{Clock, Metrics};

    use super::*;

    fn hosts(bound: usize) -> KnownHosts {
        KnownHosts::new(bound, Metrics::new().outbound_known_hosts.clone())
    }

    fn place(name: &str) -> Place {
        (Host::Name(name.into()), 25)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn sorted(hosts: &KnownHosts, place: &Place, now: Instant) -> Vec<String> {
        let mut addresses = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(ip);
        hosts.sort(place, &mut addresses, now);
        addresses.iter().map(IpAddr::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_answered_is_first_and_what_did_not_is_last_for_a_while() {
        let (hosts, mx, now) = (hosts(100), place("mx.example"), Clock::system().instant());
        hosts.answered(&mx, ip("192.0.2.2"));
        hosts.failed(&mx, ip("192.0.2.1"), Some(io::ErrorKind::ConnectionRefused), now);
        assert_eq!(sorted(&hosts, &mx, now), ["192.0.2.2", "2001:db8::1", "192.0.2.1"]);
        assert!(hosts.is_down(&mx, now));
        assert_eq!(sorted(&hosts, &place("other.example"), now), ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        let later = now + LAST_FOR;
        assert_eq!(sorted(&hosts, &mx, later), ["192.0.2.2", "192.0.2.1", "2001:db8::1"]);
        assert!(!hosts.is_down(&mx, later));
        hosts.turned_away(&mx, ip("192.0.2.2"));
        assert_eq!(sorted(&hosts, &mx, later), ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_without_a_network_is_last_everywhere_until_it_answers() {
        let (hosts, now) = (hosts(100), Clock::system().instant());
        hosts.failed(&place("mx.example"), ip("192.0.2.9"), Some(io::ErrorKind::NetworkUnreachable), now);
        let other = place("other.example");
        assert_eq!(sorted(&hosts, &other, now), ["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        hosts.answered(&place("third.example"), ip("192.0.2.8"));
        assert_eq!(sorted(&hosts, &other, now), ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let (hosts, now) = (hosts(10), Clock::system().instant());
        for n in 0..100 {
            hosts.tls_failed(&place("used.example"), now);
            hosts.tls_failed(&place(&format!("mx{n}.example")), now);
            assert!(hosts.count.get() <= 10);
        }
        assert!(hosts.has_broken_tls(&place("used.example"), now));
        assert!(!hosts.has_broken_tls(&place("mx0.example"), now));
        assert!(!hosts.has_broken_tls(&place("used.example"), now + NO_TLS_FOR));
        for n in 0..100 {
            hosts.failed(&place("mx.example"), ip(&format!("192.0.2.{n}")), None, now);
        }
        assert_eq!(hosts.state.lock().look(&place("mx.example")).unwrap().failed.len(), MOST_FAILED);
    }
}
