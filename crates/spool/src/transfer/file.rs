//! The file that carries waiting messages from one machine to another.
//!
//! ```text
//! file     start | message | message | ... | end
//! frame    header (32) | payload
//! header   magic, crc of the rest of it, kind, number of the frame, length and crc of the payload
//! start    format version, then who wrote it, and the number of this export
//! message  length of its state, state, record and bytes as they lie in the log
//! end      how many messages and bytes are before it
//! ```
//!
//! The frames are numbered, so that one that is missing, twice or out of
//! order is found, and nothing follows the end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use postrider_base::{Disk, DiskFile, OpenMode, Timestamp};
use postrider_mail::{AttemptOutcome, attach_records, store_records};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::taken::FileId;
use crate::error::{Error, Result};
use crate::message::AcceptedRecord;
use crate::records::decode_message;

/// The format written here; earlier ones are read. Before 2 an export had no
/// number.
const VERSION: u32 = 2;
const MAGIC: &[u8; 4] = b"pxF\x94";
const HEADER: usize = 32;

/// What a frame is. The numbers are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    Start = 1,
    Message = 2,
    End = 3,
}

/// Who wrote a file, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The instance of the node.
    pub from: String,
    pub at: Timestamp,
    /// The messages still wait where they came from: this is a copy.
    pub copy: bool,
    pub id: FileId,
}

/// What is before the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub messages: u64,
    pub bytes: u64,
}

/// What is left to do for a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub held: bool,
    pub waiting: Vec<MovedRecipient>,
}

/// A recipient that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MovedRecipient {
    /// Index in the envelope.
    pub recipient: u16,
    pub attempts: u32,
    pub due: Timestamp,
    /// What the last attempt said.
    pub last: Option<AttemptOutcome>,
}

/// A message of a file, verified.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// Counted from 1, in the order of the file.
    pub number: u64,
    pub record: Arc<AcceptedRecord>,
    pub state: Moved,
    /// Record and bytes as they lay in the log.
    pub body: Bytes,
}

/// Writes a file from its start to its end.
#[derive(Debug)]
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    at: u64,
    frames: u64,
    pub(crate) totals: Totals,
}

impl Writer {
    /// Makes a new file; one that is there stays as it is, and is an error.
    pub(crate) fn create(disk: &Arc<dyn Disk>, path: &Path, start: &Start) -> Result<Self> {
        let file = disk.open(path, OpenMode::CreateNew).map_err(|error| named(path, &error))?;
        let (disk, path) = (Arc::clone(disk), path.to_owned());
        let mut this = Self { disk, path, file, at: 0, frames: 0, totals: Totals::default() };
        let mut payload = VERSION.to_be_bytes().to_vec();
        payload.extend(encode(start)?);
        if let Err(error) = this.frame(Kind::Start, &[&payload]) {
            discard(&*this.disk, &this.path);
            return Err(error);
        }
        Ok(this)
    }

    pub(crate) fn message(&mut self, state: &Moved, body: &[u8]) -> Result<()> {
        let state = encode_state(state)?;
        let length = u32::try_from(state.len()).map_err(|_| Error::TooLarge("record"))?;
        self.frame(Kind::Message, &[&length.to_be_bytes(), &state, body])?;
        self.totals.messages += 1;
        self.totals.bytes += body.len() as u64;
        Ok(())
    }

    /// Ends the file; on return it is on disk, name and all.
    pub(crate) fn finish(mut self) -> Result<Totals> {
        let end = encode(&self.totals)?;
        self.frame(Kind::End, &[&end])?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced = self.file.sync_all().and_then(|()| self.disk.sync_dir(parent.unwrap_or(Path::new("."))));
        synced.map_err(|error| named(&self.path, &error))?;
        Ok(self.totals)
    }

    fn frame(&mut self, kind: Kind, payload: &[&[u8]]) -> Result<()> {
        let mut crc = crc32fast::Hasher::new();
        payload.iter().for_each(|part| crc.update(part));
        let length: u64 = payload.iter().map(|part| part.len() as u64).sum();
        let mut rest = Vec::with_capacity(HEADER - 8);
        rest.put_u32(kind as u32);
        rest.put_u64(self.frames);
        rest.put_u64(length);
        rest.put_u32(crc.finalize());
        let mut header = MAGIC.to_vec();
        header.put_u32(crc32fast::hash(&rest));
        header.extend(rest);
        let mut parts = vec![&header[..]];
        parts.extend(payload);
        self.file.write_all_vectored_at(&parts, self.at).map_err(|error| named(&self.path, &error))?;
        self.at += HEADER as u64 + length;
        self.frames += 1;
        Ok(())
    }
}

/// Takes a file away that is of no use.
pub(crate) fn discard(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.remove_file(path) {
        tracing::warn!(%error, "{} is of no use and could not be removed", path.display());
    }
}

/// Reads a file from its start to its end, and verifies all of it on the way.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    at: u64,
    frames: u64,
    totals: Totals,
}

