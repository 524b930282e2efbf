//! What an operator is told. These are the stable JSON shapes of `--json`.

use std::net::IpAddr;

use postrider_account::{
    AuditRecord, ConfigurationSet, GloballySuppressed, Pool, RecipientOverflow, Suppressed, Tenant,
};
use postrider_base::{Network, Timestamp};
use postrider_mail::{AccountId, HostRecord, MessageId};
use postrider_mailauth::records::Plan;
use serde::{Deserialize, Serialize};

use crate::{
    BackupItem, Declared, DkimKeyView, Examination, ExplainedRow, FeedbackView, IdentityRow, MessageWhy, PauseRow,
    PolicyRow, PolicyTest, QuotaView, ReputationRow, Secret, ShapingRow, SiteRow, SourceRow, moment, secret,
};

/// One item of an answer; most operations answer one, a stream answers many.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// A page of accounts, in the order of their numbers.
    Accounts(Vec<Tenant>),
    /// What assigning a source to a pool did.
    Assigned {
        /// The pool that it has left for that.
        left: Option<String>,
    },
    /// A page of the audit log, the oldest first.
    AuditRecords(Vec<AuditRecord>),
    /// The next part of a copy of the state.
    Backup(BackupItem),
    /// The bans in effect, by address.
    Bans(Vec<BanView>),
    /// How many things an action changed.
    Changed {
        /// Messages, addresses or credentials.
        count: u64,
    },
    /// What compacting the durable queue gave back.
    Compacted {
        /// Bytes that it took on the disk before.
        before: u64,
        /// Bytes that it takes now.
        after: u64,
    },
    /// Configuration sets, by name.
    ConfigurationSets(Vec<ConfigurationSet>),
    /// A credential that was just made or taken over.
    Credential(NewCredential),
    /// A page of the node's credentials, or one of them.
    Credentials(Vec<CredentialView>),
    /// A page of what can be declared, in the order in which it can be made.
    Declared(Vec<Declared>),
    /// DKIM keys, by domain and selector.
    DkimKeys(Vec<DkimKeyView>),
    /// Identities, in the order of their names.
    Identities(Vec<IdentityRow>),
    /// What a domain should publish.
    DnsPlan(Box<Plan>),
    /// What a message that came back says.
    FeedbackRead(Box<FeedbackView>),
    /// One event of the journal: the JSON line, in SES's shape.
    Event(String),
    /// What the doctor found.
    Examined(Box<Examination>),
    /// What would be used for mail of a sender.
    Explained(Vec<ExplainedRow>),
    /// A page of the global suppression list, in the order of the addresses.
    GloballySuppressed(Vec<GloballySuppressed>),
    /// Whether what was selected is now held.
    Held {
        /// Held or released.
        held: bool,
    },
    /// The life of a message.
    Message(Box<MessageLife>),
    /// None of a batch of changes was made.
    NotApplied {
        /// The place in the batch of the one that is refused.
        index: usize,
        /// Why.
        reason: String,
    },
    /// The policy of a recipient domain.
    Policy(PolicyView),
    /// Policies of a credential or identity, by name.
    Policies(Vec<PolicyRow>),
    /// What the policies say about a message.
    PolicyTest(Box<PolicyTest>),
    /// Dedicated pools, by name.
    Pools(Vec<Pool>),
    /// One waiting message.
    QueueMessage(Box<QueueMessage>),
    /// Waiting messages.
    QueueMessages(Vec<QueueRow>),
    /// The queue by account and recipient domain.
    QueueSummary(Vec<QueueSummaryRow>),
    /// A page of what accounts may send and have sent, by account.
    Quotas(Vec<QuotaView>),
    /// A page of rates and what follows from them, accounts before their sets.
    Reputations(Vec<ReputationRow>),
    /// What a reload did.
    Reloaded(ReloadReport),
    /// What pauses.
    Pauses(Vec<PauseRow>),
    /// How much mail goes somewhere.
    Shaping(Box<ShapingRow>),
    /// The sites that delivery knows.
    Sites(Vec<SiteRow>),
    /// The addresses that mail leaves from, by name.
    Sources(Vec<SourceRow>),
    /// The durable queue's figures.
    SpoolStat(SpoolStat),
    /// What this node is and how it fares.
    Status(Box<Status>),
    /// A page of the suppression list, in the order of the addresses.
    Suppressed(Vec<Suppressed>),
    /// Something that was said in a session.
    Traced(TracedLine),
    /// Why a message has not left.
    Why(Box<MessageWhy>),
}

/// An address that may not talk to us for a while.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BanView {
    /// The address; of IPv6 the /64 network.
    pub network: Network,
    /// When the ban began.
    #[serde(with = "moment")]
    pub since: Timestamp,
    /// When it ends.
    #[serde(with = "moment")]
    pub until: Timestamp,
    /// How many bans the address has had, with this one.
    pub times: u32,
    /// User names that were tried last.
    pub users: Vec<String>,
}

