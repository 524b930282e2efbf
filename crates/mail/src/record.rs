//! What was said during an attempt, kept for those who ask why it ended as it
//! did: short, printable, and bounded whatever a host says.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use postrider_base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{AttemptOutcome, Remote, TlsInfo, sanitize_text};

/// The record of one attempt: one for all the recipients that it was for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// When it began; it ended when its outcomes say.
    pub began: Timestamp,
    /// The site whose hosts were to take the message.
    pub site: String,
    /// The name that we give ourselves there.
    pub ehlo: String,
    /// How sure the session was that decided; none without one.
    pub level: Option<SessionLevel>,
    /// Who was tried, in this order. Empty when the first host took the message
    /// for everybody: what there is to say of that is in the outcomes.
    pub hosts: Vec<HostRecord>,
    /// Hosts that are not in the list, before those that are.
    pub omitted: u16,
}

/// What happened with one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its name in the MX record or route.
    pub host: String,
    /// The address dialled; none when there was none to be dialled.
    pub ip: Option<IpAddr>,
    /// The port dialled; 0 for a socket in the file system, and where nothing was dialled.
    pub port: u16,
    /// The address dialled from, where known.
    pub source: Option<IpAddr>,
    /// Messages that the connection had carried before; 0 for a new one, with
    /// which the exchanges begin at the greeting.
    pub reused: u32,
    /// The session's TLS; none in clear or without a session.
    pub tls: Option<TlsInfo>,
    /// How sure the session was.
    pub level: SessionLevel,
    /// What was said, in order.
    pub exchanges: Vec<Exchange>,
    /// Exchanges that are not in the list: those that went well, if need be the first.
    pub omitted: u16,
    /// What failed besides what the host said: finding or reaching it, TLS,
    /// the connection.
    pub failure: Option<String>,
}

/// A command and the reply to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The command, without secrets; empty before the greeting.
    pub command: String,
    /// The whole reply on one line; empty when none came, or none that can be read.
    pub reply: String,
    /// How long the reply took, in milliseconds, after the command or the reply before it.
    pub ms: u32,
}

/// How sure a session is: who vouches that the host is the one that the
/// recipient's domain names, and whom the session keeps out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLevel {
    /// Who vouches for the host.
    pub identity: HostProof,
    /// Whom the session keeps out.
    pub session: Privacy,
}

/// Who vouches that a host is one of the recipient's domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostProof {
    /// Nobody: anybody could have forged the MX record.
    #[default]
    None,
    /// The domain's MTA-STS policy (RFC 8461).
    MtaSts,
    /// DNSSEC.
    Dnssec,
    /// The operator, who named the host.
    Configured,
}

/// Whom a session keeps out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privacy {
    /// Nobody: it is in clear.
    #[default]
    None,
    /// Those who only listen.
    Encrypted,
    /// Everybody but the host of this name.
    Authenticated,
}

impl AttemptRecord {
    /// Most bytes that the texts of a record have, about what it takes on disk.
    pub const MAX_BYTES: usize = 4_096;
    /// Most hosts in a record.
    pub const MAX_HOSTS: usize = 8;

    /// Adds a host. Where that is too much, what was said first goes first.
    pub fn push(&mut self, host: HostRecord) {
        self.hosts.push(host);
        while self.hosts.len() > Self::MAX_HOSTS {
            self.drop_first_host();
        }
        let mut bytes: usize = self.hosts.iter().map(HostRecord::bytes).sum();
        let last = self.hosts.len() - 1;
        for host in &mut self.hosts {
            while bytes > Self::MAX_BYTES && !host.exchanges.is_empty() {
                bytes -= host.exchanges.remove(0).bytes();
                host.omitted = host.omitted.saturating_add(1);
            }
        }
        for _ in 0..last {
            if bytes <= Self::MAX_BYTES {
                break;
            }
            bytes -= self.hosts[0].bytes();
            self.drop_first_host();
        }
    }

    fn drop_first_host(&mut self) {
        self.hosts.remove(0);
        self.omitted = self.omitted.saturating_add(1);
    }
}

impl HostRecord {
    /// Most exchanges with one host.
    pub const MAX_EXCHANGES: usize = 32;
    /// Most bytes of a host's name, and of what failed.
    const MAX_TEXT: usize = 512;

    /// Of a host that was dialled, or would have been.
    pub fn new(remote: &Remote) -> Self {
        Self {
            host: sanitize_text(&remote.host, Self::MAX_TEXT),
            ip: remote.ip,
            port: remote.port,
            source: remote.source_ip,
            ..Self::default()
        }
    }

    /// Of a host that was not dialled.
    pub fn named(host: &str) -> Self {
        Self { host: sanitize_text(host, Self::MAX_TEXT), ..Self::default() }
    }

