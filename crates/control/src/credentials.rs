//! Operations on SMTP credentials.

use postrider_account::{
    Credential, CredentialOption, Error as AccountError, Holder, ImportedSecret, Limits, NewCredential as Wanted,
    PolicyOwner, RecipientOverflow,
};
use postrider_mail::AccountId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::control::Deps;
use crate::{CredentialView, Error, NewCredential, Response, Secret};

/// Credentials in one item of the answer.
const PAGE: usize = 1_000;

/// Actions on SMTP credentials.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialOperation {
    /// Makes a user name and a secret; the answer is the only place where the secret is shown.
    Create(CredentialRequest),
    /// Removes a credential for good.
    Delete {
        /// Its user name.
        user_name: String,
    },
    /// Refuses the credential until it is enabled again.
    Disable {
        /// Its user name.
        user_name: String,
    },
    /// Accepts a disabled credential again.
    Enable {
        /// Its user name.
        user_name: String,
    },
    /// Takes over an existing credential, so that its clients change only the host.
    Import {
        /// The access key id that clients already use as their user name.
        user_name: String,
        /// Its SMTP password or its secret access key; the two are told apart by their length.
        secret: Secret,
        /// The rest of it.
        #[serde(flatten)]
        request: CredentialRequest,
    },
    /// All credentials, without secrets, in pages, in the order of their user names.
    List,
    /// Changes a credential; it holds for the next message.
    Set {
        /// Its user name.
        user_name: String,
        /// What is to be otherwise.
        options: Vec<CredentialOption>,
    },
    /// One of them.
    Show {
        /// Its user name.
        user_name: String,
    },
}

/// What is chosen for a new credential.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CredentialRequest {
    /// The account that sends with it.
    pub account: AccountId,
    /// A name for people, at most 64 characters.
    #[serde(default)]
    pub label: String,
    /// What its messages with too many recipients meet.
    #[serde(default)]
    pub recipient_overflow: RecipientOverflow,
    /// Whether it is for trying things out.
    #[serde(default)]
    pub sandbox: bool,
    /// Most recipients in any 24 hours, of what the account may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_quota: Option<u64>,
    /// Most recipients a second, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<u32>,
}

impl CredentialOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "credentials-create",
            Self::Delete { .. } => "credentials-delete",
            Self::Disable { .. } => "credentials-disable",
            Self::Enable { .. } => "credentials-enable",
            Self::Import { .. } => "credentials-import",
            Self::List => "credentials-list",
            Self::Set { .. } => "credentials-set",
            Self::Show { .. } => "credentials-show",
        }
    }

    pub(crate) async fn execute(self, deps: &Deps, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
        let (accounts, credentials) = (&deps.accounts, deps.accounts.credentials());
        let response = match self {
            Self::Create(request) => {
                let issued = credentials.create(request.into_wanted(deps)).await?;
                Response::Credential(NewCredential {
                    user_name: issued.credential.user_name,
                    account: issued.credential.account,
                    secret_access_key: Some(Secret::new(issued.secret_access_key.expose_secret().to_owned())),
                    smtp_password: Some(Secret::new(issued.smtp_password.expose_secret().to_owned())),
                })
            }
            Self::Delete { user_name } => {
                credentials.delete(&user_name).await?;
                accounts.policies().forget(&PolicyOwner::Credential(user_name)).await?;
                Response::Changed { count: 1 }
            }
            Self::Disable { user_name } => {
                credentials.disable(&user_name).await.map(|_| Response::Changed { count: 1 })?
            }
            Self::Enable { user_name } => {
                credentials.enable(&user_name).await.map(|_| Response::Changed { count: 1 })?
            }
            Self::Import { user_name, secret, request } => import(deps, user_name, &secret, request).await?,
            Self::List => return list(deps, answer).await,
            Self::Set { user_name, options } => {
                let credential = credentials.set(&user_name, options).await?;
                Response::Credentials(vec![view(deps, credential)])
            }
            Self::Show { user_name } => {
                let credential = credentials.get(&user_name).ok_or(AccountError::NoSuchUser(user_name))?;
                Response::Credentials(vec![view(deps, credential)])
            }
        };
        // Nobody receives: the asker has gone, and the operation is done all the same.
        let _ = answer.send(response).await;
        Ok(())
    }
}

impl CredentialRequest {
    fn into_wanted(self, deps: &Deps) -> Wanted {
        let Self { account, label, recipient_overflow, sandbox, daily_quota, max_rate } = self;
        let region = deps.about.region.clone();
        Wanted { account, label, region, recipient_overflow, sandbox, daily_quota, max_rate }
    }
}

async fn import(
    deps: &Deps,
    user_name: String,
    secret: &Secret,
    request: CredentialRequest,
) -> Result<Response, Error> {
    let secret = ImportedSecret::parse(&SecretString::from(secret.expose().to_owned()))?;
    deps.accounts.policies().forget_remains(&PolicyOwner::Credential(user_name.clone())).await?;
    let credential = deps.accounts.credentials().import(&user_name, secret, request.into_wanted(deps)).await?;
    Ok(Response::Credential(NewCredential {
        user_name: credential.user_name,
        account: credential.account,
        secret_access_key: None,
        smtp_password: None,
    }))
}

async fn list(deps: &Deps, answer: &mpsc::Sender<Response>) -> Result<(), Error> {
    let mut credentials = deps.accounts.credentials().list().into_iter().map(|credential| view(deps, credential));
    // One page at least: an empty answer would be none.
    loop {
        let page: Vec<_> = credentials.by_ref().take(PAGE).collect();
        let is_last = page.len() < PAGE;
        if answer.send(Response::Credentials(page)).await.is_err() || is_last {
            return Ok(());
        }
    }
}

fn view(deps: &Deps, credential: Credential) -> CredentialView {
    let holder = Holder::Credential(credential.user_name.clone());
    let in_force = Limits::of_credential(&credential);
    CredentialView {
        sent_last_24_hours: deps.accounts.quotas().usage(holder, deps.world.clock.now()).sent_last_24_hours,
        user_name: credential.user_name,
        account: credential.account,
        label: credential.label,
        region: credential.region,
        created: credential.created_at,
        disabled: credential.disabled,
        recipient_overflow: credential.recipient_overflow,
        sandbox: credential.sandbox,
        daily_quota: in_force.per_day,
        max_rate: in_force.per_second,
    }
}

impl From<AccountError> for Error {
    fn from(error: AccountError) -> Error {
        let text = error.to_string();
        match error {
            AccountError::NoSuchUser(_) | AccountError::NotFound { .. } => Error::NotFound(text),
            AccountError::Audit { .. } | AccountError::Store(_) => Error::Failed(text),
            _ => Error::Invalid(text),
        }
    }
}
