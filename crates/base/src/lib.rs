//! The outside world, injectable: clock, randomness, network, disk, task scopes; telemetry and scalar settings. Knows nothing of mail.
//!
//! Every other crate reaches time, random numbers, files and sockets through
//! the types here, so that days of retries are tested in milliseconds and a
//! simulated run can be repeated from its seed.

pub mod disk;
pub mod metrics;
pub mod net;
pub mod network;
pub mod random;
pub mod scope;
pub mod settings;
pub mod sim_disk;
pub mod sim_net;
pub mod time;
pub mod traces;

pub use disk::{Disk, DiskFile, OpenMode, RealDisk};
pub use metrics::Metrics;
pub use net::{BoxStream, Dialed, Dialer, Stream, TcpDialer, bind_tcp};
pub use network::{Network, NetworkError};
pub use random::Random;
pub use scope::{Late, Scope};
pub use settings::{ParseError, Period, Size};
pub use sim_disk::SimDisk;
pub use sim_net::{SimListener, SimNet};
pub use time::{Clock, Timestamp};
pub use traces::{Speaker, TraceFilter, TraceLine, TraceReader, Traces};
