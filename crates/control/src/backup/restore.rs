//! A state directory from a copy.

use std::path::Path;
use std::sync::Arc;

use postrider_base::{Disk, OpenMode};
use postrider_store::Store;

use super::archive::failed;
use super::rows::Records;
use super::{Archive, JOURNAL, STORE};
use crate::Error;

/// What restoring did.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// Changes of the account tables that were taken in.
    pub records: u64,
    /// Files that were put into their places.
    pub files: u64,
}

/// Puts all of a copy that a node needs into a state directory that has nothing yet. The
/// events are left: the journal of the new node begins with its own.
///
/// # Errors
/// [`Error::Invalid`] when the copy is damaged, before anything is written; [`Error::Failed`]:
/// what was written is not to be used then.
pub async fn restore(disk: Arc<dyn Disk>, archive: &Archive, state: &Path) -> Result<Restored, Error> {
    archive.verify()?;
    let mut files = 0;
    for file in &archive.manifest().files {
        if file.name != STORE && file.name != JOURNAL {
            put(&*disk, archive, &file.name, state)?;
            files += 1;
        }
    }
    let records = Records::of(archive.read(STORE)?)?;
    let records = Store::restore(Arc::clone(&disk), &state.join("store"), records).await?;
    disk.sync_dir(state).map_err(|error| failed(state, &error))?;
    Ok(Restored { records, files })
}

/// Copies one file, synced.
fn put(disk: &dyn Disk, archive: &Archive, name: &str, state: &Path) -> Result<(), Error> {
    let path = state.join(name);
    let told = |error: &std::io::Error| failed(&path, error);
    let dir = path.parent().unwrap_or(state);
    disk.create_dir_all(dir).map_err(|error| told(&error))?;
    let file = disk.open(&path, OpenMode::CreateNew).map_err(|error| told(&error))?;
    let mut at = 0;
    archive.read(name)?.each(&mut |chunk| {
        file.write_all_at(chunk, at).map_err(|error| told(&error))?;
        at += chunk.len() as u64;
        Ok(())
    })?;
    file.sync_all().and_then(|()| disk.sync_dir(dir)).map_err(|error| told(&error))
}

impl From<postrider_store::Error> for Error {
    fn from(error: postrider_store::Error) -> Error {
        Error::Failed(format!("the account tables: {error}"))
    }
}
