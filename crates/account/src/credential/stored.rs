//! The form of a credential on disk.

use postrider_base::Timestamp;
use postrider_mail::AccountId;
use serde::{Deserialize, Serialize};

use super::{Credential, RecipientOverflow};
use crate::derive::Verifier;

/// A later form becomes another variant, so that rows written today stay readable.
#[derive(Serialize, Deserialize)]
pub(super) enum Stored {
    V1(RecordV1),
    V2(RecordV2),
    V3(Record),
}

/// A credential, and what tells that a client has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) credential: Credential,
    pub(super) verifier: Verifier,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RecordV1 {
    credential: CredentialV1,
    verifier: Verifier,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RecordV2 {
    credential: CredentialV2,
    verifier: Verifier,
}

/// What a credential was before it could be in the sandbox.
#[derive(Serialize, Deserialize)]
struct CredentialV1 {
    user_name: String,
    account: AccountId,
    label: String,
    region: String,
    created_at: Timestamp,
    disabled: bool,
    recipient_overflow: RecipientOverflow,
}

/// What it was before it could have quotas.
#[derive(Serialize, Deserialize)]
struct CredentialV2 {
    user_name: String,
    account: AccountId,
    label: String,
    region: String,
    created_at: Timestamp,
    disabled: bool,
    recipient_overflow: RecipientOverflow,
    sandbox: bool,
}

impl Stored {
    pub(super) fn into_record(self) -> Record {
        match self {
            Self::V1(old) => Record { credential: CredentialV2::from(old.credential).into(), verifier: old.verifier },
            Self::V2(old) => Record { credential: old.credential.into(), verifier: old.verifier },
            Self::V3(record) => record,
        }
    }
}

impl From<CredentialV1> for CredentialV2 {
    fn from(old: CredentialV1) -> Self {
        Self {
            user_name: old.user_name,
            account: old.account,
            label: old.label,
            region: old.region,
            created_at: old.created_at,
            disabled: old.disabled,
            recipient_overflow: old.recipient_overflow,
            sandbox: false,
        }
    }
}

impl From<CredentialV2> for Credential {
    fn from(old: CredentialV2) -> Self {
        Self {
            user_name: old.user_name,
            account: old.account,
            label: old.label,
            region: old.region,
            created_at: old.created_at,
            disabled: old.disabled,
            recipient_overflow: old.recipient_overflow,
            sandbox: old.sandbox,
            daily_quota: None,
            max_rate: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old() -> CredentialV1 {
        CredentialV1 {
            user_name: "AKIAIOSFODNN7EXAMPLE".into(),
            account: AccountId::default(),
            label: "old".into(),
            region: "us-east-1".into(),
            created_at: Timestamp::from_millis(5),
            disabled: true,
            recipient_overflow: RecipientOverflow::Defer,
        }
    }

    #[test]
    fn what_was_stored_by_earlier_versions_is_read() {
        let verifier = || Verifier::of(b"secret");
        let first = Stored::V1(RecordV1 { credential: old(), verifier: verifier() });
        let second = CredentialV2 { sandbox: true, ..old().into() };
        let second = Stored::V2(RecordV2 { credential: second, verifier: verifier() });
        for (stored, in_sandbox) in [(first, false), (second, true)] {
            let record = stored.into_record();
            let Credential { label, disabled, sandbox, daily_quota, max_rate, .. } = record.credential;
            assert_eq!((label.as_str(), disabled, sandbox), ("old", true, in_sandbox));
            assert_eq!((daily_quota, max_rate), (None, None));
            assert!(record.verifier.matches(b"secret"));
        }
    }
}
