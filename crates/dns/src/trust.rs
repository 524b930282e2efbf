//! Keys of zones that were proved, kept for as long as their zones and those above vouch for
//! them: with them a signature is one proof, and not one for each link up to the root.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt as _};
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData};
use hickory_proto::dnssec::{Proof, PublicKey as _, TrustAnchors};
use hickory_proto::op::{DnsRequest, DnsResponse};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_resolver::net::NetError;
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::xfer::DnsHandle;
use parking_lot::Mutex;
use postrider_base::{Clock, Metrics};
use tokio::time::Instant;

use crate::answer::FOREVER;
use crate::cache::Generations;
use crate::heard::{ask, seconds};
use crate::links::Links;

/// A zone with more keys is proved anew each time: none needs so many, and all of them are
/// compared with one another.
const MOST_KEYS: usize = 16;

/// So is one whose keys take more octets of memory: they would take them for a day.
const MOST_OCTETS: usize = 8 * 1024;

/// What the keys of a zone take, mostly.
const USUAL_OCTETS: usize = 1024;

/// The keys of so many zones, from a name upwards, are taken as given. Nobody has more zones
/// one below the other but to give us work.
const MOST_ABOVE: usize = 8;

/// How long nothing more is forgotten of a zone: otherwise one name with signatures that are
/// wrong, and many of them are, would leave nothing known of those above it.
const SPARED: Duration = Duration::from_secs(60);

/// Zones that are spared.
const MOST_SPARED: usize = 4096;

/// The keys of a zone, all of them.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) zone: Name,
    /// Its DNSKEY records, without their signatures.
    pub(crate) records: Vec<Record>,
    until: Instant,
    /// What it takes in memory.
    octets: usize,
}

/// The keys of the zones that are known.
pub(crate) struct Trust {
    zones: Mutex<Generations<Name, Arc<Keys>>>,
    /// When something of a zone was forgotten.
    forgotten: Mutex<Generations<Name, Instant>>,
    longest: Duration,
    clock: Clock,
    metrics: Metrics,
}

impl Trust {
    /// So many zones are known if their keys are of the usual size, and else as many as take no
    /// more memory. Nothing is kept for longer than this.
    pub(crate) fn new(zones: usize, longest: Duration, clock: Clock, metrics: Metrics) -> Trust {
        let octets = zones.saturating_mul(USUAL_OCTETS);
        let zones = Mutex::new(Generations::weighing(octets, |keys: &Arc<Keys>| keys.octets));
        let forgotten = Mutex::new(Generations::new(MOST_SPARED));
        Trust { zones, forgotten, longest, clock, metrics }
    }

    /// The keys of the zones that are known and `name` may be in, those of the lowest first.
    fn above(&self, name: &Name) -> Vec<Arc<Keys>> {
        let now = self.clock.instant();
        let mut zones = self.zones.lock();
        let known = tops(name).filter_map(|top| zones.get(&top).filter(|keys| keys.until > now).cloned());
        known.take(MOST_ABOVE).collect()
    }

    fn knows(&self, zone: &Name) -> bool {
        self.zones.lock().get(zone).is_some_and(|keys| keys.until > self.clock.instant())
    }

    fn keep(&self, zone: &Name, records: Vec<Record>, ttl: Duration) {
        let octets = octets(zone, &records);
        if records.len() > MOST_KEYS || octets > MOST_OCTETS || ttl.is_zero() {
            return;
        }
        let until = self.clock.instant() + ttl.min(self.longest);
        let keys = Keys { zone: zone.clone(), records, until, octets };
        self.change(|zones| zones.insert(zone.clone(), Arc::new(keys)));
    }

    /// Forgets the keys of these zones: they may have been changed in haste.
    fn forget(&self, zones: &[Name]) {
        self.change(|known| zones.iter().for_each(|zone| known.remove(zone)));
    }

    /// The zones that `name` may be in, but for those of which something was forgotten just now.
    fn suspects(&self, name: &Name) -> Vec<Name> {
        let now = self.clock.instant();
        let mut forgotten = self.forgotten.lock();
        let is_spared = |since: &Instant| now - *since < SPARED;
        let suspects: Vec<Name> = tops(name).filter(|top| !forgotten.get(top).is_some_and(is_spared)).collect();
        suspects.iter().for_each(|zone| forgotten.insert(zone.clone(), now));
        suspects
    }

    fn change(&self, change: impl FnOnce(&mut Generations<Name, Arc<Keys>>)) {
        let mut zones = self.zones.lock();
        change(&mut zones);
        self.metrics.dnssec_zones.set(i64::try_from(zones.len()).unwrap_or(i64::MAX));
    }
}

/// Asks and validates. What it hears of a zone that it trusts it proves by the keys that it
/// knows, and of any other up from the root, whose keys it learns thereby.
#[derive(Clone)]
pub(crate) struct Validator<H> {
    links: Links<H>,
    anchors: Arc<TrustAnchors>,
    trust: Arc<Trust>,
}

impl<H: DnsHandle> Validator<H> {
    pub(crate) fn new(links: Links<H>, anchors: Arc<TrustAnchors>, trust: Arc<Trust>) -> Validator<H> {
        Validator { links, anchors, trust }
    }

