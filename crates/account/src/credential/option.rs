//! What of a credential can be changed, one thing at a time.

use serde::{Deserialize, Serialize};

use super::{Credential, RecipientOverflow};

/// One thing of a credential, to be changed. Whether it is refused is not among them: see
/// [`Credentials::disable`](super::Credentials::disable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialOption {
    /// [`Credential::label`].
    Label(String),
    /// [`Credential::recipient_overflow`].
    RecipientOverflow(RecipientOverflow),
    /// [`Credential::sandbox`].
    Sandbox(bool),
    /// [`Credential::daily_quota`].
    DailyQuota(Option<u64>),
    /// [`Credential::max_rate`].
    MaxRate(Option<u32>),
}

impl Credential {
    /// Makes one change; whether the credential may be so, is looked at when it is kept.
    pub(super) fn apply(&mut self, option: CredentialOption) {
        match option {
            CredentialOption::Label(label) => self.label = label,
            CredentialOption::RecipientOverflow(overflow) => self.recipient_overflow = overflow,
            CredentialOption::Sandbox(sandbox) => self.sandbox = sandbox,
            CredentialOption::DailyQuota(quota) => self.daily_quota = quota,
            CredentialOption::MaxRate(rate) => self.max_rate = rate,
        }
    }
}
