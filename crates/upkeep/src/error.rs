//! What can go wrong with upkeep.

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state of the accounts could not be read or written, or has no such identity. The
    /// account room says whose fault it is and whether it passes.
    #[error(transparent)]
    Account(#[from] postrider_account::Error),
    /// The operator's: the configuration does not say where links lead. Does not pass.
    #[error("no link can be mailed: upkeep.link_url is not set; the operator can declare the address trusted instead")]
    NoLinks,
    /// The relay's: the mail with the link could not be queued. Passes.
    #[error("the link could not be mailed: {0}")]
    NotMailed(String),
    /// The operator's: the identity has no custom MAIL FROM domain. Does not pass.
    #[error("identity {0} has no MAIL FROM domain")]
    NoMailFrom(String),
}
