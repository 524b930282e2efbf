//! Private keys at rest: encrypted with a key that is kept elsewhere.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use postrider_base::{Disk, OpenMode, Random};
use zeroize::Zeroizing;

/// First byte of what is sealed, so that another way can follow.
const VERSION: u8 = 1;

/// How many bytes tell by which key something is sealed.
const ID_LEN: usize = 8;

const KEY_LEN: usize = 32;

/// The key that seals: a file of 64 hexadecimal digits outside the store, so that whoever
/// has a copy of the store has no private key.
///
/// AES-256-GCM with a random nonce. What is sealed is bound to a context (whose key it is,
/// and its name), so that no row of a table can be put into another's place.
pub struct Sealing {
    key: RandomizedNonceKey,
    id: [u8; ID_LEN],
    path: PathBuf,
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The operator's: the file is not there or can not be read. Passes when it is.
    #[error("the sealing key of the DKIM keys, {}, cannot be read: {error}; where the daemon has it \
         elsewhere (a credential of the service), name that file in dkim.sealing_key_file", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The operator's: the file is not one of ours, or cut.
    #[error(
        "the sealing key of the DKIM keys, {}, must be 64 hexadecimal digits and is not; put the original back from a backup",
        .0.display()
    )]
    Format(PathBuf),
    /// The operator's: the keys were sealed by another key. Passes when that is put back.
    #[error(
        "the DKIM keys in the store were not sealed by the key in {}; put the original file back from a backup or, \
         where the daemon has it elsewhere (a credential of the service), name that file in dkim.sealing_key_file; \
         or delete the DKIM keys and make new ones",
        .0.display()
    )]
    WrongKey(PathBuf),
    /// The machine's: what is sealed has been changed, or belongs elsewhere. Does not pass.
    #[error("a sealed DKIM key is damaged")]
    Damaged,
    /// The machine's: aws-lc failed.
    #[error("a DKIM key could not be sealed")]
    Crypto,
}

