//! What an attempt did, for the record that is kept with its outcomes: all of
//! it where something went wrong, and next to nothing where the first host took
//! the message for everybody.

use std::sync::Arc;

use postrider_mail::{
    AttemptOutcome, AttemptRecord, Disposition, HostProof, HostRecord, Privacy, Remote, SessionLevel, Severity, Stage,
    TlsInfo,
};
use postrider_smtp::{Conversation, RecipientResult, TransactionResult};

use crate::connection::Connection;
use crate::finding::Finding;
use crate::needs;
use crate::tls::{Level, Proof, Session};

/// What was said with a host while a session with it was set up.
pub(crate) fn setup(remote: &Remote, conversation: &Conversation, tls: Option<&TlsInfo>, proof: Proof) -> HostRecord {
    let (exchanges, omitted) = conversation.exchanges();
    let level = level(Level::of(proof, tls));
    HostRecord { tls: tls.cloned(), level, exchanges, omitted, ..HostRecord::new(remote) }
}

/// What was said with a host about a message, after so many others.
pub(crate) fn session(connection: &Connection, reused: u32) -> HostRecord {
    let Connection { remote, conversation, tls, level, .. } = connection;
    HostRecord { reused, ..setup(remote, conversation, tls.as_ref(), level.proof) }
}

/// The same, with what the relay found out and the host did not say.
pub(crate) fn with_finding(host: HostRecord, finding: &Finding) -> HostRecord {
    match finding.reply {
        Some(_) => host,
        None => host.failed(&finding.diagnostic),
    }
}

/// How a transaction went.
pub(crate) enum Course {
    /// The host took the message for all whom it was told of.
    Taken,
    /// It did not, and this is why where it does not say so itself.
    Troubled(Option<Finding>),
}

/// How a transaction over this connection went.
pub(crate) fn course(result: &TransactionResult, connection: &Connection) -> Course {
    let is_taken = |result: &RecipientResult| match result {
        RecipientResult::Replied { stage, reply } => {
            *stage == Stage::EndOfData && reply.severity() == Severity::Positive
        }
        RecipientResult::Vetoed => true,
        RecipientResult::Refused(_) | RecipientResult::Lost { .. } => false,
    };
    if result.recipients.iter().all(is_taken) {
        return Course::Taken;
    }
    Course::Troubled(result.recipients.iter().find_map(|result| match result {
        RecipientResult::Lost { stage } => Some(connection.loss(*stage)),
        RecipientResult::Refused(refusal) => Some(needs::refusal(*refusal)),
        RecipientResult::Replied { .. } | RecipientResult::Vetoed => None,
    }))
}

/// Gives the outcomes of an attempt its record; not those of recipients who
/// were never to be named.
pub(crate) fn attach(outcomes: &mut [AttemptOutcome], record: Option<&Arc<AttemptRecord>>) {
    let Some(record) = record else { return };
    for outcome in outcomes.iter_mut().filter(|it| !matches!(it.disposition, Disposition::Suppressed(_))) {
        outcome.record = Some(Arc::clone(record));
    }
}

/// A session's level in the words of the record.
pub(crate) fn level(level: Level) -> SessionLevel {
    let identity = match level.proof {
        Proof::None => HostProof::None,
        Proof::Sts => HostProof::MtaSts,
        Proof::Dnssec => HostProof::Dnssec,
        Proof::Configured => HostProof::Configured,
    };
    let session = match level.session {
        Session::None => Privacy::None,
        Session::Encrypted => Privacy::Encrypted,
        Session::Authenticated => Privacy::Authenticated,
    };
    SessionLevel { identity, session }
}
