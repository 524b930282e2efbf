//! The names of a simulated disk and the changes to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::Content;

pub(super) type Names = BTreeMap<PathBuf, Arc<Mutex<Content>>>;

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Add(PathBuf, Arc<Mutex<Content>>),
    Move(PathBuf, PathBuf, Arc<Mutex<Content>>),
    Remove(PathBuf),
}

impl NameChange {
    pub(super) fn apply(self, names: &mut Names) {
        match self {
            Self::Add(path, content) => {
                names.insert(path, content);
            }
            Self::Move(from, to, content) => {
                names.remove(&from);
                names.insert(to, content);
            }
            Self::Remove(path) => {
                names.remove(&path);
            }
        }
    }

    pub(super) fn touches(&self, directory: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) => parent(path) == directory,
            Self::Move(from, to, _) => parent(from) == directory || parent(to) == directory,
        }
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
