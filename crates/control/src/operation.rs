//! What an operator can ask for.

use postrider_account::AuditFilter;
use postrider_base::{Network, Timestamp};
use postrider_mail::{AccountId, Domain, MessageId};
use postrider_spool::Selector;
use serde::{Deserialize, Serialize};

use crate::{
    AccountOperation, BackupRequest, ConfigurationSetOperation, CredentialOperation, DkimOperation, DnsPlanRequest,
    DoctorOperation, ExplainRequest, FeedbackReadRequest, IdentityOperation, PolicyOperation, PoolOperation,
    ReputationOperation, ShapingOperation, SourceOperation, StateOperation, SuppressionOperation,
};

/// Most entries that one [`SuppressionOperation::Import`] or [`SuppressionOperation::Remove`] may
/// carry; a longer list is sent in several operations, so that its sender sees the progress and no
/// request is unbounded.
pub const IMPORT_BATCH: usize = 1_000;

/// Most waiting messages that one [`QueueOperation::List`] answers.
pub const LIST_LIMIT: usize = 100_000;

/// One operator action. The same set is served on the control socket and run in process.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Whose everything else is.
    Accounts(AccountOperation),
    /// What the audit log says.
    Audit(AuditFilter),
    /// A copy of the node's state.
    Backup(BackupRequest),
    /// Addresses that are banned for guessing passwords.
    Bans(BanOperation),
    /// Named rules for the messages that choose them.
    ConfigurationSets(ConfigurationSetOperation),
    /// SMTP credentials.
    Credentials(CredentialOperation),
    /// DKIM keys.
    Dkim(DkimOperation),
    /// What a domain should publish.
    DnsPlan(DnsPlanRequest),
    /// What is right and what is wrong, by the doctor.
    Doctor(DoctorOperation),
    /// The delivery events in the journal.
    Events(EventOperation),
    /// What would be used for mail of a sender, and why.
    Explain(ExplainRequest),
    /// What a message that came back says, and what would follow.
    FeedbackRead(FeedbackReadRequest),
    /// The domains and addresses that accounts send from.
    Identities(IdentityOperation),
    /// The whole life of one message: accepted, each attempt, its outcome.
    Message {
        /// The id that the final `250 Ok` of the message named.
        id: MessageId,
    },
    /// Who may send what.
    Policies(PolicyOperation),
    /// Which sources serve which configuration sets.
    Pools(PoolOperation),
    /// The messages that are waiting.
    Queue(QueueOperation),
    /// How much accounts may send, and have sent.
    Quota {
        /// Of this account; none is all that exist or have sent.
        account: Option<AccountId>,
    },
    /// Reads the configuration and the certificates again, as SIGHUP does.
    Reload,
    /// How many recipients bounce and complain, and who may send.
    Reputation(ReputationOperation),
    /// How much mail goes where, and what pauses.
    Shaping(ShapingOperation),
    /// The sites that delivery knows at the moment, with their connections.
    Sites,
    /// The addresses that mail leaves from.
    Sources(SourceOperation),
    /// Gives back all of the durable queue's space on the disk that can be.
    SpoolCompact,
    /// Figures of the durable queue: sizes, segments, syncs.
    SpoolStat,
    /// State as a file declares it.
    State(StateOperation),
    /// What this node is and how it fares.
    Status,
    /// Policies of recipient domains (MTA-STS).
    Sts(StsOperation),
    /// The suppression lists of the accounts, and the one they share.
    Suppression(SuppressionOperation),
    /// What is said in the sessions of clients, as it happens, without secrets and content;
    /// sessions that match all that is given.
    Trace {
        /// The client's address is in this network.
        peer: Option<Network>,
        /// The client authenticated as this user.
        user: Option<String>,
    },
}

