//! Listeners on loopback sockets, with real TLS.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod certificates;
mod feedback;
mod known;
mod limits;
mod sessions;
mod support;
mod tls;
