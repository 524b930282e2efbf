//! What can go wrong with account state.

/// Why an operation on account state was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operator's: a secret that is neither an SMTP password nor a secret
    /// access key. The text explains and never repeats the secret. Does not pass.
    #[error("the secret can not be used: {0}")]
    InvalidSecret(String),
    /// The operator's: a user name that SES would not have handed out. Does not pass.
    #[error("user name {name:?} can not be used: {why}")]
    InvalidUserName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operator's: a label that is too long or has control characters. Does not pass.
    #[error("the label can not be used: {0}")]
    InvalidLabel(&'static str),
    /// The operator's: the user name is taken. Passes when that credential is deleted.
    #[error("user name {0} already exists; delete it first to change its password")]
    UserExists(String),
    /// The operator's: there is no such user name. Does not pass.
    #[error("there is no credential with user name {0}")]
    NoSuchUser(String),
    /// The operator's: a value that is not allowed. Does not pass.
    #[error("the {what} can not be made so: {reason}")]
    Invalid {
        /// What it is a value of.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operator's: the name is taken (SES: `AlreadyExistsException`). Passes when the
    /// other one is deleted.
    #[error("{what} {name} already exists")]
    AlreadyExists {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The operator's: there is none of this name (SES: `NotFoundException`). Does not pass.
    #[error("there is no {what} {name}")]
    NotFound {
        /// What it would be.
        what: &'static str,
        /// The name, printable.
        name: String,
    },
    /// The operator's: something else needs it. Passes when that is changed.
    #[error("{what} {name} is in use by {by}")]
    InUse {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
        /// What needs it.
        by: String,
    },
    /// The operator's: a bound of the settings is reached. Passes when entries
    /// are deleted or the named setting is raised.
    #[error("account.{setting} = {bound} is reached")]
    Full {
        /// The key of the settings.
        setting: &'static str,
        /// Its value.
        bound: u64,
    },
    /// The machine's: the audit log can not be written, and so nothing may be changed, or not
    /// be read. Passes when the disk has room and works.
    #[error("the audit log can not be {doing}: {error}")]
    Audit {
        /// `written` or `read`.
        doing: &'static str,
        /// What the disk says.
        #[source]
        error: std::io::Error,
    },
    /// The operator's: a policy that can not be used; the text names the place in it. Does not
    /// pass.
    #[error("the policy can not be used: {0}")]
    Policy(#[from] crate::PolicyError),
    /// The machine's: the store could not read or write. The store says whether it passes.
    #[error(transparent)]
    Store(#[from] postrider_store::Error),
}
