//! Where a site's connections go: the hosts in their order, and which of their
//! addresses may be dialled.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use postrider_base::{Dialer, Random};
use postrider_dns::{DnsError, Mx, Resolver};
use postrider_mail::Domain;
use postrider_smtp::{Credentials, Protocol};

use crate::finding::Finding;
use crate::route::{Host, StaticRoute, TlsUse, Verify};
use crate::settings::{Settings, Smarthost, SmarthostTls};
use crate::tls::{Authorities, HostPolicy, Proof, Required};

/// The port of mail hosts (RFC 5321 section 4.5.4.2).
const SMTP_PORT: u16 = 25;

/// The hosts of a site.
pub(crate) struct Target {
    /// The site's name: equal names share connections.
    pub(crate) name: Arc<str>,
    /// Best preference first; hosts with the same preference together.
    pub(crate) hosts: Vec<Vec<Host>>,
    pub(crate) port: u16,
    pub(crate) tls: TlsUse,
    pub(crate) kind: Kind,
    /// The hosts are those of a policy that the domain publishes and that is
    /// enforced: they have to prove their names (RFC 8461 section 4.1).
    pub(crate) sts: bool,
    /// DNSSEC proves that these are the domain's hosts, so that what their own
    /// zones say about them counts (RFC 7672 section 2.2.1).
    pub(crate) proved: bool,
}

/// Who named the hosts of a target.
pub(crate) enum Kind {
    /// The DNS: nobody that is trusted.
    Mx,
    /// The operator, as one host with what belongs to it.
    Route(Service),
    /// The operator; it is inside this process.
    BuiltIn(Arc<dyn Dialer>),
}

/// What belongs to a host that the operator named.
pub(crate) struct Service {
    pub(crate) protocol: Protocol,
    /// What its certificate has to be like.
    pub(crate) policy: HostPolicy,
    /// Whom it knows us as.
    pub(crate) credentials: Option<Credentials>,
}

impl Target {
    /// A static route's host.
    pub(crate) fn of_route(route: &StaticRoute) -> Self {
        let names = match &route.verify {
            Verify::No => None,
            Verify::Host => Some(proof_of(&route.host)),
            Verify::Name(name) => Some(name.to_string()),
        };
        let policy = policy(names, route.tls, None);
        let service = Service { protocol: route.protocol, policy, credentials: None };
        Self::of_service(route.to_string(), route.host.clone(), route.port, route.tls, service)
    }

    /// A smarthost with what its files hold. `None` for a host that validation
    /// refuses.
    pub(crate) fn of_smarthost(
        section: &str,
        smarthost: &Smarthost,
        authorities: Option<Authorities>,
        credentials: Option<Credentials>,
    ) -> Option<Self> {
        let tls = match smarthost.tls {
            SmarthostTls::None => TlsUse::Never,
            SmarthostTls::Opportunistic => TlsUse::Opportunistic,
            SmarthostTls::Starttls => TlsUse::Required,
            SmarthostTls::Wrapper => TlsUse::Implicit,
        };
        let host = Host::parse(&smarthost.host)?;
        let policy = policy(smarthost.verify.then(|| proof_of(&host)), tls, authorities);
        let service = Service { protocol: Protocol::Smtp, policy, credentials };
        let name = format!("{section} {host}:{}", smarthost.port);
        Some(Self::of_service(name, host, smarthost.port, tls, service))
    }

    fn of_service(name: String, host: Host, port: u16, tls: TlsUse, service: Service) -> Self {
        Self {
            name: name.into(),
            hosts: vec![vec![host]],
            port,
            tls,
            kind: Kind::Route(service),
            sts: false,
            proved: false,
        }
    }

    /// A destination inside this process.
    pub(crate) fn of_built_in(name: &str, dialer: Arc<dyn Dialer>) -> Self {
        Self {
            name: format!("{name}:").into(),
            hosts: vec![vec![Host::Address(std::net::Ipv4Addr::LOCALHOST.into())]],
            port: SMTP_PORT,
            tls: TlsUse::Never,
            kind: Kind::BuiltIn(dialer),
            sts: false,
            proved: false,
        }
    }

