//! What the rules about an account's reputation have come to.

use serde::{Deserialize, Serialize};

/// Where an account stands with the rules about its bounces and complaints, in SES's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EnforcementStatus {
    /// Nothing to say.
    #[default]
    Healthy,
    /// A rate is over its first threshold: the operator is to look at it.
    UnderReview,
}

impl EnforcementStatus {
    /// SES's spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::UnderReview => "UNDER_REVIEW",
        }
    }
}
