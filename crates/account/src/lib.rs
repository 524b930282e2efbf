//! What a sender owns: SMTP credentials, configuration sets, pools, identities and suppression
//! lists, and the decisions about them.
//! Not the way a message takes: nothing here reads mail or talks to the network.
//!
//! Everything durable is a row of a [`postrider_store::Store`]. What a message's way asks
//! about (does this password fit, is this recipient suppressed) is answered from memory,
//! synchronously.

mod arn;
mod audit;
mod credential;
mod derive;
mod error;
mod guard;
mod keys;
mod lookup;
mod policy;
mod quota;
mod reputation;
#[cfg(test)]
mod samples;
mod sending;
mod settings;
mod suppression;
mod tags;
mod tenant;

use std::collections::HashSet;

use postrider_base::{Clock, Random};
use postrider_mail::AccountId;
use postrider_store::Store;

pub use arn::{Arn, ArnError, Realm};
pub use audit::{Actor, Audit, AuditEntry, AuditFile, AuditFilter, AuditRecord, Audited, UserIdentity, shortened};
pub use credential::{
    AuthError, Authenticated, Credential, CredentialOption, Credentials, Issued, NewCredential, RecipientOverflow,
};
pub use derive::{ImportedSecret, derive_smtp_password};
pub use error::Error;
pub use guard::{Ban, BanSettings, Consequence, Guard, Verdict};
pub use keys::{DkimKey, DkimKeys, KeyOrigin, KeyState, Sealed};
pub use policy::{
    Attached, Deciding, Policies, Policy, PolicyDecision, PolicyEdit, PolicyError, PolicyOwner, PolicyRequest,
    PolicySet, PolicyVerdict, SEND_RAW_EMAIL, SenderRole, SendingRequest, UsedAddress, UsedIdentity,
};
pub use quota::{Exceeded, Holder, Limits, Quotas, Reservation, Sent, Usage};
pub use reputation::{
    Counted, Counts, EnforcementStatus, MetricStatus, Notice, Reputation, ReputationSettings, Sender, Situation,
    Standing, Step, Tally,
};
pub use sending::{
    ConfigurationOption, ConfigurationSet, ConfigurationSets, DestinationTarget, Dimension, DimensionSource,
    DkimOptions, EventDestination, EventType, Identities, Identity, IdentityName, MailFrom, MailFromFailure,
    MailedLink, Pool, PoolMember, PoolName, Pools, Resolved, TlsPolicy, Verification, VerificationStatus,
};
pub use settings::Settings;
pub use suppression::{
    Addresses, Filter, Format, GlobalList, GloballySuppressed, ImportEntry, ImportReport, Parsed, RefusedLine,
    Suppressed, Suppression, export, export_globally, parse, parse_addresses,
};
pub use tenant::{Pause, PausedBy, Sending, Tenant, TenantOption, Tenants};

/// Handle on the state of all accounts. Clones share it.
#[derive(Clone, Debug)]
pub struct Accounts {
    audit: Audit,
    credentials: Credentials,
    guard: Guard,
    dkim_keys: DkimKeys,
    quotas: Quotas,
    policies: Policies,
    reputation: Reputation,
    sending: sending::Sending,
    suppression: Suppression,
    tenants: Tenants,
}

impl Accounts {
    /// Loads what must be answered from memory: all credentials, configuration sets, pools,
    /// identities and DKIM keys, and 2 bytes for each suppressed address.
    ///
    /// # Errors
    /// [`Error::Store`] when the store can not be read.
    pub fn open(store: &Store, clock: &Clock, random: &Random, settings: &Settings) -> Result<Self, Error> {
        let credentials = Credentials::open(store, clock.clone(), random.clone(), settings)?;
        let sending = sending::Sending::open(store, settings)?;
        let policies = Policies::open(store, credentials.clone(), sending.identities.clone(), settings)?;
        let tenants = Tenants::open(store, clock.clone(), settings)?;
        let reputation = Reputation::open(store, tenants.clone(), sending.sets.clone(), settings.reputation.clone())?;
        Ok(Self {
            audit: Audit::default(),
            credentials,
            guard: Guard::open(store, clock.clone(), random, &settings.bans)?,
            dkim_keys: DkimKeys::open(store, settings)?,
            quotas: Quotas::open(store, clock.clone(), settings)?,
            policies,
            reputation,
            sending,
            suppression: Suppression::open(store, tenants.clone(), clock.clone(), random, settings)?,
            tenants,
        })
    }

