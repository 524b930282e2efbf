//! Certificates that a host's own zone vouches for (DANE: RFC 6698, RFC 7671,
//! and for mail RFC 7672).

use aws_lc_rs::digest::{self, SHA256, SHA512};
use postrider_dns::Tlsa;
use rustls::RootCertStore;
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;

/// What a host's TLSA records say, as far as mail may use it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DanePolicy {
    /// The TLSA base domain: the name that the records are found at, which the
    /// host is greeted with (RFC 7672 section 8.1).
    pub(crate) base: String,
    /// The names that a certificate of an authority of the host's must have
    /// one of.
    names: Vec<String>,
    records: Vec<Tlsa>,
}

const DANE_TA: u8 = 2;
const DANE_EE: u8 = 3;
const WHOLE: u8 = 0;
const KEY: u8 = 1;
const FULL: u8 = 0;
const BY_SHA256: u8 = 1;
const BY_SHA512: u8 = 2;

impl DanePolicy {
    /// The policy of records found at `base` for the host named `host` in the MX
    /// record. `None` when mail may use none of them: then the host must be
    /// spoken to in TLS, and nobody can say who it is (RFC 7672 section 2.2).
    pub(crate) fn new(base: &str, host: &str, records: &[Tlsa]) -> Option<Self> {
        let usable: Vec<Tlsa> = records.iter().filter(|record| is_usable(record)).cloned().collect();
        // RFC 7671 section 9: of two digests of the same thing the stronger one
        // counts, so that breaking the weaker one is of no use.
        let is_outdone = |record: &Tlsa| {
            let stronger = |other: &Tlsa| {
                (other.usage, other.selector, other.matching) == (record.usage, record.selector, BY_SHA512)
            };
            record.matching == BY_SHA256 && usable.iter().any(stronger)
        };
        let records: Vec<Tlsa> = usable.iter().filter(|record| !is_outdone(record)).cloned().collect();
        let mut names = vec![base.to_owned()];
        if host != base {
            names.push(host.to_owned());
        }
        (!records.is_empty()).then(|| Self { base: base.to_owned(), names, records })
    }

    /// The names of which a certificate must have one, where names count.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The records as zone files have them: `3 1 1` and the data in hexadecimal.
    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |Tlsa { usage, selector, matching, data }: &Tlsa| {
            let data: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{usage} {selector} {matching} {data}")
        };
        self.records.iter().map(text).collect()
    }

    /// Whether the zone knows this very certificate. Then nothing else counts:
    /// neither its names nor its dates nor who signed it (RFC 7672 section
    /// 3.1.1).
    pub(crate) fn knows(&self, own: &CertificateDer<'_>) -> bool {
        self.records.iter().any(|record| record.usage == DANE_EE && matches(record, own))
    }

    /// The authorities that the zone names: certificates that the host sends
    /// along (RFC 7672 section 3.1.2) or that stand in the zone as a whole.
    pub(crate) fn authorities(&self, others: &[CertificateDer<'_>]) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for record in self.records.iter().filter(|record| record.usage == DANE_TA) {
            let sent = others.iter().filter(|other| matches(record, other)).cloned();
            roots.add_parsable_certificates(sent);
            if (record.selector, record.matching) == (WHOLE, FULL) {
                roots.add_parsable_certificates([CertificateDer::from(record.data.as_slice())]);
            }
        }
        roots
    }
}

/// Whether mail may use a record: RFC 7672 section 3.1.3 leaves out the usages
/// that need authorities of the whole Internet.
fn is_usable(record: &Tlsa) -> bool {
    let is_known = matches!(record.usage, DANE_TA | DANE_EE) && matches!(record.selector, WHOLE | KEY);
    let has_length = match record.matching {
        FULL => !record.data.is_empty(),
        BY_SHA256 => record.data.len() == SHA256.output_len(),
        BY_SHA512 => record.data.len() == SHA512.output_len(),
        _ => false,
    };
    is_known && has_length
}

/// Whether a record is about this certificate (RFC 6698 section 2.1).
fn matches(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    match record.selector {
        WHOLE => agrees(record, certificate),
        KEY => match ParsedCertificate::try_from(certificate) {
            Ok(parsed) => agrees(record, &parsed.subject_public_key_info()),
            Err(_) => false,
        },
        _ => false,
    }
}

fn agrees(record: &Tlsa, selected: &[u8]) -> bool {
    match record.matching {
        FULL => selected == record.data,
        BY_SHA256 => digest::digest(&SHA256, selected).as_ref() == record.data,
        BY_SHA512 => digest::digest(&SHA512, selected).as_ref() == record.data,
        _ => false,
    }
}
