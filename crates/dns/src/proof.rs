//! Answers that are proved: what a validated message says about a question.

use std::time::Duration;

use hickory_proto::dnssec::Proof;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::net::xfer::DnsHandle;

use crate::answer::{Alias, Answer, DnsError, FOREVER, Reply};
use crate::descent::is_unsigned;
use crate::heard::{Heard, ask, seconds, unproved};
use crate::hickory::host_name;

/// Aliases that are followed.
const MOST_ALIASES: usize = 8;

/// Asks a validating handle for records of one type.
pub(crate) async fn records<H: DnsHandle, T>(
    handle: &H,
    name: Name,
    kind: RecordType,
    pick: fn(&RData) -> Option<T>,
) -> Reply<T> {
    Path::new(handle, name).records(kind, pick).await
}

/// The way from the name that was asked for to the name that has the records.
pub(crate) struct Path<'a, H> {
    handle: &'a H,
    owner: Name,
    /// Aliases before that.
    aliases: Vec<Name>,
    /// Every step so far is.
    proved: bool,
    ttl: Duration,
    first_proved: Option<bool>,
    /// The last name that is known to need no proof.
    unsigned: Option<Name>,
}

impl<'a, H: DnsHandle> Path<'a, H> {
    /// A way that begins at `name`.
    pub(crate) fn new(handle: &'a H, name: Name) -> Self {
        Self {
            handle,
            owner: name,
            aliases: Vec::new(),
            proved: true,
            ttl: FOREVER,
            first_proved: None,
            unsigned: None,
        }
    }

    /// The records of one type at its end. Aliases are followed here, one after the other, so
    /// that each is looked at.
    pub(crate) async fn records<T>(&mut self, kind: RecordType, pick: fn(&RData) -> Option<T>) -> Reply<T> {
        for _ in 0..=MOST_ALIASES {
            let asked = self.owner.clone();
            let heard = ask(self.handle, asked.clone(), kind).await?;
            self.follow(&heard).await?;
            if of(&heard.message.answers, &self.owner, kind).next().is_some() {
                return self.answer(&heard, kind, pick).await;
            }
            // What an alias leads to is asked by itself: the validator takes its
            // absence for that of the alias, and finds no proof of that.
            if self.owner == asked {
                let proved = heard.has_denial_of(&asked);
                if !proved {
                    self.must_be_unsigned(&asked).await?;
                }
                return Err(self.limit(heard.absence(proved)));
            }
        }
        Err(DnsError::temporary("too many aliases"))
    }

    /// The names that it has led along so far.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.aliases.iter().chain([&self.owner])
    }

    /// Goes along the aliases that were heard.
    async fn follow(&mut self, heard: &Heard) -> Result<(), DnsError> {
        for _ in 0..=MOST_ALIASES {
            let owner = self.owner.clone();
            let Some(alias) = of(&heard.message.answers, &owner, RecordType::CNAME).next() else { return Ok(()) };
            self.take(alias, heard).await?;
            self.first_proved.get_or_insert(self.proved);
            if let RData::CNAME(target) = &alias.data {
                self.aliases.push(std::mem::replace(&mut self.owner, target.0.clone()));
            }
        }
        Err(DnsError::temporary("too many aliases"))
    }

    /// Adds the proof of a record to that of the way.
    async fn take(&mut self, record: &Record, heard: &Heard) -> Result<(), DnsError> {
        match record.proof {
            Proof::Secure if heard.is_no_false_expansion(record) => {}
            Proof::Secure => return Err(unproved(&record.name)),
            Proof::Insecure | Proof::Bogus | Proof::Indeterminate => {
                self.must_be_unsigned(&record.name).await?;
                self.proved = false;
            }
        }
        self.ttl = self.ttl.min(seconds(record.ttl));
        Ok(())
    }

    /// What is not proved is believed where nothing can be.
    async fn must_be_unsigned(&mut self, name: &Name) -> Result<(), DnsError> {
        if self.unsigned.as_ref() != Some(name) {
            if !is_unsigned(self.handle, name).await? {
                return Err(unproved(name));
            }
            self.unsigned = Some(name.clone());
        }
        Ok(())
    }

    /// The records at the end of the way.
    async fn answer<T>(&mut self, heard: &Heard, kind: RecordType, pick: fn(&RData) -> Option<T>) -> Reply<T> {
        let owner = self.owner.clone();
        let found = || of(&heard.message.answers, &owner, kind);
        for record in found() {
            self.take(record, heard).await?;
        }
        let value: Vec<T> = found().filter_map(|record| pick(&record.data)).collect();
        let alias = |first_proved| Alias { target: host_name(&self.owner).into(), first_proved };
        let alias = self.first_proved.map(alias);
        Ok(Answer { value, ttl: self.ttl, authenticated: self.proved, alias, partial: false })
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

fn of<'a>(answers: &'a [Record], owner: &'a Name, kind: RecordType) -> impl Iterator<Item = &'a Record> {
    answers.iter().filter(move |record| record.record_type() == kind && record.name == *owner)
}

#[cfg(test)]
mod tests;
