//! The files of the audit log: the one that grows, and those before it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_base::{Disk, DiskFile, OpenMode};

use crate::Settings;

/// The file that grows.
const CURRENT: &str = "audit.jsonl";
/// Those before it have a number between these, which grows.
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";

/// How much is looked at from the end of a file at a time.
const STEP: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// What is written to; none after a rotation that has got half way.
    file: Option<Arc<dyn DiskFile>>,
    /// Of `file`, as far as records are whole and synced.
    length: u64,
    /// There may be more behind `length`, of a record that could not be written.
    torn: bool,
    max_bytes: u64,
    max_files: usize,
}

/// A file of the log, as far as it was written when it was opened. A rotation meanwhile
/// neither renames nor cuts it.
#[derive(Debug)]
pub struct AuditFile {
    /// Its name in the log's directory.
    pub name: String,
    /// What to read.
    pub file: Arc<dyn DiskFile>,
    /// How much of it: whole records.
    pub length: u64,
}

impl Files {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, settings: &Settings) -> io::Result<Self> {
        disk.create_dir_all(dir)?;
        let mut files = Self {
            disk,
            dir: dir.to_owned(),
            file: None,
            length: 0,
            torn: false,
            max_bytes: settings.audit_file_size.bytes(),
            max_files: settings.audit_files as usize,
        };
        files.begin()?;
        Ok(files)
    }

    /// Writes whole lines and syncs them: all of them are in the log then, or none.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length + lines.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.begin()?,
        };
        if self.torn {
            file.set_len(self.length)?;
        }
        // Until it is known to be on the disk, it may be there in part.
        self.torn = true;
        file.write_all_at(lines, self.length)?;
        file.sync_data()?;
        self.torn = false;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// All files, the oldest first.
    pub(super) fn open_all(&self) -> io::Result<Vec<AuditFile>> {
        let mut all = Vec::new();
        for (number, path) in self.rotated()? {
            let file = self.disk.open(&path, OpenMode::Read)?;
            all.push(AuditFile { name: aside(number), length: file.len()?, file });
        }
        let current = |file| AuditFile { name: CURRENT.to_owned(), file, length: self.length };
        all.extend(self.file.clone().map(current));
        Ok(all)
    }

    /// Opens the file that grows, and makes it if need be.
    fn begin(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(CURRENT);
        let file = if self.disk.exists(&path) {
            self.disk.open(&path, OpenMode::ReadWrite)?
        } else {
            let file = self.disk.open(&path, OpenMode::CreateNew)?;
            self.disk.sync_dir(&self.dir)?;
            file
        };
        self.length = whole_lines(&*file)?;
        self.torn = self.length < file.len()?;
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Puts the file that grows aside, and takes the oldest away.
    fn rotate(&mut self) -> io::Result<()> {
        if let (Some(file), true) = (&self.file, self.torn) {
            file.set_len(self.length)?;
            file.sync_all()?;
            self.torn = false;
        }
        let rotated = self.rotated()?;
        let next = rotated.last().map_or(1, |(number, _)| number + 1);
        self.disk.rename(&self.dir.join(CURRENT), &self.dir.join(aside(next)))?;
        (self.file, self.length) = (None, 0);
        // With the one that is about to begin there are as many as there may be.
        let too_many = (rotated.len() + 2).saturating_sub(self.max_files);
        for (_, path) in rotated.into_iter().take(too_many) {
            self.disk.remove_file(&path)?;
        }
        self.disk.sync_dir(&self.dir)
    }

    /// The files before the one that grows, the oldest first.
    fn rotated(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let numbered = |path: PathBuf| {
            let number = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()?;
            Some((number, path))
        };
        let mut all: Vec<(u64, PathBuf)> = self.disk.read_dir(&self.dir)?.into_iter().filter_map(numbered).collect();
        all.sort();
        Ok(all)
    }
}

/// The name of a file before the one that grows.
fn aside(number: u64) -> String {
    format!("{PREFIX}{number:06}{SUFFIX}")
}

impl AuditFile {
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Where the last whole line of a file ends.
fn whole_lines(file: &dyn DiskFile) -> io::Result<u64> {
    let mut end = file.len()?;
    let mut bytes = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        bytes.resize(usize::try_from(end - start).unwrap_or(0), 0);
        file.read_exact_at(&mut bytes, start)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
