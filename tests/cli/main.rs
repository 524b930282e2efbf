//! The real binary, driven as an operator drives it: its commands, its refusals, its signals.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod accounts;
mod audit;
mod auth;
mod backup;
mod bans;
mod config;
mod credentials;
mod dkim;
mod doctor;
mod identities;
mod message;
mod policy;
mod quickstart;
mod sending;
mod serve;
mod service;
mod shaping;
mod spool;
mod state;
mod support;
mod suppressed;
mod suppression;