/// One line of a session's transcript.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TracedLine {
    /// When it was said.
    #[serde(with = "moment")]
    pub at: Timestamp,
    /// The session's id, which its banner shows and the log names.
    pub session: String,
    /// The client's address.
    pub peer: IpAddr,
    /// `client`, `server`, or `note` for something that happened.
    pub speaker: String,
    /// What was said, without secrets and content.
    pub text: String,
    /// Lines lost before this one, because they were not read in time.
    pub lost: u64,
}

/// A credential at the one moment when its secret is known.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NewCredential {
    /// The user name that clients give to AUTH.
    pub user_name: String,
    /// The SMTP password that clients give to AUTH, when the secret was made here.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "secret::shown")]
    pub smtp_password: Option<Secret>,
    /// The secret access key, when it was made here.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "secret::shown")]
    pub secret_access_key: Option<Secret>,
    /// The account that sends with it.
    pub account: AccountId,
}

/// A credential without its secret.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CredentialView {
    /// The user name that clients give to AUTH.
    pub user_name: String,
    /// The account that sends with it.
    pub account: AccountId,
    /// A name for people.
    pub label: String,
    /// The region that its password was derived for.
    pub region: String,
    /// When it was made or taken over.
    #[serde(with = "moment")]
    pub created: Timestamp,
    /// Whether AUTH with it is refused.
    pub disabled: bool,
    /// What its messages with too many recipients meet: `reject` or `defer`.
    pub recipient_overflow: RecipientOverflow,
    /// Whether its messages go only to verified identities and the simulator.
    #[serde(default)]
    pub sandbox: bool,
    /// Most recipients in any 24 hours, of what its account may send: the bound in force, in
    /// the sandbox SES's where it has none of its own.
    #[serde(default)]
    pub daily_quota: Option<u64>,
    /// Most recipients a second, likewise.
    #[serde(default)]
    pub max_rate: Option<u32>,
    /// Recipients of the last 24 hours.
    #[serde(default)]
    pub sent_last_24_hours: u64,
}

/// The policy of a recipient domain (MTA-STS, RFC 8461) that is kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PolicyView {
    /// Whose policy it is.
    pub domain: String,
    /// `enforce`, `testing` or `none`.
    pub mode: String,
    /// Names of its mail hosts; `*.` stands for one label more.
    pub mx: Vec<String>,
    /// The id that it was announced with.
    pub id: String,
    /// When it was fetched last.
    #[serde(with = "moment")]
    pub fetched: Timestamp,
    /// When it ends, unless it is fetched again before.
    #[serde(with = "moment")]
    pub expires: Timestamp,
}

/// One account's messages to one recipient domain.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct QueueSummaryRow {
    /// Who sends.
    pub account: AccountId,
    /// Where to.
    pub domain: String,
    /// Waiting messages.
    pub messages: u64,
    /// Those whose next attempt is due, in delivery or not.
    pub due_now: u64,
    /// Those in delivery right now.
    pub in_delivery: u64,
    /// Whether an operator holds the queue.
    pub held: bool,
    /// Whether delivery takes nothing from the queue at the moment.
    pub parked: bool,
    /// When the oldest was accepted.
    #[serde(with = "moment::optional")]
    pub oldest: Option<Timestamp>,
    /// When the next attempt is due.
    #[serde(with = "moment::optional")]
    pub next_due: Option<Timestamp>,
}

/// One waiting message's recipients in one domain.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct QueueRow {
    /// The message.
    pub id: MessageId,
    /// Who sends.
    pub account: AccountId,
    /// When it was accepted.
    #[serde(with = "moment")]
    pub accepted_at: Timestamp,
    /// Its size in bytes.
    pub size: u64,
    /// The envelope's sender; empty for the null reverse-path.
    pub sender: String,
    /// The recipients' domain.
    pub domain: String,
    /// The recipients in that domain that still wait.
    pub recipients: Vec<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due; none while it is held.
    #[serde(with = "moment::optional")]
    pub next_attempt: Option<Timestamp>,
    /// `waiting`, `deferred`, `held` or `in delivery`.
    pub state: String,
    /// What the last attempt said, in one line.
    pub last_reply: Option<String>,
}

/// One waiting message with all its recipients.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct QueueMessage {
    /// The message.
    pub id: MessageId,
    /// Who sends.
    pub account: AccountId,
    /// When it was accepted.
    #[serde(with = "moment")]
    pub accepted_at: Timestamp,
    /// When it is given up.
    #[serde(with = "moment")]
    pub expires_at: Timestamp,
    /// Its size in bytes.
    pub size: u64,
    /// The envelope's sender; empty for the null reverse-path.
    pub sender: String,
    /// Whether an operator holds it.
    pub held: bool,
    /// The credential that it came with.
    pub credential: Option<String>,
    /// The client's address.
    pub client_ip: Option<String>,
    /// What the client called itself.
    pub client_name: Option<String>,
    /// The recipients, in the envelope's order.
    pub recipients: Vec<RecipientRow>,
}