    /// The hosts that the DNS, or an address literal, names. Domains whose hosts are
    /// the same share connections only as far as the hosts are known in the same
    /// way.
    pub(crate) fn of_hosts(hosts: Vec<Vec<Host>>, proved: bool, sts: bool) -> Self {
        let group = |hosts: &Vec<Host>| hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(",");
        let mut name = hosts.iter().map(group).collect::<Vec<_>>().join(" ");
        name.push_str(if proved { " (dnssec)" } else { "" });
        name.push_str(if sts { " (mta-sts)" } else { "" });
        let tls = if sts { TlsUse::Required } else { TlsUse::Opportunistic };
        Self { name: name.into(), hosts, port: SMTP_PORT, tls, kind: Kind::Mx, sts, proved }
    }

    /// Whether strangers named the hosts.
    pub(crate) fn is_found_by_dns(&self) -> bool {
        matches!(self.kind, Kind::Mx)
    }

    /// The hosts in the order of one attempt: by preference, at random among
    /// equals (RFC 5321 section 5.1).
    pub(crate) fn order(&self, random: &Random) -> Vec<(usize, &Host)> {
        let mut order = Vec::new();
        for (rank, group) in self.hosts.iter().enumerate() {
            let start = order.len();
            order.extend(group.iter().map(|host| (rank, host)));
            shuffle(&mut order[start..], random);
        }
        order
    }
}

/// What a certificate has to be for, to be the host's.
fn proof_of(host: &Host) -> String {
    match host {
        Host::Address(address) => address.to_string(),
        Host::Name(_) | Host::Socket(_) => host.to_string(),
    }
}

/// What the operator asks of a session with a host. Where TLS is only an offer a
/// proof would be of no use: whoever comes between takes the offer away.
fn policy(name: Option<String>, tls: TlsUse, authorities: Option<Authorities>) -> HostPolicy {
    let required = match (tls, name) {
        (TlsUse::Never | TlsUse::Opportunistic, _) => Required::Nothing,
        (TlsUse::Required | TlsUse::Implicit, None) => Required::Encryption,
        (TlsUse::Required | TlsUse::Implicit, Some(name)) => Required::Webpki(vec![name]),
    };
    HostPolicy { required, proof: Proof::Configured, authorities }
}

fn shuffle<T>(items: &mut [T], random: &Random) {
    for last in (1..items.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).unwrap_or(last);
        items.swap(last, other);
    }
}

/// How long a target found by DNS holds at least and at most, whatever its
/// records say.
const HOLDS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));

/// Asks the DNS for the hosts of `domain` (RFC 5321 section 5.1), and for how
/// long the answer holds.
pub(crate) async fn find_mx(
    resolver: &dyn Resolver,
    domain: &Domain,
    hostname: &str,
) -> Result<(Target, Duration), Finding> {
    if let Some(address) = domain.literal() {
        return Ok((Target::of_hosts(vec![vec![Host::Address(address)]], false, false), HOLDS.1));
    }
    let question = format!("DNS MX {domain}");
    let (hosts, ttl, proved) = match resolver.mx(domain).await {
        Ok(answer) if answer.is_null_mx() => {
            return Err(Finding::null_mx(domain.as_str()).asking(&question, "0 ."));
        }
        Ok(answer) => {
            let said = shown(&answer.value);
            let looped = || Finding::looped(domain.as_str()).asking(&question, said);
            (groups(answer.value, hostname).ok_or_else(looped)?, answer.ttl, answer.authenticated)
        }
        // The domain itself is the host then.
        Err(DnsError::NoRecords { ttl, proved }) => (vec![vec![Host::Name(domain.as_str().into())]], ttl, proved),
        Err(DnsError::Invalid) => return Err(Finding::bad_domain(domain.as_str())),
        // A domain that does not exist may be one whose registration lapsed,
        // or a mistake in its zone: retried like a failing server.
        Err(error) => {
            tracing::debug!(%domain, %error, "no MX");
            return Err(Finding::no_dns(domain.as_str()).asking(&question, error));
        }
    };
    Ok((Target::of_hosts(hosts, proved, false), ttl.clamp(HOLDS.0, HOLDS.1)))
}

/// The best of some records, as a zone has them.
fn shown(records: &[Mx]) -> String {
    let records = records.iter().take(5).map(|mx| format!("{} {}", mx.preference, mx.exchange));
    records.collect::<Vec<_>>().join(", ")
}

