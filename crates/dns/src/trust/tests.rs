//! Against zones that are really signed, in a time of their own.

use std::collections::HashMap;

use futures_util::stream;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::{DS, RRSIG, SigInput};
use hickory_proto::dnssec::{Algorithm, DigestType, PublicKeyBuf, SigningKey as _, TBS};
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, SerialNumber};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use postrider_base::Timestamp;

use super::*;
use crate::{DnsError, Reply, proof};

const HOUR: u32 = 3600;
const DAY: u32 = 24 * HOUR;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

struct Zone {
    name: Name,
    key: EcdsaSigningKey,
}

impl Zone {
    fn new(text: &str) -> Zone {
        let algorithm = Algorithm::ECDSAP256SHA256;
        let der = EcdsaSigningKey::generate_pkcs8(algorithm).unwrap();
        Zone { name: name(text), key: EcdsaSigningKey::from_pkcs8(&der, algorithm).unwrap() }
    }

    fn dnskey(&self) -> DNSKEY {
        DNSKEY::from_key(&self.key.to_public_key().unwrap())
    }

    fn ds(&self) -> RData {
        let key = self.key.to_public_key().unwrap();
        RData::DNSSEC(DNSSECRData::DS(DS::from_key(&key, &self.name, DigestType::SHA256).unwrap()))
    }

    fn keys(&self) -> RData {
        RData::DNSSEC(DNSSECRData::DNSKEY(self.dnskey()))
    }

    /// A record and its signature, which is valid for so many seconds.
    fn sign(&self, owner: &str, data: RData, ttl: u32, valid: u32) -> Vec<Record> {
        let now = u32::try_from(Clock::system().now().as_millis() / 1000).unwrap();
        let record = Record::from_rdata(name(owner), ttl, data);
        let input = SigInput {
            type_covered: record.record_type(),
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: record.name.num_labels(),
            original_ttl: ttl,
            sig_expiration: SerialNumber::new(now.wrapping_add(valid)),
            sig_inception: SerialNumber::new(now - HOUR),
            key_tag: self.dnskey().calculate_key_tag().unwrap(),
            signer_name: self.name.clone(),
        };
        let signed = TBS::from_input(&record.name, DNSClass::IN, &input, std::iter::once(&record)).unwrap();
        let signature = RRSIG::from_sig(input, self.key.sign(&signed).unwrap());
        let signature = Record::from_rdata(record.name.clone(), ttl, RData::DNSSEC(DNSSECRData::RRSIG(signature)));
        vec![record, signature]
    }
}

/// Answers, and remembers what was asked.
#[derive(Clone, Default)]
struct Servers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    records: HashMap<(Name, RecordType), Vec<Record>>,
    asked: Vec<String>,
}

impl Servers {
    fn put(&self, records: Vec<Record>) {
        self.0.lock().records.insert((records[0].name.clone(), records[0].record_type()), records);
    }

    /// What was asked since the last time, in the order of the alphabet.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut self.0.lock().asked);
        asked.sort_unstable();
        asked
    }
}

impl DnsHandle for Servers {
    type Response = stream::Once<std::future::Ready<Result<DnsResponse, NetError>>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let query = &request.queries[0];
        let mut state = self.0.lock();
        state.asked.push(format!("{} {}", query.name(), query.query_type()));
        let found = state.records.get(&(query.name().clone(), query.query_type()));
        let mut message = Message::query();
        message.add_query(query.clone()).add_answers(found.into_iter().flatten().cloned());
        let answer = DnsResponse::from_message(message.into_response()).unwrap();
        stream::once(std::future::ready(Ok(answer)))
    }
}

/// A root and the zone `test.` with two hosts, and who asks them.
struct World {
    root: Zone,
    test: Zone,
    servers: Servers,
    validator: Validator<Servers>,
    metrics: Metrics,
}

impl World {
    /// The signature of the keys of `test.` is valid for so many seconds.
    fn new(valid: u32) -> World {
        let (root, test, servers) = (Zone::new("."), Zone::new("test."), Servers::default());
        let (clock, metrics) = (Clock::simulated(Timestamp::from_millis(0)), Metrics::new());
        let mut anchors = TrustAnchors::empty();
        anchors.insert(root.dnskey().public_key());
        let links = Links::new(servers.clone(), clock.clone(), 100);
        let trust = Trust::new(100, Duration::from_secs(7 * 24 * 3600), clock, metrics.clone());
        let validator = Validator::new(links, Arc::new(anchors), Arc::new(trust));
        let world = World { root, test, servers, validator, metrics };
        world.servers.put(world.root.sign(".", world.root.keys(), 2 * DAY, 9 * DAY));
        world.servers.put(world.root.sign("test.", world.test.ds(), DAY, 9 * DAY));
        world.put_test(&world.test, valid);
        world
    }

