//! The key that seals: read once, and made when there is first something to seal.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use postrider_account::DkimKey;
use postrider_base::{Disk, Random};
use postrider_mailauth::dkim::{SealError, Sealing};

/// Has the sealing key of the DKIM keys, or knows its file.
pub struct Sealer {
    sealing: OnceLock<Sealing>,
    file: Option<File>,
}

struct File {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    random: Random,
}

impl Sealer {
    /// The key in this file, which is made when a DKIM key is first sealed: a command that
    /// only looks leaves none behind that the daemon does not use.
    #[must_use]
    pub fn file(disk: Arc<dyn Disk>, path: PathBuf, random: Random) -> Self {
        Self { sealing: OnceLock::new(), file: Some(File { disk, path, random }) }
    }

    /// To open what was sealed.
    pub(super) fn key(&self) -> Result<&Sealing, SealError> {
        self.or_load(|file| Sealing::load(&*file.disk, &file.path))
    }

    /// To seal one more key beside these: all of a store are sealed by the same. What was
    /// sealed by a file that is lost stays sealed; a new one would only hide that.
    pub(super) fn key_beside(&self, others: &[Arc<DkimKey>]) -> Result<&Sealing, SealError> {
        if others.is_empty() {
            return self.or_load(|file| Sealing::load_or_make(&*file.disk, &file.path, &file.random));
        }
        let sealing = self.key()?;
        for other in others {
            // A damaged one does not say by what it was sealed.
            if let Err(error @ SealError::WrongKey(_)) = sealing.check(other.sealed.as_bytes()) {
                return Err(error);
            }
        }
        Ok(sealing)
    }

    /// Whether there is a key, or a file of it that may be damaged.
    pub(super) fn is_there(&self) -> bool {
        self.sealing.get().is_some() || self.file.as_ref().is_some_and(|file| file.disk.exists(&file.path))
    }

    fn or_load(&self, load: impl FnOnce(&File) -> Result<Sealing, SealError>) -> Result<&Sealing, SealError> {
        match (self.sealing.get(), &self.file) {
            (Some(sealing), _) => Ok(sealing),
            // Whoever was quicker has read the same file.
            (None, Some(file)) => load(file).map(|loaded| self.sealing.get_or_init(|| loaded)),
            (None, None) => Err(SealError::Crypto),
        }
    }
}

impl From<Sealing> for Sealer {
    fn from(sealing: Sealing) -> Self {
        Self { sealing: sealing.into(), file: None }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("sealing", &self.sealing.get()).finish_non_exhaustive()
    }
}