impl Sealing {
    /// Reads the key from its file.
    ///
    /// # Errors
    /// [`SealError::File`] or [`SealError::Format`].
    pub fn load(disk: &dyn Disk, path: &Path) -> Result<Self, SealError> {
        let text = read(disk, path).map_err(|error| SealError::File { path: path.to_owned(), error })?;
        let format = || SealError::Format(path.to_owned());
        let digits = text.trim_ascii();
        if digits.len() != 2 * KEY_LEN {
            return Err(format());
        }
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            let value = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(16 * high + low).ok());
            *byte = value.ok_or_else(format)?;
        }
        Self::from_bytes(&bytes, path)
    }

    /// Reads the key from its file, which is made now, readable by its owner only, if it is
    /// not there. Only for a store without keys: what was sealed by a lost key stays sealed.
    ///
    /// # Errors
    /// [`SealError::File`] or [`SealError::Format`].
    pub fn load_or_make(disk: &dyn Disk, path: &Path, random: &Random) -> Result<Self, SealError> {
        if !disk.exists(path) {
            make(disk, path, random).map_err(|error| SealError::File { path: path.to_owned(), error })?;
        }
        Self::load(disk, path)
    }

    /// A key that is kept in no file and forgotten with this value.
    ///
    /// # Errors
    /// [`SealError::Crypto`].
    pub fn ephemeral(random: &Random) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random.fill(&mut *bytes);
        Self::from_bytes(&bytes, Path::new("(none)"))
    }

    fn from_bytes(bytes: &[u8; KEY_LEN], path: &Path) -> Result<Self, SealError> {
        let hash = digest(&SHA256, bytes);
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&hash.as_ref()[..ID_LEN]);
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| SealError::Crypto)?;
        Ok(Self { key, id, path: path.to_owned() })
    }

    /// The file of the key.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Encrypts `secret` for this context.
    ///
    /// # Errors
    /// [`SealError::Crypto`].
    pub fn seal(&self, secret: &[u8], context: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = Zeroizing::new(secret.to_vec());
        let mut body = Vec::with_capacity(secret.len() + AES_256_GCM.tag_len());
        let (nonce, tag) =
            self.key.seal_in_place_separate_tag(Aad::from(context), &mut sealed).map_err(|_| SealError::Crypto)?;
        body.extend_from_slice(&sealed);
        body.extend_from_slice(tag.as_ref());
        Ok([&[VERSION], &self.id[..], nonce.as_ref(), &body].concat())
    }

    /// Decrypts what was sealed for this context.
    ///
    /// # Errors
    /// [`SealError::WrongKey`] or [`SealError::Damaged`].
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, body) = self.sealed_by_this(sealed)?.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Damaged)?;
        let mut secret = Zeroizing::new(body.to_vec());
        let len = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut secret)
            .map_err(|_| SealError::Damaged)?
            .len();
        secret.truncate(len);
        Ok(secret)
    }

    /// Whether it was sealed by this key, as it says itself.
    ///
    /// # Errors
    /// [`SealError::WrongKey`]; or [`SealError::Damaged`] when it does not say.
    pub fn check(&self, sealed: &[u8]) -> Result<(), SealError> {
        self.sealed_by_this(sealed).map(drop)
    }

    /// What follows on the name of the key.
    fn sealed_by_this<'s>(&self, sealed: &'s [u8]) -> Result<&'s [u8], SealError> {
        let Some(([VERSION], rest)) = sealed.split_first_chunk() else { return Err(SealError::Damaged) };
        let (id, rest) = rest.split_first_chunk::<ID_LEN>().ok_or(SealError::Damaged)?;
        if *id == self.id { Ok(rest) } else { Err(SealError::WrongKey(self.path.clone())) }
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("path", &self.path).finish_non_exhaustive()
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = usize::try_from(file.len()?.min(1024)).unwrap_or_default();
    let mut bytes = Zeroizing::new(vec![0; length]);
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Whole or not at all: written aside, synced, then given its name.
fn make(disk: &dyn Disk, path: &Path, random: &Random) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let aside = path.with_extension("new");
    disk.create_dir_all(directory)?;
    if disk.exists(&aside) {
        disk.remove_file(&aside)?;
    }
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    random.fill(&mut *bytes);
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_LEN + 1));
    for byte in bytes.iter() {
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text.push('\n');
    let file = disk.open(&aside, OpenMode::CreateNew)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_all()?;
    disk.rename(&aside, path)?;
    disk.sync_dir(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use postrider_base::RealDisk;

    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_and_context_alone() {
        let random = Random::seeded(1);
        let sealing = Sealing::ephemeral(&random).unwrap();
        let sealed = sealing.seal(b"secret", b"a").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealing.seal(b"secret", b"a").unwrap(), sealed, "nonces differ");
        assert_eq!(sealing.open(&sealed, b"a").unwrap().as_slice(), b"secret");
        assert!(matches!(sealing.open(&sealed, b"b"), Err(SealError::Damaged)));
        let other = Sealing::ephemeral(&random).unwrap();
        assert!(matches!(other.open(&sealed, b"a"), Err(SealError::WrongKey(_))));
        assert!(sealing.check(&sealed).is_ok() && matches!(other.check(&sealed), Err(SealError::WrongKey(_))));
        for at in [0, ID_LEN + 1, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(matches!(sealing.open(&damaged, b"a"), Err(SealError::Damaged)), "byte {at}");
        }
        for len in 0..sealed.len() {
            assert!(sealing.open(&sealed[..len], b"a").is_err());
        }
    }

    #[test]
    fn the_file_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/dkim-sealing.key");
        let random = Random::seeded(1);
        assert!(matches!(Sealing::load(&RealDisk, &path), Err(SealError::File { .. })));
        let sealed = Sealing::load_or_make(&RealDisk, &path, &random).unwrap().seal(b"x", b"").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Sealing::load_or_make(&RealDisk, &path, &random).unwrap();
        assert_eq!(again.open(&sealed, b"").unwrap().as_slice(), b"x");
        assert!(!format!("{again:?}").contains(std::fs::read_to_string(&path).unwrap().trim()));
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for text in ["", "short", &"g".repeat(64), &"a".repeat(66)] {
            std::fs::write(&path, text).unwrap();
            let error = Sealing::load_or_make(&RealDisk, &path, &Random::seeded(1)).unwrap_err();
            assert!(matches!(error, SealError::Format(_)), "{text:?}");
            assert!(error.to_string().contains(path.to_str().unwrap()));
        }
    }
}