    /// The zone `test.`, with this key.
    fn put_test(&self, zone: &Zone, valid: u32) {
        self.servers.put(zone.sign("test.", zone.keys(), 2 * DAY, valid));
        for host in ["a.test.", "b.test."] {
            self.servers.put(zone.sign(host, RData::A(A::new(192, 0, 2, 1)), 60, 9 * DAY));
        }
    }

    async fn ask(&self, host: &str) -> Reply<std::net::IpAddr> {
        proof::records(&self.validator, name(host), RecordType::A, RData::ip_addr).await
    }

    fn knows(&self, zone: &str) -> bool {
        self.validator.trust.knows(&name(zone))
    }
}

async fn pass(seconds: u32) {
    tokio::time::advance(Duration::from_secs(seconds.into())).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_asked_for_once_in_the_time_that_their_zone_and_the_one_above_give_them() {
    let world = World::new(9 * DAY);
    assert!(world.ask("a.test.").await.unwrap().authenticated);
    assert_eq!(world.servers.asked(), [". DNSKEY", "a.test. A", "test. DNSKEY", "test. DS"]);
    assert!(world.knows(".") && world.knows("test."));
    assert_eq!(world.metrics.dnssec_zones.get(), 2);
    // Much later than what only came, and was not proved, is kept.
    pass(DAY - 1).await;
    assert!(world.ask("b.test.").await.unwrap().authenticated);
    assert!(world.ask("a.test.").await.unwrap().authenticated);
    assert_eq!(world.servers.asked(), ["a.test. A", "b.test. A"]);
    // The delegation's day is over, the keys have another.
    pass(1).await;
    assert!(world.knows(".") && !world.knows("test."));
    assert!(world.ask("b.test.").await.unwrap().authenticated);
    assert_eq!(world.servers.asked(), ["b.test. A", "test. DNSKEY", "test. DS"]);
}

#[tokio::test(start_paused = true)]
async fn keys_are_known_no_longer_than_their_signature_is_valid() {
    let world = World::new(2 * HOUR);
    assert!(world.ask("a.test.").await.unwrap().authenticated);
    pass(2 * HOUR - 60).await;
    assert!(world.knows("test."));
    pass(61).await;
    assert!(!world.knows("test."));
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_not_proved_are_not_known() {
    let world = World::new(9 * DAY);
    // Somebody else's key signs all there is.
    world.put_test(&Zone::new("test."), 9 * DAY);
    assert!(matches!(world.ask("a.test.").await, Err(DnsError::Bogus { .. })));
    assert!(!world.knows("test."));
    // Nor by one who is known for another zone.
    let root = Zone { name: name("test."), key: Zone::new(".").key };
    world.put_test(&root, 9 * DAY);
    assert!(matches!(world.ask("a.test.").await, Err(DnsError::Bogus { .. })));
    world.put_test(&world.test, 9 * DAY);
    world.validator.forget(&name("a.test."));
    assert!(world.ask("a.test.").await.unwrap().authenticated);
    assert!(world.knows("test."));
}

#[tokio::test(start_paused = true)]
async fn known_keys_prove_nothing_but_what_they_signed() {
    let world = World::new(9 * DAY);
    assert!(world.ask("a.test.").await.unwrap().authenticated);
    let liar = Zone::new("test.");
    world.servers.put(liar.sign("b.test.", RData::A(A::new(192, 0, 2, 66)), 60, 9 * DAY));
    assert!(matches!(world.ask("b.test.").await, Err(DnsError::Bogus { .. })));
    // An old signature of the zone itself.
    world.servers.put(world.test.sign("b.test.", RData::A(A::new(192, 0, 2, 66)), 60, 0_u32.wrapping_sub(60)));
    assert!(matches!(world.ask("b.test.").await, Err(DnsError::Bogus { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_changes_its_keys_in_haste_loses_one_answer() {
    let world = World::new(9 * DAY);
    assert!(world.ask("a.test.").await.unwrap().authenticated);
    let new = Zone::new("test.");
    world.servers.put(world.root.sign("test.", new.ds(), DAY, 9 * DAY));
    world.put_test(&new, 9 * DAY);
    assert!(matches!(world.ask("a.test.").await, Err(DnsError::Bogus { .. })));
    world.validator.forget(&name("a.test."));
    assert!(!world.knows("test.") && !world.knows("."));
    assert_eq!(world.metrics.dnssec_zones.get(), 0);
    assert!(world.ask("a.test.").await.unwrap().authenticated);
}

#[tokio::test(start_paused = true)]
async fn wrong_signatures_of_one_name_do_not_keep_all_above_it_unknown() {
    let world = World::new(9 * DAY);
    let liar = Zone::new("test.");
    world.servers.put(liar.sign("c.test.", RData::A(A::new(192, 0, 2, 66)), 60, 9 * DAY));
    let mut asked = Vec::new();
    for _ in 0..3 {
        assert!(matches!(world.ask("c.test.").await, Err(DnsError::Bogus { .. })));
        world.validator.forget(&name("c.test."));
        world.servers.asked();
        assert!(world.ask("a.test.").await.unwrap().authenticated);
        asked.push(world.servers.asked().len());
    }
    assert_eq!(asked, [4, 1, 1]);
    pass(60).await;
    world.validator.forget(&name("c.test."));
    assert!(!world.knows("test.") && !world.knows("."));
}

#[tokio::test(start_paused = true)]
async fn of_a_zone_with_too_many_keys_none_is_known_however_small_they_are() {
    let world = World::new(9 * DAY);
    let key = PublicKeyBuf::new(vec![1], Algorithm::ECDSAP256SHA256);
    let record = Record::from_rdata(name("."), DAY, RData::DNSSEC(DNSSECRData::DNSKEY(DNSKEY::with_flags(256, key))));
    for (zone, count, is_known) in [("a.", MOST_KEYS, true), ("b.", MOST_KEYS + 1, false), ("c.", 4000, false)] {
        world.validator.trust.keep(&name(zone), vec![record.clone(); count], FOREVER);
        assert_eq!(world.knows(zone), is_known, "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_zones_one_below_the_other_are_taken_as_given() {
    let world = World::new(9 * DAY);
    let lowest = "a.".repeat(20);
    for top in tops(&name(&lowest)) {
        let record = Record::from_rdata(top.clone(), DAY, world.test.keys());
        world.validator.trust.keep(&top, vec![record], FOREVER);
    }
    let above = world.validator.trust.above(&name(&lowest));
    let labels: Vec<u8> = above.iter().map(|keys| keys.zone.num_labels()).collect();
    assert_eq!(labels, (13..=20).rev().collect::<Vec<u8>>(), "the lowest ones");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_bounded() {
    let clock = Clock::simulated(Timestamp::from_millis(0));
    let (metrics, longest) = (Metrics::new(), Duration::from_secs(HOUR.into()));
    let trust = Trust::new(40, longest, clock, metrics.clone());
    let keys = |zone: &Zone, count: usize| vec![Record::from_rdata(zone.name.clone(), DAY, zone.keys()); count];
    let mut most = 0;
    for (n, count) in (0..100).map(|n| (n, 1 + 9 * (n / 50))) {
        let zone = Zone::new(&format!("z{n}.test."));
        trust.keep(&zone.name, keys(&zone, count), FOREVER);
        let each = octets(&zone.name, &keys(&zone, count));
        let zones = usize::try_from(metrics.dnssec_zones.get()).unwrap();
        assert!(trust.knows(&zone.name));
        if n == 49 || n == 99 {
            assert!(zones > 1 && zones * each <= 40 * USUAL_OCTETS, "{n}: {zones} of {each}");
            assert!(n == 49 || zones < most, "larger ones are fewer");
            most = zones;
        }
    }
    let (large, brief) = (Zone::new("large.test."), Zone::new("brief.test."));
    trust.keep(&large.name, keys(&large, 200), FOREVER);
    trust.keep(&brief.name, keys(&brief, 1), Duration::ZERO);
    assert!(!trust.knows(&large.name) && !trust.knows(&brief.name));
    assert!(trust.knows(&name("z99.test.")));
    pass(HOUR).await;
    assert!(!trust.knows(&name("z99.test.")), "the operator's bound");
}
