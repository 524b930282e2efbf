//! Talks to programs that judge messages: the virus scanner `clamd`, and operators' own
//! filters by the milter protocol. It decides nothing about mail: who asks says what follows
//! from a verdict, and when there is none.
//!
//! [`clamd`] and [`milter`] each have the protocol as plain functions and machines without
//! sockets and clocks, and a thin client around them.

pub mod clamd;
mod error;
pub mod milter;
mod settings;
mod socket;

pub use error::Error;
pub use settings::{MilterSettings, OtherChanges, ScanSettings, WhenDown};
pub use socket::Socket;
