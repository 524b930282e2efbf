//! For tests and benchmarks only, never part of the product: a certificate
//! authority, an SMTP client and load generator, a sink that stands for the
//! world, providers acted out, networks and name servers of a test's own, the
//! daemon as a child process, and a load on a spool.
//!
//! The client and the sink speak SMTP with code of their own, not with
//! `postrider-smtp`: a mistake there must not agree with itself here.

pub mod authority;
pub mod client;
pub mod knot;
pub mod lines;
pub mod load;
pub mod network;
pub mod nsd;
pub mod peers;
pub mod ports;
pub mod postfix;
pub mod process;
pub mod provider;
pub mod relay;
pub mod scene;
pub mod signed;
pub mod sink;
pub mod spool_load;
pub mod strace;
pub mod volume;

pub use authority::{Authority, Issued};
pub use client::{Client, Endpoint, Reply, Security};
pub use load::{Load, Pattern, Report};
pub use network::Network;
pub use nsd::{Nsd, Zone};
pub use provider::{Act, Conduct, Keep, Point, Provider};
pub use relay::{Relay, RelayOptions, accepting_everybody};
pub use scene::Scene;
pub use signed::Signed;
pub use sink::{Accept, Policy, Received, Record, Sink};
pub use strace::Fault;
pub use volume::Volume;
