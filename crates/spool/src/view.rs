//! What operators see of the spool.

use std::sync::Arc;

use postrider_base::Timestamp;
use postrider_mail::{AccountId, AttemptOutcome, Domain, EmailAddress, MessageId};
use postrider_wal::Lsn;
use serde::{Deserialize, Serialize};

use crate::message::{AcceptedRecord, QueueKey};

/// Which messages an operation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector {
    /// One message.
    Message(MessageId),
    /// One account's messages to one domain.
    Queue(QueueKey),
    /// Every account's messages to one domain.
    Domain(Domain),
    /// Everything.
    All,
}

impl Selector {
    /// Whether a queue is meant; a single message's is not known here.
    pub fn covers(&self, key: &QueueKey) -> bool {
        match self {
            Self::Message(_) => false,
            Self::Queue(queue) => queue == key,
            Self::Domain(domain) => *domain == key.domain,
            Self::All => true,
        }
    }
}

/// One queue in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueSummary {
    /// Whose messages.
    pub account: AccountId,
    /// Domain of the recipients.
    pub domain: Domain,
    /// Messages with a recipient of this domain that still waits.
    pub messages: u64,
    /// Of those, the ones whose time has come, in delivery or not.
    pub due_now: u64,
    /// Of those, the ones in delivery right now.
    pub in_delivery: u64,
    /// When the oldest was accepted.
    pub oldest: Option<Timestamp>,
    /// When the next one is due, held ones apart.
    pub next_due: Option<Timestamp>,
    /// Whether an operator holds the queue.
    pub held: bool,
    /// Whether delivery wants nothing of this queue at the moment.
    pub parked: bool,
}

/// One message in one queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// The message.
    pub id: MessageId,
    /// Whose it is.
    pub account: AccountId,
    /// Domain of the recipients below.
    pub domain: Domain,
    /// Reverse-path; none for `<>`.
    pub sender: Option<EmailAddress>,
    /// Recipients of this domain that still wait.
    pub recipients: Vec<EmailAddress>,
    /// Length in bytes.
    pub size: u64,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it is due; none while an operator holds the message.
    pub next_attempt: Option<Timestamp>,
    /// Attempts so far.
    pub attempts: u32,
    /// Whether an operator holds the message or its queue.
    pub held: bool,
    /// Whether a delivery is under way.
    pub in_delivery: bool,
    /// What the last attempt said.
    pub last: Option<AttemptOutcome>,
}

/// A queued message with what is left to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MessageView {
    /// As it was accepted.
    pub message: Arc<AcceptedRecord>,
    /// Whether an operator holds it.
    pub held: bool,
    /// Every recipient of the envelope, in order.
    pub recipients: Vec<RecipientView>,
}

/// A recipient of a queued message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecipientView {
    /// Who.
    pub address: EmailAddress,
    /// Whether this recipient has come to an end (delivered, bounced, ...).
    pub done: bool,
    /// Whether a delivery is under way.
    pub in_delivery: bool,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due; none when done or held.
    pub next_attempt: Option<Timestamp>,
    /// What the last attempt said, while the recipient waits.
    pub last: Option<AttemptOutcome>,
}

/// Where the index of waiting messages lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexKind {
    /// In sled, on disk.
    Sled,
    /// In memory, because sled failed.
    Memory,
}

/// How opening went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OpenReport {
    /// Whether the last run ended with [`crate::Spool::close`].
    pub clean_stop: bool,
    /// Messages that are still to be delivered.
    pub messages: u64,
    /// Records read.
    pub records: u64,
    /// Index rows that had to be written or removed to agree with the log.
    pub index_repairs: u64,
    /// Why the index was made anew, if it was.
    pub index_rebuilt: Option<String>,
    /// Damaged records copied to the quarantine directory.
    pub quarantined: u64,
}

/// The spool in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stat {
    /// Messages that wait or are in delivery.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that are only in memory (and in the log).
    pub young: u64,
    /// Queues.
    pub queues: u64,
    /// Message parts handed out for delivery.
    pub in_delivery: u64,
    /// Whether an operator, or a restored spool, holds everything.
    pub held: bool,
    /// Bytes of bodies kept in memory.
    pub body_memory: u64,
    /// Bytes that the logs take on disk.
    pub disk_bytes: u64,
    /// Of those, what bodies take whose messages have waited for long.
    pub cold_bytes: u64,
    /// Bytes of messages taken since the start, and bytes written to the logs
    /// since then: the second by the first is the write amplification.
    pub accepted_bytes: u64,
    /// See `accepted_bytes`.
    pub written_bytes: u64,
    /// Whether old mail is still being recovered.
    pub recovering: bool,
    /// Files of the log.
    pub segments: u64,
    /// Where the index lives.
    pub index: IndexKind,
    /// Changes that the index has not applied yet.
    pub index_backlog: u64,
    /// Damaged records put into quarantine since the start.
    pub quarantined: u64,
    /// How far each feed has acknowledged.
    pub feeds: Vec<(String, u64)>,
    /// The last synced batch.
    pub synced: Lsn,
}
