//! The walk of one attempt from host to host, until one of them takes mail.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use postrider_dns::DnsError;
use postrider_mail::{AttemptRecord, Domain, HostRecord, Remote};
use tokio::time::timeout;

use crate::Shared;
use crate::classify::Verdict;
use crate::config::Config;
use crate::connection::{Connection, Stop};
use crate::finding::Finding;
use crate::known::Place;
use crate::lane::{Demand, Lane};
use crate::open::{Closed, Opening};
use crate::progress::Progress;
use crate::route::Host;
use crate::target::{Permission, Target, by_family, own_addresses, permission};
use crate::tls::{self, Failure, FailureKind, Found, HostPolicy};
use crate::tlsrpt::Session;

/// Where an attempt has got to.
pub(crate) struct Walk<'a> {
    shared: &'a Shared,
    config: Arc<Config>,
    target: &'a Target,
    lane: &'a Lane,
    /// The recipients'.
    domain: &'a Domain,
    progress: &'a Arc<Progress>,
    /// Hosts that have not been looked up, with their rank.
    hosts: VecDeque<(usize, Host)>,
    /// Addresses of the present host that have not been dialled.
    addresses: VecDeque<Address>,
    /// The rank whose hosts were looked at together.
    entered: Option<usize>,
    /// Already refused what is to be sent.
    avoid: Option<IpAddr>,
    /// Nobody greeted us there. Under another name it is the same machine.
    unreachable: Vec<IpAddr>,
    addresses_left: usize,
    greetings_left: usize,
    /// The rank of the first host that no address could be found for.
    passed_over: Option<usize>,
    last: Option<Refused>,
    /// What hosts said who did not take mail, since [`Walk::refusals`].
    refusals: Vec<Finding>,
    thorough: bool,
}

/// Somewhere to dial.
struct Address {
    rank: usize,
    place: Place,
    /// `None` for a socket.
    ip: Option<IpAddr>,
    /// What the host's own zone asks of a session with it.
    policy: HostPolicy,
}

/// Why no host takes mail.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) finding: Finding,
    /// Who was asked last, where somebody was.
    pub(crate) remote: Option<Remote>,
    /// What was tried, once that is over.
    pub(crate) record: Option<Arc<AttemptRecord>>,
}

/// By how much a thorough walk exceeds the bounds of others.
const THOROUGH: usize = 10;

/// Why a walk ends.
pub(crate) enum Halt {
    /// Nobody takes mail.
    Refused(Refused),
    /// The relay stops.
    Stopped,
}

impl Halt {
    /// With what hosts asked for on the way.
    pub(crate) fn asking(mut self, retry_after: Option<Duration>) -> Self {
        if let Self::Refused(refused) = &mut self {
            refused.finding.retry_after = retry_after;
        }
        self
    }
}

impl<'a> Walk<'a> {
    /// A thorough walk asks more hosts than others, and gives up for good only when
    /// all of them have spoken.
    pub(crate) fn new(
        shared: &'a Shared,
        config: Arc<Config>,
        target: &'a Target,
        lane: &'a Lane,
        domain: &'a Domain,
        progress: &'a Arc<Progress>,
        thorough: bool,
    ) -> Self {
        let now = shared.clock.instant();
        let mut order = target.order(&shared.random);
        // Among equals, those that did not answer lately come last.
        order.sort_by_cached_key(|(rank, host)| (*rank, shared.known.is_down(&((*host).clone(), target.port), now)));
        let patience = if thorough { THOROUGH } else { 1 };
        Self {
            shared,
            target,
            lane,
            domain,
            progress,
            hosts: order.into_iter().map(|(rank, host)| (rank, host.clone())).collect(),
            addresses: VecDeque::new(),
            entered: None,
            avoid: None,
            unreachable: Vec::new(),
            addresses_left: config.settings.limits.addresses_per_attempt.saturating_mul(patience),
            greetings_left: config.settings.limits.greetings_per_attempt.saturating_mul(patience),
            passed_over: None,
            last: None,
            refusals: Vec::new(),
            thorough,
            config,
        }
    }

    /// The host at `remote` has greeted us and does not take what is to be
    /// sent.
    pub(crate) fn turned_away(&mut self, remote: &Remote, finding: Finding) {
        if let Some(ip) = remote.ip {
            let host = Host::parse(&remote.host).unwrap_or_else(|| Host::Name(remote.host.as_str().into()));
            self.shared.known.turned_away(&(host, remote.port), ip);
        }
        self.avoid = remote.ip;
        self.greetings_left = self.greetings_left.saturating_sub(1);
        self.blame(Refused { finding, remote: Some(remote.clone()), record: None });
    }

