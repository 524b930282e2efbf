//! Verifying a spool that nobody has open: every checksum of its logs, every
//! record, and the index against them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use postrider_base::{Disk, OpenMode};
use postrider_mail::MessageId;
use postrider_wal::{Body, Fault, Inspected, Inspection, Location, Zeros, inspect};
use serde::Serialize;

use crate::error::Result;
use crate::index::{Disagreement, Index};
use crate::records::{AcceptedHead, Kind, decode_message, decode_outcomes, decode_state};
use crate::replay::Replay;
use crate::row::Row;
use crate::rows::Rows;
use crate::{indexer, lives};

/// Where the bodies of messages that wait for long are, below the spool.
pub(crate) const COLD: &str = "cold";

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Messages that wait.
    pub messages: u64,
    /// Whether the last run ended with [`crate::Spool::close`].
    pub clean_stop: bool,
    /// The log of all records.
    pub log: LogCheck,
    /// The log with the bodies of messages that wait for long, if there is one.
    pub cold: Option<LogCheck>,
    /// Records that are whole and cannot be understood: of another version, or
    /// written by mistake.
    pub not_understood: u64,
    /// Waiting messages that do not read back: the first
    /// [`Check::MOST_LISTED`]. They are held when they are next due.
    pub damaged: Vec<MessageId>,
    /// How many there are.
    pub damaged_count: u64,
    /// The index of waiting messages.
    pub index: IndexCheck,
    /// What earlier runs found damaged and kept.
    pub quarantine: QuarantineCheck,
}

impl Check {
    /// Messages that are listed; the others are counted.
    pub const MOST_LISTED: usize = 1_000;

    /// Whether nothing is damaged. An index that is behind the log is sound:
    /// the next start brings it into agreement.
    pub fn is_sound(&self) -> bool {
        let logs = [Some(&self.log), self.cold.as_ref()];
        logs.into_iter().flatten().all(|log| log.fault_count == 0)
            && self.not_understood == 0
            && self.damaged_count == 0
            && self.quarantine.unreadable == 0
            && !matches!(self.index, IndexCheck::Broken { .. })
    }
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogCheck {
    /// Segments in use.
    pub segments: u64,
    /// Segments made ahead, or retired and not taken away yet.
    pub unused: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Batches read.
    pub batches: u64,
    /// The last batch.
    pub last_batch: u64,
    /// The segment that ends with an unfinished write: the ordinary trace of a
    /// crash.
    pub torn: Option<u64>,
    /// Damage, where it is, and what it costs.
    pub faults: Vec<FaultView>,
    /// How many faults there are; not more than 10,000 are listed.
    pub fault_count: u64,
}

/// A place of a log that does not read as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultView {
    /// The number of the segment.
    pub segment: u64,
    /// Where it begins in the segment's file.
    pub offset: u64,
    /// How far it reaches, as far as that is known.
    pub bytes: u64,
    /// What it is: header, batch, body, footer, trailer, ...
    pub part: String,
    /// Batches that are lost with it.
    pub batches_lost: u64,
}

/// The index of waiting messages, which is only ever a copy of what the log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum IndexCheck {
    /// It says what the log says.
    Agrees,
    /// It differs: what is young is not in it, and after a crash what was not
    /// written in time. The next start mends it.
    Behind(Disagreement),
    /// It does not read. The next start makes it anew.
    Broken {
        /// What it says.
        error: String,
    },
    /// There is none. The next start makes it.
    Absent,
    /// It could not be looked at: a copy of it is made for that.
    NotChecked {
        /// Why no copy was made.
        error: String,
    },
}

/// What is in quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QuarantineCheck {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that the disk does not give back.
    pub unreadable: u64,
}

/// Verifies the spool in `dir`, which nobody has open, and changes nothing.
/// Blocks: reads all of its files. Memory is bounded by a segment and the
/// states of the waiting messages.
///
/// # Errors
/// [`crate::Error::Log`] and [`crate::Error::Io`] when the directories cannot be read.
pub fn check(disk: &dyn Disk, dir: &Path, index_dir: Option<&Path>) -> Result<Check> {
    let mut main = MainLog::default();
    let found = inspect(disk, dir, Zeros::Damage, &mut |inspected| main.take(&inspected))?;
    let MainLog { replay, bad, mut not_understood } = main;
    not_understood += replay.damaged.len() as u64;
    let clean_stop = replay.clean_stop;
    let rows = replay.into_waiting(&HashSet::new());
    let mut unreadable: Vec<MessageId> =
        rows.iter().filter(|(_, row)| is_lost(row) || bad.contains(&row.location)).map(|(id, _)| id).collect();
    let cold = dir.join(COLD);
    let cold = match disk.exists(&cold) {
        true => Some(check_cold(disk, &cold, &rows, &mut unreadable)?),
        false => None,
    };
    unreadable.sort_unstable();
    let damaged_count = unreadable.len() as u64;
    unreadable.truncate(Check::MOST_LISTED);
    let index = index_dir.map_or(IndexCheck::Absent, |index_dir| check_index(index_dir, &rows));
    let mut quarantine = QuarantineCheck::default();
    for dir in [dir.join("quarantine"), dir.join(COLD).join("quarantine")] {
        quarantine.add(disk, &dir)?;
    }
    Ok(Check {
        messages: rows.len() as u64,
        clean_stop,
        log: found.into(),
        cold,
        not_understood,
        damaged: unreadable,
        damaged_count,
        index,
        quarantine,
    })
}