/// The hosts by preference. Our own name drops itself and everything that is
/// not better (RFC 5321 section 5.1); `None` when nothing is left.
fn groups(mut records: Vec<Mx>, hostname: &str) -> Option<Vec<Vec<Host>>> {
    records.retain(|mx| !mx.exchange.is_empty());
    let own = |mx: &&Mx| mx.exchange.eq_ignore_ascii_case(hostname);
    if let Some(limit) = records.iter().filter(own).map(|mx| mx.preference).min() {
        records.retain(|mx| mx.preference < limit);
    }
    // Best first, so that a host that is named more than once has its best place.
    records.sort();
    let mut known = HashSet::new();
    let mut by_preference: BTreeMap<u16, Vec<Host>> = BTreeMap::new();
    for mx in records {
        let host = Host::parse(&mx.exchange).unwrap_or_else(|| Host::Name(mx.exchange.as_str().into()));
        if known.insert(host.to_string()) {
            by_preference.entry(mx.preference).or_default().push(host);
        }
    }
    let mut room = MOST_HOSTS;
    for group in by_preference.values_mut() {
        group.sort_by_cached_key(Host::to_string);
        group.truncate(room);
        room -= group.len();
    }
    by_preference.retain(|_, group| !group.is_empty());
    (!by_preference.is_empty()).then(|| by_preference.into_values().collect())
}

/// Hosts of a domain that count, the best ones. An attempt asks far fewer.
const MOST_HOSTS: usize = 50;

/// Whether an address may be dialled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Permission {
    /// It may.
    Granted,
    /// It leads nowhere or where mail has no business.
    Denied,
    /// It is this relay.
    Own,
}

/// Looks at an address that strangers named. What the operator names is never
/// asked about.
pub(crate) fn permission(address: IpAddr, settings: &Settings) -> Permission {
    let address = reached(address);
    if own_addresses(settings).any(|own| own == address) {
        return Permission::Own;
    }
    let (nowhere, private) = match address {
        // Reserved for what is local or for nobody (RFC 6890 section 2.2.2); 100.64.0.0/10 is inside providers.
        IpAddr::V4(v4) => {
            let [first, second, third, _] = v4.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            let is_protocol = [first, second, third] == [192, 0, 0];
            (
                first == 0 || first == 127 || first >= 224 || is_protocol,
                v4.is_private() || v4.is_link_local() || is_shared,
            )
        }
        IpAddr::V6(v6) => (
            // Teredo leads through hosts that anybody may name.
            v6.is_multicast() || v6.segments()[..2] == [0x2001, 0],
            v6.is_unique_local() || v6.is_unicast_link_local() || is_local_by_history(v6),
        ),
    };
    if nowhere || (private && !settings.allow_private_mx) { Permission::Denied } else { Permission::Granted }
}

/// The addresses by which this relay is reached: those that the operator names for
/// it, and those that mail leaves from.
pub(crate) fn own_addresses(settings: &Settings) -> impl Iterator<Item = IpAddr> {
    let sources = settings.sources.values();
    let sources = sources.flat_map(|source| [source.ipv4.map(IpAddr::V4), source.ipv6.map(IpAddr::V6)]);
    settings.own_addresses.iter().map(IpAddr::to_canonical).chain(sources.flatten())
}

/// The address that is reached by dialling `address`: translators take the IPv4
/// address out of some IPv6 addresses (RFC 6052 section 2.1, RFC 3056 section 2);
/// what once was "IPv4-compatible" is one with nothing before it (RFC 4291 section
/// 2.5.5.1).
fn reached(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let [high, low] = match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] | [0, 0, 0, 0, 0, 0, high, low] => [high, low],
        _ => return address,
    };
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
}

/// Site-local addresses (RFC 3879), and those of a network's own translator (RFC
/// 8215), behind which anything may be.
fn is_local_by_history(address: Ipv6Addr) -> bool {
    let [first, second, third, ..] = address.segments();
    first & 0xffc0 == 0xfec0 || [first, second, third] == [0x64, 0xff9b, 1]
}