/// How one recipient of a waiting message stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RecipientRow {
    /// The address.
    pub address: String,
    /// `waiting`, `deferred`, `held`, `in delivery` or `done`.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// What the last attempt said, in one line.
    pub last_reply: Option<String>,
    /// The host that the last attempt spoke to.
    pub remote: Option<String>,
    /// When the next attempt is due.
    #[serde(with = "moment::optional")]
    pub next_attempt: Option<Timestamp>,
}

/// Everything that happened to one message.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MessageLife {
    /// The message.
    pub id: MessageId,
    /// What happened, oldest first.
    pub steps: Vec<LifeStep>,
    /// How it stands in the queue, while it is there.
    pub waiting: Option<QueueMessage>,
}

/// One thing that happened to a message.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LifeStep {
    /// When.
    #[serde(with = "moment")]
    pub at: Timestamp,
    /// `accepted`, `delivered`, `deferred`, `bounced`, `suppressed` or `deleted`.
    pub what: String,
    /// The recipient, unless the step is about the whole message.
    pub recipient: Option<String>,
    /// The remote host, where there was one.
    pub remote: Option<String>,
    /// The enhanced status code.
    pub status: Option<String>,
    /// The reply or the reason, in one line.
    pub detail: String,
    /// Where the time went, in seconds: before the queue, in it, connecting, transmitting.
    pub delays: Option<String>,
    /// When the next attempt is due, for a deferral.
    #[serde(with = "moment::optional")]
    pub next_attempt: Option<Timestamp>,
    /// How the attempt went, where that was recorded.
    pub attempt: Option<AttemptView>,
}

/// How an attempt went. Several recipients may have had one together.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AttemptView {
    /// Which of the recipient's attempts it was, from 1.
    pub number: u32,
    /// When it began; it ended when the step says.
    #[serde(with = "moment")]
    pub began: Timestamp,
    /// The site whose hosts were tried.
    pub site: String,
    /// What we called ourselves.
    pub ehlo: String,
    /// Who was tried and what was said, in order; with the last reply alone for
    /// a host that took the message at once.
    pub hosts: Vec<HostRecord>,
    /// Hosts before those that are not listed.
    pub omitted: u16,
}

/// What a reload did.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ReloadReport {
    /// What took effect.
    pub applied: Vec<String>,
    /// Changed keys that take effect at the next start.
    pub needs_restart: Vec<String>,
}

/// The durable queue's figures.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SpoolStat {
    /// Messages that wait or are in delivery.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Messages that are only in the log and in memory, not yet in the index.
    pub in_memory: u64,
    /// Queues: accounts by recipient domains.
    pub queues: u64,
    /// Parts of messages that are in delivery right now.
    pub in_delivery: u64,
    /// Whether everything is held, what comes later too.
    #[serde(default)]
    pub held: bool,
    /// Bytes of bodies kept in memory.
    pub body_memory: u64,
    /// Bytes that the log takes on disk.
    pub disk_bytes: u64,
    /// Of those, bytes of bodies whose messages have waited for long.
    #[serde(default)]
    pub cold_bytes: u64,
    /// Bytes of messages taken since the start.
    #[serde(default)]
    pub accepted_bytes: u64,
    /// Bytes written to the log since the start.
    #[serde(default)]
    pub written_bytes: u64,
    /// Whether old mail is still being read, and nothing is delivered yet.
    #[serde(default)]
    pub recovering: bool,
    /// Files of the log.
    pub segments: u64,
    /// Where the index of waiting messages is: `on disk`, or `in memory` after sled failed.
    pub index: String,
    /// Changes that the index has not applied yet.
    pub index_backlog: u64,
    /// Damaged records put into quarantine since the start.
    pub quarantined: u64,
    /// How far each reader of the log has come.
    pub feeds: Vec<(String, u64)>,
}

/// What this node is and how it fares.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// postrider's version.
    pub version: String,
    /// The name that the node greets with.
    pub hostname: String,
    /// The region that credentials are derived for.
    pub region: String,
    /// The node's number, in hexadecimal as in its message ids.
    pub node: String,
    /// The random id that was made with the state directory.
    pub instance: String,
    /// The state directory.
    pub state_dir: String,
    /// When the daemon started; none when no daemon runs.
    #[serde(with = "moment::optional")]
    pub running_since: Option<Timestamp>,
    /// The daemon's process id.
    pub pid: Option<u32>,
    /// Addresses that take mail.
    pub listeners: Vec<String>,
    /// Whether what the DNS says is validated, in a few words; none when no daemon runs.
    #[serde(default)]
    pub dnssec: Option<String>,
    /// What an operator should look at, one line each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The durable queue.
    pub spool: SpoolStat,
}
