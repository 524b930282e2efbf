//! Operations on DKIM keys.

use std::sync::Arc;

use postrider_account::{DkimKey, IdentityName, KeyOrigin, KeyState};
use postrider_base::Timestamp;
use postrider_mail::{AccountId, DkimAlgorithm, Domain, Selector};
use postrider_mailauth::records::Data;
use postrider_submission::{KeyRing, KeyRingError};
use serde::{Deserialize, Serialize};

use crate::control::Deps;
use crate::{Error, Response, Secret, moment};

/// Actions on the DKIM keys of an account's domains.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DkimOperation {
    /// Makes the three keys of a domain that the relay looks after.
    Create {
        /// Whose.
        account: AccountId,
        /// A domain identity of the account.
        domain: Domain,
        /// How they sign. Ed25519 is for a second signature, which this switches on.
        algorithm: DkimAlgorithm,
    },
    /// Forgets a key.
    Delete {
        /// Whose.
        account: AccountId,
        /// The domain.
        domain: Domain,
        /// The key.
        selector: Selector,
        /// Though mail that it signed may be under way.
        force: bool,
    },
    /// Takes a key that the domain's owner has made.
    Import {
        /// Whose.
        account: AccountId,
        /// A domain identity of the account.
        domain: Domain,
        /// Its name in the DNS.
        selector: Selector,
        /// The private key: PEM, or base64 on one line.
        key: Secret,
        /// Its record is published: it signs at once.
        now: bool,
    },
    /// Keys, private halves apart.
    List {
        /// Whose.
        account: AccountId,
        /// Of this domain alone.
        domain: Option<Domain>,
    },
    /// Lets a key sign no more.
    Retire {
        /// Whose.
        account: AccountId,
        /// The domain.
        domain: Domain,
        /// The key.
        selector: Selector,
        /// Though nothing signs in its place.
        force: bool,
    },
    /// Lets the next keys sign in the place of the current ones.
    Rotate {
        /// Whose.
        account: AccountId,
        /// The domain.
        domain: Domain,
        /// This key.
        selector: Option<Selector>,
        /// Though its record has not been seen.
        force: bool,
    },
    /// One key.
    Show {
        /// Whose.
        account: AccountId,
        /// The domain.
        domain: Domain,
        /// The key.
        selector: Selector,
    },
}

/// A key without its private half.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DkimKeyView {
    /// The domain that signatures name.
    pub domain: Domain,
    /// Its name in the DNS.
    pub selector: Selector,
    /// How it signs.
    pub algorithm: DkimAlgorithm,
    /// `current`, `next` or `retired`.
    pub state: KeyState,
    /// Since when.
    #[serde(with = "moment")]
    pub since: Timestamp,
    /// `managed` by the relay, or its owner's `own`.
    pub origin: KeyOrigin,
    /// When it was made or given.
    #[serde(with = "moment")]
    pub created: Timestamp,
    /// When its record was last seen in the DNS as it should be.
    #[serde(with = "moment::optional")]
    pub seen: Option<Timestamp>,
    /// Until when a retired key must stay published.
    #[serde(with = "moment::optional")]
    pub published_until: Option<Timestamp>,
    /// The name of the TXT record to publish.
    pub record_name: String,
    /// Its text.
    pub record: String,
    /// Its text as a zone file has it, in strings of at most 255 octets.
    pub zone_text: String,
}

impl DkimOperation {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "dkim-create",
            Self::Delete { .. } => "dkim-delete",
            Self::Import { .. } => "dkim-import",
            Self::List { .. } => "dkim-list",
            Self::Retire { .. } => "dkim-retire",
            Self::Rotate { .. } => "dkim-rotate",
            Self::Show { .. } => "dkim-show",
        }
    }

    pub(crate) async fn execute(self, deps: &Deps) -> Result<Response, Error> {
        let (accounts, ring) = (&deps.accounts, &deps.ring);
        // Without a daemon the DNS may be out of reach: who forces a change does not wait for it.
        let is_offline = deps.upkeep.is_none();
        let view = |keys: Vec<Arc<DkimKey>>| Response::DkimKeys(keys.iter().map(|key| view(ring, key)).collect());
        Ok(match self {
            Self::Create { account, domain, algorithm } => {
                let made = ring.create_managed(account, &domain, algorithm).await?;
                if algorithm == DkimAlgorithm::Ed25519Sha256 {
                    let name = IdentityName::Domain(domain);
                    accounts.identities().change(account, &name, |identity| identity.dkim.ed25519 = true).await?;
                }
                view(made)
            }
            Self::Delete { account, domain, selector, force } => {
                if force && !is_offline {
                    look_at_next(deps, account, &domain).await?;
                }
                ring.delete(account, &domain, &selector, force).await?;
                Response::Changed { count: 1 }
            }
            Self::Import { account, domain, selector, key, now } => {
                let taken = ring.import(account, &domain, selector.clone(), key.expose()).await?;
                if now {
                    let changed = ring.rotate(account, &domain, Some(&selector), true).await?;
                    return Ok(view(changed.into_iter().filter(|key| key.selector == selector).collect()));
                }
                view(vec![taken])
            }
            Self::List { account, domain: Some(domain) } => view(ring.table().of_domain(account, &domain)),
            Self::List { account, domain: None } => view(ring.table().list(account)),
            Self::Retire { account, domain, selector, force } => {
                if !(force && is_offline) {
                    look_at_next(deps, account, &domain).await?;
                }
                ring.retire(account, &domain, &selector, force).await?;
                Response::Changed { count: 1 }
            }
            Self::Rotate { account, domain, selector, force } => {
                if !force {
                    look_at_next(deps, account, &domain).await?;
                }
                view(ring.rotate(account, &domain, selector.as_ref(), force).await?)
            }
            Self::Show { account, domain, selector } => {
                let absent = || Error::NotFound(format!("there is no DKIM key {}", selector.record_name(&domain)));
                view(vec![ring.table().find(account, &domain, &selector).ok_or_else(absent)?])
            }
        })
    }
}

/// What was seen long ago may be gone: nothing takes its turn by it.
async fn look_at_next(deps: &Deps, account: AccountId, domain: &Domain) -> Result<(), Error> {
    match &deps.world.resolver {
        Ok(resolver) => Ok(postrider_upkeep::look_at_next(resolver, &deps.ring, account, domain).await?),
        // What was seen lately still counts.
        Err(_) => Ok(()),
    }
}

fn view(ring: &KeyRing, key: &DkimKey) -> DkimKeyView {
    DkimKeyView {
        domain: key.domain.clone(),
        selector: key.selector.clone(),
        algorithm: key.algorithm,
        state: key.state,
        since: key.since,
        origin: key.origin,
        created: key.created,
        seen: key.seen,
        published_until: ring.published_until(key),
        record_name: key.record_name(),
        record: key.public.clone(),
        zone_text: Data::Txt(key.public.clone()).presentation(),
    }
}

impl From<KeyRingError> for Error {
    fn from(error: KeyRingError) -> Self {
        match error {
            KeyRingError::Account(error) => error.into(),
            KeyRingError::Interrupted | KeyRingError::Seal(_) => Self::Failed(error.to_string()),
            error => Self::Invalid(error.to_string()),
        }
    }
}
