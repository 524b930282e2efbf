//! What can go wrong with keys.

use postrider_mail::Domain;
use postrider_mailauth::dkim::{KeyError, SealError, SignError};

/// Why something was not done with a key, or not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// The operator's: keys are for domains of the account. Passes when the identity is made.
    #[error("{0} is no domain identity of this account; create the identity first")]
    NotOurs(Domain),
    /// The operator's: there are such keys already. Passes when those are deleted.
    #[error("{0} has managed keys of this kind already; `postrider dkim rotate {0}` changes keys")]
    Managed(Domain),
    /// The world's: receivers would not find the key. Passes when the record is published.
    #[error("the record {0} has not been seen in the DNS as it should be: publish it first, or force the change")]
    NotSeen(String),
    /// The operator's: there is no key to go on with. Passes when one is made.
    #[error("{0} has no next key; make or import one first")]
    NoNext(Domain),
    /// The operator's: nothing would sign in the place of this key. Passes when the record of
    /// a next one is published.
    #[error("{0} signs, and no next key has been seen in the DNS: mail would be sent unsigned, unless you force it")]
    LastKey(String),
    /// The operator's: mail that the key signed can be under way. Passes by itself.
    #[error("the key signs, or mail that it signed may still be verified; retire it and wait, or force its deletion")]
    StillNeeded,
    /// The operator's or the machine's: the table refused or failed.
    #[error(transparent)]
    Account(#[from] postrider_account::Error),
    /// Whoever gave the key, or the machine: the key can not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The operator's: the private keys can not be opened, or no more sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The sender's: the message has no author.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The sender's: the header is over its bounds with what has been added to it. Does not
    /// pass.
    #[error(transparent)]
    Header(postrider_mail::Error),
    /// Ours: the relay is stopping. Passes with a restart.
    #[error("the work on a key was cut off")]
    Interrupted,
}
