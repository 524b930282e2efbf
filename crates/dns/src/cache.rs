//! A cache in front of a resolver.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};
use parking_lot::Mutex;
use postrider_base::metrics::DnsResult;
use postrider_base::{Clock, Metrics};
use postrider_mail::Domain;
use tokio::time::Instant;

use crate::answer::literal_answer;
use crate::{Answer, BoxFuture, DnsError, Mx, Reply, Resolver, Settings, Tlsa, Validation};

/// Remembers what a resolver said for as long as it may, and asks the same
/// question once however many wait for its answer.
///
/// That there is no answer is remembered too, a failure of the servers only
/// for a moment. The time is the injected clock's. At most
/// [`Settings::cache_entries`] answers of each type are kept, the longest
/// unused go first. Cloning copies a pointer.
#[derive(Debug)]
pub struct Cached<R>(Arc<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    resolver: R,
    mx: Memory<Domain, Mx>,
    addresses: Memory<String, IpAddr>,
    proved_addresses: Memory<String, IpAddr>,
    tlsa: Memory<(String, u16), Tlsa>,
    txt: Memory<String, String>,
    ptr: Memory<IpAddr, String>,
}

impl<R> Clone for Cached<R> {
    fn clone(&self) -> Cached<R> {
        Cached(self.0.clone())
    }
}

impl<R: Resolver + 'static> Cached<R> {
    /// A cache in front of `resolver`, empty.
    pub fn new(resolver: R, clock: Clock, metrics: Metrics, settings: &Settings) -> Cached<R> {
        let rules = Rules {
            entries: settings.cache_entries as usize,
            positive: (settings.min_ttl.into(), settings.max_ttl.into()),
            negative: (settings.min_ttl.into(), settings.negative_max_ttl.into()),
            failure: settings.failure_ttl.into(),
            clock,
            metrics,
        };
        Cached(Arc::new(Inner {
            resolver,
            mx: Memory::new(rules.clone()),
            addresses: Memory::new(rules.clone()),
            proved_addresses: Memory::new(rules.clone()),
            tlsa: Memory::new(rules.clone()),
            txt: Memory::new(rules.clone()),
            ptr: Memory::new(rules),
        }))
    }
}

impl<R: Resolver + 'static> Resolver for Cached<R> {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Reply<Mx>> {
        let inner = self.0.clone();
        self.0.mx.answer(domain.clone(), move |domain| {
            Box::pin(async move {
                let reply = inner.resolver.mx(&domain).await;
                inner.mx.keep(domain, reply)
            })
        })
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>> {
        if let Some(answer) = literal_answer(host) {
            return Box::pin(async { Ok(answer) });
        }
        let inner = self.0.clone();
        self.0.addresses.answer(canonical(host), move |host| {
            Box::pin(async move {
                let reply = inner.resolver.addresses(&host).await;
                inner.addresses.keep(host, reply)
            })
        })
    }

    fn proved_addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>> {
        if let Some(answer) = literal_answer(host) {
            return Box::pin(async { Ok(answer) });
        }
        let inner = self.0.clone();
        self.0.proved_addresses.answer(canonical(host), move |host| {
            Box::pin(async move {
                let reply = inner.resolver.proved_addresses(&host).await;
                inner.proved_addresses.keep(host, reply)
            })
        })
    }

    fn tlsa<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Reply<Tlsa>> {
        let inner = self.0.clone();
        self.0.tlsa.answer((canonical(host), port), move |(host, port)| {
            Box::pin(async move {
                let reply = inner.resolver.tlsa(&host, port).await;
                inner.tlsa.keep((host, port), reply)
            })
        })
    }

    fn txt<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Reply<String>> {
        let inner = self.0.clone();
        self.0.txt.answer(canonical(name), move |name| {
            Box::pin(async move {
                let reply = inner.resolver.txt(&name).await;
                inner.txt.keep(name, reply)
            })
        })
    }

    fn ptr<'a>(&'a self, ip: IpAddr) -> BoxFuture<'a, Reply<String>> {
        let inner = self.0.clone();
        self.0.ptr.answer(ip, move |ip| {
            Box::pin(async move {
                let reply = inner.resolver.ptr(ip).await;
                inner.ptr.keep(ip, reply)
            })
        })
    }

    fn validation(&self) -> Validation {
        self.0.resolver.validation()
    }
}

/// Names are compared without case (RFC 4343).
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// How long what is kept, and how much.
#[derive(Clone, Debug)]
struct Rules {
    entries: usize,
    positive: (Duration, Duration),
    negative: (Duration, Duration),
    failure: Duration,
    clock: Clock,
    metrics: Metrics,
}

