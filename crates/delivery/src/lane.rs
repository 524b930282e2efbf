//! A lane: what messages must have in common to share a connection.

use std::sync::Arc;

use postrider_spool::Message;
use serde::{Deserialize, Serialize};

use crate::needs;
use crate::source::Source;

/// Messages of one lane share connections: they go to the same hosts, from the
/// same address, and their senders ask the same of TLS.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Lane {
    /// The site's name.
    pub(crate) site: Arc<str>,
    /// Where the connections come from; `None` leaves it to the system.
    pub(crate) source: Option<Arc<Source>>,
    pub(crate) demand: Demand,
}

/// What a sender asks of the session with the next host. What the remote
/// domain publishes about itself comes on top.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Delivery, whatever the remote domain publishes (`TLS-Required: No`, RFC 8689
    /// section 3).
    Waived,
    /// Nothing: TLS where it can be had.
    #[default]
    Opportunistic,
    /// Encryption: the message never leaves in clear.
    Encrypted,
    /// A host that has proved its name and keeps the requirement (REQUIRETLS,
    /// RFC 8689 section 2).
    Authenticated,
}

impl Demand {
    /// What the sender of `message` asks.
    pub(crate) fn of(message: &Message) -> Self {
        if needs::requires_tls(&message.envelope) {
            Self::Authenticated
        } else if message.tls_optional {
            Self::Waived
        } else {
            Self::Opportunistic
        }
    }
}
