//! The SMTP wire, both sides, sans-IO: codec, framing, server session and
//! client conversation. No sockets, no clock, no runtime.
//!
//! A driver owns the socket. It reads into a buffer, lets [`Session`] (the
//! server's side) or [`Conversation`] (the client's) consume it, does what the
//! returned event asks for, and writes what was queued. Rules about who may
//! send what belong to the driver; this crate knows what the protocol allows.

mod client;
#[cfg(test)]
mod pair_test;
mod server;
pub mod wire;

pub use client::{
    Action, ClientConfig, Conversation, Credentials, Ended, Features, Gate, LocalRefusal, NotReady, Protocol,
    RecipientResult, Timeouts, TlsUse, Transaction, TransactionResult,
};
pub use server::{
    AuthEvent, Event, Profile, ReceivedMessage, RecipientOverflow, Session, SessionLimits, Spoken, TlsMode,
};
pub use wire::{BareLineFeed, Extensions, HoldUntil, MailRequest, RcptRequest};
