//! The real binary, driven as an operator drives it: its commands, its refusals, its signals.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod auth;
mod bans;
mod config;
mod credentials;
mod dkim;
mod doctor;
mod identities;
mod message;
mod quickstart;
mod sending;
mod serve;
mod service;
mod shaping;
mod spool;
mod support;
mod suppression;
mod suppressed;