impl Operation {
    /// A short name for logs: a closed set, never the operation's content.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Accounts(operation) => operation.name(),
            Operation::Audit(_) => "audit",
            Operation::Backup(_) => "backup",
            Operation::Bans(BanOperation::Clear { .. }) => "bans-clear",
            Operation::Bans(BanOperation::List) => "bans-list",
            Operation::ConfigurationSets(operation) => operation.name(),
            Operation::Credentials(operation) => operation.name(),
            Operation::Dkim(operation) => operation.name(),
            Operation::DnsPlan(_) => "dns-plan",
            Operation::FeedbackRead(_) => "feedback-read",
            Operation::Doctor(operation) => operation.name(),
            Operation::Events(EventOperation::Since { .. }) => "events-since",
            Operation::Events(EventOperation::Tail) => "events-tail",
            Operation::Explain(_) => "explain",
            Operation::Identities(operation) => operation.name(),
            Operation::Message { .. } => "message",
            Operation::Policies(operation) => operation.name(),
            Operation::Pools(operation) => operation.name(),
            Operation::Queue(operation) => operation.name(),
            Operation::Quota { .. } => "quota",
            Operation::Reload => "reload",
            Operation::Reputation(operation) => operation.name(),
            Operation::Shaping(operation) => operation.name(),
            Operation::Sites => "sites",
            Operation::Sources(operation) => operation.name(),
            Operation::SpoolCompact => "spool-compact",
            Operation::SpoolStat => "spool-stat",
            Operation::State(operation) => operation.name(),
            Operation::Status => "status",
            Operation::Sts(StsOperation::Show { .. }) => "sts-show",
            Operation::Suppression(operation) => operation.name(),
            Operation::Trace { .. } => "trace",
        }
    }
}

/// Actions on bans.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BanOperation {
    /// Lifts bans, and forgets what led to them.
    Clear {
        /// Of addresses in this network; none is all.
        network: Option<Network>,
    },
    /// The bans in effect.
    List,
}

/// Questions about policies of recipient domains (MTA-STS).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StsOperation {
    /// The policy of one domain, as it is kept.
    Show {
        /// The domain.
        domain: Domain,
    },
}

/// Actions on the messages that are waiting.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueOperation {
    /// Gives up messages; their open recipients end as deleted, without a bounce message.
    Delete(Selector),
    /// Keeps messages from being delivered until they are released.
    Hold(Selector),
    /// Messages, oldest first.
    List {
        /// Which ones.
        selector: Selector,
        /// Most rows of the answer, at most [`LIST_LIMIT`].
        limit: usize,
    },
    /// Lets held messages go on.
    Release(Selector),
    /// Makes messages due now.
    Retry(Selector),
    /// One message with its recipients and their last replies.
    Show {
        /// The message.
        id: MessageId,
    },
    /// One row for each account and recipient domain.
    Summary,
    /// Why a message has not left, for each recipient.
    Why {
        /// The message.
        id: MessageId,
    },
}

impl QueueOperation {
    fn name(&self) -> &'static str {
        match self {
            QueueOperation::Delete(_) => "queue-delete",
            QueueOperation::Hold(_) => "queue-hold",
            QueueOperation::List { .. } => "queue-list",
            QueueOperation::Release(_) => "queue-release",
            QueueOperation::Retry(_) => "queue-retry",
            QueueOperation::Show { .. } => "queue-show",
            QueueOperation::Summary => "queue-summary",
            QueueOperation::Why { .. } => "queue-why",
        }
    }
}

/// Questions to the journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventOperation {
    /// Every event from a time on, oldest first, until now.
    Since {
        /// The first event's earliest time.
        time: Timestamp,
    },
    /// Every event from now on, until the asker hangs up.
    Tail,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CredentialRequest, Secret};

    #[test]
    fn requests_are_plain_json_and_come_back_whole() {
        for (operation, text) in [
            (Operation::Status, r#""status""#),
            (Operation::Queue(QueueOperation::Retry(Selector::All)), r#"{"queue":{"retry":"All"}}"#),
            (
                Operation::Credentials(CredentialOperation::Disable { user_name: "AKIA".to_owned() }),
                r#"{"credentials":{"disable":{"user_name":"AKIA"}}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&operation).unwrap(), text);
            assert_eq!(serde_json::from_str::<Operation>(text).unwrap(), operation);
        }
        assert!(serde_json::from_str::<Operation>(r#"{"queue":"dance"}"#).is_err());
    }

    #[test]
    fn a_log_never_shows_a_secret() {
        let operation = Operation::Credentials(CredentialOperation::Import {
            user_name: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: Secret::new("hunter2".to_owned()),
            request: CredentialRequest::default(),
        });
        assert!(!format!("{operation:?}").contains("hunter2"));
        assert_eq!(operation.name(), "credentials-import");
    }
}