/// The log of all records, while it is read.
#[derive(Default)]
struct MainLog {
    replay: Replay,
    /// Bodies that are damaged.
    bad: HashSet<Location>,
    not_understood: u64,
}

impl MainLog {
    fn take(&mut self, Inspected { entry, body }: &Inspected) {
        self.replay.take(entry);
        let understood = match (Kind::from_byte(entry.kind), body) {
            (_, Body::Zeros | Body::Damaged) => {
                self.bad.insert(entry.location);
                true
            }
            (_, Body::Good(body)) if body.is_empty() => true,
            (Some(Kind::Accepted | Kind::Snapshot | Kind::Imported), Body::Good(body)) => {
                let id = decode_state(&entry.head).map(|AcceptedHead { id, .. }| id);
                decode_message(body).is_some_and(|(record, _)| id.is_none_or(|id| record.id == id))
            }
            (Some(Kind::Outcomes | Kind::Copied), Body::Good(body)) => decode_outcomes(body).is_some(),
            // What is not known at all the replay counts.
            _ => true,
        };
        if !understood {
            self.bad.insert(entry.location);
            self.not_understood += 1;
        }
    }
}

/// Reads the cold log, and looks for the bodies that waiting messages have there.
fn check_cold(disk: &dyn Disk, dir: &Path, rows: &Rows, unreadable: &mut Vec<MessageId>) -> Result<LogCheck> {
    let mut wanted = HashMap::new();
    for (id, row) in rows.iter() {
        if is_cold(row.location) {
            wanted.insert(row.location, id);
        }
    }
    let found = inspect(disk, dir, Zeros::GivenBack, &mut |Inspected { entry, body }| {
        if let Body::Good(body) = body
            && let Some(id) = wanted.get(&entry.location)
            && decode_message(&body).is_some_and(|(record, _)| record.id == *id)
        {
            wanted.remove(&entry.location);
        }
    })?;
    unreadable.extend(wanted.into_values());
    Ok(found.into())
}

/// Whether a location is in the cold log, by the number of its segment.
fn is_cold(location: Location) -> bool {
    location.segment >= lives::COLD
}

/// Whether the body was given up as damaged.
fn is_lost(row: &Row) -> bool {
    row.location == Location::default()
}

/// sled changes what it opens: a copy is opened.
fn check_index(dir: &Path, rows: &Rows) -> IndexCheck {
    let current = indexer::current(dir);
    if !current.exists() {
        return IndexCheck::Absent;
    }
    let copy = dir.with_extension("check");
    let copied = remove(&copy).and_then(|()| copy_all(&current, &copy));
    let checked = match copied {
        Err(error) => IndexCheck::NotChecked { error: error.to_string() },
        Ok(()) => match Index::open(&copy).and_then(|index| index.compare(rows)) {
            Ok(disagreement) if disagreement == Disagreement::default() => IndexCheck::Agrees,
            Ok(disagreement) => IndexCheck::Behind(disagreement),
            Err(error) => IndexCheck::Broken { error: error.to_string() },
        },
    };
    if let Err(error) = remove(&copy) {
        tracing::warn!(%error, "{} was not removed", copy.display());
    }
    checked
}

fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_all(&entry.path(), &to)?,
            false => drop(std::fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

impl QuarantineCheck {
    fn add(&mut self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        if !disk.exists(dir) {
            return Ok(());
        }
        for path in disk.read_dir(dir)? {
            self.files += 1;
            match read_through(disk, &path) {
                Ok(bytes) => self.bytes += bytes,
                Err(_) => self.unreadable += 1,
            }
        }
        Ok(())
    }
}

/// Reads a file to its end; its length.
fn read_through(disk: &dyn Disk, path: &Path) -> io::Result<u64> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(at),
            read => at += read as u64,
        }
    }
}

impl From<Inspection> for LogCheck {
    fn from(found: Inspection) -> Self {
        Self {
            segments: found.segments,
            unused: found.unused,
            bytes: found.bytes,
            batches: found.batches,
            last_batch: found.last.get(),
            torn: found.torn.map(|torn| torn.segment),
            faults: found.faults.iter().map(FaultView::from).collect(),
            fault_count: found.fault_count,
        }
    }
}

impl From<&Fault> for FaultView {
    fn from(fault: &Fault) -> Self {
        Self {
            segment: fault.segment,
            offset: fault.offset,
            bytes: fault.len,
            part: fault.part.to_string(),
            batches_lost: fault.batches,
        }
    }
}
