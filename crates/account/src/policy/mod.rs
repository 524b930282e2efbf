//! Policies: who may do what, in the language of IAM. Those of credentials limit what a
//! credential may do; those of identities let other accounts send, which nothing else does, and
//! forbid.
//!
//! A policy is read when it is put or loaded, and never on the way of a message.

mod condition;
mod decision;
#[cfg(test)]
mod decision_tests;
mod document;
mod error;
mod glob;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod model;
mod node;
mod request;
mod statement;
mod table;
#[cfg(test)]
mod tests;

pub use decision::{PolicyDecision, SenderRole, SendingRequest, UsedAddress, UsedIdentity};
pub use document::{Attached, Deciding, Policy, PolicySet, PolicyVerdict};
pub use error::PolicyError;
pub use request::{PolicyRequest, SEND_RAW_EMAIL};
pub use table::{Policies, PolicyEdit, PolicyOwner};
