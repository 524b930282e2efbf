//! Copies on the disk: a directory of files, or one tar file.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use postrider_base::{Disk, DiskFile, OpenMode};

use super::manifest::{Sum, check_name};
use super::{BackupItem, CHUNK, Manifest, tar};
use crate::Error;

/// What a copy has behind its name until it is whole.
const PARTIAL: &str = "partial";

/// Writes a copy from what a daemon sends. Dropped before that is whole, it leaves no file,
/// which would have keys in it.
pub struct ArchiveWriter {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    partial: PathBuf,
    /// The one file of a tar.
    tar: Option<Tar>,
    /// What is being written.
    open: Option<Open>,
    written: Vec<super::FileSum>,
    /// Directories that have got names.
    dirs: BTreeSet<PathBuf>,
    /// The files that were made and have no name of their own yet.
    made: Vec<PathBuf>,
}

struct Tar {
    file: Arc<dyn DiskFile>,
    /// Where the next file begins.
    end: u64,
}

struct Open {
    name: String,
    file: Arc<dyn DiskFile>,
    /// Where its bytes begin in `file`.
    start: u64,
    length: u64,
    sum: Sum,
}

impl ArchiveWriter {
    /// Begins a copy at `path`, where nothing may be, except an empty directory. By its name
    /// it becomes a tar file or a directory.
    ///
    /// # Errors
    /// [`Error::Invalid`] when something is there; [`Error::Failed`].
    pub fn create(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{PARTIAL}"));
        let partial = PathBuf::from(partial);
        let is_tar = path.extension().is_some_and(|extension| extension == "tar");
        let is_taken = disk.exists(path) && (is_tar || disk.read_dir(path).map_or(true, |entries| !entries.is_empty()));
        if is_taken {
            return Err(Error::Invalid(format!("{} is there already, and nothing is written over", path.display())));
        }
        if disk.exists(&partial) && has_files(&*disk, &partial) {
            let left = partial.display();
            return Err(Error::Invalid(format!("{left} is there: remove what an interrupted backup has left")));
        }
        let mut writer = Self {
            disk,
            path: path.to_owned(),
            partial,
            tar: None,
            open: None,
            written: Vec::new(),
            dirs: BTreeSet::new(),
            made: Vec::new(),
        };
        if is_tar {
            let file = writer.make(writer.partial.clone())?;
            writer.tar = Some(Tar { file, end: 0 });
        } else {
            let partial = &writer.partial;
            writer.disk.create_dir_all(partial).map_err(|error| failed(partial, &error))?;
        }
        Ok(writer)
    }

    /// Takes what comes next; gives the copy when it is whole, written, synced, and read back
    /// to verify it.
    ///
    /// # Errors
    /// [`Error::Protocol`] for what does not add up; [`Error::Failed`].
    pub fn take(&mut self, item: BackupItem) -> Result<Option<Manifest>, Error> {
        let garbled = |what: &str| Error::Protocol(what.to_owned());
        match item {
            BackupItem::File { name } => {
                check_name(&name)?;
                self.begin(&name)?;
            }
            BackupItem::Data(text) => {
                let data = STANDARD.decode(text).map_err(|_| garbled("a part of a file is not base64"))?;
                self.write(&data)?;
            }
            BackupItem::End(sum) => {
                if self.end()? != sum {
                    return Err(garbled("a file has another checksum than it was sent with"));
                }
                self.written.push(sum);
            }
            BackupItem::Whole(manifest) => return self.finish(manifest).map(Some),
        }
        Ok(None)
    }

    fn begin(&mut self, name: &str) -> Result<(), Error> {
        let (file, start) = match &self.tar {
            Some(tar) => (Arc::clone(&tar.file), tar.end + tar::BLOCK),
            None => {
                let path = self.partial.join(name);
                let parent = path.parent().unwrap_or(&self.partial);
                self.disk.create_dir_all(parent).map_err(|error| failed(parent, &error))?;
                self.dirs.extend([parent.to_owned(), self.partial.clone()]);
                (self.make(path)?, 0)
            }
        };
        self.open = Some(Open { name: name.to_owned(), file, start, length: 0, sum: Sum::new() });
        Ok(())
    }

