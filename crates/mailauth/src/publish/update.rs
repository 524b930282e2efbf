//! The message that adds and replaces records (RFC 2136).

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, MX, PTR, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record as DnsRecord, RecordType};

use super::Error;
use crate::records::{Data, Record, strings};

/// Records to be added to a zone, or put in the place of others, all of them or none.
pub(super) struct Update {
    zone: Name,
    absent: Vec<(Name, RecordType)>,
    /// Each the only one of its name and type.
    replaced: Vec<DnsRecord>,
    added: Vec<DnsRecord>,
}

impl Update {
    pub(super) fn new(zone: Name) -> Update {
        Update { zone, absent: Vec::new(), replaced: Vec::new(), added: Vec::new() }
    }

    /// Adds a record; `beside` is the time to live of the records of the type that its name has:
    /// all records of a set have the same (RFC 2181 section 5.2), and theirs is not ours to change.
    pub(super) fn add(&mut self, record: &Record, beside: Option<u32>) -> Result<(), Error> {
        let (name, kind) = (name(&record.name)?, record_type(&record.data));
        let ours = self.added.iter().any(|added| added.name == name && added.record_type() == kind);
        if beside.is_none() && !ours {
            self.absent.push((name.clone(), kind));
        }
        self.added.push(DnsRecord::from_rdata(name, beside.unwrap_or(record.ttl), rdata(&record.data)?));
        Ok(())
    }

    /// Puts a record in the place of `old`, with its time to live.
    pub(super) fn replace(&mut self, record: &Record, old: DnsRecord) -> Result<(), Error> {
        self.added.push(DnsRecord::from_rdata(old.name.clone(), old.ttl, rdata(&record.data)?));
        self.replaced.push(old);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty()
    }

    pub(super) fn into_message(self, id: u16) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::Update);
        let mut zone = Query::query(self.zone, RecordType::SOA);
        zone.set_query_class(DNSClass::IN);
        message.add_query(zone);
        // RFC 2136 section 2.4.3: what was not there when we looked must still not be.
        for (name, kind) in self.absent {
            let mut absent = DnsRecord::update0(name, 0, kind);
            absent.dns_class = DNSClass::NONE;
            message.add_answer(absent);
        }
        for mut old in self.replaced {
            old.ttl = 0;
            // Section 2.4.2: and what was there must still be, alone and as we saw it.
            message.add_answer(old.clone());
            // Section 2.5.4: a record of class NONE is to be deleted.
            old.dns_class = DNSClass::NONE;
            message.add_authority(old);
        }
        message.add_authorities(self.added);
        message
    }
}

/// A whole name.
pub(super) fn name(text: &str) -> Result<Name, Error> {
    let mut name = Name::from_ascii(text).map_err(|_| Error::Unfit(text.to_owned()))?;
    name.set_fqdn(true);
    Ok(name)
}

pub(super) fn record_type(data: &Data) -> RecordType {
    match data {
        Data::A(_) => RecordType::A,
        Data::Aaaa(_) => RecordType::AAAA,
        Data::Mx { .. } => RecordType::MX,
        Data::Ptr(_) => RecordType::PTR,
        Data::Txt(_) => RecordType::TXT,
    }
}

fn rdata(data: &Data) -> Result<RData, Error> {
    Ok(match data {
        Data::A(ip) => RData::A(A(*ip)),
        Data::Aaaa(ip) => RData::AAAA(AAAA(*ip)),
        Data::Mx { preference, exchange } => RData::MX(MX::new(*preference, name(exchange)?)),
        Data::Ptr(host) => RData::PTR(PTR(name(host)?)),
        Data::Txt(text) => RData::TXT(TXT::from_bytes(strings(text).collect())),
    })
}

/// What a server has, where it is of a type that is planned.
pub(super) fn data(found: &RData) -> Option<Data> {
    let host = |name: &Name| name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    Some(match found {
        RData::A(ip) => Data::A(ip.0),
        RData::AAAA(ip) => Data::Aaaa(ip.0),
        RData::MX(mx) => Data::Mx { preference: mx.preference, exchange: host(&mx.exchange) },
        RData::PTR(name) => Data::Ptr(host(&name.0)),
        RData::TXT(text) => Data::Txt(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
        _ => return None,
    })
}
