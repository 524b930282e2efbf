//! SMTP credentials: made, imported, switched off, and checked.

mod bulk;
mod option;
mod stored;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::RwLock;
use postrider_base::{Clock, Random, Timestamp};
use postrider_mail::AccountId;
use postrider_store::{Store, Table};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};
use zeroize::Zeroizing;

use crate::derive::Verifier;
use crate::lookup::Lookup;
use crate::{Error, ImportedSecret, Limits, Settings, derive_smtp_password};
use stored::{Record, Stored};

pub use option::CredentialOption;

/// Name of the table in the store.
const TABLE: &str = "credentials";

/// Longest label, in characters, as in SES.
const MAX_LABEL: usize = 64;

/// What every long-term access key id begins with.
const USER_PREFIX: &str = "AKIA";

/// Length of a user name, prefix included.
const USER_LEN: usize = 20;

/// What happens to the recipient after the last one that a message may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientOverflow {
    /// The whole message is refused at the end of DATA, as SES does, so that no client
    /// takes a part for the whole.
    #[default]
    Reject,
    /// That RCPT gets a 4xx. Smarthosts send the rest in a next transaction.
    Defer,
}

/// An SMTP user, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// 20 characters, `AKIA` and 16 of `A-Z0-9`.
    pub user_name: String,
    /// Whose mail it submits.
    pub account: AccountId,
    /// The operator's note, at most 64 characters, may be empty.
    pub label: String,
    /// The region that its SMTP password was derived for.
    pub region: String,
    /// When it was made or imported.
    pub created_at: Timestamp,
    /// Whether it is refused for the time being.
    pub disabled: bool,
    /// What its messages with too many recipients meet.
    pub recipient_overflow: RecipientOverflow,
    /// Whether its messages may only go to verified identities of the account and to the
    /// simulator.
    pub sandbox: bool,
    /// Most recipients in any 24 hours, of what the account may send; none is no bound but the
    /// account's.
    pub daily_quota: Option<u64>,
    /// Most recipients a second, over a while, likewise.
    pub max_rate: Option<u32>,
}

/// What the operator chooses for a new credential.
#[derive(Clone, Debug, Default)]
pub struct NewCredential {
    /// Whose mail it will submit.
    pub account: AccountId,
    /// A note of at most 64 characters without control characters.
    pub label: String,
    /// The region to derive the SMTP password for; any string.
    pub region: String,
    /// What its messages with too many recipients meet.
    pub recipient_overflow: RecipientOverflow,
    /// Whether it is for trying things out: as [`Credential::sandbox`] says.
    pub sandbox: bool,
    /// Most recipients in any 24 hours, at least 1.
    pub daily_quota: Option<u64>,
    /// Most recipients a second, at least 1.
    pub max_rate: Option<u32>,
}

/// A credential at the only moment when its secrets can be seen.
#[derive(Debug)]
pub struct Issued {
    /// What is kept and can be listed.
    pub credential: Credential,
    /// The secret access key, 40 characters. It is kept nowhere.
    pub secret_access_key: SecretString,
    /// The SMTP password, 44 characters. Only its SHA-256 is kept.
    pub smtp_password: SecretString,
}

/// A client that has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Whose mail it submits.
    pub account: AccountId,
    /// The user name it gave.
    pub user_name: String,
    /// What its messages with too many recipients meet.
    pub recipient_overflow: RecipientOverflow,
}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The client's: no such user, or not its password; which of the two is not told.
    #[error("unknown user name or wrong password")]
    Invalid,
    /// The operator's choice: the password is right, the credential is switched off.
    #[error("the credential is disabled")]
    Disabled,
}

/// All SMTP credentials. Clones share them.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    table: Table<String, Stored>,
    /// The whole table, for those who list it.
    known: RwLock<HashMap<String, Arc<Record>>>,
    /// The same, for those who look for one: each message does.
    lookup: Lookup<String, Record>,
    /// Held across a change of `table` and `known`, so that the two agree.
    changing: Mutex<()>,
    clock: Clock,
    random: Random,
    max: u64,
}

impl Credential {
    /// # Errors
    /// [`Error::InvalidLabel`] or [`Error::Invalid`].
    fn check(&self) -> Result<(), Error> {
        if self.label.chars().count() > MAX_LABEL {
            return Err(Error::InvalidLabel("it has more than 64 characters"));
        }
        if self.label.chars().any(char::is_control) {
            return Err(Error::InvalidLabel("it has a control character"));
        }
        if self.daily_quota == Some(0) || self.max_rate == Some(0) {
            let reason = "a quota is at least 1; to have it send nothing, disable it";
            return Err(Error::Invalid { what: "credential", reason });
        }
        Ok(())
    }
}

