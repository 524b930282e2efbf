//! What a sender owns: SMTP credentials, configuration sets, pools, identities and suppression
//! lists, and the decisions about them.
//! Not the way a message takes: nothing here reads mail or talks to the network.
//!
//! Everything durable is a row of a [`postrider_store::Store`]. What a message's way asks
//! about (does this password fit, is this recipient suppressed) is answered from memory,
//! synchronously.

mod credential;
mod derive;
mod error;
mod guard;
mod keys;
mod sending;
mod settings;
mod suppression;

use postrider_base::{Clock, Random};
use postrider_store::Store;

use sending::Sending;

pub use credential::{AuthError, Authenticated, Credential, Credentials, Issued, NewCredential, RecipientOverflow};
pub use derive::{ImportedSecret, derive_smtp_password};
pub use error::Error;
pub use guard::{Ban, BanSettings, Consequence, Guard, Verdict};
pub use keys::{DkimKey, DkimKeys, KeyOrigin, KeyState, Sealed};
pub use sending::{
    ConfigurationOption, ConfigurationSet, ConfigurationSets, DkimOptions, Identities, Identity, IdentityName,
    MailFrom, MailFromFailure, MailedLink, Pool, PoolMember, PoolName, Pools, Resolved, TlsPolicy, Verification,
    VerificationStatus,
};
pub use settings::Settings;
pub use suppression::{
    Filter, Format, ImportEntry, ImportReport, Parsed, RefusedLine, Suppressed, Suppression, export, parse,
};

/// Handle on the state of all accounts. Clones share it.
#[derive(Clone, Debug)]
pub struct Accounts {
    credentials: Credentials,
    guard: Guard,
    dkim_keys: DkimKeys,
    sending: Sending,
    suppression: Suppression,
}

impl Accounts {
    /// Loads what must be answered from memory: all credentials, configuration sets, pools,
    /// identities and DKIM keys, and 8 bytes for each suppressed address.
    ///
    /// # Errors
    /// [`Error::Store`] when the store can not be read.
    pub fn open(store: &Store, clock: &Clock, random: &Random, settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            credentials: Credentials::open(store, clock.clone(), random.clone(), settings)?,
            guard: Guard::open(store, clock.clone(), random, &settings.bans)?,
            dkim_keys: DkimKeys::open(store, settings)?,
            sending: Sending::open(store, settings)?,
            suppression: Suppression::open(store, clock.clone(), random, settings)?,
        })
    }

    /// Who may submit mail.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Who guesses passwords.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The rules that messages choose by name.
    #[must_use]
    pub fn configuration_sets(&self) -> &ConfigurationSets {
        &self.sending.sets
    }

    /// Which addresses mail leaves from.
    #[must_use]
    pub fn pools(&self) -> &Pools {
        &self.sending.pools
    }

    /// Whom mail is sent from.
    #[must_use]
    pub fn identities(&self) -> &Identities {
        &self.sending.identities
    }

    /// What mail is signed with.
    #[must_use]
    pub fn dkim_keys(&self) -> &DkimKeys {
        &self.dkim_keys
    }

    /// Who must not be sent mail.
    #[must_use]
    pub fn suppression(&self) -> &Suppression {
        &self.suppression
    }
}

#[cfg(test)]
mod tests;