    /// Forgets what the zones have said of themselves that `name` may be in: some of it may be
    /// forged, or old. What was said since it was last forgotten, a moment ago, is left.
    pub(crate) fn forget(&self, name: &Name) {
        let suspects = self.trust.suspects(name);
        suspects.iter().for_each(|zone| self.links.forget(zone));
        self.trust.forget(&suspects);
    }

    /// What proves answers about `name`: it takes the keys that are known as given. They are all
    /// that it is told when it asks for them, so that it asks no further.
    fn prover(&self, name: &Name) -> DnssecDnsHandle<Links<H>> {
        let known = self.trust.above(name);
        let mut anchors = TrustAnchors::clone(&self.anchors);
        for keys in &known {
            let zone = LowerName::from(&keys.zone);
            for key in keys.records.iter().filter_map(key) {
                anchors.insert_with_name(key.public_key(), zone.clone());
            }
        }
        forgetful(DnssecDnsHandle::with_trust_anchor(self.links.with(known), Arc::new(anchors)))
    }

    /// Learns the keys of a zone, and of those above it first. It asks what was asked just now to
    /// prove an answer of the zone, so that nobody has to be asked again.
    fn learn(self, zone: Name) -> BoxFuture<'static, ()> {
        async move {
            if self.trust.knows(&zone) {
                return;
            }
            let mut ttl = FOREVER;
            if !zone.is_root() {
                // Nobody vouches for himself, nor with keys that somebody else has learned of
                // him in the meantime.
                let above = self.prover(&zone.base_name());
                let Some((delegation, parent)) = proved(&above, &zone, RecordType::DS).await else { return };
                if parent == zone || !parent.zone_of(&zone) {
                    return;
                }
                ttl = least_ttl(&delegation);
                self.clone().learn(parent).await;
            }
            if let Some((keys, _)) = proved(&self.prover(&zone), &zone, RecordType::DNSKEY).await {
                let ttl = ttl.min(least_ttl(&keys));
                self.trust.keep(&zone, keys, ttl);
            }
        }
        .boxed()
    }
}

impl<H: DnsHandle> DnsHandle for Validator<H> {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = H::Runtime;

    fn is_verifying_dnssec(&self) -> bool {
        true
    }

    fn send(&self, request: DnsRequest) -> Self::Response {
        let name = request.queries.first().map_or_else(Name::root, |query| query.name().clone());
        let validator = self.clone();
        Box::pin(self.prover(&name).send(request).then(move |answer| {
            let validator = validator.clone();
            async move {
                for zone in answer.iter().flat_map(signers) {
                    validator.clone().learn(zone).await;
                }
                answer
            }
        }))
    }
}

/// The records of one type that a name has, if each of them is proved, and who signed them.
async fn proved<H: DnsHandle>(prover: &H, name: &Name, kind: RecordType) -> Option<(Vec<Record>, Name)> {
    let heard = ask(prover, name.clone(), kind).await.ok()?;
    let is_meant = |record: &&Record| record.record_type() == kind && record.name == *name;
    let records: Vec<Record> = heard.message.answers.iter().filter(is_meant).cloned().collect();
    let signer = heard.signer(records.first()?)?.clone();
    records.iter().all(|record| record.proof == Proof::Secure).then_some((records, signer))
}

/// A name and all above it, up to the root.
fn tops(name: &Name) -> impl Iterator<Item = Name> {
    (0..=name.num_labels()).rev().map(|labels| name.trim_to(labels.into()))
}

/// What the keys of a zone take in memory, roughly.
fn octets(zone: &Name, records: &[Record]) -> usize {
    let keys = records.iter().filter_map(key).map(|key| key.public_key().public_bytes().len());
    let each = size_of::<Record>() + zone.len();
    size_of::<Keys>() + zone.len() + keys.map(|key| key + each).sum::<usize>()
}

/// The zones whose keys proved something in an answer.
fn signers(answer: &DnsResponse) -> Vec<Name> {
    let signers = answer.all_sections().filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) if record.proof == Proof::Secure => {
            Some(signature.input().signer_name.clone())
        }
        _ => None,
    });
    let mut signers: Vec<Name> = signers.collect();
    signers.sort_unstable();
    signers.dedup();
    signers
}

fn key(record: &Record) -> Option<&DNSKEY> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key),
        _ => None,
    }
}

/// The validator has brought them down to what the signature says and how long it is valid.
fn least_ttl(records: &[Record]) -> Duration {
    records.iter().map(|record| seconds(record.ttl)).min().unwrap_or_default()
}

/// Lets a validator prove everything anew. What it would keep is found again by
/// 64 bits of a hash without a secret, for which anybody can make a forgery
/// that has the same.
pub(crate) fn forgetful<H: DnsHandle>(validator: DnssecDnsHandle<H>) -> DnssecDnsHandle<H> {
    let never = Duration::ZERO..=Duration::ZERO;
    validator.validation_cache_size(1).positive_validation_ttl(never.clone()).negative_validation_ttl(never)
}

#[cfg(test)]
mod tests;