    /// The same, with what failed.
    #[must_use]
    pub fn failed(self, failure: &str) -> Self {
        Self { failure: Some(sanitize_text(failure, Self::MAX_TEXT)), ..self }
    }

    fn bytes(&self) -> usize {
        let tls = self.tls.as_ref().map_or(0, |tls| tls.version.len() + tls.cipher.len());
        let failure = self.failure.as_ref().map_or(0, String::len);
        let exchanges: usize = self.exchanges.iter().map(Exchange::bytes).sum();
        48 + self.host.len() + tls + failure + exchanges
    }
}

impl Exchange {
    /// Most bytes of a command that are kept: an address of the longest fits.
    pub const MAX_COMMAND: usize = 320;
    /// Most bytes of a reply that are kept.
    pub const MAX_REPLY: usize = 512;

    /// A command, or what stands for it, and its reply.
    pub fn new(command: impl AsRef<[u8]>, reply: impl AsRef<[u8]>, ms: u32) -> Self {
        Self { command: sanitize_text(command, Self::MAX_COMMAND), reply: sanitize_text(reply, Self::MAX_REPLY), ms }
    }

    fn bytes(&self) -> usize {
        8 + self.command.len() + self.reply.len()
    }
}

impl AttemptOutcome {
    /// Who was tried in this attempt, in this order: as recorded, or the one
    /// host that took the message, with its reply.
    pub fn hosts(&self) -> Vec<HostRecord> {
        let Some(record) = self.record.as_ref().filter(|record| record.hosts.is_empty()) else {
            return self.record.as_ref().map(|record| record.hosts.clone()).unwrap_or_default();
        };
        let only = self.remote.iter().map(|remote| HostRecord {
            tls: self.tls.clone(),
            level: record.level.unwrap_or_default(),
            exchanges: vec![Exchange::new("", &self.diagnostic, self.delays.transmit_ms)],
            ..HostRecord::new(remote)
        });
        only.collect()
    }
}

impl fmt::Display for SessionLevel {
    /// `mta-sts/authenticated`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.identity.as_str(), self.session.as_str())
    }
}

impl HostProof {
    /// The word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::MtaSts => "mta-sts",
            Self::Dnssec => "dnssec",
            Self::Configured => "configured",
        }
    }
}

impl Privacy {
    /// The word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Encrypted => "encrypted",
            Self::Authenticated => "authenticated",
        }
    }
}

/// The format of what stands behind stored outcomes.
const FORMAT: u8 = 1;

/// Most bytes behind the outcomes of one stored record. What comes after is
/// left out: an outcome without its record is still whole.
const MAX_STORED: usize = 4 * AttemptRecord::MAX_BYTES;

/// Appends the records of these outcomes, to be stored behind the outcomes
/// themselves, whose stored form does not have them. Nothing where there are none.
pub fn store_records<O: Borrow<AttemptOutcome>>(outcomes: &[O], out: &mut Vec<u8>) {
    let mut distinct: Vec<(&Arc<AttemptRecord>, Vec<u16>)> = Vec::new();
    for (at, outcome) in (0..=u16::MAX).zip(outcomes) {
        let Some(record) = &outcome.borrow().record else { continue };
        match distinct.iter_mut().find(|(known, _)| Arc::ptr_eq(known, record)) {
            Some((_, places)) => places.push(at),
            None => distinct.push((record, vec![at])),
        }
    }
    if distinct.is_empty() {
        return;
    }
    let start = out.len();
    out.push(FORMAT);
    for (record, places) in distinct {
        let before = out.len();
        // Writing to a vector can not fail.
        let _ = postcard::to_io(&(places, &**record), &mut *out);
        if out.len() - start > MAX_STORED {
            out.truncate(before);
            break;
        }
    }
}

