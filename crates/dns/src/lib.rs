//! The resolver: MX, address, TLSA, TXT and PTR questions behind one trait,
//! DNSSEC validation of those that security hangs on, a cache of its own on the
//! injected clock, and a programmable stand-in for tests. It does not choose
//! hosts and opens no connection but to name servers; what an
//! answer means for a delivery is decided elsewhere.
//!
//! In production a [`HickoryResolver`] sits inside a [`Cached`]; in tests
//! [`Zones`] takes its place.

mod answer;
mod cache;
mod descent;
mod dnssec;
mod heard;
mod hickory;
mod links;
mod nsec3;
mod proof;
mod settings;
mod trust;
pub mod zones;

pub use answer::{Alias, Answer, BoxFuture, DnsError, Mx, Reply, Resolver, Tlsa, literal_address};
pub use cache::Cached;
pub use dnssec::Validation;
pub use hickory::HickoryResolver;
pub use settings::{Dnssec, NameServer, Settings};
pub use zones::Zones;
