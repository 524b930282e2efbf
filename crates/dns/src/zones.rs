//! A DNS in memory, for tests: what to answer is programmed, what was asked is
//! counted. It belongs to the public interface because every room that resolves
//! names is tested with it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_mail::Domain;

use crate::answer::literal_answer;
use crate::{Alias, Answer, BoxFuture, DnsError, Mx, Reply, Resolver, Tlsa};

/// A programmable resolver. A name without records does not exist, one with
/// records of other types has none of the type asked for. Clones share
/// everything, so a test can change zones under a running relay.
///
/// ```
/// # use postrider_dns::{Resolver as _, Zones};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let zones = Zones::new();
/// zones
///     .add_mx("example.com", 10, "mx.example.com")
///     .add_address("mx.example.com", "192.0.2.1");
/// let domain = "example.com".parse().unwrap();
/// assert_eq!(zones.mx(&domain).await.unwrap().value[0].preference, 10);
/// assert_eq!(zones.queries("example.com"), 1);
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Zones(Arc<Mutex<State>>);

/// How a name fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The servers say that they can not answer.
    ServFail,
    /// The servers do not answer and the resolver gives up at once.
    Timeout,
    /// The question never ends; only its caller's own deadline does.
    Silence,
    /// The other family of its addresses can not be looked up.
    OtherFamily,
    /// What is there should be proved and is not. Questions that are never
    /// validated do not notice.
    Bogus,
}

#[derive(Debug)]
struct State {
    names: HashMap<String, Records>,
    queries: HashMap<String, usize>,
    ttl: Duration,
    authenticated: bool,
}

impl Default for State {
    fn default() -> State {
        State { names: HashMap::new(), queries: HashMap::new(), ttl: Duration::from_secs(300), authenticated: false }
    }
}

#[derive(Clone, Debug, Default)]
struct Records {
    mx: Vec<Mx>,
    addresses: Vec<IpAddr>,
    tlsa: Vec<Tlsa>,
    txt: Vec<String>,
    ptr: Vec<String>,
    alias: Option<String>,
    ttl: Duration,
    authenticated: bool,
    failure: Option<Failure>,
    delay: Duration,
}

impl Zones {
    /// Zones in which nothing exists.
    pub fn new() -> Zones {
        Zones::default()
    }

    /// The time to live of all that is added from here on, at first 300 s.
    pub fn set_ttl(&self, ttl: Duration) -> &Zones {
        self.0.lock().ttl = ttl;
        self
    }

    /// Whether what is added from here on is proved by DNSSEC, at first not. The
    /// last addition decides for all of a name; what nothing was ever said of
    /// is as absent, and as surely, as said last.
    pub fn set_authenticated(&self, authenticated: bool) -> &Zones {
        self.0.lock().authenticated = authenticated;
        self
    }

    /// Adds a mail exchanger.
    pub fn add_mx(&self, domain: &str, preference: u16, exchange: &str) -> &Zones {
        let exchange = canonical(exchange);
        self.change(domain, |records| {
            records.mx.push(Mx { preference, exchange });
        })
    }

    /// Adds the null MX (RFC 7505).
    pub fn add_null_mx(&self, domain: &str) -> &Zones {
        self.add_mx(domain, 0, ".")
    }

    /// Adds an address.
    ///
    /// # Panics
    /// When `ip` is none.
    pub fn add_address(&self, host: &str, ip: &str) -> &Zones {
        let ip = ip.parse().expect("a test writes an IP address");
        self.change(host, |records| records.addresses.push(ip))
    }

    /// Makes a name an alias of another (CNAME): every question about it is
    /// answered by the other.
    pub fn add_alias(&self, name: &str, target: &str) -> &Zones {
        let target = canonical(target);
        self.change(name, |records| records.alias = Some(target))
    }

    /// Adds a TLSA record for a port of a host.
    pub fn add_tlsa(&self, host: &str, port: u16, tlsa: Tlsa) -> &Zones {
        self.change(&service_name(host, port), |records| records.tlsa.push(tlsa))
    }

    /// Adds a text.
    pub fn add_txt(&self, name: &str, text: &str) -> &Zones {
        self.change(name, |records| records.txt.push(text.to_owned()))
    }