impl Rules {
    fn time_to_keep<T>(&self, reply: &Reply<T>) -> Duration {
        let within = |ttl: Duration, (min, max): (Duration, Duration)| ttl.max(min).min(max);
        match reply {
            Ok(answer) if answer.partial => answer.ttl.min(self.failure),
            Ok(answer) => within(answer.ttl, self.positive),
            Err(DnsError::NoSuchDomain { ttl, .. } | DnsError::NoRecords { ttl, .. }) => within(*ttl, self.negative),
            // RFC 2308 section 7
            Err(DnsError::Temporary { .. } | DnsError::Bogus { .. }) => self.failure,
            Err(DnsError::Invalid | DnsError::Setup { .. }) => Duration::ZERO,
        }
    }
}

/// The answers of one type of record.
#[derive(Debug)]
struct Memory<K, T: Clone> {
    rules: Rules,
    slots: Mutex<Generations<K, Slot<T>>>,
}

/// A question under way. Those who wait hold it and drive it; when the last
/// of them goes away, so does the question.
type Question<T> = BoxFuture<'static, Reply<T>>;

#[derive(Debug)]
enum Slot<T: Clone> {
    Known { reply: Reply<T>, until: Instant },
    Asked(WeakShared<Question<T>>),
}

impl<K, T> Memory<K, T>
where
    K: Clone + Eq + Hash,
    T: Clone + Send + Sync + 'static,
{
    fn new(rules: Rules) -> Memory<K, T> {
        let slots = Mutex::new(Generations::new(rules.entries));
        Memory { rules, slots }
    }

    /// What is known, what is being asked already, or else a new question.
    fn answer(&self, key: K, ask: impl FnOnce(K) -> Question<T>) -> BoxFuture<'static, Reply<T>> {
        let now = self.rules.clock.instant();
        let mut slots = self.slots.lock();
        match slots.get(&key) {
            Some(Slot::Known { reply, until }) if *until > now => {
                let reply = with_ttl(reply.clone(), *until - now);
                self.count(DnsResult::Cached);
                return Box::pin(async { reply });
            }
            Some(Slot::Asked(question)) => {
                if let Some(question) = question.upgrade() {
                    self.count(DnsResult::Cached);
                    return Box::pin(question);
                }
            }
            Some(Slot::Known { .. }) | None => {}
        }
        let question: Shared<_> = ask(key.clone()).shared();
        if let Some(asked) = question.downgrade() {
            slots.insert(key, Slot::Asked(asked));
        }
        Box::pin(question)
    }

    /// Notes the reply to a question and returns it.
    fn keep(&self, key: K, reply: Reply<T>) -> Reply<T> {
        self.count(match &reply {
            Err(DnsError::Temporary { .. } | DnsError::Bogus { .. } | DnsError::Setup { .. }) => DnsResult::Failed,
            _ => DnsResult::Answered,
        });
        let ttl = self.rules.time_to_keep(&reply);
        let reply = with_ttl(reply, ttl);
        let slot = Slot::Known { reply: reply.clone(), until: self.rules.clock.instant() + ttl };
        self.slots.lock().insert(key, slot);
        reply
    }

    fn count(&self, result: DnsResult) {
        self.rules.metrics.dns.of(result).inc();
    }
}

fn with_ttl<T>(reply: Reply<T>, ttl: Duration) -> Reply<T> {
    match reply {
        Ok(answer) => Ok(Answer { ttl, ..answer }),
        Err(DnsError::NoSuchDomain { proved, .. }) => Err(DnsError::NoSuchDomain { ttl, proved }),
        Err(DnsError::NoRecords { proved, .. }) => Err(DnsError::NoRecords { ttl, proved }),
        Err(error) => Err(error),
    }
}

/// A bounded map that forgets what was not used for longest, roughly: when
/// the young half is full it becomes the old one, which is dropped. So nothing
/// is ever searched for a victim.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// What the young half weighs, and may weigh.
    weight: usize,
    half: usize,
    weigh: fn(&V) -> usize,
}

impl<K: Clone + Eq + Hash, V> Generations<K, V> {
    /// Keeps at most so many values.
    pub(crate) fn new(bound: usize) -> Generations<K, V> {
        Generations::weighing(bound, |_| 1)
    }

