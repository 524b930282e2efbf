//! Operations on SMTP credentials.

use postrider_account::{
    Accounts, Credential, Error as AccountError, ImportedSecret, NewCredential as Wanted, PolicyOwner,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{CredentialOperation, CredentialView, Error, NewCredential, Response, Secret};

pub(crate) async fn execute(
    accounts: &Accounts,
    region: &str,
    operation: CredentialOperation,
) -> Result<Response, Error> {
    let credentials = accounts.credentials();
    match operation {
        CredentialOperation::Create { account, label, recipient_overflow, sandbox } => {
            let wanted = Wanted { account, label, region: region.to_owned(), recipient_overflow, sandbox };
            let issued = credentials.create(wanted).await?;
            Ok(Response::Credential(NewCredential {
                user_name: issued.credential.user_name,
                account: issued.credential.account,
                secret_access_key: Some(Secret::new(issued.secret_access_key.expose_secret().to_owned())),
                smtp_password: Some(Secret::new(issued.smtp_password.expose_secret().to_owned())),
            }))
        }
        CredentialOperation::Delete { user_name } => {
            credentials.delete(&user_name).await?;
            accounts.policies().forget(&PolicyOwner::Credential(user_name)).await?;
            Ok(Response::Changed { count: 1 })
        }
        CredentialOperation::Disable { user_name } => {
            credentials.disable(&user_name).await?;
            Ok(Response::Changed { count: 1 })
        }
        CredentialOperation::Enable { user_name } => {
            credentials.enable(&user_name).await?;
            Ok(Response::Changed { count: 1 })
        }
        CredentialOperation::Import { account, label, user_name, secret, recipient_overflow, sandbox } => {
            let secret = ImportedSecret::parse(&SecretString::from(secret.expose().to_owned()))?;
            let wanted = Wanted { account, label, region: region.to_owned(), recipient_overflow, sandbox };
            accounts.policies().forget_remains(&PolicyOwner::Credential(user_name.clone())).await?;
            let credential = credentials.import(&user_name, secret, wanted).await?;
            Ok(Response::Credential(NewCredential {
                user_name: credential.user_name,
                account: credential.account,
                secret_access_key: None,
                smtp_password: None,
            }))
        }
        CredentialOperation::Sandbox { user_name, sandbox } => {
            credentials.set_sandbox(&user_name, sandbox).await?;
            Ok(Response::Changed { count: 1 })
        }
        CredentialOperation::List => Ok(Response::Credentials(credentials.list().into_iter().map(view).collect())),
    }
}

fn view(credential: Credential) -> CredentialView {
    CredentialView {
        user_name: credential.user_name,
        account: credential.account,
        label: credential.label,
        region: credential.region,
        created: credential.created_at,
        disabled: credential.disabled,
        recipient_overflow: credential.recipient_overflow,
        sandbox: credential.sandbox,
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
