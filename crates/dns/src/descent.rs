//! Whether a name is in a zone that is signed: from the root down, with nothing
//! taken for granted.

use hickory_proto::dnssec::Proof;
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::rr::{Name, RData, Record, RecordType, RecordTypeSet};
use hickory_resolver::net::xfer::DnsHandle;

use crate::answer::DnsError;
use crate::heard::{Heard, ask};
use crate::nsec3::{self, MOST_ITERATIONS, Place};

/// Whether it is proved that the zone which `name` is in is not signed, so that
/// what it has needs no proof and has none (RFC 4035 section 5.2).
///
/// The validator looks for the lowest zone itself, by NS records that anybody can
/// forge, and takes any opt-out record of any zone above for proof that it is not
/// signed. This one asks for DS records at each label in turn, so that it knows
/// which zone has to answer, and that all names above exist: what an opt-out
/// record covers is then surely the next closer name (RFC 5155 section 8.6).
pub(crate) async fn is_unsigned<H: DnsHandle>(handle: &H, name: &Name) -> Result<bool, DnsError> {
    let mut descent = Descent { zone: Name::root(), encloser: Name::root() };
    for labels in 1..=name.num_labels() {
        let here = name.trim_to(labels.into());
        let heard = ask(handle, here.clone(), RecordType::DS).await?;
        match descent.judge(&heard, &here) {
            Found::UnsignedZone => return Ok(true),
            Found::SignedZone => descent = Descent { zone: here.clone(), encloser: here },
            Found::Name => descent.encloser = here,
            Found::Nothing => {}
        }
    }
    Ok(false)
}

struct Descent {
    /// The lowest zone so far. It is signed.
    zone: Name,
    /// The lowest name that is known to exist in it.
    encloser: Name,
}

/// What there is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    UnsignedZone,
    SignedZone,
    /// The name exists and is no zone's.
    Name,
    /// Nothing is proved. What is below can still show that it is a zone's.
    Nothing,
}

impl Descent {
    fn judge(&self, heard: &Heard, here: &Name) -> Found {
        let is_delegation = |record: &Record| match &record.data {
            RData::DNSSEC(DNSSECRData::DS(ds)) if record.name == *here && record.proof == Proof::Secure => {
                Some(ds.algorithm().is_supported() && ds.digest_type().is_supported())
            }
            _ => None,
        };
        match heard.message.answers.iter().filter_map(is_delegation).reduce(|one, other| one || other) {
            Some(true) => Found::SignedZone,
            // RFC 4035 section 5.2: what can not be verified is as if not there.
            Some(false) => Found::UnsignedZone,
            None => {
                let denials = heard.message.authorities.iter().filter(|record| record.proof == Proof::Secure);
                let of_zone = denials.filter(|record| heard.signer(record) == Some(&self.zone));
                let said = of_zone.map(|record| self.said(record, here));
                said.reduce(|one, other| if one == Found::Nothing { other } else { one }).unwrap_or(Found::Nothing)
            }
        }
    }

    /// What a record of the zone above says of a name that has no DS records.
    fn said(&self, record: &Record, here: &Name) -> Found {
        match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC(nsec)) if record.name == *here => at(nsec.type_set()),
            RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) if nsec3.iterations() > MOST_ITERATIONS => Found::UnsignedZone,
            RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => match nsec3::place(&record.name, nsec3, here) {
                Place::Matched => at(nsec3.type_set()),
                Place::Covered if nsec3.opt_out() && self.encloser == here.base_name() => Found::UnsignedZone,
                Place::Covered | Place::Elsewhere => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }
}

/// What is at a name with these types (RFC 6840 section 4.4).
fn at(types: &RecordTypeSet) -> Found {
    match (types.contains(RecordType::NS), types.contains(RecordType::DS) || types.contains(RecordType::SOA)) {
        (true, false) => Found::UnsignedZone,
        (false, false) => Found::Name,
        // Of a signed zone, or from the wrong side of the cut.
        (_, true) => Found::Nothing,
    }
}
