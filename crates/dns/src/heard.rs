//! What a validating handle hears.

use std::time::Duration;

use hickory_proto::dnssec::Proof;
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::op::{DnsRequestOptions, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer as _};
use hickory_resolver::net::{DnsError as Semantic, NetError};

use crate::answer::DnsError;
use crate::nsec3::{self, Place};

/// An answer in which each record has its proof. That the validator proved a
/// record is believed; why it could not is not.
pub(crate) struct Heard {
    pub(crate) message: Message,
    /// Whether the validator finds the proof of what is not there complete.
    is_denial_whole: bool,
}

/// Asks a validating handle.
pub(crate) async fn ask<H: DnsHandle>(handle: &H, name: Name, kind: RecordType) -> Result<Heard, DnsError> {
    let mut options = DnsRequestOptions::default();
    options.edns_set_dnssec_ok = true;
    match handle.lookup(Query::query(name.clone(), kind), options).first_answer().await {
        Ok(response) => match response.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {
                Ok(Heard { message: response.into_message(), is_denial_whole: true })
            }
            code => Err(DnsError::temporary(&code.to_string())),
        },
        Err(NetError::Dns(Semantic::Nsec { response, .. })) => {
            Ok(Heard { message: response.into_message(), is_denial_whole: false })
        }
        Err(NetError::Dns(Semantic::DnssecBogus)) => Err(unproved(&name)),
        Err(error) => Err(DnsError::temporary(&error.to_string())),
    }
}

pub(crate) fn unproved(name: &Name) -> DnsError {
    DnsError::bogus(&format!("no valid proof of what {name} has"))
}

impl Heard {
    /// That there are no records, so far as nobody doubts it.
    pub(crate) fn absence(&self, proved: bool) -> DnsError {
        // RFC 2308 section 5; without an SOA the absence is not to be kept.
        let ttl = self.message.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(seconds(record.ttl.min(soa.minimum))),
            _ => None,
        });
        let ttl = ttl.unwrap_or_default();
        match self.message.response_code {
            // RFC 5155 section 9.2: what an opt-out record covers may exist, in
            // a zone that is not signed.
            ResponseCode::NXDomain => DnsError::NoSuchDomain { ttl, proved: proved && !self.has_opt_out() },
            _ => DnsError::NoRecords { ttl, proved },
        }
    }

    /// Whether it is proved that `name` has not what was asked for: all records
    /// that deny are of one zone that it can be in, and the zone's own record is
    /// beside them. Anybody can sign that nothing exists between two names of
    /// others; the records of a zone above cover names of this one by chance; and
    /// without the zone's own record the validator looks for no wildcard but the
    /// one directly above the name.
    pub(crate) fn has_denial_of(&self, name: &Name) -> bool {
        let mut zones = self.denials().map(|record| self.signer(record));
        let Some(Some(zone)) = zones.next() else { return false };
        let mut tops = self.message.authorities.iter().filter(|record| is_secure(record, RecordType::SOA)).peekable();
        let is_its_own = tops.peek().is_some() && tops.all(|record| record.name == *zone);
        self.is_denial_whole && is_its_own && zone.zone_of(name) && zones.all(|other| other == Some(zone))
    }

    fn denials(&self) -> impl Iterator<Item = &Record> {
        let is_denial = |record: &&Record| is_secure(record, RecordType::NSEC) || is_secure(record, RecordType::NSEC3);
        self.message.authorities.iter().filter(is_denial)
    }

    fn has_opt_out(&self) -> bool {
        self.denials().any(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => nsec3.opt_out(),
            _ => false,
        })
    }

    /// The zone whose key proved a record.
    pub(crate) fn signer(&self, record: &Record) -> Option<&Name> {
        self.message.all_sections().find_map(|other| match &other.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
                let input = signature.input();
                let is_its = other.name == record.name && input.type_covered == record.record_type();
                (is_its && other.proof == Proof::Secure).then_some(&input.signer_name)
            }
            _ => None,
        })
    }

    /// Whether a signed record is what it seems: not made from a wildcard, or
    /// with the proof that nothing nearer to its name exists (RFC 4035 section
    /// 5.3.4, RFC 5155 section 8.8).
    pub(crate) fn is_no_false_expansion(&self, record: &Record) -> bool {
        let Some(labels) = self.wildcard_labels(record) else { return true };
        let (nearer, zone) = (record.name.trim_to(usize::from(labels) + 1), self.signer(record));
        self.denials().filter(|other| self.signer(other) == zone).any(|other| match &other.data {
            RData::DNSSEC(DNSSECRData::NSEC(nsec)) => {
                let next = nsec.next_domain_name();
                let is_last = *next <= other.name && next.zone_of(&nearer);
                let is_between = other.name < nearer && (nearer < *next || is_last);
                is_between && !nearer.zone_of(next) && !(nsec.is_ancestor_delegation() && other.name.zone_of(&nearer))
            }
            RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => nsec3::place(&other.name, nsec3, &nearer) == Place::Covered,
            _ => false,
        })
    }

    /// How many labels the wildcard has that a signed record was made from;
    /// `None` for a record that stands in its zone as it is.
    fn wildcard_labels(&self, record: &Record) -> Option<u8> {
        self.message.answers.iter().find_map(|other| match &other.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
                let input = signature.input();
                let is_its = other.name == record.name && input.type_covered == record.record_type();
                let is_used = is_its && other.proof == Proof::Secure;
                (is_used && input.num_labels < record.name.num_labels()).then_some(input.num_labels)
            }
            _ => None,
        })
    }
}

fn is_secure(record: &Record, kind: RecordType) -> bool {
    record.record_type() == kind && record.proof == Proof::Secure
}

pub(crate) fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}