impl Record {
    /// What comes of having proved to be this one.
    fn grant(&self) -> Result<Authenticated, AuthError> {
        let Credential { account, user_name, recipient_overflow, disabled, .. } = &self.credential;
        if *disabled {
            return Err(AuthError::Disabled);
        }
        Ok(Authenticated { account: *account, user_name: user_name.clone(), recipient_overflow: *recipient_overflow })
    }
}

impl Credentials {
    /// Whether there is such a credential at this moment, and it is not disabled.
    pub(crate) fn exist(&self, user_name: &str) -> bool {
        self.0.record(user_name).is_some_and(|record| !record.credential.disabled)
    }

    /// None comes, changes or goes as long as what this gives is kept.
    pub(crate) async fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().await
    }
}

impl Inner {
    fn record(&self, user_name: &str) -> Option<Arc<Record>> {
        self.lookup.find(user_name, |name| name == user_name)
    }
}

impl Credentials {
    pub(crate) fn open(store: &Store, clock: Clock, random: Random, settings: &Settings) -> Result<Self, Error> {
        let table = store.table::<String, Stored>(TABLE);
        let mut known = HashMap::new();
        for row in table.scan() {
            let (name, stored) = row?;
            known.insert(name, Arc::new(stored.into_record()));
        }
        let lookup = Lookup::new();
        lookup.change(known.iter().map(|(name, record)| (name.clone(), Some(record.clone()))));
        Ok(Self(Arc::new(Inner {
            table,
            known: RwLock::new(known),
            lookup,
            changing: Mutex::new(()),
            clock,
            random,
            max: settings.max_credentials,
        })))
    }

    /// Makes a credential with a new user name and secret. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::InvalidLabel`], [`Error::Invalid`], [`Error::Full`] or [`Error::Store`].
    pub async fn create(&self, new: NewCredential) -> Result<Issued, Error> {
        let secret_access_key = self.new_secret();
        let smtp_password = derive_smtp_password(&secret_access_key, &new.region);
        let credential = self.insert(self.new_user_name(), &smtp_password, new).await?;
        Ok(Issued { credential, secret_access_key, smtp_password })
    }

    /// Takes over a user name and its secret from SES, so that clients change nothing
    /// but the host. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::InvalidUserName`], [`Error::UserExists`], [`Error::InvalidLabel`],
    /// [`Error::Invalid`], [`Error::Full`] or [`Error::Store`].
    pub async fn import(
        &self,
        user_name: &str,
        secret: ImportedSecret,
        new: NewCredential,
    ) -> Result<Credential, Error> {
        check_user_name(user_name)?;
        let smtp_password = secret.into_smtp_password(&new.region);
        self.insert(user_name.to_owned(), &smtp_password, new).await
    }

    /// All credentials, in the order of their user names.
    #[must_use]
    pub fn list(&self) -> Vec<Credential> {
        let known = self.0.known.read();
        let mut all: Vec<_> = known.values().map(|r| r.credential.clone()).collect();
        drop(known);
        all.sort_by(|a, b| a.user_name.cmp(&b.user_name));
        all
    }

    /// One credential.
    #[must_use]
    pub fn get(&self, user_name: &str) -> Option<Credential> {
        self.0.record(user_name).map(|record| record.credential.clone())
    }

    /// Whether there is such a credential, and it is in the sandbox: at this moment, whatever
    /// it was when a client proved to have it.
    #[must_use]
    pub fn is_sandboxed(&self, user_name: &str) -> bool {
        self.0.record(user_name).is_some_and(|record| record.credential.sandbox)
    }

    /// How much the credential may send at this moment, beside the bounds of its account. One
    /// that there is not has no bounds.
    #[must_use]
    pub fn limits(&self, user_name: &str) -> Limits {
        self.0.record(user_name).map_or_else(Limits::default, |record| Limits::of_credential(&record.credential))
    }

    /// Refuses the credential from now on, and the next message of sessions that have used it.
    /// Durable when it returns; disabling twice is no error.
    ///
    /// # Errors
    /// [`Error::NoSuchUser`] or [`Error::Store`].
    pub async fn disable(&self, user_name: &str) -> Result<Credential, Error> {
        self.update(user_name, |c| c.disabled = true).await
    }

    /// Accepts the credential again. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NoSuchUser`] or [`Error::Store`].
    pub async fn enable(&self, user_name: &str) -> Result<Credential, Error> {
        self.update(user_name, |c| c.disabled = false).await
    }

    /// Changes the credential. Durable when it returns, and holds for the next message; what its
    /// messages with too many recipients meet, for the next session.
    ///
    /// # Errors
    /// [`Error::NoSuchUser`], [`Error::InvalidLabel`], [`Error::Invalid`] or [`Error::Store`].
    pub async fn set(
        &self,
        user_name: &str,
        options: impl IntoIterator<Item = CredentialOption>,
    ) -> Result<Credential, Error> {
        self.update(user_name, |credential| options.into_iter().for_each(|option| credential.apply(option))).await
    }