impl Reader {
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<(Self, Start)> {
        let opened = disk.open(path, OpenMode::Read).and_then(|file| Ok((file.len()?, file)));
        let (length, file) = opened.map_err(|error| named(path, &error))?;
        let path = path.to_owned();
        let mut this = Self { path, file, length, at: 0, frames: 0, totals: Totals::default() };
        if this.length < HEADER as u64 || !this.read(MAGIC.len() as u64)?.starts_with(MAGIC) {
            return Err(this.bad("it is not an export of a spool"));
        }
        let (kind, mut payload) = this.frame()?;
        if kind != Kind::Start || payload.len() < 4 {
            return Err(this.bad("the start is missing"));
        }
        let start = match payload.get_u32() {
            1 => first_start(&payload),
            VERSION => decode(&payload),
            other => return Err(this.bad(&format!("format version {other} is not known, {VERSION} is"))),
        };
        let start = start.ok_or_else(|| this.bad("the start cannot be read"))?;
        Ok((this, start))
    }

    /// The next message; none at the end, which is where it should be.
    pub(crate) fn next(&mut self) -> Result<Option<Carried>> {
        let began = self.at;
        let (kind, payload) = self.frame()?;
        match kind {
            Kind::Message => {
                self.totals.messages += 1;
                let carried = carried(&payload, self.totals.messages);
                let carried = carried.ok_or_else(|| self.bad_at(began, "the message cannot be read"))?;
                self.totals.bytes += carried.body.len() as u64;
                Ok(Some(carried))
            }
            Kind::End if decode(&payload) != Some(self.totals) => Err(self.bad_at(began, "messages are missing")),
            Kind::End if self.at < self.length => Err(self.bad("something follows the end")),
            Kind::End => Ok(None),
            Kind::Start => Err(self.bad_at(began, "a second start")),
        }
    }

    /// What was read so far.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    fn frame(&mut self) -> Result<(Kind, Bytes)> {
        let began = self.at;
        if self.at == self.length {
            return Err(self.bad("the file is cut short: its end is missing"));
        }
        let mut header = self.read(HEADER as u64)?;
        let good = header.starts_with(MAGIC) && {
            header.advance(MAGIC.len());
            header.get_u32() == crc32fast::hash(&header)
        };
        if !good {
            return Err(self.bad("damaged"));
        }
        let (kind, number, length, crc) = (header.get_u32(), header.get_u64(), header.get_u64(), header.get_u32());
        self.at += HEADER as u64;
        let payload = self.read(length)?;
        self.at += length;
        if crc32fast::hash(&payload) != crc {
            return Err(self.bad_at(began, "damaged"));
        }
        if number != self.frames {
            return Err(self.bad_at(began, "out of order"));
        }
        self.frames += 1;
        let kinds = [Kind::Start, Kind::Message, Kind::End];
        let kind = kinds.into_iter().find(|known| *known as u32 == kind);
        Ok((kind.ok_or_else(|| self.bad_at(began, "of a kind that is not known"))?, payload))
    }

    fn read(&self, length: u64) -> Result<Bytes> {
        if self.at.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(self.bad("the file is cut short"));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| self.bad("too large for this machine"))?];
        self.file.read_exact_at(&mut bytes, self.at).map_err(|error| named(&self.path, &error))?;
        Ok(bytes.into())
    }

    fn bad(&self, what: &str) -> Error {
        self.bad_at(self.at, what)
    }

    fn bad_at(&self, offset: u64, what: &str) -> Error {
        Error::File { path: self.path.clone(), offset, what: what.to_owned() }
    }
}

/// Reads a start of the first version. Its number is who wrote it, and when:
/// no machine exports twice within a millisecond.
fn first_start(payload: &[u8]) -> Option<Start> {
    let start: Start = decode(&[payload, &[0]].concat())?;
    let id = FileId::from(crc32fast::hash(start.from.as_bytes())) << 64 | FileId::from(start.at.as_millis());
    Some(Start { id, ..start })
}

/// Takes the payload of a message apart; none when it contradicts itself.
fn carried(payload: &Bytes, number: u64) -> Option<Carried> {
    let mut rest = payload.clone();
    let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    if length > rest.len() {
        return None;
    }
    let state = decode_state(&rest.split_to(length))?;
    let (record, content) = decode_message(&rest)?;
    let known = |waiting: &MovedRecipient| usize::from(waiting.recipient) < record.envelope.recipients.len();
    let mut recipients: Vec<u16> = state.waiting.iter().map(|waiting| waiting.recipient).collect();
    recipients.sort_unstable();
    let unique = recipients.windows(2).all(|pair| pair[0] != pair[1]);
    let whole = content.len() == record.size && !state.waiting.is_empty() && unique && state.waiting.iter().all(known);
    whole.then_some(Carried { number, record, state, body: rest })
}

/// The state of a message, and behind it what was said in the last attempts.
fn encode_state(state: &Moved) -> Result<Vec<u8>> {
    let mut encoded = encode(state)?;
    let last: Vec<_> = state.waiting.iter().filter_map(|waiting| waiting.last.as_ref()).collect();
    store_records(&last, &mut encoded);
    Ok(encoded)
}

/// Reads a state, also one of before there were records of attempts.
fn decode_state(encoded: &[u8]) -> Option<Moved> {
    let (mut state, records): (Moved, _) = postcard::take_from_bytes(encoded).ok()?;
    let known = state.waiting.iter().filter_map(|waiting| waiting.last.clone());
    let mut last: Vec<_> = known.collect();
    attach_records(&mut last, records);
    let places = state.waiting.iter_mut().filter_map(|waiting| waiting.last.as_mut());
    places.zip(last).for_each(|(place, last)| *place = last);
    Some(state)
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_allocvec(value).map_err(|_| Error::TooLarge("record"))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

fn named(path: &Path, error: &io::Error) -> Error {
    Error::Io(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
