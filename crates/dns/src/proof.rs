//! Answers that are proved: what a validated message says about a question.

use std::time::Duration;

use hickory_proto::dnssec::Proof;
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::op::{DnsRequestOptions, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer as _};
use hickory_resolver::net::{DnsError as Semantic, NetError};

use crate::answer::{Alias, Answer, DnsError, FOREVER, Reply};
use crate::hickory::host_name;

/// Aliases that are followed.
const MOST_ALIASES: usize = 8;

/// Asks a validating handle for records of one type. Aliases are followed here,
/// one after the other, so that each is looked at.
pub(crate) async fn records<H: DnsHandle, T>(
    handle: &H,
    name: Name,
    kind: RecordType,
    pick: fn(&RData) -> Option<T>,
) -> Reply<T> {
    let mut path = Path { owner: name, proved: true, ttl: FOREVER, first_proved: None };
    for _ in 0..=MOST_ALIASES {
        let asked = path.owner.clone();
        let heard = ask(handle, asked.clone(), kind).await?;
        path.follow(&heard)?;
        if of(&heard.message.answers, &path.owner, kind).next().is_some() {
            return path.answer(&heard, kind, pick);
        }
        // What an alias leads to is asked by itself: the validator takes its
        // absence for that of the alias, and finds no proof of that.
        if path.owner == asked {
            return Err(path.limit(heard.absence(&asked)?));
        }
    }
    Err(DnsError::temporary("too many aliases"))
}

/// What a validating handle hears: each record has its proof.
struct Heard {
    message: Message,
    /// What the validator thinks of the proof of what is not there.
    denial: Denial,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Denial {
    /// Nothing had to be denied, or is proved to be absent, or is of a zone that
    /// is not signed.
    Good,
    /// Not proved, and surely not to be.
    Insecure,
    /// Not proved.
    Bogus,
}

async fn ask<H: DnsHandle>(handle: &H, name: Name, kind: RecordType) -> Result<Heard, DnsError> {
    let mut options = DnsRequestOptions::default();
    options.edns_set_dnssec_ok = true;
    match handle.lookup(Query::query(name.clone(), kind), options).first_answer().await {
        Ok(response) => match response.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {
                Ok(Heard { message: response.into_message(), denial: Denial::Good })
            }
            code => Err(DnsError::temporary(&code.to_string())),
        },
        Err(NetError::Dns(Semantic::Nsec { response, proof, .. })) => {
            let denial = if proof == Proof::Insecure { Denial::Insecure } else { Denial::Bogus };
            Ok(Heard { message: response.into_message(), denial })
        }
        Err(NetError::Dns(Semantic::DnssecBogus)) => Err(unproved(&name)),
        Err(error) => Err(DnsError::temporary(&error.to_string())),
    }
}

fn unproved(name: &Name) -> DnsError {
    DnsError::bogus(&format!("no valid proof of what {name} has"))
}