    /// Goes on to the next host that takes mail.
    pub(crate) async fn next(&mut self, stop: &mut Stop) -> Result<Connection, Halt> {
        while self.greetings_left > 0 && self.addresses_left > 0 {
            let found = tokio::select! {
                biased;
                found = self.next_address() => found,
                () = stop.wait() => return Err(Halt::Stopped),
            };
            let Some(Address { rank, place, ip, policy }) = found else { break };
            if ip.is_some_and(|ip| self.avoid == Some(ip) || self.unreachable.contains(&ip)) {
                continue;
            }
            self.addresses_left -= 1;
            let (shared, config) = (self.shared, &*self.config);
            let (target, lane, domain) = (self.target, self.lane, self.domain);
            let opening = Opening {
                shared,
                config,
                target,
                lane,
                domain,
                progress: self.progress,
                place: &place,
                ip,
                found: policy,
            };
            let opened = opening.open(stop).await;
            if let Err(Closed::Ourselves) = opened {
                self.shared.metrics.outbound_failed.inc();
                self.greetings_left -= 1;
                self.turn_back(rank, &place.0);
                continue;
            }
            match opened {
                Ok(connection) => {
                    ip.into_iter().for_each(|ip| self.shared.known.answered(&place, ip));
                    return Ok(connection);
                }
                Err(Closed::Stopped) => return Err(Halt::Stopped),
                Err(Closed::ClearMayWork | Closed::Ourselves) => {}
                Err(Closed::Refused { finding, remote, greeted, why }) => {
                    self.shared.metrics.outbound_failed.inc();
                    self.greetings_left -= usize::from(greeted);
                    if let Some(ip) = ip.filter(|_| !greeted) {
                        self.unreachable.push(ip);
                        self.shared.known.failed(&place, ip, why, self.shared.clock.instant());
                    }
                    self.refusals.extend(finding.reply.is_some().then(|| finding.clone()));
                    self.blame(Refused { finding, remote: Some(remote), record: None });
                }
            }
        }
        let nothing_tried = || Refused { finding: Finding::no_connection(), remote: None, record: None };
        Err(Halt::Refused(self.last.clone().unwrap_or_else(nothing_tried)))
    }

