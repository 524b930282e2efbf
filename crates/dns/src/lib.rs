//! The resolver: MX, address, TXT and PTR questions behind one trait, a cache
//! of its own on the injected clock, and a programmable stand-in for tests. It
//! does not choose hosts and opens no connection but to name servers; what an
//! answer means for a delivery is decided elsewhere.
//!
//! In production a [`HickoryResolver`] sits inside a [`Cached`]; in tests
//! [`Zones`] takes its place.

mod answer;
mod cache;
mod hickory;
mod settings;
pub mod zones;

pub use answer::{Alias, Answer, BoxFuture, DnsError, Mx, Reply, Resolver, Tlsa, literal_address};
pub use cache::Cached;
pub use hickory::HickoryResolver;
pub use settings::{NameServer, Settings};
pub use zones::Zones;
