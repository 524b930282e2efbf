//! Checks of a message that somebody hands over: SPF, DKIM, ARC, DMARC.
//!
//! mail-auth parses signatures and keys and does the cryptography. Its own evaluation asks a
//! resolver of its own, on a clock of its own; here all questions go through
//! [`postrider_dns::Resolver`], so that the daemon has one resolver and tests have zones, and
//! the time is passed in.

pub mod dmarc;
pub mod spf;
mod tags;
