//! The spool as its users see it, on a simulated disk in simulated time.

mod bounds;
mod claims;
mod crash;
mod due;
mod feed;
mod index;
mod operator;
mod reclaim;
mod restart;
mod rig;
