//! Where a program listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use postrider_base::{BoxStream, Dialer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Error;

/// Where a program listens, written `unix:/PATH` or `tcp:IP:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port of this or another host. Messages cross the network in clear.
    Tcp(SocketAddr),
}

impl Socket {
    /// Opens a connection. Has no time limit of its own.
    pub(crate) async fn dial(&self, dialer: &dyn Dialer) -> Result<BoxStream, Error> {
        let dialed = match self {
            Self::Unix(path) => dialer.dial_path(path).await,
            Self::Tcp(address) => dialer.dial(*address, None).await,
        };
        Ok(dialed.map_err(Error::Unreachable)?.stream)
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl FromStr for Socket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix:").filter(|path| path.starts_with('/') && !path.contains('\0'));
        let address = text.strip_prefix("tcp:").and_then(|address| address.parse().ok());
        match (path, address) {
            (Some(path), _) => Ok(Self::Unix(path.into())),
            (_, Some(address)) => Ok(Self::Tcp(address)),
            _ => Err(format!("expected \"unix:/PATH\" or \"tcp:IP:PORT\", got \"{text}\"")),
        }
    }
}

impl Serialize for Socket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Socket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_and_printed() {
        for text in ["unix:/run/clamav/clamd.ctl", "tcp:127.0.0.1:3310", "tcp:[::1]:3310"] {
            assert_eq!(text.parse::<Socket>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_sockets_say_what_was_expected() {
        for bad in ["", "unix:", "unix:run/clamd.ctl", "/run/clamd.ctl", "tcp:localhost:3310", "tcp:127.0.0.1"] {
            let error = bad.parse::<Socket>().unwrap_err();
            assert!(error.contains("unix:/PATH") && error.contains(bad), "{error}");
        }
    }
}