    fn make(&mut self, path: PathBuf) -> Result<Arc<dyn DiskFile>, Error> {
        let file = self.disk.open(&path, OpenMode::CreateNew).map_err(|error| failed(&path, &error))?;
        self.made.push(path);
        Ok(file)
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        let open = self.open.as_mut().ok_or_else(|| Error::Protocol("bytes of no file".to_owned()))?;
        open.sum.update(data);
        let written = open.file.write_all_at(data, open.start + open.length);
        open.length += data.len() as u64;
        written.map_err(|error| failed(&self.partial, &error))
    }

    fn end(&mut self) -> Result<super::FileSum, Error> {
        let open = self.open.take().ok_or_else(|| Error::Protocol("the end of no file".to_owned()))?;
        let finish = |tar: &mut Option<Tar>| -> io::Result<()> {
            let Some(tar) = tar else { return open.file.sync_all() };
            tar.end = open.start + open.length + tar::padding(open.length);
            tar.file.set_len(tar.end)
        };
        finish(&mut self.tar).map_err(|error| failed(&self.partial, &error))?;
        if self.tar.is_some() {
            let header = tar::header(&open.name, open.length, 0)?;
            let written = open.file.write_all_at(&header, open.start - tar::BLOCK);
            written.map_err(|error| failed(&self.partial, &error))?;
        }
        Ok(open.sum.of(&open.name))
    }

    fn finish(&mut self, manifest: Manifest) -> Result<Manifest, Error> {
        let manifest = Manifest { files: std::mem::take(&mut self.written), ..manifest };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Error::Failed(error.to_string()))?;
        self.begin(Manifest::NAME)?;
        self.write(&text)?;
        self.end()?;
        self.sync().map_err(|error| failed(&self.partial, &error))?;
        Archive::open(&*self.disk, &self.partial)?.verify()?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = self.disk.rename(&self.partial, &self.path).and_then(|()| self.disk.sync_dir(parent));
        named.map_err(|error| failed(&self.path, &error))?;
        self.made.clear();
        Ok(manifest)
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(tar) = &self.tar {
            // Two empty blocks are the end.
            tar.file.set_len(tar.end + 2 * tar::BLOCK)?;
            return tar.file.sync_all();
        }
        self.dirs.iter().try_for_each(|dir| self.disk.sync_dir(dir))
    }
}

impl Drop for ArchiveWriter {
    fn drop(&mut self) {
        for path in &self.made {
            // One that stays is in the way of the next copy, which says so.
            let _ = self.disk.remove_file(path);
        }
    }
}

/// Whether it is a file, or has one somewhere in it. What cannot be listed counts as one.
fn has_files(disk: &dyn Disk, path: &Path) -> bool {
    disk.read_dir(path).map_or(true, |entries| entries.iter().any(|entry| has_files(disk, entry)))
}

/// A copy that is there, to be read.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    manifest: Manifest,
    files: HashMap<String, Place>,
}

/// Where a file's bytes are.
#[derive(Clone, Debug)]
struct Place {
    file: Arc<dyn DiskFile>,
    start: u64,
    length: u64,
}