/// Gives outcomes the records that `stored` has of them: what
/// [`store_records`] appended, or nothing where an earlier version wrote
/// them. A format of a later version is passed over.
pub fn attach_records(outcomes: &mut [AttemptOutcome], stored: &[u8]) {
    let Some((&FORMAT, mut rest)) = stored.split_first() else { return };
    while let Ok(((places, record), behind)) = postcard::take_from_bytes::<(Vec<u16>, AttemptRecord)>(rest) {
        rest = behind;
        let record = Arc::new(record);
        for place in places {
            if let Some(outcome) = outcomes.get_mut(usize::from(place)) {
                outcome.record = Some(Arc::clone(&record));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delays, Disposition, EnhancedStatus, Stage};
    use proptest::prelude::*;

    fn outcome(record: Option<&Arc<AttemptRecord>>) -> AttemptOutcome {
        AttemptOutcome {
            recipient: 0,
            at: Timestamp::from_millis(9),
            attempt: 1,
            disposition: Disposition::Delivered,
            status: EnhancedStatus::new(2, 0, 0),
            diagnostic: "250 ok".into(),
            remote: Some(Remote {
                host: "mx.example".into(),
                ip: None,
                port: 25,
                source_ip: None,
                stage: Stage::EndOfData,
            }),
            tls: None,
            delays: Delays::default(),
            next_attempt: None,
            record: record.cloned(),
        }
    }

    fn record(site: &str) -> Arc<AttemptRecord> {
        Arc::new(AttemptRecord { site: site.into(), ..AttemptRecord::default() })
    }

    #[test]
    fn records_are_stored_once_behind_the_outcomes_and_found_again() {
        let (one, two) = (record("one"), record("two"));
        let outcomes = [outcome(Some(&one)), outcome(None), outcome(Some(&two)), outcome(Some(&one))];
        let mut stored = Vec::new();
        store_records(&outcomes, &mut stored);
        let bare = outcomes.clone().map(|outcome| AttemptOutcome { record: None, ..outcome });
        let mut read = bare.clone();
        attach_records(&mut read, &stored);
        assert_eq!(read, outcomes);
        assert!(Arc::ptr_eq(read[0].record.as_ref().unwrap(), read[3].record.as_ref().unwrap()));
        // As before there were records, and as a later version may write them.
        for other in [&[][..], &[FORMAT + 1, 1, 2, 3]] {
            let mut read = bare.clone();
            attach_records(&mut read, other);
            assert_eq!(read, bare);
        }
        let mut none = Vec::new();
        store_records(&bare, &mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn many_large_records_do_not_make_a_large_entry() {
        let mut large = AttemptRecord::default();
        large.push(HostRecord {
            exchanges: vec![Exchange::new("RCPT", "x".repeat(500), 1); 6],
            ..HostRecord::default()
        });
        let outcomes: Vec<_> = (0..50).map(|_| outcome(Some(&Arc::new(large.clone())))).collect();
        let mut stored = Vec::new();
        store_records(&outcomes, &mut stored);
        assert!(stored.len() <= MAX_STORED);
        let mut read: Vec<_> = (0..50).map(|_| outcome(None)).collect();
        attach_records(&mut read, &stored);
        assert!(read[0].record.is_some() && read[49].record.is_none());
    }

    #[test]
    fn the_last_words_are_kept_when_there_were_too_many() {
        let mut record = AttemptRecord::default();
        for number in 0..20 {
            let exchange = |n| Exchange::new(format!("{number} {n}"), "x".repeat(400), 1);
            record.push(HostRecord { exchanges: (0..4).map(exchange).collect(), ..HostRecord::named("mx") });
        }
        assert_eq!(record.hosts.len() + usize::from(record.omitted), 20);
        assert_eq!(record.hosts.last().unwrap().exchanges.last().unwrap().command, "19 3");
        assert!(postcard::to_allocvec(&record).unwrap().len() <= AttemptRecord::MAX_BYTES);
    }

    #[test]
    fn a_delivery_by_the_first_host_says_who_took_it() {
        let hosts = outcome(Some(&record("site"))).hosts();
        assert_eq!((&*hosts[0].host, &*hosts[0].exchanges[0].reply), ("mx.example", "250 ok"));
        assert!(outcome(None).hosts().is_empty());
    }

    #[test]
    fn a_delivery_by_the_first_host_takes_little() {
        let record = AttemptRecord {
            began: Timestamp::from_millis(1_700_000_000_000),
            site: "mx1.example.com,mx2.example.com".into(),
            ehlo: "out.example.net".into(),
            level: Some(SessionLevel::default()),
            ..AttemptRecord::default()
        };
        let mut stored = Vec::new();
        store_records(&[outcome(Some(&Arc::new(record)))], &mut stored);
        assert!(stored.len() <= 64, "{}", stored.len());
    }

    #[test]
    fn levels_are_written_as_in_json() {
        let level = SessionLevel { identity: HostProof::MtaSts, session: Privacy::Authenticated };
        assert_eq!(level.to_string(), "mta-sts/authenticated");
        let json = r#"{"identity":"mta-sts","session":"authenticated"}"#;
        assert_eq!(serde_json::to_string(&level).unwrap(), json);
    }

    proptest! {
        #[test]
        fn whatever_a_host_says_is_short_and_on_one_line(said: Vec<u8>, host: String) {
            let exchange = Exchange::new(&said, &said, 0);
            let failed = HostRecord::named(&host).failed(&host);
            let clean = |text: &str| text.len() <= 512 && !text.chars().any(char::is_control);
            prop_assert!(clean(&exchange.command) && clean(&exchange.reply));
            prop_assert!(clean(&failed.host) && failed.failure.as_deref().is_some_and(clean));
        }

        #[test]
        fn damage_does_not_panic(stored: Vec<u8>) {
            attach_records(&mut [outcome(None)], &stored);
        }
    }
}
