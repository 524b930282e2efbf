//! What is known of an identity's proof, how its mail is signed, and the domain of its
//! return path. Only kept here: who looks at the world changes it.

use postrider_base::Timestamp;
use postrider_mail::Domain;
use serde::{Deserialize, Serialize};

/// How far a proof has come: of an identity, or of a MAIL FROM domain. SES's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VerificationStatus {
    /// Nobody has asked for it.
    #[default]
    NotStarted,
    /// It is looked for.
    Pending,
    /// It is there, and looked at again and again.
    Success,
    /// It was there and is not any more; it is looked for.
    TemporaryFailure,
    /// It was looked for too long. Only a new start leads out.
    Failed,
}

impl VerificationStatus {
    /// As SES's second API writes it: `TEMPORARY_FAILURE`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "NOT_STARTED",
            Self::Pending => "PENDING",
            Self::Success => "SUCCESS",
            Self::TemporaryFailure => "TEMPORARY_FAILURE",
            Self::Failed => "FAILED",
        }
    }
}

/// The proof that an identity is its account's.
///
/// That of a domain is its DKIM records in the DNS; that of an address is a mailed link
/// that somebody followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verification {
    /// How far it has come.
    pub status: VerificationStatus,
    /// Since when it has that status.
    pub since: Timestamp,
    /// When it was looked at last.
    pub checked: Option<Timestamp>,
    /// What was wrong then, one printable line; none when it was as it should be.
    pub found_wrong: Option<String>,
    /// The link that was mailed last. Of an address alone.
    pub link: Option<MailedLink>,
}

impl Verification {
    /// Looked for from this moment on.
    #[must_use]
    pub fn pending(since: Timestamp) -> Self {
        Self { status: VerificationStatus::Pending, since, ..Self::default() }
    }
}

/// A link that was mailed to an address. A later one takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailedLink {
    /// When.
    pub sent: Timestamp,
    /// Tells it from earlier ones to the same address.
    pub serial: u64,
}

/// How an identity's mail is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DkimOptions {
    /// Whether it is at all. Keys stay when it is not.
    pub enabled: bool,
    /// Whether it gets a second signature, by Ed25519 (RFC 8463).
    pub ed25519: bool,
}

impl Default for DkimOptions {
    fn default() -> Self {
        Self { enabled: true, ed25519: false }
    }
}

/// A custom MAIL FROM domain: that of the return path of an identity's mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailFrom {
    /// The domain, which lies inside the identity's.
    pub domain: Domain,
    /// What becomes of mail while the domain is not as it should be.
    #[serde(default)]
    pub on_failure: MailFromFailure,
    /// How far its proof has come; never [`VerificationStatus::NotStarted`].
    #[serde(default)]
    pub status: VerificationStatus,
    /// Since when it has that status.
    #[serde(default)]
    pub since: Timestamp,
    /// When its records were looked at last.
    #[serde(default)]
    pub checked: Option<Timestamp>,
    /// What was wrong with them, one printable line; none when they were as they should be.
    #[serde(default)]
    pub found_wrong: Option<String>,
}

impl MailFrom {
    /// Looked for from this moment on.
    #[must_use]
    pub fn pending(domain: Domain, on_failure: MailFromFailure, since: Timestamp) -> Self {
        let status = VerificationStatus::Pending;
        Self { domain, on_failure, status, since, checked: None, found_wrong: None }
    }

    /// Whether return paths may be in the domain.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.status == VerificationStatus::Success
    }
}

/// What SES calls `BehaviorOnMxFailure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailFromFailure {
    /// It is sent with the return path that it would have without a custom one.
    #[default]
    #[serde(rename = "USE_DEFAULT_VALUE")]
    UseDefault,
    /// It is refused.
    #[serde(rename = "REJECT_MESSAGE")]
    Reject,
}

impl MailFromFailure {
    /// As SES writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UseDefault => "USE_DEFAULT_VALUE",
            Self::Reject => "REJECT_MESSAGE",
        }
    }
}
