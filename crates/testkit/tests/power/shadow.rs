//! A directory as a disk may have it: what is there for sure, and what was
//! asked for since and may be there, missing or torn.
//!
//! A file's bytes are sure once the file was synced, a name once its
//! directory was; neither implies the other, and nothing keeps an order. That
//! is less than any journalling file system promises.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use postrider_base::Random;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A file or directory. It keeps its number under any name.
pub(crate) type Node = usize;

const ROOT: Node = 0;

#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    nodes: Vec<Kind>,
}

#[derive(Clone, Debug)]
enum Kind {
    File(Content),
    Directory(Names),
}

#[derive(Clone, Debug, Default)]
struct Content {
    sure: Vec<u8>,
    /// In the order in which they began.
    unsynced: Vec<Unsynced>,
}

#[derive(Clone, Debug)]
struct Unsynced {
    began: usize,
    /// A sync that begins later makes it sure.
    ended: Option<usize>,
    change: Change,
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Bytes { offset: u64, bytes: Arc<[u8]> },
    Zeros { offset: u64, length: u64, extends: bool },
    Length(u64),
}

#[derive(Clone, Debug, Default)]
struct Names {
    now: BTreeMap<OsString, Node>,
    sure: BTreeMap<OsString, Node>,
    unsynced: Vec<Edit>,
}

/// A name that stands for something else, or for nothing, since a moment.
/// What has the same moment happens as one.
#[derive(Clone, Debug)]
struct Edit {
    at: usize,
    name: OsString,
    node: Option<Node>,
}

/// What is left of that which is not sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Nothing,
    Everything,
    /// Each change with this chance in a hundred; of the others some are torn.
    Some(u64),
}

enum Fate {
    Kept,
    Lost,
    Torn,
}

