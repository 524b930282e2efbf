//! Publishing records by dynamic update (RFC 2136), signed with a shared key (TSIG, RFC 8945).
//!
//! What is there and not ours is never changed or taken away: a record is added where its name
//! has none of its kind, or put in the place of the one that we had there before; everything else
//! is reported. So a second run does nothing.
//!
//! It talks to the primary server of the zone over TCP, and every message in both directions
//! carries the key's signature.

mod exchange;
mod key;
mod update;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::{Name, Record as DnsRecord, RecordType};
use postrider_base::{Clock, Dialer, Random};
use postrider_mail::sanitize_text;
use serde::{Deserialize, Serialize};

pub use key::TsigKey;

use crate::records::{Record, State, is_key_record};
use exchange::Exchange;
use update::Update;

/// How long one run may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest text of a server's that is shown.
const SHOWN: usize = 200;

/// Where to publish.
#[derive(Clone, Debug)]
pub struct Target {
    /// The zone's primary server.
    pub server: SocketAddr,
    /// The zone; without it the server is asked.
    pub zone: Option<String>,
    /// What signs the messages.
    pub key: Option<TsigKey>,
}

/// What a publisher works with.
pub struct Publisher {
    /// Opens the connection to the server.
    pub dialer: Arc<dyn Dialer>,
    /// The time of signatures.
    pub clock: Clock,
    /// Ids of messages.
    pub random: Random,
}

/// What became of a record.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Published {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a record.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is published now.
    Added,
    /// It would be, if this were not a dry run.
    WouldAdd,
    /// It is published now, in the place of the one that was ours before.
    Replaced,
    /// It would be, if this were not a dry run.
    WouldReplace,
    /// It was there already, or something that does the same.
    AlreadyRight,
    /// Something else is in its place, and that is not ours to change.
    Left {
        /// What, in one printable line.
        found: String,
        /// What to do about it.
        advice: String,
    },
    /// It does not belong to the zone: whoever keeps its zone must publish it.
    Outside,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be reached, or did not answer; may pass.
    #[error("{server} cannot be reached: {error}")]
    Unreachable {
        /// The server.
        server: SocketAddr,
        /// Why.
        #[source]
        error: io::Error,
    },

    /// The server does not allow it. Its operator has to let the key change these records;
    /// does not pass.
    #[error(
        "{server} refuses: allow this key to update the zone (BIND: update-policy or allow-update; knot: an acl with \
         action update)"
    )]
    Refused {
        /// The server.
        server: SocketAddr,
    },

    /// The server does not know the key's name or algorithm, or lets it do nothing with the
    /// zone; the key file or the server is at fault, and it does not pass.
    #[error(
        "{server} does not know the key {key}, or lets it do nothing with this zone (BADKEY): are its name and \
         algorithm the server's?"
    )]
    BadKey {
        /// The server.
        server: SocketAddr,
        /// The name of the key.
        key: String,
    },

    /// The server knows a key of this name, with another secret; does not pass.
    #[error("{server} has another secret for the key {key} (BADSIG)")]
    BadSignature {
        /// The server.
        server: SocketAddr,
        /// The name of the key.
        key: String,
    },

    /// The clocks of the two are minutes apart; passes when they are set.
    #[error("the clock of {server} and ours are too far apart (BADTIME)")]
    BadTime {
        /// The server.
        server: SocketAddr,
    },

    /// The server is not one that keeps the zone; does not pass.
    #[error("{server} does not keep the zone {zone}: name its primary server, or the right zone")]
    WrongZone {
        /// The server.
        server: SocketAddr,
        /// The zone.
        zone: String,
    },

    /// The server keeps the zone, and this key may not act on it; does not pass.
    #[error("{server} does not accept the request for {zone} (NOTAUTH): is it the primary server of the zone?")]
    NotAuthorized {
        /// The server.
        server: SocketAddr,
        /// The zone.
        zone: String,
    },

    /// Somebody else changed the zone at the same moment, and nothing was done; passes.
    #[error("the zone {zone} changed meanwhile: nothing was published, run it again")]
    Changed {
        /// The zone.
        zone: String,
    },

    /// The server failed, or does not know dynamic updates; its log says more.
    #[error("{server} could not do it ({code})")]
    Failed {
        /// The server.
        server: SocketAddr,
        /// The response code, in words.
        code: String,
    },

    /// The answer is not one to the question, or its signature is wrong: somebody may stand in
    /// between.
    #[error("the answer of {server} cannot be trusted: {reason}")]
    Untrusted {
        /// The server.
        server: SocketAddr,
        /// Why, in one printable line.
        reason: String,
    },

    /// A name or value that no DNS message can hold; the caller is at fault.
    #[error("{0:?} cannot be published")]
    Unfit(String),
}

