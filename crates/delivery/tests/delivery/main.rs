//! Delivery against scripted hosts on a simulated network, in simulated time.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod behind;
mod blocks;
mod bounces;
mod copies;
mod counts;
mod dane;
mod days;
mod dovecot;
mod extensions;
mod faults;
mod held;
mod hosts;
mod known;
mod lmtp;
mod lookups;
mod patience;
mod places;
mod records;
mod replies;
mod reports;
mod require_tls;
mod return_paths;
mod rig;
mod scans;
mod server;
mod shaped;
mod shutdown;
mod sites;
mod slots;
mod sources;
mod sts;
mod suppression;
mod timeouts;
mod tls;
mod tls_reports;
mod turns;
mod unknown;
mod waiting;
mod web;
mod why;
