//! The audit log: who changed what, when, and from where.
//!
//! A record is written and synced *before* the change that it is about, so that no change
//! happens that is not in the log: where it can not be written, the change is refused. One
//! that then fails is followed by a second record of the same request, with the error.
//!
//! Records are JSON, one a line, by the names of CloudTrail where they fit. Content and
//! secrets are never in them, and neither are long lists: those are counted.

mod files;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_base::{Clock, Disk, Random, Timestamp};
use serde_json::Value;

use crate::{Error, Settings};
pub use files::AuditFile;
use files::Files;

pub use record::{Actor, AuditEntry, AuditRecord, UserIdentity, shortened};

/// The audit log. Clones share it.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    /// Held while a record is written and synced.
    files: Mutex<Files>,
    clock: Clock,
    random: Random,
}

/// Which records are wanted. The default is all.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AuditFilter {
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Whose event name, in any case, contains this.
    pub name: Option<String>,
}

/// A request that is in the log and not done yet.
#[derive(Debug)]
#[must_use]
pub struct Audited {
    request: String,
    entries: Vec<AuditEntry>,
}

impl Audit {
    /// The log in a directory, which is made if need be. The end of a record that was not
    /// written whole, as a crash can leave it, is cut off: nobody was told of that change.
    ///
    /// # Errors
    /// [`Error::Audit`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        clock: &Clock,
        random: &Random,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let files = Files::open(disk, dir, settings).map_err(unwritten)?;
        Ok(Self(Some(Arc::new(Inner { files: Mutex::new(files), clock: clock.clone(), random: random.clone() }))))
    }

    /// Records changes that one request is about to make, synced when it returns. Without a
    /// log nothing is recorded.
    ///
    /// # Errors
    /// [`Error::Audit`]: the change must not be made.
    pub async fn begin(&self, entries: Vec<AuditEntry>) -> Result<Audited, Error> {
        let request = self.0.as_ref().map(|inner| record::uuid(&inner.random)).unwrap_or_default();
        self.write(&request, &entries, None).await?;
        Ok(Audited { request, entries })
    }

    /// Records that none of the changes was made, and why. That this fails too changes
    /// nothing any more: the log of the daemon says so.
    pub async fn failed(&self, audited: Audited, code: &str, message: &str) {
        // One record stands for all: they were one request.
        let last = &audited.entries[..audited.entries.len().min(1)];
        if let Err(error) = self.write(&audited.request, last, Some((code, message))).await {
            tracing::error!(%error, "the audit log does not say that a change was not made");
        }
    }

    /// Records what the relay itself has done or is about to do. When that fails the daemon's
    /// log says so, and the relay goes on: its mail must not suffer.
    pub async fn by_relay(&self, part: &'static str, name: &'static str, parameters: Value) {
        let entry = AuditEntry::new(Actor::Relay(part), name, parameters);
        if let Err(error) = self.begin(vec![entry]).await {
            tracing::error!(%error, part, name, "the audit log lacks an automatic change");
        }
    }

    /// Gives the records that the filter lets through to `each`, oldest first, until it says
    /// to stop. Blocks for the disk. Lines that are no records are passed over.
    ///
    /// # Errors
    /// [`Error::Audit`].
    pub fn read(
        &self,
        filter: &AuditFilter,
        each: &mut dyn FnMut(AuditRecord) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // All are opened before one is read: a rotation meanwhile loses none.
        let open = self.files()?;
        let filter = filter.prepared();
        for file in open {
            let text = file.read().map_err(unread)?;
            for line in text.split(|byte| *byte == b'\n') {
                let Ok(record) = serde_json::from_slice::<AuditRecord>(line) else { continue };
                if filter.lets(&record) && each(record).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// All files of the log, the oldest first: none that is there now is missed when the log
    /// is rotated while they are read. None without a log. Blocks for the disk.
    ///
    /// # Errors
    /// [`Error::Audit`].
    pub fn files(&self) -> Result<Vec<AuditFile>, Error> {
        match &self.0 {
            Some(inner) => inner.files.lock().open_all().map_err(unread),
            None => Ok(Vec::new()),
        }
    }

    async fn write(&self, request: &str, entries: &[AuditEntry], failure: Option<(&str, &str)>) -> Result<(), Error> {
        let Some(inner) = self.0.clone() else { return Ok(()) };
        let mut lines = Vec::new();
        let now = inner.clock.now();
        for entry in entries {
            let record = AuditRecord::new(entry, now, record::uuid(&inner.random), request, failure);
            record.write_line(&mut lines);
        }
        let written = tokio::task::spawn_blocking(move || inner.files.lock().append(&lines));
        written.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(unwritten)
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("open", &self.0.is_some()).finish()
    }
}

impl AuditFilter {
    fn prepared(&self) -> Self {
        Self { since: self.since, name: self.name.as_ref().map(|name| name.to_lowercase()) }
    }

    /// Expects `name` in lower case.
    fn lets(&self, record: &AuditRecord) -> bool {
        self.since.is_none_or(|since| record.at().is_some_and(|at| at >= since))
            && self.name.as_ref().is_none_or(|name| record.event_name.to_lowercase().contains(name))
    }
}

fn unwritten(error: std::io::Error) -> Error {
    Error::Audit { doing: "written", error }
}

fn unread(error: std::io::Error) -> Error {
    Error::Audit { doing: "read", error }
}
