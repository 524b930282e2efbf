//! Every operator action as one [`Operation`] and its [`Response`]: the same set for the admin
//! socket of a running daemon and for the command line in process. No logic of its own: each
//! action is a call to the room that it is about.
//!
//! On the socket each request is one line of JSON and its answer is any number of lines; see
//! [`Socket`] and [`Client`].

mod accounts;
mod apply;
mod audit;
mod backup;
mod bans;
mod client;
mod control;
mod credentials;
mod dkim;
mod dns_plan;
mod doctor;
mod error;
mod events;
mod explain;
mod feedback;
mod identities;
mod message;
mod moment;
mod operation;
mod policies;
mod queue;
mod quota;
mod reputation;
mod response;
mod secret;
mod sending;
mod settings;
mod shaping;
mod site;
mod socket;
mod sts;
mod suppression;
mod trace;
mod why;
mod wire;
mod world;

pub use accounts::AccountOperation;
pub use apply::{
    APPLY_BATCH, Declared, DeclaredAccount, DeclaredConfigurationSet, DeclaredCredential, DeclaredIdentity,
    DeclaredKey, DeclaredKind, DeclaredPolicy, DeclaredPool, DeclaredState, StateChange, StateOperation,
};
pub use audit::user;
pub use backup::{Archive, ArchiveWriter, BackupItem, BackupRequest, FileSum, Manifest, Restored, restore};
pub use client::Client;
pub use control::{About, Control, Deps, ReloadRequest};
pub use credentials::{CredentialOperation, CredentialRequest};
pub use dkim::{DkimKeyView, DkimOperation};
pub use dns_plan::DnsPlanRequest;
pub use doctor::{DoctorOperation, Examination};
pub use error::{Error, ErrorKind};
pub use explain::{ExplainRequest, ExplainedRow};
pub use feedback::{FEEDBACK_READ_BYTES, FeedbackEffect, FeedbackReadRequest, FeedbackView};
pub use identities::{DkimAttributes, IdentityOperation, IdentityRow, IdentityTag, MailFromAttributes};
pub use operation::{BanOperation, EventOperation, IMPORT_BATCH, LIST_LIMIT, Operation, QueueOperation, StsOperation};
pub use policies::{PolicyOperation, PolicyRow, PolicyTest, PolicyTestRequest, PolicyTestRow, PolicyWords};
pub use quota::QuotaView;
pub use reputation::{ReputationOperation, ReputationRow};
pub use response::{
    AttemptView, BanView, CredentialView, LifeStep, MessageLife, NewCredential, PolicyView, QueueMessage, QueueRow,
    QueueSummaryRow, RecipientRow, ReloadReport, Response, SpoolStat, Status, TracedLine,
};
pub use secret::Secret;
pub use sending::{ConfigurationSetOperation, PoolOperation, SourceDay, SourceOperation, SourceRow, WarmUpRow};
pub use settings::Settings;
pub use shaping::{
    FeedbackRow, PauseRow, ProviderRow, ReplyRow, RuleRow, ShapingOperation, ShapingRow, ShapingState, SiteShapingRow,
};
pub use site::{RefusalRow, SiteRow};
pub use socket::Socket;
pub use suppression::{GlobalSuppressionOperation, SuppressionOperation};
pub use why::{MessageWhy, RecipientWhy};
pub use world::World;