    /// The same, with changes recorded in this log; without, they are not.
    #[must_use]
    pub fn with_audit(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// Who changed what.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
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

    /// Who may do what.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// How much may still be sent.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// How many of their recipients bounce.
    #[must_use]
    pub fn reputation(&self) -> &Reputation {
        &self.reputation
    }

    /// Who must not be sent mail.
    #[must_use]
    pub fn suppression(&self) -> &Suppression {
        &self.suppression
    }

    /// Whose all of this is.
    #[must_use]
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// Forgets an account that owns nothing any more. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NotFound`] or [`Error::Store`].
    pub async fn delete_tenant(&self, id: AccountId) -> Result<(), Error> {
        // None is made meanwhile, which would send without the account's bounds.
        let _unchanging = self.credentials.hold().await;
        self.check_unused(id, &self.with_credentials())?;
        self.tenants.delete(id).await
    }

    /// Shows each of these accounts to `edit`, as it is, and puts what that gives in its place;
    /// none forgets it, which owns nothing any more. All of it or nothing; durable when it
    /// returns. Numbers and times of creation stay.
    ///
    /// # Errors
    /// What `edit` refuses, [`Error::InUse`], [`Error::Invalid`], [`Error::Full`] or
    /// [`Error::Store`].
    pub async fn edit_tenants<E: From<Error>>(
        &self,
        ids: &[AccountId],
        mut edit: impl FnMut(usize, Option<&Tenant>) -> Result<Option<Tenant>, E>,
    ) -> Result<(), E> {
        let _unchanging = self.credentials.hold().await;
        // Once for all of them: there may be many of either.
        let with_credentials = self.with_credentials();
        let checked = |index: usize, made: Option<&Tenant>| {
            let edited = edit(index, made)?;
            if edited.is_none() {
                self.check_unused(ids[index], &with_credentials)?;
            }
            Ok(edited)
        };
        self.tenants.edit(ids, checked).await
    }

    /// Whether there is such an account: it was made, is the one that every install has, or
    /// owns anything.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn has_tenant(&self, id: AccountId) -> Result<bool, Error> {
        let is_made = id == AccountId::default() || self.tenants.made(id).is_some();
        Ok(is_made || self.possession_of(id, &self.with_credentials())?.is_some())
    }

    fn check_unused(&self, id: AccountId, with_credentials: &HashSet<AccountId>) -> Result<(), Error> {
        match self.possession_of(id, with_credentials)? {
            Some(possession) => Err(Error::InUse { what: "account", name: id.to_string(), by: possession.to_owned() }),
            None => Ok(()),
        }
    }

    /// The accounts that own credentials.
    fn with_credentials(&self) -> HashSet<AccountId> {
        self.credentials.list().iter().map(|credential| credential.account).collect()
    }

    /// Something that the account owns.
    fn possession_of(
        &self,
        id: AccountId,
        with_credentials: &HashSet<AccountId>,
    ) -> Result<Option<&'static str>, Error> {
        let is_suppressing = || self.suppression.list(id, Filter::default()).next().transpose();
        let possessions = [
            ("its credentials", with_credentials.contains(&id)),
            ("its identities", !self.identities().list(id).is_empty()),
            ("its configuration sets", !self.configuration_sets().list(id).is_empty()),
            ("its pools", !self.pools().list(id).is_empty()),
            (
                "its suppression list, which `postrider suppression import --delete` empties",
                is_suppressing()?.is_some(),
            ),
        ];
        Ok(possessions.iter().find(|(_, owns)| *owns).map(|(what, _)| *what))
    }
}

#[cfg(test)]
mod tests;
