//! The state directory: whose it is, that it is ours, and that nobody else uses it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use postrider_base::Random;
use postrider_mailauth::MacKey;
use serde::{Deserialize, Serialize};

/// The layout that this version reads and writes.
const FORMAT: u32 = 1;

const ROOMS: [&str; 5] = ["spool", "store", "journal", "keys", "audit"];

/// Marks a directory that is being filled.
const UNFINISHED: &str = "unfinished-restore";

/// An exclusively locked state directory; the lock ends with this value or the process.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    node: NodeFile,
    _lock: File,
}

/// A state directory that is being filled. Until that is done no daemon takes it.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    _lock: File,
}

/// `node.toml`: who wrote this directory.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    /// The layout of the directory.
    pub(crate) format: u32,
    /// The node's number, part of each message id.
    pub(crate) node: u16,
    /// Random, made with the directory: a copy can be told from its original.
    pub(crate) instance: String,
}

/// Who owns the directory of a state directory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl StateDir {
    /// Makes the directory if need be, locks it and reads its `node.toml`.
    pub(crate) fn open(path: &Path, node: u16, random: &Random) -> Result<StateDir> {
        Self::open_with(path, node, random, lock)
    }

    /// As [`StateDir::open`] for somebody who only reads: also where nothing can be written,
    /// as after an error of the disk.
    pub(crate) fn open_to_read(path: &Path, node: u16, random: &Random) -> Result<StateDir> {
        Self::open_with(path, node, random, |path| match lock(path) {
            Err(error) if is_read_only(&error) => lock_as_it_is(path),
            locked => locked,
        })
    }

    fn open_with(
        path: &Path,
        node: u16,
        random: &Random,
        lock: impl FnOnce(&Path) -> Result<File>,
    ) -> Result<StateDir> {
        let shown = path.display();
        if !path.exists() {
            make_private(path, true).with_context(|| format!("cannot make the state directory {shown}"))?;
        }
        let metadata = fs::metadata(path).with_context(|| format!("cannot read the state directory {shown}"))?;
        if !metadata.is_dir() {
            bail!("the state directory {shown} is not a directory");
        }
        let own = rustix::process::geteuid().as_raw();
        if metadata.uid() != own {
            bail!(
                "the state directory {shown} belongs to user {}, and this is user {own}: run as its owner",
                metadata.uid()
            );
        }
        refuse_foreign(path)?;
        let lock = lock(path)?;
        let node = read_or_make_node(path, node, random)?;
        for room in ROOMS {
            let room = path.join(room);
            if !room.exists() {
                make_private(&room, false).with_context(|| format!("cannot make {}", room.display()))?;
            }
        }
        Ok(StateDir { path: path.to_owned(), node, _lock: lock })
    }

    /// Takes a directory that has nothing yet, and makes it if need be.
    pub(crate) fn claim(path: &Path) -> Result<Claim> {
        let shown = path.display();
        if !path.exists() {
            make_private(path, true).with_context(|| format!("cannot make the state directory {shown}"))?;
        }
        let entries = fs::read_dir(path).with_context(|| format!("cannot list the state directory {shown}"))?;
        for entry in entries {
            let name = entry.with_context(|| format!("cannot list the state directory {shown}"))?.file_name();
            if name == "lock" {
                // Somebody may have it.
                lock(path)?;
            } else if name != "postrider.toml" {
                let held = name.to_string_lossy();
                bail!("the state directory {shown} holds {held}: what it has is not written over, empty it first");
            }
        }
        let lock = lock(path)?;
        write_private(&path.join(UNFINISHED), b"").with_context(|| format!("cannot write in {shown}"))?;
        Ok(Claim { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Who wrote it.
    pub(crate) fn node(&self) -> &NodeFile {
        &self.node
    }

    /// The secret by which the relay knows what it has written itself, made with the
    /// directory.
    pub(crate) fn mac_key(&self, random: &Random) -> Result<MacKey> {
        let file = self.room("keys").join("mac.key");
        let shown = file.display();
        match fs::read(&file) {
            Ok(secret) => {
                let secret = <[u8; MacKey::LENGTH]>::try_from(secret);
                let secret = secret.map_err(|_| anyhow!("{shown}: expected {} bytes", MacKey::LENGTH))?;
                Ok(MacKey::new(&secret))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; MacKey::LENGTH];
                random.fill(&mut secret);
                write_private(&file, &secret).with_context(|| format!("cannot write {shown}"))?;
                Ok(MacKey::new(&secret))
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {shown}")),
        }
    }

    /// One of its rooms.
    pub(crate) fn room(&self, name: &'static str) -> PathBuf {
        debug_assert!(ROOMS.contains(&name), "{name} is not in the layout");
        self.path.join(name)
    }
}

impl Claim {
    /// It has all that it should have: it may be opened.
    pub(crate) fn done(self) -> Result<()> {
        let file = self.path.join(UNFINISHED);
        fs::remove_file(&file)
            .and_then(|()| File::open(&self.path)?.sync_all())
            .with_context(|| format!("cannot remove {}", file.display()))
    }
}

/// Who owns the state directory, if it is there.
pub(crate) fn owner(path: &Path) -> Option<Owner> {
    fs::metadata(path).ok().map(|metadata| Owner { uid: metadata.uid(), gid: metadata.gid() })
}

fn make_private(path: &Path, parents: bool) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(parents).create(path)
}

/// A directory with somebody else's files is not taken over.
fn refuse_foreign(path: &Path) -> Result<()> {
    if path.join(UNFINISHED).exists() {
        bail!("a restore into {} was interrupted: empty the directory and restore again", path.display());
    }
    if path.join("node.toml").exists() {
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot list the state directory {}", path.display()))?;
    for entry in entries {
        let name = entry.with_context(|| format!("cannot list the state directory {}", path.display()))?.file_name();
        let ours = ROOMS.iter().any(|room| name == *room) || name == "lock" || name == "postrider.toml";
        if !ours {
            bail!(
                "{} is not a postrider state directory: it has no node.toml, but holds {}",
                path.display(),
                name.to_string_lossy(),
            );
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let path = path.join("lock");
    let shown = path.display();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write the state directory: {shown}"))?;
    have(&mut file, &path)?;
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {shown}"))?;
    Ok(file)
}

/// Locks where nothing can be written. Who finds it locked is not told by whom.
fn lock_as_it_is(path: &Path) -> Result<File> {
    let path = path.join("lock");
    let mut file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    have(&mut file, &path)?;
    Ok(file)
}

/// Locks the file, unless somebody has it.
fn have(file: &mut File, path: &Path) -> Result<()> {
    let shown = path.display();
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim();
            let pid = if pid.is_empty() { "unknown" } else { pid };
            bail!("the state directory is in use by process {pid} ({shown} is locked)");
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {shown}")),
    }
}

fn is_read_only(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::ReadOnlyFilesystem)
}

fn read_or_make_node(path: &Path, number: u16, random: &Random) -> Result<NodeFile> {
    let file = path.join("node.toml");
    let shown = file.display();
    match fs::read_to_string(&file) {
        Ok(text) => {
            let node: NodeFile =
                toml::from_str(&text).with_context(|| format!("{shown} is not a postrider node file"))?;
            if node.format != FORMAT {
                bail!(
                    "{shown}: format {} of the state directory is not format {FORMAT}, which this version reads",
                    node.format
                );
            }
            if node.node != number {
                bail!(
                    "{shown}: the state directory belongs to node {:04x}, and the configuration says server.node = \"{number:04x}\"",
                    node.node,
                );
            }
            Ok(node)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let node = NodeFile { format: FORMAT, node: number, instance: format!("{:032x}", random.uuid_v4()) };
            write_private(&file, toml::to_string(&node)?.as_bytes())
                .with_context(|| format!("cannot write {shown}"))?;
            Ok(node)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {shown}")),
    }
}

/// Written aside and renamed: a crash leaves the whole file or none.
fn write_private(file: &Path, content: &[u8]) -> Result<()> {
    let aside = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&aside, file)?;
    if let Some(parent) = file.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: u16 = 0x0100;

    fn open(path: &Path) -> Result<StateDir> {
        StateDir::open(path, NODE, &Random::seeded(1))
    }

    fn refusal(path: &Path) -> String {
        format!("{:#}", open(path).unwrap_err())
    }

    #[test]
    fn a_new_directory_is_private_and_keeps_its_instance() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = open(&path).unwrap();
        let instance = first.node().instance.clone();
        for room in ROOMS {
            assert_eq!(fs::metadata(first.room(room)).unwrap().mode() & 0o777, 0o700);
        }
        drop(first);
        let second = StateDir::open(&path, NODE, &Random::seeded(2)).unwrap();
        assert_eq!(second.node().instance, instance);
    }

    #[test]
    fn the_secret_is_private_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(&dir.path().join("state")).unwrap();
        let tag = |seed| state.mac_key(&Random::seeded(seed)).map(|key| key.tag("test", b"data"));
        assert_eq!(tag(1).unwrap(), tag(2).unwrap());
        let file = state.room("keys").join("mac.key");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::write(&file, "short").unwrap();
        assert!(tag(1).unwrap_err().to_string().contains("expected 32 bytes"));
    }

    #[test]
    fn a_second_user_of_the_directory_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let _held = open(&path).unwrap();
        let refusal = refusal(&path);
        assert!(refusal.contains(&format!("in use by process {}", std::process::id())), "{refusal}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_locked_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(lock_as_it_is(&path).unwrap_err().to_string().contains("cannot read"));
        let held = open(&path).unwrap();
        assert!(lock_as_it_is(&path).unwrap_err().to_string().contains("in use by process"));
        drop(held);
        let held = lock_as_it_is(&path).unwrap();
        assert!(refusal(&path).contains("in use by process"));
        drop(held);
        drop(StateDir::open_to_read(&path, NODE, &Random::seeded(1)).unwrap());
        let read_only = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        assert!(is_read_only(&anyhow::Error::new(read_only).context("cannot write")));
        assert!(!is_read_only(&anyhow!("another")));
    }

    #[test]
    fn foreign_and_future_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
        assert!(refusal(dir.path()).contains("holds holiday.jpg"));

        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("node.toml"), "format = 9\nnode = 256\ninstance = \"x\"\n").unwrap();
        assert!(refusal(dir.path()).contains("format 9"));

        fs::write(dir.path().join("node.toml"), "hello").unwrap();
        assert!(refusal(dir.path()).contains("not a postrider node file"));
    }

    #[test]
    fn another_nodes_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        drop(StateDir::open(&path, 0x0200, &Random::seeded(1)).unwrap());
        assert!(refusal(&path).contains("belongs to node 0200"));
    }

    #[test]
    fn a_directory_is_filled_once_and_not_opened_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let claim = StateDir::claim(&path).unwrap();
        assert!(refusal(&path).contains("was interrupted"));
        fs::create_dir(path.join("store")).unwrap();
        claim.done().unwrap();
        drop(open(&path).unwrap());
        let error = StateDir::claim(&path).unwrap_err().to_string();
        assert!(error.contains("is not written over"), "{error}");
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(refusal(file.path()).contains("is not a directory"));
    }
}
