//! The spool as its users see it, on a simulated disk in simulated time.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod bounds;
mod check;
mod claims;
mod crash;
mod due;
mod feed;
mod formats;
mod future;
mod index;
mod operator;
mod reclaim;
mod restart;
mod rig;
mod threads;
mod transfer;
