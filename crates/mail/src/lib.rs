//! The vocabulary of mail: addresses, envelopes, message ids, status codes,
//! outcomes, header blocks and delivery status notifications. It does no I/O,
//! reads no clock and knows no socket; the other rooms speak in its words.
//!
//! What exists is valid: an [`EmailAddress`] has been parsed, a [`SmtpReply`]
//! has been made printable. So nothing that a network peer sent can add a line
//! to a log, a header or a reply.

mod address;
mod dkim;
mod domain;
pub mod dsn;
mod envelope;
mod error;
mod header;
mod id;
mod outcome;
mod quoted_printable;
mod record;
mod reply;
mod simulator;
mod status;
mod text;
mod verp;

pub use address::EmailAddress;
pub use dkim::{DkimAlgorithm, Selector, SelectorError};
pub use domain::Domain;
pub use envelope::{BodyType, Envelope, Notify, Recipient, Ret};
pub use error::{AddressError, Error};
pub use header::{Field, HeaderBlock, MAX_HEADER_BYTES, MAX_HEADER_FIELDS, header_of};
pub use id::{AccountId, MessageId};
pub use outcome::{
    AttemptOutcome, BounceKind, DelayType, Delays, Disposition, Remote, Stage, SuppressionList, SuppressionReason,
    SuppressionSource, TlsInfo,
};
pub use quoted_printable::quoted_printable;
pub use record::{
    AttemptRecord, Exchange, HostProof, HostRecord, Privacy, SessionLevel, attach_records, store_records,
};
pub use reply::{Severity, SmtpReply};
pub use simulator::{SES_SIMULATOR, SimulatedMailbox, is_simulator};
pub use status::EnhancedStatus;
pub use text::sanitize_text;
pub use verp::{Verp, VerpScope};