    /// Forgets the credential. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::NoSuchUser`] or [`Error::Store`].
    pub async fn delete(&self, user_name: &str) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        if !self.0.known.read().contains_key(user_name) {
            return Err(Error::NoSuchUser(user_name.to_owned()));
        }
        self.0.table.delete(&user_name.to_owned()).await?;
        self.0.known.write().remove(user_name);
        self.0.lookup.change([(user_name.to_owned(), None)]);
        Ok(())
    }

    /// Whether `password` is the SMTP password of `user_name`. Answers from memory, and
    /// takes the same time for an unknown user, a wrong password and a right one: a
    /// SHA-256 and a constant-time comparison.
    ///
    /// # Errors
    /// [`AuthError::Invalid`]; [`AuthError::Disabled`] only to those who know the password.
    pub fn authenticate(&self, user_name: &str, password: &[u8]) -> Result<Authenticated, AuthError> {
        let record = self.0.record(user_name);
        let verifier = record.as_ref().map_or(Verifier::unmatched(), |record| record.verifier);
        let right = verifier.matches(password);
        match record {
            Some(record) if right => record.grant(),
            _ => Err(AuthError::Invalid),
        }
    }

    /// The credential of this user name, for a client that has proved by other means that
    /// it may use it.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] when there is none; [`AuthError::Disabled`].
    pub fn find(&self, user_name: &str) -> Result<Authenticated, AuthError> {
        let record = self.0.record(user_name);
        record.ok_or(AuthError::Invalid)?.grant()
    }

    async fn insert(
        &self,
        user_name: String,
        smtp_password: &SecretString,
        new: NewCredential,
    ) -> Result<Credential, Error> {
        let record = Record {
            credential: Credential {
                user_name,
                account: new.account,
                label: new.label,
                region: new.region,
                created_at: self.0.clock.now(),
                disabled: false,
                recipient_overflow: new.recipient_overflow,
                sandbox: new.sandbox,
                daily_quota: new.daily_quota,
                max_rate: new.max_rate,
            },
            verifier: Verifier::of(smtp_password.expose_secret().as_bytes()),
        };
        record.credential.check()?;
        let _changing = self.0.changing.lock().await;
        {
            let known = self.0.known.read();
            if known.contains_key(&record.credential.user_name) {
                return Err(Error::UserExists(record.credential.user_name));
            }
            if known.len() as u64 >= self.0.max {
                return Err(Error::Full { setting: "max_credentials", bound: self.0.max });
            }
        }
        self.write(record).await
    }

    async fn update(&self, user_name: &str, change: impl FnOnce(&mut Credential)) -> Result<Credential, Error> {
        let _changing = self.0.changing.lock().await;
        let found = self.0.known.read().get(user_name).cloned();
        let Some(found) = found else {
            return Err(Error::NoSuchUser(user_name.to_owned()));
        };
        let mut record = Record::clone(&found);
        change(&mut record.credential);
        record.credential.check()?;
        self.write(record).await
    }

    /// To the store, then to memory. The caller holds `changing`.
    async fn write(&self, record: Record) -> Result<Credential, Error> {
        let credential = record.credential.clone();
        let stored = Stored::of(record.clone());
        self.0.table.put(&credential.user_name, &stored).await?;
        let name = credential.user_name.clone();
        let record = Arc::new(record);
        self.0.known.write().insert(name.clone(), record.clone());
        self.0.lookup.change([(name, Some(record))]);
        Ok(credential)
    }

    fn new_user_name(&self) -> String {
        let random = self.0.random.alphanumeric(USER_LEN - USER_PREFIX.len());
        format!("{USER_PREFIX}{random}")
    }

    /// 30 random bytes in base64: 40 characters of the alphabet that AWS's keys have.
    fn new_secret(&self) -> SecretString {
        let mut bytes = Zeroizing::new([0; 30]);
        self.0.random.fill(bytes.as_mut_slice());
        SecretString::from(STANDARD.encode(bytes.as_slice()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.0.known.read().len();
        f.debug_struct("Credentials").field("len", &len).finish_non_exhaustive()
    }
}

fn check_user_name(name: &str) -> Result<(), Error> {
    let invalid = |why| Err(Error::InvalidUserName { name: name.chars().take(USER_LEN * 2).collect(), why });
    if name.starts_with("ASIA") {
        return invalid("it belongs to temporary credentials, which can not send by SMTP");
    }
    if name.len() != USER_LEN {
        return invalid("it must have 20 characters");
    }
    if !name.starts_with(USER_PREFIX) {
        return invalid("it must begin with AKIA");
    }
    if !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
        return invalid("it must have only A-Z and 0-9");
    }
    Ok(())
}
