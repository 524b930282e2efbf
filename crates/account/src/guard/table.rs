//! How bans and good addresses are kept on disk.

use std::net::IpAddr;

use postrider_base::{Network, Timestamp};
use serde::{Deserialize, Serialize};

/// Rows are found by address: 4 or 16 octets, which tell the kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) Network);

impl postrider_store::Key for Key {
    fn to_bytes(&self) -> Vec<u8> {
        match self.0.address() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let address = match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        };
        Some(Key(super::counted(address)))
    }
}

/// What is kept of an address. A later form becomes another variant, so that
/// rows written today stay readable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Row {
    V1 {
        /// When a client of it authenticated last.
        succeeded: Option<Timestamp>,
        ban: Option<Sentence>,
    },
}

/// A ban, over or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sentence {
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
    /// Which one it is, from 1.
    pub(super) times: u32,
    /// User names that were tried last, printable.
    pub(super) users: Vec<String>,
}