    /// Keeps values that weigh at most so much together, or two that weigh more. What a value
    /// weighs does not change.
    pub(crate) fn weighing(bound: usize, weigh: fn(&V) -> usize) -> Generations<K, V> {
        let half = (bound / 2).max(1);
        Generations { young: HashMap::new(), old: HashMap::new(), weight: 0, half, weigh }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        if let Some(value) = self.old.remove(key) {
            self.insert(key.clone(), value);
        }
        self.young.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(value) = self.young.remove(key) {
            self.weight -= (self.weigh)(&value);
        }
        self.old.remove(key);
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        let weight = (self.weigh)(&value);
        if self.weight.saturating_add(weight) > self.half && !self.young.is_empty() {
            self.old = mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight = self.weight.saturating_add(weight);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Zones, zones::Failure};
    use postrider_base::{Period, Timestamp};

    fn cached(zones: &Zones, settings: &Settings) -> Cached<Zones> {
        let clock = Clock::simulated(Timestamp::from_millis(0));
        Cached::new(zones.clone(), clock, Metrics::new(), settings)
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_its_ttl() {
        let zones = Zones::new();
        zones.set_ttl(Duration::from_secs(100)).add_address("mx.example.com", "192.0.2.1");
        let cache = cached(&zones, &Settings::default());
        cache.addresses("mx.example.com").await.unwrap();
        pass(60).await;
        let answer = cache.addresses("MX.example.com.").await.unwrap();
        assert_eq!(answer.ttl, Duration::from_secs(40));
        assert_eq!(zones.queries("mx.example.com"), 1);
        pass(40).await;
        cache.addresses("mx.example.com").await.unwrap();
        assert_eq!(zones.queries("mx.example.com"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_of_time_win_over_the_zone() {
        let zones = Zones::new();
        zones.set_ttl(Duration::ZERO).add_txt("low.example.com", "x");
        zones.set_ttl(Duration::from_secs(1 << 31)).add_txt("high.example.com", "x");
        let cache = cached(&zones, &Settings::default());
        let low = cache.txt("low.example.com").await.unwrap();
        assert_eq!(low.ttl, Duration::from_secs(5));
        let high = cache.txt("high.example.com").await.unwrap();
        assert_eq!(high.ttl, Duration::from_secs(24 * 60 * 60));
    }

    #[tokio::test(start_paused = true)]
    async fn absence_is_kept_and_failure_briefly() {
        let zones = Zones::new();
        zones.fail("broken.example.com", Failure::ServFail);
        let cache = cached(&zones, &Settings::default());
        let (absent, broken) = ("absent.example.com", "broken.example.com");
        for _ in 0..3 {
            let error = cache.addresses(absent).await.unwrap_err();
            assert!(matches!(error, DnsError::NoSuchDomain { .. }));
            assert!(cache.addresses(broken).await.unwrap_err().is_temporary());
        }
        assert_eq!((zones.queries(absent), zones.queries(broken)), (1, 1));
        pass(31).await;
        zones.remove(broken).add_address(broken, "192.0.2.1").fail(broken, Failure::OtherFamily);
        assert!(cache.addresses(broken).await.unwrap().partial);
        assert!(cache.addresses(absent).await.is_err());
        assert_eq!((zones.queries(absent), zones.queries(broken)), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_question_is_asked_once() {
        let zones = Zones::new();
        zones.add_mx("example.com", 10, "mx.example.com");
        zones.delay("example.com", Duration::from_secs(1));
        let cache = cached(&zones, &Settings::default());
        let domain: Domain = "example.com".parse().unwrap();
        let asks = (0..10).map(|_| cache.mx(&domain));
        for reply in futures_util::future::join_all(asks).await {
            assert_eq!(reply.unwrap().value[0].exchange, "mx.example.com");
        }
        assert_eq!(zones.queries("example.com"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_outlives_the_first_who_asked() {
        let zones = Zones::new();
        zones.add_ptr("192.0.2.1", "a.example.com");
        zones.delay("192.0.2.1", Duration::from_secs(1));
        let cache = cached(&zones, &Settings::default());
        let ip = "192.0.2.1".parse().unwrap();
        let mut first = cache.ptr(ip);
        assert!(futures_util::poll!(&mut first).is_pending());
        let second = cache.ptr(ip);
        drop(first);
        assert_eq!(second.await.unwrap().value, ["a.example.com"]);
        assert_eq!(zones.queries("192.0.2.1"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_nobody_waits_for_is_asked_again() {
        let zones = Zones::new();
        zones.fail("example.com", Failure::Silence);
        let cache = cached(&zones, &Settings::default());
        let mut first = cache.txt("example.com");
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        zones.remove("example.com").add_txt("example.com", "x");
        assert_eq!(cache.txt("example.com").await.unwrap().value, ["x"]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_used_stay() {
        let zones = Zones::new();
        let settings = Settings { cache_entries: 10, max_ttl: Period::from_days(7), ..Settings::default() };
        let cache = cached(&zones, &settings);
        zones.add_txt("used.example.com", "x");
        for n in 0..100 {
            let name = format!("n{n}.example.com");
            zones.add_txt(&name, "x");
            cache.txt(&name).await.unwrap();
            cache.txt("used.example.com").await.unwrap();
            let slots = cache.0.txt.slots.lock();
            assert!(slots.young.len() + slots.old.len() <= 10);
        }
        assert_eq!(zones.queries("used.example.com"), 1);
        cache.txt("n0.example.com").await.unwrap();
        assert_eq!(zones.queries("n0.example.com"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_counted() {
        let zones = Zones::new();
        zones.fail("broken.example.com", Failure::ServFail);
        let cache = cached(&zones, &Settings::default());
        let _ = cache.txt("absent.example.com").await;
        let _ = cache.txt("absent.example.com").await;
        let _ = cache.txt("broken.example.com").await;
        let dns = &cache.0.txt.rules.metrics.dns;
        for result in [DnsResult::Cached, DnsResult::Answered, DnsResult::Failed] {
            assert_eq!(dns.of(result).get(), 1);
        }
    }
}
