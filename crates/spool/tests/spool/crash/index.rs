//! What becomes of the directory of the index between two lives.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::steps::IndexFate;

/// The directory's earlier states.
#[derive(Default)]
pub(super) struct Indexes {
    copy: Option<TempDir>,
}

impl Indexes {
    /// Nobody has the index open; none when it is in memory.
    pub(super) fn meet(&mut self, fate: IndexFate, dir: Option<&Path>) {
        let Some(dir) = dir else { return };
        if dir.is_file() {
            fs::remove_file(dir).unwrap();
            fs::create_dir(dir).unwrap();
        }
        match fate {
            IndexFate::Kept => {}
            IndexFate::Copied => {
                let copy = TempDir::new().unwrap();
                copy_all(dir, copy.path());
                self.copy = Some(copy);
            }
            IndexFate::Older => {
                if let Some(copy) = &self.copy {
                    fs::remove_dir_all(dir).unwrap();
                    copy_all(copy.path(), dir);
                }
            }
            IndexFate::Lost => fs::remove_dir_all(dir).unwrap(),
            IndexFate::Damaged(step) => damage(dir, step),
            IndexFate::Cut => {
                for path in files(dir) {
                    let bytes = fs::read(&path).unwrap();
                    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                }
            }
            IndexFate::Blocked => {
                fs::remove_dir_all(dir).unwrap();
                fs::write(dir, "no directory").unwrap();
            }
        }
    }

    /// While it is in use.
    pub(super) fn hurt(&self, step: usize, dir: Option<&Path>) {
        if let Some(dir) = dir {
            damage(dir, step);
        }
    }
}

fn damage(dir: &Path, step: usize) {
    for path in files(dir) {
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().skip(step).step_by(step).for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, bytes).unwrap();
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in files(from) {
        let copy = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&path, copy).unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}