impl Publisher {
    /// Publishes what of `records` belongs into the zone and is not there, and says what became
    /// of each. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// See [`Error`]; then nothing was changed, except that after
    /// [`Error::Unreachable`] and [`Error::Untrusted`] it may have been.
    pub async fn publish(&self, target: &Target, records: &[Record], dry_run: bool) -> Result<Vec<Published>, Error> {
        let run = self.run(target, records, dry_run);
        tokio::time::timeout(DEADLINE, run).await.unwrap_or_else(|_| {
            let error = io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time");
            Err(Error::Unreachable { server: target.server, error })
        })
    }

    async fn run(&self, target: &Target, records: &[Record], dry_run: bool) -> Result<Vec<Published>, Error> {
        let mut exchange = Exchange::open(self, target).await?;
        let zone = find_zone(&mut exchange, target, records).await?;
        let mut update = Update::new(zone.clone());
        let mut published = Vec::with_capacity(records.len());
        for record in records {
            let outcome = match consider(&mut exchange, &zone, record).await? {
                Considered::Add { beside } => {
                    update.add(record, beside)?;
                    if dry_run { Outcome::WouldAdd } else { Outcome::Added }
                }
                Considered::Replace(old) => {
                    update.replace(record, *old)?;
                    if dry_run { Outcome::WouldReplace } else { Outcome::Replaced }
                }
                Considered::Not(outcome) => outcome,
            };
            published.push(Published { name: record.name.clone(), kind: record.data.kind().to_owned(), outcome });
        }
        if !dry_run && !update.is_empty() {
            exchange.ask(update.into_message(exchange.next_id()), &zone).await?;
        }
        Ok(published)
    }
}

/// What a look at the server says about a record.
enum Considered {
    /// It is to be added, beside others of its type with this time to live.
    Add {
        beside: Option<u32>,
    },
    /// It is to take the place of this one.
    Replace(Box<DnsRecord>),
    Not(Outcome),
}

async fn consider(exchange: &mut Exchange<'_>, zone: &Name, record: &Record) -> Result<Considered, Error> {
    let name = update::name(&record.name)?;
    if !zone.zone_of(&name) {
        return Ok(Considered::Not(Outcome::Outside));
    }
    let kind = update::record_type(&record.data);
    let answer = exchange.ask(exchange.question(&name, kind), zone).await?;
    if !answer.authoritative {
        // The name lies below a delegation: another server's business.
        return Ok(Considered::Not(Outcome::Outside));
    }
    if let Some(alias) = answer.answers.iter().find(|found| found.record_type() == RecordType::CNAME) {
        let found = format!("CNAME {}", sanitize_text(alias.data.to_string(), SHOWN));
        let advice = format!("publish {} where the alias leads to, or take the alias away", record.data.kind());
        return Ok(Considered::Not(Outcome::Left { found, advice }));
    }
    let same: Vec<_> =
        answer.answers.iter().filter(|found| found.name == name && found.record_type() == kind).collect();
    let found: Vec<_> = same.iter().filter_map(|found| update::data(&found.data)).collect();
    Ok(match crate::records::compare(record, &found) {
        State::Right => Considered::Not(Outcome::AlreadyRight),
        State::Differs { .. } if let Some(old) = before(record, &same) => Considered::Replace(Box::new(old.clone())),
        State::Differs { found, advice } => Considered::Not(Outcome::Left { found, advice }),
        State::Missing | State::Unknown { .. } => Considered::Add { beside: same.first().map(|found| found.ttl) },
    })
}

/// The one that is there, where it is what `record` is to replace.
fn before<'a>(record: &Record, found: &[&'a DnsRecord]) -> Option<&'a DnsRecord> {
    let [only] = found else { return None };
    is_key_record(&update::data(&only.data)?, record.replaces.as_deref()?).then_some(only)
}

/// The zone that was named, or the one in which the server has the first record; the server
/// must be one of its own.
async fn find_zone(exchange: &mut Exchange<'_>, target: &Target, records: &[Record]) -> Result<Name, Error> {
    let asked = match (&target.zone, records.first()) {
        (Some(zone), _) => update::name(zone)?,
        (None, Some(record)) => update::name(&record.name)?,
        (None, None) => return Err(Error::Unfit("an empty plan".to_owned())),
    };
    let answer = exchange.ask(exchange.question(&asked, RecordType::SOA), &asked).await?;
    let mut known = answer.answers.iter().chain(&answer.authorities).filter(|r| r.record_type() == RecordType::SOA);
    match known.next() {
        Some(soa) if answer.authoritative && (target.zone.is_none() || soa.name == asked) => Ok(soa.name.clone()),
        _ => Err(Error::WrongZone { server: target.server, zone: sanitize_text(asked.to_ascii(), SHOWN) }),
    }
}