    /// Adds a name of an address.
    pub fn add_ptr(&self, ip: &str, name: &str) -> &Zones {
        self.change(ip, |records| records.ptr.push(canonical(name)))
    }

    /// Lets every question about a name, or the address of a PTR question, fail.
    pub fn fail(&self, name: &str, failure: Failure) -> &Zones {
        self.change(name, |records| records.failure = Some(failure))
    }

    /// Lets every question about a name take this long.
    pub fn delay(&self, name: &str, delay: Duration) -> &Zones {
        self.change(name, |records| records.delay = delay)
    }

    /// Takes everything away that was said about a name; its count stays.
    pub fn remove(&self, name: &str) -> &Zones {
        self.0.lock().names.remove(&canonical(name));
        self
    }

    /// How many questions about a name, or the address of a PTR question, came.
    pub fn queries(&self, name: &str) -> usize {
        let state = self.0.lock();
        state.queries.get(&canonical(name)).copied().unwrap_or(0)
    }

    /// How many questions came in all.
    pub fn queries_total(&self) -> usize {
        self.0.lock().queries.values().sum()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Records)) -> &Zones {
        let mut state = self.0.lock();
        let (ttl, authenticated) = (state.ttl, state.authenticated);
        let records = state.names.entry(canonical(name)).or_default();
        records.ttl = ttl;
        records.authenticated = authenticated;
        change(records);
        drop(state);
        self
    }

    async fn ask<T>(&self, name: String, validated: bool, pick: fn(Records) -> Vec<T>) -> Reply<T> {
        let (mut owner, mut proved, mut first_proved) = (name, validated, None);
        for _ in 0..=MOST_ALIASES {
            let (ttl, records) = self.look(&owner, validated).await?;
            proved &= records.authenticated;
            if let Some(target) = records.alias {
                first_proved.get_or_insert(proved);
                owner = target;
                continue;
            }
            let alias = first_proved.map(|first_proved| Alias { target: owner.as_str().into(), first_proved });
            let partial = records.failure == Some(Failure::OtherFamily);
            let value = pick(records);
            if value.is_empty() {
                return Err(DnsError::NoRecords { ttl, proved });
            }
            return Ok(Answer { value, ttl, authenticated: proved, alias, partial });
        }
        Err(DnsError::temporary("too many aliases"))
    }

    /// Counts a question about a name and answers it.
    async fn look(&self, name: &str, validated: bool) -> Result<(Duration, Records), DnsError> {
        let (ttl, proved, records) = {
            let mut state = self.0.lock();
            *state.queries.entry(name.to_owned()).or_default() += 1;
            (state.ttl, state.authenticated && validated, state.names.get(name).cloned())
        };
        let Some(records) = records else {
            return Err(DnsError::NoSuchDomain { ttl, proved });
        };
        if !records.delay.is_zero() {
            tokio::time::sleep(records.delay).await;
        }
        match records.failure {
            Some(Failure::ServFail) => Err(DnsError::temporary("server failure")),
            Some(Failure::Timeout) => Err(DnsError::temporary("request timed out")),
            Some(Failure::Bogus) if validated => Err(DnsError::bogus("made up")),
            Some(Failure::Silence) => std::future::pending().await,
            Some(Failure::Bogus | Failure::OtherFamily) | None => Ok((records.ttl, records)),
        }
    }

    async fn ask_addresses(&self, host: &str, validated: bool) -> Reply<IpAddr> {
        if let Some(answer) = literal_answer(host) {
            return Ok(answer);
        }
        let mut reply = self.ask(canonical(host), validated, |r| r.addresses).await?;
        reply.value.sort_by_key(IpAddr::is_ipv6);
        Ok(reply)
    }
}

/// Aliases that are followed, as a resolver does.
const MOST_ALIASES: usize = 8;

impl Resolver for Zones {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Reply<Mx>> {
        Box::pin(async move {
            if domain.literal().is_some() {
                return Err(DnsError::NoRecords { ttl: Duration::ZERO, proved: false });
            }
            let mut reply = self.ask(canonical(domain.as_str()), true, |r| r.mx).await?;
            reply.value.sort();
            Ok(reply)
        })
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>> {
        Box::pin(self.ask_addresses(host, false))
    }

