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

/// What it was before it could have quotas. A struct within a struct is stored as its fields.
#[derive(Serialize, Deserialize)]
struct CredentialV2 {
    first: CredentialV1,
    sandbox: bool,
}

impl Stored {
    /// As versions before this one read it too, if the credential has nothing that they did not
    /// know.
    pub(super) fn of(record: Record) -> Self {
        let Record { credential, verifier } = record;
        if credential.daily_quota.is_some() || credential.max_rate.is_some() {
            return Self::V3(Record { credential, verifier });
        }
        Self::V2(RecordV2 { credential: CredentialV2::of(credential), verifier })
    }

    pub(super) fn into_record(self) -> Record {
        match self {
            Self::V1(old) => Record { credential: old.credential.with(false), verifier: old.verifier },
            Self::V2(RecordV2 { credential: CredentialV2 { first, sandbox }, verifier }) => {
                Record { credential: first.with(sandbox), verifier }
            }
            Self::V3(record) => record,
        }
    }
}

impl CredentialV2 {
    /// Without its quotas.
    fn of(credential: Credential) -> Self {
        let sandbox = credential.sandbox;
        let first = CredentialV1 {
            user_name: credential.user_name,
            account: credential.account,
            label: credential.label,
            region: credential.region,
            created_at: credential.created_at,
            disabled: credential.disabled,
            recipient_overflow: credential.recipient_overflow,
        };
        Self { first, sandbox }
    }
}

impl CredentialV1 {
    fn with(self, sandbox: bool) -> Credential {
        Credential {
            user_name: self.user_name,
            account: self.account,
            label: self.label,
            region: self.region,
            created_at: self.created_at,
            disabled: self.disabled,
            recipient_overflow: self.recipient_overflow,
            sandbox,
            daily_quota: None,
            max_rate: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use postrider_base::{Clock, Random, SimDisk};

    use super::super::{CredentialOption, Credentials, NewCredential, TABLE};
    use super::*;
    use crate::{Error, Settings, samples};

    type First = (String, AccountId, String, String, Timestamp, bool, RecipientOverflow);
    type Second = (String, AccountId, String, String, Timestamp, bool, RecipientOverflow, bool);

    /// The forms of before, as they were written.
    #[derive(Serialize, Deserialize)]
    enum Before {
        V1(Old<First>),
        V2(Old<Second>),
    }

    #[derive(Serialize, Deserialize)]
    struct Old<T> {
        credential: T,
        verifier: Verifier,
    }

    #[tokio::test]
    async fn what_was_stored_by_earlier_versions_is_read() {
        let (store, _index) = samples::store(&SimDisk::new());
        let (first, second) = ("AKIAIOSFODNN7EXAMPLE".to_owned(), "AKIAIOSFODNN7EXAMPL2".to_owned());
        let (account, at, overflow) = (AccountId::default(), Timestamp::from_millis(5), RecipientOverflow::Defer);
        let text = |text: &str| text.to_owned();
        let verifier = || Verifier::of(b"secret");
        let before = store.table::<String, Before>(TABLE);
        let credential = (first.clone(), account, text("old"), text("us-east-1"), at, false, overflow);
        before.put(&first, &Before::V1(Old { credential, verifier: verifier() })).await.unwrap();
        let credential = (second.clone(), account, text("newer"), text("us-east-1"), at, false, overflow, true);
        before.put(&second, &Before::V2(Old { credential, verifier: verifier() })).await.unwrap();

        let (clock, random) = (Clock::system(), Random::seeded(1));
        let credentials = Credentials::open(&store, clock, random, &Settings::default()).unwrap();
        for (user_name, label, sandbox) in [(&first, "old", false), (&second, "newer", true)] {
            let found = credentials.get(user_name).unwrap();
            assert_eq!((found.label.as_str(), found.created_at, found.sandbox), (label, at, sandbox));
            assert_eq!((found.daily_quota, found.max_rate), (None, None));
            assert_eq!(credentials.authenticate(user_name, b"secret").unwrap().recipient_overflow, overflow);
        }
    }

    #[tokio::test]
    async fn what_has_no_quota_is_stored_as_earlier_versions_read_it() {
        let (store, _index) = samples::store(&SimDisk::new());
        let (clock, random) = (Clock::system(), Random::seeded(1));
        let credentials = Credentials::open(&store, clock, random, &Settings::default()).unwrap();
        let new = NewCredential { label: "shop".to_owned(), sandbox: true, ..NewCredential::default() };
        let made = credentials.create(new).await.unwrap().credential;
        let before = store.table::<String, Before>(TABLE);
        let stored = || before.get(&made.user_name);
        let Ok(Some(Before::V2(Old { credential, verifier: _ }))) = stored() else { panic!("not as before") };
        let first = (made.user_name.clone(), made.account, made.label.clone(), made.region.clone());
        assert_eq!((credential.0, credential.1, credential.2, credential.3), first);
        assert_eq!(
            (credential.4, credential.5, credential.6, credential.7),
            (made.created_at, false, RecipientOverflow::Reject, true)
        );

        for option in [CredentialOption::DailyQuota(Some(5)), CredentialOption::MaxRate(Some(5))] {
            credentials.set(&made.user_name, [option]).await.unwrap();
            assert!(stored().is_err());
        }
        let none = [CredentialOption::DailyQuota(None), CredentialOption::MaxRate(None)];
        credentials.set(&made.user_name, none).await.unwrap();
        assert!(matches!(stored(), Ok(Some(Before::V2(_)))));
        let renamed = |_, old: &Credential| Ok::<_, Error>(Some(Credential { label: "web".to_owned(), ..old.clone() }));
        credentials.edit(std::slice::from_ref(&made.user_name), renamed).await.unwrap();
        assert!(
            matches!(stored(), Ok(Some(Before::V2(Old { credential, .. }))) if credential.2 == "web"),
            "also in bulk"
        );
        credentials.set(&made.user_name, [CredentialOption::Label("shop".to_owned())]).await.unwrap();
        assert_eq!(credentials.get(&made.user_name), Some(made));
    }
}