impl Archive {
    /// The copy at a path, a directory or a tar file. Only its manifest is read.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] when it is no whole copy, [`Error::Failed`].
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, Error> {
        if !disk.exists(path) {
            return Err(Error::NotFound(format!("there is no {}", path.display())));
        }
        let no_manifest = || {
            let (path, name) = (path.display(), Manifest::NAME);
            Error::Invalid(format!("{path} has no {name}: no backup, or not a whole one"))
        };
        let is_tar = disk.read_dir(path).is_err();
        let mut files = if is_tar { tar_files(disk, path)? } else { HashMap::new() };
        if !is_tar {
            let place = file_at(disk, &path.join(Manifest::NAME)).map_err(|_| no_manifest())?;
            files.insert(Manifest::NAME.to_owned(), place);
        }
        let place = files.get(Manifest::NAME).ok_or_else(no_manifest)?;
        let text = Reading { path, place, at: 0 }.take(usize::try_from(place.length).unwrap_or(usize::MAX))?;
        let manifest = Manifest::parse(&text)?;
        if !is_tar {
            for sum in &manifest.files {
                let at = path.join(&sum.name);
                files.insert(sum.name.clone(), file_at(disk, &at).map_err(|error| failed(&at, &error))?);
            }
        }
        Ok(Self { path: path.to_owned(), manifest, files })
    }

    /// Whose it is, and what is in it.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads all of it and compares the checksums.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the file that is not as it was written; [`Error::Failed`].
    pub fn verify(&self) -> Result<(), Error> {
        for known in &self.manifest.files {
            let mut sum = Sum::new();
            self.read(&known.name)?.each(&mut |chunk| {
                sum.update(chunk);
                Ok(())
            })?;
            if sum.of(&known.name) != *known {
                let (path, name) = (self.path.display(), &known.name);
                return Err(Error::Invalid(format!("{path}: {name} is damaged: it has another checksum")));
            }
        }
        Ok(())
    }

    /// One file, from its beginning.
    pub(super) fn read<'a>(&'a self, name: &str) -> Result<Reading<'a>, Error> {
        let absent = || Error::Invalid(format!("{}: {name} is not in it", self.path.display()));
        let place = self.files.get(name).ok_or_else(absent)?;
        Ok(Reading { path: &self.path, place, at: 0 })
    }
}

/// A file of a copy, as far as it was read.
pub(super) struct Reading<'a> {
    path: &'a Path,
    place: &'a Place,
    at: u64,
}

impl Reading<'_> {
    /// The next bytes, all of them.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<u8>, Error> {
        if count as u64 > self.place.length - self.at {
            return Err(Error::Invalid(format!("{}: a file ends too early", self.path.display())));
        }
        let mut bytes = vec![0; count];
        let read = self.place.file.read_exact_at(&mut bytes, self.place.start + self.at);
        read.map_err(|error| failed(self.path, &error))?;
        self.at += count as u64;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| Error::Failed("a read of another length".to_owned()))
    }

    /// The rest of it, piece by piece.
    pub(super) fn each(mut self, each: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        while self.at < self.place.length {
            let left = usize::try_from(self.place.length - self.at).unwrap_or(CHUNK);
            each(&self.take(left.min(CHUNK))?)?;
        }
        Ok(())
    }
}

fn file_at(disk: &dyn Disk, path: &Path) -> io::Result<Place> {
    let file = disk.open(path, OpenMode::Read)?;
    Ok(Place { start: 0, length: file.len()?, file })
}

/// The files of a tar file, by their names.
fn tar_files(disk: &dyn Disk, path: &Path) -> Result<HashMap<String, Place>, Error> {
    let whole = file_at(disk, path).map_err(|error| failed(path, &error))?;
    let mut reading = Reading { path, place: &whole, at: 0 };
    let mut files = HashMap::new();
    while reading.at < whole.length {
        let Some((name, length)) = tar::parse(&reading.take(tar::HEADER)?)? else { break };
        let start = reading.at;
        let end = start.saturating_add(length).saturating_add(tar::padding(length % tar::BLOCK));
        if end > whole.length {
            return Err(Error::Invalid(format!("{}: it ends in the middle of {name}", path.display())));
        }
        files.insert(name, Place { file: Arc::clone(&whole.file), start, length });
        reading.at = end;
    }
    Ok(files)
}

pub(super) fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Failed(format!("{}: {error}", path.display()))
}
