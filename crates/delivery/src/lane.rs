//! A lane: what messages must have in common to share a connection.

use std::sync::Arc;

use postrider_account::{Accounts, ConfigurationSet, TlsPolicy};
use postrider_spool::Message;
use serde::{Deserialize, Serialize};

use crate::config::Config;
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
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
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
    /// Encryption by a certificate for the host's name, because the operator says so.
    Verified,
    /// A host that has proved its name and keeps the requirement (REQUIRETLS,
    /// RFC 8689 section 2).
    Authenticated,
}

impl Lane {
    /// The name that we give ourselves.
    pub(crate) fn hello<'a>(&'a self, config: &'a Config) -> &'a str {
        let source = self.source.as_ref().and_then(|source| source.ehlo_name.as_deref());
        source.unwrap_or(&config.ehlo_name)
    }
}

impl Demand {
    /// What the sender of `message`, which is sent with `set`, asks.
    pub(crate) fn of(message: &Message, set: Option<&ConfigurationSet>) -> Self {
        if needs::requires_tls(&message.envelope) {
            Self::Authenticated
        } else if set.is_some_and(|set| set.tls == TlsPolicy::Require) {
            Self::Encrypted
        } else if message.tls_optional {
            Self::Waived
        } else {
            Self::Opportunistic
        }
    }
}

/// The configuration set that a message is sent with, as it is now.
pub(crate) fn configuration_set(accounts: &Accounts, message: &Message) -> Option<Arc<ConfigurationSet>> {
    let name = message.origin.configuration_set.as_ref()?;
    accounts.configuration_sets().find(message.account, name)
}

/// The domain that answers for a message at hosts that keep a memory of it: of the
/// author's address, or else of the sender's.
pub(crate) fn responsible_domain(message: &Message) -> Option<&str> {
    let fields = &message.origin.headers.fields;
    let from = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("from"));
    let author = from.and_then(|(_, value)| domain_in(value));
    author.or_else(|| message.envelope.sender.as_ref().map(|sender| sender.domain().as_str()))
}

/// The domain of the last address in a field.
fn domain_in(value: &str) -> Option<&str> {
    let (_, rest) = value.rsplit_once('@')?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))).unwrap_or(rest.len());
    Some(&rest[..end]).filter(|domain| !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_of_an_author_is_found_in_the_field() {
        assert_eq!(domain_in("Ann <ann@example.com>"), Some("example.com"));
        assert_eq!(domain_in("ann@mail.example.com (Ann @ work)"), None);
        assert_eq!(domain_in("ann@mail.example.com (Ann)"), Some("mail.example.com"));
        assert_eq!(domain_in("undisclosed"), None);
        assert_eq!(domain_in("<@>"), None);
    }
}