/// The addresses of the two families in turn, so that neither keeps the other
/// from being tried; the preferred one begins.
pub(crate) fn by_family(addresses: Vec<IpAddr>, prefer_ipv4: bool) -> Vec<IpAddr> {
    let (preferred, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == prefer_ipv4);
    let turns = preferred.len().max(others.len());
    (0..turns).flat_map(|turn| [preferred.get(turn), others.get(turn)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mx(preference: u16, exchange: &str) -> Mx {
        Mx { preference, exchange: exchange.to_owned() }
    }

    fn shown(records: &[(u16, &str)]) -> Option<String> {
        let records = records.iter().map(|(preference, exchange)| mx(*preference, exchange)).collect();
        groups(records, "relay.example.net").map(|hosts| Target::of_hosts(hosts, false, false).name.to_string())
    }

    #[test]
    fn the_name_of_a_site_is_its_sorted_mx_set() {
        let one = shown(&[(20, "c.example"), (10, "b.example"), (10, "a.example")]);
        assert_eq!(one.as_deref(), Some("a.example,b.example c.example"));
        assert_eq!(one, shown(&[(5, "a.example"), (5, "b.example"), (5, "b.example"), (9, "c.example")]));
        let twice = [(9, "a.example"), (5, "b.example"), (9, "c.example"), (5, "a.example"), (7, "b.example")];
        assert_eq!(one, shown(&twice), "at its best place only");
    }

    #[test]
    fn hosts_that_are_known_in_different_ways_are_different_sites() {
        let named = |proved, sts| {
            let target = Target::of_hosts(vec![vec![Host::Name("mx.example".into())]], proved, sts);
            (target.name.to_string(), target.tls)
        };
        assert_eq!(named(false, false), ("mx.example".into(), TlsUse::Opportunistic));
        assert_eq!(named(true, false), ("mx.example (dnssec)".into(), TlsUse::Opportunistic));
        assert_eq!(named(true, true), ("mx.example (dnssec) (mta-sts)".into(), TlsUse::Required));
    }

    #[test]
    fn our_own_name_drops_itself_and_what_is_not_better() {
        let some = [(10, "a.example"), (20, "Relay.example.net"), (20, "b.example"), (30, "c.example")];
        assert_eq!(shown(&some).as_deref(), Some("a.example"));
        assert_eq!(shown(&[(10, "relay.example.net"), (20, "c.example")]), None);
    }

    #[test]
    fn hosts_are_bounded_and_the_best_ones_stay() {
        let records = (0..500).map(|n| mx(n / 10, &format!("mx{n:03}.example"))).collect();
        let hosts = groups(records, "relay.example.net").unwrap();
        assert_eq!(hosts.iter().map(Vec::len).collect::<Vec<_>>(), [10; 5]);
        assert_eq!(hosts[4][9].to_string(), "mx049.example");
    }

    #[test]
    fn families_take_turns() {
        let shown = |prefer_ipv4| {
            let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"].map(|text| text.parse().unwrap());
            by_family(addresses.to_vec(), prefer_ipv4).iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown(true), ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(shown(false), ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert!(by_family(Vec::new(), true).is_empty());
    }

    #[test]
    fn equals_are_shuffled_and_others_are_not() {
        let hosts = groups(vec![mx(1, "a"), mx(1, "b"), mx(1, "c"), mx(2, "z")], "relay").unwrap();
        let target = Target::of_hosts(hosts, false, false);
        let mut firsts = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let order = target.order(&Random::seeded(seed));
            assert_eq!(order.len(), 4);
            assert_eq!(order[3].1.to_string(), "z");
            firsts.insert(order[0].1.to_string());
        }
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn strangers_do_not_make_us_dial_inside() {
        let mut settings = Settings { own_addresses: vec!["192.0.2.1".parse().unwrap()], ..Settings::default() };
        let mut ask = |address: &str, allow: bool| {
            settings.allow_private_mx = allow;
            permission(address.parse().unwrap(), &settings)
        };
        for never in
            ["127.0.0.1", "0.0.0.0", "0.1.2.3", "::", "::1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "ff02::1"]
        {
            assert_eq!(ask(never, true), Permission::Denied, "{never}");
        }
        for never in ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1", "192.0.0.8", "2001::1"] {
            assert_eq!(ask(never, true), Permission::Denied, "{never}");
        }
        for private in [
            "fec0::1",
            "64:ff9b:1::a00:1",
            "::10.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(ask(private, false), Permission::Denied, "{private}");
            assert_eq!(ask(private, true), Permission::Granted, "{private}");
        }
        for inside in ["100.64.0.1", "100.127.255.255", "64:ff9b::a00:1", "2002:c0a8:101::1"] {
            assert_eq!(ask(inside, false), Permission::Denied, "{inside}");
            assert_eq!(ask(inside, true), Permission::Granted, "{inside}");
        }
        for fine in ["198.51.100.1", "100.63.0.1", "100.128.0.1", "2001:db8::1", "64:ff9b::c633:6401"] {
            assert_eq!(ask(fine, false), Permission::Granted, "{fine}");
        }
        assert_eq!(ask("192.0.2.1", true), Permission::Own);
        assert_eq!(ask("::ffff:192.0.2.1", true), Permission::Own);
        assert_eq!(ask("64:ff9b::c000:201", true), Permission::Own);
    }
}