    fn proved_addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>> {
        Box::pin(self.ask_addresses(host, true))
    }

    fn tlsa<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Reply<Tlsa>> {
        Box::pin(self.ask(service_name(host, port), true, |r| r.tlsa))
    }

    fn txt<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Reply<String>> {
        Box::pin(self.ask(canonical(name), false, |r| r.txt))
    }

    fn ptr<'a>(&'a self, ip: IpAddr) -> BoxFuture<'a, Reply<String>> {
        Box::pin(self.ask(ip.to_string(), false, |r| r.ptr))
    }
}

/// Where a host's TLSA records are (RFC 6698 section 3).
fn service_name(host: &str, port: u16) -> String {
    format!("_{port}._tcp.{}", canonical(host))
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_are_answered_in_order() {
        let zones = Zones::new();
        zones
            .add_mx("Example.com", 20, "b.example.com.")
            .add_mx("example.com", 10, "A.example.com")
            .add_address("a.example.com", "2001:db8::1")
            .add_address("a.example.com", "192.0.2.1");
        let answer = zones.mx(&"example.com".parse().unwrap()).await;
        let exchanges: Vec<_> = answer.unwrap().value.into_iter().map(|mx| mx.exchange).collect();
        assert_eq!(exchanges, ["a.example.com", "b.example.com"]);
        let addresses = zones.addresses("a.example.com").await.unwrap().value;
        assert!(addresses[0].is_ipv4() && addresses[1].is_ipv6());
        assert!(zones.addresses("192.0.2.9").await.is_ok());
        assert_eq!(zones.queries_total(), 2);
    }

    #[tokio::test]
    async fn absence_has_two_kinds() {
        let zones = Zones::new();
        zones.add_null_mx("example.com");
        let domain: Domain = "example.com".parse().unwrap();
        assert!(zones.mx(&domain).await.unwrap().is_null_mx());
        assert!(matches!(zones.addresses("example.com").await, Err(DnsError::NoRecords { .. })));
        assert!(matches!(zones.addresses("example.net").await, Err(DnsError::NoSuchDomain { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_programmed() {
        let zones = Zones::new();
        zones.fail("a.example.com", Failure::ServFail);
        zones.fail("b.example.com", Failure::Silence);
        assert!(zones.addresses("a.example.com").await.unwrap_err().is_temporary());
        let silent = zones.addresses("b.example.com");
        assert!(tokio::time::timeout(Duration::from_secs(3600), silent).await.is_err());
    }

    #[tokio::test]
    async fn proofs_are_programmed() {
        let zones = Zones::new();
        let tlsa = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] };
        zones.add_address("open.example.net", "192.0.2.2").set_authenticated(true);
        zones
            .add_address("mx.example.com", "192.0.2.1")
            .add_tlsa("mx.example.com", 25, tlsa.clone())
            .add_alias("in.example.com", "mx.example.com")
            .add_alias("out.example.com", "open.example.net")
            .add_alias("loop.example.com", "loop.example.com")
            .add_mx("forged.example.com", 10, "mx.example.com")
            .fail("forged.example.com", Failure::Bogus);
        let proved = zones.proved_addresses("mx.example.com").await.unwrap();
        assert!(proved.authenticated && proved.alias.is_none());
        assert!(!zones.addresses("mx.example.com").await.unwrap().authenticated);
        let inside = zones.proved_addresses("in.example.com").await.unwrap();
        assert_eq!((inside.authenticated, &*inside.alias.unwrap().target), (true, "mx.example.com"));
        let outside = zones.proved_addresses("out.example.com").await.unwrap();
        assert!(!outside.authenticated && outside.alias.unwrap().first_proved);
        assert_eq!(zones.tlsa("MX.example.com", 25).await.unwrap().value, [tlsa]);
        assert!(matches!(zones.tlsa("mx.example.com", 26).await, Err(DnsError::NoSuchDomain { proved: true, .. })));
        let forged = zones.mx(&"forged.example.com".parse().unwrap()).await.unwrap_err();
        assert!(matches!(forged, DnsError::Bogus { .. }) && forged.is_temporary());
        assert!(zones.addresses("loop.example.com").await.unwrap_err().is_temporary());
    }
}