impl Heard {
    /// That there are no records.
    fn absence(&self, name: &Name) -> Result<DnsError, DnsError> {
        let proved = match self.denial {
            Denial::Good => self.has_denial_of(name)?,
            Denial::Insecure => false,
            Denial::Bogus => return Err(unproved(name)),
        };
        if !proved && !self.is_of_unsigned_zone(name) {
            return Err(unproved(name));
        }
        // RFC 2308 section 5; without an SOA the absence is not to be kept.
        let ttl = self.message.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(seconds(record.ttl.min(soa.minimum))),
            _ => None,
        });
        let ttl = ttl.unwrap_or_default();
        Ok(match self.message.response_code {
            ResponseCode::NXDomain => DnsError::NoSuchDomain { ttl, proved },
            _ => DnsError::NoRecords { ttl, proved },
        })
    }

    /// Whether records that deny are there, all of a zone that `name` can be in:
    /// anybody can sign that nothing exists between two names of others.
    fn has_denial_of(&self, name: &Name) -> Result<bool, DnsError> {
        let mut denials = self.message.authorities.iter().filter(|record| is_denial(record)).peekable();
        let has_denial = denials.peek().is_some();
        let is_of_zone = |record: &Record| self.signer(record).is_some_and(|zone| zone.zone_of(name));
        if denials.all(is_of_zone) { Ok(has_denial) } else { Err(unproved(name)) }
    }

    /// The zone whose key proved a record.
    fn signer(&self, record: &Record) -> Option<&Name> {
        self.message.all_sections().find_map(|other| match &other.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
                let input = signature.input();
                let is_its = other.name == record.name && input.type_covered == record.record_type();
                (is_its && other.proof == Proof::Secure).then_some(&input.signer_name)
            }
            _ => None,
        })
    }

    /// The validator lets an absence without proof pass when all that comes with
    /// it is from zones that are surely not signed, whichever they are. That
    /// says something only of names in such a zone, or else anybody could make
    /// TLSA records vanish with the SOA record of a zone of their own.
    fn is_of_unsigned_zone(&self, name: &Name) -> bool {
        let authorities = &self.message.authorities;
        let speaks_of_it = |record: &Record| record.proof == Proof::Insecure && record.name.zone_of(name);
        self.denial == Denial::Insecure || authorities.is_empty() || authorities.iter().any(speaks_of_it)
    }

    /// Whether a signed record is what it seems: not made from a wildcard, or
    /// with the proof that nothing nearer to its name exists (RFC 4035 section
    /// 5.3.4). The validator asks too much of NSEC records where the wildcard is
    /// directly above the name, so those are looked at here.
    fn is_no_false_expansion(&self, record: &Record) -> bool {
        let Some(labels) = self.wildcard_labels(record) else { return true };
        let nearer = record.name.trim_to(usize::from(labels) + 1);
        let covers = |other: &Record| match &other.data {
            RData::DNSSEC(DNSSECRData::NSEC(nsec)) if other.proof == Proof::Secure => {
                let next = nsec.next_domain_name();
                let is_last = *next <= other.name && next.zone_of(&nearer);
                let is_between = other.name < nearer && (nearer < *next || is_last);
                let is_between = is_between && self.signer(other) == self.signer(record);
                is_between && !nearer.zone_of(next) && !(nsec.is_ancestor_delegation() && other.name.zone_of(&nearer))
            }
            _ => false,
        };
        let is_agreed = || self.denial == Denial::Good && matches!(self.has_denial_of(&record.name), Ok(true));
        self.message.authorities.iter().any(covers) || is_agreed()
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

/// The way from the name that was asked for to the name that has the records.
struct Path {
    owner: Name,
    /// Every step so far is.
    proved: bool,
    ttl: Duration,
    first_proved: Option<bool>,
}

impl Path {
    /// Goes along the aliases that were heard.
    fn follow(&mut self, heard: &Heard) -> Result<(), DnsError> {
        for _ in 0..=MOST_ALIASES {
            let owner = self.owner.clone();
            let Some(alias) = of(&heard.message.answers, &owner, RecordType::CNAME).next() else { return Ok(()) };
            self.take(alias, heard)?;
            self.first_proved.get_or_insert(self.proved);
            if let RData::CNAME(target) = &alias.data {
                self.owner = target.0.clone();
            }
        }
        Err(DnsError::temporary("too many aliases"))
    }

    /// Adds the proof of a record to that of the way.
    fn take(&mut self, record: &Record, heard: &Heard) -> Result<(), DnsError> {
        match record.proof {
            Proof::Secure if heard.is_no_false_expansion(record) => {}
            Proof::Insecure => self.proved = false,
            Proof::Secure | Proof::Bogus | Proof::Indeterminate => return Err(unproved(&record.name)),
        }
        self.ttl = self.ttl.min(seconds(record.ttl));
        Ok(())
    }

    /// The records at the end of the way.
    fn answer<T>(mut self, heard: &Heard, kind: RecordType, pick: fn(&RData) -> Option<T>) -> Reply<T> {
        let owner = self.owner.clone();
        let found = || of(&heard.message.answers, &owner, kind);
        found().try_for_each(|record| self.take(record, heard))?;
        let value: Vec<T> = found().filter_map(|record| pick(&record.data)).collect();
        let alias = |first_proved| Alias { target: host_name(&self.owner).into(), first_proved };
        let alias = self.first_proved.map(alias);
        Ok(Answer { value, ttl: self.ttl, authenticated: self.proved, alias })
    }

    /// An absence at the end of the way is as sure as the way, and holds as long.
    fn limit(&self, absence: DnsError) -> DnsError {
        match absence {
            DnsError::NoSuchDomain { ttl, proved } => {
                DnsError::NoSuchDomain { ttl: ttl.min(self.ttl), proved: proved && self.proved }
            }
            DnsError::NoRecords { ttl, proved } => {
                DnsError::NoRecords { ttl: ttl.min(self.ttl), proved: proved && self.proved }
            }
            other => other,
        }
    }
}

fn is_denial(record: &Record) -> bool {
    let is_denial = matches!(&record.data, RData::DNSSEC(DNSSECRData::NSEC(_) | DNSSECRData::NSEC3(_)));
    is_denial && record.proof == Proof::Secure
}

fn of<'a>(answers: &'a [Record], owner: &'a Name, kind: RecordType) -> impl Iterator<Item = &'a Record> {
    answers.iter().filter(move |record| record.record_type() == kind && record.name == *owner)
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

#[cfg(test)]
mod tests;