impl Shadow {
    /// A directory that is on the disk as it is.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let mut shadow = Self { nodes: vec![Kind::Directory(Names::default())] };
        shadow.read(ROOT, directory)?;
        Ok(shadow)
    }

    fn read(&mut self, node: Node, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let child = self.nodes.len();
            if entry.file_type()?.is_dir() {
                self.nodes.push(Kind::Directory(Names::default()));
                self.read(child, &entry.path())?;
            } else {
                let sure = fs::read(entry.path())?;
                self.nodes.push(Kind::File(Content { sure, unsynced: Vec::new() }));
            }
            let names = self.names(node).ok_or(io::ErrorKind::NotADirectory)?;
            names.now.insert(entry.file_name(), child);
            names.sure.insert(entry.file_name(), child);
        }
        Ok(())
    }

    /// What has this name now; the path is relative to the directory.
    pub(crate) fn find(&self, path: &Path) -> Option<Node> {
        path.components().try_fold(ROOT, |node, component| match (component, &self.nodes[node]) {
            (Component::Normal(name), Kind::Directory(names)) => names.now.get(name).copied(),
            (Component::CurDir, _) => Some(node),
            _ => None,
        })
    }

    /// A new file.
    pub(crate) fn create(&mut self, path: &Path, at: usize) -> Option<Node> {
        self.make(path, Kind::File(Content::default()), at)
    }

    /// A new directory.
    pub(crate) fn make_directory(&mut self, path: &Path, at: usize) -> Option<Node> {
        self.make(path, Kind::Directory(Names::default()), at)
    }

    fn make(&mut self, path: &Path, kind: Kind, at: usize) -> Option<Node> {
        self.nodes.push(kind);
        let node = self.nodes.len() - 1;
        self.edit(path, Some(node), at)?;
        Some(node)
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path, at: usize) -> Option<()> {
        let node = self.find(from)?;
        self.edit(to, Some(node), at)?;
        self.edit(from, None, at)
    }

    pub(crate) fn remove(&mut self, path: &Path, at: usize) -> Option<()> {
        self.edit(path, None, at)
    }

    fn edit(&mut self, path: &Path, node: Option<Node>, at: usize) -> Option<()> {
        let name = path.file_name()?.to_owned();
        let parent = self.find(path.parent()?)?;
        let names = self.names(parent)?;
        match node {
            Some(node) => names.now.insert(name.clone(), node),
            None => names.now.remove(&name),
        };
        names.unsynced.push(Edit { at, name, node });
        Some(())
    }

    /// A change of bytes begins: from now on some of it may be on the disk.
    pub(crate) fn begin(&mut self, node: Node, change: Change, at: usize) {
        if let Kind::File(content) = &mut self.nodes[node] {
            content.unsynced.push(Unsynced { began: at, ended: None, change });
        }
    }

    /// The change that began then has ended; it took so many bytes.
    pub(crate) fn end(&mut self, node: Node, began: usize, length: Option<usize>, at: usize) {
        let Kind::File(content) = &mut self.nodes[node] else { return };
        let Some(place) = content.unsynced.iter().position(|unsynced| unsynced.began == began) else { return };
        let unsynced = &mut content.unsynced[place];
        unsynced.ended = Some(at);
        match (length, &mut unsynced.change) {
            (None, _) => drop(content.unsynced.remove(place)),
            (Some(length), Change::Bytes { bytes, .. }) if length < bytes.len() => *bytes = bytes[..length].into(),
            _ => {}
        }
    }

    /// A sync that began then has succeeded.
    pub(crate) fn sync(&mut self, node: Node, began: usize) {
        match &mut self.nodes[node] {
            Kind::File(Content { sure, unsynced }) => {
                let done = |unsynced: &mut Unsynced| unsynced.ended.is_some_and(|ended| ended < began);
                unsynced.extract_if(.., done).for_each(|unsynced| unsynced.change.apply(sure, |_| true));
            }
            Kind::Directory(Names { sure, unsynced, .. }) => {
                unsynced.extract_if(.., |edit| edit.at < began).for_each(|edit| edit.apply(sure));
            }
        }
    }

    /// Makes the directory as it may be after a cut.
    pub(crate) fn restore(&self, target: &Path, manner: Manner, random: &Random) -> io::Result<()> {
        // A rename within two directories is one change.
        let edits = self.nodes.iter().filter_map(|kind| match kind {
            Kind::Directory(names) => Some(names.unsynced.iter().map(|edit| edit.at)),
            Kind::File(_) => None,
        });
        let edits: BTreeSet<usize> = edits.flatten().collect();
        let kept = edits.into_iter().filter(|_| matches!(manner.fate(random), Fate::Kept)).collect();
        self.write(ROOT, target, manner, random, &kept)
    }

    fn write(
        &self,
        node: Node,
        target: &Path,
        manner: Manner,
        random: &Random,
        kept: &BTreeSet<usize>,
    ) -> io::Result<()> {
        match &self.nodes[node] {
            Kind::File(content) => fs::write(target, content.after_cut(manner, random)),
            Kind::Directory(names) => {
                fs::create_dir(target)?;
                let mut sure = names.sure.clone();
                let edits = names.unsynced.iter().filter(|edit| kept.contains(&edit.at));
                edits.for_each(|edit| edit.clone().apply(&mut sure));
                for (name, node) in sure {
                    self.write(node, &target.join(name), manner, random, kept)?;
                }
                Ok(())
            }
        }
    }

    fn names(&mut self, node: Node) -> Option<&mut Names> {
        match &mut self.nodes[node] {
            Kind::Directory(names) => Some(names),
            Kind::File(_) => None,
        }
    }
}

impl Content {
    /// Of one sector that was written twice, the disk has the bytes of before,
    /// of between or of after: with any of the writes lost or torn, all three
    /// come up, so the writes keep their order here.
    fn after_cut(&self, manner: Manner, random: &Random) -> Vec<u8> {
        let mut bytes = self.sure.clone();
        for Unsynced { change, .. } in &self.unsynced {
            match manner.fate(random) {
                Fate::Kept => change.apply(&mut bytes, |_| true),
                Fate::Torn => change.apply(&mut bytes, |_| random.below(2) == 0),
                Fate::Lost => {}
            }
        }
        bytes
    }
}

impl Change {
    /// Applies it to those sectors that `keep` wants, by their number.
    fn apply(&self, file: &mut Vec<u8>, keep: impl Fn(usize) -> bool) {
        let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        match self {
            Self::Bytes { offset, bytes } => {
                let start = place(*offset);
                file.resize(file.len().max(start + bytes.len()), 0);
                for (_, part) in sectors(start, bytes.len()).filter(|(sector, _)| keep(*sector)) {
                    file[part.clone()].copy_from_slice(&bytes[part.start - start..part.end - start]);
                }
            }
            Self::Zeros { offset, length, extends } => {
                let (start, end) = (place(*offset), place(offset + length));
                if *extends {
                    file.resize(file.len().max(end), 0);
                    return;
                }
                let end = end.min(file.len());
                sectors(start, end.saturating_sub(start))
                    .filter(|(sector, _)| keep(*sector))
                    .for_each(|(_, part)| file[part].fill(0));
            }
            Self::Length(length) => file.resize(place(*length), 0),
        }
    }
}

