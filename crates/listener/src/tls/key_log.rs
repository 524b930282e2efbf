//! The secrets of sessions, for those who look for an error with a packet dump.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustls::KeyLog;

/// Writes the secrets of all sessions to a file that only its owner reads, in
/// the form of NSS that Wireshark takes. Who has the file can read everything
/// that is said, so nothing but an explicit wish makes one.
#[derive(Debug)]
pub(super) struct FileKeyLog(Mutex<File>);

impl FileKeyLog {
    pub(super) fn open(path: &Path) -> io::Result<FileKeyLog> {
        // Not through a link that somebody put there, and not in a file that others read.
        let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(no_link).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(FileKeyLog(Mutex::new(file)))
    }
}

impl KeyLog for FileKeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        // A session is not worth less because nobody can look into it.
        if let Err(error) = self.0.lock().write_all(line.as_bytes()) {
            tracing::warn!("the TLS key log can not be written: {error}");
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
