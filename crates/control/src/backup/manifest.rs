//! What a copy says of itself.

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::FORMAT;
use crate::Error;

/// Whose a copy is, and what is in it; the copy's last file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The layout of the copy.
    pub format: u32,
    /// postrider's version that made it.
    pub version: String,
    /// The node's number, four hexadecimal digits.
    pub node: String,
    /// The random id of the state directory that it is a copy of.
    pub instance: String,
    /// When it was begun: every change that was acknowledged before is in it.
    pub made_at: String,
    /// What is in it.
    pub files: Vec<FileSum>,
}

/// A file of a copy.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileSum {
    /// Its name, below the copy's top.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// What the copy calls it.
    pub const NAME: &'static str = "manifest.json";

    pub(super) fn parse(text: &[u8]) -> Result<Self, Error> {
        let manifest: Self = serde_json::from_slice(text)
            .map_err(|error| Error::Invalid(format!("{}: not of a postrider backup: {error}", Self::NAME)))?;
        if manifest.format != FORMAT {
            let (theirs, name) = (manifest.format, Self::NAME);
            return Err(Error::Invalid(format!("{name}: format {theirs}, and this version reads format {FORMAT}")));
        }
        manifest.files.iter().try_for_each(|file| check_name(&file.name))?;
        Ok(manifest)
    }
}

/// A name that stays below the copy's top.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    match name.bytes().all(allowed) && name.split('/').all(plain) {
        true => Ok(()),
        false => Err(Error::Invalid(format!("{name:?} is no name of a file in a backup"))),
    }
}

/// Adds up what goes by.
pub(super) struct Sum {
    context: Context,
    bytes: u64,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { context: Context::new(&SHA256), bytes: 0 }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        self.context.update(data);
        self.bytes += data.len() as u64;
    }

    pub(super) fn of(self, name: &str) -> FileSum {
        let digest = self.context.finish();
        let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        FileSum { name: name.to_owned(), bytes: self.bytes, sha256 }
    }
}