/// The sectors that a stretch touches, and its part in each.
fn sectors(start: usize, length: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let end = start + length;
    (start / SECTOR..end.div_ceil(SECTOR))
        .map(move |sector| (sector, start.max(sector * SECTOR)..end.min((sector + 1) * SECTOR)))
}

impl Edit {
    fn apply(self, names: &mut BTreeMap<OsString, Node>) {
        match self.node {
            Some(node) => names.insert(self.name, node),
            None => names.remove(&self.name),
        };
    }
}

impl Manner {
    fn fate(self, random: &Random) -> Fate {
        match self {
            Self::Nothing => Fate::Lost,
            Self::Everything => Fate::Kept,
            Self::Some(chance) if random.below(100) < chance => Fate::Kept,
            Self::Some(_) if random.below(2) == 0 => Fate::Torn,
            Self::Some(_) => Fate::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(shadow: &Shadow, manner: Manner) -> BTreeMap<OsString, Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("after");
        shadow.restore(&target, manner, &Random::seeded(1)).unwrap();
        let files = fs::read_dir(target).unwrap().map(|entry| entry.unwrap());
        files.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
    }

    fn empty() -> Shadow {
        Shadow::of(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn bytes(offset: u64, bytes: &[u8]) -> Change {
        Change::Bytes { offset, bytes: bytes.into() }
    }

    #[test]
    fn bytes_and_names_are_sure_once_each_is_synced() {
        let mut shadow = empty();
        let file = shadow.create(Path::new("a"), 1).unwrap();
        shadow.begin(file, bytes(0, b"one"), 2);
        shadow.end(file, 2, Some(3), 3);
        shadow.sync(file, 4);
        assert!(restored(&shadow, Manner::Nothing).is_empty());
        shadow.sync(ROOT, 5);
        shadow.begin(file, bytes(3, b"two"), 6);
        shadow.sync(file, 7);
        assert_eq!(restored(&shadow, Manner::Nothing), BTreeMap::from([("a".into(), b"one".to_vec())]));
        assert_eq!(restored(&shadow, Manner::Everything), BTreeMap::from([("a".into(), b"onetwo".to_vec())]));
    }

    #[test]
    fn a_write_that_ends_within_a_sync_is_not_sure() {
        let mut shadow = empty();
        let file = shadow.create(Path::new("a"), 1).unwrap();
        shadow.sync(ROOT, 2);
        shadow.begin(file, bytes(0, b"x"), 3);
        shadow.end(file, 3, Some(1), 5);
        shadow.sync(file, 4);
        assert_eq!(restored(&shadow, Manner::Nothing)[&OsString::from("a")], b"");
    }

    #[test]
    fn a_rename_is_there_whole_or_not_at_all() {
        let mut shadow = empty();
        let file = shadow.create(Path::new("a"), 1).unwrap();
        shadow.sync(ROOT, 2);
        shadow.rename(Path::new("a"), Path::new("b"), 3).unwrap();
        assert_eq!(shadow.find(Path::new("b")), Some(file));
        for chance in 0..20 {
            let names: Vec<_> = restored(&shadow, Manner::Some(chance * 5)).into_keys().collect();
            assert!(names == ["a"] || names == ["b"], "{names:?}");
        }
        assert!(restored(&shadow, Manner::Everything).contains_key(&OsString::from("b")));
    }

    #[test]
    fn a_torn_write_has_whole_sectors() {
        let change = bytes(500, &[1; 1100]);
        let mut file = vec![0; 2048];
        change.apply(&mut file, |sector| sector == 1);
        assert!(file[..512].iter().chain(&file[1024..]).all(|byte| *byte == 0));
        assert!(file[512..1024].iter().all(|byte| *byte == 1));
        Change::Zeros { offset: 600, length: 10, extends: false }.apply(&mut file, |_| true);
        assert_eq!(file[599..611], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..12]);
    }
}
