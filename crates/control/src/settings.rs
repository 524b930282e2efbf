use std::path::PathBuf;

use postrider_base::{Period, Size};
use serde::{Deserialize, Serialize};

/// The control socket's settings.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The Unix socket on which the daemon answers `postrider queue` and its like.
    pub socket: PathBuf,
    /// Commands that are answered at once; further ones wait.
    pub max_connections: usize,
    /// Longest request.
    pub max_request: Size,
    /// How long a connection may be idle between two requests.
    pub idle_timeout: Period,
    /// How long a command may take nothing of its answer, before the daemon hangs up.
    pub answer_timeout: Period,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            socket: PathBuf::from("/run/postrider/control.sock"),
            max_connections: 16,
            max_request: Size::from_mib(1),
            idle_timeout: Period::from_secs(60),
            answer_timeout: Period::from_secs(15 * 60),
        }
    }
}

impl Settings {
    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// One line that names the key and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        if self.socket.as_os_str().is_empty() {
            return Err("socket: must be a path".to_owned());
        }
        // The kernel's sockaddr_un holds 108 bytes with the final NUL; `.sock-new` needs 4 more than `.sock`.
        if self.socket.as_os_str().len() > 100 {
            return Err("socket: must be a path of at most 100 bytes".to_owned());
        }
        if self.max_connections == 0 {
            return Err("max_connections: must be at least 1".to_owned());
        }
        if self.answer_timeout.as_duration().is_zero() {
            return Err("answer_timeout: must be longer than nothing".to_owned());
        }
        if self.max_request.bytes() < 64 * 1024 {
            return Err("max_request: must be at least 64KiB".to_owned());
        }
        Ok(())
    }
}
