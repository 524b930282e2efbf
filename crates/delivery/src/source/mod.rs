//! The addresses that mail leaves from.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// An address that mail leaves from, as the operator wrote it down.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Source {
    /// What the operator calls it.
    pub(crate) name: Arc<str>,
    /// For hosts with IPv4. Without it they are not dialled from here.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// For hosts with IPv6. Without it they are not dialled from here.
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// The name given in EHLO, instead of the settings'.
    pub(crate) ehlo_name: Option<String>,
}
