//! Which node a spool belongs to: what a copy of it holds, its original may have sent.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use postrider_base::{Disk, OpenMode};
use tracing::warn;

/// The file in the spool's directory that names the instance of the node that it belongs to.
const FILE: &str = "instance";
/// What it is written as before it gets its name.
const ASIDE: &str = "instance-new";
/// More than an instance has.
const LONGEST: usize = 64;

/// Whether the spool in a directory belongs to this node, and what to do about it.
#[derive(Debug)]
pub(crate) struct Home<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    instance: &'a str,
    /// What the file says; none when there is no file.
    found: Option<String>,
}

impl<'a> Home<'a> {
    /// Looks whose spool it is. One that does not say so is new, or of a version that did not.
    pub(crate) fn of(disk: &'a dyn Disk, dir: &'a Path, instance: &'a str) -> Result<Home<'a>> {
        let found = read(disk, &dir.join(FILE)).with_context(|| format!("cannot read {}/{FILE}", dir.display()))?;
        Ok(Home { disk, dir, instance, found })
    }

    /// Whether the spool was restored, or copied from another node: it is to be opened held.
    pub(crate) fn is_foreign(&self) -> bool {
        self.found.as_deref().is_some_and(|found| found != self.instance)
    }

    /// Makes the spool this node's. Must follow its opening: a foreign spool remembers by then
    /// that it is held.
    pub(crate) fn settle(self) -> Result<()> {
        if self.found.as_deref() == Some(self.instance) {
            return Ok(());
        }
        if let Some(found) = &self.found {
            warn!(
                belonged_to = found,
                instance = self.instance,
                "the spool in {} was restored or copied from another node: everything in it is held, as it may \
                 have been sent already; look at it with `postrider queue`, then `postrider queue release --all`",
                self.dir.display(),
            );
        }
        write(self.disk, self.dir, self.instance).with_context(|| format!("cannot write {}/{FILE}", self.dir.display()))
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<String>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; LONGEST];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(Some(String::from_utf8_lossy(&bytes[..length]).trim().to_owned()))
}

/// Written aside, synced and renamed: a crash leaves the old file or the new one.
fn write(disk: &dyn Disk, dir: &Path, instance: &str) -> io::Result<()> {
    let aside = dir.join(ASIDE);
    if disk.exists(&aside) {
        disk.remove_file(&aside)?;
    }
    let file = disk.open(&aside, OpenMode::CreateNew)?;
    file.write_all_at(format!("{instance}\n").as_bytes(), 0)?;
    file.sync_all()?;
    disk.rename(&aside, &dir.join(FILE))?;
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use postrider_base::RealDisk;

    use super::*;

    fn is_foreign(dir: &Path, instance: &str) -> bool {
        Home::of(&RealDisk, dir, instance).unwrap().is_foreign()
    }

    #[test]
    fn a_new_spool_is_ours_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::of(&RealDisk, dir.path(), "one").unwrap();
        assert!(!home.is_foreign());
        home.settle().unwrap();
        assert!(!is_foreign(dir.path(), "one"));
        assert!(is_foreign(dir.path(), "two"));
    }

    #[test]
    fn a_foreign_spool_is_so_until_it_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "one\n").unwrap();
        std::fs::write(dir.path().join(ASIDE), "left by a crash").unwrap();
        let home = Home::of(&RealDisk, dir.path(), "two").unwrap();
        assert!(home.is_foreign());
        assert!(is_foreign(dir.path(), "two"));
        home.settle().unwrap();
        assert!(!is_foreign(dir.path(), "two"));
    }

    #[test]
    fn what_is_no_instance_is_foreign() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), [0xff; 200]).unwrap();
        assert!(is_foreign(dir.path(), "one"));
        std::fs::write(dir.path().join(FILE), "").unwrap();
        assert!(is_foreign(dir.path(), "one"));
    }
}