    /// What hosts have said since this was asked last.
    pub(crate) fn refusals(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.refusals)
    }

    /// The next address to dial, after looking up as many hosts as it takes.
    async fn next_address(&mut self) -> Option<Address> {
        while self.addresses.is_empty() {
            let (rank, host) = self.hosts.pop_front()?;
            if self.entered != Some(rank) {
                self.entered = Some(rank);
                if let Some(own) = self.find_own(rank, &host).await {
                    self.turn_back(rank, &own);
                    continue;
                }
            }
            let place = (host, self.target.port);
            let Found { addresses, policy } = match &place.0 {
                Host::Socket(_) => return Some(Address { rank, place, ip: None, policy: HostPolicy::default() }),
                Host::Address(address) => Found { addresses: vec![*address], policy: HostPolicy::default() },
                Host::Name(name) => match self.look_up(name, self.asks_for_proofs()).await {
                    Ok(found) => found,
                    Err(error) => {
                        self.pass_over(rank, name, &format!("cannot be looked up: {error}"), Finding::no_dns(name));
                        continue;
                    }
                },
            };
            let addresses = by_family(addresses, self.config.settings.prefer_ipv4);
            let mut allowed = self.allowed(rank, &place.0, addresses);
            self.shared.known.sort(&place, &mut allowed, self.shared.clock.instant());
            let address = |ip| Address { rank, place: place.clone(), ip: Some(ip), policy: policy.clone() };
            self.addresses.extend(allowed.into_iter().map(address));
        }
        self.addresses.pop_front()
    }

    /// RFC 8689 section 4.1: what is to go on whatever the recipient's domain
    /// publishes is not kept by trouble with that either.
    fn asks_for_proofs(&self) -> bool {
        self.target.proved && self.lane.demand != Demand::Waived
    }

    /// The addresses of a host; with what its own zone asks of sessions where it is
    /// proved that it is the domain's.
    async fn look_up(&self, host: &str, is_proved: bool) -> Result<Found, String> {
        let limit = self.config.settings.timeouts.lookup.as_duration();
        match timeout(limit, tls::find(&*self.shared.resolver, host, self.target.port, is_proved)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::debug!(%host, %error, "no address");
                if matches!(error, DnsError::Bogus { .. }) {
                    self.note_forged(host, &error);
                }
                Err(error.to_string())
            }
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Counts for the domain's report that nobody knows what its host's zone asks.
    fn note_forged(&self, host: &str, error: &DnsError) {
        let failure = Failure::new(FailureKind::DnssecInvalid, error.to_string());
        let session = Session {
            domain: self.domain,
            mx: host,
            helo: None,
            ip: None,
            source_ip: None,
            tlsa: Some(&[]),
            tls: None,
            failure: Some(&failure),
        };
        self.shared.tls_reports.note(&self.config.settings, &session);
    }

    /// This relay among several hosts of one preference, of which none is asked
    /// then, in whatever order they are (RFC 5321 section 5.1).
    async fn find_own(&self, rank: usize, first: &Host) -> Option<Host> {
        let knows_itself = own_addresses(&self.config.settings).next().is_some();
        let others: Vec<_> = self.hosts.iter().take_while(|(other, _)| *other == rank).map(|(_, host)| host).collect();
        if !self.target.is_found_by_dns() || !knows_itself || others.is_empty() {
            return None;
        }
        let is_own = async |host: &Host| {
            let addresses = match host {
                Host::Name(name) => self.look_up(name, false).await.map(|found| found.addresses).unwrap_or_default(),
                Host::Address(address) => vec![*address],
                Host::Socket(_) => Vec::new(),
            };
            addresses.into_iter().any(|ip| self.permission(ip) == Permission::Own).then(|| host.clone())
        };
        let asked = others.into_iter().chain([first]).map(is_own);
        join_all(asked).await.into_iter().flatten().next()
    }

    /// The addresses that may be dialled. Where one is our own, that host and
    /// all that are not better are dropped, as in [`crate::target`].
    fn allowed(&mut self, rank: usize, host: &Host, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        if self.target.is_found_by_dns() {
            if addresses.iter().any(|address| self.permission(*address) == Permission::Own) {
                self.turn_back(rank, host);
                return Vec::new();
            }
            addresses.retain(|address| self.permission(*address) == Permission::Granted);
            if addresses.is_empty() {
                let finding = Finding::forbidden(&host.to_string());
                self.pass_over(rank, &host.to_string(), &finding.diagnostic.clone(), finding);
                return addresses;
            }
        }
        addresses.retain(|address| self.has_source_for(*address));
        if addresses.is_empty() {
            let finding = Finding::no_source(&host.to_string());
            self.pass_over(rank, &host.to_string(), &finding.diagnostic.clone(), finding);
        }
        addresses
    }

    fn permission(&self, address: IpAddr) -> Permission {
        permission(address, &self.config.settings)
    }

    /// Whether there is an address of this family to dial from.
    fn has_source_for(&self, address: IpAddr) -> bool {
        self.lane.source.as_ref().is_none_or(|source| match address {
            IpAddr::V4(_) => source.ipv4.is_some(),
            IpAddr::V6(_) => source.ipv6.is_some(),
        })
    }

    /// A host is this relay: it and all that are not better are dropped.
    fn turn_back(&mut self, rank: usize, host: &Host) {
        self.addresses.clear();
        self.hosts.retain(|(other, _)| *other < rank);
        // A better host may have an address again later.
        if self.passed_over.is_none_or(|best| best >= rank) {
            self.blame(Refused { finding: Finding::looped(&host.to_string()), remote: None, record: None });
        }
    }

    /// Remembers why a host was not dialled.
    fn pass_over(&mut self, rank: usize, host: &str, why: &str, finding: Finding) {
        self.progress.tried(HostRecord::named(host).failed(why));
        self.passed_over.get_or_insert(rank);
        self.blame(Refused { finding, remote: None, record: None });
    }

    /// Remembers why a host does not take mail. What a host said weighs more
    /// than what was thought of it, and a host that never will take it speaks
    /// for the others; but a thorough walk gives up only when no host may still
    /// take it later. Else the last word counts.
    fn blame(&mut self, refused: Refused) {
        let thorough = self.thorough;
        let weight = |refused: &Refused| {
            let may_pass = matches!(refused.finding.verdict, Verdict::Deferred(_));
            let has_spoken = refused.remote.is_some();
            if thorough { (may_pass, has_spoken) } else { (has_spoken, !may_pass) }
        };
        if self.last.as_ref().is_none_or(|last| weight(&refused) >= weight(last)) {
            self.last = Some(refused);
        }
    }
}
